//! Whether a host responds to the system's `ping`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, CommandError, ExitReason};

use crate::flow::StepError;

/// Whether a host responds to one of up to `times` pings, within two seconds each.
///
/// # Errors
/// `ping` cannot be run or has no permission to send, so that nothing is known of the host.
pub(crate) fn responds(host: &str, times: u32) -> Result<bool, StepError> {
    responds_to(Path::new("ping"), host, times)
}

fn responds_to(program: &Path, host: &str, times: u32) -> Result<bool, StepError> {
    for _ in 0..times.clamp(1, 20) {
        let mut ping = Command::new(program);
        // `--`: a host name that begins with a dash is not an option.
        ping.args(["-c", "1", "-w", "2", "--", host]);
        let finished = match command::run_quietly(&mut ping, Some(Duration::from_secs(10))) {
            Ok(finished) => finished,
            // For example, the name service does not respond.
            Err(CommandError::TimedOut { .. }) => continue,
            Err(error) => return Err(StepError::of(&error)),
        };
        // 1: no response; 2: another error, such as an unknown host name.
        match finished.status.code() {
            Some(0) => return Ok(true),
            Some(1 | 2) if !is_permission_error(&finished.output) => {}
            _ => {
                let (why, output) = (ExitReason(finished.status), finished.output.trim());
                return Err(StepError::new(format!("\"ping\" failed: {why} ({output})")));
            }
        }
    }
    Ok(false)
}

/// Whether the output says that this user is not permitted to send pings.
fn is_permission_error(output: &str) -> bool {
    output.contains("socket: ") || output.contains("permission denied")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fake_program;

    #[test]
    fn a_ping_that_cannot_be_run_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let ping = dir.path().join("ping");
        responds_to(&ping, "a", 1).unwrap_err();
        // The third ping succeeds.
        fake_program(&ping, "cd \"$(dirname \"$0\")\" && echo \"$*\" >> calls && [ $(wc -l < calls) = 3 ]");
        assert_eq!(responds_to(&ping, "a", 2), Ok(false));
        assert_eq!(responds_to(&ping, "a", 2), Ok(true));
        assert!(std::fs::read_to_string(dir.path().join("calls")).unwrap().starts_with("-c 1 -w 2 -- a\n"));
        fake_program(&ping, "echo 'ping: a: Name or service not known'; exit 2");
        assert_eq!(responds_to(&ping, "a", 2), Ok(false));
        fake_program(&ping, "echo 'ping: socket: Operation not permitted'; exit 2");
        responds_to(&ping, "a", 2).unwrap_err();
        fake_program(&ping, "exit 127");
        responds_to(&ping, "a", 2).unwrap_err();
    }
}
