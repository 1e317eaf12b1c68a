//! Hint bits are data. Those set on the target after the fork are undone only if WAL names their pages.
//!
//!     old  ── BEGIN, INSERT ── checkpoint ──┬── COMMIT, read ──╳     "committed" on a page no record names
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── the insert never happened ──▶
//!
//! With data checksums or wal_log_hints the first hint on a page since a checkpoint puts it into WAL. It counts whether that
//! held on the target from the fork on, not whether it holds now.

use postgres::Client;

use crate::harness::{Failover, Sandbox, Server, assert_cured_by_comparing, run, server_program};
use crate::truth_proof::{assert_refuses, assert_rewinds};

/// A pair without data checksums, with this `wal_log_hints`.
pub fn pair(sandbox: &Sandbox, hints: &str) -> (Server, Server) {
    let old = sandbox.server_without_checksums("old");
    old.configure(&format!("wal_log_hints = {hints}"));
    sandbox.pair_of(old)
}

/// A table with an index, and a transaction that has inserted rows before the last common checkpoint and is open at the
/// fork. The old primary is on after that.
pub fn fork((old, new): (Server, Server)) -> (Failover, Client) {
    old.sql(
        "CREATE TABLE entry (id int PRIMARY KEY, origin text);
         INSERT INTO entry SELECT n, 'shared' FROM generate_series(1, 1000) n",
    );
    let mut open = old.session();
    open.batch_execute("BEGIN; INSERT INTO entry SELECT n, 'lost' FROM generate_series(5001, 5010) n")
        .expect("insert rows");
    old.sql("CHECKPOINT");
    let mut failover = Failover { old, new };
    failover.fail_over();
    failover.new.sql("CHECKPOINT");
    failover.new.sql("INSERT INTO entry SELECT n, 'kept' FROM generate_series(2001, 2010) n");
    (failover, open)
}

/// Commits the rows, and reads them: their pages say so from then on.
pub fn commit_and_read(old: &mut Server, mut open: Client) {
    open.batch_execute("COMMIT").expect("commit");
    drop(open);
    old.sql("SELECT count(*) FROM entry");
}

/// Rows deleted after the fork, and an index that is told so by those who look for them.
fn delete_and_look_up(old: &mut Server) {
    old.sql("DELETE FROM entry WHERE id <= 500");
    for _ in 0..3 {
        old.sql("SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(origin) FROM entry WHERE id <= 600");
    }
}

fn restart(old: &mut Server, settings: &[(&str, &str)]) {
    if old.is_running() {
        old.stop();
    }
    settings.iter().for_each(|(name, value)| old.set(name, value));
    old.start();
}

fn checksums(server: &Server, action: &str) {
    run(server_program("pg_checksums").args([action, "--no-sync", "-D"]).arg(&server.data));
}

/// The rewind is refused with this word, and possible if the data of both sides is compared.
fn assert_must_compare(old: &mut Server, new: &Server, word: &str) {
    let refusal = assert_refuses(old, new, &[word]);
    assert_cured_by_comparing(&refusal, old, new);
}

#[test]
fn switched_on_later() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = fork(pair(&sandbox, "off"));
    commit_and_read(&mut old, open);
    restart(&mut old, &[("wal_log_hints", "on")]);
    old.stop();
    assert_must_compare(&mut old, &new, "wal_log_hints");
}

#[test]
fn switched_on_later_by_a_server_that_is_killed() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = fork(pair(&sandbox, "off"));
    commit_and_read(&mut old, open);
    restart(&mut old, &[("wal_log_hints", "on")]);
    old.sql("CHECKPOINT");
    old.kill();
    assert_must_compare(&mut old, &new, "wal_log_hints");
}

/// No transaction was open at the fork; dead entries of an index are hints, too.
#[test]
fn index_entries_marked_dead() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = fork(pair(&sandbox, "off"));
    drop(open);
    delete_and_look_up(&mut old);
    restart(&mut old, &[("wal_log_hints", "on")]);
    old.stop();
    assert_must_compare(&mut old, &new, "wal_log_hints");
}

#[test]
fn switched_off_for_a_while() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = fork(pair(&sandbox, "on"));
    drop(open);
    restart(&mut old, &[("wal_log_hints", "off")]);
    delete_and_look_up(&mut old);
    restart(&mut old, &[("wal_log_hints", "on")]);
    old.stop();
    assert_must_compare(&mut old, &new, "wal_log_hints");
}

/// From one start at `wal_level = minimal` to the next no record tells of changed settings.
#[test]
fn switched_off_behind_wal_level_minimal() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = fork(pair(&sandbox, "on"));
    drop(open);
    restart(&mut old, &[("wal_level", "minimal"), ("max_wal_senders", "0")]);
    restart(&mut old, &[("wal_log_hints", "off")]);
    delete_and_look_up(&mut old);
    restart(&mut old, &[("wal_log_hints", "on")]);
    restart(&mut old, &[("wal_level", "replica"), ("max_wal_senders", "8")]);
    old.stop();
    assert_must_compare(&mut old, &new, "wal_level");
}

#[test]
fn checksums_enabled_later_on_the_target() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = fork(pair(&sandbox, "off"));
    commit_and_read(&mut old, open);
    old.stop();
    checksums(&old, "--enable");
    assert_must_compare(&mut old, &new, "checksums");
}

