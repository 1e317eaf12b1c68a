//! The file that names a process and keeps a second one away: the daemon, or a command that changes the node.
//!
//! It is locked as long as that process runs, so one that was killed leaves nothing that has to be cleaned up.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::files::open_for_lock;

/// Held by the process.
#[derive(Debug)]
pub struct PidFile {
    file: File,
}

/// Why a process may not run.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// There is one.
    #[error("{what} already{} (pid file \"{}\")", shown(*process), path.display())]
    Taken {
        /// What is so: `a daemon of this node runs`.
        what: &'static str,
        /// Its process, if that is known.
        process: Option<u32>,
        /// The file.
        path: PathBuf,
    },
    /// The file could not be used.
    #[error("could not use pid file \"{}\"", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PidFile {
    /// Takes the file and writes this process into it; `what` says what is so if another has it.
    ///
    /// # Errors
    /// Another process has it, or it cannot be used.
    pub fn take(path: &Path, what: &'static str) -> Result<PidFile, PidFileError> {
        let failed = |source| PidFileError::File { path: path.to_owned(), source };
        let mut file = open_for_lock(path).map_err(failed)?;
        // Who only asks whether it is taken holds it for a moment.
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

    /// Whether a daemon holds the file, and its process if it has written that.
    ///
    /// # Errors
    /// The file is there but cannot be opened.
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
        // Removed it could be one that the next daemon has just opened.
        let _ = self.file.set_len(0);
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
    fn one_daemon_has_it_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kbha.pid");
        let take = || PidFile::take(&path, "a daemon of this node runs");
        assert_eq!(PidFile::holder(&path).unwrap(), None);
        let held = take().unwrap();
        assert_eq!(PidFile::holder(&path).unwrap(), Some(Some(std::process::id())));
        let taken = take().unwrap_err().to_string();
        assert!(taken.contains(&format!("(process {})", std::process::id())), "{taken}");
        drop(held);
        assert_eq!(PidFile::holder(&path).unwrap(), None);
        take().unwrap();
    }
}
