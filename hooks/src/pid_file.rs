//! A pid file: names the one process that may do a task, such as the daemon of a node, and excludes others.
//!
//! The file is locked while that process runs, so a process that was killed leaves nothing to clean up.
//!
//! ```
//! use kbrecover_hooks::pid_file::{PidFile, PidFileError};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("kbha.pid");
//! let held = PidFile::take(&path, "a daemon of this node")?;
//! let second = PidFile::take(&path, "a daemon of this node");
//! assert!(matches!(second, Err(PidFileError::Taken { .. })));
//! drop(held);
//! assert_eq!(PidFile::holder(&path)?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::files::open_for_lock;

/// The locked file. Dropping it releases the lock.
#[derive(Debug)]
pub struct PidFile {
    file: File,
}

/// Why the file was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PidFileError {
    /// Another process holds it.
    #[error("{what} is already running{} (pid file \"{}\")", shown(*process), path.display())]
    Taken {
        /// The task of that process, such as `a daemon of this node`.
        what: &'static str,
        /// Its process ID, if that can be read.
        process: Option<u32>,
        /// The file.
        path: PathBuf,
    },
    /// The file could not be opened, locked or written.
    #[error("could not use pid file \"{}\"", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl PidFile {
    /// Locks the file and writes this process's ID to it. `what` names the task in an error.
    ///
    /// # Errors
    /// Another process holds the file, or it cannot be opened, locked or written.
    pub fn take(path: &Path, what: &'static str) -> Result<PidFile, PidFileError> {
        let failed = |source| PidFileError::File { path: path.to_owned(), source };
        let mut file = open_for_lock(path).map_err(failed)?;
        // Retried because PidFile::holder in another process locks the file for a moment.
        for _ in 0..5 {
            match file.try_lock() {
                Ok(()) => {
                    let mut write = || {
                        file.set_len(0)?;
                        file.write_all(format!("{}\n", std::process::id()).as_bytes())
                    };
                    write().map_err(failed)?;
                    return Ok(PidFile { file });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(50)),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        Err(PidFileError::Taken { what, process: read(path), path: path.to_owned() })
    }

    /// The process that holds the file: `None` if there is none, `Some(None)` if its ID cannot be read.
    ///
    /// # Errors
    /// The file exists but cannot be opened or locked.
    pub fn holder(path: &Path) -> Result<Option<Option<u32>>, PidFileError> {
        let failed = |source| PidFileError::File { path: path.to_owned(), source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read(path))),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Not removed: another process may have opened the file and be about to lock it.
        let _ = self.file.set_len(0);
        // Not left to closing the file: a child of another thread that has not called exec yet shares the lock.
        let _ = self.file.unlock();
    }
}

fn read(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn shown(process: Option<u32>) -> String {
    process.map(|process| format!(" (process {process})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_the_file_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kbha.pid");
        let take = || PidFile::take(&path, "a daemon of this node");
        assert_eq!(PidFile::holder(&path).unwrap(), None);
        let held = take().unwrap();
        assert_eq!(PidFile::holder(&path).unwrap(), Some(Some(std::process::id())));
        let error = take().unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(held);
        assert_eq!(PidFile::holder(&path).unwrap(), None);
        take().unwrap();
    }
}
