//! The log file of a flow: whole lines, appended.
//!
//! Lines are held back until the run has something to report. A run that only finds that it has to wait, as happens
//! every minute from cron, writes nothing.
//!
//! ```
//! use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("recovery.log");
//! let log = RecoveryLog::open(Some(&path), Echo::Off)?;
//! log.line("first");
//! assert_eq!(std::fs::read_to_string(&path)?, "");
//! log.release();
//! log.line("second");
//! assert_eq!(std::fs::read_to_string(&path)?, "first\nsecond\n");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A log file, whose lines may also go to standard error.
#[derive(Debug)]
pub struct RecoveryLog {
    echo: Echo,
    state: Mutex<State>,
}

/// Whether lines also go to standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Echo {
    /// Only to the file: for a run from cron.
    Off,
    /// Also to standard error: for a run by hand.
    On,
}

#[derive(Debug)]
struct State {
    /// `None` means standard error.
    file: Option<File>,
    /// The lines that are held back; `None` after they have been released.
    held: Option<VecDeque<String>>,
}

impl RecoveryLog {
    /// Opens or creates the file. Without a path, lines go to the open standard error: opening that by name fails if it is
    /// a socket or belongs to another user.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open(path: Option<&Path>, echo: Echo) -> io::Result<RecoveryLog> {
        let state = Mutex::new(State { file: path.map(append_to).transpose()?, held: Some(VecDeque::new()) });
        Ok(RecoveryLog { echo, state })
    }

    /// Continues in the file of this name, which may be a new one after log rotation.
    ///
    /// # Errors
    /// The file cannot be opened for appending. The log then continues in the old file.
    pub fn reopen(&self, path: Option<&Path>) -> io::Result<()> {
        let file = path.map(append_to).transpose()?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).file = file;
        Ok(())
    }

    /// Appends a line. Errors are ignored: a log that cannot be written must not stop a recovery.
    pub fn line(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.held {
            Some(held) => held.push_back(text.to_owned()),
            None => self.write(&mut state.file, text),
        }
    }

    /// Writes the lines that were held back. From now on, lines are written as they come.
    pub fn release(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for line in state.held.take().unwrap_or_default() {
            self.write(&mut state.file, &line);
        }
    }

    fn write(&self, file: &mut Option<File>, text: &str) {
        // One write, so that lines of other processes do not come in between.
        let line = format!("{text}\n");
        if let Some(file) = file {
            let _ = file.write_all(line.as_bytes());
        }
        if self.echo == Echo::On || file.is_none() {
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The current time in the format of the KingbaseES scripts.
pub fn timestamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_held_back_until_released() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery.log");
        let log = RecoveryLog::open(Some(&path), Echo::Off).unwrap();
        log.line("one");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        log.release();
        log.line("two");
        RecoveryLog::open(Some(&path), Echo::Off).unwrap().line("never");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        std::fs::rename(&path, dir.path().join("rotated")).unwrap();
        log.reopen(Some(&path)).unwrap();
        log.line("three");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }
}
