//! repmgr rejoins an old primary with this program under the name `pg_rewind`, and knows nothing of it.
//!
//!     node1  ── shared ──┬── lost ──╳ (kill -9)    repmgr node rejoin --force-rewind ┄┄▶ streams
//!     node2              └── repmgr standby promote ── kept ───────────────────────────▶
//!     node3              └── follows node 2 only afterwards

use crate::harness::{RepmgrCluster, Sandbox};

#[test]
fn an_old_primary_is_rejoined_with_force_rewind() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start_calling_pg_rewind(&sandbox);
    // This repmgr uses no slots, and leaves the setting alone that a rewind brings from node 2.
    for standby in [2, 3] {
        cluster.sql(standby, "ALTER SYSTEM RESET primary_slot_name");
    }
    cluster.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    for standby in [2, 3] {
        cluster.catch_up(standby, 1);
    }
    cluster.cut_off_standbys(1);
    cluster.sql(1, "INSERT INTO t SELECT generate_series(5001, 6000)");
    cluster.sql(1, "CREATE TABLE lost AS SELECT generate_series(1, 5000) AS n");
    cluster.kill_node(1);
    cluster.repmgr(2, &["standby", "promote"]);
    cluster.sql(2, "INSERT INTO t SELECT generate_series(2001, 2100)");

    let primary = format!("host=127.0.0.2 port={} user=postgres dbname=repmgr", cluster.port);
    // The configuration becomes the source's, as with the original: repmgr brings the node's own back.
    let kept = cluster.home(1).join("run").display().to_string();
    let rejoin = [
        "node",
        "rejoin",
        "-d",
        &primary,
        "--force-rewind",
        "--config-files=postgresql.conf,pg_hba.conf",
        "--config-archive-dir",
        &kept,
        "--log-level",
        "DEBUG",
    ];
    let said = cluster.repmgr(1, &rejoin);
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    cluster.catch_up(1, 2);
    cluster.assert_same_content(1, 2);
    assert_eq!(cluster.column(1, "SELECT count(*) FROM t"), ["1100"]);
    assert_eq!(cluster.column(1, "SHOW listen_addresses"), ["127.0.0.1"]);
    assert!(said.contains("bin/pg_rewind -D ") && said.contains("NODE REJOIN successful"), "{said}");
}
