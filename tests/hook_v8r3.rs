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
    // Node 2 has the virtual address from a time when it was the primary.
    for node in 1..=3 {
        let programs = cluster.fake_ip(node);
        cluster.set(node, "KB_VIP", "192.0.2.9/24");
        cluster.set(node, "DEV", "eth0");
        cluster.set(node, "CMD_IP_PATH", &programs.display().to_string());
        cluster.set(node, "CMD_ARPING_PATH", &programs.display().to_string());
    }
    cluster.write(&cluster.home(2).join("net/addresses"), "2: eth0 inet 192.0.2.9/24\n");
    cluster.kill_node(2);
    cluster.wait_for_pool(2, false);
    let process = cluster.process(1);

    let run = cluster.hook(2, &[]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(2));
    assert_eq!(run.stdout, "");
    cluster.wait("the standbys to stream", || cluster.streaming(1) == ["node2", "node3"]);
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
    let addresses = [1, 2, 3].map(|node| cluster.addresses(node));
    assert_eq!(addresses, ["2: eth0 inet 192.0.2.9/24 label eth0:2\n", "", ""]);

    // Copied over although it has not diverged, as the script did it, if that is wanted. It keeps its slots.
    cluster.sql(2, "SELECT pg_create_physical_replication_slot('slot_node1')");
    cluster.set(2, "REWIND_ALWAYS", "1");
    cluster.stop_node(2);
    cluster.wait_for_pool(2, false);
    let before = cluster.log(2).len();
    let run = cluster.hook(2, &[]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(2));
    let log = &cluster.log(2)[before..];
    assert_logged(log, &["source and target cluster are on the same timeline", "Done!", "recovery success"]);
    assert_eq!(cluster.column(2, "SELECT slot_name FROM pg_replication_slots"), ["slot_node1"], "{log}");

    // The primary waits for one of the nodes, if that is wanted.
    cluster.set(2, "SYNC_FLAG", "1");
    let run = cluster.hook(2, &[]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(2));
    let names = || cluster.column(1, "SHOW synchronous_standby_names");
    cluster.wait("the names", || names() == ["1 (\"node1\", \"node2\", \"node3\")"]);
}

/// The primary is lost. It comes back only if that is allowed, and then with the new primary's data.
#[test]
fn an_old_primary_comes_back_if_that_is_allowed() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    fail_over(&cluster);
    // Somebody has changed its configuration since it was installed, with a comment in GBK.
    let conf = cluster.data(1).join("postgresql.conf");
    let mut changed = std::fs::read(&conf).expect("read postgresql.conf");
    changed.extend_from_slice(b"synchronous_standby_names = 'node2'\nwork_mem = '7MB' # \xb6\xcb\n");
    std::fs::write(&conf, changed).expect("change postgresql.conf");

    // Not allowed: it is left as it is, and a running server would be, too.
    let before = Tree::of(&cluster.data(1));
    let run = cluster.hook(1, &[]);
    assert_eq!(run.code, 1, "{run}\n{}", cluster.log(1));
    before.assert_unchanged(&cluster.data(1), &cluster.log(1));
    assert!(cluster.log(1).contains("maybe it's primary, can not do recovery"), "{}", cluster.log(1));

    // The standby that is left follows the new primary.
    let run = cluster.hook(3, &[]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(3));
    cluster.wait("the standbys to stream", || cluster.streaming(2) == ["node3"]);

    // A dry run tells what would be done, and does nothing.
    cluster.set(1, "AUTO_PRIMARY_RECOVERY", "1");
    let run = cluster.hook(1, &["--dry-run"]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.lines().any(|line| line.starts_with("rewind ") && line.contains(" would ")), "{run}");
    // In columns, however long the name of a step is.
    let in_columns = |line: &str| {
        let states = ["ok", "skipped", "would", "          "];
        line.get(22..23) == Some(" ")
            && states.iter().any(|state| line.get(23..).is_some_and(|rest| rest.starts_with(state)))
    };
    assert!(run.stdout.lines().all(in_columns) && run.stdout.contains("synchronous standbys"), "{run}");
    assert!(run.stdout.contains("; transactions lost by it: 1 committed, at "), "{run}");
    assert!(run.stdout.contains(&format!("\n{:33}public.t  +1000 ~0 -0", "")), "{run}");
    assert!(run.stdout.contains("logins                 ok        the control port of the pool"), "{run}");
    assert!(cluster.log(1).trim_end().ends_with("dry run: nothing was done"), "{}", cluster.log(1));
    logins_are_tried(&cluster);
    before.assert_unchanged(&cluster.data(1), &run.to_string());

    programs_are_looked_for(&cluster, &before);

    let run = cluster.hook(1, &["--force", "--format", "json"]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(1));
    let steps = run.json()["steps"].as_array().expect("steps").clone();
    assert!(steps.iter().any(|step| step["name"] == "rewind" && step["state"] == "done"), "{run}");
    cluster.wait("the standbys to stream", || cluster.streaming(2) == ["node1", "node3"]);
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

    // What it has given up is kept beside its data.
    let kept = cluster.kept(1);
    assert_eq!(kept.len(), 1, "{log}");
    let summary = std::fs::read_to_string(kept[0].join("lost/summary.txt")).expect("read the summary");
    assert!(summary.contains("public.t  +1000 ~0 -0"), "{summary}");

    // The new primary's data, and this node's own configuration.
    cluster.sql(2, "INSERT INTO t VALUES (-1)");
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
    assert_eq!(cluster.column(1, "SHOW listen_addresses"), ["127.0.0.1"]);
    let changed = std::fs::read(&conf).expect("read postgresql.conf");
    assert!(
        changed.ends_with(b"\n#synchronous_standby_names = 'node2'\nwork_mem = '7MB' # \xb6\xcb\n"),
        "{}",
        String::from_utf8_lossy(&changed)
    );
    assert_eq!(
        cluster.column(1, "SELECT slot_name FROM pg_replication_slots ORDER BY 1"),
        ["slot_node2", "slot_node3"]
    );
}

