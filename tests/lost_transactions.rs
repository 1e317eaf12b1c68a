//! How many transactions a rewind gives up: counted in the target's WAL, against what its server says of them.
//!
//!     old  ── BEGIN ──┬── lost ── COMMIT ── PREPARE ── ROLLBACK ── BEGIN ──╳
//!     new  ┄┄┄┄┄┄┄┄┄┄ └── kept ──▶

use crate::compare_resumed::mark;
use crate::harness::{Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, pick, recorded};
use crate::interrupted::is_marked;

/// What the server has assigned so far.
fn next_xid(server: &Server) -> i64 {
    server.value("SELECT txid_current()")
}

fn now(server: &Server) -> String {
    server.value(r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#)
}

fn lost(run: &Run) -> serde_json::Value {
    assert_eq!(run.code, 0, "{run}");
    run.json()["lost"].clone()
}

fn plan(target: &Server, source: &Server) -> Run {
    Rewind::of(target).from(source, SourceKind::Server).args(["--dry-run", "--format", "json"]).run()
}

/// A pair whose old primary commits, prepares and rolls back after the fork, and is killed. Returns how many transactions have
/// committed there, and when that began and ended.
fn failover(sandbox: &Sandbox, major: u32) -> (Failover, i64, [String; 2]) {
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
    old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 1000) n");
    old.sql("BEGIN; INSERT INTO entry VALUES (0, 'early'); PREPARE TRANSACTION 'early'");
    let mut early = old.session();
    early.batch_execute("BEGIN; INSERT INTO entry VALUES (1, 'early')").expect("begin a transaction");
    let mut failover = Failover { old, new };
    failover.fail_over();
    let Failover { mut old, new } = failover;
    let begun = now(&old);
    let first = next_xid(&old);
    early.batch_execute("COMMIT").expect("commit");
    old.sql("COMMIT PREPARED 'early'");
    for n in 0..30 {
        old.sql(&format!("UPDATE entry SET origin = 'lost' WHERE n % 30 = {n}"));
    }
    old.sql("BEGIN; INSERT INTO entry VALUES (2, 'lost'); SAVEPOINT s; INSERT INTO entry VALUES (3, 'lost'); COMMIT");
    old.sql("BEGIN; DELETE FROM entry; ROLLBACK");
    old.sql("CREATE TABLE more AS SELECT repeat('x', 500) FROM generate_series(1, 40000)");
    for name in ["open", "given up"] {
        old.sql(&format!("BEGIN; INSERT INTO entry VALUES (4, 'lost'); PREPARE TRANSACTION '{name}'"));
    }
    old.sql("ROLLBACK PREPARED 'given up'");
    let mut open = old.session();
    open.batch_execute("BEGIN; INSERT INTO entry VALUES (5, 'lost')").expect("begin a transaction");
    let committed: i64 = old.value(&format!(
        "SELECT count(*) FROM generate_series({first}, {}) xid WHERE txid_status(xid) = 'committed'",
        next_xid(&old)
    ));
    // The server waits for this commit to be on disk, with all before it.
    old.sql("INSERT INTO entry VALUES (6, 'lost')");
    let ended = now(&old);
    old.kill();
    // The two that began before and the last one, but not the subtransaction.
    (Failover { old, new }, committed + 3 - 1, [begun, ended])
}

#[test]
fn those_that_committed_after_the_fork() {
    for major in pick("lost transactions: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let (Failover { old, new }, committed, [begun, ended]) = failover(&sandbox, major);
        let run = plan(&old, &new);
        let found = lost(&run);
        assert!(committed > 34, "the scenario needs more than {committed}");
        assert_eq!(found["committed"].as_i64(), Some(committed), "{run}");
        assert_eq!(found["undecided"], serde_json::json!(["open"]), "{run}");
        let time = |name: &str| found[name].as_str().expect("a time").to_owned();
        let (first, last) = (time("first"), time("last"));
        assert!(begun <= first && first < last && last <= ended, "{begun} {ended}\n{run}");

        let of_entry = |table: &&serde_json::Value| table["table"] == "public.entry";
        let tables = found["tables"].as_array().unwrap_or_else(|| panic!("no tables\n{run}"));
        let entry = tables.iter().find(of_entry).unwrap_or_else(|| panic!("no table\n{run}"));
        // Two that began before the fork, two of one transaction, the last one. Each row was updated once, the first two among them.
        assert_eq!(
            (&entry["inserted"], &entry["updated"], &entry["deleted"]),
            (&5.into(), &1002.into(), &0.into()),
            "{run}"
        );
        let created = &found["objects"][0];
        assert_eq!((&created["op"], &created["name"]), (&"create".into(), &"public.more".into()), "{run}");

        let text = Rewind::of(&old).from(&new, SourceKind::Server).arg("--dry-run").run();
        let line = format!("lost transactions       {} committed, from ", committed);
        assert!(
            text.stdout.contains(&line) && text.stdout.contains("; prepared and undecided: \"open\""),
            "{text}"
        );

        // The run that finishes an interrupted one says the same.
        let rewind = |target: &Server| Rewind::of(target).from(&new, SourceKind::Server);
        let measured = old.copy("measured");
        let (_, changes) = recorded(rewind(&measured), &measured);
        let fault = format!("{}:kill", mark(&changes) + 5);
        assert!(rewind(&old).env("KBRECOVER_FAULT", fault).run_unless_killed().is_none() && is_marked(&old));
        let run = rewind(&old).args(["--format", "json"]).run();
        for what in ["committed", "first", "last", "undecided"] {
            assert_eq!(lost(&run)[what], found[what], "{run}");
        }
    }
}

/// That there are none is said, and so is that it is not known.
#[test]
fn none_and_not_known() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let Failover { mut old, new } = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE entry AS SELECT n FROM generate_series(1, 1000) n"),
        // Without an ID of its own.
        |old| old.sql("CHECKPOINT"),
        |new| new.sql("DELETE FROM entry"),
    );
    old.stop();
    let rewind = || Rewind::of(&old).from(&new, SourceKind::Server).arg("--dry-run");
    let run = rewind().run();
    assert!(run.stdout.contains("lost transactions       0 committed\n"), "{run}");
    let run = rewind().arg("--compare-data").run();
    assert!(
        run.stdout
            .contains("lost transactions       not known, because this run has not read the target's WAL\n"),
        "{run}"
    );
    assert!(lost(&rewind().args(["--compare-data", "--format", "json"]).run()).is_null());
}
