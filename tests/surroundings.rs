//! What a run finds around it: in containers, below `ulimit`, under parents with habits of their own.
//!
//!     few threads, few open files      it does with few, or is refused before the first change
//!     a mount point in the target      is left as it is; in the data it is refused
//!     SIGCHLD ignored by the parent    makes no difference
//!     system calls that are refused    are done without

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::full_disk::SmallDisk;
use crate::harness::{
    AsServerUser, Failover, Proxy, Rewind, Run, Sandbox, Server, SourceKind, Then, Tree, assert_follows,
    could_not_mount, is_root, run, run_command,
};
use crate::missing_wal::{archive, copy_from, diverged};

/// Users who run nothing else, one for each scenario: all processes of a user count.
const LONELY: [u32; 3] = [64_123, 64_124, 64_125];

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
        assert_refused_or_done(&old, &new, ("nproc", &[4, 9, 11, 13, 20]), options, Some(LONELY[0]));
    }
}

#[test]
fn few_threads_for_programs() {
    if !is_root() {
        return could_not_mount("few threads", "another user is needed, who runs nothing else");
    }
    let sandbox = Sandbox::new();
    let Failover { old, new } = diverged(&sandbox, "512MB");
    let archive = archive(&sandbox, &old, |_| true);
    run(Command::new("chmod").arg("-R").arg("a+rX").arg(&archive));
    let fetch = format!("/bin/sh -c '{}'", copy_from(&archive));
    let limits = ("nproc", &[4, 14, 17, 19, 26][..]);
    assert_refused_or_done(&old, &new, limits, &["--restore-command", &fetch], Some(LONELY[1]));
}

/// A limit may be lowered at any moment. What needs another thread then is done without, or the run ends with an error.
#[test]
fn a_limit_of_threads_that_is_lowered() {
    if !is_root() {
        return could_not_mount("few threads", "another user is needed, who runs nothing else");
    }
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    let (mut done, mut errors) = (0, String::new());
    for (bytes, options) in [(500, &[][..]), (20_000, &["--verify"]), (60_000, &["-j", "8"]), (100_000, &[])]
    {
        let target = old.copy(&format!("lowered-{bytes}"));
        give(&target.data, LONELY[2]);
        let proxy = Proxy::to(&new, bytes, Then::Hold);
        let rewind = || Rewind::of(&target).arg("--source-server").arg(proxy.conninfo()).args(options);
        let mut command = rewind().unverified().command();
        command.uid(LONELY[2]).gid(LONELY[2]).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().expect("run kbrecover");
        proxy.wait_until_there();
        let process = child.id().to_string();
        // The user of the run may lower its limits; root would need a capability that containers lack.
        run(Command::new("prlimit").args(["--nproc=1", "--pid", &process]).uid(LONELY[2]).gid(LONELY[2]));
        proxy.go_on();
        let ended = child.wait_with_output().expect("wait for kbrecover");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!said.contains("panicked"), "{bytes}: {said}");
        match ended.status.code() {
            Some(0) => done += 1,
            Some(1) if said.contains("could not start") && said.contains("hint: ") => errors += &said,
            other => panic!("{bytes}: {other:?} {said}"),
        }
        std::fs::remove_dir_all(&target.data).expect("remove it");
    }
    assert!(done > 0, "no run went on: {errors}");
}

#[test]
fn few_open_files() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    for options in [&[][..], &["-j", "8"], &["--compare-data=on"], &["--verify", "-R"]] {
        assert_refused_or_done(&old, &new, ("nofile", &[12, 20, 26, 64]), options, None);
    }
}

#[test]
fn little_address_space() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    for options in [&[][..], &["-j", "8"], &["--compare-data=on", "--verify"]] {
        assert_refused_or_done(&old, &new, ("as", &[64 << 20, 255 << 20, 256 << 20, 1 << 30]), options, None);
    }
}

#[test]
fn small_stacks() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server).arg("--verify");
    limited(&["--stack=131072"], rewind, None).expect_rewound();
    assert_follows(&mut old, &new);
}

