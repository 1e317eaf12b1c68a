//! Writes the recovery configuration that makes the target a standby (`-R`). Its place changed in version 12.

use std::io;
use std::path::{Path, PathBuf};

use walparse::Version;

use crate::apply::following::in_the_way;
use crate::datadir::config::Configuration;
use crate::datadir::config::recovery::{Obstacle, has_signal_files, setting};
use crate::datadir::data_path::DataPath;
use crate::options::{Options, RecoveryConf, SourceChoice};
use crate::source::{Source, SourceError};
use crate::target::{Target, TargetError};

/// Why the recovery configuration could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryConfError {
    /// The existing settings could not be read.
    #[error("could not open file \"{}\" for reading", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source could not be asked for a slot.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file could not be written.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Makes the target a standby of the source, if the options request it. `version` is the target's.
///
/// # Errors
/// The existing settings could not be read, or the new ones could not be written.
pub(crate) fn write_if_asked(
    options: &Options,
    target: &Target,
    server: &dyn Source,
    version: Version,
) -> Result<(), RecoveryConfError> {
    match (options.recovery_conf, &options.source) {
        (RecoveryConf::Write(password), SourceChoice::Server(source)) => {
            let settings = overrides(target, server, version, options.config_file.as_deref())?;
            write(target, version, &settings, &source.primary_conninfo(version, password))
        }
        _ => Ok(()),
    }
}

/// Lines that undo what would keep the target from following the source. Up to 11 there are none: `recovery.conf` is
/// replaced.
fn overrides(
    target: &Target,
    server: &dyn Source,
    version: Version,
    config_file: Option<&Path>,
) -> Result<String, RecoveryConfError> {
    if !has_signal_files(version) {
        return Ok(String::new());
    }
    let configuration = match Configuration::read(target.root(), version.names(), config_file) {
        Ok(configuration) => configuration,
        Err(error) => {
            tracing::warn!("could not look for recovery targets in the target's configuration: {error}");
            return Ok(String::new());
        }
    };
    let mut lines = String::new();
    for Obstacle { name, value, place, remedy, .. } in in_the_way(&configuration, server)? {
        tracing::info!(
            "{name} of the target was \"{value}\" ({place}): set to \"{remedy}\", so that it follows the source"
        );
        lines += &setting(name, remedy);
    }
    Ok(lines)
}

/// Up to 11, replaces `recovery.conf`. From 12 on, appends the overrides and `primary_conninfo` to the file of `ALTER SYSTEM` and
/// creates `standby.signal`.
fn write(
    target: &Target,
    version: Version,
    overrides: &str,
    primary_conninfo: &str,
) -> Result<(), RecoveryConfError> {
    let primary_conninfo = setting("primary_conninfo", primary_conninfo);
    if !has_signal_files(version) {
        // Up to 11, the default was the timeline in the control file, not the latest one.
        let text = format!("standby_mode = 'on'\n{primary_conninfo}recovery_target_timeline = 'latest'\n");
        return Ok(target.replace_file(&constant("recovery.conf"), text.as_bytes())?);
    }
    let settings = constant(version.names().auto_config_file);
    let path = settings.below(target.root());
    let mut text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(RecoveryConfError::Open { path, source }),
    };
    if text.last().is_some_and(|&last| last != b'\n') {
        text.push(b'\n');
    }
    let lines = format!("{overrides}{primary_conninfo}");
    // An earlier, interrupted run may have written them already.
    if !text.ends_with(lines.as_bytes()) {
        text.extend_from_slice(lines.as_bytes());
        target.replace_file(&settings, &text)?;
    }
    target.replace_file(&constant("standby.signal"), b"")?;
    Ok(())
}

/// A path that is known to be valid.
fn constant(path: &str) -> DataPath {
    DataPath::parse(path).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::{Conninfo, Environment, WrittenPassword};

    fn version(name: &str) -> Version {
        Version::all().find(|version| version.name() == name).unwrap()
    }

    struct Empty;

    impl Environment for Empty {
        fn var(&self, _: &str) -> Option<String> {
            None
        }

        fn os_user(&self) -> Option<String> {
            None
        }

        fn home(&self) -> Option<PathBuf> {
            None
        }
    }

    fn write_as_standby(target: &Target, name: &str) {
        let source = Conninfo::parse("host=h dbname=d user=u", &Empty).unwrap();
        let text = source.primary_conninfo(version(name), WrittenPassword::IfGiven);
        write(target, version(name), "", &text).unwrap();
    }

    #[test]
    fn from_12_on_settings_are_appended() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        let settings = || std::fs::read_to_string(directory.path().join("postgresql.auto.conf")).unwrap();
        target.replace_file(&constant("postgresql.auto.conf"), b"port = 1").unwrap();
        write_as_standby(&target, "17");
        let text = settings();
        assert!(text.starts_with("port = 1\nprimary_conninfo = '"), "{text}");
        assert!(text.ends_with("'\n") && text.contains("host=h") && !text.contains("dbname"), "{text}");
        assert!(directory.path().join("standby.signal").is_file());
        assert!(!directory.path().join("recovery.conf").exists());

        write_as_standby(&target, "18");
        assert!(settings().lines().last().unwrap().contains("dbname=d"), "{}", settings());
    }

    #[test]
    fn before_12_recovery_conf_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        write_as_standby(&target, "11");
        let text = std::fs::read_to_string(directory.path().join("recovery.conf")).unwrap();
        let [mode, conninfo, timeline] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!((mode, timeline), ("standby_mode = 'on'", "recovery_target_timeline = 'latest'"));
        assert!(conninfo.starts_with("primary_conninfo = '") && conninfo.contains("host=h"), "{text}");
        assert!(!directory.path().join("standby.signal").exists());
    }
}
