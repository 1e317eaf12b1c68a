//! How many threads a run may start, and how many files it may open.
//!
//! Containers and `ulimit` limit both. Where a thread cannot be started, the libraries that a run is built on panic or wait for ever;
//! where a file cannot be opened in the middle of the changes, the rewind ends half-way. So both are tried out first, before anything is
//! read or changed.

use std::io;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use crate::error::RewindError;
use crate::options::{Options, RestoreCommand, UncleanTarget};

/// Something that the system limits: so many for a run, and so many more for each job that shares its work.
#[derive(Clone, Copy)]
struct Need {
    run: usize,
    job: usize,
}

/// Threads. Of a job one computes, one serves a connection, and one reads the source's WAL.
const THREADS: Need = Need { run: 5, job: 3 };

/// The same if programs are started, one at a time: a shell, what it starts, a thread that waits for them, and two that read what
/// they print.
const THREADS_AND_PROGRAMS: Need = Need { run: THREADS.run + 5, job: THREADS.job };

/// Open files: of a run those of its directories and programs, of a job a connection and the files that it copies to.
const FILES: Need = Need { run: 16, job: 4 };

impl Need {
    fn of(self, jobs: usize) -> usize {
        self.run + self.job * jobs
    }

    /// How many jobs `number` suffice for.
    fn jobs(self, number: usize) -> usize {
        number.saturating_sub(self.run) / self.job
    }
}

/// How many jobs may share the work, of so many that are `wanted`.
///
/// # Errors
/// There are too few threads or files for one.
pub(super) fn jobs(options: &Options, wanted: NonZeroUsize) -> Result<NonZeroUsize, RewindError> {
    let threads = if starts_programs(options) { THREADS_AND_PROGRAMS } else { THREADS };
    let (started, error) = start(threads.of(wanted.get()));
    let by_threads = if error.is_some() { threads.jobs(started) } else { wanted.get() };
    if let Some(source) = error.filter(|_| by_threads == 0) {
        return Err(RewindError::Threads { started, needed: threads.of(1), source });
    }
    let (opened, error) = open(FILES.of(wanted.get()));
    let by_files = if error.is_some() { FILES.jobs(opened) } else { wanted.get() };
    if let Some(source) = error.filter(|_| by_files == 0) {
        return Err(RewindError::Files { opened, needed: FILES.of(1), source });
    }
    Ok(NonZeroUsize::new(by_threads.min(by_files)).map_or(NonZeroUsize::MIN, |jobs| jobs.min(wanted)))
}

/// Whether a run may start programs: to fetch missing WAL, to archive, to complete the target's crash recovery.
fn starts_programs(options: &Options) -> bool {
    let recovers = matches!(options.unclean_target, UncleanTarget::Recover(_));
    recovers || options.archive_ready || options.missing_wal.restore_command != RestoreCommand::Off
}

/// Starts so many threads at once, ends them, and returns how many there were, and why there were no more.
fn start(number: usize) -> (usize, Option<io::Error>) {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let _closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        for started in 0..number {
            let wait = || drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
            if let Err(error) = Builder::new().name("trial".to_owned()).spawn_scoped(scope, wait) {
                return (started, Some(error));
            }
        }
        (number, None)
    })
}

/// Opens so many files at once, closes them, and returns how many there were, and why there were no more.
fn open(number: usize) -> (usize, Option<io::Error>) {
    let mut open = Vec::new();
    while 2 * open.len() < number {
        match UnixStream::pair() {
            Ok(pair) => open.push(pair),
            Err(error) => return (2 * open.len(), Some(error)),
        }
    }
    (number, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::SourceChoice;

    #[test]
    fn what_is_tried_is_ended() {
        for _ in 0..100 {
            let ((started, no_thread), (opened, no_file)) = (start(20), open(21));
            assert_eq!((started, no_thread.map(|error| error.to_string())), (20, None));
            assert_eq!((opened, no_file.map(|error| error.to_string())), (21, None));
        }
        let mut options = Options::new("target".into(), SourceChoice::Directory("source".into()));
        assert_eq!(jobs(&options, NonZeroUsize::MIN).unwrap(), NonZeroUsize::MIN);
        assert!(!starts_programs(&options));
        options.archive_ready = true;
        assert!(starts_programs(&options));
    }

    #[test]
    fn what_there_is_decides_how_many_share_the_work() {
        let need = Need { run: 8, job: 2 };
        assert_eq!([0, 8, 9, 10, 11, 12, 28].map(|number| need.jobs(number)), [0, 0, 0, 1, 1, 2, 10]);
        assert_eq!(need.jobs(need.of(5)), 5);
    }
}
