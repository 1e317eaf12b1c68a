//! Log lines in repmgr's format: `[2023-06-16 14:41:03] [NOTICE] text`.

use crate::recovery_log::{RecoveryLog, timestamp};

/// The log levels of repmgr.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Debug,
    Info,
    Notice,
    Error,
    Detail,
    Hint,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Notice => "NOTICE",
            Level::Error => "ERROR",
            Level::Detail => "DETAIL",
            Level::Hint => "HINT",
        }
    }
}

/// Appends a line to the log.
pub(super) fn say(log: &RecoveryLog, level: Level, text: &str) {
    log.line(&format!("[{}] [{}] {text}", timestamp(), level.name()));
}

/// `[thread pid:N] `, the prefix of some of the daemon's messages about another node.
pub(super) fn thread() -> String {
    format!("[thread pid:{}] ", std::process::id())
}

/// The current time with microseconds, as in `begin to start server at`.
pub(super) fn exact_time() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}
