//! The daemon of V8R6 as a process.
//!
//!     node1 (primary) ──> node2 (standby)
//!                     └─> node3 (standby)

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{RepmgrCluster, Sandbox, binary, children_of};
use crate::hook_v8r6::fail_over;
use crate::hook_v8r6_faults::{HELD, set_virtual_address};

/// The daemons of some nodes. Dropping them ends them.
struct Daemons(Vec<Child>);

impl Daemons {
    fn start(cluster: &RepmgrCluster, nodes: &[usize]) -> Daemons {
        let program = binary().to_str().expect("a UTF-8 path");
        let start = |node: &usize| {
            let mut command = cluster.hook_command(*node, &["daemon", "--program", program]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("run kbrecover hook v8r6 daemon")
        };
        Daemons(nodes.iter().map(start).collect())
    }

    /// Sends a signal to one of them.
    fn signal(&self, place: usize, name: &str) {
        let process = self.0[place].id().to_string();
        assert!(Command::new("kill").args(["-s", name, &process]).status().expect("run kill").success());
    }

    /// Ends one of them by a signal; how long that took.
    fn end(&mut self, place: usize, name: &str) -> Duration {
        self.signal(place, name);
        let begin = Instant::now();
        let status = self.0[place].wait().expect("wait for the daemon");
        assert_eq!(status.code(), Some(0), "{status}");
        begin.elapsed()
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for daemon in &mut self.0 {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Both stories by daemons on all nodes, which nobody calls: a standby that is killed is started, and an old primary
/// rejoined. There is one daemon for each node; it hears signals, at any moment.
#[test]
fn daemons_look_after_the_cluster() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.set_recovery("automatic");
    assert!(cluster.hook(1, &["status"]).stdout.starts_with("daemon of this node: not running\n"));
    let mut daemons = Daemons::start(&cluster, &[1, 2, 3]);
    cluster.wait("the daemons", || (1..=3).all(|node| cluster.log(node).contains("recovery daemon started")));
    let status = cluster.hook(1, &["status"]);
    let expected = format!("daemon of this node: running (process {})\n", daemons.0[0].id());
    assert!(status.stdout.starts_with(&expected), "{status}");
    let status = cluster.hook(1, &["status", "--format", "json"]).json();
    assert_eq!(
        (&status["daemon"]["running"], status["nodes"].as_array().map(Vec::len)),
        (&true.into(), Some(3))
    );
    let second = cluster.look(1);
    assert_eq!((second.code, cluster.log(1).matches("daemon started").count()), (0, 1), "{second}");

    cluster.kill_node(3);
    cluster.wait("the primary to see it", || cluster.streaming(1) == ["node2"]);
    cluster.wait("the standby to stream", || cluster.streaming(1) == ["node2", "node3"]);
    fail_over(&cluster);
    cluster.wait("the old primary to stream", || cluster.streaming(2).contains(&"node1".to_owned()));
    cluster.wait("the daemon to say so", || cluster.log(2).contains("kbha: node (ID: 1) rejoin success."));
    cluster.catch_up(1, 2);
    cluster.assert_same_rows(1, 2);

    // The log is moved away, as by logrotate, and the configuration changed.
    let log = cluster.home(2).join("log/hamgr.log");
    std::fs::rename(&log, log.with_extension("1")).expect("move the log");
    cluster.set(2, "remote_command", "sleep 4321");
    daemons.signal(1, "HUP");
    cluster.wait("the new log", || cluster.log(2).contains("reloaded its configuration"));
    cluster.set(2, "recovery", "always");
    daemons.signal(1, "HUP");
    cluster
        .wait("the old settings", || cluster.log(2).contains("recovery is not manual, standby or automatic"));

    cluster.set(2, "recovery", "automatic");

    // It waits for a command on another node when it is told to end.
    cluster.kill_node(1);
    let daemon = daemons.0[1].id();
    let command = || children_of(daemon).first().copied();
    cluster.wait("the command", || command().is_some());
    let command = command().expect("the command");
    let took = daemons.end(1, "TERM");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!Path::new(&format!("/proc/{command}")).exists(), "the command still runs");
    assert!(cluster.log(2).ends_with("[NOTICE] recovery daemon stopped\n"), "{}", cluster.log(2));
    daemons.end(0, "INT");
    assert!(cluster.hook(2, &["status"]).stdout.starts_with("daemon of this node: not running\n"));
}

/// What is wrong with one node costs that node only: its record cannot be read, or its start takes for ever. Meanwhile the
/// other standby is started, and the virtual address is left when the server of this node is gone.
#[test]
fn a_node_that_fails_costs_no_other() {
    let sandbox = Sandbox::new();
    let cluster = RepmgrCluster::start(&sandbox);
    cluster.set_recovery("automatic");
    set_virtual_address(&cluster);
    let mut daemons = Daemons::start(&cluster, &[1]);
    cluster.wait("the virtual address", || cluster.addresses(1) == HELD);
    let kill_and_wait_for_it = |node: usize| {
        let before = cluster.process(node);
        cluster.kill_node(node);
        cluster.wait("the standby to be started", || {
            cluster.process(node).is_some_and(|new| Some(new) != before)
        });
    };

    let set_conninfo = |conninfo: &str| {
        let update = format!("UPDATE repmgr.nodes SET conninfo = '{conninfo}' WHERE node_id = 2");
        cluster.execute_in("repmgr", 1, &update);
    };
    let conninfo = cluster.column_in("repmgr", 1, "SELECT conninfo FROM repmgr.nodes WHERE node_id = 2");
    set_conninfo("host=127.0.0.2 hots=a password=secret");
    cluster.kill_node(2);
    kill_and_wait_for_it(3);
    let told =
        "[ERROR] node \"node2\" (ID: 2): its conninfo in repmgr.nodes is not a valid connection string";
    cluster.wait("the daemon to say so", || cluster.log(1).contains(&told[8..]));
    assert!(!cluster.log(1).contains("secret"), "{}", cluster.log(1));
    let status = cluster.hook(1, &["status"]);
    assert!(status.stdout.contains("node2            unreachable  not attached"), "{status}");
    set_conninfo(&conninfo[0]);
    cluster.wait("both to stream", || cluster.streaming(1) == ["node2", "node3"]);

    let mark = cluster.home(2).join("run/mark");
    cluster.set(2, "service_start_command", &format!("echo $$ > {}; exec sleep 300", mark.display()));
    cluster.kill_node(2);
    cluster.wait("the start to be under way", || {
        std::fs::read_to_string(&mark).is_ok_and(|text| text.ends_with('\n'))
    });
    kill_and_wait_for_it(3);
    cluster.kill_node(1);
    cluster.wait("the address to be left", || cluster.addresses(1).is_empty());
    let took = daemons.end(0, "TERM");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let sleep = std::fs::read_to_string(&mark).expect("read the process ID");
    assert!(Command::new("kill").arg(sleep.trim()).status().expect("run kill").success());
}
