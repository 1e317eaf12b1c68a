//! What the source has changed is known from the summaries of its WAL (17 and later). That WAL is gone.
//!
//!     old  ── C0 ──┬── lost ──╳
//!     new  ┄┄┄┄┄┄┄ └── changes that nothing touches again ── C1 ──▶
//!                      └─ no WAL, only its summaries ──────┘
//!
//! In every scenario the rewound node is read before the source: see `truth_proof`.

use std::fs::{read, remove_file, rename};

use crate::harness::{
    Failover, Installation, Lsn, Rewind, Run, Sandbox, Segment, Server, SourceKind,
    assert_cured_by_comparing, assert_follows, assert_same_content, assert_sound, next_segment, pick,
    segments,
};
use crate::truth_proof::{assert_rewinds_by, refused};

/// The versions that make summaries.
const VERSIONS: [u32; 3] = [17, 18, 19];

/// The last version that makes none: there the source's WAL, which it still has, must tell the same.
const BY_WAL: u32 = 16;

/// The segments before its newest checkpoint, as if the source had recycled them.
fn old_segments(server: &Server) -> Vec<Segment> {
    let first = Segment::at(1, Lsn(server.newest_redo().0)).number;
    segments(&server.data).into_iter().filter(|segment| segment.number < first).collect()
}

/// A server keeps WAL until it is summarized, and so does this.
fn remove_old_segments(server: &Server) {
    let redo = server.newest_redo();
    let is_summarized = format!("SELECT summarized_lsn >= '{redo}' FROM pg_get_wal_summarizer_state()");
    server.wait_for("the summarizer", &is_summarized);
    let old = old_segments(server);
    assert!(!old.is_empty(), "the scenario needs WAL before the newest checkpoint");
    for segment in old {
        remove_file(server.data.join(format!("pg_wal/{segment}"))).expect("remove a segment");
    }
}

/// The source's last checkpoint, and no WAL before it where there are summaries.
fn finish(new: &Server) {
    next_segment(new);
    next_segment(new);
    new.sql("CHECKPOINT");
    if new.installation.major > BY_WAL {
        remove_old_segments(new);
    }
}

fn pair(sandbox: &Sandbox, major: u32) -> (Server, Server) {
    let old = sandbox.initdb("old", Installation::of(major), &[]);
    old.configure("allow_in_place_tablespaces = on");
    sandbox.pair_of(old)
}

/// A primary and two standbys that have a table with all its rows.
fn trio(sandbox: &Sandbox, major: u32) -> (Server, Server, Server) {
    let mut a = sandbox.initdb("a", Installation::of(major), &[]);
    let (mut b, mut c) = (a.copy("b"), a.copy("c"));
    a.start();
    for standby in [&mut b, &mut c] {
        standby.follow(&a);
        standby.start();
    }
    a.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 20000) n");
    next_segment(&a);
    a.sql("CHECKPOINT");
    for standby in [&b, &c] {
        standby.catch_up(&a);
    }
    (a, b, c)
}

/// Both sides with a table; the old primary is killed, and the new one has no WAL of what `kept` has done.
fn failover(
    sandbox: &Sandbox,
    major: u32,
    shared: impl Fn(&Server),
    lost: impl Fn(&Server),
    kept: impl Fn(&Server),
) -> Failover {
    let (old, new) = pair(sandbox, major);
    let shared = |old: &Server| {
        old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 20000) n");
        shared(old);
        // So that a whole segment is common.
        next_segment(old);
        old.sql("CHECKPOINT");
    };
    let lost = |old: &Server| {
        old.sql("UPDATE entry SET origin = 'lost' WHERE n % 5 = 0");
        lost(old);
    };
    let Failover { mut old, new } = Failover::of(old, new, shared, lost, |new| {
        new.sql("CHECKPOINT");
        new.sql("UPDATE entry SET origin = 'kept' WHERE n % 7 = 0");
        kept(new);
    });
    old.kill();
    Failover { old, new }
}

fn from(old: &Server, new: &Server, replay_from: &str) -> Rewind {
    let rewind = Rewind::of(old).from(new, SourceKind::Server);
    rewind.args(["--format", "json", "--replay-from", replay_from])
}

/// The rewind succeeds by the summaries, if there are any, and the node is the source's equal.
fn assert_rewinds(old: &mut Server, new: &Server) -> Run {
    let run = assert_rewinds_by(from(old, new, "newest"), old, new);
    assert_known_from(&run, if new.installation.major > BY_WAL { "summaries" } else { "wal" });
    run
}

