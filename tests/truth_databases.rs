//! Databases copied or moved as files: WAL names the two directories and no block.
//!
//!     old  ── pattern, other ──┬── moves, drops, copies ──╳       the target: any file of the directory may differ
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── copies; changes what it copied ──▶
//!                                   │        └ replay would copy it as it is now, not as it was
//!                                   └ makes a checkpoint by itself: replay could start behind it
//!
//! A copy on the target is put right by the rewind. Where the source made one, replay from the last common checkpoint is
//! right only if the template has not changed since. If it has, replay starts at the source's later checkpoint.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::changing_files::AFTER_THE_MARK;
use crate::harness::{Failover, Installation, Run, Sandbox, Server};
use crate::truth_proof::{assert_rewinds_by, assert_rewinds_or_refuses, refused, rewind};

/// The rewind must succeed, wherever it lets replay start.
fn assert_rewinds(old: &mut Server, new: &Server) -> Run {
    let run = rewind(old, new).args(["--replay-from", "auto"]);
    assert_rewinds_by(run, old, new)
}

/// A template, a second one with the same files and other rows, and a table in the database `postgres`.
fn shared(old: &Server) {
    old.sql("CREATE TABLE entry (origin text)");
    old.sql("CREATE DATABASE pattern");
    old.sql_in(
        "pattern",
        "CREATE TABLE entry AS SELECT n AS id, 'pattern' AS origin FROM generate_series(1, 2000) n;
         CREATE INDEX ON entry (id)",
    );
    copy_files(old, "other", "pattern", "");
    old.sql_in("other", "DELETE FROM entry WHERE id % 2 = 0");
    copy_files(old, "app", "pattern", "");
    old.sql("CHECKPOINT");
}

fn copy_files(server: &Server, name: &str, template: &str, more: &str) {
    let strategy = if server.installation.major < 15 { "" } else { "STRATEGY file_copy" };
    server.sql(&format!("CREATE DATABASE {name} TEMPLATE {template} {strategy} {more}"));
}

fn oid(server: &Server, database: &str) -> String {
    server.value::<u32>(&format!("SELECT oid FROM pg_database WHERE datname = '{database}'")).to_string()
}

/// Transactions of both sides have the same numbers: rows that a lost one deleted look deleted if a kept one committed.
fn commit_often(server: &Server) {
    for _ in 0..30 {
        server.sql("INSERT INTO entry VALUES ('kept')");
    }
}

/// An in-place tablespace, which each node has in its own data directory.
fn move_to_new_tablespace(server: &Server, database: &str) {
    server.sql("CREATE TABLESPACE space LOCATION ''");
    move_to(server, database, "space");
}

fn move_to(server: &Server, database: &str, tablespace: &str) {
    server.sql(&format!("ALTER DATABASE {database} SET TABLESPACE {tablespace}"));
}

fn failover(sandbox: &Sandbox, lost: impl Fn(&Server), kept: impl Fn(&Server)) -> Failover {
    let mut failover = Failover::new(sandbox, shared, lost, |new| {
        settle(new);
        kept(new);
    });
    failover.old.stop();
    failover
}

/// Replay is to start at the common checkpoint, behind all that is shared, and not at the source's last restartpoint.
fn settle(new: &Server) {
    new.sql("CHECKPOINT");
    commit_often(new);
}

/// What the target changed in the templates is fetched as the source has it in the end, and replay starts with that.
fn change_templates(old: &Server) {
    old.sql("INSERT INTO entry VALUES ('lost')");
    for database in ["pattern", "other", "app"] {
        old.sql_in(
            database,
            "UPDATE entry SET origin = 'lost' WHERE id % 7 = 0; CREATE TABLE lost AS SELECT 1 AS n",
        );
    }
}

/// `kept` copies or moves on the source, and all that it wrote is in its files. Replay starts after that.
fn source_copies(kept: impl Fn(&Server)) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, change_templates, |new| {
        kept(new);
        new.sql("CHECKPOINT");
    });
    let from_common = rewind(&old, &new).args(["--replay-from", "common"]);
    refused(from_common, &["the copied files have changed since", "without --replay-from common"]);
    assert_rewinds(&mut old, &new).expect_said("redo of the source's newest checkpoint");
}

