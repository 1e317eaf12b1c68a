//! Damaged WAL: what cannot be read must not be guessed.
//!
//!     old  ──┬── lost ──╳╳── lost ── end     a record in the middle is damaged, valid pages follow
//!            │          ▲
//!            │          └── not the end of WAL: changes after it are in data files and would go unseen

use std::os::unix::fs::FileExt;

use crate::harness::{
    Failover, Lsn, Rewind, SEGMENT_SIZE, Sandbox, Segment, Server, SourceKind, assert_cured_by_comparing,
    assert_follows, assert_sound, history_switch, record_starts,
};

fn diverged(sandbox: &Sandbox) -> Failover {
    Failover::new(
        sandbox,
        |old| old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 1000) n"),
        |old| {
            for n in 0..10 {
                old.sql(&format!("INSERT INTO entry SELECT {n}, 'lost' FROM generate_series(1, 2000)"));
            }
        },
        |new| new.sql("INSERT INTO entry SELECT n, 'kept' FROM generate_series(1, 1000) n"),
    )
}

/// Overwrites WAL of timeline 1 at a position.
fn overwrite(server: &Server, lsn: Lsn, bytes: &[u8]) {
    let path = server.data.join(format!("pg_wal/{}", Segment::at(1, lsn)));
    let file = std::fs::File::options().write(true).open(&path).expect("open a segment");
    file.write_all_at(bytes, lsn.0 % SEGMENT_SIZE).expect("write into a segment");
}

/// Damages the checksum of the record in the middle between the fork and the end. Returns where.
fn damage_the_middle(failover: &Failover) -> Lsn {
    let records = record_starts(&failover.old.data, 1, history_switch(&failover.new, 2));
    let middle = records[records.len() / 2];
    // The checksum is the last field of the record's header, at 20 of 24 bytes.
    overwrite(&failover.old, Lsn(middle.0 + 20), &[0xAB; 4]);
    middle
}

#[test]
fn in_the_middle_of_a_clean_target() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    failover.old.stop();
    let damaged = damage_the_middle(&failover);
    let Failover { mut old, mut new } = failover;
    let refusal = |kind: SourceKind, new: &Server| {
        let run = Rewind::of(&old).from(new, kind).expect_refusal("WAL", "");
        assert!(run.stderr.contains(&damaged.to_string()), "the damaged record is at {damaged}\n{run}");
        run
    };
    new.stop();
    refusal(SourceKind::Directory, &new);
    new.start();
    let refusal = refusal(SourceKind::Server, &new);
    assert_cured_by_comparing(&refusal, &mut old, &new);
}

/// Only the pages that follow tell it from the end that a crash leaves. `--ensure-shutdown` lets the server decide.
#[test]
fn in_the_middle_of_a_crashed_target() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    failover.old.kill();
    let damaged = damage_the_middle(&failover);
    let Failover { mut old, new } = failover;
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    let run = rewind.expect_refusal("WAL", "--ensure-shutdown");
    assert!(run.stderr.contains(&damaged.to_string()), "WAL is readable up to {damaged}\n{run}");
    assert_cured_by_comparing(&run, &mut old, &new);
}

/// WAL that ends before what the control file says is there.
#[test]
fn cut_off_before_the_checkpoint() {
    let sandbox = Sandbox::new();
    let mut failover = diverged(&sandbox);
    failover.old.stop();
    let checkpoint = crate::harness::ControlData::of(&failover.old.data).lsn("Latest checkpoint location");
    let rest = SEGMENT_SIZE - checkpoint.0 % SEGMENT_SIZE;
    overwrite(&failover.old, checkpoint, &vec![0; rest as usize]);
    let Failover { mut old, new } = failover;
    let run = Rewind::of(&old).from(&new, SourceKind::Server).expect_refusal("WAL", "");
    assert!(run.stderr.contains(&checkpoint.to_string()), "the checkpoint should be at {checkpoint}\n{run}");
    assert_cured_by_comparing(&run, &mut old, &new);
}

/// The other side of the coin: a last record written in part is what a crash leaves, and no damage.
#[test]
fn last_record_torn_by_the_crash() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.sql("SELECT pg_logical_emit_message(false, 'torn', repeat('x', 40000))");
    let end = old.value::<String>("SELECT pg_current_wal_insert_lsn()::text").parse::<Lsn>().expect("an LSN");
    old.wait_for("a flush", &format!("SELECT pg_current_wal_flush_lsn() >= '{end}'"));
    old.kill();
    // The message spans five pages; the last three never reached the disk.
    let torn = Lsn(end.0 / 8192 * 8192 - 2 * 8192);
    overwrite(&old, torn, &vec![0; (SEGMENT_SIZE - torn.0 % SEGMENT_SIZE) as usize]);
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}
