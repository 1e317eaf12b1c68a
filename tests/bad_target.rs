//! Targets that must not be touched: each is refused with an error, a hint and exit code 1, and not one byte changes.
//!
//!     no directory · no cluster · running · another system · another version · damaged control file ·
//!     no checksums and no wal_log_hints · files that cannot be read · root

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{
    Failover, PG_CONTROL_VERSION, Rewind, SYSTEM_IDENTIFIER, Sandbox, Server, SourceKind, Tree, binary,
    is_root, patch_control_file,
};

/// A target that is stopped and would be rewound if nothing were wrong.
fn good(sandbox: &Sandbox) -> Failover {
    let (old, new) = sandbox.pair();
    good_of(old, new)
}

fn good_of(old: Server, new: Server) -> Failover {
    let mut failover = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 1000)"),
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |_| (),
    );
    failover.old.stop();
    failover
}

fn refuse(failover: &Failover, error: &str, hint: &str) {
    Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).expect_refusal(error, hint);
}

#[test]
fn no_directory_and_no_cluster() {
    let sandbox = Sandbox::new();
    let mut source = sandbox.server("source");
    source.start();
    let empty = sandbox.make_dir("empty");
    let file = sandbox.path("file");
    std::fs::write(&file, "no directory").expect("write a file");
    for wrong in [sandbox.path("nothing"), empty, file, sandbox.path("sockets")] {
        let name = wrong.to_str().expect("UTF-8").to_string();
        Rewind::of_directory(&wrong)
            .from(&source, SourceKind::Server)
            .expect_refusal(&name, "data directory");
    }
}

#[test]
fn running() {
    let sandbox = Sandbox::new();
    let mut failover = good(&sandbox);
    failover.old.start();
    // A running server writes on its own: what is proved here is that it is refused, and that nothing happened to it.
    let run = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).run();
    assert_eq!(run.code, 1, "{run}");
    assert!(run.stderr.contains("kbrecover: error: target server must be shut down"), "{run}");
    assert!(run.stderr.contains("kbrecover: hint: "), "{run}");
    assert_eq!(failover.old.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"), 1000);
    failover.old.stop();
    failover.old.start();
}

#[test]
fn of_another_system() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    patch_control_file(&failover.old.data, SYSTEM_IDENTIFIER, &0x1234_5678_9abc_def0_u64.to_le_bytes());
    refuse(&failover, "source and target clusters are from different systems", "");
}

#[test]
fn of_an_unknown_version() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    patch_control_file(&failover.old.data, PG_CONTROL_VERSION, &9999u32.to_le_bytes());
    refuse(&failover, "9999", "");
}

#[test]
fn with_a_damaged_control_file() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    let path = failover.old.data.join("global/pg_control");
    let mut content = std::fs::read(&path).expect("read pg_control");
    content[60] ^= 0x40;
    std::fs::write(&path, &content).expect("write pg_control");
    refuse(&failover, "pg_control", "");
    // And with one that is too short.
    std::fs::write(&path, &content[..100]).expect("write pg_control");
    refuse(&failover, "pg_control", "");
    std::fs::write(&path, "").expect("write pg_control");
    refuse(&failover, "pg_control", "");
}

#[test]
fn without_checksums_and_wal_log_hints() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair_of(sandbox.server_without_checksums("old"));
    let failover = good_of(old, new);
    refuse(
        &failover,
        "target server needs to use either data checksums or \"wal_log_hints = on\"",
        "wal_log_hints",
    );
}

fn close(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).expect("close a file");
}

#[test]
fn unreadable() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    let last_segment = crate::harness::segments(&failover.old.data).pop().expect("a segment");
    for name in ["global/pg_control", &format!("pg_wal/{last_segment}"), "base/1", "pg_wal"] {
        let path = failover.old.data.join(name);
        let mode = std::fs::metadata(&path).expect("stat").permissions();
        close(&path);
        refuse(&failover, "ermission denied", "");
        std::fs::set_permissions(&path, mode).expect("open a file again");
    }
}

/// Where the tests run as root, the program runs as somebody else, except here.
#[test]
fn as_root() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    let mut command = if is_root() {
        Command::new(binary())
    } else {
        // Root of a user namespace of its own: to the program there is no difference.
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").arg(binary());
        command
    };
    let before = Tree::of(&failover.old.data);
    let arguments = command.arg("rewind").arg("--target-data").arg(&failover.old.data);
    let output = arguments.args(["--source-server", &failover.new.conninfo()]).output().expect("run as root");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot be executed by \"root\""), "{stderr}");
    before.assert_unchanged(&failover.old.data, &stderr);
}
