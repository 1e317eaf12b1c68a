//! What to see to before a server is started on the rewound target, now that its configuration is its own.

use std::path::{Path, PathBuf};

use walparse::{ControlFields, ControlFile, FieldValue};

use crate::conninfo::{Conninfo, Environment};
use crate::datadir::config::{Configuration, recovery};
use crate::milestone;
use crate::options::{Options, RecoveryConf};

/// Settings that a standby must have at least as large as its primary, with their fields in the control
/// file and their defaults (`CheckRequiredParameterValues` in xlogrecovery.c).
const AT_LEAST: [(&str, &str, i64); 5] = [
    ("max_connections", "MaxConnections", 100),
    ("max_worker_processes", "max_worker_processes", 8),
    ("max_wal_senders", "max_wal_senders", 10),
    ("max_prepared_transactions", "max_prepared_xacts", 0),
    ("max_locks_per_transaction", "max_locks_per_xact", 64),
];

/// Warns of what would keep the target from following the source, as far as files show it. `control` is the
/// source's.
pub(crate) fn warn(options: &Options, root: &Path, control: &ControlFile) {
    let is_there = |name: &str| root.join(name).exists();
    if is_there("recovery.signal") && !is_there("standby.signal") {
        tracing::warn!(
            "recovery.signal is there: a server started now would recover up to its target and then become a primary; remove it and make standby.signal"
        );
    } else if !is_there("standby.signal") && !is_there("recovery.conf") {
        tracing::warn!(
            milestone = milestone::NO_STANDBY,
            "the target is not set up as a standby: before a server is started on it, set primary_conninfo and make standby.signal (up to version 11: write recovery.conf)"
        );
    }
    if !options.keep.has_standard() {
        return;
    }
    for (setting, own, needed) in too_small(options, root, control) {
        tracing::warn!(
            "{setting} of the target is {own}, of the source {needed}: a hot standby does not start with less; raise it in the target's configuration"
        );
    }
    if options.recovery_conf == RecoveryConf::Leave
        && let Ok(recovery) = recovery::configuration(root, control.version(), options.config_file.as_deref())
        && let Some(conninfo) = recovery.get("primary_conninfo").filter(|conninfo| !conninfo.is_empty())
    {
        // Whatever cannot be read is not shown: a password may be in it.
        let shown = Conninfo::parse(conninfo, &Nothing)
            .map_or_else(|_| "is set".to_owned(), |conninfo| format!("is \"{}\"", conninfo.redacted()));
        tracing::warn!("primary_conninfo of the target {shown}: see that this is the new primary");
    }
}

/// Settings of the target that are smaller than the source's, with both values; none if its configuration
/// is not found or cannot be read.
fn too_small(options: &Options, root: &Path, control: &ControlFile) -> Vec<(&'static str, i64, i64)> {
    let configuration = Configuration::read(root, control.version().names(), options.config_file.as_deref());
    let Some(configuration) = configuration.ok().filter(|found| found.file().is_some()) else {
        return Vec::new();
    };
    let Ok(fields) = ControlFields::read(control.bytes()) else { return Vec::new() };
    let compare = |&(setting, field, default): &(&'static str, &str, i64)| {
        let own = match configuration.get(setting) {
            Some(value) => value.trim().parse().ok()?,
            None => default,
        };
        match fields.get(field)? {
            FieldValue::Number(needed) if own < *needed => Some((setting, own, *needed)),
            _ => None,
        }
    };
    AT_LEAST.iter().filter_map(compare).collect()
}

/// A connection string is only shown: nothing is added to it.
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
