//! The pool's control programs.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use kbrecover_rewind::command::{self, ExitReason};
use tempfile::NamedTempFile;

use super::node::Node;
use crate::flow::StepError;
use crate::host;
use crate::recovery_log::timestamp;
use crate::secret::Secret;

/// Has the pool use this node.
pub(super) const ATTACH: &str = "pcp_attach_node";
/// Has it no longer use it.
pub(super) const DETACH: &str = "pcp_detach_node";

/// Makes it the primary.
pub(super) const PROMOTE: &str = "pcp_promote_node";

/// Shows how many nodes the pool has, and one of them.
pub(super) const COUNT: &str = "pcp_node_count";
const INFO: &str = "pcp_node_info";

/// Runs a PCP program of the pool for this node.
pub(super) fn run(node: &Node<'_>, program: &str) -> Result<(), StepError> {
    let me = node.me().ok_or_else(|| StepError::new("the pool does not know this node"))?;
    call(node, program, Some(me.id)).map(drop)
}

/// The number of this node in the pool, of which a pool without a node that is up tells nothing else. `None` if the pool has
/// no such node.
pub(super) fn own_number(node: &Node<'_>) -> Result<Option<u32>, StepError> {
    let last_line = |output: String| output.lines().last().unwrap_or_default().trim().to_owned();
    let count = last_line(call(node, COUNT, None)?);
    let count: u32 = count.parse().map_err(|_| StepError::new(format!("{COUNT} answered \"{count}\"")))?;
    for number in 0..count {
        let info = last_line(call(node, INFO, Some(number))?);
        let mut words = info.split_whitespace();
        if let (Some(host), Some(port)) = (words.next(), words.next())
            && host::is_same(host, &node.config.local_host)
            && port == node.config.port.to_string()
        {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Calls a PCP program, for one of the pool's nodes if a number is given. Returns its output. The password is passed in a file
/// that only this user can read.
pub(super) fn call(node: &Node<'_>, program: &str, number: Option<u32>) -> Result<String, StepError> {
    let config = node.config;
    let path = path(node, program);
    let passwords = password_file(node.run_dir, &config.pcp_user, &config.pcp_password)
        .map_err(|error| StepError::new(format!("could not write a password file: {error}")))?;
    let mut command = node.server.command(&path);
    command.env("PCPPASSFILE", passwords.path()).arg("-w");
    command.args(["-h", &config.pool_host, "-p", &config.pcp_port.to_string(), "-U", &config.pcp_user]);
    if let Some(number) = number {
        command.args(["-n", &number.to_string()]);
    }
    if let (ATTACH | DETACH | PROMOTE, Some(number)) = (program, number) {
        node.log.line(&format!("{} IM Node is {number}, will try [{}]", timestamp(), shown(&command)));
    }
    let run = |command: &mut Command| {
        // What is asked is no news for the log.
        let run = if matches!(program, COUNT | INFO) { command::run_quietly } else { command::run };
        run(command, Some(Duration::from_secs(60))).map_err(|error| StepError::of(&error))
    };
    let mut finished = run(&mut command)?;
    for _ in 1..TRIES {
        if finished.status.success() || !is_hung_up(&finished.output) {
            break;
        }
        thread::sleep(PAUSE);
        node.log.line(&format!("{} the pool has hung up, trying again", timestamp()));
        finished = run(&mut command)?;
    }
    if finished.status.success() {
        return Ok(finished.output);
    }
    let why = ExitReason(finished.status);
    Err(StepError::new(format!("\"{program}\" failed: {why} ({})", finished.output.trim()))
        .hint("Check that KB_POOL_VIP, KB_POOL_PCP_PORT, PCP_USER and PCP_PASS are correct."))
}

/// The process of the pool that answers starts anew when a node was attached or detached, and hangs up on whoever is connected then
/// (seen with pgpool-II 4.6). This many calls are made, with a pause between them.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Whether the pool has closed the connection without an answer, by the words of its programs.
fn is_hung_up(output: &str) -> bool {
    output.contains("unable to read data from socket")
}

/// The path of a PCP program.
pub(super) fn path(node: &Node<'_>, program: &str) -> PathBuf {
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
