//! Three nodes of a cluster on this machine: loopback addresses 127.0.0.1 to 127.0.0.3, one port, PostgreSQL 15.
//!
//! Their servers are configured by files and started by `pg_ctl`, since the flows under test do so, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls, SimpleQueryMessage};

use super::Sandbox;
use super::ports::free_port;
use super::program::{AsServerUser, give_to_server_user, run, server_program};
use super::sandbox::copy_tree;
use super::server::children_of;
use super::wal::remove_wal_files;

const PATIENCE: Duration = Duration::from_secs(60);

/// The nodes. Dropping them stops their servers.
pub struct Nodes {
    /// The sandbox's directory.
    pub dir: PathBuf,
    /// The port of all servers.
    pub port: u16,
}

impl Nodes {
    /// Their directories, without a server.
    pub fn empty(sandbox: &Sandbox) -> Nodes {
        for node in 1..=3 {
            for part in ["", "/db", "/db/etc", "/log", "/run"] {
                sandbox.make_dir(&format!("node{node}{part}"));
            }
        }
        Nodes { dir: sandbox.path(""), port: free_port() }
    }

    /// Node 1 is a running primary, 2 and 3 stream from it by slots.
    pub fn start(sandbox: &Sandbox, settings: &str) -> Nodes {
        let nodes = Nodes::empty(sandbox);
        let template = sandbox.server("template");
        for node in 1..=3 {
            copy_tree(&template.data, &nodes.data(node));
            nodes.configure(node, settings);
        }
        nodes.start_node(1);
        for node in [2, 3] {
            nodes.sql(1, &format!("SELECT pg_create_physical_replication_slot('slot_node{node}')"));
            nodes.follow(node, 1);
            nodes.start_node(node);
        }
        nodes.wait("both standbys to stream", || nodes.streaming(1).len() == 2);
        nodes
    }