/// `lost` copies or moves on the target: the rewind must put that right.
fn target_copies(lost: impl Fn(&Server)) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, lost, |_| ());
    assert_rewinds(&mut old, &new);
}

/// `meanwhile` happens on the source while the target is being copied. Replay would copy what the template has become by
/// then: the run must fail, and the next one take a later checkpoint.
fn source_copies_meanwhile(kept: impl Fn(&Server), meanwhile: impl Fn(&Server)) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, change_templates, kept);
    let (held, released) = (sandbox.path("held"), sandbox.path("released"));
    let hold = format!(
        "{AFTER_THE_MARK}:sh touch {}; for i in $(seq 1200); do [ -e {} ] && break; sleep 0.05; done",
        held.display(),
        released.display()
    );
    let run = rewind(&old, &new).args(["--replay-from", "common"]).env("KBRECOVER_FAULT", hold).start();
    let begun = Instant::now();
    while !held.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the run was not held");
        sleep(Duration::from_millis(20));
    }
    meanwhile(&new);
    fs::write(&released, "").expect("let the run go on");
    let run = run.wait().expect_said("the copied files have changed since");
    assert_eq!(run.code, 2, "{run}");
    new.sql("CHECKPOINT");
    assert_rewinds(&mut old, &new).expect_said("redo of the source's newest checkpoint");
}

fn change_the_template(new: &Server) {
    new.sql_in(
        "pattern",
        "DELETE FROM entry WHERE id % 3 = 0; INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 3000) n",
    );
    // What is in its files by now.
    new.sql("CHECKPOINT");
}

// The source's copies.

#[test]
fn template_changes_while_the_target_is_copied() {
    source_copies_meanwhile(|new| copy_files(new, "made", "pattern", ""), change_the_template);
}

#[test]
fn template_is_copied_and_changes_while_the_target_is_copied() {
    let copy_and_change = |new: &Server| {
        copy_files(new, "made", "pattern", "");
        change_the_template(new);
    };
    source_copies_meanwhile(|_| (), copy_and_change);
}

#[test]
fn template_gets_and_loses_rows_on_the_source() {
    source_copies(|new| {
        copy_files(new, "made", "pattern", "");
        new.sql_in("pattern", "DELETE FROM entry WHERE id % 3 = 0; INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 3000) n");
    });
}

/// What it wrote then is in its memory and in WAL only.
#[test]
fn template_changes_on_the_source_since_its_last_checkpoint() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, change_templates, |new| {
        copy_files(new, "made", "pattern", "");
        new.sql_in("pattern", "INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 3000) n");
        new.sql_in("pattern", "DELETE FROM entry WHERE origin = 'pattern'");
    });
    assert_rewinds(&mut old, &new);
}

#[test]
fn template_gets_a_table_on_the_source() {
    source_copies(|new| {
        copy_files(new, "made", "pattern", "");
        new.sql_in("pattern", "CREATE TABLE later AS SELECT n FROM generate_series(1, 1000) n");
    });
}

#[test]
fn template_is_dropped_on_the_source() {
    source_copies(|new| {
        copy_files(new, "made", "pattern", "");
        new.sql("DROP DATABASE pattern");
    });
}

#[test]
fn template_is_moved_on_the_source() {
    source_copies(|new| {
        copy_files(new, "made", "pattern", "");
        move_to_new_tablespace(new, "pattern");
        new.sql_in("pattern", "DELETE FROM entry WHERE id > 1000");
    });
}

/// Nothing else happens: but the directory it was copied from is gone.
#[test]
fn moved_on_the_source() {
    source_copies(|new| move_to_new_tablespace(new, "app"));
}

#[test]
fn moved_there_and_back_on_the_source() {
    source_copies(|new| {
        move_to_new_tablespace(new, "app");
        new.sql_in("app", "UPDATE entry SET origin = 'kept' WHERE id % 2 = 0");
        move_to(new, "app", "pg_default");
        new.sql_in("app", "DELETE FROM entry WHERE id % 3 = 0");
    });
}

