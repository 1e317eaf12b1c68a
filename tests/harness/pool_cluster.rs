//! Three nodes as KingbaseES V8R3 has them, with PostgreSQL 15 and pgpool-II in the places of its server and pool: each
//! node with its `db/etc`, `HAmodule.conf` and log.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres::SimpleQueryMessage;

use super::kbrecover::{binary, command, run_command};
use super::nodes::{Nodes, address};
use super::ports::free_port;
use super::program::{AsServerUser, bindir, give_to_server_user, run};
use super::sample_scripts::{SampleScripts, share_configuration};
use super::{Run, Sandbox};

/// The pool and its nodes. Dropping it stops them all.
pub struct PoolCluster {
    nodes: Nodes,
    pool_port: u16,
    pcp_port: u16,
    pool: Option<Child>,
    scripts: Option<SampleScripts>,
}

impl Deref for PoolCluster {
    type Target = Nodes;

    fn deref(&self) -> &Nodes {
        &self.nodes
    }
}

impl PoolCluster {
    /// Node 1 is the primary, 2 and 3 stream from it, and the pool knows them all.
    pub fn start(sandbox: &Sandbox) -> PoolCluster {
        PoolCluster::start_with(sandbox, "")
    }

    /// The same; after a failover the pool itself calls the flow of each other node.
    pub fn start_following(sandbox: &Sandbox) -> PoolCluster {
        PoolCluster::start_with(
            sandbox,
            &format!("follow_primary_command = '{}/follow.sh %d'\n", sandbox.path("").display()),
        )
    }

    fn start_with(sandbox: &Sandbox, pool_settings: &str) -> PoolCluster {
        let mut cluster = PoolCluster::of(Nodes::start(sandbox, ""));
        for node in 1..=3 {
            cluster.write_configuration(node);
        }
        cluster.write_follow_command();
        cluster.start_pool(pool_settings);
        cluster
    }

    /// The same with the sample scripts of pgpool-II in the place of our flows.
    pub fn start_with_sample_scripts(sandbox: &Sandbox) -> PoolCluster {
        let mut cluster = PoolCluster::of(Nodes::start(sandbox, ""));
        share_configuration(&cluster);
        cluster.scripts = Some(SampleScripts::new(sandbox, &cluster, cluster.pcp_port));
        cluster.start_pool("");
        cluster
    }

    fn of(nodes: Nodes) -> PoolCluster {
        PoolCluster { nodes, pool_port: free_port(), pcp_port: free_port(), pool: None, scripts: None }
    }

    /// Calls the sample follow_primary.sh for a node, and returns what it says.
    pub fn follow_primary(&self, node: usize, primary: usize) -> String {
        self.scripts.as_ref().expect("a pool with sample scripts").follow_primary(self, node, primary)
    }

    /// What the pool and its scripts have said.
    pub fn pool_log(&self) -> String {
        fs::read_to_string(self.dir.join("pool.log")).unwrap_or_default()
    }

    /// `HAmodule.conf` of a node.
    pub fn module(&self, node: usize) -> PathBuf {
        self.home(node).join("db/etc/HAmodule.conf")
    }

    /// What `kbrecover hook v8r3` has logged on a node.
    pub fn log(&self, node: usize) -> String {
        self.read_log(node, "recovery.log")
    }

    /// Replaces a line of a node's `HAmodule.conf`.
    pub fn set(&self, node: usize, key: &str, value: &str) {
        let text = fs::read_to_string(self.module(node)).expect("read HAmodule.conf");
        let kept: String = text
            .lines()
            .filter(|line| !line.starts_with(&format!("{key}=")))
            .map(|line| format!("{line}\n"))
            .collect();
        self.write(&self.module(node), &format!("{kept}{key}={value}\n"));
    }

    /// A setting of `HAmodule.conf`.
    pub fn setting(&self, node: usize, key: &str) -> String {
        let text = fs::read_to_string(self.module(node)).expect("read HAmodule.conf");
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
        value.unwrap_or_else(|| panic!("no {key} in HAmodule.conf")).to_owned()
    }

