//! Sources that cannot be read, or must not be: an error, a hint, exit code 1, and the target is what it was.
//!
//!     connection refused · no such database · a role without the rights · full_page_writes off ·
//!     a directory that is no cluster, whose server runs, that crashed, that cannot be read

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Failover, Rewind, Sandbox, SourceKind};
use crate::least_privilege::{FUNCTIONS, conninfo, create_role};

/// A target that is stopped and would be rewound if nothing were wrong.
fn good(sandbox: &Sandbox) -> Failover {
    let mut failover = Failover::new(
        sandbox,
        create_role,
        |old| old.sql("INSERT INTO entry SELECT 'lost' FROM generate_series(1, 1000)"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 1000)"),
    );
    failover.old.stop();
    failover
}

fn from_server(failover: &Failover, conninfo: &str) -> Rewind {
    Rewind::of(&failover.old).arg("--source-server").arg(conninfo)
}

#[test]
fn refused_connection() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    // Bound and not listening: nobody else can come to listen there meanwhile.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
    let closed = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5");
    from_server(&failover, &closed).expect_refusal("refused", "");
    let nowhere = format!("host={} user=postgres dbname=postgres", sandbox.make_dir("nowhere").display());
    from_server(&failover, &nowhere).expect_refusal("", "");
    let no_database = failover.new.conninfo().replace("dbname=postgres", "dbname=nothing");
    from_server(&failover, &no_database).expect_refusal("database \"nothing\" does not exist", "");
    let run = from_server(&failover, "this is = no 'connection string").run_leaving_target_alone();
    assert_eq!(run.code, 1, "{run}");
}

/// The hint holds the statement to run, whichever of the rights is missing.
#[test]
fn missing_privilege() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    for function in FUNCTIONS {
        failover.new.sql(&format!("REVOKE EXECUTE ON FUNCTION {function} FROM rewind_user"));
        let run = from_server(&failover, &conninfo(&failover.new)).expect_refusal("rewind_user", "");
        let grant = format!("GRANT EXECUTE ON FUNCTION {function} TO");
        assert!(run.stderr.contains(&grant), "no word of {grant}\n{run}");
        failover.new.sql(&format!("{grant} rewind_user"));
    }
    failover.new.sql("DROP OWNED BY rewind_user");
    from_server(&failover, &conninfo(&failover.new)).expect_refusal("rewind_user", "");
}

#[test]
fn full_page_writes_off() {
    let sandbox = Sandbox::new();
    let mut failover = good(&sandbox);
    failover.new.stop();
    failover.new.set("full_page_writes", "off");
    failover.new.start();
    let rewind = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server);
    rewind.expect_refusal("full_page_writes must be enabled in the source server", "full_page_writes");
}

#[test]
fn directory_that_is_no_cluster() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    for wrong in [sandbox.path("nothing"), sandbox.make_dir("empty")] {
        let name = wrong.to_str().expect("UTF-8").to_string();
        Rewind::of(&failover.old).arg("--source-data").arg(&wrong).expect_refusal(&name, "");
    }
}

#[test]
fn directory_of_a_running_or_crashed_server() {
    let sandbox = Sandbox::new();
    let mut failover = good(&sandbox);
    let refuse = |failover: &Failover| {
        let rewind = Rewind::of(&failover.old).from(&failover.new, SourceKind::Directory);
        rewind.expect_refusal("source data directory must be shut down cleanly", "");
    };
    refuse(&failover);
    failover.new.kill();
    refuse(&failover);
}

#[test]
fn directory_that_cannot_be_read() {
    let sandbox = Sandbox::new();
    let mut failover = good(&sandbox);
    failover.new.stop();
    for name in ["global/pg_control", "base/1", "pg_wal"] {
        let path = failover.new.data.join(name);
        let mode = std::fs::metadata(&path).expect("stat").permissions();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("close");
        let rewind = Rewind::of(&failover.old).from(&failover.new, SourceKind::Directory);
        rewind.expect_refusal("ermission denied", "");
        std::fs::set_permissions(&path, mode).expect("open again");
    }
}

/// The target itself given as its own source would be copied onto itself.
#[test]
fn the_target_itself() {
    let sandbox = Sandbox::new();
    let failover = good(&sandbox);
    let run =
        Rewind::of(&failover.old).arg("--source-data").arg(&failover.old.data).run_leaving_target_alone();
    assert!(run.code == 0 || run.code == 1, "{run}");
}
