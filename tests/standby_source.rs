//! The source is a standby: the node that was promoted by mistake is rewound without touching the primary.
//!
//!     a  ──── shared ────┬──── kept ───────────────────▶     timeline 1: the primary
//!                        │
//!     b  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄│┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄▶     follows a: the source
//!                        │                     ┊
//!     c  ┄ follows b ┄┄┄ └──── lost ──╳ rewind ┄┄┄┄┄▶        timeline 2: the target; it follows b again

use crate::harness::{
    ControlData, Rewind, Sandbox, Server, SourceKind, assert_same_content, assert_sound, history_switch,
};

/// The cascade after `c` was promoted and both sides have written.
fn cascade(sandbox: &Sandbox) -> (Server, Server, Server) {
    let mut a = sandbox.server("a");
    let (mut b, mut c) = (a.copy("b"), a.copy("c"));
    a.start();
    b.follow(&a);
    b.start();
    c.follow(&b);
    c.start();
    a.sql("CREATE TABLE entry (id int PRIMARY KEY, origin text); INSERT INTO entry SELECT n, 'shared' FROM generate_series(1, 3000) n");
    a.sql("CHECKPOINT");
    a.sql("UPDATE entry SET origin = 'shared again' WHERE id % 10 = 0");
    c.catch_up(&a);
    c.promote();
    c.sql("UPDATE entry SET origin = 'lost' WHERE id % 3 = 0; INSERT INTO entry SELECT n, 'lost' FROM generate_series(3001, 9000) n");
    a.sql("UPDATE entry SET origin = 'kept' WHERE id % 4 = 0; INSERT INTO entry SELECT n, 'kept' FROM generate_series(3001, 4000) n");
    b.catch_up(&a);
    (a, b, c)
}

/// Starts `c` below `b` again and proves that what `a` writes arrives through both.
fn rejoin(a: &Server, b: &Server, c: &mut Server) {
    c.follow(b);
    c.start();
    a.sql("INSERT INTO entry VALUES (0, 'after the rewind')");
    c.catch_up(a);
    b.catch_up(a);
    assert_same_content(c, a);
    assert_eq!(c.value::<String>("SELECT origin FROM entry WHERE id = 0"), "after the rewind");
    assert_sound(c);
}

#[test]
fn running() {
    let sandbox = Sandbox::new();
    let (a, b, mut c) = cascade(&sandbox);
    let fork = history_switch(&c, 2);
    c.stop();
    let run = Rewind::of(&c).from(&b, SourceKind::Server).arg("--allow-older-source").run().expect_done();
    run.expect_said(&format!("servers diverged at WAL location {fork} on timeline 1"));
    // Left behind, it would lead the node back to the timeline that is given up.
    assert!(!c.data.join("pg_wal/00000002.history").exists(), "the history of the target's own timeline");
    rejoin(&a, &b, &mut c);
}

/// The source's restartpoint lies before the last common checkpoint: replay must begin at the source's, since pages
/// copied from it may be as old.
#[test]
fn running_with_an_old_restartpoint() {
    let sandbox = Sandbox::new();
    let (a, b, mut c) = cascade(&sandbox);
    c.kill();
    let restartpoint = ControlData::of(&b.data).lsn("Latest checkpoint location");
    assert!(restartpoint < history_switch(&c, 2), "the source should have made no restartpoint yet");
    Rewind::of(&c).from(&b, SourceKind::Server).arg("--allow-older-source").run().expect_done();
    rejoin(&a, &b, &mut c);
}

#[test]
fn stopped() {
    let sandbox = Sandbox::new();
    let (a, mut b, mut c) = cascade(&sandbox);
    c.stop();
    b.stop();
    assert_eq!(ControlData::of(&b.data).get("Database cluster state"), "shut down in recovery");
    Rewind::of(&c).from(&b, SourceKind::Directory).arg("--allow-older-source").run().expect_done();
    b.start();
    rejoin(&a, &b, &mut c);
}
