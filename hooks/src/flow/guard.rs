//! One run at a time, and the memory of one that was interrupted.
//!
//! Two files that the V8R3 scripts also use, so that a script and this program keep out of each other's way:
//! a lock file, and a flag file of two lines (`1` while a run is under way and `0` after it; the process).

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::files::{open_for_lock as open, read_note};

/// Holds the lock of a flow; its end is noted by [`Guard::finish`].
#[derive(Debug)]
pub struct Guard {
    _lock: File,
    flag: PathBuf,
    interrupted: Option<Interrupted>,
}

/// An earlier run that did not come to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interrupted {
    /// Its process, if that is known.
    pub process: Option<u32>,
}

/// Why a flow may not run.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Another one runs.
    #[error("another process is at work (lock file \"{}\")", path.display())]
    Taken {
        /// The lock file.
        path: PathBuf,
    },
    /// A file could not be used.
    #[error("could not use file \"{}\"", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Guard {
    /// Takes the lock file and looks whether the run before was interrupted.
    ///
    /// # Errors
    /// Another process has the lock, or the files cannot be used.
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
        let text = read_note(flag).unwrap_or_default();
        let mut lines = text.lines();
        let interrupted = (lines.next().map(str::trim) == Some("1"))
            .then(|| Interrupted { process: lines.next().and_then(|line| line.trim().parse().ok()) });
        Ok(Guard { _lock: file, flag: flag.to_owned(), interrupted })
    }

    /// The run before, if it did not come to its end.
    pub fn interrupted(&self) -> Option<&Interrupted> {
        self.interrupted.as_ref()
    }

    /// Notes that a run is under way.
    ///
    /// # Errors
    /// The flag file cannot be written.
    pub fn begin(&self) -> Result<(), GuardError> {
        self.note(&format!("1\n{}\n", std::process::id()))
    }

    /// Notes that the run has come to its end.
    ///
    /// # Errors
    /// The flag file cannot be written.
    pub fn finish(self) -> Result<(), GuardError> {
        self.note("0\n")
    }

    fn note(&self, text: &str) -> Result<(), GuardError> {
        let write = || {
            let mut file = open(&self.flag)?;
            file.set_len(0)?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|source| GuardError::File { path: self.flag.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_an_interrupted_run_is_remembered() {
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
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, victim) = (dir.path().join("lock"), dir.path().join("victim"));
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(matches!(Guard::take(&link, &dir.path().join("flag")), Err(GuardError::File { .. })));
        assert!(!victim.exists());
    }
}
