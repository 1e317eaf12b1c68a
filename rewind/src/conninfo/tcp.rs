//! The options of TCP connections.

use std::time::Duration;

use super::error::ConninfoError;
use super::options::Values;

/// Defaults that detect a dead host within half a minute (three unanswered keepalive probes, or unacknowledged data),
/// instead of the operating system's two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
const USER_TIMEOUT_MILLISECONDS: u32 = 30_000;

/// The options of a TCP connection; `None` for the default of the operating system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TcpOptions {
    pub(crate) keepalives: bool,
    pub(crate) idle: Option<Duration>,
    pub(crate) interval: Option<Duration>,
    pub(crate) count: Option<u32>,
    pub(crate) user_timeout: Option<u32>,
}

impl TcpOptions {
    pub(super) fn of(values: &Values) -> Result<TcpOptions, ConninfoError> {
        // As in libpq, zero stands for the default of the operating system, and an empty value is an error.
        let number = |keyword, usual| match values.raw(keyword) {
            None => Ok(Some(usual)),
            Some(_) => Ok(values.integer(keyword)?.and_then(positive)),
        };
        let seconds = |keyword, usual: Duration| {
            let seconds = number(keyword, usual.as_secs() as u32)?;
            Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
        };
        Ok(TcpOptions {
            keepalives: values.integer("keepalives")?.is_none_or(|value| value != 0),
            idle: seconds("keepalives_idle", KEEPALIVE_IDLE)?,
            interval: seconds("keepalives_interval", KEEPALIVE_INTERVAL)?,
            count: number("keepalives_count", KEEPALIVE_COUNT)?,
            user_timeout: number("tcp_user_timeout", USER_TIMEOUT_MILLISECONDS)?,
        })
    }
}

/// `Some` for a positive number; libpq treats all others as not set.
pub(super) fn positive(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
}
