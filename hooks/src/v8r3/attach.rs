//! The last steps on a standby: it receives WAL, synchronous replication is set as configured, and the pool uses it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kbrecover_rewind::command::{self, ExitReason};
use tempfile::NamedTempFile;

use super::node::Node;
use super::{health, pool_nodes, primary, slots};
use crate::flow::{Decision, Step, StepError, no_action};
use crate::recovery_log::timestamp;
use crate::secret::Secret;
use crate::sql::literal;

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 5] {
    [
        // Not among the steps of the recovery: the run after one that was interrupted may find nothing to recover.
        Step::new("slots of this node", slots::check_recorded, slots::create_recorded),
        Step::new("streaming", check_stream, wait_for_stream),
        Step::new("lag", check_lag, no_action),
        Step::new("synchronous standbys", check_mode, set_mode),
        Step::new("attach", check_attach, attach),
    ]
}

/// The PCP programs.
pub(super) const ATTACH: &str = "pcp_attach_node";
pub(super) const DETACH: &str = "pcp_detach_node";

/// Limit for a standby to connect to the primary.
const STREAM_LIMIT: Duration = Duration::from_secs(60);

/// The names of the function for the difference of two LSNs, of the function for the flushed LSN, and of the column with the
/// LSN that a standby has written.
type LagNames = (&'static str, &'static str, &'static str);

const LAG: LagNames = ("wal_lsn_diff", "current_wal_flush_lsn", "write_lsn");
const LAG_BEFORE_10: LagNames = ("xlog_location_diff", "current_xlog_flush_location", "write_location");

fn check_stream(node: &mut Node<'_>) -> Result<Decision, StepError> {
    if node.need.is_none() || health::is_streaming(node)? {
        return Ok(Decision::Skip(String::new()));
    }
    Ok(Decision::Act("wait until this node receives WAL from the primary".into()))
}

fn wait_for_stream(node: &mut Node<'_>) -> Result<String, StepError> {
    let deadline = Instant::now() + STREAM_LIMIT;
    while !health::is_streaming(node)? {
        if Instant::now() >= deadline {
            return Err(StepError::new("can not get the replication of myself")
                .hint("The server is running but does not receive WAL: see its log (a slot, a password, pg_hba.conf, missing WAL)."));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(String::new())
}

fn check_lag(node: &mut Node<'_>) -> Result<Decision, StepError> {
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
    // Without a row, the primary knows this node by another name, and its lag is unknown.
    let lag = answer.value().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
    if lag > node.config.max_lag as f64 {
        let most = node.config.max_lag >> 20;
        return Ok(Decision::Refuse(format!(
            "Im Node is standby,the gap between my LSN and primary LSN is too large,the data difference exceeds {most} M,exit script"
        )));
    }
    Ok(Decision::Skip(String::new()))
}

fn check_mode(node: &mut Node<'_>) -> Result<Decision, StepError> {
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

fn check_attach(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.nodes = pool_nodes::read(&node.query_pool()?).map_err(StepError::new)?;
    match node.me() {
        Some(me) if me.is_up => Ok(Decision::Skip("ALL NODES ARE UP STATUS!".into())),
        Some(me) => Ok(Decision::Act(format!("attach pool... IM Node is {}", me.id))),
        None => Err(StepError::new("the pool no longer knows this node")),
    }
}

fn attach(node: &mut Node<'_>) -> Result<String, StepError> {
    pcp(node, ATTACH)?;
    Ok("attach end..".into())
}

/// Runs a PCP program of the pool for this node. The password is passed in a file that only this user can read.
pub(super) fn pcp(node: &Node<'_>, program: &str) -> Result<(), StepError> {
    let config = node.config;
    let me = node.me().ok_or_else(|| StepError::new("the pool does not know this node"))?;
    let path = pcp_path(node, program);
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
        .hint("Check that KB_POOL_VIP, KB_POOL_PCP_PORT, PCP_USER and PCP_PASS are correct."))
}

/// The path of a PCP program.
pub(super) fn pcp_path(node: &Node<'_>, program: &str) -> PathBuf {
    let directory = node.config.cluster_programs.as_ref();
    let there = directory.map(|directory| directory.join(program)).filter(|path| path.exists());
    there.unwrap_or_else(|| node.server.program(program))
}

/// Creates a password file that is removed when it is dropped. A run that is killed leaves the file among the state files,
/// where the next run replaces it; the lock prevents concurrent runs. An existing file is removed rather than written to,
/// because in a world-writable directory it may be another user's.
fn password_file(directory: &Path, user: &str, password: &Secret) -> io::Result<NamedTempFile> {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    match fs::remove_file(directory.join(PASSWORD_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // tempfile creates it with mode 0600.
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
            // As if the run were killed.
            std::mem::forget(file);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "one file, and the victim");
        }
        assert_eq!(fs::read(&victim).unwrap(), b"");
        drop(password_file(dir.path(), "a", &Secret::default()).unwrap());
        assert!(!path.exists());
    }
}