fn assert_known_from(run: &Run, origin: &str) {
    let start = &run.json()["replay_start"];
    assert_eq!(
        (start["is_newest"].as_bool(), start["source_changes"].as_str()),
        (Some(true), Some(origin)),
        "{run}"
    );
}

fn nothing(_: &Server) {}

/// Rows, an index, a new table, a dropped one; and the free space map, which summaries do not have.
#[test]
fn everyday() {
    for major in pick("summaries: version", &VERSIONS) {
        let sandbox = Sandbox::new();
        let shared = |old: &Server| {
            old.sql(
                "CREATE INDEX ON entry (n); CREATE TABLE dropped AS SELECT n FROM generate_series(1, 1000) n",
            );
            old.sql("VACUUM entry");
        };
        let kept = |new: &Server| {
            new.sql(
                "DELETE FROM entry WHERE n % 3 = 0; DROP TABLE dropped;
                 CREATE TABLE made AS SELECT n, 'kept' AS origin FROM generate_series(1, 5000) n;
                 CREATE UNLOGGED TABLE unlogged AS SELECT n FROM generate_series(1, 5000) n",
            );
            new.sql("VACUUM entry");
        };
        let Failover { mut old, new } = failover(&sandbox, major, shared, nothing, |new| {
            kept(new);
            finish(new);
        });
        let space = new.value::<String>("SELECT pg_relation_filepath('entry') || '_fsm'");
        let rewind = from(&old, &new, "newest");
        let run = rewind.run().expect_done();
        assert_known_from(&run, "summaries");
        let map = |server: &Server| read(server.data.join(&space)).expect("read a free space map");
        assert!(map(&old) == map(&new), "the free space map of entry differs");
        assert_follows(&mut old, &new);
        assert_sound(&mut old);
    }
}

fn assert_zero_pages(server: &Server, table: String) {
    let path = server.data.join(table);
    let file = read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let empty = file.chunks(8192).filter(|page| page.iter().all(|byte| *byte == 0)).count();
    assert!(empty > 0, "the scenario needs zero pages");
}

/// What was cut off is added again, and still empty: no record names these pages, and the target has rows there.
fn cut(major: u32, remaining: u32) {
    let sandbox = Sandbox::new();
    let shared = |old: &Server| {
        old.sql("CREATE TABLE cut AS SELECT n, 'shared' AS origin FROM generate_series(1, 60000) n");
        old.sql("VACUUM cut");
    };
    let kept = |new: &Server| {
        new.sql(&format!("DELETE FROM cut WHERE n > {remaining}"));
        new.sql("VACUUM cut");
        new.sql("COPY cut FROM PROGRAM 'seq -f \"%.0f\tkept\" 1 20000'");
        finish(new);
        assert_zero_pages(new, new.value("SELECT pg_relation_filepath('cut')"));
    };
    let Failover { mut old, new } = failover(&sandbox, major, shared, nothing, kept);
    assert_rewinds(&mut old, &new);
}

#[test]
fn truncated_and_extended_again() {
    for major in pick("summaries: truncation", &VERSIONS).into_iter().chain([BY_WAL]) {
        cut(major, 1000);
    }
}

#[test]
fn truncated_to_nothing_and_extended_again() {
    for major in pick("summaries: truncation to nothing", &VERSIONS).into_iter().chain([BY_WAL]) {
        cut(major, 0);
    }
}

/// The pages that are cut off were empty before the last common checkpoint: no record names them. The target's would stay.
fn emptied_before_and_cut(is_summarized: bool) {
    for major in pick("summaries: truncation of empty pages", &VERSIONS) {
        let sandbox = Sandbox::new();
        let shared = |old: &Server| {
            old.sql("CREATE TABLE cut AS SELECT n, 'shared' AS origin FROM generate_series(1, 60000) n");
            old.sql("DELETE FROM cut WHERE n > 1000");
            old.sql("VACUUM (FREEZE, TRUNCATE off) cut");
        };
        let kept = |new: &Server| {
            new.sql("VACUUM (DISABLE_PAGE_SKIPPING) cut");
            new.sql("COPY cut FROM PROGRAM 'seq -f \"%.0f\tkept\" 1 20000'");
            if is_summarized {
                finish(new);
            } else {
                new.sql("ALTER SYSTEM SET summarize_wal = off");
                new.sql("SELECT pg_reload_conf()");
                new.sql("CHECKPOINT");
            }
            assert_zero_pages(new, new.value("SELECT pg_relation_filepath('cut')"));
        };
        let Failover { mut old, new } = failover(&sandbox, major, shared, nothing, kept);
        let path = new.value::<String>("SELECT pg_relation_filepath('cut')");
        let run = from(&old, &new, "newest").run().expect_done();
        assert_known_from(&run, if is_summarized { "summaries" } else { "wal" });
        // No row shows it.
        let [here, there] = [&old, &new].map(|server| read(server.data.join(&path)).expect("read a table"));
        assert_eq!(here.len(), there.len(), "lengths of cut");
        let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
        let pages = here.chunks(8192).zip(there.chunks(8192)).enumerate();
        let stale = pages.filter(|(_, (here, there))| is_zero(there) && !is_zero(here));
        let stale: Vec<usize> = stale.map(|(page, _)| page).collect();
        assert!(stale.is_empty(), "pages of cut that are empty on the source: {stale:?}");
        assert_follows(&mut old, &new);
        assert_sound(&mut old);
    }
}

