//! Commands on another node, run by ssh or by the configured `remote_command`.

use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, ExitReason, Telling};

use super::config::RepmgrConf;
use super::context::Context;
use super::log::{Level, say};
use crate::flow::StepError;
use crate::remote::{Remote, quoted};

/// The exit status of `is-standby` and `is-running` when the answer is no. Other statuses except 0 mean that there is no
/// answer.
pub const NO: u8 = 3;

/// Limit for a command on another node. It may have to rewind a server and start it.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Limit for a question to another node.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);

/// Runs a shell command on a host. Its output goes to the log.
pub(super) fn run(context: &Context<'_>, host: &str, script: &str) -> Result<(), StepError> {
    let mut command = command_for(&context.config, host, script)?;
    let shown: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    say(context.log, Level::Debug, &format!("remote_command():\n  {}", shown.join(" ")));
    let finished = command::run_until(&mut command, LIMIT, Telling::Lines, &context.stop)
        .map_err(|error| StepError::of(&error))?;
    if finished.status.success() {
        return Ok(());
    }
    Err(StepError::new(format!("command on host \"{host}\" failed: {}", ExitReason(finished.status))))
}

/// Whether a node's data directory is that of a standby, without an unfinished rewind.
pub(super) fn is_standby(context: &Context<'_>, host: &str, config_file: &str) -> Result<bool, StepError> {
    says_yes(context, host, config_file, ("is-standby", "whether the node is a standby"))
}

/// Whether the server of a node is running, according to the node's lock file.
pub(super) fn runs(context: &Context<'_>, host: &str, config_file: &str) -> Result<bool, StepError> {
    says_yes(context, host, config_file, ("is-running", "whether the server is running"))
}

fn says_yes(
    context: &Context<'_>,
    host: &str,
    config_file: &str,
    (question, words): (&str, &str),
) -> Result<bool, StepError> {
    let program = quoted(context.program);
    match status(context, host, &format!("{program} hook v8r6 -f {} {question}", quoted(config_file)))? {
        0 => Ok(true),
        NO => Ok(false),
        status => {
            let text = format!("host \"{host}\": could not determine {words} (exit status {status})");
            Err(StepError::new(text).hint(format!(
                "Check that {} is installed there and can read {config_file}.",
                context.program
            )))
        }
    }
}

/// The exit status of a shell command on a host. Its output is not logged.
pub(super) fn status(context: &Context<'_>, host: &str, script: &str) -> Result<u8, StepError> {
    let mut command = command_for(&context.config, host, script)?;
    let finished = command::run_until(&mut command, QUESTION_LIMIT, Telling::Nothing, &context.stop)
        .map_err(|error| StepError::of(&error))?;
    // 255: ssh itself failed.
    match finished.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(255) | None => Err(StepError::new(format!(
            "unable to connect via ES to host \"{host}\": {}",
            finished.output.trim()
        ))),
        Some(code) => Ok(code),
    }
}

fn command_for(conf: &RepmgrConf, host: &str, script: &str) -> Result<Command, StepError> {
    let remote = Remote { template: conf.remote_command.as_deref(), ssh_options: &conf.ssh_options };
    remote.command(host, script)
}
