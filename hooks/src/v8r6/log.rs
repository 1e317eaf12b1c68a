//! Lines as repmgr writes them: `[2023-06-16 14:41:03] [NOTICE] text`.

use crate::recovery_log::{RecoveryLog, timestamp};

/// How much a line matters, in repmgr's words.
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

/// Adds a line.
pub(super) fn say(log: &RecoveryLog, level: Level, text: &str) {
    log.line(&format!("[{}] [{}] {text}", timestamp(), level.name()));
}

/// `[thread pid:N] `, which stands before what a daemon says of another node.
pub(super) fn thread() -> String {
    format!("[thread pid:{}] ", std::process::id())
}

/// The time with its fraction, as in `begin to start server at`.
pub(super) fn exact_time() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}
