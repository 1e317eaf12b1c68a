//! A transaction with more subtransactions than a server remembers is open on the source, across its newest checkpoint. A
//! standby that starts replay there streams, but admits no session until the transaction has ended.
//!
//!     old  ── C0 ──┬── lost ──╳
//!     new  ┄┄┄┄┄┄┄ └── BEGIN; 100 savepoints ──── much ──── C1 ──── COMMIT ──── C2 ──▶

use postgres::Client;

use crate::harness::{
    Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, assert_same_content, pick,
    run_kbrecover,
};

/// The open transaction is in the session.
fn failover(sandbox: &Sandbox, major: u32) -> (Failover, Client) {
    let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
    old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 20000) n");
    old.sql("CREATE TABLE sub (n int)");
    old.sql("CHECKPOINT");
    let mut failover = Failover { old, new };
    failover.fail_over();
    let Failover { mut old, new } = failover;
    old.sql("UPDATE entry SET origin = 'lost' WHERE n % 5 = 0");
    old.stop();
    // So that the first record of running transactions after the fork knows them all.
    new.sql("CHECKPOINT");
    let mut session = new.session();
    let savepoints = (1..=100).map(|n| format!("SAVEPOINT s{n}; INSERT INTO sub VALUES ({n});"));
    session.batch_execute(&format!("BEGIN; {}", savepoints.collect::<String>())).expect("100 savepoints");
    new.sql(
        "CREATE TABLE much AS SELECT n, repeat(md5(n::text), 20) AS filler FROM generate_series(1, 120000) n",
    );
    new.sql("DELETE FROM much");
    new.sql("CHECKPOINT");
    (Failover { old, new }, session)
}

fn rewind(target: &Server, source: &Server, from: &str) -> Run {
    let rewind = Rewind::of(target).from(source, SourceKind::Server);
    rewind.args(["--replay-from", from, "--format", "json"]).run().expect_done()
}

fn wait_until_it_streams(node: &Server) -> serde_json::Value {
    let directory = node.data.to_str().expect("UTF-8");
    let run = run_kbrecover(["status", "-D", directory, "--wait", "60", "--format", "json"]);
    assert_eq!(run.code, 0, "{run}\n{}", node.log_tail());
    run.json()["wait"].clone()
}

const WARNING: &str = "transactions with more than 64 subtransactions are open on the source";

/// From there on the node streams, and admits sessions only later.
#[test]
fn at_the_newest_checkpoint_sessions_have_to_wait() {
    for major in pick("open subtransactions: version", &[10, 13, 15, 18, 19]) {
        let sandbox = Sandbox::new();
        let (Failover { mut old, new }, mut session) = failover(&sandbox, major);
        let run = rewind(&old, &new, "newest").expect_said(WARNING);
        let run = run.expect_said("with --replay-from common it would admit them");
        old.follow(&new);
        let logged_before = old.spawn();
        let wait = wait_until_it_streams(&old);
        assert_eq!((&wait["result"], &wait["positions_from"]), (&"streams".into(), &"process_titles".into()));
        let log = std::fs::read_to_string(old.log()).expect("read the log");
        assert!(
            !log[logged_before..].contains("FATAL:  the database system"),
            "a login was tried in vain: {log}"
        );
        assert!(!old.admits_sessions(), "the scenario needs a node that admits no session");
        session.batch_execute("COMMIT").expect("commit");
        new.sql("CHECKPOINT");
        let begin = std::time::Instant::now();
        while !old.admits_sessions() {
            assert!(begin.elapsed().as_secs() < 60, "{}", old.log_tail());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(wait_until_it_streams(&old)["positions_from"], "session");
        old.catch_up(&new);
        assert_same_content(&old, &new);
        assert_eq!(replay_start(&run)["admits_sessions"], false, "{run}");
    }
}

fn replay_start(run: &Run) -> serde_json::Value {
    run.json()["replay_start"].clone()
}

/// By itself replay starts where sessions are admitted at once, although that takes longer.
#[test]
fn the_common_checkpoint_is_taken() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, _session) = failover(&sandbox, 15);
    let run = rewind(&old, &new, "auto");
    assert!(!run.stderr.contains(WARNING), "{run}");
    let start = replay_start(&run);
    assert_eq!((&start["is_newest"], &start["admits_sessions"]), (&false.into(), &true.into()), "{run}");
    old.follow(&new);
    old.start();
    old.catch_up(&new);
}

/// Once the transaction has ended and the source has logged what runs, there is nothing to wait for.
#[test]
fn a_transaction_that_has_ended_does_not_matter() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, mut session) = failover(&sandbox, 18);
    session.batch_execute("COMMIT").expect("commit");
    // The server does this every 15 seconds.
    new.sql("SELECT pg_log_standby_snapshot()");
    // That record does not wait for the disk, and a commit does.
    new.sql("CREATE TABLE flushed ()");
    let run = rewind(&old, &new, "auto");
    assert!(!run.stderr.contains(WARNING), "{run}");
    assert_eq!(replay_start(&run)["is_newest"], true, "{run}");
    old.follow(&new);
    old.start();
    old.catch_up(&new);
}
