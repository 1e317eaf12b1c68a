//! The role that a server has after its start, by the files in its data directory.

use std::path::Path;

use walparse::Version;

use crate::datadir::config::recovery::has_signal_files;
use crate::datadir::config::{ConfigError, Configuration};

/// The role of a server after its start, as the files in the data directory determine it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StartsAs {
    /// It is a primary.
    Primary,
    /// It follows another server (`standby.signal`; up to 11 `standby_mode` in `recovery.conf`).
    Standby,
    /// It recovers up to a target (`recovery.signal`, or `recovery.conf` without `standby_mode`).
    Recovery,
}

/// The role after the next start: by signal files, or up to 11 by `recovery.conf`.
///
/// # Errors
/// `recovery.conf` cannot be read.
pub(crate) fn starts_as(root: &Path, version: Version) -> Result<StartsAs, ConfigError> {
    let exists = |name: &str| root.join(name).symlink_metadata().is_ok();
    if has_signal_files(version) {
        return Ok(match (exists("standby.signal"), exists("recovery.signal")) {
            (true, _) => StartsAs::Standby,
            (false, true) => StartsAs::Recovery,
            (false, false) => StartsAs::Primary,
        });
    }
    if !exists("recovery.conf") {
        return Ok(StartsAs::Primary);
    }
    let settings = Configuration::read_one(&root.join("recovery.conf"))?;
    Ok(if settings.is_on("standby_mode") { StartsAs::Standby } else { StartsAs::Recovery })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_12_recovery_conf_determines_the_role() {
        let directory = tempfile::tempdir().unwrap();
        let old = Version::all().find(|version| version.name() == "11").unwrap();
        let found = || starts_as(directory.path(), old).unwrap();
        assert_eq!(found(), StartsAs::Primary);
        for (value, expected) in
            [("on", StartsAs::Standby), ("'TRUE'", StartsAs::Standby), ("off", StartsAs::Recovery)]
        {
            std::fs::write(directory.path().join("recovery.conf"), format!("standby_mode = {value}\n"))
                .unwrap();
            assert_eq!(found(), expected, "{value}");
        }
    }
}
