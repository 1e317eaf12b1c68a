//! What a daemon of V8R6 meets on the other nodes: somebody who is at work there already, and nodes that the metadata know
//! by `hostaddr` alone.
//!
//!     node1 (primary) ──> node2 (standby)
//!                     └─> node3 (standby)

use std::process::{Command, Stdio};

use crate::harness::{RepmgrCluster, Sandbox, assert_logged};
use crate::hook_v8r6::fail_over;

#[test]
fn one_start_at_a_time_and_nodes_known_by_hostaddr() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.set_recovery("automatic");
    for node in 1..=3 {
        let conninfo = format!(
            "hostaddr=127.0.0.{node} port={} user=postgres dbname=repmgr connect_timeout=5",
            cluster.port
        );
        cluster.set(node, "conninfo", &conninfo);
        let update = format!("UPDATE repmgr.nodes SET conninfo = '{conninfo}' WHERE node_id = {node}");
        cluster.execute_in("repmgr", 1, &update);
    }

    // A person starts a standby, which takes its time; the daemon of the primary does not do it beside them.
    cluster.kill_node(2);
    cluster.wait("the primary to see it", || cluster.streaming(1) == ["node3"]);
    let mark = cluster.home(2).join("run/mark");
    cluster.set(2, "service_start_command", &format!("touch {}; exec sleep 600", mark.display()));
    let mut startdb = cluster.hook_command(2, &["startdb"]);
    let mut startdb = startdb.stderr(Stdio::null()).spawn().expect("run kbrecover hook");
    cluster.wait("the start to be under way", || mark.exists());
    assert_eq!(cluster.look(1).code, 0);
    let taken = format!("a start or rejoin of this node is already running (process {})", startdb.id());
    assert_logged(
        &cluster.log(1),
        &[
            "[INFO] node \"node2\" (ID: 2, HOST: 127.0.0.2) auto-recovery: START DATABASE",
            &taken,
            "auto-recovery failed: command on host \"127.0.0.2\" failed",
        ],
    );
    let starts = || cluster.log(2).matches("begin to start server at").count();
    assert_eq!((starts(), cluster.process(2)), (1, None), "{}", cluster.log(2));
    let killed = Command::new("kill").arg(startdb.id().to_string()).status().expect("run kill");
    assert!(killed.success());
    startdb.wait().expect("wait for kbrecover hook");
    cluster.set(2, "service_start_command", "");
    assert_eq!(cluster.look(1).code, 0);
    cluster.wait("the standby to stream", || cluster.streaming(1) == ["node2", "node3"]);
    assert_eq!(starts(), 2, "{}", cluster.log(2));

    fail_over(&cluster);
    assert_eq!(cluster.look(2).code, 0);
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    assert_logged(&cluster.log(2), &["node \"node1\" (ID: 1, HOST: 127.0.0.1) auto-recovery: NODE REJOIN"]);
    let upstream = cluster.column(1, "SHOW primary_conninfo").remove(0);
    let words: Vec<_> = upstream.split_whitespace().filter(|word| word.starts_with("host")).collect();
    assert_eq!(words, ["hostaddr=127.0.0.2"], "{upstream}");
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);
}
