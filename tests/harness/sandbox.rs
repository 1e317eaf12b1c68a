//! A directory of its own for each scenario, below one for the whole test process.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::installation::Installation;
use super::kbrecover::binary;
use super::program::{bindir, give_to_server_user, run, server_program};
use super::server::Server;
use super::template::{self, copy_template};

/// Settings of every server, chosen for speed and for tests that repeat.
const SETTINGS: &str = "
fsync = off
shared_buffers = 16MB
max_connections = 20
max_wal_senders = 8
max_prepared_transactions = 8
wal_keep_size = 512MB
min_wal_size = 32MB
autovacuum = off
allow_in_place_tablespaces = on
jit = off
# A standby whose upstream comes back late asks again soon, instead of after five seconds.
wal_retrieve_retry_interval = 100ms
timezone = UTC
log_timezone = UTC
log_line_prefix = '%m [%p] '
";

/// A file system in memory, on Linux.
const MEMORY: &str = "/dev/shm";

/// One scenario's directory. Declare it first, so that it is dropped after the servers in it.
pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    /// An empty sandbox: in memory if there is room, where making a cluster takes a tenth of the time. Its path is short: a
    /// socket's path may have 107 bytes.
    pub fn new() -> Sandbox {
        if has_room(Path::new(MEMORY)) { Sandbox::below(workshop_in_memory()) } else { Sandbox::on_disk() }
    }

    /// One on the disk: for scenarios whose clusters are large, and for some that show the usual on a usual file system.
    pub fn on_disk() -> Sandbox {
        Sandbox::below(workshop())
    }

    fn below(workshop: &Path) -> Sandbox {
        let dir = tempfile::Builder::new().prefix("").tempdir_in(workshop).expect("make a sandbox");
        open_to_server_user(dir.path());
        let sandbox = Sandbox { dir };
        sandbox.make_dir("sockets");
        sandbox
    }

    /// A path inside the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a directory the servers' user owns.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        give_to_server_user(&path);
        path
    }

    /// A new, stopped cluster with checksums: a copy of the one that `initdb` made.
    pub fn server(&self, name: &str) -> Server {
        let server = Server::new(self.dir.path(), name, Installation::usual());
        copy_template(server.installation, &[], SETTINGS, &server.data);
        server
    }

    /// The same, made by other programs than those of version 15. `options` are initdb's.
    pub fn initdb(&self, name: &str, installation: &'static Installation, options: &[&str]) -> Server {
        let server = Server::new(self.dir.path(), name, installation);
        copy_template(installation, options, &installation.settings(), &server.data);
        server
    }

    /// A new, stopped cluster with a system identifier of its own: all others are copies of one that `initdb` made.
    pub fn stranger(&self, name: &str) -> Server {
        let server = Server::new(self.dir.path(), name, Installation::usual());
        template::initdb(server.installation, &[], SETTINGS, &server.data);
        server
    }

    /// The same without data checksums.
    pub fn server_without_checksums(&self, name: &str) -> Server {
        let server = self.server(name);
        run(server_program("pg_checksums").args(["--disable", "--no-sync", "-D"]).arg(&server.data));
        server
    }

    /// A primary and a standby that streams from it, both running.
    pub fn pair(&self) -> (Server, Server) {
        self.pair_of(self.server("old"))
    }

    /// A running primary `a` with two running standbys, `b` and `c`.
    pub fn trio(&self) -> (Server, Server, Server) {
        let mut primary = self.server("a");
        let (mut one, mut other) = (primary.copy("b"), primary.copy("c"));
        primary.start();
        for standby in [&mut one, &mut other] {
            standby.follow(&primary);
            standby.start();
        }
        (primary, one, other)
    }

    /// Starts the given cluster, and a copy of it as its standby.
    pub fn pair_of(&self, mut primary: Server) -> (Server, Server) {
        let mut standby = primary.copy("new");
        primary.start();
        standby.follow(&primary);
        standby.start();
        (primary, standby)
    }
}

/// A directory of links: to the programs of 15, in their place to those that another installation has, and to this
/// program under the name `pg_rewind`.
pub fn bindir_with_our_pg_rewind(sandbox: &Sandbox, others: &Path) -> PathBuf {
    let directory = sandbox.make_dir("bin");
    let programs = [bindir(), others].map(|from| std::fs::read_dir(from).expect("list the server programs"));
    let links = programs.into_iter().flatten().flatten().map(|entry| (entry.file_name(), entry.path()));
    for (name, program) in links.chain([("pg_rewind".into(), binary().into())]) {
        let link = directory.join(name);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(program, &link).expect("link a program");
    }
    directory
}

/// Copies a directory with owners, modes and links.
pub fn copy_tree(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to));
}

/// The directory of this test process, under which everything else lies.
pub fn workshop() -> &'static Path {
    static WORKSHOP: OnceLock<(PathBuf, Child)> = OnceLock::new();
    &WORKSHOP.get_or_init(|| make_workshop(&std::env::temp_dir())).0
}

/// The same in memory.
fn workshop_in_memory() -> &'static Path {
    static WORKSHOP: OnceLock<(PathBuf, Child)> = OnceLock::new();
    &WORKSHOP.get_or_init(|| make_workshop(Path::new(MEMORY))).0
}

/// Whether another sandbox fits into memory, beside those that are there; programs must run from it, too. With
/// `KBRECOVER_TEST_FULL` everything is on the disk.
fn has_room(memory: &Path) -> bool {
    let Ok(space) = rustix::fs::statvfs(memory) else { return false };
    let is_executable = !space.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC);
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available =
        info.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let available = available.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) << 10;
    let room = available.min(space.f_bavail * space.f_frsize);
    is_executable && room >= 6 << 30 && std::env::var_os("KBRECOVER_TEST_FULL").is_none()
}

/// Makes a directory that does not outlive this test process.
///
/// A shell waits for the end of this process, however it ends, then stops any server left over and removes the
/// directory: it reads from a pipe whose other end only this process holds.
fn make_workshop(parent: &Path) -> (PathBuf, Child) {
    let made = tempfile::Builder::new().prefix("kb-").tempdir_in(parent);
    let path = made.expect("make a temporary directory").keep();
    open_to_server_user(&path);
    let clean_up = "trap '' INT TERM; read _
        for pid in $(sed -s -n 1p \"$0\"/*/*/postmaster.pid 2>/dev/null); do kill -QUIT $pid; done
        chmod -R u+rwX \"$0\"; rm -rf \"$0\" || { sleep 1; rm -rf \"$0\"; }";
    let janitor = Command::new("sh")
        .args(["-c", clean_up])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run sh");
    (path, janitor)
}

fn open_to_server_user(dir: &Path) {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
        .expect("open a temporary directory");
    give_to_server_user(dir);
}
