//! Two nodes under a real pg_auto_failover, and its monitor in the place of the third.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::nodes::{Nodes, address};
use super::ports::free_port;
use super::program::server_command;
use super::sandbox::{bindir_with_our_pg_rewind, copy_tree};
use super::server::children_of;
use super::{Installation, Sandbox};

const MONITOR: usize = 3;

/// A failover within seconds: times in milliseconds, and those of a busy machine.
const MONITOR_SETTINGS: &str = "
pgautofailover.health_check_period = 1000
pgautofailover.health_check_timeout = 2000
pgautofailover.health_check_max_retries = 1
pgautofailover.health_check_retry_delay = 500
pgautofailover.node_considered_unhealthy_timeout = 5000
pgautofailover.startup_grace_period = 1000
pgautofailover.primary_demote_timeout = 1000
";

/// The nodes, what manages each, and the monitor. Dropping it stops them all.
pub struct AutoctlCluster {
    nodes: Nodes,
    bindir: PathBuf,
    monitor_port: u16,
    /// Directory for what a rewind gives up.
    pub kept: PathBuf,
    managers: [Option<Child>; 3],
}

impl Deref for AutoctlCluster {
    type Target = Nodes;

    fn deref(&self) -> &Nodes {
        &self.nodes
    }
}

impl AutoctlCluster {
    /// Node 1 is the primary and 2 streams from it.
    pub fn start(sandbox: &Sandbox) -> AutoctlCluster {
        let nodes = Nodes::empty(sandbox);
        let bindir = bindir_with_our_pg_rewind(sandbox, &Installation::usual().bindir);
        let kept = sandbox.path("kept");
        let mut cluster =
            AutoctlCluster { nodes, bindir, monitor_port: free_port(), kept, managers: Default::default() };
        let template = sandbox.server("template");
        for (node, settings) in [(1, ""), (MONITOR, MONITOR_SETTINGS)] {
            copy_tree(&template.data, &cluster.data(node));
            cluster.configure(node, settings);
        }
        let port = cluster.monitor_port.to_string();
        cluster.run_manager(MONITOR, &["create", "monitor", "--hostname", "127.0.0.1", "--pgport", &port]);
        let is_there = |answer: Option<Vec<String>>| answer.is_some_and(|rows| !rows.is_empty());
        cluster
            .wait("the monitor", || is_there(cluster.ask_monitor("SELECT 1 FROM pgautofailover.formation")));
        cluster.create_node(1);
        cluster.wait_for_state(1, "single");
        cluster.create_node(2);
        cluster.wait_for_state(2, "secondary");
        cluster.wait_for_state(1, "primary");
        cluster
    }

    /// Starts what manages a node, which was killed.
    pub fn start_manager(&mut self, node: usize) {
        self.run_manager(node, &["run"]);
    }

    /// Waits until a node has told the monitor that it is in a state, and is to stay there.
    pub fn wait_for_state(&self, node: usize, state: &str) {
        let query = format!(
            "SELECT 1 FROM pgautofailover.node WHERE nodename = 'node{node}' AND (reportedstate, goalstate) = ('{state}', '{state}')"
        );
        self.wait(&format!("node {node} to be {state}"), || {
            self.ask_monitor(&query).is_some_and(|rows| rows == ["1"])
        });
    }

    /// `kill -9` of a node: its manager, then its server.
    pub fn lose(&mut self, node: usize) {
        self.kill_manager(node);
        self.kill_node(node);
    }

    /// What manages a node has said this.
    pub fn log(&self, node: usize) -> String {
        self.read_log(node, "server.log")
    }

    fn create_node(&mut self, node: usize) {
        let (name, address, port) = (format!("node{node}"), address(node), self.port.to_string());
        let monitor = format!("postgres://autoctl_node@127.0.0.1:{}/pg_auto_failover", self.monitor_port);
        let mut arguments = vec!["create", "postgres", "--name", &name, "--hostname", &address];
        let sockets = self.home(node).display().to_string();
        arguments.extend(["--listen", &address, "--pgport", &port, "--pghost", &sockets]);
        arguments.extend(["--username", "postgres", "--dbname", "postgres", "--monitor", &monitor]);
        self.run_manager(node, &arguments);
    }

    /// Runs `pg_autoctl` on a node, for good.
    fn run_manager(&mut self, node: usize, arguments: &[&str]) {
        let home = self.home(node);
        let mut autoctl = server_command(Path::new("/usr/bin/pg_autoctl"));
        autoctl.args(arguments).arg("--pgdata").arg(self.data(node));
        if arguments[0] == "create" {
            autoctl.args(["--no-ssl", "--skip-pg-hba", "--run", "--pgctl"]);
            autoctl.arg(self.bindir.join("pg_ctl"));
        }
        // A rewind brings the other node's configuration: so the place of the sockets is told to pg_autoctl.
        autoctl.env("PGUSER", "postgres").env("PG_REGRESS_SOCK_DIR", &home);
        autoctl.env("KBRECOVER_OPTIONS", format!("--keep-diverged {}", self.kept.display()));
        for (name, part) in [("CONFIG_HOME", "db/etc"), ("DATA_HOME", "db"), ("RUNTIME_DIR", "run")] {
            autoctl.env(format!("XDG_{name}"), home.join(part));
        }
        self.managers[node - 1] = Some(self.spawn_manager(node, &mut autoctl));
    }

    fn ask_monitor(&self, query: &str) -> Option<Vec<String>> {
        self.ask(("127.0.0.1", self.monitor_port), "pg_auto_failover", query)
    }

    /// Its processes, but not the server that one of them has started.
    fn kill_manager(&mut self, node: usize) {
        if let Some(mut manager) = self.managers[node - 1].take() {
            let services = children_of(manager.id());
            let _ = manager.kill();
            for service in services {
                let _ = Command::new("kill").args(["-9", &service.to_string()]).output();
            }
            let _ = manager.wait();
        }
    }
}

impl Drop for AutoctlCluster {
    fn drop(&mut self) {
        for node in [1, 2, MONITOR] {
            self.kill_manager(node);
        }
    }
}
