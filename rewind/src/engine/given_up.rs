//! What a run gives up: for its report, and to be kept.

use std::path::Path;

use crate::apply::keep_root::remove;
use crate::apply::kept::LOST;
use crate::causes::with_causes;
use crate::lost::export::{Export, ExportOptions, LostCounter, LostSummary};
use crate::lost::{LostError, LostRequest, count, list};
use crate::options::{Options, SpaceCheck};
use crate::plan::Facts;
use crate::target::disk::Disk;

/// WAL beyond this many bytes is not read a second time for what the scan has not noted: `kbrecover lost` reads it.
const READ_AGAIN: u64 = 256 << 20;

/// What the transactions that a rewind gives up have done, for its plan and report. `None` if it cannot be told: that is no reason
/// not to rewind.
pub(super) fn summary(options: &Options, facts: &Facts<'_>, root: &Path) -> Option<LostSummary> {
    let request = request(options, facts, root, None)?;
    let own = facts.fork.own_wal.as_ref()?;
    let counted = count(&request, &own.rows, &own.transactions);
    let is_much = facts.fork.scanned.0 > READ_AGAIN;
    let is_whole = matches!(&counted, Ok(Some(summary)) if summary.notes.is_empty());
    let summary = if is_whole || is_much {
        counted
    } else {
        tracing::debug!("reading the target's WAL again for what the lost transactions have done");
        read(&request).map(Some)
    };
    summary.unwrap_or_else(|error| {
        tracing::warn!("could not tell what the lost transactions have done: {}", with_causes(&error));
        None
    })
}

/// The same from every row.
fn read(request: &LostRequest<'_>) -> Result<LostSummary, LostError> {
    let mut counter = LostCounter::default();
    list(request, &mut counter)?;
    Ok(counter.summary())
}

/// Exports what a rewind gives up to a directory below `directory`, before the first change. A failure is logged: that the rows
/// are not listed is no reason not to rewind, for their WAL is saved. If there is no room for the rewind afterwards, as
/// `has_room` tells, the export is removed again.
pub(super) fn export(
    options: &Options,
    facts: &Facts<'_>,
    root: &Path,
    directory: &Path,
    has_room: &dyn Fn() -> bool,
) {
    let free = |number: u32| match number {
        1 => directory.join(LOST),
        _ => directory.join(format!("{LOST}.{number}")),
    };
    let Some(to) = (1..1000).map(free).find(|path| path.symlink_metadata().is_err()) else { return };
    let Some(request) = request(options, facts, root, Some(&to)) else { return };
    let disk = Disk::new(options.stop.clone(), options.observer.clone());
    let exported = export_to(&to, &disk, &request);
    let shown = to.display();
    match &exported {
        Ok(summary) => tracing::info!("exported {} lost transactions to \"{shown}\"", summary.transactions),
        Err(error) => {
            tracing::warn!("could not export the lost transactions to \"{shown}\": {}", with_causes(error));
        }
    }
    // With --ignore-free-space there may be more space than the system says, unless the export has failed for the lack of it.
    let is_checked = options.space == SpaceCheck::Enforce || exported.is_err();
    if is_checked && !has_room() && to.is_dir() {
        match remove(&to, &disk) {
            Ok(()) => tracing::warn!("removed \"{shown}\" again: the rewind needs the space"),
            Err(error) => {
                tracing::warn!("could not remove \"{shown}\", whose space the rewind needs: {error}")
            }
        }
    }
}

fn export_to(to: &Path, disk: &Disk, request: &LostRequest<'_>) -> Result<LostSummary, LostError> {
    let mut files = Export::create(to, disk, &ExportOptions::default(), None)?;
    match list(request, &mut files) {
        Ok(_) => Ok(files.finish()?),
        Err(error) => {
            // That its end cannot be written either says less than why it ended.
            let _ = files.end_early(&format!("{}.", with_causes(&error)));
            Err(error)
        }
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
    let own = facts.fork.own_wal.as_ref()?;
    let has_any = lost.committed > 0 || !lost.undecided.is_empty();
    has_any.then_some(LostRequest {
        root,
        control: &facts.clusters.target,
        wal: &facts.wal,
        fork: facts.fork.divergence?,
        start: own.start,
        end: own.end,
        has_values: spool.is_some(),
        spool: spool.map(Path::to_path_buf),
        stop: &options.stop,
        progress: &|_| {},
    })
}
