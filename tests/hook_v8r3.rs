//! The recovery flow of V8R3 on three real nodes behind a real pool.
//!
//!     pool ── node1 (primary) ──> node2 (standby)
//!                             └─> node3 (standby)
//!
//! Both stories of KingbaseES's own recovery: a standby's server is down and comes back within one call; the primary is
//! lost, another node takes over, and the old one comes back as a standby if that is allowed.

use crate::harness::{PoolCluster, Sandbox, Tree, assert_logged};

/// The standby is down: one call brings it back into the pool.
#[test]
fn a_standby_that_is_down_comes_back() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    cluster.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    cluster.kill_node(2);
    cluster.wait_for_pool(2, false);
    let process = cluster.process(1);

    let run = cluster.hook(2, &[]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(2));
    assert_eq!(run.stdout, "");
    assert_eq!(cluster.streaming(1), ["node2", "node3"]);
    cluster.wait_for_pool(2, true);
    cluster.catch_up(2, 1);
    assert_eq!(cluster.column(2, "SELECT count(*) FROM t"), ["1000"]);
    let log = cluster.log(2);
    assert_logged(
        &log,
        &[
            "recover beging...",
            "sys_rewind...",
            "no rewind required",
            "start up standby successful!",
            "recovery success",
        ],
    );

    cluster.show("a standby was down: recovery.log of node2", &log);

    // Healthy now: the next minutes change nothing, and neither do the other nodes' runs.
    let standby = cluster.process(2);
    for node in [1, 2, 3] {
        let run = cluster.hook(node, &[]);
        assert_eq!(run.code, 0, "{run}\n{}", cluster.log(node));
    }
    assert_eq!((cluster.process(1), cluster.process(2)), (process, standby));
}

/// The primary is lost. It comes back only if that is allowed, and then with the new primary's data.
#[test]
fn an_old_primary_comes_back_if_that_is_allowed() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    fail_over(&cluster);

    // Not allowed: it is left as it is, and a running server would be, too.
    let before = Tree::of(&cluster.data(1));
    let run = cluster.hook(1, &[]);
    assert_eq!(run.code, 1, "{run}\n{}", cluster.log(1));
    before.assert_unchanged(&cluster.data(1), &cluster.log(1));
    assert!(cluster.log(1).contains("maybe it's primary, can not do recovery"), "{}", cluster.log(1));

    // The standby that is left follows the new primary.
    let run = cluster.hook(3, &[]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(3));
    assert_eq!(cluster.streaming(2), ["node3"]);

    // A dry run tells what would be done, and does nothing.
    cluster.set(1, "AUTO_PRIMARY_RECOVERY", "1");
    let run = cluster.hook(1, &["--dry-run"]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.lines().any(|line| line.starts_with("rewind ") && line.contains(" would ")), "{run}");
    before.assert_unchanged(&cluster.data(1), &run.to_string());

    let run = cluster.hook(1, &["--format", "json"]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(1));
    let steps = run.json()["steps"].as_array().expect("steps").clone();
    assert!(steps.iter().any(|step| step["name"] == "rewind" && step["state"] == "done"), "{run}");
    assert_eq!(cluster.streaming(2), ["node1", "node3"]);
    cluster.wait_for_pool(1, true);
    let log = cluster.log(1);
    assert_logged(
        &log,
        &[
            "sys_rewind...",
            "rewinding from last common checkpoint at",
            "and database state is 'in archive recovery'",
            "Done!",
        ],
    );

    cluster.show("the primary was lost and comes back: recovery.log of node1", &log);

    // The new primary's data, and this node's own configuration.
    cluster.sql(2, "INSERT INTO t VALUES (-1)");
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
    assert_eq!(cluster.column(1, "SHOW listen_addresses"), ["127.0.0.1"]);
    assert_eq!(
        cluster.column(1, "SELECT slot_name FROM pg_replication_slots ORDER BY 1"),
        ["slot_node2", "slot_node3"]
    );
}

/// Node 1 is killed with data that only it has; the pool makes node 2 the primary.
fn fail_over(cluster: &PoolCluster) {
    cluster.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    for standby in [2, 3] {
        cluster.catch_up(standby, 1);
    }
    cluster.cut_off_standbys(1);
    cluster.sql(1, "SET synchronous_commit = local; INSERT INTO t SELECT generate_series(5001, 6000)");
    cluster.kill_node(1);
    cluster.wait_for_failover_to(2);
    cluster.wait("node 2 to be a primary", || cluster.column(2, "SELECT pg_is_in_recovery()") == ["f"]);
    cluster.sql(2, "INSERT INTO t SELECT generate_series(2001, 2100)");
}

