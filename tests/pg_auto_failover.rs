//! pg_auto_failover rewinds with this program under the name `pg_rewind`, and knows nothing of it.
//!
//!     node1    ── shared ──┬── lost ──╳ (kill -9)     pg_autoctl again: recovers, calls pg_rewind, starts ┄┄▶ streams
//!     node2                └── promoted ── kept ───────────────────────────────────────────────────────────▶
//!     monitor  sees node 1 die, promotes node 2, and has node 1 follow

use crate::harness::{AutoctlCluster, Sandbox};

#[test]
fn an_old_primary_is_rewound() {
    let sandbox = Sandbox::new();
    let mut cluster = AutoctlCluster::start(&sandbox);
    cluster.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    cluster.sql(1, "CREATE DATABASE another");
    cluster.catch_up(2, 1);
    cluster.cut_off_standbys(1);
    cluster.sql(1, "SET synchronous_commit = local; INSERT INTO t SELECT generate_series(5001, 6000)");
    cluster
        .sql(1, "SET synchronous_commit = local; CREATE TABLE lost AS SELECT generate_series(1, 5000) AS n");
    cluster.lose(1);
    cluster.wait_for_state(2, "wait_primary");
    cluster.sql(2, "INSERT INTO t SELECT generate_series(2001, 2100)");

    cluster.start_manager(1);
    cluster.wait_for_state(1, "secondary");
    cluster.wait("the old primary to stream", || cluster.streaming(2) == ["pgautofailover_standby_1"]);
    cluster.catch_up(1, 2);
    cluster.assert_same_content(1, 2);
    assert_eq!(cluster.column(1, "SELECT count(*) FROM t"), ["1100"]);
    assert_eq!(cluster.column(1, "SELECT pg_is_in_recovery()"), ["t"]);

    let log = cluster.log(1);
    assert_eq!(log.matches("bin/pg_rewind --target-pgdata ").count(), 1, "{log}");
    assert!(log.contains("pg_rewind: Done!") && !log.contains("bin/pg_basebackup"), "{log}");
    // What only this program does.
    let kept = std::fs::read_dir(&cluster.kept).expect("list what was kept").count();
    assert!(kept > 0, "nothing kept of what was given up\n{log}");
}