#[test]
fn dropped_and_made_anew_under_its_number_on_the_source() {
    source_copies(|new| {
        let number = oid(new, "app");
        new.sql("DROP DATABASE app");
        copy_files(new, "app", "other", &format!("OID = {number}"));
        new.sql_in("other", "INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 3000) n");
    });
}

/// The template is as it was: there is nothing to refuse.
#[test]
fn template_untouched_on_the_source() {
    let sandbox = Sandbox::new();
    let lost = |old: &Server| {
        copy_files(old, "lost", "other", "");
        old.sql_in("pattern", "DELETE FROM entry WHERE id % 3 = 0");
    };
    let Failover { mut old, new } = failover(&sandbox, lost, |new| {
        copy_files(new, "made", "pattern", "");
        new.sql_in("made", "UPDATE entry SET origin = 'kept' WHERE id % 2 = 0");
    });
    assert_rewinds(&mut old, &new);
}

/// The copy is older than the fork, but the source's last restartpoint is older still. Replay starts there until the source
/// has made a checkpoint; a rewind that is refused must go through then.
#[test]
fn copied_before_the_fork_and_behind_the_sources_restartpoint() {
    let sandbox = Sandbox::new();
    let mut old = sandbox.server("old");
    // The checkpoint that follows a promotion takes long: it has many pages to write, each after a pause.
    old.configure("shared_buffers = 64MB\ncheckpoint_timeout = 1h\nbgwriter_lru_maxpages = 0");
    old.start();
    shared(&old);
    old.stop();
    let (old, new) = sandbox.pair_of(old);
    let before = old.wal_end();
    let copy = |old: &Server| {
        copy_files(old, "made", "pattern", "");
        old.sql_in("pattern", "INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 3000) n");
        // A standby that replays this copy writes its template's pages to disk.
        copy_files(old, "second", "pattern", "");
        old.sql(
            "CREATE TABLE many AS SELECT n AS id, repeat('shared', 100) FROM generate_series(1, 20000) n",
        );
    };
    // Step by step: the source must make no checkpoint.
    let mut failover = Failover { old, new };
    copy(&failover.old);
    failover.fail_over();
    let Failover { mut old, new } = failover;
    change_templates(&old);
    commit_often(&new);
    old.stop();
    let is_older = format!("SELECT timeline_id = 1 AND redo_lsn <= '{before}' FROM pg_control_checkpoint()");
    assert!(new.value::<bool>(&is_older), "the scenario needs a source without a checkpoint since the copy");
    let made = oid(&new, "made");
    let mut compared = old.copy("compared");
    let comparing = rewind(&compared, &new).arg("--compare-data");
    assert_rewinds_or_refuses(comparing, &mut compared, &new, &[&made, "CHECKPOINT"]);
    if !assert_rewinds_or_refuses(rewind(&old, &new), &mut old, &new, &[&made, "CHECKPOINT"]) {
        new.sql("CHECKPOINT");
        assert_rewinds(&mut old, &new);
    }
}

/// Up to 14 every CREATE DATABASE is a copy of files, and the usual template is template1.
fn everyday(major: u32) {
    let sandbox = Sandbox::new();
    let old = sandbox.initdb("old", Installation::of(major), &[]);
    let (old, new) = sandbox.pair_of(old);
    let shared = |old: &Server| {
        old.sql("CREATE TABLE entry (origin text)");
        old.sql_in("template1", "CREATE TABLE inherited AS SELECT n FROM generate_series(1, 100) n");
        old.sql("CHECKPOINT");
    };
    let lost = |old: &Server| {
        old.sql_in("template1", "CREATE TABLE lost (n int); DELETE FROM inherited WHERE n > 50");
    };
    let kept = |new: &Server| {
        settle(new);
        new.sql("CREATE DATABASE made");
        new.sql_in("template1", "INSERT INTO inherited VALUES (1001); CREATE TABLE later (n int)");
        new.sql("CHECKPOINT");
    };
    let Failover { mut old, new } = Failover::of(old, new, shared, lost, kept);
    old.stop();
    assert_rewinds(&mut old, &new);
}

