//! Two histories that look like one from their numbers, and the WAL that would tell them apart is elsewhere or gone.
//!
//!     a  ── 1 ──┬────────╳
//!     b  ┄┄┄┄┄┄ ├─ 2 ─────▶     both promoted to timeline 2 at the same point:
//!     c  ┄┄┄┄┄┄ └─ 2 ─────▶     equal history files, different WAL

use crate::harness::{
    Rewind, Sandbox, Server, SourceKind, assert_cured_by_comparing, assert_follows, assert_sound,
    next_segment,
};

fn entries(server: &Server, origin: &str, rows: u32) {
    server.sql(&format!("INSERT INTO entry SELECT '{origin}' FROM generate_series(1, {rows})"));
}

/// A primary with two standbys that have everything.
fn cluster(sandbox: &Sandbox) -> (Server, Server, Server) {
    let (a, b, c) = sandbox.trio();
    a.sql("CREATE TABLE entry (origin text)");
    entries(&a, "shared", 3000);
    b.catch_up(&a);
    c.catch_up(&a);
    (a, b, c)
}

fn keep_no_wal(server: &Server) {
    server.sql("ALTER SYSTEM SET wal_keep_size = 0");
    server.sql("SELECT pg_reload_conf()");
}

fn count(server: &Server, origin: &str) -> i64 {
    server.value(&format!("SELECT count(*) FROM entry WHERE origin = '{origin}'"))
}

/// Rewound to b and not started, then to c: what the first run left is not "already rewound" for the second.
#[test]
fn rewound_to_one_then_to_the_other() {
    let sandbox = Sandbox::new();
    let (mut a, mut b, mut c) = cluster(&sandbox);
    a.kill();
    b.promote();
    c.promote();
    a.start();
    entries(&a, "lost", 500);
    a.stop();
    entries(&b, "of b", 500);
    entries(&c, "of c", 5000);
    Rewind::of(&a).from(&b, SourceKind::Server).run().expect_done();
    Rewind::of(&a).from(&b, SourceKind::Server).run().expect_not_needed();
    Rewind::of(&a).from(&c, SourceKind::Server).run().expect_done();
    assert_follows(&mut a, &c);
    assert_eq!((count(&a, "of b"), count(&a, "of c")), (0, 5000));
    assert_sound(&mut a);
}

/// The source has recycled the segment in which the target ends: nobody can say whether it may follow.
#[test]
fn source_has_recycled_what_would_tell() {
    let sandbox = Sandbox::new();
    let (mut a, mut b, mut c) = cluster(&sandbox);
    a.stop();
    b.promote();
    c.promote();
    entries(&c, "lost", 500);
    c.stop();
    keep_no_wal(&b);
    for _ in 0..6 {
        entries(&b, "kept", 500);
        next_segment(&b);
        b.sql("CHECKPOINT");
    }
    let rewind = Rewind::of(&c).from(&b, SourceKind::Server);
    let refusal = rewind.expect_refusal("could not compare the WAL of source and target", "base backup");
    assert_cured_by_comparing(&refusal, &mut c, &b);
}

/// The target has recycled its first segments of timeline 2, and the source has files of the same names: they are not
/// the target's.
#[test]
fn source_wal_is_not_taken_for_the_targets() {
    let sandbox = Sandbox::new();
    let (mut a, mut b, mut c) = cluster(&sandbox);
    a.stop();
    b.promote();
    c.promote();
    keep_no_wal(&c);
    b.sql("ALTER SYSTEM SET wal_keep_size = '512MB'");
    b.sql("SELECT pg_reload_conf()");
    for _ in 0..8 {
        for (server, word) in [(&b, "kept"), (&c, "lost")] {
            entries(server, word, 500);
            next_segment(server);
            server.sql("CHECKPOINT");
        }
    }
    c.stop();
    let refusal = Rewind::of(&c).from(&b, SourceKind::Server).expect_refusal("differs", "base backup");
    assert_cured_by_comparing(&refusal, &mut c, &b);
}

/// The source ends on timeline 1 before the point where the target left it.
///
///     b  ── 1 ──╳                  missed the rest; promoted after the rewind
///     c  ── 1 ──── lost ──┬─ 2 ──╳
#[test]
fn source_ends_before_the_fork() {
    let sandbox = Sandbox::new();
    let (mut a, mut b, mut c) = cluster(&sandbox);
    b.stop();
    for _ in 0..3 {
        entries(&a, "lost", 3000);
        next_segment(&a);
        a.sql("CHECKPOINT");
    }
    c.catch_up(&a);
    a.stop();
    c.promote();
    entries(&c, "lost", 500);
    c.stop();
    let refused = Rewind::of(&c).from(&b, SourceKind::Directory);
    refused.expect_refusal("older than timeline 2 of the target", "--allow-older-source");
    Rewind::of(&c).from(&b, SourceKind::Directory).arg("--allow-older-source").run().expect_done();
    b.unset("primary_conninfo");
    b.start();
    b.promote();
    entries(&b, "kept", 500);
    assert_follows(&mut c, &b);
    assert_eq!((count(&c, "lost"), count(&c, "kept")), (0, 500));
    assert_sound(&mut c);
}
