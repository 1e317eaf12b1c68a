//! Replay starts at the source's newest checkpoint, C1. What the source changed before it is copied, and no WAL before it is
//! needed.
//!
//!     old  ── C0 ──┬── lost ──╳
//!     new  ┄┄┄┄┄┄┄ └── changes that nothing touches again ── C1 ── a little more ──▶

use std::fs;

use walparse::{Lsn, SegmentNo, SegmentSize};

use crate::harness::{
    Failover, Installation, Proxy, Rewind, Run, Sandbox, Server, SourceKind, Then, assert_follows,
    assert_sound, history_switch, pick,
};
use crate::interrupted::is_marked;
use crate::truth_hints::commit_and_read;

/// The segments of all servers here.
fn size() -> SegmentSize {
    SegmentSize::new(16 << 20).expect("16 MB")
}

fn failover(sandbox: &Sandbox, major: u32, kept: impl Fn(&Server)) -> Failover {
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
    let shared = |old: &Server| {
        old.sql(
            "CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 20000) n;
             CREATE INDEX ON entry (n);
             CREATE TABLE cut AS SELECT n, 'shared' AS origin FROM generate_series(1, 20000) n;
             CREATE TABLE dropped AS SELECT n FROM generate_series(1, 1000) n",
        );
        // So that a whole segment is common.
        old.sql(if major < 10 { "SELECT pg_switch_xlog()" } else { "SELECT pg_switch_wal()" });
        old.sql("CHECKPOINT");
    };
    let lost = |old: &Server| {
        old.sql("UPDATE entry SET origin = 'lost' WHERE n % 5 = 0; DELETE FROM cut WHERE n < 3000");
        old.sql("CREATE TABLE lost AS SELECT n FROM generate_series(1, 5000) n");
    };
    let Failover { mut old, new } = Failover::of(old, new, shared, lost, |new| {
        new.sql("CHECKPOINT");
        kept(new);
        new.sql("CHECKPOINT");
        new.sql("CREATE TABLE a_little_more AS SELECT n FROM generate_series(1, 1000) n");
    });
    old.kill();
    Failover { old, new }
}

fn change(new: &Server) {
    new.sql(
        "UPDATE entry SET origin = 'kept' WHERE n % 7 = 0;
         DELETE FROM entry WHERE n % 11 = 0;
         TRUNCATE cut;
         INSERT INTO cut SELECT n, 'kept' FROM generate_series(1, 500) n;
         DROP TABLE dropped;
         CREATE TABLE made AS SELECT n, 'kept' AS origin FROM generate_series(1, 5000) n;
         CREATE INDEX ON made (n)",
    );
    new.sql("VACUUM entry");
    // The file's number is in pg_filenode.map only.
    new.sql("VACUUM FULL pg_class");
}

/// More WAL than is worth replaying.
fn write_much(new: &Server) {
    new.sql(
        "CREATE TABLE much AS SELECT n, repeat(md5(n::text), 20) AS filler FROM generate_series(1, 120000) n",
    );
    new.sql("DELETE FROM much");
    new.sql("VACUUM much");
}

/// The segments of timeline 2 that a node has.
fn segments(server: &Server) -> Vec<SegmentNo> {
    let wal_dir = server.data.join(if server.installation.major < 10 { "pg_xlog" } else { "pg_wal" });
    let names = fs::read_dir(wal_dir).expect("list WAL").map(|entry| entry.expect("an entry").file_name());
    let parsed = names.filter_map(|name| size().parse_file_name(name.to_str()?));
    let mut found: Vec<SegmentNo> =
        parsed.filter(|(timeline, _)| timeline.0 == 2).map(|(_, segment)| segment).collect();
    found.sort_unstable();
    found
}

/// A rewind through a proxy.
fn through(proxy: &Proxy, target: &Server, from: &str) -> Rewind {
    let rewind = Rewind::of(target).args(["--replay-from", from]);
    rewind.arg("--source-server").arg(proxy.conninfo())
}

/// A whole rewind, and how many bytes the source has sent for it.
fn measured(target: &Server, new: &Server, from: &str) -> (Run, u64) {
    let proxy = Proxy::to(new, u64::MAX, Then::Cut);
    (through(&proxy, target, from).run(), proxy.passed())
}