#[test]
fn emptied_before_and_then_truncated_and_extended_again() {
    emptied_before_and_cut(true);
}

#[test]
fn emptied_before_and_then_truncated_and_extended_again_by_wal() {
    emptied_before_and_cut(false);
}

/// Databases copied, moved there and back, and made anew under the same number: WAL names their directories only.
#[test]
fn databases() {
    for major in pick("summaries: databases", &VERSIONS).into_iter().chain([BY_WAL]) {
        let sandbox = Sandbox::new();
        let shared = |old: &Server| {
            old.sql("CREATE DATABASE pattern");
            old.sql_in(
                "pattern",
                "CREATE TABLE entry AS SELECT n AS id, 'pattern' AS origin FROM generate_series(1, 3000) n",
            );
            for name in ["other", "app", "moved", "gone"] {
                old.sql(&format!("CREATE DATABASE {name} TEMPLATE pattern STRATEGY file_copy"));
            }
            old.sql_in("other", "UPDATE entry SET origin = 'other' WHERE id % 2 = 0");
        };
        let lost = |old: &Server| old.sql_in("app", "UPDATE entry SET origin = 'lost' WHERE id % 7 = 0");
        let kept = |new: &Server| {
            let number = new.value::<u32>("SELECT oid FROM pg_database WHERE datname = 'app'");
            new.sql("DROP DATABASE app");
            new.sql(&format!("CREATE DATABASE app TEMPLATE other STRATEGY file_copy OID = {number}"));
            new.sql("CREATE DATABASE made TEMPLATE pattern STRATEGY file_copy");
            new.sql("DROP DATABASE gone");
            new.sql("CREATE TABLESPACE space LOCATION ''");
            new.sql("ALTER DATABASE moved SET TABLESPACE space");
            new.sql_in("moved", "DELETE FROM entry WHERE id % 3 = 0");
            new.sql("ALTER DATABASE moved SET TABLESPACE pg_default");
            new.sql_in("pattern", "DELETE FROM entry WHERE id % 2 = 0");
            finish(new);
        };
        let Failover { mut old, new } = failover(&sandbox, major, shared, lost, kept);
        assert_rewinds(&mut old, &new);
        for (database, rows) in [("app", 3000), ("moved", 2000), ("pattern", 1500)] {
            let count = new.in_database(database).value::<i64>("SELECT count(*) FROM entry");
            assert_eq!(count, rows, "rows in {database}");
        }
    }
}

/// A database of the same number, written to WAL page by page: its files have the numbers of those that were there, and zero
/// pages at their end.
#[test]
fn database_made_anew_page_by_page() {
    for major in pick("summaries: database made anew", &VERSIONS).into_iter().chain([BY_WAL]) {
        let sandbox = Sandbox::new();
        let shared = |old: &Server| {
            old.sql("CREATE DATABASE pattern");
            old.sql_in("pattern", "CREATE TABLE many (n int, origin text)");
            old.sql("CREATE DATABASE app TEMPLATE pattern");
            old.sql_in("app", "INSERT INTO many SELECT n, 'shared' FROM generate_series(1, 60000) n");
            old.sql_in("app", "VACUUM many");
        };
        let kept = |new: &Server| {
            let number = new.value::<u32>("SELECT oid FROM pg_database WHERE datname = 'app'");
            new.sql("DROP DATABASE app");
            new.sql(&format!("CREATE DATABASE app TEMPLATE pattern STRATEGY wal_log OID = {number}"));
            new.sql_in("app", "COPY many FROM PROGRAM 'seq -f \"%.0f\tkept\" 1 20000'");
            finish(new);
            assert_zero_pages(new, new.in_database("app").value("SELECT pg_relation_filepath('many')"));
        };
        let Failover { mut old, new } = failover(&sandbox, major, shared, nothing, kept);
        assert_rewinds(&mut old, &new);
    }
}

