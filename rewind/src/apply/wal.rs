//! WAL that is copied before all data is: a running source recycles what it no longer needs itself, and a
//! copy may take hours.
//!
//! Only segments whose names are new to the target are copied so: nothing of its own WAL is lost by that,
//! which must stay until all data is there.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::apply::copy::{Transfer, copy_wal};
use crate::apply::error::ApplyError;
use crate::datadir::data_path::{DataPath, wal_path};
use crate::options::SourceLife;
use crate::plan::wal::WalCopy;
use crate::plan::{Planned, plan_wal_now};
use crate::wal::error::WalError;

/// How often the source is asked for segments it has completed: far more often than it makes checkpoints.
const PAUSE: Duration = Duration::from_secs(2);

/// What is copied, and the way.
#[derive(Clone, Copy)]
pub(crate) struct Copying<'a> {
    pub(crate) planned: &'a Planned<'a>,
    pub(crate) transfer: &'a Transfer<'a>,
}

/// The segments copied so far.
#[derive(Default)]
pub(crate) struct EarlyWal {
    pub(crate) names: BTreeSet<String>,
    pub(crate) bytes: u64,
}

/// Copies the segments that are complete on the source, does `work`, and copies meanwhile those that the
/// source completes.
pub(crate) fn copy_during<T>(
    copying: Copying<'_>,
    life: SourceLife,
    work: impl FnOnce() -> Result<T, ApplyError>,
) -> Result<(T, EarlyWal), ApplyError> {
    let mut early = EarlyWal::default();
    early.copy_complete(copying, &copying.planned.plan.wal.copy)?;
    if life == SourceLife::Stopped {
        return Ok((work()?, early));
    }
    std::thread::scope(|scope| {
        let (at_work, done) = channel::<()>();
        let early = scope.spawn(move || follow(copying, early, &done));
        let worked = work();
        drop(at_work);
        let early = early.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((worked?, early?))
    })
}

/// Copies what the source completes until the work is done.
fn follow(copying: Copying<'_>, mut early: EarlyWal, done: &Receiver<()>) -> Result<EarlyWal, ApplyError> {
    let Copying { planned, transfer } = copying;
    while done.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        let plan = plan_wal_now(&planned.facts, transfer.source)?;
        match early.copy_complete(copying, &plan.copy) {
            // Too late for this one. The end will tell whether it is to be had elsewhere.
            Err(ApplyError::Wal(WalError::Vanished { path })) => {
                tracing::debug!("\"{path}\" is gone from the source")
            }
            other => other?,
        }
    }
    Ok(early)
}

impl EarlyWal {
    /// Copies those of the files that are complete, new to the target and not there yet.
    fn copy_complete(&mut self, copying: Copying<'_>, files: &[WalCopy]) -> Result<(), ApplyError> {
        let Copying { planned, transfer } = copying;
        let wal_dir = planned.facts.clusters.target.version().wal_dir();
        for file in files.iter().filter(|file| file.length == file.full_length) {
            let path = wal_path(wal_dir, &file.name)?;
            // What an unfinished run has brought is not the target's own.
            let is_own = match planned.facts.own_wal_files() {
                Some(own) => own.contains(&file.name),
                None => planned.facts.files.target.get(&path).is_some(),
            };
            if is_own || self.names.contains(&file.name) {
                continue;
            }
            self.bytes += copy_files([(path, file)], transfer)?;
            self.names.insert(file.name.clone());
        }
        Ok(())
    }
}

/// Copies files of the WAL directory.
pub(crate) fn copy_files<'a>(
    files: impl IntoIterator<Item = (DataPath, &'a WalCopy)>,
    transfer: &Transfer<'_>,
) -> Result<u64, ApplyError> {
    let files: Vec<_> = files.into_iter().map(|(path, file)| (path, file.length, file.full_length)).collect();
    let (bytes, missing) = copy_wal(&files, transfer)?;
    match missing.into_iter().next() {
        Some(path) => Err(WalError::Vanished { path }.into()),
        None => Ok(bytes),
    }
}
