//! One PostgreSQL server: its data directory, its settings, its process.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use postgres::types::FromSqlOwned;
use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};
use walparse::ControlFile;

use super::installation::Installation;
use super::ports::free_port;
use super::program::{give_to_server_user, run};
use super::sandbox::copy_tree;
use super::wal::Lsn;

/// How long anything may take before a test gives up: far longer than any of it does take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Settings with which no WAL is written for tables that are filled by the transaction that makes them. A server with a
/// standby cannot have them.
pub const WAL_LEVEL_MINIMAL: [(&str, &str); 3] =
    [("wal_level", "minimal"), ("max_wal_senders", "0"), ("summarize_wal", "off")];

/// One server. Dropping it stops it.
pub struct Server {
    /// Its name, its directory's name, its log's name.
    pub name: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Its port: of the socket, and of TCP where a scenario listens there.
    pub port: u16,
    /// Its programs.
    pub installation: &'static Installation,
    database: String,
    host: String,
    sandbox: PathBuf,
    settings: Vec<(String, String)>,
    /// A library that is loaded before all others (`LD_PRELOAD`).
    preload: Option<PathBuf>,
    process: Option<Child>,
}

impl Server {
    /// A stopped server on the data directory `sandbox/name`, of the version of these programs.
    pub(super) fn new(sandbox: &Path, name: &str, installation: &'static Installation) -> Server {
        // Sockets lie in the sandbox, so these numbers clash with nobody's.
        static NEXT_PORT: AtomicU16 = AtomicU16::new(6000);
        Server {
            name: name.into(),
            data: sandbox.join(name),
            installation,
            database: "postgres".into(),
            port: NEXT_PORT.fetch_add(1, Ordering::Relaxed),
            host: sandbox.join("sockets").to_str().expect("a temporary directory with a UTF-8 name").into(),
            sandbox: sandbox.into(),
            settings: Vec::new(),
            preload: None,
            process: None,
        }
    }

