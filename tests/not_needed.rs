//! Nothing to rewind: the target's history is a part of the source's. Exit 0, and the target is left as it is.
//!
//!     source  ──────────────┬─────────────────▶
//!                           ┊
//!     target  ───────╳      ┊                     behind the fork, or
//!     target  ──────────────╳                     just at it: a clean switchover

use crate::harness::{Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound};

const KINDS: [SourceKind; 2] = [SourceKind::Server, SourceKind::Directory];

/// Both kinds of source say so, then the node is started and follows.
fn not_needed(target: &mut Server, source: &mut Server) {
    for kind in KINDS {
        if kind == SourceKind::Directory {
            source.stop();
        }
        Rewind::of(target).from(source, kind).run_leaving_target_alone().expect_not_needed();
    }
    source.start();
    assert_follows(target, source);
    assert_sound(target);
}

fn entries(server: &Server, origin: &str) {
    server.sql(&format!("INSERT INTO entry SELECT '{origin}' FROM generate_series(1, 1000)"));
}

fn pair_with_entries(sandbox: &Sandbox) -> (Server, Server) {
    let (old, new) = sandbox.pair();
    old.sql("CREATE TABLE entry (origin text)");
    entries(&old, "shared");
    new.catch_up(&old);
    (old, new)
}

/// A standby was stopped for a while; its primary went on, on the same timeline.
#[test]
fn standby_behind_on_the_same_timeline() {
    let sandbox = Sandbox::new();
    let (mut primary, mut standby) = pair_with_entries(&sandbox);
    standby.stop();
    entries(&primary, "kept");
    not_needed(&mut standby, &mut primary);
}

#[test]
fn killed_standby_behind_on_the_same_timeline() {
    let sandbox = Sandbox::new();
    let (mut primary, mut standby) = pair_with_entries(&sandbox);
    standby.kill();
    entries(&primary, "kept");
    not_needed(&mut standby, &mut primary);
}

/// Switchover: the old primary is stopped in order, so its last record, the shutdown checkpoint, reaches the standby
/// before that is promoted. Its WAL ends exactly at the fork.
#[test]
fn clean_switchover() {
    let sandbox = Sandbox::new();
    let (mut old, mut new) = pair_with_entries(&sandbox);
    old.stop();
    new.promote();
    entries(&new, "kept");
    not_needed(&mut old, &mut new);
}

/// A standby was stopped before the fork: it has nothing the new timeline lacks.
#[test]
fn standby_stopped_before_the_fork() {
    let sandbox = Sandbox::new();
    let (mut a, mut b, mut c) = sandbox.trio();
    a.sql("CREATE TABLE entry (origin text)");
    entries(&a, "shared");
    b.catch_up(&a);
    b.stop();
    entries(&a, "shared too");
    c.catch_up(&a);
    c.promote();
    a.stop();
    entries(&c, "kept");
    not_needed(&mut b, &mut c);
}
