//! Whether a host answers, by the system's `ping`.

use std::process::Command;
use std::time::Duration;

use rewind::command;

/// Whether one of `times` pings is answered within two seconds each.
pub(crate) fn answers(host: &str, times: u32) -> bool {
    let times = times.clamp(1, 20);
    let mut ping = Command::new("ping");
    // A host that begins with a dash is no option.
    ping.args(["-c", &times.to_string(), "-w", &(2 * times).to_string(), "--", host]);
    let limit = Duration::from_secs(u64::from(2 * times) + 5);
    match command::run_quietly(&mut ping, Some(limit)) {
        Ok(finished) => finished.status.success(),
        Err(error) => {
            tracing::warn!("{}", crate::chain(&error));
            false
        }
    }
}