/// A rewind that needs so many bytes is cut in the middle of copying.
fn cut_in_the_middle(target: &Server, new: &Server, from: &str, bytes: u64) {
    let proxy = Proxy::to(new, bytes * 19 / 20, Then::Cut);
    let run = through(&proxy, target, from).args(["--retry-timeout", "0"]).run();
    assert!(run.code == 2 && is_marked(target), "the scenario needs a run that is cut in the middle\n{run}");
}

/// The source has no WAL of timeline 2 before its newest checkpoint any more.
fn recycle_wal(new: &Server) {
    let redo = new.newest_redo();
    for segment in segments(new).into_iter().filter(|segment| *segment < size().segment_of(redo)) {
        let name = size().file_name(walparse::TimelineId(2), segment);
        fs::remove_file(new.data.join("pg_wal").join(name)).expect("remove a segment, as if recycled");
    }
}

fn starts_at_newest(run: &Run, target: &Server, redo: Lsn) {
    assert!(run.stderr.contains("redo of the source's newest checkpoint"), "{run}");
    let label = fs::read_to_string(target.data.join("backup_label")).expect("read the label");
    assert!(label.starts_with(&format!("START WAL LOCATION: {redo} ")), "{redo}: {label}");
    let first = segments(target).first().copied();
    assert_eq!(first, Some(size().segment_of(redo)), "WAL before {redo} is of no use\n{run}");
}

/// By itself, because replay would take longer than copying.
#[test]
fn much_wal_is_not_replayed() {
    for major in pick("replay start: version", &[10, 13, 15, 17, 18]) {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = failover(&sandbox, major, |new| {
            change(new);
            write_much(new);
        });
        let redo = new.newest_redo();
        let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--replay-from", "auto"]);
        let run = rewind.run().expect_done();
        starts_at_newest(&run, &old, redo);
        assert_follows(&mut old, &new);
        assert_sound(&mut old);
    }
}

/// Little WAL is replayed from the last common checkpoint, unless that is asked for.
#[test]
fn little_wal_is_replayed() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = failover(&sandbox, 15, change);
    let rewind = |name: &str, from: &str| {
        let target = old.copy(name);
        let rewind = Rewind::of(&target).from(&new, SourceKind::Server).args(["--replay-from", from]);
        (rewind.run().expect_done(), target)
    };
    let (auto, mut target) = rewind("auto", "auto");
    auto.expect_said("redo of the last common checkpoint");
    assert_follows(&mut target, &new);
    let redo = new.newest_redo();
    let (asked, mut target) = rewind("asked", "newest");
    starts_at_newest(&asked, &target, redo);
    assert_follows(&mut target, &new);
    assert_sound(&mut target);
}

/// Rows of a transaction that is open at the fork. After the fork the old primary commits it and marks the rows so, and of that
/// no WAL tells: their page was already in WAL since the last common checkpoint. Replay of the source's WAL from its newest
/// checkpoint does not go through that record.
#[test]
fn marked_as_committed_on_a_page_that_only_common_wal_names() {
    for major in pick("replay start: version with marked rows", &[10, 13, 15, 16]) {
        let sandbox = Sandbox::new();
        let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
        old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 20) n");
        old.sql("CHECKPOINT");
        let mut open = old.session();
        open.batch_execute("BEGIN; INSERT INTO entry SELECT n, 'lost' FROM generate_series(21, 40) n")
            .expect("insert rows");
        // So that the source's WAL is not read where it has that record.
        old.sql("SELECT pg_switch_wal()");
        old.sql("CREATE TABLE another (n int)");
        let mut failover = Failover { old, new };
        failover.fail_over();
        let Failover { mut old, new } = failover;
        commit_and_read(&mut old, open);
        old.stop();
        new.sql("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) n");
        new.sql("CHECKPOINT");
        let redo = new.newest_redo();
        let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--replay-from", "newest"]);
        starts_at_newest(&rewind.run().expect_done(), &old, redo);
        assert_follows(&mut old, &new);
        assert_eq!(old.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"), 0, "on {major}");
        assert_sound(&mut old);
    }
}

/// A run that is interrupted, and a source that has recycled the WAL before that checkpoint meanwhile.
#[test]
fn resumed_where_the_first_run_was_to_start_replay() {
    for major in pick("replay start: resumed", &[15, 18]) {
        resumed(major);
    }
}

fn resumed(major: u32) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, major, |new| {
        change(new);
        new.sql("SELECT pg_switch_wal()");
        new.sql("INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 1000) n");
        new.sql("SELECT pg_switch_wal()");
    });
    let (run, bytes) = measured(&old.copy("measured"), &new, "newest");
    run.expect_done();
    cut_in_the_middle(&old, &new, "newest", bytes);

    recycle_wal(&new);
    let run = Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    run.expect_said("resuming the rewind");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// Interrupted twice. The second run starts replay at a later checkpoint than the first one and notes so: of the WAL between
