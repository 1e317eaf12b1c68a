//! `MAX_AVAILABLE_LEVEL`: all servers are down. The node that was the primary starts its own, unless anything speaks against it.
//!
//!     node1 (primary) ──╳                started by its own run, attached to the pool ──▶
//!     node2 (standby) ──╳                                  comes back by its own run ──▶
//!     node3 (standby) ──╳                                  comes back by its own run ──▶

use std::process::Command;

use crate::harness::{AsServerUser, ControlData, PoolCluster, Sandbox, patch_control_file};

/// `minRecoveryPoint` in the control file of PostgreSQL 13 to 16.
const MIN_RECOVERY_POINT: usize = 136;

fn down(sandbox: &Sandbox) -> PoolCluster {
    let cluster = PoolCluster::start(sandbox);
    cluster.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    for standby in [2, 3] {
        cluster.catch_up(standby, 1);
    }
    for node in [2, 3, 1] {
        cluster.kill_node(node);
    }
    // In the place of ssh: all nodes are on this machine, each in a directory of its own.
    let remote = cluster.dir.join("remote.sh");
    let script = "#!/bin/sh\nexec sh -c \"$(printf %s \"$2\" | sed \"s#/node[0-9]/#/node${1##*.}/#g\")\"\n";
    cluster.write_script(&remote, script);
    for node in 1..=3 {
        cluster.set(node, "KB_ALL_IP", "(127.0.0.1 127.0.0.2 127.0.0.3)");
        cluster.set(node, "REMOTE_COMMAND", &format!("\"{} %h %c\"", remote.display()));
        cluster.set(node, "HEALTH_CHECK_RETRY_DELAY", "0");
    }
    cluster
}

/// Runs the flow on a node, which starts nothing and says why.
fn refused(cluster: &PoolCluster, node: usize, code: u8, why: &str) {
    let before = cluster.log(node).len();
    let run = cluster.hook(node, &[]);
    let log = cluster.log(node)[before..].to_owned();
    assert_eq!((run.code, cluster.process(node)), (code.into(), None), "{run}\n{log}");
    assert!(log.contains(why), "{why}: {log}");
}

#[test]
fn the_old_primary_starts_itself() {
    let sandbox = Sandbox::new();
    let cluster = down(&sandbox);
    let before = cluster.log(1).len();
    assert_ne!(cluster.hook(1, &[]).code, 0, "it is off");
    assert!(!cluster.log(1)[before..].contains("looking at all nodes"), "{}", cluster.log(1));
    assert_eq!(cluster.process(1), None);
    for node in 1..=3 {
        cluster.set(node, "MAX_AVAILABLE_LEVEL", "1");
    }
    what_speaks_against_it(&cluster);
    assert_eq!([1, 2, 3].map(|node| cluster.process(node)), [None; 3]);

    let dry = cluster.hook(1, &["--dry-run"]);
    assert!(dry.code == 0 && dry.stdout.contains("start                  would"), "{dry}");
    assert_eq!(cluster.process(1), None, "{dry}");
    let run = cluster.hook(1, &["--format", "json"]);
    assert_eq!(run.code, 0, "{run}\n{}", cluster.log(1));
    assert!(cluster.process(1).is_some(), "{run}");
    // The pool may need more than one run to see it.
    cluster.wait("the pool to have its primary", || {
        let has_it = cluster.in_pool(1).is_some_and(|(status, role)| status != "down" && role == "primary");
        has_it || {
            cluster.hook(1, &[]);
            false
        }
    });
    for standby in [2, 3] {
        let run = cluster.hook(standby, &[]);
        assert_eq!(run.code, 0, "{run}\n{}", cluster.log(standby));
    }
    cluster.wait("the standbys to stream", || cluster.streaming(1) == ["node2", "node3"]);
    cluster.catch_up(2, 1);
    cluster.assert_same_content(1, 2);
}

fn what_speaks_against_it(cluster: &PoolCluster) {
    refused(cluster, 2, 1, "this node is a standby: the old primary has to start first");

    let remote = cluster.setting(1, "REMOTE_COMMAND");
    cluster.set(1, "REMOTE_COMMAND", "\"exit 255\"");
    refused(cluster, 1, 66, "could not ask 127.0.0.2 for its state");
    cluster.set(1, "REMOTE_COMMAND", &remote);

    cluster.set(1, "KB_ALL_IP", "(127.0.0.2 127.0.0.3)");
    refused(cluster, 1, 66, "KB_ALL_IP does not contain this node");
    cluster.set(1, "KB_ALL_IP", "(127.0.0.1 127.0.0.2 127.0.0.3)");

    let signal = cluster.data(3).join("standby.signal");
    std::fs::remove_file(&signal).expect("remove standby.signal");
    refused(cluster, 1, 1, "there is more than one primary DB(127.0.0.1, 127.0.0.3), do nothing and exit");
    refused(cluster, 3, 1, "there is more than one primary DB(127.0.0.3, 127.0.0.1), do nothing and exit");
    cluster.write(&signal, "");

    // A server that answers nobody may be a primary to others.
    let mut sleep = Command::new("sleep");
    sleep.arg("60").as_server_user().current_dir(cluster.data(3));
    let mut server = sleep.spawn().expect("run sleep");
    let lock_file = cluster.data(3).join("postmaster.pid");
    cluster.write(&lock_file, &format!("{}\n", server.id()));
    refused(cluster, 1, 1, "the server of 127.0.0.3 is running, do nothing and exit");
    server.kill().and_then(|()| server.wait()).expect("end sleep");
    std::fs::remove_file(&lock_file).expect("remove the lock file");

    // A standby that was promoted, fell, and was made a standby again by hand.
    let promoted = cluster.data(2).join("pg_wal/000000020000000000000001");
    cluster.write(&promoted, "");
    refused(cluster, 1, 1, "127.0.0.2 has timeline 2, and this node has only timeline 1");
    std::fs::remove_file(&promoted).expect("remove the segment");
    // The same, and this node as well, each from another position.
    let history = |node: usize| cluster.data(node).join("pg_wal/00000002.history");
    for node in [1, 2] {
        cluster.write(&cluster.data(node).join("pg_wal/000000020000000000000001"), "");
        cluster.write(&history(node), &format!("1\t0/170000{node}8\tno recovery target specified\n"));
    }
    refused(cluster, 1, 1, "127.0.0.2 has another timeline 2 than this node");
    for node in [1, 2] {
        std::fs::remove_file(history(node)).expect("remove the history");
        let segment = cluster.data(node).join("pg_wal/000000020000000000000001");
        std::fs::remove_file(segment).expect("remove the segment");
    }

    // A standby has WAL that this node has lost.
    let data = cluster.data(2);
    let control = std::fs::read(data.join("global/pg_control")).expect("read pg_control");
    patch_control_file(&data, MIN_RECOVERY_POINT, &0x7000_0000_u64.to_le_bytes());
    let read = ControlData::of(&data);
    assert_eq!(read.get("Minimum recovery ending location"), "0/70000000");
    refused(cluster, 1, 1, "127.0.0.2 has come to 0/70000000, and the WAL of this node ends at 0/");
    std::fs::write(data.join("global/pg_control"), control).expect("write pg_control");
}
