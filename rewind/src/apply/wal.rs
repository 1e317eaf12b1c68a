//! Copies WAL while data is being copied: a running source recycles segments that it no longer needs, and copying
//! may take hours.
//!
//! Only segments whose names are new to the target are copied this early. The target's own WAL must stay until all
//! data has been copied.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::apply::copy::{Transfer, copy_wal};
use crate::apply::error::ApplyError;
use crate::datadir::data_path::{DataPath, wal_path};
use crate::options::SourceLife;
use crate::plan::wal::WalCopy;
use crate::plan::{Planned, plan_wal_now};
use crate::threads;
use crate::wal::error::WalError;

/// Pause between two requests for segments that the source has completed; far shorter than the interval of
/// checkpoints.
const PAUSE: Duration = Duration::from_secs(2);

/// The plan, and what is needed to copy.
#[derive(Clone, Copy)]
pub(crate) struct Copying<'a> {
    pub(crate) planned: &'a Planned<'a>,
    pub(crate) transfer: &'a Transfer<'a>,
}

/// The segments copied early, and their bytes.
#[derive(Clone, Default)]
pub(crate) struct EarlyWal {
    pub(crate) names: BTreeSet<String>,
    pub(crate) bytes: u64,
}

/// Copies the segments that are complete on the source. Then does `work`; meanwhile copies those that a running
/// source completes. If one cannot be copied, the work ends as well: without the WAL it would be in vain.
///
/// # Errors
/// Those of `work`, or a segment could not be copied.
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
        let copied = early.clone();
        let follow = move || {
            let followed = follow(copying, early, &done);
            copying.transfer.in_vain.store(followed.is_err(), Ordering::Relaxed);
            followed
        };
        let follower = match threads::start(scope, follow) {
            Ok(follower) => follower,
            Err(error) => {
                tracing::warn!("WAL is copied only after the data, since no thread can be started: {error}");
                return Ok((work()?, copied));
            }
        };
        let worked = work();
        drop(at_work);
        let early = threads::join(follower)?;
        Ok((worked?, early))
    })
}

/// Copies the segments that the source completes until the work is done.
fn follow(copying: Copying<'_>, mut early: EarlyWal, done: &Receiver<()>) -> Result<EarlyWal, ApplyError> {
    let Copying { planned, transfer } = copying;
    while done.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        let plan = plan_wal_now(&planned.facts, transfer.source)?;
        match early.copy_complete(copying, &plan.copy) {
            // The source has recycled this segment. Sealing searches it elsewhere.
            Err(ApplyError::Wal(WalError::Vanished { path })) => {
                tracing::debug!("\"{path}\" no longer exists on the source")
            }
            other => other?,
        }
    }
    Ok(early)
}

impl EarlyWal {
    /// Copies those of the files that are complete, new to the target and not copied yet.
    fn copy_complete(&mut self, copying: Copying<'_>, files: &[WalCopy]) -> Result<(), ApplyError> {
        let Copying { planned, transfer } = copying;
        let wal_dir = planned.facts.clusters.target.version().wal_dir();
        for file in files.iter().filter(|file| file.length == file.full_length) {
            let path = wal_path(wal_dir, &file.name)?;
            // A file that an unfinished run copied is not the target's own. If data is compared, nothing of the target's WAL is
            // needed.
            let is_own = match planned.facts.own_wal_files() {
                _ if planned.facts.fork.is_by_comparing() => false,
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

/// Copies files of the WAL directory. Returns the bytes fetched.
///
/// # Errors
/// A file no longer exists on the source, or copying failed.
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
