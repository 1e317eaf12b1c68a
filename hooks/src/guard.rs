//! Ensures that one run of the V8R3 flow is in progress at a time, and detects that the previous run was interrupted.
//!
//! The lock file and the flag file are those of the V8R3 scripts, so that a script and this program exclude each other.
//! The flag file has two lines: `1` during a run and `0` after it; the process ID.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::files::{open_for_lock as open, read_state_file};

/// The lock of a run. [`Guard::finish`] records that the run has ended.
#[derive(Debug)]
pub struct Guard {
    lock: File,
    flag: PathBuf,
    interrupted: Option<Interrupted>,
}

/// An earlier run that was interrupted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Interrupted {
    /// Its process ID, if the flag file contains one.
    pub process: Option<u32>,
}

/// Why a run may not begin or end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// Another run is in progress.
    #[error("another run is in progress (lock file \"{}\")", path.display())]
    Taken {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file or the flag file could not be opened, locked or written.
    #[error("could not use file \"{}\"", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl Guard {
    /// Takes the lock, and reads whether the previous run was interrupted.
    ///
    /// # Errors
    /// Another process holds the lock, or the lock file cannot be opened.
    pub fn take(lock: &Path, flag: &Path) -> Result<Guard, GuardError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| GuardError::File { path, source }
        };
        let file = open(lock).map_err(failed(lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(GuardError::Taken { path: lock.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(lock)(source)),
        }
        let text = read_state_file(flag).unwrap_or_default();
        let mut lines = text.lines();
        let interrupted = (lines.next().map(str::trim) == Some("1"))
            .then(|| Interrupted { process: lines.next().and_then(|line| line.trim().parse().ok()) });
        Ok(Guard { lock: file, flag: flag.to_owned(), interrupted })
    }

    /// The previous run, if it was interrupted.
    pub fn interrupted(&self) -> Option<&Interrupted> {
        self.interrupted.as_ref()
    }

    /// Records that a run is in progress.
    ///
    /// # Errors
    /// The flag file cannot be written.
    pub fn begin(&self) -> Result<(), GuardError> {
        self.record(&format!("1\n{}\n", std::process::id()))
    }

    /// Records that the run has ended.
    ///
    /// # Errors
    /// The flag file cannot be written.
    pub fn finish(self) -> Result<(), GuardError> {
        self.record("0\n")
    }

    fn record(&self, text: &str) -> Result<(), GuardError> {
        let write = || {
            let mut file = open(&self.flag)?;
            file.set_len(0)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|source| GuardError::File { path: self.flag.clone(), source })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Not left to closing the file: a child of another thread that has not called exec yet shares the lock.
        let _ = self.lock.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_exclude_each_other_and_an_interrupted_one_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, flag) = (dir.path().join("lock"), dir.path().join("flag"));
        let guard = Guard::take(&lock, &flag).unwrap();
        assert_eq!(guard.interrupted(), None);
        assert!(matches!(Guard::take(&lock, &flag), Err(GuardError::Taken { .. })));
        guard.begin().unwrap();
        drop(guard);
        let guard = Guard::take(&lock, &flag).unwrap();
        assert_eq!(guard.interrupted(), Some(&Interrupted { process: Some(std::process::id()) }));
        guard.finish().unwrap();
        assert_eq!(Guard::take(&lock, &flag).unwrap().interrupted(), None);
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, victim) = (dir.path().join("lock"), dir.path().join("victim"));
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(matches!(Guard::take(&link, &dir.path().join("flag")), Err(GuardError::File { .. })));
        assert!(!victim.exists());
    }
}
