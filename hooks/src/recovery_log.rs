//! The log file of a flow: whole lines, appended.
//!
//! Lines are held back until it is clear that the run has something to say: a run that only finds that it has
//! to wait, minute after minute, leaves no trace.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A log file, and standard error if somebody is there to read it.
#[derive(Debug)]
pub struct RecoveryLog {
    echo: Echo,
    state: Mutex<State>,
}

/// Whether lines also go to standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Echo {
    /// Only to the file, as from cron.
    Off,
    /// Also to standard error, as for a person.
    On,
}

#[derive(Debug)]
struct State {
    /// Standard error if there is none.
    file: Option<File>,
    held: Option<VecDeque<String>>,
}

impl RecoveryLog {
    /// Opens the file, and makes it if there is none. Without a path lines go to standard error, which is not opened:
    /// it may be a socket, or another user's.
    ///
    /// # Errors
    /// It cannot be opened for appending.
    pub fn open(path: Option<&Path>, echo: Echo) -> io::Result<RecoveryLog> {
        let state = Mutex::new(State { file: path.map(append_to).transpose()?, held: Some(VecDeque::new()) });
        Ok(RecoveryLog { echo, state })
    }

    /// Goes on in the file of this name, which may be another one now: the old one was moved away, say.
    ///
    /// # Errors
    /// It cannot be opened for appending; the log goes on where it was.
    pub fn reopen(&self, path: Option<&Path>) -> io::Result<()> {
        let file = path.map(append_to).transpose()?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).file = file;
        Ok(())
    }

    /// Adds a line. A log that cannot be written stops nothing.
    pub fn line(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.held {
            Some(held) => held.push_back(text.to_owned()),
            None => self.write(&mut state.file, text),
        }
    }

    /// Writes what was held back, and holds nothing back from now on.
    pub fn speak(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for line in state.held.take().unwrap_or_default() {
            self.write(&mut state.file, &line);
        }
    }

    fn write(&self, file: &mut Option<File>, text: &str) {
        // In one piece, so that lines of other processes do not get into it.
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

/// The time now as the scripts write it.
pub fn timestamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_before_there_is_something_to_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery.log");
        let log = RecoveryLog::open(Some(&path), Echo::Off).unwrap();
        log.line("one");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        log.speak();
        log.line("two");
        RecoveryLog::open(Some(&path), Echo::Off).unwrap().line("never");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        std::fs::rename(&path, dir.path().join("rotated")).unwrap();
        log.reopen(Some(&path)).unwrap();
        log.line("three");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }
}
