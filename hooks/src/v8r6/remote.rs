//! Commands on another node, run by ssh or by the configured `remote_command`.

use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, ExitReason, Telling};

use super::config::RepmgrConf;
use super::context::Context;
use super::log::{Level, say};
use crate::flow::StepError;

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
    // The host may become part of a shell command.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if host.is_empty() || host.starts_with('-') || !host.bytes().all(fits) {
        return Err(StepError::new(format!("\"{host}\" is not a valid host name")));
    }
    if let Some(template) = &conf.remote_command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(template.replace("%h", host).replace("%c", &quoted(script)));
        return Ok(command);
    }
    let mut command = Command::new("ssh");
    command.args(["-o", "Batchmode=yes"]).args(conf.ssh_options.split_whitespace());
    // The first value of an option counts, so ssh_options takes precedence. Without any keepalive, a host that vanishes
    // would hold the command until LIMIT.
    command.args(["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]).arg(host).arg(script);
    Ok(command)
}

/// The text quoted as one shell word.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(more: &str) -> RepmgrConf {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repmgr.conf");
        let text = format!("node_id=1\nnode_name=a\nconninfo='host=a'\ndata_directory='/d'\n{more}");
        std::fs::write(&path, text).unwrap();
        RepmgrConf::read(&path).unwrap()
    }

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn ssh_keepalives_end_a_command_on_a_vanished_host() {
        let own = conf("ssh_options='-o ServerAliveInterval=60'\n");
        let words = words(&command_for(&own, "db2", "true").unwrap());
        let place = |option: &str| words.iter().position(|word| word.starts_with(option));
        // ssh uses the first of several values.
        assert!(place("ServerAliveInterval=60") < place("ServerAliveInterval=5"), "{words:?}");
        assert!(place("ServerAliveCountMax=3").is_some(), "{words:?}");
        assert_eq!(words[words.len() - 2..], ["db2", "true"]);
    }

    #[test]
    fn only_valid_host_names_are_put_into_a_command() {
        let own = conf("remote_command='run %h %c'\n");
        for host in ["", "-oProxyCommand=x", "a b", "a;b", "$(x)", "a'b", "h\u{e4}"] {
            assert!(command_for(&own, host, "true").is_err(), "{host:?}");
        }
        for host in ["db_2.example-a.org", "10.0.0.1", "fe80::1"] {
            let command = command_for(&own, host, "it's").unwrap();
            assert_eq!(words(&command), ["-c".to_owned(), format!("run {host} 'it'\\''s'")]);
        }
    }
}
