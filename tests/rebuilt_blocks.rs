//! Changed blocks that replay makes anew are not copied, and what stands in them does not matter.
//!
//!     old  ── checkpoint ── first change of a page: its image, or no image ──┬── hint bits, changes ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └── changes ──▶

use std::fs::File;
use std::os::unix::fs::FileExt;

use walparse::scan::{EndOfWal, RebuiltBlocks, ScanRequest, scan, scan_stretch};
use walparse::{
    BlockNumber, ControlFile, Lsn, PageMap, RelSegment, Relation, TimelineHistory, TimelineId, WalDir,
};

use crate::harness::{
    Failover, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound, history_switch,
};
use crate::index_types;

const ROWS: i64 = 40;

/// Which blocks replay restores is known for a replay from the last common checkpoint.
fn from_common(old: &Server, new: &Server) -> Rewind {
    Rewind::of(old).from(new, SourceKind::Server).args(["--replay-from", "common"])
}

/// A transaction is under way at the fork. The old primary commits it and notes so, unlogged, in the rows; for the
/// new one it never came to an end. Returns how many blocks a rewind of all of it copies, and how many without
/// those left to replay.
fn hint_bits_after_the_fork(full_page_writes: &str) -> (u64, u64) {
    let sandbox = Sandbox::new();
    let (mut old, new) = sandbox.pair();
    old.stop();
    old.set("full_page_writes", full_page_writes);
    old.start();
    old.sql("CREATE TABLE entry AS SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 400) n");
    old.sql("CREATE INDEX ON entry (n)");
    old.sql("DELETE FROM entry WHERE n % 3 = 0");
    old.sql("VACUUM entry");
    old.sql("CHECKPOINT");
    let mut open = old.session();
    open.batch_execute(&format!(
        "BEGIN; INSERT INTO entry SELECT -n, repeat('y', 500) FROM generate_series(1, {ROWS}) n;
         UPDATE entry SET n = n + 1000 WHERE n % 9 = 1"
    ))
    .expect("a transaction that stays open");
    let mut failover = Failover { old, new };
    failover.fail_over();
    open.batch_execute("COMMIT").expect("commit on the old primary");
    drop(open);
    let Failover { mut old, new } = failover;
    // Pages without an image may be torn by reading them, until the source makes a checkpoint.
    new.sql("CHECKPOINT");
    let negative = "SELECT count(*) FROM entry WHERE n < 0";
    // Reading the rows is what sets their hint bits.
    assert_eq!((old.value::<i64>(negative), new.value::<i64>(negative)), (ROWS, 0));
    old.stop();

    let planned = |argument: &str| {
        let run = from_common(&old, &new).args(["-n", "--format=json", argument]);
        let run = run.run_leaving_target_alone();
        assert_eq!(run.code, 0, "{run}");
        let files = run.json()["files"].clone();
        let number = |name: &str| files[name].as_u64().expect("a number");
        (number("changed_blocks"), number("left_to_replay"))
    };
    let (all, _) = planned("--copy-all-changed");
    let (some, left) = planned("--no-sync");
    assert_eq!(planned("--copy-all-changed").1, 0);
    assert!(some < all || left == 0, "{left} blocks left to replay, and {some} of {all} copied");
    from_common(&old, &new).run().expect_done();
    assert_follows(&mut old, &new);
    assert_eq!(old.value::<i64>(negative), 0, "rows of a transaction that never was");
    assert_sound(&mut old);
    (all, some)
}

#[test]
fn hint_bits_on_pages_with_an_image_are_overwritten_by_replay() {
    let (all, copied) = hint_bits_after_the_fork("on");
    assert!(copied + 10 < all, "{copied} of {all} changed blocks copied");
}

/// Without full-page writes the first record that names a page proves nothing.
#[test]
fn hint_bits_on_pages_without_an_image_are_overwritten_by_copying() {
    hint_bits_after_the_fork("off");
}

/// What the target's WAL proves, found as the program finds it.
fn proven(old: &Server, new: &Server, fork: Lsn) -> (ControlFile, PageMap) {
    let target = old.control_file();
    let geometry = target.geometry();
    let history = TimelineHistory::of_first(TimelineId(1));
    let wal = WalDir::new(old.data.join("pg_wal"), history, geometry.segment_size);
    let checkpoint = target.checkpoint_lsn();
    let request = ScanRequest::new(geometry, fork, checkpoint, checkpoint)
        .with_end(EndOfWal::Crashed)
        .with_rebuilt(RebuiltBlocks::Prove { replay_limit: new.control_file().checkpoint().redo });
    let found = scan(&wal, &request, &|_| {}).expect("scan").diverged.expect("WAL beyond the fork");
    (target, found.rebuilt)
}

/// Overwrites a block with noise, if it is in a file.
fn overwrite(server: &Server, control: &ControlFile, relation: Relation, block: BlockNumber) -> bool {
    let per_file = control.relation_segment_blocks();
    let file = RelSegment { relation, segment: block.0 / per_file };
    let path = server.data.join(file.path(control.version()));
    let Ok(file) = File::options().write(true).open(&path) else { return false };
    let offset = u64::from(block.0 % per_file) * 8192;
    if offset + 8192 > file.metadata().expect("metadata").len() {
        return false;
    }
    let mut state = offset ^ 0x9E37_79B9_7F4A_7C15;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(8192)
    .collect();
    file.write_all_at(&noise, offset).expect("overwrite a block");
    true
}

