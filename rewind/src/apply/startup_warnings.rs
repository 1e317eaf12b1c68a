//! Warns of settings that keep a server on the rewound target from starting or from following the source. The
//! target's configuration files are kept, so they do not have the source's settings.

use std::path::{Path, PathBuf};

use walparse::{ControlFields, ControlFile, FieldValue, Version};

use crate::conninfo::{Conninfo, Environment};
use crate::datadir::config::{Configuration, recovery};
use crate::options::{Options, RecoveryConf};
use crate::progress::{Event, Progress};

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
/// data directory, `control` is the source's control file.
pub(crate) fn warn(options: &Options, progress: &dyn Progress, root: &Path, control: &ControlFile) {
    let is_there = |name: &str| root.join(name).exists();
    if is_there("recovery.signal") && !is_there("standby.signal") {
        tracing::warn!(
            "recovery.signal exists: a server started now would recover to its recovery target and then become a primary; remove it and create standby.signal"
        );
    } else if !is_there("standby.signal") && !is_there("recovery.conf") {
        progress.event(&Event::NotAStandby);
    }
    if options.recovery_conf == RecoveryConf::Leave {
        warn_of_recovery_targets(options, root, control);
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
fn warn_of_recovery_targets(options: &Options, root: &Path, control: &ControlFile) {
    let Ok(found) = recovery::configuration(root, control.version(), options.config_file.as_deref()) else {
        return;
    };
    for (name, value) in recovery::against_following(&found) {
        tracing::warn!(
            "{name} is \"{value}\" in the target's configuration: a server started with it does not follow the source for good; remove it before starting the server"
        );
    }
    if let Some(delay) = found.get("recovery_min_apply_delay").filter(|delay| !matches!(*delay, "" | "0")) {
        tracing::warn!(
            "recovery_min_apply_delay is \"{delay}\" in the target's configuration: it replays that much later"
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