/// Reasons to refuse are looked at before anything is stopped, and no password gets into a log.
#[test]
fn what_must_not_go_on_stops_nothing() {
    let sandbox = Sandbox::new();
    let mut cluster = PoolCluster::start(&sandbox);
    // Node 2 runs but does not receive: it must be recovered.
    cluster.sql(2, "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'");
    cluster.sql(2, "SELECT pg_reload_conf()");
    cluster.wait("the standby to be alone", || cluster.streaming(1) == ["node3"]);
    let process = cluster.process(2);
    let refused = |cluster: &PoolCluster, code: i32, words: &str| {
        let run = cluster.hook(2, &[]);
        assert_eq!(run.code, code, "{run}\n{}", cluster.log(2));
        assert!(
            cluster.log(2).contains(words) || run.stderr.contains(words),
            "no {words:?} in\n{}\n{run}",
            cluster.log(2)
        );
        assert_eq!(cluster.process(2), process, "the server was stopped: {words}");
    };

    let template = cluster.home(2).join("db/etc/recovery.done");
    let aside = cluster.home(2).join("db/etc/recovery.aside");
    std::fs::rename(&template, &aside).expect("take the template away");
    refused(&cluster, 66, "recovery.done\" is missing");
    std::fs::rename(&aside, &template).expect("put the template back");

    cluster.set(2, "KB_GATEWAY_IP", "not-a-host.invalid");
    refused(&cluster, 1, "none of the trusted gateways answers");
    cluster.set(2, "KB_GATEWAY_IP", "127.0.0.1");

    cluster.set(2, "MOUNT_POINT_DIR_LIST", "(/nonexistent/mount)");
    cluster.set(2, "USE_CHECK_DISK", "0");
    cluster.set(2, "ALL_NODE_NAME", "");
    refused(&cluster, 66, "does not set ALL_NODE_NAME");
    cluster.set(2, "ALL_NODE_NAME", "(node1 node2 node3)");

    // A role that the servers ask for a password, with a wrong one: c2VjcmV0LXdvcmQ= is "secret-word".
    for node in 1..=3 {
        let hba = std::fs::read_to_string(cluster.data(node).join("pg_hba.conf")).expect("read pg_hba.conf");
        cluster.write(
            &cluster.data(node).join("pg_hba.conf"),
            &format!("host all flow all scram-sha-256\n{hba}"),
        );
    }
    cluster.sql(1, "CREATE ROLE flow SUPERUSER LOGIN PASSWORD 'another-word'");
    cluster.sql(1, "SELECT pg_reload_conf()");
    cluster.set(2, "KB_USER", "flow");
    cluster.set(2, "KB_PASS", "c2VjcmV0LXdvcmQ=");
    refused(&cluster, 66, "ksql execute failed");
    let log = cluster.log(2);
    assert!(!log.contains("secret-word") && !log.contains("c2VjcmV0"), "{log}");
    cluster.set(2, "KB_USER", "postgres");
    cluster.set(2, "KB_PASS", "");

    cluster.stop_pool();
    refused(&cluster, 66, "ksql execute failed");
}

/// The primary knows a standby by another name: it is left alone, and that is said once.
#[test]
fn a_standby_of_another_name_is_left_alone() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    cluster.set(2, "NODE_NAME", "node2_of_old");
    let process = cluster.process(2);
    for _ in 0..3 {
        let run = cluster.hook(2, &[]);
        assert_eq!(run.code, 0, "{run}\n{}", cluster.log(2));
    }
    assert_eq!(cluster.process(2), process);
    assert_eq!(cluster.log(2).matches("has no row for application_name").count(), 1, "{}", cluster.log(2));
}

/// A run that is killed at any moment is simply run again.
#[test]
fn a_killed_run_is_run_again() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    fail_over(&cluster);
    cluster.set(1, "AUTO_PRIMARY_RECOVERY", "1");
    for step in 1..=8u64 {
        let mut run = cluster.hook_command(1, &[]).spawn().expect("run kbrecover hook");
        std::thread::sleep(std::time::Duration::from_millis(step * step * 40));
        let _ = run.kill();
        run.wait().expect("wait for kbrecover hook");
    }
    // By hand, since a run that came to a failure of its own on the way makes cron's wait.
    let run = cluster.hook(1, &["--force"]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(1));
    assert!(
        cluster.log(1).contains("Something interrupted the last recovery. Go on this time"),
        "{}",
        cluster.log(1)
    );
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
    let slots = "SELECT slot_name FROM pg_replication_slots ORDER BY 1";
    assert_eq!(cluster.column(1, slots), ["slot_node2", "slot_node3"]);
}