/// Overwrites blocks, and returns how many are in files.
fn overwrite_all(server: &Server, control: &ControlFile, blocks: &PageMap) -> u32 {
    let mut overwritten = 0;
    for (relation, blocks) in blocks.relations() {
        for block in blocks {
            overwritten += u32::from(overwrite(server, control, relation, BlockNumber(block)));
        }
    }
    overwritten
}

#[test]
fn replay_makes_blocks_full_of_noise_anew() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::new(
        &sandbox,
        |old| {
            (index_types::INDEX_TYPES.shared)(old);
            old.sql("CREATE SEQUENCE numbers; CREATE TABLE gone AS SELECT n FROM generate_series(1, 5000) n");
            old.sql("CHECKPOINT");
            (index_types::INDEX_TYPES.lost)(old);
            old.sql("CREATE TABLE made AS SELECT n FROM generate_series(1, 5000) n");
            old.sql("SELECT nextval('numbers'); DELETE FROM gone WHERE n > 1000");
            old.sql("VACUUM gone");
            old.sql("DROP TABLE IF EXISTS other; CREATE TABLE other AS TABLE made; DROP TABLE other");
        },
        |old| {
            old.sql("UPDATE entry SET name = 'lost' || id WHERE id % 5 = 0; UPDATE made SET n = -n");
            old.sql("INSERT INTO gone SELECT -n FROM generate_series(1, 20000) n");
        },
        |new| {
            new.sql(
                "UPDATE entry SET hashed = 'h5', name = 'n1kept' || id, place = point(1, 1), words = 'w1', at = at + 1
                 WHERE id % 7 = 1; DELETE FROM entry WHERE id % 31 = 0;
                 INSERT INTO made SELECT n FROM generate_series(1, 100) n",
            );
            new.sql("VACUUM entry");
        },
    );
    old.kill();
    let (control, rebuilt) = proven(&old, &new, Lsn(history_switch(&new, 2).0));
    let run = from_common(&old, &new).args(["--format", "json"]).run().expect_done();
    assert_eq!(run.json()["files"]["left_to_replay"].as_u64(), Some(rebuilt.len()), "{run}");
    let overwritten = overwrite_all(&old, &control, &rebuilt);
    assert!(overwritten > 500, "only {overwritten} of {} blocks overwritten", rebuilt.len());
    assert_follows(&mut old, &new);
    (index_types::INDEX_TYPES.check)(&old, &new);
    assert_sound(&mut old);
}

/// What the source's WAL restores from its newest checkpoint on.
fn restored(new: &Server) -> PageMap {
    let control = new.control_file();
    let (geometry, redo) = (control.geometry(), control.checkpoint().redo);
    let history = std::fs::read(new.data.join("pg_wal/00000002.history")).expect("read a history");
    let history = TimelineHistory::parse(TimelineId(2), &history).expect("a good history");
    let wal = WalDir::new(new.data.join("pg_wal"), history, geometry.segment_size);
    let request = ScanRequest::new(geometry, redo, redo, redo).with_end(EndOfWal::Open);
    scan_stretch(&wal, &request, redo, &|_| {}).expect("scan").rebuilt
}

/// If replay starts at the source's newest checkpoint, the same is true of the source's WAL since then.
#[test]
fn replay_from_the_newest_checkpoint_makes_blocks_full_of_noise_anew() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::new(
        &sandbox,
        |old| {
            (index_types::INDEX_TYPES.shared)(old);
            old.sql("CREATE TABLE seldom AS SELECT n, 'shared' AS origin FROM generate_series(1, 20000) n");
            old.sql("CHECKPOINT");
        },
        |old| {
            (index_types::INDEX_TYPES.lost)(old);
            old.sql("UPDATE seldom SET origin = 'lost' WHERE n % 100 = 0");
        },
        |new| {
            new.sql("UPDATE entry SET name = 'kept' || id WHERE id % 3 = 0; UPDATE seldom SET origin = 'kept' WHERE n < 5000")
        },
    );
    old.kill();
    new.sql("CHECKPOINT");
    new.sql("UPDATE entry SET hashed = 'h5', name = 'n1kept' || id, at = at + 1 WHERE id % 7 = 1; DELETE FROM entry WHERE id % 31 = 0");
    let from_newest = || {
        Rewind::of(&old).from(&new, SourceKind::Server).args(["--replay-from", "newest", "--format", "json"])
    };
    let number =
        |run: &crate::harness::Run, name: &str| run.json()["files"][name].as_u64().expect("a number");
    let all = from_newest().args(["-n", "--copy-all-changed"]).run_leaving_target_alone();
    let run = from_newest().run().expect_done();
    let (left, copied) = (number(&run, "left_to_replay"), number(&run, "changed_blocks"));
    assert_eq!(number(&all, "left_to_replay"), 0, "{all}");
    // Some are behind the end of the target's files, and are fetched with what follows it.
    assert!(
        left > 100 && copied + 100 < number(&all, "changed_blocks"),
        "{left} left, {copied} copied\n{all}"
    );
    let restored = restored(&new);
    let overwritten = overwrite_all(&old, &old.control_file(), &restored);
    assert!(overwritten > 100, "only {overwritten} of {} blocks overwritten", restored.len());
    assert_follows(&mut old, &new);
    (index_types::INDEX_TYPES.check)(&old, &new);
    assert_sound(&mut old);
}
