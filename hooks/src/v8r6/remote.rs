//! Commands on another node, by ssh or by whatever the configuration names.

use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, ExitReason, Telling};

use super::daemon::Daemon;
use super::log::{Level, say};
use super::{NO, RepmgrConf};
use crate::flow::StepError;

/// How long a command on another node may take: rewinding a server and starting it may be part of it.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How long a question may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);

/// Runs a shell command on a host. Its output goes into the log.
pub(super) fn run(daemon: &Daemon<'_>, host: &str, script: &str) -> Result<(), StepError> {
    let mut command = command_for(&daemon.config, host, script)?;
    let shown: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    say(daemon.log, Level::Debug, &format!("remote_command():\n  {}", shown.join(" ")));
    let finished = command::run_until(&mut command, LIMIT, Telling::Lines, &daemon.stop)
        .map_err(|error| StepError::of(&error))?;
    if finished.status.success() {
        return Ok(());
    }
    Err(StepError::new(format!("command on host \"{host}\" failed: {}", ExitReason(finished.status))))
}

/// Whether a node's directory says that it is a standby's and that no rewind of it is unfinished.
pub(super) fn is_standby(daemon: &Daemon<'_>, host: &str, config_file: &str) -> Result<bool, StepError> {
    says_yes(daemon, host, config_file, ("is-standby", "whether it is a standby"))
}

/// Whether the server of a node runs, in the words of its own directory.
pub(super) fn runs(daemon: &Daemon<'_>, host: &str, config_file: &str) -> Result<bool, StepError> {
    says_yes(daemon, host, config_file, ("is-running", "whether its server runs"))
}

fn says_yes(
    daemon: &Daemon<'_>,
    host: &str,
    config_file: &str,
    (question, words): (&str, &str),
) -> Result<bool, StepError> {
    let program = quoted(daemon.program);
    match status(daemon, host, &format!("{program} hook v8r6 -f {} {question}", quoted(config_file)))? {
        0 => Ok(true),
        NO => Ok(false),
        status => {
            Err(StepError::new(format!("host \"{host}\" could not tell {words} (exit status {status})"))
                .hint(format!("Is {} installed there, and can it read {config_file}?", daemon.program)))
        }
    }
}

/// The exit status of a shell command on a host; what it says is not logged.
pub(super) fn status(daemon: &Daemon<'_>, host: &str, script: &str) -> Result<u8, StepError> {
    let mut command = command_for(&daemon.config, host, script)?;
    let finished = command::run_until(&mut command, QUESTION_LIMIT, Telling::Nothing, &daemon.stop)
        .map_err(|error| StepError::of(&error))?;
    // ssh itself fails with 255.
    match finished.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(255) | None => Err(StepError::new(format!(
            "unable to connect via ES to host \"{host}\": {}",
            finished.output.trim()
        ))),
        Some(code) => Ok(code),
    }
}

fn command_for(conf: &RepmgrConf, host: &str, script: &str) -> Result<Command, StepError> {
    // It may become part of a shell's command.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if host.is_empty() || host.starts_with('-') || !host.bytes().all(fits) {
        return Err(StepError::new(format!("\"{host}\" is no name of a host")));
    }
    if let Some(template) = &conf.remote_command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(template.replace("%h", host).replace("%c", &quoted(script)));
        return Ok(command);
    }
    let mut command = Command::new("ssh");
    command.args(["-o", "Batchmode=yes"]).args(conf.ssh_options.split_whitespace());
    // What is set first counts. Without any a machine that vanishes would be waited for until LIMIT.
    command.args(["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]).arg(host).arg(script);
    Ok(command)
}

/// One word for a shell.
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
    fn a_machine_that_vanishes_is_not_waited_for() {
        let own = conf("ssh_options='-o ServerAliveInterval=60'\n");
        let words = words(&command_for(&own, "db2", "true").unwrap());
        let place = |option: &str| words.iter().position(|word| word.starts_with(option));
        // Of several ssh takes the first.
        assert!(place("ServerAliveInterval=60") < place("ServerAliveInterval=5"), "{words:?}");
        assert!(place("ServerAliveCountMax=3").is_some(), "{words:?}");
        assert_eq!(words[words.len() - 2..], ["db2", "true"]);
    }

    #[test]
    fn only_a_name_gets_into_a_command() {
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
