//! minRecoveryPoint is the end of a record, where replay can arrive.
//!
//!     page n ─────────── last record │ page n+1: header ▏◀── the insert position says: here
//!                                    ▲
//!                                    └── the last record ends here; a start that waited for the other would wait until
//!                                        the source happens to write again

use crate::harness::{
    ControlData, Failover, Lsn, Rewind, SEGMENT_SIZE, Sandbox, Server, SourceKind, WAL_PAGE_SIZE,
    assert_follows, assert_sound, fill_page, history_switch, insert_position, next_segment, record_starts,
};

/// The target is stopped, and the program has read the source once: reading sets hint bits, which may write WAL, so that
/// from now on the source is idle even while it is read.
fn diverged(sandbox: &Sandbox) -> Failover {
    let failover = Failover::of_one_table(sandbox);
    let run = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).arg("--dry-run").run();
    assert_eq!(run.code, 0, "{run}");
    failover
}

fn min_recovery_point(server: &Server) -> Lsn {
    let control = ControlData::of(&server.data);
    assert_eq!(control.get("Database cluster state"), "in archive recovery");
    assert_eq!(control.get("Min recovery ending loc's timeline"), "2");
    control.lsn("Minimum recovery ending location")
}

/// A record ends at `lsn` if the next one starts there, or behind the page header that is there.
fn assert_ends_a_record(source: &Server, lsn: Lsn) {
    let starts = record_starts(&source.data, 2, history_switch(source, 2));
    let header = if lsn.0.is_multiple_of(SEGMENT_SIZE) { 40 } else { 24 };
    let next = if lsn.0.is_multiple_of(WAL_PAGE_SIZE) { Lsn(lsn.0 + header) } else { lsn };
    assert!(starts.contains(&next), "{lsn} is not the end of a record; records start at {starts:?}");
}

/// The node comes up while the source is idle, then follows.
fn starts_without_help(old: &mut Server, new: &Server) {
    old.follow(new);
    old.start();
    old.stop();
    assert_follows(old, new);
    assert_sound(old);
}

#[test]
fn of_a_running_source() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    let end = min_recovery_point(&old);
    next_segment(&new);
    assert_ends_a_record(&new, end);
    starts_without_help(&mut old, &new);
}

#[test]
fn of_a_stopped_source() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = diverged(&sandbox);
    new.stop();
    Rewind::of(&old).from(&new, SourceKind::Directory).run().expect_done();
    let end = min_recovery_point(&old);
    new.start();
    next_segment(&new);
    assert_ends_a_record(&new, end);
    starts_without_help(&mut old, &new);
}

/// The last record is a switch: the insert position lies behind the long header of a segment that does not exist yet.
#[test]
fn after_a_switch_of_segments() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    new.sql("CHECKPOINT");
    next_segment(&new);
    let position = insert_position(&new);
    assert_eq!(
        position.0 % SEGMENT_SIZE,
        40,
        "the scenario needs an insert position behind a long header: {position}"
    );
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    let end = min_recovery_point(&old);
    starts_without_help(&mut old, &new);
    next_segment(&new);
    assert_ends_a_record(&new, end);
}

/// The last record fills its page to the last byte: the insert position lies behind the short header of the next page.
#[test]
fn at_the_end_of_a_page() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    new.sql("CHECKPOINT");
    let filled = fill_page(&new);
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    let end = min_recovery_point(&old);
    assert!(end >= filled, "{end} lies before the end of the record that fills the page, {filled}");
    starts_without_help(&mut old, &new);
    next_segment(&new);
    assert_ends_a_record(&new, end);
}
