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

/// A setting with which a standby does not follow its primary for good, or only later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Obstacle {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    /// Where it is set, for messages.
    pub(crate) place: String,
    /// The value with which a standby follows.
    pub(crate) remedy: &'static str,
    /// What a server does because of it.
    pub(crate) effect: &'static str,
}

const ENDS: &str = "a server started with it does not follow the source for good";

/// Settings in the way of a standby: name, the value that is no obstacle, and what any other value does.
const IN_THE_WAY: [(&str, &str, &str); 8] = [
    ("recovery_target", "", ENDS),
    ("recovery_target_name", "", ENDS),
    ("recovery_target_time", "", ENDS),
    ("recovery_target_xid", "", ENDS),
    ("recovery_target_lsn", "", ENDS),
    ("recovery_target_timeline", "latest", ENDS),
    ("recovery_target_action", "pause", "it applies when a recovery target is reached"),
    ("recovery_min_apply_delay", "0", "a server started with it replays that much later"),
];

/// The settings of a cluster that are in the way of following a primary: recovery targets, a timeline other than the
/// latest, and a delay. Whether its replication slot exists only the primary can tell.
pub(crate) fn obstacles(configuration: &Configuration) -> Vec<Obstacle> {
    let found = IN_THE_WAY.into_iter().filter_map(|(name, remedy, effect)| {
        let obstacle = obstacle(configuration, name, remedy, effect)?;
        let is_zero = || {
            let number =
                obstacle.value.trim_end_matches(|unit: char| unit.is_ascii_alphabetic() || unit == ' ');
            number.parse::<f64>().is_ok_and(|number| number == 0.0)
        };
        (obstacle.value != remedy && !(remedy == "0" && is_zero())).then_some(obstacle)
    });
    found.collect()
}

/// The setting `name` as an obstacle, if it is set and not empty.
pub(crate) fn obstacle(
    configuration: &Configuration,
    name: &'static str,
    remedy: &'static str,
    effect: &'static str,
) -> Option<Obstacle> {
    let value = configuration.get(name).filter(|value| !value.is_empty())?.to_owned();
    let (file, line) = configuration.place(name)?;
    let place = format!("\"{}\", line {line}", file.display());
    Some(Obstacle { name, value, place, remedy, effect })
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

    #[test]
    fn what_is_in_the_way_of_a_standby_is_found_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("postgresql.conf");
        let names = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let found = obstacles(&configuration(directory.path(), version("15"), None).unwrap());
            found.into_iter().map(|obstacle| (obstacle.name, obstacle.place)).collect::<Vec<_>>()
        };
        let at = |line: usize| format!("\"{}\", line {line}", file.display());
        assert_eq!(
            names(
                "recovery_target_xid = 7\nrecovery_target_action = promote\nrecovery_min_apply_delay = '1 h'\n"
            ),
            [
                ("recovery_target_xid", at(1)),
                ("recovery_target_action", at(2)),
                ("recovery_min_apply_delay", at(3))
            ]
        );
        assert_eq!(
            names(
                "recovery_target = ''\nrecovery_target_timeline = 'latest'\nrecovery_min_apply_delay = '0 min'\n\
                 recovery_target_action = 'pause'\n"
            ),
            []
        );
    }
}
