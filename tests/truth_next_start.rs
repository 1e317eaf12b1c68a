//! What the next start will do: settings that mean nothing to a primary decide what a standby does.
//!
//!     old  ──┬── lost ──╳  rewind -R   start ┄┄┄┄▶     must stay a standby of the source and get what that writes
//!     new    └── kept ───────────────────────────▶
//!
//! With -R what would keep the node from it is cleared, and said. Without -R it is a warning.

use std::fs;

use crate::harness::{Failover, Rewind, Sandbox, Server, assert_same_content};
use crate::least_privilege;
use crate::truth_proof::{refused, rewind};

fn append(server: &Server, file: &str, lines: &str) {
    let text = fs::read_to_string(server.data.join(file)).expect("read a configuration file");
    server.write(file, format!("{text}\n{lines}\n"));
}

/// Starts the node with no setting from the command line; it must get what the source writes, and go on to.
fn assert_stays_a_standby(old: &mut Server, new: &Server) {
    old.start();
    for round in 0..2 {
        new.sql(&format!("INSERT INTO entry SELECT 'more {round}' FROM generate_series(1, 500)"));
        old.catch_up(new);
        assert!(old.value::<bool>("SELECT pg_is_in_recovery()"), "a second primary");
    }
    assert_same_content(old, new);
}

/// These lines were left in the target's configuration; `name` must be spoken of.
fn left(file: &str, lines: &str, name: &str) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    append(&old, file, lines);
    rewind(&old, &new).arg("-R").run().expect_done().expect_said(name);
    assert_stays_a_standby(&mut old, &new);
}

const AUTO: &str = "postgresql.auto.conf";

#[test]
fn recovery_target_immediate() {
    left(AUTO, "recovery_target = 'immediate'\nrecovery_target_action = 'promote'", "recovery_target");
}

#[test]
fn recovery_target_in_postgresql_conf() {
    left(
        "postgresql.conf",
        "recovery_target = 'immediate'\nrecovery_target_action = 'promote'",
        "recovery_target",
    );
}

#[test]
fn recovery_target_lsn() {
    left(AUTO, "recovery_target_lsn = '0/2000000'", "recovery_target_lsn");
}

#[test]
fn recovery_target_time() {
    let lines = "recovery_target_time = '2001-01-01 00:00:00 UTC'\nrecovery_target_action = 'shutdown'";
    left(AUTO, lines, "recovery_target_time");
}

#[test]
fn recovery_target_xid() {
    left(AUTO, "recovery_target_xid = '730'\nrecovery_target_action = 'promote'", "recovery_target_xid");
}

#[test]
fn recovery_target_name() {
    left(AUTO, "recovery_target_name = 'before the upgrade'", "recovery_target_name");
}

#[test]
fn recovery_target_timeline() {
    left(AUTO, "recovery_target_timeline = '1'", "recovery_target_timeline");
}

#[test]
fn slot_that_the_source_does_not_have() {
    left(AUTO, "primary_slot_name = 'gone'", "primary_slot_name");
}

#[test]
fn delay() {
    left(AUTO, "recovery_min_apply_delay = '1h'", "recovery_min_apply_delay");
}

/// It is the operator's, and right.
#[test]
fn slot_that_the_source_has() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    append(&old, AUTO, "primary_slot_name = 'node_old'");
    new.sql("SELECT pg_create_physical_replication_slot('node_old')");
    rewind(&old, &new).arg("-R").run().expect_done();
    assert_stays_a_standby(&mut old, &new);
    assert!(new.value::<bool>("SELECT active FROM pg_replication_slots WHERE slot_name = 'node_old'"));
}

/// Without -R nothing is changed, but the line is named.
#[test]
fn warned_of_without_recovery_conf() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    append(&old, AUTO, "recovery_target = 'immediate'\nprimary_slot_name = 'gone'");
    let run = rewind(&old, &new).run().expect_done();
    for name in ["recovery_target", "primary_slot_name"] {
        let warned = |line: &str| line.contains("warning: ") && line.contains(name) && line.contains(AUTO);
        assert!(run.stderr.lines().any(warned), "no warning of {name}\n{run}");
    }
    let left = fs::read_to_string(old.data.join(AUTO)).expect("read it");
    assert!(left.contains("recovery_target = 'immediate'") && left.contains("primary_slot_name"), "{left}");
}

/// Without -R and without standby.signal the node would start as a second primary.
#[test]
fn last_line_without_recovery_conf() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    let plan = rewind(&old, &new).arg("-n").run();
    let last = plan.stdout.lines().last().expect("a line");
    assert!(last.starts_with("Warning: ") && last.contains("second primary"), "{plan}");
    let run = rewind(&old, &new).run().expect_done();
    let last = run.stderr.lines().last().expect("a line");
    assert!(last.contains("must not be started") && last.contains("primary"), "{run}");
    assert!(!run.stderr.contains("next: "), "{run}");
    // With -R there is nothing to warn of.
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    let plan = rewind(&old, &new).args(["-R", "-n"]).run();
    assert!(plan.code == 0 && !plan.stdout.contains("second primary"), "{plan}");
    let run = rewind(&old, &new).arg("-R").run().expect_done();
    assert!(!run.stderr.contains("must not be started"), "{run}");
    let said: Vec<_> = run.stderr.lines().skip_while(|line| !line.ends_with("Done!")).skip(1).collect();
    assert!(
        said[0].starts_with("kbrecover: now: rewound and set up as a standby; at its start it replays "),
        "{run}"
    );
    let directory = old.data.display();
    for next in [
        format!("pg_ctl -D {directory} start"),
        format!("kbrecover status -D {directory} --wait"),
        "SELECT * FROM pg_stat_wal_receiver".to_owned(),
    ] {
        assert!(
            said.iter().any(|line| line.starts_with("kbrecover: next: ") && line.ends_with(&next)),
            "{next}\n{run}"
        );
    }
}

/// The source is read by a role that may do that, and may not replicate.
#[test]
fn role_that_may_not_replicate() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::new(
        &sandbox,
        least_privilege::create_role,
        |old| old.sql("INSERT INTO entry SELECT 'lost' FROM generate_series(1, 3000)"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000)"),
    );
    failover.old.stop();
    let Failover { mut old, new } = failover;
    let as_role = || Rewind::of(&old).arg("--source-server").arg(least_privilege::conninfo(&new)).arg("-R");
    for mode in [&["--check"][..], &[]] {
        refused(as_role().args(mode), &["rewind_user", "REPLICATION"]);
    }
    new.sql("ALTER ROLE rewind_user REPLICATION");
    as_role().run().expect_done();
    assert_stays_a_standby(&mut old, &new);
}

/// It may replicate, but is not let in for that.
#[test]
fn role_that_is_not_let_in_to_replicate() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    let rules = new.data.join("pg_hba.conf");
    let before = fs::read_to_string(&rules).expect("read pg_hba.conf");
    new.write("pg_hba.conf", format!("local replication all reject\n{before}"));
    new.sql("SELECT pg_reload_conf()");
    refused(rewind(&old, &new).arg("-R"), &["replication", "pg_hba.conf"]);
    new.write("pg_hba.conf", before);
    new.sql("SELECT pg_reload_conf()");
    rewind(&old, &new).arg("-R").run().expect_done();
    assert_stays_a_standby(&mut old, &new);
}
