//! Running the program under test.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::program::{AsServerUser, bindir, give_to_server_user, run};
use super::sandbox::workshop;
use super::seed::{replay_from, verifies};
use super::server::Server;
use super::tree::Tree;

/// Which of the two kinds of source a rewind reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// `--source-server`: a running server.
    Server,
    /// `--source-data`: the directory of a stopped one.
    Directory,
}

/// What a run of the program left: exit code and both outputs.
pub struct Run {
    /// The exit code.
    pub code: i32,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

/// A `kbrecover rewind` being put together.
pub struct Rewind {
    target: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
}

impl Rewind {
    /// `kbrecover rewind --target-data DIR`.
    pub fn of(target: &Server) -> Rewind {
        Rewind::of_directory(&target.data)
    }

    /// The same, for a directory that need not be a server's.
    pub fn of_directory(target: &Path) -> Rewind {
        // Nothing here outlives the test, and fsync would only slow it down.
        let args = ["rewind".into(), "--no-sync".into(), "--target-data".into(), target.into()].into();
        let rewind = Rewind { target: target.into(), args, environment: Vec::new() };
        let rewind = rewind.arg("--replay-from").arg(replay_from());
        if verifies() { rewind.arg("--verify") } else { rewind }
    }

    /// Without `--verify`, also where the seed has chosen it: for a scenario that counts or cuts what is read, or damages blocks.
    pub fn unverified(mut self) -> Rewind {
        self.args.retain(|arg| arg != "--verify");
        self
    }

    /// Does what is asked for about durability; still without waiting for it, unless a scenario says so.
    pub fn synced(mut self) -> Rewind {
        self.args.retain(|arg| arg != "--no-sync");
        self.env("KBRECOVER_SKIP_SYNC", "1")
    }

    /// Sets an environment variable; see `cli/src/faults.rs` for those that make faults.
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Rewind {
        self.environment.push((name, value.as_ref().into()));
        self
    }

    /// The command.
    pub fn command(self) -> Command {
        let mut command = command(self.args);
        command.envs(self.environment);
        command
    }

    /// Names the source.
    pub fn from(self, source: &Server, kind: SourceKind) -> Rewind {
        match kind {
            SourceKind::Server => self.arg("--source-server").arg(source.conninfo()),
            SourceKind::Directory => self.arg("--source-data").arg(&source.data),
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Rewind {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Adds several arguments.
    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Rewind {
        args.into_iter().fold(self, Rewind::arg)
    }

    /// Runs it.
    pub fn run(self) -> Run {
        run_command(self.command())
    }

    /// Runs it; `None` if it was killed.
    pub fn run_unless_killed(self) -> Option<Run> {
        let mut command = self.command();
        let output = unless_busy(&mut command, Command::output);
        Some(Run {
            code: output.status.code()?,
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        })
    }

    /// Starts it.
    pub fn start(self) -> Running {
        Running(std::thread::spawn(move || self.run()))
    }

    /// Runs it, and proves that the target is, byte for byte, what it was.
    pub fn run_leaving_target_alone(self) -> Run {
        let before = Tree::of(&self.target);
        let target = self.target.clone();
        let run = self.run();
        before.assert_unchanged(&target, &run.to_string());
        run
    }

    /// Runs it, and proves that it refuses: exit code 1, an error with these words, a hint with these, target untouched.
    pub fn expect_refusal(self, error: &str, hint: &str) -> Run {
        let run = self.run_leaving_target_alone();
        assert_eq!(run.code, 1, "exit code of a refusal\n{run}");
        let said = |kind: &str, words: &str| {
            run.stderr.lines().any(|line| line.contains(kind) && line.contains(words))
        };
        assert!(
            run.stderr.lines().any(|line| line.starts_with("kbrecover: error: ")),
            "no error line\n{run}"
        );
        assert!(said("kbrecover: error: ", error), "no error that says: {error}\n{run}");
        assert!(said("kbrecover: hint: ", hint), "no hint that says: {hint}\n{run}");
        run
    }
}

impl Run {
    /// Success, and something was rewound.
    pub fn expect_done(self) -> Run {
        self.expect_rewound().expect_said("rewinding from last common checkpoint at")
    }

    /// The same, and the data of both sides was compared for it.
    pub fn expect_compared(self) -> Run {
        self.expect_rewound().expect_said("MiB of relation files on both sides")
    }

    /// One or the other.
    pub fn expect_rewound(self) -> Run {
        assert_eq!(self.code, 0, "exit code\n{self}");
        self.assert_nothing_was_wrong();
        assert!(self.stderr.lines().any(|line| line.ends_with("Done!")), "no word of the end\n{self}");
        self
    }

    /// A run that verified all blocks has found none that differs for no reason.
    pub fn assert_nothing_was_wrong(&self) {
        assert!(
            !self.stderr.contains("differed from the source's and were copied"),
            "blocks differed\n{self}"
        );
    }

    /// Success, for there was nothing to do.
    pub fn expect_not_needed(self) -> Run {
        assert_eq!(self.code, 0, "exit code\n{self}");
        assert!(self.stderr.contains("no rewind required"), "no word that no rewind is required\n{self}");
        self
    }

    /// Standard error has these words.
    pub fn expect_said(self, words: &str) -> Run {
        assert!(self.stderr.contains(words), "standard error does not say: {words}\n{self}");
        self
    }

    /// The one JSON object of `--format json`.
    pub fn json(&self) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("standard output is not one JSON value: {e}\n{self}"));
        assert!(value.is_object(), "standard output is not a JSON object\n{self}");
        value
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A run that goes on while the test does something else.
pub struct Running(std::thread::JoinHandle<Run>);

impl Running {
    /// Waits for its end.
    pub fn wait(self) -> Run {
        self.0.join().expect("a run that ended")
    }
}

/// Starts it, to be killed on the way.
pub fn spawn_kbrecover(rewind: Rewind) -> Child {
    let mut command = rewind.command();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("run {command:?}: {e}"))
}

/// The program with any arguments, to be run as the servers' user.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env("PATH", path()).env("TZ", "UTC").as_server_user();
    command
}

/// With the server's programs first: `--ensure-shutdown` looks for them, and so does a version.
fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([bindir().to_path_buf()].into_iter().chain(std::env::split_paths(&path)));
    path.expect("a PATH")
}

/// The program under another name (by a link), to be run as the servers' user.
pub fn command_as<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>) -> Command {
    let link = binary().with_file_name(name);
    // Several tests make it at the same time.
    let _ = std::os::unix::fs::symlink(binary(), &link);
    let mut command = Command::new(link);
    command.args(args).env("PATH", path()).env("TZ", "UTC").as_server_user();
    command
}

