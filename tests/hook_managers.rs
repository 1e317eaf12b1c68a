//! The flows called by the cluster managers themselves, without cron and without a daemon.
//!
//!     node1 (primary) ──> node2 (standby)
//!                     └─> node3 (standby)

use crate::harness::{PoolCluster, RepmgrCluster, Sandbox, assert_logged, binary};
use crate::hook_v8r3::fail_over;

/// Called by the pool's own follow_primary_command the flow needs no cron: a standby that is left follows the new primary,
/// and an old primary comes back if that is allowed.
#[test]
fn the_pool_itself_calls_the_flow() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start_following(&sandbox);
    cluster.set(1, "AUTO_PRIMARY_RECOVERY", "1");
    fail_over(&cluster);
    cluster.wait("the others to follow", || cluster.streaming(2) == ["node1", "node3"]);
    for node in 1..=3 {
        cluster.wait_for_pool(node, true);
    }
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
}

/// repmgr's own event calls the flow: an old primary that was stopped in order is attached as it is, without a daemon and
/// without a rewind.
#[test]
fn an_event_of_repmgr_calls_the_flow() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.set_recovery("automatic");
    let (program, conf) = (binary().display(), cluster.conf(2));
    let command = format!("{program} hook v8r6 -f {} daemon --rounds 1 --program {program}", conf.display());
    cluster.set(2, "event_notification_command", &command);
    cluster.set(2, "event_notifications", "standby_promote");
    cluster.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    cluster.stop_node(1);
    cluster.repmgr(2, &["standby", "promote"]);
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    let log = cluster.log(1);
    assert_logged(
        &log,
        &["[INFO] local node 1 can attach to rejoin target node 2", "[NOTICE] NODE REJOIN successful"],
    );
    assert!(!log.contains("executing sys_rewind"), "{log}");
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
}