#[test]
fn everyday_on_13() {
    everyday(13);
}

#[test]
fn everyday_on_14() {
    everyday(14);
}

// The target's copies.

/// Rows changed while it was away are named as blocks of files in the other place.
#[test]
fn moved_there_and_back_on_the_target() {
    target_copies(|old| {
        move_to_new_tablespace(old, "app");
        old.sql_in("app", "DELETE FROM entry WHERE id % 3 = 0");
        old.sql_in("app", "SELECT count(*) FROM entry");
        move_to(old, "app", "pg_default");
    });
}

#[test]
fn moved_twice_there_and_back_on_the_target() {
    target_copies(|old| {
        move_to_new_tablespace(old, "app");
        move_to(old, "app", "pg_default");
        old.sql("CHECKPOINT");
        move_to(old, "app", "space");
        old.sql_in("app", "DELETE FROM entry WHERE id % 3 = 0; CREATE TABLE lost AS SELECT 1");
        old.sql_in("app", "SELECT count(*) FROM entry");
        move_to(old, "app", "pg_default");
    });
}

#[test]
fn moved_there_and_back_on_a_target_that_is_killed() {
    let sandbox = Sandbox::new();
    let lost = |old: &Server| {
        move_to_new_tablespace(old, "app");
        old.sql_in("app", "DELETE FROM entry WHERE id % 3 = 0");
        old.sql_in("app", "SELECT count(*) FROM entry");
        move_to(old, "app", "pg_default");
    };
    let Failover { mut old, new } = Failover::new(&sandbox, shared, lost, settle);
    old.kill();
    assert_rewinds(&mut old, &new);
}

#[test]
fn moved_there_and_back_on_a_target_of_13() {
    let sandbox = Sandbox::new();
    let old = sandbox.initdb("old", Installation::of(13), &[]);
    old.configure("allow_in_place_tablespaces = on");
    let (old, new) = sandbox.pair_of(old);
    let lost = |old: &Server| {
        move_to_new_tablespace(old, "app");
        old.sql_in("app", "DELETE FROM entry WHERE id % 3 = 0");
        old.sql_in("app", "SELECT count(*) FROM entry");
        move_to(old, "app", "pg_default");
    };
    let Failover { mut old, new } = Failover::of(old, new, shared, lost, settle);
    old.stop();
    assert_rewinds(&mut old, &new);
}

/// Files of the same names and sizes, with other rows.
#[test]
fn dropped_and_made_anew_under_its_number_on_the_target() {
    target_copies(|old| {
        let number = oid(old, "app");
        old.sql("DROP DATABASE app");
        copy_files(old, "app", "other", &format!("OID = {number}"));
    });
}

#[test]
fn dropped_and_made_anew_block_by_block_on_the_target() {
    target_copies(|old| {
        let number = oid(old, "app");
        old.sql("DROP DATABASE app");
        old.sql(&format!("CREATE DATABASE app TEMPLATE other STRATEGY wal_log OID = {number}"));
    });
}

/// Both make a database of the same number from different templates.
#[test]
fn one_number_for_two_databases() {
    let sandbox = Sandbox::new();
    let lost = |old: &Server| copy_files(old, "made", "other", "OID = 70000");
    let kept = |new: &Server| new.sql("CREATE DATABASE made TEMPLATE pattern STRATEGY wal_log OID = 70000");
    let Failover { mut old, new } = failover(&sandbox, lost, kept);
    assert_rewinds(&mut old, &new);
}

/// The template that the source copies is itself a copy on the target.
#[test]
fn template_of_the_source_was_made_anew_on_the_target() {
    let sandbox = Sandbox::new();
    let lost = |old: &Server| {
        let number = oid(old, "pattern");
        old.sql("DROP DATABASE pattern");
        copy_files(old, "pattern", "other", &format!("OID = {number}"));
    };
    let Failover { mut old, new } = failover(&sandbox, lost, |new| copy_files(new, "made", "pattern", ""));
    assert_rewinds(&mut old, &new);
}
