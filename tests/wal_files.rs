//! Which WAL files lie in the target when it is rewound.
//!
//!     source   [5][6][7: insert position][8][9][10 recycled: old pages under new names]
//!     target   [3: redo of the common checkpoint][4: its record][5: fork][6 lost][7 lost]
//!                ▼
//!              [3][4] kept     [5][6][7] the source's     nothing beyond: neither recycled nor lost

use std::path::PathBuf;

use crate::harness::{
    ControlData, Failover, Lsn, Rewind, Sandbox, Segment, Server, SourceKind, assert_follows, assert_sound,
    next_segment, segments,
};

fn entries(server: &Server, origin: &str) {
    server.sql(&format!("INSERT INTO entry SELECT '{origin}' FROM generate_series(1, 2000)"));
}

/// A pair of which the standby keeps so much WAL that it need not.
fn pair(sandbox: &Sandbox, new_keeps: &str) -> (Server, Server) {
    let mut old = sandbox.server("old");
    let mut new = old.copy("new");
    new.set("wal_keep_size", new_keeps);
    old.start();
    new.follow(&old);
    new.start();
    old.sql("CREATE TABLE entry (origin text)");
    entries(&old, "shared");
    (old, new)
}

/// Segments recycled for later use lie ahead of the insert position, whole, and mean nothing.
fn recycled_segments_are_not_copied(kind: SourceKind) {
    let sandbox = Sandbox::new();
    let (old, new) = pair(&sandbox, "512MB");
    let mut failover = Failover { old, new };
    failover.fail_over();
    let Failover { mut old, mut new } = failover;
    for _ in 0..6 {
        entries(&old, "lost");
        next_segment(&old);
    }
    for _ in 0..3 {
        entries(&new, "kept");
        next_segment(&new);
    }
    old.stop();
    let recycled = plant_recycled_segments(&mut new);
    if kind == SourceKind::Directory {
        new.stop();
    }
    Rewind::of(&old).from(&new, kind).run().expect_done();
    let last = if kind == SourceKind::Server { new.wal_end() } else { control_checkpoint(&new) };
    let beyond: Vec<_> = segments(&old.data)
        .into_iter()
        .filter(|segment| segment.number > Segment::at(2, last).number)
        .collect();
    assert!(
        beyond.is_empty(),
        "the source ends at {last}, recycled are {recycled:?}, the target has {beyond:?}"
    );
    if kind == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

fn control_checkpoint(server: &Server) -> Lsn {
    ControlData::of(&server.data).lsn("Latest checkpoint location")
}

/// Copies an old segment under the names of the next three, which is what recycling does.
fn plant_recycled_segments(server: &mut Server) -> Vec<Segment> {
    let now = Segment::at(2, server.wal_end());
    let old =
        *segments(&server.data).iter().find(|segment| segment.number < now.number).expect("an old segment");
    let path = |segment: Segment| -> PathBuf { server.data.join(format!("pg_wal/{segment}")) };
    let content = std::fs::read(path(old)).expect("read a segment");
    let recycled: Vec<_> = (1..=3).map(|ahead| Segment { number: now.number + ahead, ..now }).collect();
    for segment in &recycled {
        server.write(&format!("pg_wal/{segment}"), &content);
    }
    recycled
}

#[test]
fn recycled_segments_of_a_running_source() {
    recycled_segments_are_not_copied(SourceKind::Server);
}

#[test]
fn recycled_segments_of_a_stopped_source() {
    recycled_segments_are_not_copied(SourceKind::Directory);
}

/// Replay begins at the redo of the common checkpoint, segments before its record; the source has recycled them.
#[test]
fn wal_back_to_redo_is_kept() {
    let sandbox = Sandbox::new();
    let (old, new) = pair(&sandbox, "0");
    let (redo, checkpoint) = slow_checkpoint(&old);
    assert!(
        redo.number + 1 < checkpoint.number,
        "redo in {redo} should lie segments before the record in {checkpoint}"
    );
    entries(&old, "shared");
    next_segment(&old);
    entries(&old, "shared");
    let mut failover = Failover { old, new };
    failover.fail_over();
    let Failover { mut old, new } = failover;
    entries(&old, "lost");
    entries(&new, "kept");
    new.sql("CHECKPOINT");
    new.sql("CHECKPOINT");
    assert!(
        !segments(&new.data).contains(&redo),
        "the source should have removed {redo}: {:?}",
        segments(&new.data)
    );
    old.stop();
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    rewind.args(["--replay-from", "common"]).run().expect_done();
    assert!(segments(&old.data).contains(&redo), "{redo} should have been kept: {:?}", segments(&old.data));
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// A checkpoint that takes its time while WAL goes on. Returns the segments of its redo and of its record.
fn slow_checkpoint(server: &Server) -> (Segment, Segment) {
    server.sql("CHECKPOINT");
    // Some dirty pages: a spread checkpoint pauses after each.
    for table in 0..8 {
        server.sql(&format!("CREATE TABLE dirty_{table} AS SELECT n FROM generate_series(1, 500) n"));
    }
    let mut session = server.connect("postgres");
    let before = server.value::<String>("SELECT redo_lsn::text FROM pg_control_checkpoint()");
    let slow = std::thread::spawn(move || {
        session.batch_execute("SELECT pg_backup_start('slow', false)").map(|()| session)
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    for _ in 0..3 {
        entries(server, "during the checkpoint");
        next_segment(server);
    }
    slow.join().expect("a session").expect("a slow checkpoint");
    let lsn = |column: &str| -> Lsn {
        server
            .value::<String>(&format!("SELECT {column}::text FROM pg_control_checkpoint()"))
            .parse()
            .expect("an LSN")
    };
    let (redo, checkpoint) = (lsn("redo_lsn"), lsn("checkpoint_lsn"));
    assert_ne!(redo.to_string(), before, "pg_backup_start should have made a checkpoint");
    (Segment::at(1, redo), Segment::at(1, checkpoint))
}
