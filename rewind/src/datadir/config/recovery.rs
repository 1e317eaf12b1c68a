//! Recovery settings of a cluster: in `recovery.conf` up to version 11, in the server's configuration from 12 on.

use std::path::Path;

use walparse::Version;

use super::{ConfigError, Configuration};

/// The first version (`server_version_num`) without `recovery.conf`. From this version on a server does not start if
/// that file exists.
const SIGNAL_FILES: u32 = 120_000;

/// Whether a cluster of this version uses `standby.signal` and `recovery.signal`.
pub(crate) fn has_signal_files(version: Version) -> bool {
    version.server_version_num() >= SIGNAL_FILES
}

/// Reads the configuration that contains the `restore_command` of a cluster of this version.
///
/// Up to version 11 this is `recovery.conf`, or `recovery.done` after a promotion. From 12 on it is the server's
/// configuration, with `config_file` as in [`Configuration::read`].
pub(crate) fn configuration(
    data_dir: &Path,
    version: Version,
    config_file: Option<&Path>,
) -> Result<Configuration, ConfigError> {
    if has_signal_files(version) {
        return Configuration::read(data_dir, version.names(), config_file);
    }
    let present = data_dir.join("recovery.conf");
    Configuration::read_one(&if present.exists() { present } else { data_dir.join("recovery.done") })
}

/// A line of a configuration file that sets `name` to `value`. Quotes and backslashes in the value are doubled.
pub(crate) fn setting(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Settings that end recovery at a point instead of letting a standby follow its primary.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
];

/// The settings of a cluster that would keep a standby from following its primary for good, with their values:
/// recovery targets, and a timeline other than the latest.
pub(crate) fn against_following(configuration: &Configuration) -> Vec<(&'static str, String)> {
    let value = |name: &'static str| {
        let value = configuration.get(name).filter(|value| !value.is_empty())?;
        Some((name, value.to_owned()))
    };
    let timeline = value("recovery_target_timeline").filter(|(_, value)| value != "latest");
    TARGETS.into_iter().filter_map(value).chain(timeline).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> Version {
        Version::all().find(|version| version.name() == name).unwrap()
    }

    #[test]
    fn values_are_quoted() {
        let text = setting("primary_conninfo", r"host=/tmp password='it\'s'");
        assert_eq!(text, "primary_conninfo = 'host=/tmp password=''it\\\\''s'''\n");
    }

    #[test]
    fn the_restore_command_is_read_from_the_file_of_the_version() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let command = |name: &str| {
            let found = configuration(directory.path(), version(name), None);
            found.and_then(|found| found.restore_command().map(str::to_owned))
        };
        put("postgresql.conf", "restore_command = 'from postgresql.conf'\n");
        assert_eq!(command("12").unwrap(), "from postgresql.conf");
        assert!(command("11").is_err());
        put("recovery.done", "restore_command = 'from recovery.done'\n");
        assert_eq!(command("11").unwrap(), "from recovery.done");
        put("recovery.conf", "restore_command = 'from recovery.conf'\n");
        assert_eq!(command("11").unwrap(), "from recovery.conf");
        assert_eq!(command("12").unwrap(), "from postgresql.conf");
    }
}
