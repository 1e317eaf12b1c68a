//! `--compare-data`, interrupted while it copies: what was equal is not compared again, if it surely still is.
//!
//!     old    ── shared ──┬── lost ──╳        compared with new, and killed while it copies
//!     new    ┄┄┄┄┄┄┄┄┄┄┄ └── C1 ── E ──▶     compared from C1 on until E; rewound again from new
//!     third  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ └──▶   or from one that has all of that, or not

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::compare_cut;
use crate::compare_data::{failover, remove_wal, rewind};
use crate::harness::{
    Change, Failover, Lsn, Rewind, Run, Sandbox, Segment, Server, SourceKind, assert_follows, assert_sound,
    recorded, segments,
};
use crate::interrupted::is_marked;
use crate::truth_full_pages::set_full_page_writes;

/// The place of the mark among the changes of a run.
pub fn mark(changes: &[Change]) -> usize {
    changes.iter().position(|change| change.to == Path::new("backup_label")).expect("a mark")
}

/// Compares, and is killed when a part of what is copied has been: half of it, a tenth.
fn killed(target: &Server, source: &Server, part: usize) {
    let measured = target.copy("measured");
    let one_thread = |target: &Server| rewind(target, source).args(["--jobs", "1"]);
    let (run, changes) = recorded(one_thread(&measured), &measured);
    run.expect_compared();
    let (begin, end) = (mark(&changes), changes.len());
    let writes =
        (begin..end).filter(|at| changes[*at].kind == "write" && changes[*at].path.starts_with("base"));
    let writes: Vec<usize> = writes.collect();
    let fault = format!("{}:kill", writes[writes.len() / part]);
    let killed = one_thread(target).env("KBRECOVER_FAULT", fault).run_unless_killed();
    assert!(killed.is_none() && is_marked(target), "not killed while it copied");
}

/// The run again; the node must have the source's content.
fn again(rewind: Rewind, target: &mut Server, source: &Server) -> Run {
    let run = rewind.args(["--format", "json"]).run();
    assert_eq!(run.code, 0, "{run}");
    assert_follows(target, source);
    assert_sound(target);
    run
}

fn has_compared(run: &Run) -> bool {
    let json = run.json();
    let stages = json["stages"].as_array().expect("stages");
    let has_stage = stages.iter().any(|stage| stage["name"] == "compare");
    assert_eq!(has_stage, !json["compared"].is_null(), "{run}");
    has_stage
}

/// The same source, which goes on and makes checkpoints; with the option and without; from the old start and a later one.
#[test]
fn what_was_equal_is_not_compared_again() {
    for (option, replay_from) in [("--compare-data", "common"), ("--compare-data=off", "newest")] {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = failover(&sandbox);
        old.kill();
        remove_wal(&old);
        killed(&old, &new, 2);
        new.sql("CHECKPOINT");
        new.sql(
            "CREATE TABLE meanwhile AS SELECT n FROM generate_series(1, 3000) n;
             CREATE TABLE sizes_of AS SELECT relname, relpages FROM pg_class;
             UPDATE after SET n = -n WHERE n % 3 = 0",
        );
        new.sql("CHECKPOINT");
        new.sql("DELETE FROM meanwhile WHERE n % 2 = 0");
        let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
        let run = again(rewind.arg(option).args(["--replay-from", replay_from]), &mut old, &new);
        assert!(!has_compared(&run), "{run}");
        run.expect_said("resuming the rewind begun at");
    }
}

/// A standby of the source that was promoted meanwhile and has all of it.
#[test]
fn another_source_that_has_it_all() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox);
    new.stop();
    let mut third = new.copy("third");
    new.start();
    third.follow(&new);
    third.start();
    new.sql("UPDATE after SET n = n + 1 WHERE n % 7 = 0");
    new.sql("CHECKPOINT");
    old.kill();
    remove_wal(&old);
    killed(&old, &new, 2);
    third.catch_up(&new);
    third.promote();
    new.sql("UPDATE after SET n = 0");
    third.sql("UPDATE after SET n = -n WHERE n % 5 = 0");
    let run = again(Rewind::of(&old).from(&third, SourceKind::Server), &mut old, &third);
    assert!(!has_compared(&run), "{run}");
}

/// A server that lacks what was equal: the blocks of the target are from a future that it never had. The run was killed while
/// it copied, or while it compared.
#[test]
fn another_source_that_lacks_what_was_equal() {
    lacks_what_was_equal(|target, source| killed(target, source, 2));
    lacks_what_was_equal(|target, source| {
        compare_cut::cut(target, source, &source.value::<String>("SELECT pg_relation_filepath('entry')"));
    });
}

