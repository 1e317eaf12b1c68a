//! Where a cluster keeps its recovery settings: in `recovery.conf` up to 11, among the other settings from 12 on.

use std::path::Path;

use walparse::Version;

use super::{ConfigError, Configuration};

/// The first version whose recovery settings are ordinary ones; a server before it reads `recovery.conf`,
/// and one from here on does not start where that file is.
const SIGNAL_FILES: u32 = 120_000;

/// Whether a cluster of this version is told by `standby.signal` and `recovery.signal` how to start.
pub(crate) fn has_signal_files(version: Version) -> bool {
    version.server_version_num() >= SIGNAL_FILES
}

/// Reads the files in which a cluster of this version has its `restore_command`: up to 11 `recovery.conf`,
/// which a promotion renames to `recovery.done`; from 12 on the server's configuration, of which
/// `config_file` is the main file if it is not to be looked for.
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

/// A line of a configuration file: quotes and backslashes are doubled.
pub(crate) fn setting(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
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
    fn the_restore_command_is_where_the_version_has_it() {
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