/// The same number for a table of each side; that of the source has zero pages at its end.
#[test]
fn one_number_for_two_tables() {
    for major in pick("summaries: file numbers", &VERSIONS) {
        let sandbox = Sandbox::new();
        let (mut old, new) = pair(&sandbox, major);
        next_segment(&old);
        new.catch_up(&old);
        old.stop();
        old.start();
        let mut failover = Failover { old, new };
        failover.fail_over();
        let Failover { mut old, new } = failover;
        old.sql("CREATE TABLE lost AS SELECT n, 'lost' || repeat('x', 100) AS origin FROM generate_series(1, 30000) n");
        old.sql("SELECT count(*) FROM lost");
        new.sql("CREATE TABLE kept (n int, origin text)");
        new.sql("COPY kept FROM PROGRAM 'seq -f \"%.0f\tkept\" 1 20000'");
        finish(&new);
        let number = |server: &Server, table: &str| {
            server.value::<u32>(&format!("SELECT pg_relation_filenode('{table}')"))
        };
        assert_eq!(
            number(&old, "lost"),
            number(&new, "kept"),
            "the scenario needs one number for two tables"
        );
        old.kill();
        assert_rewinds(&mut old, &new);
    }
}

/// Two failovers since the common checkpoint: summaries of three timelines.
#[test]
fn two_timelines_between_the_checkpoints() {
    for major in pick("summaries: timelines", &VERSIONS) {
        let sandbox = Sandbox::new();
        let mut failover = failover(&sandbox, major, nothing, nothing, |new| {
            new.sql("CREATE TABLE on_2 AS SELECT n FROM generate_series(1, 3000) n");
            next_segment(new);
        });
        let third = failover.promote_another("third");
        failover.new.kill();
        third.sql(
            "UPDATE entry SET origin = 'third' WHERE n % 11 = 0; UPDATE on_2 SET n = -n WHERE n % 2 = 0",
        );
        finish(&third);
        assert_rewinds(&mut failover.old, &third);
    }
}

/// The source is a standby, and its newest checkpoint a restartpoint.
#[test]
fn standby() {
    for major in pick("summaries: standby", &VERSIONS) {
        let sandbox = Sandbox::new();
        let (a, b, mut c) = trio(&sandbox, major);
        c.promote();
        c.sql("UPDATE entry SET origin = 'lost' WHERE n % 3 = 0");
        c.kill();
        a.sql("UPDATE entry SET origin = 'kept' WHERE n % 4 = 0; CREATE TABLE made AS SELECT n FROM generate_series(1, 3000) n");
        next_segment(&a);
        a.sql("CHECKPOINT");
        b.catch_up(&a);
        b.sql("CHECKPOINT");
        remove_old_segments(&b);
        let run = from(&c, &b, "newest").arg("--allow-older-source").run().expect_done();
        assert_known_from(&run, "summaries");
        c.follow(&b);
        c.start();
        a.sql("INSERT INTO entry VALUES (0, 'after the rewind')");
        c.catch_up(&a);
        assert_same_content(&c, &a);
        assert_sound(&mut c);
    }
}

/// By itself where replay from the common checkpoint is not possible, however little WAL it is; that start is refused.
#[test]
fn little_wal_that_is_gone() {
    for major in pick("summaries: auto", &VERSIONS) {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = failover(&sandbox, major, nothing, nothing, finish);
        refused(from(&old, &new, "common"), &["WAL needed for replay"]);
        let run = assert_rewinds_by(from(&old, &new, "auto"), &mut old, &new);
        assert_known_from(&run, "summaries");
    }
}

