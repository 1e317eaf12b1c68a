//! pgpool-II's own sample scripts run with this program under the name `pg_rewind`.
//!
//!     node1  ── shared ──┬── lost ──╳ (kill -9)                started again by hand ── follow_primary.sh ┄┄▶ streams
//!     node2              └── promoted by failover.sh ── kept ───────────────────────────────────────────────▶
//!     node3  ── shared, and more than node2 ──┬── lost: follow_primary.sh, by the pool ┄┄▶ streams
//!
//! The scripts are those of Debian's package, with the settings at their beginning filled in. They rewind nodes that run;
//! one that is down they leave alone. The other sample, recovery_1st_stage, makes a new base backup: it calls no pg_rewind.

use crate::harness::{PoolCluster, Sandbox};

#[test]
fn the_sample_scripts_rewind() {
    let sandbox = Sandbox::new();
    let cluster = PoolCluster::start_with_sample_scripts(&sandbox);
    cluster.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    for standby in [2, 3] {
        cluster.catch_up(standby, 1);
    }
    // Node 2 receives nothing more, node 3 does.
    cluster.cut_off_standby(1, "node2");
    cluster.sql(1, "CREATE TABLE lost AS SELECT generate_series(1, 5000) AS n");
    cluster.catch_up(3, 1);
    cluster.kill_node(1);
    cluster
        .wait("failover.sh to promote node 2", || cluster.column(2, "SELECT pg_is_in_recovery()") == ["f"]);
    cluster.sql(2, "INSERT INTO t SELECT generate_series(2001, 2100)");
    cluster.wait("follow_primary.sh to bring node 3", || cluster.streaming(2) == ["127.0.0.3"]);
    cluster.wait_for_pool(3, true);
    cluster.catch_up(3, 2);
    cluster.assert_same_content(3, 2);
    let said = cluster.pool_log();
    assert!(said.contains("node_id=0 is not running. skipping"), "{said}");
    assert_eq!(said.matches("pg_rewind: Done!").count(), 1, "{said}");

    // What a person does with the old primary: start it, alone as it is, and have it follow.
    cluster.start_node(1);
    let said = cluster.follow_primary(1, 2);
    assert!(said.contains("pg_rewind: servers diverged at WAL location"), "{said}");
    assert!(said.contains("follow primary command is completed successfully"), "{said}");
    assert!(!said.contains("pg_rewind failed"), "{said}");
    cluster.wait("the old primary to stream", || cluster.streaming(2) == ["127.0.0.1", "127.0.0.3"]);
    cluster.wait_for_pool(1, true);
    cluster.catch_up(1, 2);
    cluster.assert_same_content(1, 2);
    assert_eq!(cluster.column(1, "SELECT count(*) FROM t"), ["1100"]);
}
