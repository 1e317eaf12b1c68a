//! Finding and running programs, as a user whom a PostgreSQL server accepts.
//!
//! Servers and kbrecover refuse root. When the tests run as root, every such program runs as the user `postgres`;
//! otherwise as whoever runs the tests.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The account of the servers when the tests run as root.
const SERVER_USER: &str = "postgres";

/// Whether the tests themselves run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").expect("read /proc/self").uid() == 0
}

/// Run a command, or own a file, as the servers' user.
pub trait AsServerUser {
    /// Gives `self` to the servers' user.
    fn as_server_user(&mut self) -> &mut Self;
}

impl AsServerUser for Command {
    fn as_server_user(&mut self) -> &mut Self {
        // The directory the tests were started from may be closed to that user.
        self.current_dir("/");
        if let Some((uid, gid)) = server_ids() {
            self.uid(uid).gid(gid).env("HOME", "/").env("USER", SERVER_USER);
        }
        self
    }
}

impl AsServerUser for Path {
    fn as_server_user(&mut self) -> &mut Self {
        give_to_server_user(self);
        self
    }
}

/// Makes the servers' user the owner of one file, directory or symbolic link.
pub fn give_to_server_user(path: &Path) {
    if let Some((uid, gid)) = server_ids() {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
    }
}

/// uid and gid to change to; none when the tests do not run as root.
fn server_ids() -> Option<(u32, u32)> {
    static IDS: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *IDS.get_or_init(|| is_root().then(|| (id_of("-u"), id_of("-g"))))
}

fn id_of(flag: &str) -> u32 {
    let output = Command::new("id").args([flag, SERVER_USER]).output().expect("run id");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_else(|_| {
        panic!(
            "the tests run as root and need the user {SERVER_USER}, who does not exist: install postgresql-15"
        )
    })
}

/// A command for a program of version 15 such as `initdb`, run as the servers' user.
pub fn server_program(name: &str) -> Command {
    let path = bindir().join(name);
    assert!(path.exists(), "{} does not exist: install postgresql-15 or set PG_BINDIR", path.display());
    server_command(&path)
}

/// A command for any server program, run as the servers' user.
pub(super) fn server_command(path: &Path) -> Command {
    let mut command = Command::new(path);
    // Settings of whoever runs the tests must not reach the servers.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC").as_server_user();
    command
}

/// Where the server programs are: `PG_BINDIR`, Debian's place for version 15, or what pg_config says.
pub fn bindir() -> &'static Path {
    static BINDIR: OnceLock<PathBuf> = OnceLock::new();
    BINDIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("PG_BINDIR") {
            return dir.into();
        }
        let debian = Path::new("/usr/lib/postgresql/15/bin");
        if debian.join("postgres").exists() {
            return debian.into();
        }
        let output = Command::new("pg_config").arg("--bindir").output();
        let output = output.expect("no PostgreSQL 15 found: install postgresql-15 or set PG_BINDIR");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

/// Panics because a scenario cannot mount what it needs, unless it was said beforehand that nothing can be mounted here.
pub fn could_not_mount(scenario: &str, why: &str) {
    #[expect(clippy::print_stdout, reason = "a test that tries nothing must say so")]
    if std::env::var_os("KBRECOVER_TESTS_WITHOUT_MOUNT").is_some() {
        println!("NOT TRIED: {scenario}, because nothing can be mounted here: {why}");
        return;
    }
    panic!(
        "{scenario} cannot be tried, because nothing can be mounted here (this takes root with CAP_SYS_ADMIN; \
         KBRECOVER_TESTS_WITHOUT_MOUNT=1 leaves this scenario out): {why}"
    );
}

/// Runs a command to its end; panics with all it printed unless it succeeds.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("run {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
