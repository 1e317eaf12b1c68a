//! Commands on another node, by ssh or by whatever the configuration names.

use std::process::Command;
use std::time::Duration;

use rewind::command::{self, ExitReason};

use super::RepmgrConf;
use crate::flow::StepError;
use crate::recovery_log::RecoveryLog;

use super::log::{Level, say};

/// How long a command on another node may take: starting a server there is part of it.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a shell command on a host. Its output goes into the log.
pub(super) fn run(conf: &RepmgrConf, log: &RecoveryLog, host: &str, script: &str) -> Result<(), StepError> {
    let mut command = command_for(conf, host, script)?;
    let shown: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    say(log, Level::Debug, &format!("remote_command():\n  {}", shown.join(" ")));
    let finished = command::run(&mut command, Some(LIMIT)).map_err(|error| StepError::of(&error))?;
    if finished.status.success() {
        return Ok(());
    }
    Err(StepError::new(format!("command on host \"{host}\" failed: {}", ExitReason(finished.status))))
}

/// Whether a shell command succeeds on a host; what it says is not logged.
pub(super) fn succeeds(conf: &RepmgrConf, host: &str, script: &str) -> Result<bool, StepError> {
    let mut command = command_for(conf, host, script)?;
    let finished = command::run_quietly(&mut command, Some(Duration::from_secs(30)))
        .map_err(|error| StepError::of(&error))?;
    // ssh itself fails with 255.
    match finished.status.code() {
        Some(255) | None => Err(StepError::new(format!(
            "unable to connect via ES to host \"{host}\": {}",
            finished.output.trim()
        ))),
        Some(code) => Ok(code == 0),
    }
}

fn command_for(conf: &RepmgrConf, host: &str, script: &str) -> Result<Command, StepError> {
    if host.starts_with('-') || host.contains(char::is_whitespace) {
        return Err(StepError::new(format!("\"{host}\" is no name of a host")));
    }
    if let Some(template) = &conf.remote_command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(template.replace("%h", host).replace("%c", &quoted(script)));
        return Ok(command);
    }
    let mut command = Command::new("ssh");
    command.args(["-o", "Batchmode=yes"]).args(conf.ssh_options.split_whitespace()).arg(host).arg(script);
    Ok(command)
}

/// One word for a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
