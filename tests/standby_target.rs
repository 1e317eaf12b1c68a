//! The target was a standby, of a primary that is lost; another standby, which had received less, was promoted.
//!
//!     a  ──── shared ────┬──── lost ────╳                     timeline 1
//!     b  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄│┄┄┄┄┄┄┄┄┄┄┄┄┄┄ stop or kill -9      the target: its WAL goes beyond the fork
//!     c  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └──── kept ────────────▶            timeline 2: the source
//!
//! A standby's control file tells less than a primary's: its checkpoint is that of the last restartpoint, and its WAL may
//! hold later checkpoints, and more than it has replayed.

use crate::harness::{ControlData, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound};

/// Three nodes; `c` is promoted, then `lost` runs on `a` and reaches `b` only, then `a` is gone.
fn cluster(sandbox: &Sandbox, lost: impl Fn(&Server, &Server)) -> (Server, Server) {
    let (mut a, b, mut c) = sandbox.trio();
    a.sql("CREATE TABLE entry (id int PRIMARY KEY, origin text); INSERT INTO entry SELECT n, 'shared' FROM generate_series(1, 3000) n");
    a.sql("CHECKPOINT");
    a.sql("UPDATE entry SET origin = 'shared again' WHERE id % 10 = 0");
    b.catch_up(&a);
    c.catch_up(&a);
    c.promote();
    lost(&a, &b);
    a.kill();
    c.sql("UPDATE entry SET origin = 'kept' WHERE id % 4 = 0; INSERT INTO entry SELECT n, 'kept' FROM generate_series(3001, 4000) n");
    (b, c)
}

fn lose(a: &Server) {
    a.sql("UPDATE entry SET origin = 'lost' WHERE id % 3 = 0; INSERT INTO entry SELECT n, 'lost' FROM generate_series(3001, 9000) n");
}

fn rewind(mut b: Server, mut c: Server, kind: SourceKind) {
    if kind == SourceKind::Directory {
        c.stop();
    }
    Rewind::of(&b).from(&c, kind).run().expect_done();
    if kind == SourceKind::Directory {
        c.start();
    }
    assert_follows(&mut b, &c);
    assert_eq!(
        b.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"),
        0,
        "rows only the lost primary had"
    );
    assert_sound(&mut b);
}

fn lost_and_replayed(a: &Server, b: &Server) {
    lose(a);
    b.catch_up(a);
}

#[test]
fn stopped_running_source() {
    let sandbox = Sandbox::new();
    let (mut b, c) = cluster(&sandbox, lost_and_replayed);
    b.stop();
    assert_eq!(ControlData::of(&b.data).get("Database cluster state"), "shut down in recovery");
    rewind(b, c, SourceKind::Server);
}

#[test]
fn stopped_stopped_source() {
    let sandbox = Sandbox::new();
    let (mut b, c) = cluster(&sandbox, lost_and_replayed);
    b.stop();
    rewind(b, c, SourceKind::Directory);
}

#[test]
fn killed() {
    let sandbox = Sandbox::new();
    let (mut b, c) = cluster(&sandbox, lost_and_replayed);
    b.kill();
    assert_eq!(ControlData::of(&b.data).get("Database cluster state"), "in archive recovery");
    rewind(b, c, SourceKind::Server);
}

/// The last restartpoint is the start of everything, while WAL holds checkpoints before and after the fork.
#[test]
fn killed_with_checkpoints_it_made_no_restartpoint_for() {
    let sandbox = Sandbox::new();
    let (mut b, c) = cluster(&sandbox, |a, b| {
        lose(a);
        a.sql("CHECKPOINT");
        a.sql("DELETE FROM entry WHERE origin = 'lost' AND id % 2 = 0");
        b.catch_up(a);
    });
    b.kill();
    let restartpoint = ControlData::of(&b.data).lsn("Latest checkpoint location");
    let fork = crate::harness::history_switch(&c, 2);
    assert!(restartpoint < fork, "restartpoint {restartpoint} should lie before the fork {fork}");
    rewind(b, c, SourceKind::Server);
}

/// It has restartpoints after the fork: the common checkpoint lies before its control file's.
#[test]
fn killed_after_a_restartpoint_beyond_the_fork() {
    let sandbox = Sandbox::new();
    let (mut b, c) = cluster(&sandbox, |a, b| {
        lose(a);
        a.sql("CHECKPOINT");
        b.catch_up(a);
        b.sql("CHECKPOINT");
        a.sql("DELETE FROM entry WHERE origin = 'lost' AND id % 2 = 0");
        b.catch_up(a);
    });
    b.kill();
    let restartpoint = ControlData::of(&b.data).lsn("Latest checkpoint location");
    let fork = crate::harness::history_switch(&c, 2);
    assert!(restartpoint > fork, "restartpoint {restartpoint} should lie beyond the fork {fork}");
    rewind(b, c, SourceKind::Server);
}

/// Received, flushed, never replayed: no page has changed, yet a start would replay it.
#[test]
fn killed_with_wal_it_has_not_replayed() {
    let sandbox = Sandbox::new();
    let (mut b, mut c) = cluster(&sandbox, |a, b| {
        b.sql("SELECT pg_wal_replay_pause()");
        b.wait_for("a pause of replay", "SELECT pg_get_wal_replay_pause_state() = 'paused'");
        lose(a);
        let end = a.wal_end();
        b.wait_for("the WAL", &format!("SELECT pg_last_wal_receive_lsn() >= '{end}'"));
    });
    b.kill();
    let run = Rewind::of(&b).from(&c, SourceKind::Server).run();
    assert_eq!(run.code, 0, "{run}");
    assert_follows(&mut b, &c);
    assert_eq!(
        b.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"),
        0,
        "rows only the lost primary had"
    );
    assert_sound(&mut b);
    c.stop();
}