    /// What rewinds of a node have kept beside its data directory, if nothing says where.
    pub fn kept(&self, node: usize) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.data(node).with_extension("diverged"));
        entries.into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect()
    }

    /// The data directory of a node.
    pub fn data(&self, node: usize) -> PathBuf {
        self.home(node).join("db/data")
    }

    /// Starts a node's server.
    pub fn start_node(&self, node: usize) {
        let log = self.home(node).join("log/server.log");
        run(server_program("pg_ctl").args(["start", "-w", "-D"]).arg(self.data(node)).arg("-l").arg(log));
    }

    /// `kill -9` of a node's postmaster and its children.
    pub fn kill_node(&self, node: usize) {
        let pid = self.process(node).expect("a running server");
        let children = children_of(pid);
        // The postmaster first, so that it can neither start new children nor clean up after the old ones.
        for process in std::iter::once(pid).chain(children.iter().copied()) {
            let _ = Command::new("kill").args(["-9", &process.to_string()]).output();
        }
        // Until somebody has waited for them, too: the flows under test look for processes, as `process` does.
        let is_gone = |process: &u32| !Path::new(&format!("/proc/{process}")).exists();
        self.wait("the server's processes to be gone", || {
            std::iter::once(&pid).chain(&children).all(is_gone)
        });
    }

    /// Makes what a node writes from now on stay there: its standbys receive nothing more.
    pub fn cut_off_standbys(&self, node: usize) {
        self.stop_senders(node, "true");
    }

    /// The same for one standby.
    pub fn cut_off_standby(&self, node: usize, name: &str) {
        self.stop_senders(node, &format!("application_name = '{name}'"));
    }

    fn stop_senders(&self, node: usize, which: &str) {
        for pid in self.column(node, &format!("SELECT pid FROM pg_stat_replication WHERE {which}")) {
            run(Command::new("kill").args(["-STOP", &pid]));
        }
    }

    /// Removes all WAL of a stopped node.
    pub fn remove_wal(&self, node: usize) {
        remove_wal_files(&self.data(node).join("pg_wal"));
    }

    /// The process in a node's lock file.
    pub fn process(&self, node: usize) -> Option<u32> {
        let text = fs::read_to_string(self.data(node).join("postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok().filter(|pid: &u32| Path::new(&format!("/proc/{pid}")).exists())
    }

    /// Runs SQL on a node.
    pub fn sql(&self, node: usize, statements: &str) {
        self.execute_in("postgres", node, statements);
    }

    /// The same in another database.
    pub fn execute_in(&self, database: &str, node: usize, statements: &str) {
        self.connect(node, database)
            .batch_execute(statements)
            .unwrap_or_else(|e| panic!("node {node}: {e:?}\n{statements}"));
    }

    /// The first column of all rows, as text.
    pub fn column(&self, node: usize, query: &str) -> Vec<String> {
        self.column_in("postgres", node, query)
    }

    /// The same in another database.
    pub fn column_in(&self, database: &str, node: usize, query: &str) -> Vec<String> {
        let mut client = self.connect(node, database);
        let messages = client.simple_query(query).unwrap_or_else(|e| panic!("node {node}: {e:?}\n{query}"));
        first_column(&messages)
    }

    /// The same, if the node answers.
    pub fn try_column(&self, node: usize, query: &str) -> Option<Vec<String>> {
        self.ask((&address(node), self.port), "postgres", query)
    }

    /// The same of any server.
    pub fn ask(&self, (host, port): (&str, u16), database: &str, query: &str) -> Option<Vec<String>> {
        let mut client = self.connect_to(host, port, database)?;
        Some(first_column(&client.simple_query(query).ok()?))
    }

    /// The names of the standbys that stream from a node.
    pub fn streaming(&self, node: usize) -> Vec<String> {
        self.column(
            node,
            "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1",
        )
    }

    /// Waits until a standby has all that a node has written.
    pub fn catch_up(&self, standby: usize, origin: usize) {
        let end = self.column(origin, "SELECT pg_current_wal_flush_lsn()").remove(0);
        self.wait("replay", || {
            self.column(standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")) == ["t"]
        });
    }

    /// Node 1, the primary, gets rows that node 2 has, too, and then rows of its own, in which the histories part.
    pub fn write_and_cut_off(&self) {
        self.sql(1, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
        self.sql(1, "CREATE DATABASE another");
        self.catch_up(2, 1);
        self.cut_off_standbys(1);
        self.sql(1, "SET synchronous_commit = local; INSERT INTO t SELECT generate_series(5001, 6000)");
        self.sql(
            1,
            "SET synchronous_commit = local; CREATE TABLE lost AS SELECT generate_series(1, 5000) AS n",
        );
    }

    /// Proves that node 1 streams, by this name, from node 2, which had 100 rows of its own, and has what that one has.
    pub fn assert_returned(&self, name: &str) {
        self.wait("the old primary to stream", || self.streaming(2) == [name]);
        self.catch_up(1, 2);
        self.assert_same_content(1, 2);
        assert_eq!(self.column(1, "SELECT count(*) FROM t"), ["1100"]);
        assert_eq!(self.column(1, "SELECT pg_is_in_recovery()"), ["t"]);
    }

    /// Proves that the rows of the table `t` are the same on two nodes.
    pub fn assert_same_rows(&self, one: usize, other: usize) {
        let rows = "SELECT md5(string_agg(n::text, ',' ORDER BY n)) FROM t";
        assert_eq!(self.column(one, rows), self.column(other, rows));
    }

    /// Proves that everything in all databases is the same on two nodes.
    pub fn assert_same_content(&self, one: usize, other: usize) {
        let dump = |node: usize| {
            let mut dump = server_program("pg_dumpall");
            dump.args(["-U", "postgres", "-h", &address(node), "-p", &self.port.to_string()]);
            let text = String::from_utf8(run(&mut dump).stdout).expect("UTF-8");
            // Newer ones have words of their own in it, to be run by psql only.
            text.lines()
                .filter(|line| !line.contains("restrict "))
                .map(|line| format!("{line}\n"))
                .collect::<String>()
        };
        let (one, other) = (dump(one), dump(other));
        assert!(one.contains("CREATE TABLE public."), "{one}");
        assert!(one == other, "not the same\n{one}\n{other}");
    }

    /// Waits until something is so.
    pub fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}\n{}", self.told());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn home(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node{node}"))
    }

    fn connect(&self, node: usize, database: &str) -> Client {
        self.connect_to(&address(node), self.port, database)
            .unwrap_or_else(|| panic!("node {node} does not answer\n{}", self.told()))
    }

    /// A session at an address, if anybody answers there.
    pub fn connect_to(&self, host: &str, port: u16, database: &str) -> Option<Client> {
        let mut config = Client::configure();
        config
            .host(host)
            .port(port)
            .user("postgres")
            .dbname(database)
            .connect_timeout(Duration::from_secs(5));
        config.connect(NoTls).ok()
    }

    /// What everybody has said, for a panic message.
    pub fn told(&self) -> String {
        let mut text = String::new();
        let logs = (1..=3).flat_map(|node| {
            ["server.log", "kbstart", "recovery.log", "hamgr.log"]
                .map(|name| self.home(node).join("log").join(name))
        });
        for log in logs.chain([self.dir.join("pool.log")]) {
            let Ok(content) = fs::read(&log) else { continue };
            let content = String::from_utf8_lossy(&content).into_owned();
            let lines: Vec<&str> = content.lines().collect();
            text +=
                &format!("--- {}\n{}\n", log.display(), lines[lines.len().saturating_sub(25)..].join("\n"));
        }
        text
    }

    pub fn write(&self, path: &Path, text: &str) {
        fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        give_to_server_user(path);
    }

    /// Makes a directory.
    pub fn make_dir(&self, path: &Path) {
        fs::create_dir(path).expect("make a directory");
        give_to_server_user(path);
    }

    /// Writes a file that can be run.
    pub fn write_script(&self, path: &Path, text: &str) {
        self.write(path, text);
        run(Command::new("chmod").arg("755").arg(path));
    }

    /// What stands in one of a node's logs.
    pub fn read_log(&self, node: usize, name: &str) -> String {
        fs::read_to_string(self.home(node).join("log").join(name)).unwrap_or_default()
    }

    /// Starts what manages a node; it and the server it starts say what they say in `server.log`.
    pub fn spawn_manager(&self, node: usize, manager: &mut Command) -> Child {
        let log = self.home(node).join("log/server.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("open a log");
        manager.stdin(Stdio::null()).stdout(log.try_clone().expect("second handle")).stderr(log);
        manager.spawn().unwrap_or_else(|e| panic!("run {manager:?}: {e}"))
    }

    /// Shows a node's log, if the one who runs the tests wants to see it (`tests/flows.sh`).
    pub fn show(&self, title: &str, log: &str) {
        if std::env::var_os("KBRECOVER_SHOW_LOGS").is_some() {
            eprintln!("\n=== {title}\n{log}");
        }
    }

    /// Stops a node's server in order.
    pub fn stop_node(&self, node: usize) {
        run(server_program("pg_ctl").args(["stop", "-w", "-m", "fast", "-D"]).arg(self.data(node)));
    }

    /// Makes stand-ins for `ip` and `arping` that remember a node's addresses in a file. Their directory.
    pub fn fake_ip(&self, node: usize) -> PathBuf {
        let directory = self.home(node).join("net");
        fs::create_dir_all(&directory).expect("make a directory");
        give_to_server_user(&directory);
        let ip = "#!/bin/sh\nlist=$(dirname \"$0\")/addresses\ncase \"$*\" in\n'-o addr show') cat \"$list\" 2>/dev/null; echo '1: lo inet 127.0.0.1/8' ;;\n\
                  'addr add '*) echo \"2: $5 inet $3 label $7\" >> \"$list\" ;;\n'addr del '*) rm \"$list\" ;;\n*) exit 1 ;;\nesac\n";
        let arping = "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/arpings\"\n";
        for (name, script) in [("ip", ip), ("arping", arping)] {
            self.write_script(&directory.join(name), script);
        }
        directory
    }

    /// The addresses that a node has by [`Nodes::fake_ip`].
    pub fn addresses(&self, node: usize) -> String {
        fs::read_to_string(self.home(node).join("net/addresses")).unwrap_or_default()
    }

    /// Has a node and its clients speak TLS: `rules` come before all others of its `pg_hba.conf`.
    pub fn use_tls(&self, node: usize, rules: &str) {
        let data = self.data(node);
        let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-days",
            "30",
        ]);
        openssl.args(["-subj", "/CN=node", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
        run(openssl.as_server_user());
        let hba = data.join("pg_hba.conf");
        let old = fs::read_to_string(&hba).expect("read pg_hba.conf");
        self.write(&hba, &format!("{rules}{old}"));
        let conf = data.join("postgresql.conf");
        let old = fs::read_to_string(&conf).expect("read postgresql.conf");
        self.write(&conf, &format!("{old}ssl = on\n"));
        self.sql(node, "SELECT pg_reload_conf()");
    }

    /// Writes a node's configuration, and lets everybody in.
    pub fn configure(&self, node: usize, settings: &str) {
        let conf = self.data(node).join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("read postgresql.conf");
        let own = format!(
            "listen_addresses = '{}'\nport = {}\nunix_socket_directories = '{}'\n# this is node {node}'s own\n",
            address(node),
            self.port,
            self.home(node).display()
        );
        self.write(&conf, &format!("{text}\n{own}{settings}\n"));
        let hba =
            "local all all trust\nhost all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n";
        self.write(&self.data(node).join("pg_hba.conf"), hba);
    }

    fn follow(&self, node: usize, upstream: usize) {
        self.write(&self.data(node).join("standby.signal"), "");
        self.write(
            &self.data(node).join("postgresql.auto.conf"),
            &format!(
                "primary_conninfo = 'host={} port={} user=postgres application_name=node{node}'\nprimary_slot_name = 'slot_node{node}'\n",
                address(upstream),
                self.port
            ),
        );
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.told());
        }
        for node in 1..=3 {
            let mut stop = server_program("pg_ctl");
            let _ =
                stop.args(["stop", "-w", "-t", "20", "-m", "immediate", "-D"]).arg(self.data(node)).output();
        }
    }
}

fn first_column(messages: &[SimpleQueryMessage]) -> Vec<String> {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// Makes calls that are killed before and after the action of each of these steps of a flow; each call must be killed.
pub fn kill_at_each(steps: &[&str], call: impl Fn(&str, &str) -> Command, log: impl Fn() -> String) {
    let (mut killed, mut all) = (Vec::new(), Vec::new());
    for step in steps {
        for moment in ["begin", "done"] {
            let fault = format!("{step}:{moment}");
            let mut run = call(step, moment);
            let output = run.env("KBRECOVER_STEP_FAULT", &fault).output().expect("run kbrecover hook");
            match output.status.code() {
                None => killed.push(fault.clone()),
                Some(code) => assert_eq!(code, 0, "{fault}\n{}", log()),
            }
            all.push(fault);
        }
    }
    assert_eq!(killed, all, "{}", log());
}

/// Proves that a log has these lines, or lines with these words.
pub fn assert_logged(log: &str, lines: &[&str]) {
    for line in lines {
        assert!(log.contains(line), "no line {line:?} in\n{log}");
    }
}

/// The address of a node.
pub fn address(node: usize) -> String {
    format!("127.0.0.{node}")
}