    /// A path beside the data directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.sandbox.join(name)
    }

    /// The same server, for SQL in another database. It neither starts nor stops anything.
    pub fn in_database(&self, database: &str) -> Server {
        Server {
            name: self.name.clone(),
            data: self.data.clone(),
            installation: self.installation,
            port: self.port,
            database: database.into(),
            host: self.host.clone(),
            sandbox: self.sandbox.clone(),
            settings: Vec::new(),
            preload: None,
            process: None,
        }
    }

    /// A stopped server of the same programs, whose data directory the caller makes.
    pub fn at(&self, name: &str) -> Server {
        Server::new(&self.sandbox, name, self.installation)
    }

    /// Copies the stopped cluster as it lies, its tablespaces too: each copy has its own directories.
    pub fn copy(&self, name: &str) -> Server {
        assert!(self.process.is_none(), "stop {} before copying it", self.name);
        let copy = Server::new(&self.sandbox, name, self.installation);
        copy_tree(&self.data, &copy.data);
        let links = std::fs::read_dir(copy.data.join("pg_tblspc"))
            .expect("list pg_tblspc")
            .map(|e| e.expect("entry").path());
        for link in links.chain([copy.data.join("pg_wal")]) {
            if let Ok(target) = std::fs::read_link(&link) {
                let file_name =
                    target.file_name().expect("a link to a directory").to_str().expect("a UTF-8 name");
                copy_tree(&target, &self.sandbox.join(format!("{name}-{file_name}")));
                copy.relink(&link, &self.sandbox.join(format!("{name}-{file_name}")));
            }
        }
        copy
    }

    /// Makes `link` in the data directory a symbolic link to `target`, whatever it was before.
    pub fn relink(&self, link: &Path, target: &Path) {
        let _ = std::fs::remove_file(link);
        std::os::unix::fs::symlink(target, link).unwrap_or_else(|e| panic!("link {}: {e}", link.display()));
        give_to_server_user(link);
    }

    /// A setting given on the command line at the next start; it wins over any file.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.into(), value.into()));
    }

    /// From the next start on, a library's functions take the place of those that the server calls.
    pub fn preload(&mut self, library: Option<PathBuf>) {
        self.preload = library;
    }

    /// Takes back what `set` did.
    pub fn unset(&mut self, name: &str) {
        self.settings.retain(|(other, _)| other != name);
    }

    /// Appends to postgresql.conf.
    pub fn configure(&self, lines: &str) {
        let path = "postgresql.conf";
        let text = std::fs::read_to_string(self.data.join(path)).expect("read postgresql.conf");
        self.write(path, format!("{text}\n{lines}\n"));
    }

    /// Its control file.
    pub fn control_file(&self) -> ControlFile {
        let path = self.data.join("global/pg_control");
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        ControlFile::parse(&bytes).expect("a good control file")
    }

    /// Where replay from its newest checkpoint starts.
    pub fn newest_redo(&self) -> walparse::Lsn {
        self.control_file().checkpoint().redo
    }

    /// Runs it with these settings for a while, as far as its version has them. It is started for that, and stopped in the end.
    pub fn with_settings(&mut self, settings: &[(&str, &str)], action: impl FnOnce(&mut Server)) {
        if self.is_running() {
            self.stop();
        }
        let is_known = |name: &str| name != "summarize_wal" || self.installation.major >= 17;
        let settings: Vec<_> = settings.iter().filter(|(name, _)| is_known(name)).collect();
        settings.iter().for_each(|(name, value)| self.set(name, value));
        self.start();
        action(self);
        self.stop();
        settings.iter().for_each(|(name, _)| self.unset(name));
    }

    /// Writes a file of the data directory.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.data.join(path);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        give_to_server_user(&path);
    }

    /// Makes a directory inside the data directory.
    pub fn make_dir(&self, path: &str) {
        let path = self.data.join(path);
        std::fs::create_dir(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("close a directory");
        give_to_server_user(&path);
    }

    /// Listens on 127.0.0.1 as well, on a port that is free.
    pub fn listen_on_loopback(&mut self) {
        self.port = free_port();
        self.set("listen_addresses", "127.0.0.1");
    }

    /// Will start as a standby of `upstream`.
    pub fn follow(&mut self, upstream: &Server) {
        let Server { host, port, .. } = upstream;
        let conninfo = format!("host={host} port={port} user=postgres application_name={}", self.name);
        if self.installation.major < 12 {
            let mode = "standby_mode = 'on'\nrecovery_target_timeline = 'latest'";
            return self.write("recovery.conf", format!("{mode}\nprimary_conninfo = '{conninfo}'\n"));
        }
        self.write("standby.signal", "");
        self.set("primary_conninfo", &conninfo);
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) {
        if let Err(log) = self.try_start() {
            panic!("{} did not start:\n{log}", self.name);
        }
    }

    /// Starts the server and waits until it answers; if it ends instead, returns what it logged.
    pub fn try_start(&mut self) -> Result<(), String> {
        self.try_start_within(PATIENCE)
    }

    /// The same for a server that has much to replay first.
    pub fn try_start_within(&mut self, patience: Duration) -> Result<(), String> {
        let logged_before = self.spawn();
        let begin = Instant::now();
        while begin.elapsed() < patience {
            let process = self.process.as_mut().expect("just started");
            if process.try_wait().expect("look after postgres").is_some() {
                self.process = None;
                let log = std::fs::read(self.log()).expect("read the log");
                return Err(String::from_utf8_lossy(&log[logged_before..]).into());
            }
            if self.admits_sessions() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        panic!("{} does not answer after {patience:?}:\n{}", self.name, self.log_tail());
    }

    /// Starts the server without waiting. Returns the size of its log before.
    pub fn spawn(&mut self) -> usize {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("open the log");
        let logged_before = log.metadata().expect("size of the log").len() as usize;
        let mut command = self.installation.program("postgres");
        command.arg("-D").arg(&self.data).arg("-p").arg(self.port.to_string()).args(["-k", &self.host]);
        command.args(["-c", "listen_addresses="]);
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.envs(self.preload.iter().map(|library| ("LD_PRELOAD", library)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("second handle of the log")).stderr(log);
        self.process = Some(command.spawn().expect("run postgres"));
        logged_before
    }

    /// Whether a session can be opened.
    pub fn admits_sessions(&self) -> bool {
        self.config("postgres").connect(NoTls).is_ok()
    }

    /// Stops it in order: sessions ended, shutdown checkpoint written, WAL sent to its standbys.
    pub fn stop(&mut self) {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        // What pg_ctl does, but for its tenths of a second between looks.
        if !end(&mut process, Signal::INT, PATIENCE) {
            let _ = process.kill();
            panic!("{} did not stop\n{}", self.name, self.log_tail());
        }
    }

    /// `kill -9` of the postmaster and all its children, as if the machine had lost the processes.
    pub fn kill(&mut self) {
        self.kill_unreaped().wait().expect("wait for postgres");
    }

    /// The same, but the postmaster stays a zombie until its parent, who is returned it, waits for it.
    pub fn kill_unreaped(&mut self) -> Child {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        // The postmaster first, so that it can neither start new children nor clean up after the old ones.
        let children = children_of(process.id());
        process.kill().expect("kill -9 postgres");
        let pids: Vec<String> = children.iter().map(u32::to_string).collect();
        let kill = format!("kill -9 {} 2>/dev/null", pids.join(" "));
        let _ = Command::new("sh").arg("-c").arg(kill).status();
        let begin = Instant::now();
        while children.iter().chain([&process.id()]).any(|&pid| is_alive(pid)) {
            assert!(begin.elapsed() < PATIENCE, "processes of {} outlive kill -9", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        process
    }

    /// Makes the standby a primary, and waits until it is one.
    pub fn promote(&mut self) {
        run(self.installation.program("pg_ctl").args(["promote", "-w", "-t", "90", "-D"]).arg(&self.data));
        self.unset("primary_conninfo");
        assert!(
            !self.value::<bool>("SELECT pg_is_in_recovery()"),
            "{} is promoted but still in recovery",
            self.name
        );
    }

    /// Runs SQL. Several statements make one transaction.
    pub fn sql(&self, statements: &str) {
        self.sql_in(&self.database, statements);
    }

    /// Runs SQL in a database.
    pub fn sql_in(&self, database: &str, statements: &str) {
        let result = self.connect(database).batch_execute(statements);
        result.unwrap_or_else(|e| panic!("{}: {e:?}\n{statements}", self.name));
    }

    /// The first column of the first row.
    pub fn value<T: FromSqlOwned>(&self, query: &str) -> T {
        let row = self.session().query_one(query, &[]);
        row.unwrap_or_else(|e| panic!("{}: {e:?}\n{query}", self.name)).get(0)
    }

    /// The first column of all rows, as text.
    pub fn column(&self, query: &str) -> Vec<String> {
        let rows = self.session().query(query, &[]);
        rows.unwrap_or_else(|e| panic!("{}: {e:?}\n{query}", self.name))
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// A session in the database its SQL runs in.
    pub fn session(&self) -> Client {
        self.connect(&self.database)
    }

    /// A session of the superuser.
    pub fn connect(&self, database: &str) -> Client {
        let client = self.config(database).connect(NoTls);
        client
            .unwrap_or_else(|e| panic!("connect to {} in {database}: {e:?}\n{}", self.name, self.log_tail()))
    }

    fn config(&self, database: &str) -> postgres::Config {
        let mut config = Client::configure();
        config.host_path(&self.host).port(self.port).user("postgres").dbname(database);
        config
    }

    /// The directory of its socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What `--source-server` is given: the superuser, over the Unix socket.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.host, self.port)
    }

    /// Where WAL ends now: the flush position of a primary, the replay position of a standby.
    pub fn wal_end(&self) -> Lsn {
        self.value::<String>(
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text",
        )
        .parse()
        .expect("an LSN")
    }

    /// Waits until this standby has replayed everything its primary, `origin`, has written until now.
    pub fn catch_up(&self, origin: &Server) {
        // A record at the very end, flushed, so that what came before it is flushed too.
        origin.sql_in("postgres", "SELECT pg_logical_emit_message(true, 'kbrecover', 'catch up')");
        let end = origin.wal_end();
        self.wait_for(&format!("replay of {end}"), &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"));
    }

    /// Waits until a query says true.
    pub fn wait_for(&self, what: &str, query: &str) {
        let begin = Instant::now();
        let mut client = self.connect("postgres");
        loop {
            let row =
                client.query_one(query, &[]).unwrap_or_else(|e| panic!("{}: {e:?}\n{query}", self.name));
            if row.get::<_, Option<bool>>(0) == Some(true) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{} never saw: {what}\n{}", self.name, self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it was started and not stopped.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Where it writes its log.
    pub fn log(&self) -> PathBuf {
        self.sandbox.join(format!("{}.log", self.name))
    }

    /// The last lines of the server's log, for a panic message.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        format!("log of {}:\n{}", self.name, lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if let Some(mut process) = self.process.take() {
            end(&mut process, Signal::QUIT, Duration::from_secs(20));
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Sends a signal to a process and waits for its end; whether that came in time.
fn end(process: &mut Child, signal: Signal, patience: Duration) -> bool {
    let begin = Instant::now();
    let _ = kill_process(Pid::from_child(process), signal);
    while process.try_wait().expect("look after postgres").is_none() {
        if begin.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The processes whose parent is `parent`.
pub fn children_of(parent: u32) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").expect("list /proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| stat_fields(pid).is_some_and(|(_, ppid)| ppid == parent)).collect()
}

fn is_alive(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// State and parent of a process, from `/proc/PID/stat`: the two fields after the name in parentheses.
fn stat_fields(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.into(), fields.next()?.parse().ok()?))
}
