//! What a run gives up: for its report, and to be kept.

use std::io;
use std::path::Path;

use crate::causes::with_causes;
use crate::lost::export::{Export, ExportOptions, LostCounter, LostSummary};
use crate::lost::{
    LostChange, LostError, LostHistory, LostRequest, LostSink, LostTransaction, SinkError, list,
};
use crate::options::Options;
use crate::plan::Facts;
use crate::target::disk::Disk;

/// WAL beyond this many bytes is not read a second time for a summary in a rewind's plan: `kbrecover lost` reads it.
const SUMMARY_BYTES: u64 = 256 << 20;

/// What the transactions that a rewind gives up have done, for its plan and report. `None` if there is much of it, or if it
/// cannot be told: that is no reason not to rewind.
pub(super) fn summary(options: &Options, facts: &Facts<'_>, root: &Path) -> Option<LostSummary> {
    let request = request(options, facts, root, None)?;
    if facts.fork.scanned.0 > SUMMARY_BYTES {
        return None;
    }
    let mut counter = LostCounter::default();
    match list(&request, &mut counter) {
        Ok(_) => Some(counter.summary()),
        Err(error) => {
            tracing::warn!("could not tell what the lost transactions have done: {}", with_causes(&error));
            None
        }
    }
}

/// Exports what a rewind gives up to a directory below `directory`, before the first change. A failure is logged: that the rows
/// are not listed is no reason not to rewind, for their WAL is saved. `reserve` bytes stay free, which the rewind needs.
pub(super) fn export(options: &Options, facts: &Facts<'_>, root: &Path, directory: &Path, reserve: u64) {
    let free = |number: u32| match number {
        1 => directory.join("lost"),
        _ => directory.join(format!("lost.{number}")),
    };
    let Some(to) = (1..1000).map(free).find(|path| path.symlink_metadata().is_err()) else { return };
    let Some(request) = request(options, facts, root, Some(&to)) else { return };
    let disk = Disk::new(options.stop.clone(), options.observer.clone());
    let exported = Export::create(&to, &disk, &ExportOptions::default(), None).map_err(LostError::from);
    let exported = exported.and_then(|mut files| {
        match list(&request, &mut Fitting::new(&mut files, directory, reserve)) {
            Ok(_) => Ok(files.finish()?),
            Err(error) => {
                files.end_early(&format!("{}.", with_causes(&error)))?;
                Err(error)
            }
        }
    });
    match exported {
        Ok(summary) => {
            tracing::info!("exported {} lost transactions to \"{}\"", summary.transactions, to.display())
        }
        Err(error) => tracing::warn!(
            "could not export the lost transactions to \"{}\": {}",
            to.display(),
            with_causes(&error)
        ),
    }
}

/// Passes on what was lost while more than `reserve` bytes are free.
struct Fitting<'a, S> {
    sink: S,
    directory: &'a Path,
    reserve: u64,
    changes: u64,
}

impl<S> Fitting<'_, S> {
    /// After this many changes the free space is looked up again.
    const CHANGES: u64 = 4096;

    fn new(sink: S, directory: &Path, reserve: u64) -> Fitting<'_, S> {
        Fitting { sink, directory, reserve, changes: 0 }
    }

    fn check(&mut self) -> Result<(), SinkError> {
        self.changes += 1;
        if self.changes % Self::CHANGES != 1 {
            return Ok(());
        }
        match rustix::fs::statvfs(self.directory) {
            Ok(found) if found.f_bavail.saturating_mul(found.f_frsize) <= self.reserve => {
                let path = self.directory.display().to_string();
                Err(SinkError { path, source: io::ErrorKind::StorageFull.into() })
            }
            _ => Ok(()),
        }
    }
}

impl<S: LostSink> LostSink for Fitting<'_, S> {
    fn begin(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.sink.begin(history)
    }

    fn transaction(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.sink.transaction(transaction)
    }

    fn change(&mut self, transaction: &LostTransaction, change: &LostChange) -> Result<(), SinkError> {
        self.check()?;
        self.sink.change(transaction, change)
    }

    fn transaction_end(&mut self, transaction: &LostTransaction) -> Result<(), SinkError> {
        self.sink.transaction_end(transaction)
    }

    fn end(&mut self, history: &LostHistory) -> Result<(), SinkError> {
        self.sink.end(history)
    }
}

/// What a run has found of the target's own WAL; `None` if it has lost nothing, or has not read it.
fn request<'a>(
    options: &'a Options,
    facts: &'a Facts<'_>,
    root: &'a Path,
    spool: Option<&Path>,
) -> Option<LostRequest<'a>> {
    let lost = facts.fork.lost.as_ref()?;
    let (start, end) = facts.fork.own_wal?;
    let has_any = lost.committed > 0 || !lost.undecided.is_empty();
    has_any.then_some(LostRequest {
        root,
        control: &facts.clusters.target,
        wal: &facts.wal,
        fork: facts.fork.divergence?,
        start,
        end,
        has_values: spool.is_some(),
        spool: spool.map(Path::to_path_buf),
        stop: &options.stop,
        progress: &|_| {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_leaves_the_space_that_the_rewind_needs() {
        let place = tempfile::tempdir().unwrap();
        let check = |reserve| Fitting::new(LostCounter::default(), place.path(), reserve).check();
        assert!(check(0).is_ok());
        assert_eq!(check(u64::MAX).unwrap_err().source.kind(), io::ErrorKind::StorageFull);
    }
}
