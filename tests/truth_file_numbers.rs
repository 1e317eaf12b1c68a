//! One file number, two relations: after a fork both sides count on from the same number.
//!
//!     old  ── restart: counters equal ──┬── file 16390: lost ──╳        rows, of which WAL may know nothing
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── file 16390: kept ──────▶    pages 0 to 108 filled, 109 to 159 zero
//!
//! From 16 on COPY extends a table by many pages at once. Those it does not fill stay zero, and no record names them: what
//! the target has there would stay, and be read as rows of the source's table.

use std::fs::read;

use crate::harness::{Failover, Installation, Sandbox, Server, WAL_LEVEL_MINIMAL};
use crate::truth_proof::{assert_rewinds, assert_rewinds_or_refuses, rewind};

/// A promoted standby that gives out the same numbers as its old primary: a shutdown checkpoint says exactly how far that
/// has come.
fn failover(sandbox: &Sandbox, major: u32) -> Failover {
    let old = match major {
        15 => sandbox.server("old"),
        _ => sandbox.initdb("old", Installation::of(major), &[]),
    };
    let (mut old, new) = sandbox.pair_of(old);
    old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 1000)");
    new.catch_up(&old);
    old.stop();
    old.start();
    let mut failover = Failover { old, new };
    failover.fail_over();
    // Replay is to start at the common checkpoint, not at the source's last restartpoint.
    failover.new.sql("CHECKPOINT");
    failover
}

/// The table `kept`, with zero pages at its end from 16 on.
fn keep(new: &Server) {
    new.sql("CREATE TABLE kept (n int, origin text)");
    new.sql("COPY kept FROM PROGRAM 'seq -f \"%.0f\tkept\" 1 20000'");
    new.sql("CHECKPOINT");
    if new.installation.major < 16 {
        return;
    }
    let path = new.data.join(new.value::<String>("SELECT pg_relation_filepath('kept')"));
    let file = read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    assert!(
        file.chunks(8192).any(|page| page.iter().all(|byte| *byte == 0)),
        "the scenario needs zero pages"
    );
}

/// More pages than `kept` has. They are read once, so that their rows are known to be committed.
const ROWS: &str = "AS SELECT n, 'lost' || repeat('x', 100) AS origin FROM generate_series(1, 30000) n";

fn assert_one_number(old: &Server, new: &Server) {
    let number = |server: &Server, table: &str| {
        server.value::<u32>(&format!("SELECT pg_relation_filenode('{table}')"))
    };
    assert_eq!(number(old, "lost"), number(new, "kept"), "the scenario needs one number for two tables");
}

fn unlogged_and_logged(major: u32) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, major);
    old.sql(&format!("CREATE UNLOGGED TABLE lost {ROWS}"));
    old.sql("SELECT count(*) FROM lost");
    keep(&new);
    assert_one_number(&old, &new);
    old.stop();
    assert_rewinds(&mut old, &new);
}

#[test]
fn unlogged_on_the_target_15() {
    unlogged_and_logged(15);
}

#[test]
fn unlogged_on_the_target_16() {
    unlogged_and_logged(16);
}

#[test]
fn unlogged_on_the_target_18() {
    unlogged_and_logged(18);
}

#[test]
fn logged_on_both() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, 18);
    old.sql(&format!("CREATE TABLE lost {ROWS}"));
    old.sql("SELECT count(*) FROM lost");
    keep(&new);
    assert_one_number(&old, &new);
    old.stop();
    assert_rewinds(&mut old, &new);
}

/// An unlogged table of the source is empty once the node is promoted, whatever the target had under its number.
#[test]
fn unlogged_on_the_source() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, 18);
    old.sql(&format!("CREATE TABLE lost {ROWS}"));
    new.sql("CREATE UNLOGGED TABLE kept AS SELECT n, 'kept' AS origin FROM generate_series(1, 20000) n");
    assert_one_number(&old, &new);
    old.stop();
    assert_rewinds(&mut old, &new);
    old.start();
    assert_eq!(old.value::<i64>("SELECT count(*) FROM kept"), 0);
}

