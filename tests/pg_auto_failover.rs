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
    cluster.write_and_cut_off();
    cluster.lose(1);
    cluster.wait_for_state(2, "wait_primary");
    cluster.sql(2, "INSERT INTO t SELECT generate_series(2001, 2100)");

    cluster.start_manager(1);
    cluster.wait_for_state(1, "secondary");
    cluster.assert_returned("pgautofailover_standby_1");

    let log = cluster.log(1);
    assert_eq!(log.matches("bin/pg_rewind --target-pgdata ").count(), 1, "{log}");
    assert!(log.contains("pg_rewind: Done!") && !log.contains("bin/pg_basebackup"), "{log}");
    // What only this program does.
    let kept = std::fs::read_dir(&cluster.kept).expect("list what was kept").count();
    assert!(kept > 0, "nothing kept of what was given up\n{log}");
}