/// Kubernetes volumes have it: what is made in such a directory belongs to the directory's group.
#[test]
fn setgid_directories() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    run(Command::new("find").arg(&old.data).args(["-type", "d", "-exec", "chmod", "g+s", "{}", "+"]));
    new.sql("CREATE DATABASE made_later");
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_rewound();
    let mode = |path: &Path| {
        let permissions = path.metadata().expect("stat").permissions();
        std::os::unix::fs::PermissionsExt::mode(&permissions) & 0o7777
    };
    assert_eq!(mode(&old.data), 0o2700);
    assert_follows(&mut old, &new);
}

/// What is mounted is not the rewind's, and a mount point cannot be removed.
#[test]
fn mount_points_that_only_the_target_has() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    let mount = |old: &Server, name: &str| {
        old.make_dir(name);
        SmallDisk::mount(old.data.join(name), 1 << 20)
    };
    let Some(data) = mount(&old, "base/99999") else { return };
    let error = "\"base/99999\" on the target is a mount point, and the source has nothing of this name: it cannot be removed";
    Rewind::of(&old).from(&new, SourceKind::Server).expect_refusal(error, "Unmount it first.");
    drop(data);
    old.make_dir("local");
    let (Some(one), Some(two)) = (mount(&old, "mounted"), mount(&old, "local/b c")) else { return };
    old.write("local/file", "of the target");
    old.write("local/b c/file", "mounted");
    let run = Rewind::of(&old).from(&new, SourceKind::Server).run().expect_rewound();
    for name in ["mounted", "local/b c"] {
        assert!(run.stderr.contains(&format!("\"{name}\" is a mount point")), "{run}");
    }
    assert_follows(&mut old, &new);
    assert!(old.data.join("local/b c/file").exists() && !old.data.join("local/file").exists());
    old.stop();
    drop((one, two));
}

#[test]
fn a_parent_that_ignores_its_children() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = diverged(&sandbox, "512MB");
    let archive = archive(&sandbox, &old, |_| true);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    let inner = rewind.arg("--restore-command").arg(copy_from(&archive)).command();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' CHLD; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.env("TZ", "UTC").as_server_user();
    run_command(command).expect_rewound();
}

/// Starts a program for which a filter refuses a system call, as profiles for containers do: the call's number, the error's.
const REFUSE: &str = r#"
import ctypes, os, struct, sys
number, error = int(sys.argv[1]), int(sys.argv[2])
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
program = b"".join(struct.pack("HBBI", *step) for step in [
    (LOAD, 0, 0, 0), (EQUAL, 0, 1, number), (RETURN, 0, 0, 0x00050000 | error), (RETURN, 0, 0, 0x7FFF0000)])
buffer = ctypes.create_string_buffer(program)
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
for call in [(38, 1, 0, 0, 0), (22, 2, ctypes.addressof(filter), 0, 0)]:
    if libc.prctl(*[ctypes.c_ulong(word) for word in call]):
        sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// ENOSYS is what an old kernel answers, EPERM what the filter of an old container runtime does.
#[test]
fn system_calls_that_are_refused() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    // One that has crashed may have written what it has not synced.
    old.start();
    old.kill();
    for (name, call) in [
        ("syncfs", libc::SYS_syncfs),
        ("flock", libc::SYS_flock),
        ("statfs", libc::SYS_statfs),
        ("statx", libc::SYS_statx),
        ("copy_file_range", libc::SYS_copy_file_range),
        ("renameat2", libc::SYS_renameat2),
        ("openat2", libc::SYS_openat2),
        ("close_range", libc::SYS_close_range),
        ("faccessat2", libc::SYS_faccessat2),
    ] {
        for error in [libc::ENOSYS, libc::EPERM] {
            let mut target = old.copy(&format!("{name}-{error}"));
            let rewind = Rewind::of(&target).from(&new, SourceKind::Server).synced();
            let inner = rewind.command();
            let mut command = Command::new("python3");
            command.args(["-c", REFUSE, &call.to_string(), &error.to_string()]);
            command.arg(inner.get_program()).args(inner.get_args()).env("TZ", "UTC").as_server_user();
            let run = run_command(command);
            assert_eq!(run.code, 0, "{name}, error {error}: {run}");
            if (name, error) == ("syncfs", libc::ENOSYS) {
                assert_follows(&mut target, &new);
                target.stop();
            }
            std::fs::remove_dir_all(&target.data).expect("remove it");
        }
    }
}