/// A version without summaries: refused, until the files are given.
#[test]
fn wal_that_is_gone_and_an_archive() {
    for (option, major) in [("--wal-dir", 15), ("--restore-command", 15)] {
        let sandbox = Sandbox::new();
        let Failover { mut old, new } = failover(&sandbox, major, nothing, nothing, |new| {
            next_segment(new);
            next_segment(new);
            new.sql("CHECKPOINT");
        });
        let archive = sandbox.make_dir("archive");
        for segment in old_segments(&new) {
            let name = segment.to_string();
            rename(new.data.join("pg_wal").join(&name), archive.join(&name)).expect("move a segment");
        }
        let words = [
            "WAL needed for replay",
            "another checkpoint does not help",
            "--wal-dir",
            "--restore-command",
            "summarize_wal",
            "base backup",
        ];
        let [_, refusal] = ["newest", "auto"].map(|start| refused(from(&old, &new, start), &words));
        assert_cured_by_comparing(&refusal, &mut old.copy("compared"), &new);
        let value = match option {
            "--wal-dir" => archive.display().to_string(),
            _ => format!("cp {}/%f %p", archive.display()),
        };
        let run = assert_rewinds_by(from(&old, &new, "newest").args([option, &value]), &mut old, &new);
        assert_known_from(&run, "wal");
    }
}

/// The source was rewound itself, with a later start: it never had the WAL between the fork and its own start.
///
///     c  ── 1 ──┬── lost ──╳                                           rewound from a
///     a  ┄┄┄┄┄┄ └── 2 ──┬── lost ──╳   rewound from b ┄┄┄┄┬── 4 ──▶
///     b  ┄┄┄┄┄┄ ┄┄┄┄┄┄┄ └── 3 ── C1 ──────────────────────┴╳
#[test]
fn source_that_was_rewound_itself() {
    for major in pick("summaries: rewound source", &VERSIONS) {
        let sandbox = Sandbox::new();
        let (mut c, mut a, mut b) = trio(&sandbox, major);
        b.stop();
        a.promote();
        b.follow(&a);
        b.start();
        c.sql("UPDATE entry SET origin = 'lost by c' WHERE n % 3 = 0");
        c.kill();
        a.sql("UPDATE entry SET origin = 'kept' WHERE n % 5 = 0");
        b.catch_up(&a);
        b.promote();
        a.sql("UPDATE entry SET origin = 'lost by a' WHERE n % 7 = 0");
        a.kill();
        b.sql("UPDATE entry SET origin = 'kept by b' WHERE n % 11 = 0");
        next_segment(&b);
        next_segment(&b);
        b.sql("CHECKPOINT");
        let run = from(&a, &b, "newest").run().expect_done();
        assert_known_from(&run, "summaries");
        assert_follows(&mut a, &b);
        b.stop();
        a.promote();
        a.sql("UPDATE entry SET origin = 'kept by a' WHERE n % 13 = 0");
        next_segment(&a);
        a.sql("CHECKPOINT");
        assert_rewinds(&mut c, &a);
    }
}

/// Both sides were promoted to a timeline of the same number, and no WAL of the source is left that would show it. Its
/// summaries do, even if both made a checkpoint at the same position after they had changed the same blocks.
///
///     b  ── 1 ──┬── 2 ── C ──╳          the target, which takes all of timeline 2 for common
///     c  ┄┄┄┄┄┄ ├── 2 ── C ─┬╳
///     d  ┄┄┄┄┄┄ ┄┄┄┄┄┄┄┄┄┄┄ └── 3 ── C1 ──▶
fn another_timeline_of_the_same_number(is_alike: bool) {
    for major in pick("summaries: same number", &VERSIONS) {
        let sandbox = Sandbox::new();
        let (mut a, mut b, mut c) = trio(&sandbox, major);
        a.stop();
        for node in [&mut b, &mut c] {
            node.promote();
        }
        b.sql("UPDATE entry SET origin = 'lost' WHERE n % 9 = 0");
        if is_alike {
            c.sql("UPDATE entry SET origin = 'kept' WHERE n % 9 = 0");
            for node in [&b, &c] {
                next_segment(node);
                node.sql("CHECKPOINT");
            }
            assert_eq!(b.newest_redo(), c.newest_redo(), "the scenario needs checkpoints at one position");
        } else {
            b.sql("CHECKPOINT");
        }
        for _ in 0..3 {
            b.sql("UPDATE entry SET origin = 'lost again'");
        }
        b.kill();
        c.sql("UPDATE entry SET origin = 'kept' WHERE n % 2 = 0");
        let mut failover = Failover { old: a, new: c };
        let d = failover.promote_another("d");
        failover.new.kill();
        d.sql("UPDATE entry SET origin = 'third' WHERE n % 11 = 0");
        finish(&d);
        let refusal = refused(from(&b, &d, "newest"), &["WAL needed for replay"]);
        assert_cured_by_comparing(&refusal, &mut b, &d);
    }
}