/// Hints were logged all the time. But pages that stay have no checksum, and the control file will ask for one.
#[test]
fn checksums_enabled_later_on_the_source() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, mut new }, open) = fork(pair(&sandbox, "on"));
    drop(open);
    old.sql("UPDATE entry SET origin = 'lost' WHERE id = 1");
    old.stop();
    new.stop();
    checksums(&new, "--enable");
    new.start();
    assert_must_compare(&mut old, &new, "checksums");
}

#[test]
fn checksums_disabled_later_on_the_target() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    old.configure("wal_log_hints = on");
    let (Failover { mut old, new }, open) = fork(sandbox.pair_of(old));
    drop(open);
    old.sql("UPDATE entry SET origin = 'lost' WHERE id = 1");
    old.stop();
    checksums(&old, "--disable");
    assert_must_compare(&mut old, &new, "checksums");
}

#[test]
fn checksums_disabled_later_on_the_source() {
    let sandbox = Sandbox::new();
    let old = sandbox.server("old");
    old.configure("wal_log_hints = on");
    let (Failover { mut old, mut new }, open) = fork(sandbox.pair_of(old));
    drop(open);
    old.sql("UPDATE entry SET origin = 'lost' WHERE id = 1");
    old.stop();
    new.stop();
    checksums(&new, "--disable");
    new.start();
    assert_must_compare(&mut old, &new, "checksums");
}

/// A standby sets hints by its own wal_log_hints. Its control file and its WAL have its primary's.
///
///     a  on   ──── open ────┬── COMMIT ──╳
///     b  off  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄│┄┄┄┄┄┄┄┄┄┄┄┄ read ──╳     the target
///     c  on   ┄┄┄┄┄┄┄┄┄┄┄┄┄ └──────────────────────▶
#[test]
fn switched_off_on_a_standby() {
    let sandbox = Sandbox::new();
    let mut a = sandbox.server_without_checksums("a");
    a.configure("wal_log_hints = on");
    let (mut b, mut c) = (a.copy("b"), a.copy("c"));
    b.configure("wal_log_hints = off");
    a.start();
    for standby in [&mut b, &mut c] {
        standby.follow(&a);
        standby.start();
    }
    a.sql("CREATE TABLE filler (n int)");
    a.sql("CREATE TABLE entry AS SELECT n AS id, 'shared' AS origin FROM generate_series(1, 1000) n");
    let mut open = a.session();
    open.batch_execute("BEGIN; INSERT INTO entry SELECT n, 'lost' FROM generate_series(5001, 5010) n")
        .expect("insert rows");
    a.sql("CHECKPOINT");
    for standby in [&b, &c] {
        standby.catch_up(&a);
        standby.sql("CHECKPOINT");
    }
    c.promote();
    open.batch_execute("COMMIT").expect("commit");
    // A standby sets a hint once the end of the transaction lies before its minRecoveryPoint, and writes the page with a
    // restartpoint.
    for _ in 0..2 {
        a.sql("INSERT INTO filler SELECT generate_series(1, 1000)");
        a.sql("CHECKPOINT");
        a.sql("INSERT INTO filler VALUES (1)");
        b.catch_up(&a);
        b.sql("CHECKPOINT");
        b.sql("SELECT count(*) FROM entry");
    }
    a.kill();
    b.stop();
    c.sql("INSERT INTO entry VALUES (2001, 'kept')");
    assert_must_compare(&mut b, &c, "wal_log_hints");
}

// What is no reason to refuse.

/// A standby does not heed an index entry that is marked dead. A primary does.
fn assert_rewinds_with_index(old: &mut Server, new: &Server) {
    assert_rewinds(old, new);
    // It was promoted to be looked into.
    old.start();
    let count = "SELECT count(origin) FROM entry WHERE id <= 600";
    let mut session = old.session();
    session.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off").expect("use the index");
    let found: i64 = session.query_one(count, &[]).expect("count by the index").get(0);
    assert_eq!(found, 600, "rows that the index finds");
}

/// Before the fork both sides agree on all that a hint can say.
#[test]
fn switched_on_before_the_fork() {
    let sandbox = Sandbox::new();
    let (mut old, mut new) = pair(&sandbox, "off");
    old.sql("CREATE TABLE old_rows AS SELECT n FROM generate_series(1, 1000) n");
    new.catch_up(&old);
    restart(&mut new, &[("wal_log_hints", "on")]);
    restart(&mut old, &[("wal_log_hints", "on")]);
    let (Failover { mut old, new }, open) = fork((old, new));
    commit_and_read(&mut old, open);
    delete_and_look_up(&mut old);
    old.stop();
    assert_rewinds_with_index(&mut old, &new);
}

/// Another setting changes on the target, and a record says so.
#[test]
fn another_setting_changed() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = fork(pair(&sandbox, "on"));
    commit_and_read(&mut old, open);
    restart(&mut old, &[("max_connections", "30")]);
    delete_and_look_up(&mut old);
    old.stop();
    old.unset("max_connections");
    assert_rewinds_with_index(&mut old, &new);
}

/// The same with data checksums, which have been there from the beginning, and hints not logged otherwise.
#[test]
fn checksums_from_the_beginning() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, open) = fork(sandbox.pair());
    commit_and_read(&mut old, open);
    restart(&mut old, &[("wal_log_hints", "on")]);
    delete_and_look_up(&mut old);
    restart(&mut old, &[("wal_log_hints", "off")]);
    old.stop();
    assert_rewinds_with_index(&mut old, &new);
}
