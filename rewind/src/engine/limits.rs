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

use rustix::process::{Resource, getrlimit};

use crate::error::RewindError;
use crate::options::{Options, RestoreCommand, UncleanTarget};
use crate::shown::Size;

/// Something that the system limits: so many for a run, so many more for each job that shares its work, and for each connection.
#[derive(Clone, Copy)]
struct Need {
    run: usize,
    job: usize,
    connection: usize,
}

/// Threads. A job computes, and reads the source's WAL.
const THREADS: Need = Need { run: 6, job: 2, connection: 1 };

/// The same if programs are started, one at a time: a shell, what it starts, a thread that waits for them, and two that read what
/// they print.
const THREADS_AND_PROGRAMS: Need = Need { run: THREADS.run + 5, ..THREADS };

/// Open files: of a run those of its directories and programs, of a job those that it reads, of a connection its socket and the file
/// that it copies to.
const FILES: Need = Need { run: 16, job: 2, connection: 2 };

/// Bytes of address space: for the program, the stacks of threads, and what a run holds in memory. Files that cannot be mapped are
/// read.
const ADDRESS_SPACE: u64 = 256 << 20;

/// Jobs that share the work, and connections that serve them.
#[derive(Clone, Copy)]
pub(super) struct Jobs {
    pub(super) jobs: NonZeroUsize,
    pub(super) connections: NonZeroUsize,
}

impl Jobs {
    /// At most so many jobs, and no more connections than jobs.
    fn at_most(self, jobs: NonZeroUsize) -> Jobs {
        Jobs { jobs: self.jobs.min(jobs), connections: self.connections.min(jobs) }
    }
}

impl Need {
    fn of(self, Jobs { jobs, connections }: Jobs) -> usize {
        self.run + self.job * jobs.get() + self.connection * connections.get()
    }

    /// As many of the jobs as `number` suffice for; `None` if that is too little for one.
    fn fitting(self, wanted: Jobs, number: usize) -> Option<Jobs> {
        let counts = (1..=wanted.jobs.get()).rev().filter_map(NonZeroUsize::new);
        counts.map(|jobs| wanted.at_most(jobs)).find(|jobs| self.of(*jobs) <= number)
    }

    /// What one job needs.
    fn least(self) -> usize {
        self.of(Jobs { jobs: NonZeroUsize::MIN, connections: NonZeroUsize::MIN })
    }
}

/// How many jobs and connections may share the work, of those that are `wanted`.
///
/// # Errors
/// There are too few threads or files for one, or too little address space.
pub(super) fn jobs(options: &Options, wanted: Jobs) -> Result<Jobs, RewindError> {
    let limit = getrlimit(Resource::As).current;
    if let Some(limit) = limit.filter(|limit| *limit < ADDRESS_SPACE) {
        return Err(RewindError::AddressSpace { limit: Size(limit), needed: Size(ADDRESS_SPACE) });
    }
    let threads = if starts_programs(options) { THREADS_AND_PROGRAMS } else { THREADS };
    let mut jobs = wanted;
    let (started, error) = start(threads.of(jobs));
    if let Some(source) = error {
        let needed = threads.least();
        jobs = threads.fitting(jobs, started).ok_or(RewindError::Threads { started, needed, source })?;
    }
    let (opened, error) = open(FILES.of(jobs));
    if let Some(source) = error {
        let needed = FILES.least();
        jobs = FILES.fitting(jobs, opened).ok_or(RewindError::Files { opened, needed, source })?;
    }
    Ok(jobs)
}

/// Whether a run may start programs: to fetch missing WAL, to archive, to complete the target's crash recovery.
fn starts_programs(options: &Options) -> bool {
    let recovers = matches!(options.unclean_target, UncleanTarget::Recover(_));
    recovers || options.archive_ready || options.missing_wal.restore_command != RestoreCommand::Off
}

/// Starts so many threads at once, waits for their end, and returns how many there were, and why there were no more.
fn start(number: usize) -> (usize, Option<io::Error>) {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut started, mut error) = (Vec::new(), None);
        while started.len() < number && error.is_none() {
            let wait = || drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
            match Builder::new().name("trial".to_owned()).spawn_scoped(scope, wait) {
                Ok(thread) => started.push(thread),
                Err(refused) => error = Some(refused),
            }
        }
        drop(closed);
        let count = started.len();
        // A thread counts until it has ended, not only until it has done its work.
        started.into_iter().for_each(|thread| drop(thread.join()));
        (count, error)
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
        assert_eq!(jobs(&options, of(1, 1)).unwrap().jobs, NonZeroUsize::MIN);
        assert!(!starts_programs(&options));
        options.archive_ready = true;
        assert!(starts_programs(&options));
    }

    fn of(jobs: usize, connections: usize) -> Jobs {
        let number = |number| NonZeroUsize::new(number).unwrap();
        Jobs { jobs: number(jobs), connections: number(connections) }
    }

    #[test]
    fn what_there_is_decides_how_many_share_the_work() {
        let need = Need { run: 8, job: 2, connection: 1 };
        let fitting = |number| {
            let found = need.fitting(of(64, 4), number);
            found.map(|found| (found.jobs.get(), found.connections.get()))
        };
        assert_eq!([0, 10, 11, 13, 14].map(fitting), [None, None, Some((1, 1)), Some((1, 1)), Some((2, 2))]);
        // Few jobs do not mean many connections.
        assert_eq!(
            [100, 139, 140, 999].map(fitting),
            [Some((44, 4)), Some((63, 4)), Some((64, 4)), Some((64, 4))]
        );
        assert_eq!(need.least(), 11);
    }
}