fn lacks_what_was_equal(interrupt: impl Fn(&Server, &Server)) {
    let sandbox = Sandbox::new();
    let (mut a, mut b, mut c) = sandbox.trio();
    // So that pages reach the disk without a checkpoint.
    a.stop();
    a.set("shared_buffers", "128kB");
    a.start();
    a.sql(
        "CREATE TABLE entry (n int, origin text) WITH (fillfactor = 40);
         INSERT INTO entry SELECT n, 'shared' FROM generate_series(1, 40000) n;
         CREATE TABLE much AS SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 10000) n",
    );
    // What is changed next has all its hint bits, and its image in WAL has them, too.
    a.sql("VACUUM (FREEZE) entry");
    a.sql("CHECKPOINT");
    for standby in [&b, &c] {
        standby.catch_up(&a);
    }
    b.stop();
    b.set("primary_conninfo", "host=/nowhere");
    b.start();
    a.sql("UPDATE entry SET origin = 'later'");
    c.catch_up(&a);
    c.stop();
    let much = a.value::<String>("SELECT pg_relation_filepath('much')");
    let blocks = a.value::<i64>("SELECT pg_relation_size('entry') / 8192");
    fs::remove_file(c.data.join(much)).expect("remove a file");

    let run = rewind(&c, &a).args(["--dry-run", "--format", "json"]).run();
    let different = run.json()["compared"]["different_blocks"].as_i64().expect("a number");
    assert!(
        different * 2 < blocks,
        "of {blocks} blocks {different} differ: the scenario needs equal ones\n{run}"
    );
    interrupt(&c, &a);
    a.stop();
    b.promote();
    b.sql("INSERT INTO entry SELECT n, 'kept' FROM generate_series(1, 100) n");
    let run = again(rewind(&c, &b), &mut c, &b);
    assert!(has_compared(&run), "{run}");
    run.expect_said("the data is compared again");
}

/// Replay could not start where it was to start.
#[test]
fn the_source_has_recycled_the_wal() {
    has_recycled_the_wal(|target, source| killed(target, source, 2));
    has_recycled_the_wal(|target, source| compare_cut::cut(target, source, "base/1/1247"));
}

fn has_recycled_the_wal(interrupt: impl Fn(&Server, &Server)) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.kill();
    remove_wal(&old);
    interrupt(&old, &new);
    for _ in 0..2 {
        new.sql("UPDATE after SET n = n + 1");
        new.sql("SELECT pg_switch_wal()");
    }
    new.sql("CHECKPOINT");
    let newest = Segment::at(2, Lsn(new.newest_redo().0)).number;
    // What the killed run has copied is gone as well.
    for server in [&new, &old] {
        for segment in segments(&server.data).into_iter().filter(|segment| segment.number < newest) {
            fs::remove_file(server.data.join(format!("pg_wal/{segment}"))).expect("remove a segment");
        }
    }
    let run = again(rewind(&old, &new), &mut old, &new);
    assert!(has_compared(&run), "{run}");
    run.expect_said("the data is compared again");
}

/// A page that was torn when it was compared is repaired only if the first change since the old start has an image: the
/// old start does not serve, a later one does.
#[test]
fn full_page_writes_were_off() {
    for (replay_from, compares) in [("common", true), ("newest", false)] {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = failover(&sandbox);
        old.kill();
        remove_wal(&old);
        killed(&old, &new, 2);
        set_full_page_writes(&new, "off");
        new.sql("UPDATE after SET n = -n WHERE n % 3 = 0");
        set_full_page_writes(&new, "on");
        new.sql("CHECKPOINT");
        let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--replay-from", replay_from]);
        let run = again(rewind, &mut old, &new);
        assert_eq!(has_compared(&run), compares, "{run}");
    }
}

/// Blocks that only the target had are not left when the source's file grows by pages that no record names.
#[test]
fn blocks_that_only_the_target_had() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = Failover::new(
        &sandbox,
        |old| old.sql("CREATE TABLE grown AS SELECT n, 'shared' AS origin FROM generate_series(1, 100) n"),
        |old| {
            old.sql("INSERT INTO grown SELECT n, 'lost' FROM generate_series(1, 50000) n");
            // So that the rows' hint bits say that they are committed.
            old.sql("CREATE TABLE counted AS SELECT count(*) FROM grown");
        },
        |new| new.sql("CREATE TABLE more AS SELECT n FROM generate_series(1, 50000) n"),
    );
    new.sql("CHECKPOINT");
    old.stop();
    killed(&old, &new, 10);
    let grown = new.value::<String>("SELECT pg_relation_filepath('grown')");
    new.stop();
    // As a server that was extending the file leaves it in a crash.
    let mut file = fs::File::options().append(true).open(new.data.join(&grown)).expect("open a file");
    file.write_all(&[0; 100 * 8192]).expect("extend a file");
    new.start();
    let size = |server: &Server| fs::metadata(server.data.join(&grown)).expect("a file").len();
    assert!(size(&old) > size(&new), "the scenario needs a file that has not been cut");
    let run = again(Rewind::of(&old).from(&new, SourceKind::Server), &mut old, &new);
    assert!(!has_compared(&run), "{run}");
}

/// What is equal may be so in memory only. The journal tells the next run that it need not be copied.
#[test]
fn what_is_equal_is_durable_before_the_journal() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    old.stop();
    let (run, changes) = recorded(rewind(&old, &new).synced(), &old);
    run.expect_compared();
    let journal = changes.iter().position(|change| change.to == Path::new("kbrecover.journal"));
    let synced = changes.iter().position(|change| change.kind == "syncfs");
    assert!(synced.expect("a sync of the file system") < journal.expect("a journal"));
}
