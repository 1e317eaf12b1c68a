//! Whether a host answers, by the system's `ping`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, CommandError, ExitReason};

use crate::flow::StepError;

/// Whether a ping is answered within two seconds, of up to `times`.
///
/// # Errors
/// `ping` cannot be run, or may not send anything: then nothing is known of the host.
pub(crate) fn answers(host: &str, times: u32) -> Result<bool, StepError> {
    answers_to(Path::new("ping"), host, times)
}

fn answers_to(program: &Path, host: &str, times: u32) -> Result<bool, StepError> {
    for _ in 0..times.clamp(1, 20) {
        let mut ping = Command::new(program);
        // A host that begins with a dash is no option.
        ping.args(["-c", "1", "-w", "2", "--", host]);
        let finished = match command::run_quietly(&mut ping, Some(Duration::from_secs(10))) {
            Ok(finished) => finished,
            // The name service, say, does not answer either.
            Err(CommandError::TimedOut { .. }) => continue,
            Err(error) => return Err(StepError::of(&error)),
        };
        // 1: no answer; 2: something else, for example a name that is unknown.
        match finished.status.code() {
            Some(0) => return Ok(true),
            Some(1 | 2) if !may_not(&finished.output) => {}
            _ => {
                let (why, said) = (ExitReason(finished.status), finished.output.trim());
                return Err(StepError::new(format!("\"ping\" failed: {why} ({said})")));
            }
        }
    }
    Ok(false)
}

/// Whether it says that this user may send no ping at all.
fn may_not(output: &str) -> bool {
    output.contains("socket: ") || output.contains("permission denied")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fake_program;

    #[test]
    fn a_ping_that_cannot_be_run_is_no_host_that_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let ping = dir.path().join("ping");
        answers_to(&ping, "a", 1).unwrap_err();
        // Answered the third time.
        fake_program(&ping, "cd \"$(dirname \"$0\")\" && echo \"$*\" >> calls && [ $(wc -l < calls) = 3 ]");
        assert_eq!(answers_to(&ping, "a", 2), Ok(false));
        assert_eq!(answers_to(&ping, "a", 2), Ok(true));
        assert!(std::fs::read_to_string(dir.path().join("calls")).unwrap().starts_with("-c 1 -w 2 -- a\n"));
        fake_program(&ping, "echo 'ping: a: Name or service not known'; exit 2");
        assert_eq!(answers_to(&ping, "a", 2), Ok(false));
        fake_program(&ping, "echo 'ping: socket: Operation not permitted'; exit 2");
        answers_to(&ping, "a", 2).unwrap_err();
        fake_program(&ping, "exit 127");
        answers_to(&ping, "a", 2).unwrap_err();
    }
}
