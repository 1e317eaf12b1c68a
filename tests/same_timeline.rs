//! Diverged, although the timeline's number is the same: numbers are not histories.
//!
//!     a  ── 1 ──┬──────┬─╳
//!     b  ┄┄┄┄┄┄┄│┄┄┄┄┄ └── 2 ──▶      promoted there,
//!     c  ┄┄┄┄┄┄ └── 2 ─────────▶      and here: two timelines 2
//!
//! Two standbys promoted by two operators, or by one after a network split; a snapshot brought up beside its origin.

use crate::harness::{
    Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound, history_switch, next_segment,
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

/// More WAL than the source has: segments that must not be there when the node starts.
fn write_much(server: &Server) {
    for _ in 0..3 {
        entries(server, "lost", 3000);
        next_segment(server);
    }
    entries(server, "lost", 100);
}

/// Rewinds and proves that nothing of the target's own is left.
fn rewind(mut target: Server, mut source: Server, kind: SourceKind, said: &str) {
    if kind == SourceKind::Directory {
        source.stop();
    }
    Rewind::of(&target).from(&source, kind).run().expect_done().expect_said(said);
    if kind == SourceKind::Directory {
        source.start();
    }
    assert_follows(&mut target, &source);
    assert_eq!(
        target.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"),
        0,
        "rows of the target alone"
    );
    assert_eq!(
        target.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'kept'"),
        500,
        "rows of the source"
    );
    assert_sound(&mut target);
}

/// `c` was promoted while `b` still received from `a`.
fn promoted_at_different_points(sandbox: &Sandbox) -> (Server, Server, String) {
    let (mut a, mut b, mut c) = cluster(sandbox);
    c.promote();
    entries(&a, "after c left", 2000);
    b.catch_up(&a);
    a.stop();
    b.promote();
    let (earlier, later) = (history_switch(&c, 2), history_switch(&b, 2));
    assert!(earlier < later, "{earlier} should lie before {later}");
    (b, c, format!("servers diverged at WAL location {earlier} on timeline 1"))
}

#[test]
fn target_promoted_earlier() {
    let sandbox = Sandbox::new();
    let (b, mut c, said) = promoted_at_different_points(&sandbox);
    entries(&b, "kept", 500);
    write_much(&c);
    c.stop();
    rewind(c, b, SourceKind::Server, &said);
}

#[test]
fn target_promoted_later() {
    let sandbox = Sandbox::new();
    let (mut b, c, said) = promoted_at_different_points(&sandbox);
    entries(&c, "kept", 500);
    write_much(&b);
    b.kill();
    rewind(b, c, SourceKind::Directory, &said);
}

/// Even the history files are equal: only the records tell.
fn promoted_at_the_same_point(kind: SourceKind, end_of_target: fn(&mut Server)) {
    let sandbox = Sandbox::new();
    let (mut a, mut b, mut c) = cluster(&sandbox);
    // Its shutdown checkpoint is the last record, and both get it.
    a.stop();
    b.promote();
    c.promote();
    let history = |server: &Server| {
        std::fs::read_to_string(server.data.join("pg_wal/00000002.history")).expect("history")
    };
    assert_eq!(history(&b), history(&c), "the scenario needs two promotions at the same point");
    entries(&b, "kept", 500);
    write_much(&c);
    let fork = history_switch(&b, 2);
    end_of_target(&mut c);
    rewind(c, b, kind, &format!("servers diverged at WAL location {fork} on timeline"));
}

#[test]
fn promoted_at_the_same_point_running_source() {
    promoted_at_the_same_point(SourceKind::Server, Server::kill);
}

#[test]
fn promoted_at_the_same_point_stopped_source() {
    promoted_at_the_same_point(SourceKind::Directory, Server::stop);
}

/// A snapshot was started beside its origin, and no promotion told them apart: both are on timeline 1.
///
///     origin    ── 1 ──┬── lost ──╳
///     snapshot         └── kept ──▶
fn snapshot_beside_its_origin(kind: SourceKind, write_at_target: fn(&Server)) {
    let sandbox = Sandbox::new();
    let mut origin = sandbox.server("origin");
    origin.start();
    origin.sql("CREATE TABLE entry (origin text)");
    entries(&origin, "shared", 3000);
    origin.stop();
    let mut snapshot = origin.copy("snapshot");
    origin.start();
    snapshot.start();
    write_at_target(&origin);
    entries(&snapshot, "kept", 500);
    origin.kill();
    rewind(origin, snapshot, kind, "servers diverged at WAL location");
}

#[test]
fn snapshot_shorter_than_the_target() {
    snapshot_beside_its_origin(SourceKind::Server, write_much);
}

#[test]
fn snapshot_as_long_as_the_target() {
    snapshot_beside_its_origin(SourceKind::Directory, |origin| entries(origin, "lost", 500));
}

/// The source is what the target was some time ago, and has nothing else: a standby that missed the end.
///
///     old  ── 1 ──┬── lost ──╳
///     new  ┄┄┄┄┄┄ ╳                 stopped; after the rewind it is promoted, and the target follows
#[test]
fn target_goes_beyond_a_stopped_standby() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let mut failover = Failover { old, new };
    failover.old.sql("CREATE TABLE entry (origin text)");
    entries(&failover.old, "shared", 3000);
    failover.new.catch_up(&failover.old);
    failover.new.stop();
    write_much(&failover.old);
    let Failover { mut old, mut new } = failover;
    old.stop();
    Rewind::of(&old).from(&new, SourceKind::Directory).run().expect_done();
    new.unset("primary_conninfo");
    new.start();
    new.promote();
    entries(&new, "kept", 500);
    assert_follows(&mut old, &new);
    assert_eq!(old.column("SELECT DISTINCT origin FROM entry ORDER BY 1"), ["kept", "shared"]);
    assert_sound(&mut old);
}

/// A standby that was down for a while, and could follow as it is: its files are made the source's on request.
#[test]
fn a_standby_is_resynchronised() {
    let sandbox = Sandbox::new();
    let (mut primary, mut standby) = sandbox.pair();
    primary.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 5000) n");
    primary.sql("CHECKPOINT");
    primary.sql("UPDATE entry SET origin = 'before' WHERE n % 100 = 0");
    standby.catch_up(&primary);
    standby.kill();
    let mut clean = standby.copy("clean");
    clean.follow(&primary);
    clean.start();
    clean.stop();
    primary.sql("UPDATE entry SET origin = 'meanwhile' WHERE n % 150 = 0");
    // No WAL would bring this.
    primary.write("extra.dat", "x");

    Rewind::of(&standby).from(&primary, SourceKind::Server).run().expect_not_needed();
    assert!(!standby.data.join("extra.dat").exists());
    let run = Rewind::of(&standby).from(&primary, SourceKind::Server).arg("--same-timeline-resync").run();
    let run = run.expect_done().expect_said("source and target cluster are on the same timeline");
    // The source has all that it has.
    run.expect_said("lost transactions: 0 committed");
    assert!(standby.data.join("extra.dat").exists());
    assert_follows(&mut standby, &primary);
    assert_sound(&mut standby);

    primary.stop();
    Rewind::of(&clean)
        .from(&primary, SourceKind::Directory)
        .arg("--same-timeline-resync")
        .run()
        .expect_done();
    assert!(clean.data.join("extra.dat").exists());
    primary.start();
    assert_follows(&mut clean, &primary);
    assert_sound(&mut clean);
}
