//! The fork lies exactly where a page or a segment ends: the record before it and the record after it lie in different
//! pages, or in files of different timelines with nothing in common.
//!
//!     old  [1: ... last shared record ▏][2: lost ...]          timeline 1
//!                                     ▲ fork
//!     new  [1: ... last shared record ▏]
//!                                      [2: kept ...]           timeline 2: segment 1 exists on timeline 1 only

use crate::harness::{
    Lsn, Rewind, SEGMENT_SIZE, Sandbox, Server, SourceKind, WAL_PAGE_SIZE, assert_follows, assert_sound,
    fill_page, history_switch, insert_position, next_segment,
};

fn fork_at(boundary: impl Fn(&Server) -> Lsn, unit: u64, kind: SourceKind, end_of_target: fn(&mut Server)) {
    let sandbox = Sandbox::new();
    let (mut old, mut new) = sandbox.pair();
    old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)");
    let fork = boundary(&old);
    new.wait_for("the record before the fork", &format!("SELECT pg_last_wal_replay_lsn() >= '{fork}'"));
    new.promote();
    assert_eq!(history_switch(&new, 2), fork, "another record came between");
    assert_eq!(fork.0 % unit, 0, "{fork} is no boundary");
    old.sql("UPDATE entry SET origin = 'lost' WHERE ctid < '(5,1)'");
    new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 500)");
    end_of_target(&mut old);
    if kind == SourceKind::Directory {
        new.stop();
    }
    let run = Rewind::of(&old).from(&new, kind).run().expect_done();
    run.expect_said(&format!("servers diverged at WAL location {fork} on timeline 1"));
    if kind == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut old, &new);
    assert_eq!(old.column("SELECT DISTINCT origin FROM entry ORDER BY 1"), ["kept", "shared"]);
    assert_sound(&mut old);
}

fn end_of_segment(server: &Server) -> Lsn {
    next_segment(server);
    Lsn(insert_position(server).0 / SEGMENT_SIZE * SEGMENT_SIZE)
}

#[test]
fn end_of_a_segment_running_source() {
    fork_at(end_of_segment, SEGMENT_SIZE, SourceKind::Server, Server::kill);
}

#[test]
fn end_of_a_segment_stopped_source() {
    fork_at(end_of_segment, SEGMENT_SIZE, SourceKind::Directory, Server::stop);
}

#[test]
fn end_of_a_page_running_source() {
    fork_at(fill_page, WAL_PAGE_SIZE, SourceKind::Server, Server::stop);
}

#[test]
fn end_of_a_page_stopped_source() {
    fork_at(fill_page, WAL_PAGE_SIZE, SourceKind::Directory, Server::kill);
}