    /// Runs the flow once on a node, as cron would.
    pub fn hook(&self, node: usize, arguments: &[&str]) -> Run {
        run_command(self.hook_command(node, arguments))
    }

    /// The same, not yet run.
    pub fn hook_command(&self, node: usize, arguments: &[&str]) -> Command {
        let mut command = command(["hook", "v8r3"]);
        command.arg("--config").arg(self.module(node)).arg("--run-dir").arg(self.home(node).join("run"));
        // Nothing is left in a directory of everybody.
        command.args(arguments).env("TMPDIR", "/nonexistent");
        command
    }

    /// Status and role of a node in the pool's words; none while the pool answers nobody, as during a failover.
    pub fn in_pool(&self, node: usize) -> Option<(String, String)> {
        let mut client = self.connect_to("127.0.0.1", self.pool_port, "postgres")?;
        let messages = client.simple_query("show pool_nodes").ok()?;
        messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) if row.get("hostname") == Some(&address(node)) => {
                Some((row.get("status")?.into(), row.get("role")?.into()))
            }
            _ => None,
        })
    }

    /// Waits until the pool uses a node, or no longer does.
    pub fn wait_for_pool(&self, node: usize, uses: bool) {
        self.wait("the pool to see a node's state", || {
            self.in_pool(node).is_some_and(|(status, _)| (status != "down") == uses)
        });
    }

    /// Waits until the pool has made a node the primary.
    pub fn wait_for_failover_to(&self, node: usize) {
        self.wait("the failover", || self.in_pool(node).is_some_and(|(_, role)| role == "primary"));
    }

    /// Stops the pool.
    pub fn stop_pool(&mut self) {
        if let Some(mut pool) = self.pool.take() {
            let _ = Command::new("kill").args(["-INT", &pool.id().to_string()]).status();
            let begin = Instant::now();
            while pool.try_wait().is_ok_and(|ended| ended.is_none())
                && begin.elapsed() < Duration::from_secs(10)
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = pool.kill();
            let _ = pool.wait();
        }
    }

    fn write_configuration(&self, node: usize) {
        let home = self.home(node);
        let conf = fs::read_to_string(self.data(node).join("postgresql.conf")).expect("read postgresql.conf");
        self.write(&home.join("db/etc/postgresql.conf"), &conf);
        self.write(
            &home.join("db/etc/recovery.done"),
            &format!(
                "standby_mode = 'on'\nprimary_conninfo = 'host=192.0.2.7 port=54321 user=postgres application_name=node{node}'\n\
                 recovery_target_timeline = 'latest'\nprimary_slot_name = 'slot_node{node}'\n"
            ),
        );
        let (bin, home) = (bindir().display(), home.display());
        self.write(
            &self.module(node),
            &format!(
                "#the cluster of a test\nKB_GATEWAY_IP=\"127.0.0.1\"\nKB_LOCALHOST_IP=\"{}\"\nSYNC_FLAG=0\nKB_VIP=\nKB_POOL_VIP=127.0.0.1\n\
                 KB_POOL_PORT={}\nKB_POOL_PCP_PORT={}\nPCP_USER=kingbase\nPCP_PASS=\"c2VjcmV0IHBjcA==\"\nKB_ETC_PATH={home}/db/etc\n\
                 KB_PATH={bin}\nCLUSTER_BIN_PATH=/usr/sbin\nKB_DATA_PATH={home}/db/data\nKB_USER=postgres\nKB_PASS=\nKB_DATANAME=postgres\n\
                 KB_PORT={}\nRECOVERY_LOG_DIR={home}/log/recovery.log\nPING_TIMES=1\nCONNECTTIMEOUT=10\nHEALTH_CHECK_MAX_RETRIES=2\n\
                 HEALTH_CHECK_RETRY_DELAY=1\n#whether to turn on automatic recovery,0->off,1->on\nAUTO_PRIMARY_RECOVERY=0\n\
                 ALL_NODE_NAME=(node1 node2 node3)\nNODE_NAME=\"node{node}\"\nMOUNT_CHECK_MAX_RETRIES=1\n",
                address(node),
                self.pool_port,
                self.pcp_port,
                self.port,
            ),
        );
    }

    /// In the place of ssh to the node: all are on this machine.
    fn write_follow_command(&self) {
        let (dir, program) = (self.dir.display(), binary().display());
        // More than once: a server that was killed a moment ago may be in the way of its successor.
        let script = format!(
            "#!/bin/sh\nhome={dir}/node$(($1 + 1))\nfor try in 1 2 3 4 5; do\n\
             {program} hook v8r3 -f $home/db/etc/HAmodule.conf --run-dir $home/run && exit\nsleep 1\ndone\nexit 1\n"
        );
        self.write_script(&self.dir.join("follow.sh"), &script);
    }

    fn start_pool(&mut self, settings: &str) {
        let dir = self.dir.display();
        let mut conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{dir}/sockets'\nsocket_dir = '{dir}/sockets'\npcp_listen_addresses = '127.0.0.1'\n\
             pcp_port = {}\npcp_socket_dir = '{dir}/sockets'\nwork_dir = '{dir}/pool'\nlogdir = '{dir}/pool'\npid_file_name = '{dir}/pool/pid'\n\
             backend_clustering_mode = 'streaming_replication'\nnum_init_children = 6\nsr_check_user = 'postgres'\nsr_check_database = 'postgres'\n\
             sr_check_period = 1\nhealth_check_period = 1\nhealth_check_timeout = 5\nhealth_check_user = 'postgres'\n\
             health_check_database = 'postgres'\nfailover_on_backend_error = off\nsearch_primary_node_timeout = 20\n\
             failover_command = '{dir}/failover.sh %d %P %R'\nenable_pool_hba = off\nuse_watchdog = off\nauto_failback = off\n",
            self.pool_port, self.pcp_port
        );
        for node in 1..=3 {
            let (index, address, data) = (node - 1, address(node), self.data(node));
            conf += &format!(
                "backend_hostname{index} = '{address}'\nbackend_port{index} = {}\nbackend_weight{index} = 1\n\
                 backend_data_directory{index} = '{}'\nbackend_flag{index} = 'ALLOW_TO_FAILOVER'\nbackend_application_name{index} = 'node{node}'\n",
                self.port,
                data.display()
            );
        }
        // Of several lines about one setting the last counts.
        conf += &self.scripts.as_ref().map(SampleScripts::pool_settings).unwrap_or_default();
        conf += settings;
        let pool = self.dir.join("pool");
        fs::create_dir(&pool).expect("make a directory");
        give_to_server_user(&pool);
        self.write(&self.dir.join("pgpool.conf"), &conf);
        self.write(&self.dir.join("pcp.conf"), &format!("kingbase:{}\n", md5("secret pcp")));
        // Failed node, old primary, new primary's data directory.
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = \"$2\" ] || exit 0\nexec {}/pg_ctl promote -w -D \"$3\"\n",
            bindir().display()
        );
        self.write_script(&self.dir.join("failover.sh"), &script);
        let log = fs::File::create(self.dir.join("pool.log")).expect("make the pool's log");
        let mut program = Command::new("/usr/sbin/pgpool");
        program
            .arg("-n")
            .arg("-f")
            .arg(self.dir.join("pgpool.conf"))
            .arg("-F")
            .arg(self.dir.join("pcp.conf"));
        program.stdin(Stdio::null()).stdout(log.try_clone().expect("second handle")).stderr(log);
        program.envs(self.scripts.as_ref().map(SampleScripts::environment));
        self.pool = Some(program.as_server_user().spawn().expect("run pgpool: install pgpool2"));
        self.wait_for_failover_to(1);
        for node in 1..=3 {
            self.wait_for_pool(node, true);
        }
    }
}

impl Drop for PoolCluster {
    fn drop(&mut self) {
        self.stop_pool();
    }
}

fn md5(text: &str) -> String {
    let output = run(Command::new("sh").args(["-c", "printf %s \"$1\" | md5sum", "sh", text]));
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().into()
}
