//! A standby that runs: it receives, it is waited for if that is wanted, and the pool uses it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kbrecover_rewind::command::{self, ExitReason};
use tempfile::NamedTempFile;

use super::{Node, health, pool_nodes, primary, slots};
use crate::flow::{Decision, Step, StepError, nothing};
use crate::recovery_log::timestamp;
use crate::secret::Secret;
use crate::sql::literal;

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 5] {
    [
        // Here, and not where it was begun: a run that was interrupted in between finds nothing to recover.
        Step { name: "slots of this node", look: slots::look_for_noted, act: slots::create_noted },
        Step { name: "streaming", look: look_for_stream, act: wait_for_stream },
        Step { name: "lag", look: look_at_lag, act: nothing },
        Step { name: "synchronous standbys", look: look_at_mode, act: set_mode },
        Step { name: "attach", look: look_for_attach, act: attach },
    ]
}

/// How long a standby may take to connect to the primary.
const STREAM_LIMIT: Duration = Duration::from_secs(60);

/// The difference of two positions, the position that is flushed, and the column of what a standby has written.
type LagNames = (&'static str, &'static str, &'static str);

const LAG: LagNames = ("wal_lsn_diff", "current_wal_flush_lsn", "write_lsn");
const LAG_BEFORE_10: LagNames = ("xlog_location_diff", "current_xlog_flush_location", "write_location");

fn look_for_stream(node: &mut Node<'_>) -> Result<Decision, StepError> {
    if node.need.is_none() || health::is_streaming(node)? {
        return Ok(Decision::Skip(String::new()));
    }
    Ok(Decision::Act("wait until this node receives from the primary".into()))
}

fn wait_for_stream(node: &mut Node<'_>) -> Result<String, StepError> {
    let deadline = Instant::now() + STREAM_LIMIT;
    while !health::is_streaming(node)? {
        if Instant::now() >= deadline {
            return Err(StepError::new("can not get the replication of myself")
                .hint("The server runs but does not receive: its log tells why (a slot, a password, pg_hba.conf, WAL that is gone)."));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(String::new())
}

fn look_at_lag(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let name = literal(&node.config.node_name);
    let lag = |names: &LagNames| {
        let (difference, flushed, written) = *names;
        let name = name.clone();
        move |prefix: &str| {
            format!(
                "SELECT max({prefix}_{difference}({prefix}_{flushed}(), {written})) FROM {prefix}_stat_replication \
                 WHERE application_name = {name}"
            )
        }
    };
    let primary = node.primary_server()?;
    let answer = match primary.ask_named(lag(&LAG)) {
        Err(error) if error.is_unknown_name() => primary.ask_named(lag(&LAG_BEFORE_10)),
        answer => answer,
    };
    let answer = answer.map_err(|error| StepError::of(&error))?;
    // No row: it is known under another name, and then nothing is known of its lag.
    let lag = answer.value().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
    if lag > node.config.max_lag as f64 {
        let most = node.config.max_lag >> 20;
        return Ok(Decision::Refuse(format!(
            "Im Node is standby,the gap between my LSN and primary LSN is too large,the data difference exceeds {most} M,exit script"
        )));
    }
    Ok(Decision::Skip(String::new()))
}

fn look_at_mode(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let names = node
        .primary_server()?
        .ask("SHOW synchronous_standby_names")
        .map_err(|error| StepError::of(&error))?;
    let is_synchronous = !names.value().unwrap_or_default().is_empty();
    Ok(match (node.config.synchronous, is_synchronous) {
        (true, false) => Decision::Act("SYNC RECOVER MODE ...".into()),
        (false, true) => Decision::Act("ASYNC RECOVER MODE ...".into()),
        _ => Decision::Skip(String::new()),
    })
}

fn set_mode(node: &mut Node<'_>) -> Result<String, StepError> {
    let primary = node.primary_server()?;
    if !node.config.synchronous {
        primary::set_synchronous(&primary, "")?;
        return Ok("ASYNC RECOVER MODE ... DONE".into());
    }
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let names: Vec<_> = node.config.node_names.iter().map(quoted).collect();
    primary::set_synchronous(&primary, &format!("1 ({})", names.join(", ")))?;
    Ok("SYNC RECOVER MODE ... DONE".into())
}

fn look_for_attach(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.nodes = pool_nodes::read(&node.ask_pool()?).map_err(StepError::new)?;
    match node.me() {
        Some(me) if me.is_up => Ok(Decision::Skip("ALL NODES ARE UP STATUS!".into())),
        Some(me) => Ok(Decision::Act(format!("attach pool... IM Node is {}", me.id))),
        None => Err(StepError::new("the pool no longer knows this node")),
    }
}

fn attach(node: &mut Node<'_>) -> Result<String, StepError> {
    pcp(node, "pcp_attach_node")?;
    Ok("attach end..".into())
}

/// Runs one of the pool's programs for this node. Its password goes by a file that only we can read.
pub(super) fn pcp(node: &Node<'_>, program: &str) -> Result<(), StepError> {
    let config = node.config;
    let me = node.me().ok_or_else(|| StepError::new("the pool does not know this node"))?;
    let path = config
        .cluster_programs
        .as_ref()
        .map(|directory| directory.join(program))
        .filter(|path| path.exists())
        .unwrap_or_else(|| node.server.program(program));
    let passwords = password_file(node.run_dir, &config.pcp_user, &config.pcp_password)
        .map_err(|error| StepError::new(format!("could not write a password file: {error}")))?;
    let mut command = node.server.command(&path);
    command.env("PCPPASSFILE", passwords.path()).arg("-w");
    command.args(["-h", &config.pool_host, "-p", &config.pcp_port.to_string(), "-U", &config.pcp_user]);
    command.args(["-n", &me.id.to_string()]);
    node.log.line(&format!("{} IM Node is {}, will try [{}]", timestamp(), me.id, shown(&command)));
    let finished =
        command::run(&mut command, Some(Duration::from_secs(60))).map_err(|error| StepError::of(&error))?;
    if finished.status.success() {
        return Ok(());
    }
    let why = ExitReason(finished.status);
    Err(StepError::new(format!("\"{program}\" failed: {why} ({})", finished.output.trim()))
        .hint("Do KB_POOL_VIP, KB_POOL_PCP_PORT, PCP_USER and PCP_PASS lead to the pool's PCP port?"))
}

/// A file that is removed when it is dropped. A run that is killed leaves it among the notes, in memory, for the next one
/// to replace: the lock keeps other runs away. What is there is never written to, since anybody may have put it there.
fn password_file(directory: &Path, user: &str, password: &Secret) -> io::Result<NamedTempFile> {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    match fs::remove_file(directory.join(PASSWORD_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Made with mode 0600.
    let mut file = tempfile::Builder::new().prefix(PASSWORD_FILE).rand_bytes(0).tempfile_in(directory)?;
    writeln!(file, "*:*:{}:{}", escaped(user), escaped(password.reveal()))?;
    Ok(file)
}

const PASSWORD_FILE: &str = "KB_RECOVERY_PCPPASS";

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_password_file_replaces_that_of_a_killed_run() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join(PASSWORD_FILE), dir.path().join("victim"));
        fs::write(&victim, "").unwrap();
        symlink(&victim, &path).unwrap();
        for round in 0..3 {
            let file = password_file(dir.path(), "a:b", &Secret::new(format!("{round}\\"))).unwrap();
            assert_eq!(fs::read_to_string(file.path()).unwrap(), format!("*:*:a\\:b:{round}\\\\\n"));
            assert_eq!(file.as_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
            // Killed.
            std::mem::forget(file);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "one file, and the victim");
        }
        assert_eq!(fs::read(&victim).unwrap(), b"");
        drop(password_file(dir.path(), "a", &Secret::default()).unwrap());
        assert!(!path.exists());
    }
}
