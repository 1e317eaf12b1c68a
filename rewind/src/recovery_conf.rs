//! Making the target a standby of the source (`-R`).

use std::io;
use std::path::PathBuf;

use crate::data_path::DataPath;
use crate::options::{Options, RecoveryConf, SourceChoice};
use crate::source::conninfo::DatabaseName;
use crate::target::{Target, TargetError};

/// Why the recovery configuration could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryConfError {
    /// The present settings could not be read.
    #[error("could not open file \"{}\" for reading", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Makes the target a standby of the source, if the caller asked for that.
pub(crate) fn write_if_asked(options: &Options, target: &Target) -> Result<(), RecoveryConfError> {
    match (options.recovery_conf, &options.source) {
        (RecoveryConf::Write, SourceChoice::Server(conninfo)) => {
            write(target, &conninfo.primary_conninfo(DatabaseName::LeaveOut))
        }
        _ => Ok(()),
    }
}

/// Adds `primary_conninfo` to `postgresql.auto.conf` and makes `standby.signal`.
fn write(target: &Target, primary_conninfo: &str) -> Result<(), RecoveryConfError> {
    let settings = constant("postgresql.auto.conf");
    let path = settings.below(target.root());
    let mut text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(RecoveryConfError::Open { path, source }),
    };
    if text.last().is_some_and(|&last| last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(setting("primary_conninfo", primary_conninfo).as_bytes());
    target.replace_file(&settings, &text)?;
    target.replace_file(&constant("standby.signal"), b"")?;
    Ok(())
}

/// A line of a configuration file: quotes and backslashes are doubled.
fn setting(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

fn constant(path: &str) -> DataPath {
    DataPath::parse(path).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_added_and_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        target.replace_file(&constant("postgresql.auto.conf"), b"port = 1").unwrap();
        write(&target, r"host=/tmp password='it\'s'").unwrap();
        let text = std::fs::read_to_string(directory.path().join("postgresql.auto.conf")).unwrap();
        assert_eq!(text, "port = 1\nprimary_conninfo = 'host=/tmp password=''it\\\\''s'''\n");
        assert!(directory.path().join("standby.signal").is_file());
    }
}
