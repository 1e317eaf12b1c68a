//! The line by which cron calls a flow each minute, in a file of `/etc/cron.d`.
//!
//! Lines of others stay as they are. The line of the script whose place the flow takes is made a comment when
//! the flow is installed: both at work on one node would undo each other's work.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A cron file and what is to be called from it.
#[derive(Clone, Debug)]
pub struct CronFile {
    /// The file, for example `/etc/cron.d/KINGBASECRON`.
    pub path: PathBuf,
    /// The user that cron is to run it as.
    pub user: String,
    /// The command.
    pub command: String,
    /// What a line of the script contains whose place this takes.
    pub replaces: &'static str,
}

/// What stands in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CronState {
    /// No line calls the command.
    Absent,
    /// A line calls it.
    Enabled,
    /// Such a line is a comment.
    Disabled,
}

impl CronState {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            CronState::Absent => "not installed",
            CronState::Enabled => "enabled",
            CronState::Disabled => "disabled",
        }
    }
}

/// A cron file that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} cron file \"{}\"", path.display())]
pub struct CronError {
    /// What was being done.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl CronFile {
    /// What stands in the file.
    ///
    /// # Errors
    /// It is there but cannot be read.
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

    /// Adds the line, or makes it no comment; lines of the script become comments. Says whether any did.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn install(&self) -> Result<bool, CronError> {
        let mut replaced = false;
        let mut text = String::new();
        for line in self.read()?.lines().filter(|line| !self.is_ours(line)) {
            if line.contains(self.replaces) && !is_comment(line) {
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

    /// Makes the line a comment, in the way the scripts do it. Says whether there was one to make.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn disable(&self) -> Result<bool, CronError> {
        self.change(|line| (!is_comment(line)).then(|| format!("##{line}")))
    }

    /// Makes the line none. Says whether there was one.
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
        line.trim_end().ends_with(&self.command)
    }

    fn read(&self) -> Result<String, CronError> {
        match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text.map_err(|source| self.failed("read", source)),
        }
    }

    /// As a whole: cron must not see half a file. It ignores files that others may write.
    fn write(&self, text: &str) -> Result<(), CronError> {
        let write = || {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            // A name with a dot is ignored by cron.
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
    fn the_line_comes_goes_and_takes_the_place_of_the_script() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("KINGBASECRON");
        let others = "*/1 * * * * root  /c/bin/restartcluster.sh\n";
        fs::write(&path, format!("*/1 * * * * kingbase  /c/db/bin/network_rewind.sh\n{others}")).unwrap();
        let command = "/usr/bin/kbrecover hook v8r3 --config /c/db/etc/HAmodule.conf".to_owned();
        let cron =
            CronFile { path: path.clone(), user: "kingbase".into(), command, replaces: "network_rewind.sh" };
        let line = "*/1 * * * * kingbase  /usr/bin/kbrecover hook v8r3 --config /c/db/etc/HAmodule.conf\n";
        let script = "##*/1 * * * * kingbase  /c/db/bin/network_rewind.sh\n";
        let text = || fs::read_to_string(&path).unwrap();

        assert_eq!(cron.state().unwrap(), CronState::Absent);
        assert!(!cron.disable().unwrap());
        assert!(cron.install().unwrap());
        assert_eq!((text(), cron.state().unwrap()), (format!("{script}{others}{line}"), CronState::Enabled));
        assert!(!cron.install().unwrap(), "the script was made a comment already");
        assert!(cron.disable().unwrap() && !cron.disable().unwrap());
        assert_eq!(
            (text(), cron.state().unwrap()),
            (format!("{script}{others}##{line}"), CronState::Disabled)
        );
        assert!(cron.enable().unwrap());
        assert_eq!(text(), format!("{script}{others}{line}"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