/// An index of an unlogged table, and the source's table.
#[test]
fn unlogged_toast_and_index_on_the_target() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, 18);
    // The same number of files before: a table of integers has no TOAST table.
    old.sql("CREATE UNLOGGED TABLE first (n int)");
    new.sql("CREATE TABLE first (n int)");
    old.sql(&format!("CREATE UNLOGGED TABLE lost {ROWS}; CREATE INDEX ON lost (origin, n)"));
    old.sql("SELECT count(*) FROM lost");
    keep(&new);
    new.sql("CREATE TABLE more (n int, origin text)");
    for _ in 0..3 {
        new.sql("COPY more FROM PROGRAM 'seq -f \"%.0f\tmore\" 1 20000'");
    }
    new.sql("CREATE INDEX ON more (n)");
    old.stop();
    assert_rewinds(&mut old, &new);
}

/// Runs SQL on the target at `wal_level = minimal`, as for a load of much data. The node was a primary and has no standby.
fn at_wal_level_minimal(old: &mut Server, sql: &str) {
    // Nobody reads the table: with checksums the hints would bring its pages to WAL.
    old.with_settings(&WAL_LEVEL_MINIMAL, |old| old.sql(sql));
}

/// A load as the manual recommends it: the rows are frozen, and visible whatever the commit log says.
fn load() -> String {
    let filler = "x".repeat(100);
    format!(
        "BEGIN; CREATE TABLE lost (n int, origin text);
         COPY lost FROM PROGRAM 'seq -f \"%.0f\tlost{filler}\" 1 30000' WITH (FREEZE); COMMIT"
    )
}

/// A table that is filled by the transaction that makes it, and has 2 MB or more, is not in WAL.
fn minimal(major: u32, sql: &str, is_started_again: bool) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, major);
    at_wal_level_minimal(&mut old, sql);
    old.start();
    // The number of the transaction that filled the target's table is that of a committed one.
    for _ in 0..10 {
        new.sql("INSERT INTO entry VALUES ('kept')");
    }
    keep(&new);
    assert_one_number(&old, &new);
    if is_started_again {
        old.sql("CHECKPOINT; INSERT INTO entry VALUES ('lost')");
        old.kill();
    } else {
        old.stop();
    }
    assert_rewinds(&mut old, &new);
}

#[test]
fn wal_level_minimal_on_the_target_16() {
    minimal(16, &load(), false);
}

#[test]
fn wal_level_minimal_on_the_target_18() {
    minimal(18, &load(), false);
}

#[test]
fn wal_level_minimal_for_a_while_on_a_target_that_is_killed() {
    minimal(18, &load(), true);
}

#[test]
fn wal_level_minimal_and_rows_that_nobody_has_read() {
    minimal(18, &format!("CREATE TABLE lost {ROWS}"), false);
}

/// The file that VACUUM FULL makes is new, too.
#[test]
fn wal_level_minimal_and_a_rewritten_table() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, 18);
    old.sql(&format!("CREATE TABLE lost {ROWS}"));
    new.sql("CREATE TABLE lost (n int, origin text)");
    at_wal_level_minimal(&mut old, "VACUUM FULL lost");
    old.start();
    keep(&new);
    assert_one_number(&old, &new);
    old.stop();
    assert_rewinds(&mut old, &new);
}

/// What the source wrote at `wal_level = minimal` no standby can replay.
#[test]
fn wal_level_minimal_on_the_source() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox, 15);
    old.sql("INSERT INTO entry VALUES ('lost')");
    old.stop();
    at_wal_level_minimal(&mut new, &format!("CREATE TABLE lost {ROWS}"));
    new.start();
    new.sql("CHECKPOINT");
    let mut compared = old.copy("compared");
    let comparing = rewind(&compared, &new).arg("--compare-data");
    assert_rewinds_or_refuses(comparing, &mut compared, &new, &["wal_level"]);
    assert_rewinds_or_refuses(rewind(&old, &new), &mut old, &new, &["wal_level"]);
}
