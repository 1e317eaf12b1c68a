//! Warns of settings that keep a server on the rewound target from starting or from following the source. The
//! target's configuration files are kept, so they do not have the source's settings.

use std::path::{Path, PathBuf};

use walparse::{ControlFields, ControlFile, FieldValue, Version};

use crate::apply::following::in_the_way;
use crate::conninfo::{Conninfo, Environment};
use crate::datadir::config::recovery::Obstacle;
use crate::datadir::config::{Configuration, recovery};
use crate::options::{Options, RecoveryConf};
use crate::source::Source;

/// Settings that must be at least as large on a standby as on its primary, with their fields in the control file
/// and their defaults (`CheckRequiredParameterValues` in xlogrecovery.c).
fn at_least(version: Version) -> [(&'static str, &'static str, i64); 5] {
    let locks = if version.server_version_num() < 190_000 { 64 } else { 128 };
    [
        ("max_connections", "MaxConnections", 100),
        ("max_worker_processes", "max_worker_processes", 8),
        ("max_wal_senders", "max_wal_senders", 10),
        ("max_prepared_transactions", "max_prepared_xacts", 0),
        ("max_locks_per_transaction", "max_locks_per_xact", locks),
    ]
}

/// Warns of what would keep the target from following the source, as far as files show it. `root` is the target's
/// data directory, `control` is the source's control file. That it may not be a standby at all is in the report.
pub(crate) fn warn(options: &Options, root: &Path, control: &ControlFile, source: &dyn Source) {
    let is_there = |name: &str| root.join(name).exists();
    if is_there("recovery.signal") && !is_there("standby.signal") {
        tracing::warn!(
            "recovery.signal exists: a server started now would recover to its recovery target and then become a primary; remove it and create standby.signal"
        );
    }
    if options.recovery_conf == RecoveryConf::Leave {
        warn_of_obstacles(options, root, control, source);
    }
    if !options.keep.has_standard() {
        return;
    }
    for (setting, own, needed) in too_small(options, root, control) {
        tracing::warn!(
            "{setting} is {own} on the target and {needed} on the source: a hot standby does not start with a lower value; raise it in the target's configuration"
        );
    }
    if options.recovery_conf == RecoveryConf::Leave
        && let Ok(recovery) = recovery::configuration(root, control.version(), options.config_file.as_deref())
        && let Some(conninfo) = recovery.get("primary_conninfo").filter(|conninfo| !conninfo.is_empty())
    {
        // A connection string that cannot be parsed is not shown, because it may contain a password.
        let shown = Conninfo::parse(conninfo, &Nothing)
            .map_or_else(|_| "is set".to_owned(), |conninfo| format!("is \"{}\"", conninfo.redacted()));
        tracing::warn!("primary_conninfo of the target {shown}: make sure that this is the new primary");
    }
}

/// Warns of settings with which the target would not follow for good.
fn warn_of_obstacles(options: &Options, root: &Path, control: &ControlFile, source: &dyn Source) {
    let Ok(found) = recovery::configuration(root, control.version(), options.config_file.as_deref()) else {
        return;
    };
    let obstacles = in_the_way(&found, source).unwrap_or_else(|error| {
        tracing::debug!("could not ask the source for the replication slot: {error}");
        recovery::obstacles(&found)
    });
    for Obstacle { name, value, place, effect, .. } in obstacles {
        tracing::warn!(
            "{name} is \"{value}\" in {place}: {effect}; remove it before starting the server, or use -R"
        );
    }
}

/// Settings that are smaller on the target than on the source, with both values; none if the target's configuration
/// is not found or cannot be read.
fn too_small(options: &Options, root: &Path, control: &ControlFile) -> Vec<(&'static str, i64, i64)> {
    let configuration = Configuration::read(root, control.version().names(), options.config_file.as_deref());
    let Some(configuration) = configuration.ok().filter(|found| found.file().is_some()) else {
        return Vec::new();
    };
    let Ok(fields) = ControlFields::read(control.bytes()) else { return Vec::new() };
    let compare = |(setting, field, default): (&'static str, &str, i64)| {
        let own = match configuration.get(setting) {
            Some(value) => value.trim().parse().ok()?,
            None => default,
        };
        match fields.get(field)? {
            FieldValue::Number(needed) if own < *needed => Some((setting, own, *needed)),
            _ => None,
        }
    };
    at_least(control.version()).into_iter().filter_map(compare).collect()
}

/// An empty environment: nothing is added to a connection string that is only shown.
struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn os_user(&self) -> Option<String> {
        Some(String::new())
    }

    fn home(&self) -> Option<PathBuf> {
        None
    }
}
