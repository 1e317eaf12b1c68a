//! Three nodes under a real repmgr, which stands in for that of KingbaseES V8R6, with a real sshd for the calls from one
//! node to another.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;

use super::kbrecover::{binary, command, run_command};
use super::nodes::{Nodes, address};
use super::program::{bindir, run, server_program};
use super::sandbox::bindir_with_our_pg_rewind;
use super::sshd::Sshd;
use super::{Installation, Run, Sandbox};

/// The nodes and the sshd between them.
pub struct RepmgrCluster {
    nodes: Nodes,
    sshd: Sshd,
    /// Where repmgr looks for the server's programs.
    bindir: PathBuf,
}

impl Deref for RepmgrCluster {
    type Target = Nodes;

    fn deref(&self) -> &Nodes {
        &self.nodes
    }
}

impl RepmgrCluster {
    /// Node 1 is the primary, 2 and 3 stream from it, and repmgr knows them all.
    pub fn start(sandbox: &Sandbox) -> RepmgrCluster {
        RepmgrCluster::start_with(sandbox, bindir().into())
    }

    /// The same, with this program in the place of `pg_rewind`.
    pub fn start_calling_pg_rewind(sandbox: &Sandbox) -> RepmgrCluster {
        RepmgrCluster::start_with(sandbox, bindir_with_our_pg_rewind(sandbox, &Installation::usual().bindir))
    }

    fn start_with(sandbox: &Sandbox, bindir: PathBuf) -> RepmgrCluster {
        let nodes = Nodes::start(sandbox, "shared_preload_libraries = 'repmgr'");
        let cluster = RepmgrCluster { nodes, sshd: Sshd::start(sandbox), bindir };
        cluster.sql(1, "CREATE DATABASE repmgr");
        for node in 1..=3 {
            cluster.write_configuration(node, "standby");
        }
        cluster.repmgr(1, &["primary", "register"]);
        for node in [2, 3] {
            cluster.catch_up(node, 1);
            cluster.repmgr(node, &["standby", "register", "-F", "--upstream-node-id=1"]);
        }
        cluster
    }

    /// The configuration of a node.
    pub fn conf(&self, node: usize) -> PathBuf {
        self.home(node).join("db/etc/repmgr.conf")
    }

    /// What has been logged on a node.
    pub fn log(&self, node: usize) -> String {
        self.read_log(node, "hamgr.log")
    }

    /// Sets which nodes are recovered, on all of them.
    pub fn set_recovery(&self, recovery: &str) {
        for node in 1..=3 {
            self.set(node, "recovery", recovery);
        }
    }

    /// Adds a setting to a node's configuration. Of several the last one counts.
    pub fn set(&self, node: usize, name: &str, value: &str) {
        let text = fs::read_to_string(self.conf(node)).expect("read repmgr.conf");
        self.write(&self.conf(node), &format!("{text}{name}='{value}'\n"));
    }

    /// Runs repmgr on a node, and returns what it says.
    pub fn repmgr(&self, node: usize, arguments: &[&str]) -> String {
        let output = run(server_program("repmgr").arg("-f").arg(self.conf(node)).args(arguments));
        String::from_utf8_lossy(&output.stderr).into()
    }

    /// Runs `kbrecover hook v8r6` on a node.
    pub fn hook(&self, node: usize, arguments: &[&str]) -> Run {
        run_command(self.hook_command(node, arguments))
    }

    /// The same, not yet run.
    pub fn hook_command(&self, node: usize, arguments: &[&str]) -> Command {
        let mut command = command(["hook", "v8r6", "-f"]);
        command.arg(self.conf(node)).args(arguments);
        command
    }

    /// Lets the daemon look once on a node.
    pub fn look(&self, node: usize) -> Run {
        self.look_times(node, 1)
    }

    /// Lets the daemon look so many times.
    pub fn look_times(&self, node: usize, rounds: u32) -> Run {
        let program = binary().to_str().expect("a UTF-8 path");
        self.hook(node, &["daemon", "--rounds", &rounds.to_string(), "--program", program])
    }

    fn write_configuration(&self, node: usize, recovery: &str) {
        let (home, bin) = (self.home(node), self.bindir.display());
        let text = format!(
            "node_id={node}\nnode_name='node{node}'\n\
             conninfo='host={} port={} user=postgres dbname=repmgr connect_timeout=5'\n\
             data_directory='{}'\npg_bindir='{bin}'\nlog_file='{}'\nrecovery='{recovery}'\nrecovery_check_interval=1\n\
             ssh_options='{}'\n",
            address(node),
            self.port,
            self.data(node).display(),
            home.join("log/hamgr.log").display(),
            self.sshd.options(),
        );
        self.write(&self.conf(node), &text);
    }
}