/// A dry run tries the logins that only the last steps need.
fn logins_are_tried(cluster: &PoolCluster) {
    let fails = |error: &str| {
        let run = cluster.hook(1, &["--dry-run"]);
        assert!(run.code == 66 && run.stdout.contains("logins                 failed"), "{run}");
        assert!(run.stdout.contains(error), "{error}: {run}");
    };
    let password = cluster.setting(1, "PCP_PASS");
    cluster.set(1, "PCP_PASS", "\"d3Jvbmc=\"");
    fails("\"pcp_node_count\" failed");
    cluster.set(1, "PCP_PASS", &password);
    let template = cluster.home(1).join("db/etc/recovery.done");
    let text = std::fs::read_to_string(&template).expect("read recovery.done");
    cluster.write(&template, &text.replace("user=postgres", "user=nobody_here"));
    fails("role \"nobody_here\" of primary_conninfo in recovery.done cannot replicate");
    cluster.write(&template, &text);
}

/// The programs that a recovery of node 1 needs are looked for before anything is done.
fn programs_are_looked_for(cluster: &PoolCluster, before: &Tree) {
    let programs = cluster.setting(1, "KB_PATH");
    cluster.set(1, "KB_PATH", "/nowhere/bin");
    for arguments in [&["--dry-run"][..], &["--force"]] {
        let run = cluster.hook(1, arguments);
        assert_eq!(run.code, 66, "{run}");
        assert_logged(
            &cluster.log(1),
            &["/nowhere/bin/bin/pg_ctl\" is no program", "KB_PATH is the directory"],
        );
        before.assert_unchanged(&cluster.data(1), &run.to_string());
    }
    cluster.set(1, "KB_PATH", &programs);
}

/// Its WAL is gone, which would tell what to copy: it comes back if its data may be compared with the new primary's.
#[test]
fn an_old_primary_without_wal_comes_back_by_comparing() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start(&sandbox);
    fail_over(&cluster);
    cluster.set(1, "AUTO_PRIMARY_RECOVERY", "1");
    // It may lose nothing.
    cluster.set(1, "MAX_LOST_TRANSACTIONS", "0");
    let run = cluster.hook(1, &[]);
    assert_eq!(run.code, 66, "{run}\n{}", cluster.log(1));
    assert_logged(
        &cluster.log(1),
        &[
            "public.t",
            "would give up 1 committed transactions, more than the 0 that are allowed",
            "raise MAX_LOST_TRANSACTIONS in HAmodule.conf",
        ],
    );
    let run = cluster.hook(1, &["--dry-run"]);
    assert!(run.code == 66 && run.stdout.contains("would give up 1 committed transactions"), "{run}");
    cluster.set(1, "MAX_LOST_TRANSACTIONS", "");
    cluster.set(1, "KEEP_DIVERGED_DIR", "off");
    cluster.remove_wal(1);
    let run = cluster.hook(1, &[]);
    assert_eq!(run.code, 66, "{run}\n{}", cluster.log(1));
    assert_logged(&cluster.log(1), &["could not open file", "--compare-data"]);
    assert_eq!(cluster.process(1), None, "{}", cluster.log(1));

    // After two failures in a row it waits, unless it is told not to.
    cluster.set(1, "REWIND_COMPARE", "1");
    let run = cluster.hook(1, &["--force"]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(1));
    assert_logged(&cluster.log(1), &["the data of both sides is compared instead", "Done!"]);
    cluster.wait("the old primary to stream", || cluster.streaming(2) == ["node1"]);
    cluster.wait_for_pool(1, true);
    cluster.catch_up(1, 2);
    cluster.assert_same_content(1, 2);
    assert!(cluster.kept(1).is_empty());
}

/// Node 1 is killed with data that only it has; the pool makes node 2 the primary.
pub fn fail_over(cluster: &PoolCluster) {
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
