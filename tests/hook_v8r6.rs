//! The recovery flow of V8R6 on three real nodes under repmgr, over real ssh.
//!
//!     node1 (primary) ──> node2 (standby)
//!                     └─> node3 (standby)
//!
//! The daemon looks after the others from whichever node is the primary. Both stories of KingbaseES's own recovery: a standby
//! that is down is started, and an old primary is rejoined.

use crate::harness::{RepmgrCluster, Sandbox, Tree, assert_logged};

/// Node 1 is killed with data that only it has; node 2 is promoted.
pub fn fail_over(cluster: &RepmgrCluster) {
    cluster.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    for standby in [2, 3] {
        cluster.catch_up(standby, 1);
    }
    cluster.cut_off_standbys(1);
    cluster.sql(1, "INSERT INTO t SELECT generate_series(5001, 6000)");
    cluster.kill_node(1);
    cluster.repmgr(2, &["standby", "promote"]);
    cluster.sql(2, "INSERT INTO t SELECT generate_series(2001, 2100)");
}

/// A standby is down: with `manual` it is left to a person, with `standby` it is started.
#[test]
fn a_standby_that_is_down_is_started() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.set_recovery("manual");
    let ask = |question: &str, name: &str| {
        let run = cluster.hook(2, &[question, "--format", "json"]);
        (run.code, run.json()[name].as_bool())
    };
    assert_eq!(ask("is-running", "is_running"), (0, Some(true)));
    assert_eq!(ask("startdb", "is_running"), (0, Some(true)));
    cluster.kill_node(2);
    assert_eq!(ask("is-running", "is_running"), (3, Some(false)));
    assert_eq!(ask("is-standby", "is_standby"), (0, Some(true)));
    cluster.wait("the primary to see it", || cluster.streaming(1) == ["node3"]);
    assert_eq!(cluster.look(1).code, 0);
    assert!(cluster.log(1).contains("manual recovery is required"), "{}", cluster.log(1));
    assert_eq!(cluster.process(2), None);
    // A standby looks after nobody.
    assert_eq!(cluster.look(3).code, 0);
    assert!(!cluster.log(3).contains("attached: no"), "{}", cluster.log(3));

    // What the removal of a slot has left that was interrupted: no server would start with it.
    cluster.make_dir(&cluster.data(2).join("pg_replslot/half_removed"));
    cluster.set_recovery("standby");
    assert_eq!(cluster.look(1).code, 0);
    cluster.wait("the standby to stream", || cluster.streaming(1) == ["node2", "node3"]);
    let log = cluster.log(1);
    assert_logged(
        &log,
        &[
            "[DEBUG] child node: 2; attached: no",
            "Now, the primary host ip: 127.0.0.1",
            "[INFO] node \"node2\" (ID: 2, HOST: 127.0.0.2) auto-recovery: START DATABASE",
            "node \"node2\" (ID: 2) auto-recovery success",
        ],
    );
    assert!(cluster.log(2).contains("[NOTICE] begin to start server at "), "{}", cluster.log(2));

    cluster.show("a standby was down: hamgr.log of node1, the primary", &log);
    cluster.show("hamgr.log of node2", &cluster.log(2));

    let status = cluster.hook(1, &["status"]);
    assert!(
        status
            .stdout
            .lines()
            .skip(1)
            .all(|line| line.contains("primary") || line.ends_with("standby      attached")),
        "{status}"
    );

    cluster.set_recovery("automatic");
    cluster.kill_node(3);
    cluster.wait("the primary to see it", || cluster.streaming(1) == ["node2"]);
    assert_eq!(cluster.look(1).code, 0);
    cluster.wait("the standby to stream", || cluster.streaming(1) == ["node2", "node3"]);
    assert!(!cluster.log(1).contains("NODE REJOIN"), "{}", cluster.log(1));
}