/// Runs the program with any arguments, as the servers' user.
pub fn run_kbrecover<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    run_command(command(args))
}

/// Starts a command that runs a copy of a program. Another test that forks while this one writes the copy holds it open for
/// a moment, in which it cannot be run.
pub fn unless_busy<T>(command: &mut Command, start: impl Fn(&mut Command) -> io::Result<T>) -> T {
    loop {
        match start(command) {
            Ok(started) => return started,
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("run {command:?}: {error}"),
        }
    }
}

/// Runs a command to its end, however it ends.
pub fn run_command(mut command: Command) -> Run {
    let output = unless_busy(&mut command, Command::output);
    Run {
        code: output.status.code().unwrap_or_else(|| panic!("{command:?} was killed: {}", output.status)),
        stdout: String::from_utf8(output.stdout).expect("standard output in UTF-8"),
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    }
}

/// The program: what cargo built, or what `KBRECOVER_BIN` names. A copy, since cargo's directory may lie where the
/// servers' user cannot go.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built =
            std::env::var_os("KBRECOVER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kbrecover").into());
        let copy = workshop().join("kbrecover");
        // By another process: what this one has open for writing when a thread forks, nobody can run meanwhile.
        run(Command::new("cp").arg(&built).arg(&copy));
        give_to_server_user(&copy);
        copy
    })
}

/// Sends SIGTERM to a run as soon as the program that it has started has written a process id of its own into `mark`, and
/// `meanwhile` is done. Proves that both end, and sooner than a run that found no safe point would; returns how the run
/// ended, and its standard error.
pub fn end_with_children(run: Child, mark: &Path, meanwhile: impl FnOnce()) -> (ExitStatus, String) {
    let begin = Instant::now();
    let child = loop {
        let text = std::fs::read_to_string(mark).unwrap_or_default();
        if text.ends_with('\n') {
            break text.trim().to_owned();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing was started");
        std::thread::sleep(Duration::from_millis(20));
    };
    let is_there =
        || std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(is_there());
    meanwhile();
    let begin = Instant::now();
    let killed = Command::new("kill").arg(run.id().to_string()).status().expect("run kill");
    assert!(killed.success());
    let output = run.wait_with_output().expect("wait for kbrecover");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // It has its signal; it may take a moment to be gone.
    for _ in 0..100 {
        if !is_there() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!is_there(), "process {child} was left behind\n{said}");
    assert!(begin.elapsed() < Duration::from_secs(9), "it took {:?}\n{said}", begin.elapsed());
    (output.status, said)
}
