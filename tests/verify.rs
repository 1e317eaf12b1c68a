//! `--verify`: before the end of a rewind every block is compared with the source's.
//!
//!     old  ── shared ──┬── lost ──╳     a block is damaged that no WAL names: a rewind leaves it as it is
//!     new  ┄┄┄┄┄┄┄┄┄┄┄ └── kept ──▶     goes on writing: what it changes is in its WAL

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::harness::{
    Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, assert_follows, assert_sound, pick,
};
use crate::truth_full_pages::set_full_page_writes;

/// A table that neither side touches after the fork.
pub fn quiet_table(old: &Server) {
    for name in ["quiet", "busy"] {
        old.sql(&format!(
            "CREATE TABLE {name} AS SELECT n AS id, repeat('x', 300) AS filler FROM generate_series(1, 5000) n"
        ));
    }
    old.sql("VACUUM (FREEZE) quiet");
    old.sql("CREATE SEQUENCE ticket");
    old.sql("SELECT nextval('ticket') FROM generate_series(1, 5)");
    old.sql("CHECKPOINT");
}

/// The file of that table, below the data directory.
pub fn file_of_quiet(server: &Server) -> String {
    server.value("SELECT pg_relation_filepath('quiet')::text")
}

/// Changes bytes of a file of a stopped server.
pub fn damage(server: &Server, file: &str, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(server.data.join(file)).expect("open a relation");
    file.write_all_at(bytes, offset).expect("damage a block");
}

/// Both sides change another table, after which the old primary still runs. Replay starts at a checkpoint that the
/// source makes after its promotion: from an earlier one, replay would write the quiet table anew.
pub fn failover(old: Server, new: Server) -> Failover {
    Failover::of(
        old,
        new,
        quiet_table,
        |old| old.sql("UPDATE busy SET filler = 'lost' WHERE id % 3 = 0"),
        |new| {
            new.sql("CHECKPOINT");
            new.sql("UPDATE busy SET filler = 'kept' WHERE id % 7 = 0");
        },
    )
}

fn verify(target: &Server, source: &Server, kind: SourceKind) -> Rewind {
    Rewind::of(target).from(source, kind).args(["--verify", "--format", "json"])
}

fn count(run: &Run, what: &str) -> u64 {
    run.json()["verified"][what].as_u64().unwrap_or_else(|| panic!("no count of {what}\n{run}"))
}

/// A rewind by WAL leaves a damaged block alone: nothing names it. With the option it is found, copied and told.
#[test]
fn a_damaged_block_is_found_and_copied() {
    for kind in pick("verify: source", &[SourceKind::Server, SourceKind::Directory]) {
        let sandbox = Sandbox::new();
        let (old, new) = sandbox.pair();
        let Failover { mut old, mut new } = failover(old, new);
        let file = file_of_quiet(&old);
        old.stop();
        if kind == SourceKind::Directory {
            new.stop();
        }
        // In the data of the last tuple of block 7, and in the prune xid of block 9.
        damage(&old, &file, 7 * 8192 + 8192 - 100, b"damage");
        damage(&old, &file, 9 * 8192 + 20, &[1]);
        let run = verify(&old, &new, kind).run();
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(count(&run, "different"), 1, "{run}");
        assert!(count(&run, "not_logged") > 0, "{run}");
        let run =
            run.expect_said(&format!("1 block(s) of \"{file}\" differed from the source's and were copied"));
        run.expect_said("the first is block 7");
        if kind == SourceKind::Directory {
            new.start();
        }
        assert_follows(&mut old, &new);
        assert_sound(&mut old);
    }
}

/// Without damage nothing is found, whatever the source writes meanwhile: it is in its WAL.
#[test]
fn what_the_source_writes_meanwhile_is_no_difference() {
    for major in pick("verify: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let old = sandbox.initdb("old", Installation::of(major), &[]);
        let (old, new) = sandbox.pair_of(old);
        let Failover { mut old, new } = failover(old, new);
        old.stop();
        let running = verify(&old, &new, SourceKind::Server).args(["--max-rate", "10M"]).start();
        for turn in 0..8 {
            new.sql(&format!("UPDATE busy SET filler = 'meanwhile' WHERE id % 9 = {turn}"));
            new.sql(if turn % 2 == 0 { "CHECKPOINT" } else { "VACUUM busy" });
            new.sql(&format!("CREATE TABLE new_{turn} AS SELECT n FROM generate_series(1, 1000) n"));
            if turn > 3 {
                new.sql(&format!("DROP TABLE new_{}", turn - 2));
            }
        }
        let run = running.wait();
        assert_eq!(run.code, 0, "{run}");
        assert_eq!(count(&run, "different"), 0, "{run}");
        assert!(count(&run, "replayed") > 0, "the scenario needs blocks that have changed\n{run}");
        assert_follows(&mut old, &new);
        assert_sound(&mut old);
    }
}

/// With full_page_writes off a hint bit is logged without an image: the primary's block has another LSN than the standby's.
#[test]
fn hints_that_were_logged_without_images() {
    for major in pick("verify hints: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
        let Failover { mut old, new } = Failover::of(
            old,
            new,
            hints_without_images,
            |_| (),
            |new| {
                set_full_page_writes(new, "on");
                new.sql("CHECKPOINT");
                new.sql("CREATE TABLE kept AS SELECT n FROM generate_series(1, 10000) n");
            },
        );
        old.sql("CREATE TABLE lost (n int)");
        old.stop();
        let run = verify(&old, &new, SourceKind::Server).run();
        assert_eq!((run.code, count(&run, "different")), (0, 0), "{run}");
        assert!(count(&run, "not_logged") > 100, "{run}");
        assert_follows(&mut old, &new);
        assert_sound(&mut old);
    }
}

/// Hint bits of a table that no standby has.
pub fn hints_without_images(primary: &Server) {
    set_full_page_writes(primary, "off");
    primary
        .sql("CREATE TABLE hinted AS SELECT n, repeat('x', 300) AS filler FROM generate_series(1, 5000) n");
    primary.sql("CHECKPOINT");
    // Not those of the backend that has written them.
    primary.session().batch_execute("SELECT count(*) FROM hinted").expect("read a table");
    primary.sql("CHECKPOINT");
}