#[test]
fn another_timeline_2() {
    another_timeline_of_the_same_number(false);
}

#[test]
fn another_timeline_2_with_the_same_checkpoint() {
    another_timeline_of_the_same_number(true);
}

/// Where summaries cannot be relied on, WAL is read; `spoil` runs on the source, before its last checkpoint.
fn by_wal(major: u32, spoil: impl Fn(&mut Server), conninfo: impl Fn(&Server) -> String) {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox, major, nothing, nothing, nothing);
    spoil(&mut new);
    new.sql("CHECKPOINT");
    let rewind = Rewind::of(&old).arg("--source-server").arg(conninfo(&new));
    let run = rewind.args(["--format", "json", "--replay-from", "newest"]).run().expect_done();
    assert_known_from(&run, "wal");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// A resource manager of an extension may do to files what its summaries do not tell.
#[test]
fn extension_with_a_resource_manager() {
    for major in pick("summaries: resource manager", &VERSIONS) {
        let pretend = |new: &mut Server| {
            new.sql("CREATE DATABASE pretended");
            new.sql_in(
                "pretended",
                "ALTER FUNCTION pg_catalog.pg_get_wal_resource_managers() RENAME TO the_true_ones;
                 CREATE FUNCTION pg_catalog.pg_get_wal_resource_managers(
                     OUT rm_id int, OUT rm_name text, OUT rm_builtin boolean)
                 RETURNS SETOF record LANGUAGE sql AS
                 $$ SELECT * FROM pg_catalog.the_true_ones() UNION ALL SELECT 200, 'pretended', false $$",
            );
        };
        by_wal(major, pretend, |new| new.conninfo().replace("dbname=postgres", "dbname=pretended"));
    }
}

#[test]
fn role_that_may_not_read_summaries() {
    for major in pick("summaries: role", &VERSIONS) {
        let revoke = |new: &mut Server| {
            new.sql(&crate::least_privilege::printed_grants(major));
            new.sql("REVOKE EXECUTE ON FUNCTION pg_wal_summary_contents(bigint, pg_lsn, pg_lsn) FROM PUBLIC");
        };
        by_wal(major, revoke, crate::least_privilege::conninfo);
    }
}

/// What was written at `wal_level = minimal` is not summarized.
#[test]
fn wal_level_minimal_for_a_while() {
    for major in pick("summaries: minimal", &VERSIONS) {
        let minimal = |new: &mut Server| {
            for (level, senders) in [("minimal", "0"), ("replica", "8")] {
                new.stop();
                new.set("wal_level", level);
                new.set("max_wal_senders", senders);
                new.set("summarize_wal", if level == "minimal" { "off" } else { "on" });
                new.start();
                new.sql("UPDATE entry SET origin = 'kept ' || n WHERE n % 13 = 0");
            }
        };
        by_wal(major, minimal, Server::conninfo);
    }
}

/// Without checksums, the source's WAL may have to say whether the target logged its hint bits.
#[test]
fn hint_bits_for_which_the_source_must_vouch() {
    for major in pick("summaries: hint bits", &[18, 19]) {
        let sandbox = Sandbox::new();
        let old = sandbox.initdb("old", Installation::of(major), &["--no-data-checksums"]);
        old.configure("wal_log_hints = on");
        let (old, new) = sandbox.pair_of(old);
        old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 20000) n");
        next_segment(&old);
        // So that no hint bit is set later: the image that is logged for one would vouch for all others.
        for _ in 0..2 {
            old.sql("VACUUM");
        }
        old.sql("CHECKPOINT");
        let mut failover = Failover { old, new };
        failover.fail_over();
        let Failover { mut old, new } = failover;
        new.sql("UPDATE entry SET origin = 'kept' WHERE n % 7 = 0");
        next_segment(&new);
        new.sql("CHECKPOINT");
        // A record of the settings, of which nothing tells those before.
        old.stop();
        old.set("max_connections", "21");
        old.start();
        old.sql("UPDATE entry SET origin = 'lost' WHERE n % 5 = 0");
        old.stop();
        old.unset("max_connections");
        let mut without = old.copy("without");
        let run = assert_rewinds_by(from(&old, &new, "newest"), &mut old, &new);
        assert_known_from(&run, "wal");
        remove_old_segments(&new);
        let refusal = refused(from(&without, &new, "newest"), &["WAL needed for replay"]);
        assert_cured_by_comparing(&refusal, &mut without, &new);
    }
}