/// The primary is lost and another node promoted: it is rejoined if the configuration says `automatic`, or by hand.
#[test]
fn an_old_primary_is_rejoined() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    fail_over(&cluster);

    // `manual` and `standby` leave an old primary to a person.
    let before = Tree::of(&cluster.data(1));
    cluster.set_recovery("manual");
    assert_eq!(cluster.look(2).code, 0);
    assert!(
        cluster.log(2).contains("node \"node1\" (ID: 1) is not attached; recovery='manual'"),
        "{}",
        cluster.log(2)
    );
    cluster.set_recovery("standby");
    assert_eq!(cluster.look(2).code, 0);
    assert!(cluster.log(2).contains("is not a standby, and recovery='standby'"), "{}", cluster.log(2));
    before.assert_unchanged(&cluster.data(1), &cluster.log(2));

    // Its server tells nothing; its files do.
    let status = cluster.hook(1, &["status"]);
    assert_eq!(status.code, 1, "{status}");
    assert_logged(
        &status.stdout,
        &["daemon of this node: not running", "this node: 1 (node1)", "not shut down cleanly", "timeline "],
    );
    assert!(status.stderr.contains("Connection refused"), "{status}");
    let status = cluster.hook(1, &["status", "--format", "json"]);
    assert_eq!(status.json()["node"]["directory"]["timeline"], 1, "{status}");

    // By hand, without leave to rewind: refused, and nothing is changed.
    let run = cluster.hook(1, &["rejoin", "-h", "127.0.0.2"]);
    assert_eq!(run.code, 1, "{run}");
    assert!(run.stderr.contains("[ERROR] this node cannot attach to rejoin target node"), "{run}");
    assert!(run.stderr.contains("[HINT] use --force-rewind"), "{run}");
    let refused = |node: usize, arguments: &[&str], words: &str| {
        let run = cluster.hook(node, arguments);
        assert_eq!(run.code, 1, "{run}");
        assert!(run.stderr.contains(words), "no {words:?} in {run}");
    };
    refused(1, &["rejoin", "-h", "127.0.0.3", "--force-rewind"], "is not a primary");
    refused(3, &["rejoin", "-h", "127.0.0.2", "--force-rewind"], "database is still running (process");
    cluster.set(1, "node_id", "9");
    refused(1, &["rejoin", "-h", "127.0.0.2"], "no metadata record for this node - terminating");
    cluster.set(1, "node_id", "1");
    cluster.set(1, "recovery_max_lost_transactions", "0");
    refused(1, &["rejoin", "-h", "127.0.0.2", "--force-rewind"], "more than the 0 that are allowed");
    cluster.set(1, "recovery_max_lost_transactions", "");
    let run = cluster.hook(1, &["rejoin", "-h", "127.0.0.2", "--force-rewind", "--dry-run"]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.lines().any(|line| line.starts_with("rewind ") && line.contains(" would ")), "{run}");
    before.assert_unchanged(&cluster.data(1), &run.to_string());
    assert!(cluster.kept(1).is_empty(), "{run}");

    cluster.set_recovery("automatic");
    assert_eq!(cluster.look(2).code, 0);
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    let log = cluster.log(2);
    assert!(log.contains("(ID: 1, HOST: 127.0.0.1) auto-recovery: NODE REJOIN"), "{log}");
    assert!(log.contains("[NOTICE] kbha: node (ID: 1) rejoin success."), "{log}");
    let log = cluster.log(1);
    assert_logged(
        &log,
        &["Done!", "[NOTICE] NODE REJOIN successful", "[DETAIL] node 1 is now attached to node 2"],
    );
    // What it has given up is kept beside its data.
    let kept = cluster.kept(1);
    assert_eq!(kept.len(), 1, "{log}");
    let summary = std::fs::read_to_string(kept[0].join("lost/summary.txt")).expect("read the summary");
    assert!(summary.contains("public.t  +1000 ~0 -0"), "{summary}");
    cluster.show("the primary was lost and comes back: hamgr.log of node2, the new primary", &cluster.log(2));
    cluster.show("hamgr.log of node1", &log);
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
    assert_eq!(cluster.column(1, "SHOW listen_addresses"), ["127.0.0.1"]);
    let registered = "SELECT type || upstream_node_id FROM repmgr.nodes WHERE node_id = 1";
    cluster.wait("the metadata", || cluster.column_in("repmgr", 2, registered) == ["standby2"]);
}

/// Its WAL is gone, which would tell what to copy: it is rejoined if its data may be compared with the new primary's.
#[test]
fn an_old_primary_without_wal_is_rejoined_by_comparing() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.set_recovery("automatic");
    fail_over(&cluster);
    cluster.remove_wal(1);
    assert_eq!(cluster.look(2).code, 0);
    assert_logged(&cluster.log(1), &["could not open file", "--compare-data"]);
    assert_eq!(cluster.process(1), None, "{}", cluster.log(1));

    // Nothing can be kept there: that is no reason not to come back.
    std::fs::write(cluster.data(1).with_extension("diverged"), "in the way").expect("write a file");
    cluster.set(1, "rewind_compare", "on");
    assert_eq!(cluster.look(2).code, 0);
    let is_attached = || cluster.streaming(2).contains(&"node1".to_owned());
    cluster.wait("the old primary to stream", is_attached);
    assert_logged(
        &cluster.log(1),
        &["the data of both sides is compared instead", "discarded data is not saved", "Done!"],
    );
    cluster.catch_up(1, 2);
    cluster.assert_same_content(1, 2);
}
