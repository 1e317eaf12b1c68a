//! The entry in a file of `/etc/cron.d` that runs a flow every minute.
//!
//! Installing the flow comments out the entry of the script that it replaces, because two recovery programs on one node
//! would undo each other's work. All other entries are left unchanged.
//!
//! ```
//! use kbrecover_hooks::cron::{CronFile, CronState};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("KINGBASECRON");
//! # std::fs::write(&path, "*/1 * * * * kingbase  /home/kingbase/db/bin/network_rewind.sh\n")?;
//! let cron = CronFile::new(&path, "kingbase", "/usr/bin/kbrecover hook v8r3 -f HAmodule.conf")
//!     .replacing("network_rewind.sh");
//! let has_replaced = cron.install()?;
//! assert!(has_replaced);
//! assert_eq!(cron.state()?, CronState::Enabled);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A cron file and the entry that it is to have.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CronFile {
    /// The file, for example `/etc/cron.d/KINGBASECRON`.
    pub path: PathBuf,
    /// The user that runs the command.
    pub user: String,
    /// The command.
    pub command: String,
    /// A part of the entry that [`CronFile::install`] comments out.
    pub replaces: Option<&'static str>,
    /// The command as an earlier version of this program has written it: an entry with it is this entry, too.
    pub was_written_as: Option<String>,
}

/// The state of the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CronState {
    /// There is none.
    Absent,
    /// There is one.
    Enabled,
    /// There is one, but it is commented out.
    Disabled,
}

impl CronState {
    /// The state in words: `not installed`, `enabled` or `disabled`.
    pub fn name(self) -> &'static str {
        match self {
            CronState::Absent => "not installed",
            CronState::Enabled => "enabled",
            CronState::Disabled => "disabled",
        }
    }
}

/// A cron file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("could not {action} cron file \"{}\"", path.display())]
pub struct CronError {
    /// What was being done.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The reason.
    #[source]
    pub source: io::Error,
}

impl CronFile {
    /// The entry that runs `command` as `user` every minute.
    pub fn new(path: impl Into<PathBuf>, user: impl Into<String>, command: impl Into<String>) -> CronFile {
        let (path, user, command) = (path.into(), user.into(), command.into());
        CronFile { path, user, command, replaces: None, was_written_as: None }
    }

    /// Has [`CronFile::install`] comment out the entries that contain this text.
    pub fn replacing(self, text: &'static str) -> CronFile {
        CronFile { replaces: Some(text), ..self }
    }

    /// Takes entries with this command for the entry, too. [`CronFile::install`] replaces them.
    pub fn written_earlier_as(self, command: String) -> CronFile {
        CronFile { was_written_as: Some(command), ..self }
    }

    /// The state of the entry.
    ///
    /// # Errors
    /// The file exists but cannot be read.
    pub fn state(&self) -> Result<CronState, CronError> {
        let text = self.read()?;
        let of = |line: &str| self.is_ours(line).then(|| is_comment(line));
        let states: Vec<bool> = text.lines().filter_map(of).collect();
        Ok(match states.iter().all(|is_comment| *is_comment) {
            _ if states.is_empty() => CronState::Absent,
            true => CronState::Disabled,
            false => CronState::Enabled,
        })
    }

    /// Adds or enables the entry, and comments out the entries that it replaces. Returns whether there were any to replace.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn install(&self) -> Result<bool, CronError> {
        let mut replaced = false;
        let mut text = String::new();
        for line in self.read()?.lines().filter(|line| !self.is_ours(line)) {
            if self.replaces.is_some_and(|text| line.contains(text)) && !is_comment(line) {
                text.push_str("##");
                replaced = true;
            }
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&format!("*/1 * * * * {}  {}\n", self.user, self.command));
        self.write(&text)?;
        Ok(replaced)
    }

    /// Comments out the entry with `##`, as the KingbaseES scripts do. Returns whether it was enabled before.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn disable(&self) -> Result<bool, CronError> {
        self.change(|line| (!is_comment(line)).then(|| format!("##{line}")))
    }

    /// Removes the comment characters before the entry. Returns whether it was disabled before.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn enable(&self) -> Result<bool, CronError> {
        self.change(|line| is_comment(line).then(|| line.trim_start_matches(['#', ' ']).to_owned()))
    }

    fn change(&self, change: impl Fn(&str) -> Option<String>) -> Result<bool, CronError> {
        let (mut changed, mut text) = (false, String::new());
        for line in self.read()?.lines() {
            let new = Some(line).filter(|line| self.is_ours(line)).and_then(&change);
            changed |= new.is_some();
            text.push_str(new.as_deref().unwrap_or(line));
            text.push('\n');
        }
        if changed {
            self.write(&text)?;
        }
        Ok(changed)
    }

    fn is_ours(&self, line: &str) -> bool {
        let line = line.trim_end();
        line.ends_with(&self.command) || self.was_written_as.as_ref().is_some_and(|old| line.ends_with(old))
    }

    fn read(&self) -> Result<String, CronError> {
        match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text.map_err(|source| self.failed("read", source)),
        }
    }

    /// Replaces the file atomically: cron must not read an incomplete file. Mode 0644, because cron ignores files that are
    /// writable by group or others.
    fn write(&self, text: &str) -> Result<(), CronError> {
        let write = || {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            // Cron ignores names that contain a dot.
            let file = tempfile::Builder::new().prefix(".kbrecover.").tempfile_in(directory)?;
            fs::write(file.path(), text)?;
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644))?;
            file.persist(&self.path).map(|_| ()).map_err(|error| error.error)
        };
        write().map_err(|source| self.failed("write", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> CronError {
        CronError { action, path: self.path.clone(), source }
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_installed_disabled_and_enabled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("KINGBASECRON");
        let others = "*/1 * * * * root  /c/bin/restartcluster.sh\n";
        fs::write(&path, format!("*/1 * * * * kingbase  /c/db/bin/network_rewind.sh\n{others}")).unwrap();
        let command = "/usr/bin/kbrecover hook v8r3 --config /c/db/etc/HAmodule.conf";
        let cron = CronFile::new(&path, "kingbase", command).replacing("network_rewind.sh");
        let line = "*/1 * * * * kingbase  /usr/bin/kbrecover hook v8r3 --config /c/db/etc/HAmodule.conf\n";
        let script = "##*/1 * * * * kingbase  /c/db/bin/network_rewind.sh\n";
        let text = || fs::read_to_string(&path).unwrap();

        assert_eq!(cron.state().unwrap(), CronState::Absent);
        assert!(!cron.disable().unwrap());
        assert!(cron.install().unwrap());
        assert_eq!((text(), cron.state().unwrap()), (format!("{script}{others}{line}"), CronState::Enabled));
        assert!(!cron.install().unwrap(), "the script was commented out before");
        assert!(cron.disable().unwrap() && !cron.disable().unwrap());
        assert_eq!(
            (text(), cron.state().unwrap()),
            (format!("{script}{others}##{line}"), CronState::Disabled)
        );
        assert!(cron.enable().unwrap());
        assert_eq!(text(), format!("{script}{others}{line}"));
        let new = CronFile::new(&path, "kingbase", "/usr/bin/kbrecover hook v8r3 -f /c");
        let new = new.written_earlier_as(command.to_owned());
        assert_eq!(new.state().unwrap(), CronState::Enabled);
        new.install().unwrap();
        let line = "*/1 * * * * kingbase  /usr/bin/kbrecover hook v8r3 -f /c\n";
        assert_eq!(text(), format!("{script}{others}{line}"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
