//! Databases copied or moved as files: WAL names the two directories and no block.
//!
//!     old  ── pattern, other ──┬── moves, drops, copies ──╳       the target: any file of the directory may differ
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── copies; changes what it copied ──▶
//!                                   │        └ replay would copy it as it is now, not as it was
//!                                   └ makes a checkpoint by itself: replay could start behind it
//!
//! A copy on the target is put right by the rewind. Where the source made one, replay from the last common checkpoint is
//! right only if the template has not changed since. If it has, the rewind may be refused for as long as replay cannot start
//! at the source's later checkpoint; from then on these must succeed.

use crate::harness::{Failover, Installation, Sandbox, Server};
use crate::truth_proof::{assert_rewinds, assert_rewinds_or_refuses};

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

/// `kept` copies or moves on the source, and all that it wrote is in its files. The refusal names the directory that replay
/// would make.
fn source_copies(kept: impl Fn(&Server), copied: &str) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, change_templates, |new| {
        kept(new);
        new.sql("CHECKPOINT");
    });
    let copied = oid(&new, copied);
    assert_rewinds_or_refuses(&mut old, &new, &[&copied]);
}

/// `lost` copies or moves on the target: the rewind must put that right.
fn target_copies(lost: impl Fn(&Server)) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, lost, |_| ());
    assert_rewinds(&mut old, &new);
}

// The source's copies.

/// What it wrote then is in its memory and in WAL only.
#[test]
fn template_changes_on_the_source_since_its_last_checkpoint() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, change_templates, |new| {
        copy_files(new, "made", "pattern", "");
        new.sql_in("pattern", "INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 3000) n");
        new.sql_in("pattern", "DELETE FROM entry WHERE origin = 'pattern'");
    });
    let made = oid(&new, "made");
    assert_rewinds_or_refuses(&mut old, &new, &[&made]);
}

#[test]
fn moved_there_and_back_on_the_source() {
    source_copies(
        |new| {
            move_to_new_tablespace(new, "app");
            new.sql_in("app", "UPDATE entry SET origin = 'kept' WHERE id % 2 = 0");
            move_to(new, "app", "pg_default");
            new.sql_in("app", "DELETE FROM entry WHERE id % 3 = 0");
        },
        "app",
    );
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
