//! Containers and `ulimit` limit threads and open files: a run does with few of them, or is refused before the first change.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{
    AsServerUser, Failover, Rewind, Run, Sandbox, Server, SourceKind, Tree, could_not_mount, is_root,
    run_command,
};

/// A user who runs nothing else: all processes of a user count.
const LONELY: u32 = 64_123;

/// A run below `prlimit`, which a hang does not make wait for ever.
fn limited(limits: &[&str], of: Rewind, user: Option<u32>) -> Run {
    let inner = of.command();
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "60", "prlimit"]).args(limits).arg("--");
    command.arg(inner.get_program()).args(inner.get_args()).env("TZ", "UTC").as_server_user();
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    run_command(command)
}

fn give(directory: &Path, user: u32) {
    let status = Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(directory).status();
    assert!(status.expect("run chown").success());
}

/// Rewinds copies with each of these limits: the least are refused and nothing is changed, the largest suffices, and nothing ends
/// in any other way.
fn assert_refused_or_done(
    old: &Server,
    new: &Server,
    (name, limits): (&str, &[u32]),
    options: &[&str],
    user: Option<u32>,
) {
    let mut done = Vec::new();
    for limit in limits {
        let target = old.copy(&format!("{name}-{limit}"));
        if let Some(user) = user {
            give(&target.data, user);
        }
        let before = Tree::of(&target.data);
        let rewind = Rewind::of(&target).from(new, SourceKind::Server).args(options).unverified();
        let run = limited(&[&format!("--{name}={limit}")], rewind, user);
        if run.code == 0 {
            run.expect_rewound();
            done.push(*limit);
        } else {
            before.assert_unchanged(&target.data, &run.to_string());
            assert!(run.code == 1 && run.stderr.contains("a run needs "), "{name} {limit}: {run}");
            assert!(run.stderr.contains("hint: Raise the limit of "), "{name} {limit}: {run}");
            assert!(done.is_empty(), "less was enough, {done:?}: {run}");
        }
        std::fs::remove_dir_all(&target.data).expect("remove it");
    }
    assert!(!done.is_empty() && done.len() < limits.len(), "{done:?} of {limits:?}");
}

#[test]
fn few_threads() {
    if !is_root() {
        return could_not_mount("few threads", "another user is needed, who runs nothing else");
    }
    let sandbox = Sandbox::new();
    let Failover { old, mut new } = Failover::of_one_table(&sandbox);
    new.stop();
    new.listen_on_loopback();
    new.start();
    for options in [&[][..], &["-j", "8"], &["--compare-data=on"], &["--verify", "-R"]] {
        assert_refused_or_done(&old, &new, ("nproc", &[4, 7, 8, 9, 10, 12, 14, 18]), options, Some(LONELY));
    }
    let archive = sandbox.make_dir("archive");
    for entry in std::fs::read_dir(old.data.join("pg_wal")).expect("list pg_wal").map(Result::unwrap) {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), archive.join(entry.file_name())).expect("archive");
        }
    }
    std::fs::set_permissions(&archive, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("open it");
    let fetch = format!("/bin/sh -c 'cp {}/%f %p'", archive.display());
    let options = ["--restore-command", &fetch];
    assert_refused_or_done(&old, &new, ("nproc", &[4, 8, 10, 12, 14, 16, 18]), &options, Some(LONELY));
}

#[test]
fn few_open_files() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    for options in [&[][..], &["-j", "8"], &["--compare-data=on"], &["--verify", "-R"]] {
        assert_refused_or_done(&old, &new, ("nofile", &[10, 14, 16, 20, 24, 28, 32, 64]), options, None);
    }
}
