//! Two nodes under a real Patroni, with an etcd of their own.

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::nodes::{Nodes, address};
use super::ports::free_port;
use super::program::{AsServerUser, server_command};
use super::sandbox::bindir_with_our_pg_rewind;
use super::{Installation, Sandbox};

/// The nodes, what manages each, and etcd. Dropping it stops them all.
pub struct PatroniCluster {
    nodes: Nodes,
    etcd: Child,
    etcd_port: u16,
    managers: Vec<Option<Child>>,
}

impl Deref for PatroniCluster {
    type Target = Nodes;

    fn deref(&self) -> &Nodes {
        &self.nodes
    }
}

impl PatroniCluster {
    /// Node 1 is the primary and 2 streams from it. Their servers are of this installation, with the tools of 15, and
    /// with `apart` their configuration is outside of the data directory, and these lines are in node 1's; `settings` are lines of YAML.
    pub fn start(
        sandbox: &Sandbox,
        installation: &Installation,
        apart: Option<&str>,
        settings: &str,
    ) -> PatroniCluster {
        let nodes = Nodes::empty(sandbox);
        let bindir = bindir_with_our_pg_rewind(sandbox, &installation.bindir);
        let etcd_port = free_port();
        let etcd = start_etcd(sandbox, etcd_port);
        let mut cluster = PatroniCluster { nodes, etcd, etcd_port, managers: vec![None, None] };
        for node in [1, 2] {
            let configuration = apart.map_or(cluster.data(node), |lines| {
                let directory = sandbox.make_dir(&format!("node{node}/etc"));
                cluster.write(&directory.join("postgresql.conf"), if node == 1 { lines } else { "" });
                directory
            });
            cluster.write_configuration(node, &bindir, &configuration, settings);
        }
        cluster.start_manager(1);
        let is_primary = || {
            cluster.try_column(1, "SELECT pg_is_in_recovery()").is_some_and(|answer| answer == ["f"])
                && cluster.column(1, "SELECT rolname FROM pg_roles WHERE rolname = 'rewinder'")
                    == ["rewinder"]
        };
        cluster.wait("Patroni to make the primary", is_primary);
        cluster.start_manager(2);
        cluster.wait("the standby to stream", || cluster.streaming(1) == ["node2"]);
        cluster
    }

    /// Starts Patroni on a node.
    pub fn start_manager(&mut self, node: usize) {
        let mut patroni = server_command(Path::new("/usr/bin/patroni"));
        patroni.arg(self.home(node).join("patroni.yml"));
        self.managers[node - 1] = Some(self.spawn_manager(node, &mut patroni));
    }

    /// `kill -9` of a node: its Patroni, then its server.
    pub fn lose(&mut self, node: usize) {
        self.kill_manager(node);
        self.kill_node(node);
    }

    /// What Patroni and the server have said on a node.
    pub fn log(&self, node: usize) -> String {
        self.read_log(node, "server.log")
    }

    fn kill_manager(&mut self, node: usize) {
        if let Some(mut manager) = self.managers[node - 1].take() {
            let _ = manager.kill();
            let _ = manager.wait();
        }
    }

    /// The limit of the lag lets a standby be promoted that has been cut off from all that is to be lost.
    fn write_configuration(&self, node: usize, bindir: &Path, configuration: &Path, settings: &str) {
        let (home, address, port) = (self.home(node), address(node), self.port);
        let (data, configuration, bindir) = (self.data(node), configuration.display(), bindir.display());
        let text = format!(
            "scope: cluster
name: node{node}
restapi: {{listen: '{address}:{rest}', connect_address: '{address}:{rest}'}}
etcd3: {{hosts: '127.0.0.1:{etcd}'}}
bootstrap:
  dcs:
    ttl: 5
    loop_wait: 1
    retry_timeout: 2
    maximum_lag_on_failover: 1073741824
    postgresql:
      use_pg_rewind: true
  initdb: [data-checksums, no-sync, {{auth: trust}}, {{encoding: UTF8}}, {{locale: C}}]
postgresql:
  listen: '{address}:{port}'
  connect_address: '{address}:{port}'
  bin_dir: {bindir}
  data_dir: {data}
  config_dir: {configuration}
  pgpass: {home}/pgpass
  authentication:
    superuser: {{username: postgres, password: 'of the superuser'}}
    replication: {{username: replicator, password: 'of the replicator'}}
    rewind: {{username: rewinder, password: 'it''s \\ the rewinder''s'}}
  pg_hba: ['local all all trust', 'host all rewinder 127.0.0.0/8 scram-sha-256', 'host all all 127.0.0.0/8 trust', 'host replication all 127.0.0.0/8 trust']
  parameters:
    unix_socket_directories: {home}
    fsync: 'off'
    password_encryption: scram-sha-256
    wal_retrieve_retry_interval: 100ms
{settings}",
            rest = self.port + 1,
            etcd = self.etcd_port,
            data = data.display(),
            home = home.display(),
        );
        self.write(&home.join("patroni.yml"), &text);
    }
}

impl Drop for PatroniCluster {
    fn drop(&mut self) {
        for node in [1, 2] {
            self.kill_manager(node);
        }
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

fn start_etcd(sandbox: &Sandbox, port: u16) -> Child {
    let log = fs::File::create(sandbox.path("etcd.log")).expect("make etcd's log");
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let (clients, peers) = (url(port), url(free_port()));
    let mut etcd = Command::new("/usr/bin/etcd");
    etcd.args(["--name", "one", "--unsafe-no-fsync", "--data-dir"]).arg(sandbox.path("sockets/etcd"));
    for (option, value) in [
        ("--listen-client-urls", &clients),
        ("--advertise-client-urls", &clients),
        ("--listen-peer-urls", &peers),
        ("--initial-advertise-peer-urls", &peers),
        ("--initial-cluster", &format!("one={peers}")),
    ] {
        etcd.arg(option).arg(value);
    }
    etcd.as_server_user().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    etcd.spawn().expect("run etcd: install etcd-server")
}
