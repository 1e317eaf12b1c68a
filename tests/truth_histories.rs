//! On which timeline a standby is, its control file says only after its next restartpoint.
//!
//!     p  ── 1 ──┬──── on1 ────┬──╳
//!     s  ┄┄┄┄┄┄ └ 2 ── on2 ─╳ │
//!     c  ┄┄┄┄┄┄ ┄┄ 2 ┄┄┄┄┄┄╳  │             follows s; pg_control: timeline 1
//!     r  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └ 2 ── onr ──▶   another timeline 2

use std::fs::remove_file;

use crate::harness::{
    ControlData, Rewind, Sandbox, Segment, Server, SourceKind, assert_follows, assert_sound, next_segment,
    segments,
};
use crate::truth_proof::{assert_rewinds, refused, rewind};

/// No checkpoint comes by itself.
fn quiet(server: &Server) {
    server.configure("checkpoint_timeout = 1h\nmax_wal_size = 2GB\nbgwriter_lru_maxpages = 0");
}

fn fill(server: &Server, table: &str, rows: u32) {
    server.sql(&format!("CREATE TABLE {table} AS SELECT n FROM generate_series(1, {rows}) n"));
}

fn assert_control_says_1(server: &Server) {
    let control = ControlData::of(&server.data);
    assert_eq!(control.get("Latest checkpoint's TimeLineID"), "1", "{} made a restartpoint", server.name);
}

/// What a base backup that begins now would not have.
fn without_older_segments(server: &Server) {
    let redo = ControlData::of(&server.data).lsn("Latest checkpoint's REDO location");
    for segment in segments(&server.data) {
        if segment.number < Segment::at(1, redo).number {
            remove_file(server.data.join(format!("pg_wal/{segment}"))).expect("remove a segment");
        }
    }
}

/// The four nodes of the drawing; `s` is promoted, `c` has followed it, and `p` knows nothing of that.
struct Nodes {
    p: Server,
    s: Server,
    c: Server,
    r: Server,
}

fn nodes(sandbox: &Sandbox) -> Nodes {
    let mut p = sandbox.server("p");
    quiet(&p);
    p.start();
    fill(&p, "shared", 1000);
    p.stop();
    let [mut s, mut c, mut r] = ["s", "c", "r"].map(|name| p.copy(name));
    without_older_segments(&c);
    p.start();
    for (standby, upstream) in [(&mut s, &p), (&mut r, &p)] {
        standby.follow(upstream);
        standby.start();
    }
    c.follow(&s);
    c.start();
    p.sql("INSERT INTO shared SELECT generate_series(1, 100); CHECKPOINT");
    // The checkpoint that follows the promotion takes a minute: it has many pages to write, each after a pause. A standby that
    // has replayed it makes a restartpoint of it when it is stopped.
    fill(&p, "many", 150_000);
    for standby in [&s, &c, &r] {
        standby.catch_up(&p);
    }
    s.promote();
    fill(&s, "on2", 2000);
    c.catch_up(&s);
    Nodes { p, s, c, r }
}

/// `c` was left on timeline 2, and `r` is promoted to another timeline 2.
fn other_timeline_2(end: fn(&mut Server)) {
    let sandbox = Sandbox::new();
    let Nodes { mut p, mut s, mut c, mut r } = nodes(&sandbox);
    end(&mut c);
    assert_control_says_1(&c);
    s.stop();
    fill(&p, "on1", 3000);
    r.catch_up(&p);
    p.stop();
    r.promote();
    fill(&r, "onr", 50_000);
    r.sql("CHECKPOINT");
    assert_rewinds(&mut c, &r);
}

#[test]
fn target_standby_killed_on_a_new_timeline() {
    other_timeline_2(Server::kill);
}

#[test]
fn target_standby_stopped_on_a_new_timeline() {
    other_timeline_2(Server::stop);
}

/// The old primary of timeline 1 is still there: rewinding to it is going back, which must be asked for.
#[test]
fn target_standby_killed_on_a_new_timeline_and_the_old_primary() {
    let sandbox = Sandbox::new();
    let Nodes { p, mut s, mut c, r: _r } = nodes(&sandbox);
    c.kill();
    assert_control_says_1(&c);
    s.stop();
    fill(&p, "on1", 30_000);
    p.sql("CHECKPOINT");
    refused(rewind(&c, &p), &["timeline 1", "timeline 2", "--allow-older-source"]);
    rewind(&c, &p).arg("--allow-older-source").run().expect_done();
    assert_follows(&mut c, &p);
    assert_sound(&mut c);
}

/// Its own primary is the source: it has all of that's history.
#[test]
fn target_standby_killed_on_its_sources_timeline() {
    let sandbox = Sandbox::new();
    let Nodes { p: _p, s, mut c, r: _r } = nodes(&sandbox);
    c.kill();
    assert_control_says_1(&c);
    fill(&s, "later", 1000);
    rewind(&c, &s).run().expect_not_needed();
    assert_follows(&mut c, &s);
    assert_sound(&mut c);
}

/// The old primary is rewound to the standby `c`, whose control file is of timeline 1.
fn standby_source(end: fn(&mut Server), prepare: fn(&Nodes)) {
    let sandbox = Sandbox::new();
    let mut nodes = nodes(&sandbox);
    prepare(&nodes);
    fill(&nodes.p, "on1", 20_000);
    end(&mut nodes.p);
    nodes.c.catch_up(&nodes.s);
    assert_control_says_1(&nodes.c);
    let Nodes { mut p, s, c, .. } = nodes;
    Rewind::of(&p).from(&c, SourceKind::Server).run().expect_done();
    // It streams from the primary: what it has is the standby's.
    assert_follows(&mut p, &s);
    assert_sound(&mut p);
}

#[test]
fn source_standby_with_an_old_control_file() {
    standby_source(Server::kill, |_| ());
}

#[test]
fn source_standby_with_an_old_control_file_and_a_stopped_target() {
    standby_source(Server::stop, |_| ());
}

#[test]
fn source_standby_with_an_old_control_file_and_new_data() {
    standby_source(Server::kill, |nodes| fill(&nodes.s, "fresh", 20_000));
}

/// Timeline 2 has gone on for some segments.
#[test]
fn source_standby_with_an_old_control_file_and_new_segments() {
    standby_source(Server::kill, |nodes| {
        for table in ["one", "two", "three"] {
            fill(&nodes.s, table, 1000);
            next_segment(&nodes.s);
        }
    });
}

/// Both were promoted to timeline 2 at one point, so their WAL must be compared. What lies before the segment of the fork
/// is on neither side, and is not needed.
#[test]
fn fork_inside_a_segment_without_the_one_before() {
    let sandbox = Sandbox::new();
    let (mut a, mut b, mut c) = sandbox.trio();
    fill(&a, "shared", 3000);
    next_segment(&a);
    a.sql("CHECKPOINT");
    a.sql("INSERT INTO shared VALUES (5)");
    for standby in [&b, &c] {
        standby.catch_up(&a);
        standby.sql("CHECKPOINT");
    }
    a.stop();
    for standby in [&mut b, &mut c] {
        standby.promote();
    }
    fill(&c, "lost", 3000);
    fill(&b, "kept", 2000);
    c.stop();
    b.sql("CHECKPOINT");
    // Before each one's redo, and so of no use to itself.
    let first = segments(&c.data)[0];
    for server in [&b, &c] {
        for segment in segments(&server.data) {
            if segment.number <= first.number {
                remove_file(server.data.join(format!("pg_wal/{segment}"))).expect("remove a segment");
            }
        }
    }
    assert_rewinds(&mut c, &b);
}