/// the two, nothing is left for the third.
#[test]
fn resumed_twice_with_a_later_checkpoint() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, 15, change);
    for name in ["first", "second"] {
        new.sql("UPDATE entry SET origin = origin || '+' WHERE n % 13 = 0; SELECT pg_switch_wal()");
        new.sql(
            "INSERT INTO entry SELECT n, 'later' FROM generate_series(1, 1000) n; SELECT pg_switch_wal()",
        );
        new.sql("CHECKPOINT");
        let (run, bytes) = measured(&old.copy(name), &new, "newest");
        run.expect_rewound();
        cut_in_the_middle(&old, &new, "newest", bytes);
    }
    recycle_wal(&new);
    Rewind::of(&old).args(["--replay-from", "newest"]).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// The source of the second run is a standby of the first one's. Its last restartpoint is older than the checkpoint at which
/// the first run was to start replay, and so are its files.
#[test]
fn resumed_from_a_standby_with_an_older_restartpoint() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox, 15, change);
    new.stop();
    let mut standby = new.copy("standby");
    new.start();
    standby.follow(&new);
    standby.start();
    new.sql("UPDATE entry SET origin = 'later' WHERE n % 2 = 0");
    new.sql("CHECKPOINT");
    new.sql("UPDATE cut SET origin = 'later'");
    standby.catch_up(&new);
    assert!(standby.newest_redo() < new.newest_redo(), "the scenario needs an older restartpoint");
    let (run, bytes) = measured(&old.copy("measured"), &new, "newest");
    run.expect_done();
    cut_in_the_middle(&old, &new, "newest", bytes);
    Rewind::of(&old).args(["--replay-from", "newest"]).from(&standby, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// A segment that a killed run had begun to copy is not taken for the target's own.
#[test]
fn resumed_with_a_segment_that_was_copied_in_part() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox, 15, change);
    let fork = Lsn(history_switch(&new, 2).0);
    assert!(size().segment_of(fork).0 > 1, "the scenario needs a segment before that of the fork");
    let name = size().file_name(walparse::TimelineId(1), SegmentNo(size().segment_of(fork).0 - 1));
    let segment = old.data.join("pg_wal").join(name);
    let (run, bytes) = measured(&old.copy("measured"), &new, "common");
    run.expect_done();
    fs::remove_file(&segment).expect("remove a segment, as if recycled");
    cut_in_the_middle(&old, &new, "common", bytes);
    fs::write(&segment, vec![0; 16 << 20]).expect("write half a segment");
    Rewind::of(&old).args(["--replay-from", "common"]).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
}

/// The summarizer of a rewound node waits for no WAL that will never come.
#[test]
fn wal_summaries_go_on() {
    for major in pick("replay start: version with summaries", &[17, 18]) {
        let sandbox = Sandbox::new();
        let old = sandbox.initdb("old", Installation::of(major), &[]);
        old.configure("summarize_wal = on");
        let (old, new) = sandbox.pair_of(old);
        // So that a whole segment is common.
        old.sql("SELECT pg_switch_wal()");
        old.sql("CREATE TABLE entry AS SELECT n FROM generate_series(1, 1000) n");
        old.sql("CHECKPOINT");
        let mut failover = Failover { old, new };
        failover.fail_over();
        let Failover { mut old, new } = failover;
        old.sql("INSERT INTO entry VALUES (-1)");
        for _ in 0..2 {
            new.sql("INSERT INTO entry SELECT n FROM generate_series(1, 1000) n");
            new.sql("SELECT pg_switch_wal()");
        }
        new.sql("CHECKPOINT");
        old.stop();
        let redo = new.newest_redo();
        let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--replay-from", "newest"]);
        starts_at_newest(&rewind.run().expect_done(), &old, redo);
        assert_follows(&mut old, &new);
        new.sql("INSERT INTO entry VALUES (1); SELECT pg_switch_wal()");
        new.sql("CHECKPOINT");
        old.catch_up(&new);
        old.sql("CHECKPOINT");
        let has_gone_on = format!("SELECT summarized_lsn > '{redo}' FROM pg_get_wal_summarizer_state()");
        old.wait_for("the summarizer", &has_gone_on);
    }
}
