//! Running other programs, with time limits.
//!
//! A child has an empty standard input and does not inherit our standard output, which a cluster manager may parse. Its
//! output lines become `tracing` events with the target [`CHILD`], and the last ones are kept for error messages. Each
//! child leads a process group of its own, so that a time limit also ends the processes it has started. Signals to our own
//! process group therefore do not reach children: a program that ends calls [`end_all`].
//!
//! ```
//! use std::process::Command;
//! use std::time::Duration;
//!
//! use kbrecover_rewind::command;
//!
//! let finished = command::run(Command::new("echo").arg("ready"), Some(Duration::from_secs(10)))?;
//! assert!(finished.status.success());
//! assert_eq!(finished.output, "ready");
//! # Ok::<(), command::CommandError>(())
//! ```

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::stop::StopFlag;

/// The `tracing` target of output lines of children.
pub const CHILD: &str = "kbrecover::child";

/// A child that has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// The last lines of its standard output and standard error, in order of arrival.
    pub output: String,
}

/// Runs `command`, collects its output, and waits until it ends. Processes that it leaves running in the background are
/// not waited for.
///
/// # Errors
/// It cannot be started; it runs longer than `limit`, and was terminated; [`end_all`] was called.
pub fn run(command: &mut Command, limit: Option<Duration>) -> Result<Finished, CommandError> {
    run_with(command, limit, Telling::Lines, None)
}

/// As [`run`]. Also returns the processes that the child has left running, if there are any.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_leaving(
    command: &mut Command,
    limit: Option<Duration>,
) -> Result<(Finished, Option<Background>), CommandError> {
    let program = program_name(command);
    let (child, registered) = start(command, &program)?;
    let left = Background(registered.0);
    let finished = run_registered(child, &registered, program, limit, Telling::Lines, None)?;
    Ok((finished, Some(left).filter(Background::is_running)))
}

/// The process group of a child that has ended. Dropping it terminates the processes that are left.
#[derive(Debug)]
pub(crate) struct Background(Pid);

impl Background {
    /// Whether there are any.
    pub(crate) fn is_running(&self) -> bool {
        has_members(self.0)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The group's number is not reused as long as one of its processes exists.
        if self.is_running() {
            end(self.0, &mut || true);
        }
    }
}

/// As [`run`], for a child that must not be interrupted: [`end_all`] does not terminate it.
///
/// # Errors
/// As [`run`].
pub fn run_to_its_end(command: &mut Command, limit: Option<Duration>) -> Result<Finished, CommandError> {
    let program = program_name(command);
    if running().is_over {
        return Err(CommandError::Stopped { program });
    }
    let child = spawn(command, &program)?;
    watch(child, program, limit, Telling::Lines, &|| false)
}

/// As [`run`], for a child that is only queried: its output is not passed on as events.
///
/// # Errors
/// As [`run`].
pub fn run_quietly(command: &mut Command, limit: Option<Duration>) -> Result<Finished, CommandError> {
    run_with(command, limit, Telling::Nothing, None)
}

/// As [`run`], but the child and its process group are also terminated when `stop` is requested.
///
/// # Errors
/// As [`run`], and [`CommandError::Stopped`].
pub fn run_until(
    command: &mut Command,
    limit: Duration,
    telling: Telling,
    stop: &StopFlag,
) -> Result<Finished, CommandError> {
    run_with(command, Some(limit), telling, Some(stop))
}

/// How a child ended, in the words of PostgreSQL's programs.
pub struct ExitReason(pub ExitStatus);

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(126), _) => f.write_str("command not executable"),
            (Some(127), _) => f.write_str("command not found"),
            (Some(code), _) => write!(f, "child process exited with exit code {code}"),
            (None, Some(signal)) => write!(f, "child process was terminated by signal {signal}"),
            (None, None) => write!(f, "child process ended: {}", self.0),
        }
    }
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It could not be started.
    #[error("could not execute \"{program}\"")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Its exit status could not be obtained.
    #[error("could not wait for \"{program}\"")]
    Wait {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It exceeded its time limit.
    #[error("\"{program}\" did not end within {} seconds and was stopped", limit.as_secs())]
    TimedOut {
        /// The program.
        program: String,
        /// The time limit.
        limit: Duration,
    },
    /// It was terminated by a request to stop, or not started because of one.
    #[error("\"{program}\" was stopped")]
    Stopped {
        /// The program.
        program: String,
    },
}

/// What happens to the output lines of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Telling {
    /// They become events, and the last ones are kept.
    Lines,
    /// The last ones are kept.
    Nothing,
}

/// The running children, and whether new ones may be started.
struct Running {
    groups: Vec<Pid>,
    is_over: bool,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { groups: Vec::new(), is_over: false });

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends SIGTERM to the process group of every child, and prevents the start of new ones, because this program was asked
/// to stop. Calls that wait for a child kill it if it does not end in time, and return [`CommandError::Stopped`].
pub fn end_all() {
    let mut running = running();
    running.is_over = true;
    for group in &running.groups {
        // An error means that the group has already ended.
        let _ = kill_process_group(*group, Signal::TERM);
    }
}

/// Waits for the end of all children after [`end_all`]. The calls that wait for a child kill its process group after a
/// grace period; groups for which no call is waiting are killed here.
pub fn wait_for_end() {
    let is_over = || running().groups.is_empty();
    if !wait_until(Instant::now() + STOP_GRACE + KILL_GRACE, is_over) {
        for group in &running().groups {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        wait_until(Instant::now() + KILL_GRACE, is_over);
    }
}

/// The registration of a running child.
struct Registered(Pid);

impl Drop for Registered {
    fn drop(&mut self) {
        running().groups.retain(|group| *group != self.0);
    }
}

/// Starts and registers a child, unless [`end_all`] was called.
fn start(command: &mut Command, program: &str) -> Result<(Child, Registered), CommandError> {
    // The lock is held until the child is registered, so that end_all cannot miss it.
    let mut running = running();
    if running.is_over {
        return Err(CommandError::Stopped { program: program.to_owned() });
    }
    let child = spawn(command, program)?;
    let group = Pid::from_child(&child);
    running.groups.push(group);
    Ok((child, Registered(group)))
}

/// Starts a child in its own process group.
fn spawn(command: &mut Command, program: &str) -> Result<Child, CommandError> {
    // Without the arguments: a restore_command may contain a password.
    tracing::debug!("executing \"{program}\"");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| CommandError::Start { program: program.to_owned(), source })
}

fn run_with(
    command: &mut Command,
    limit: Option<Duration>,
    telling: Telling,
    stop: Option<&StopFlag>,
) -> Result<Finished, CommandError> {
    let program = program_name(command);
    let (child, registered) = start(command, &program)?;
    run_registered(child, &registered, program, limit, telling, stop)
}

fn run_registered(
    child: Child,
    registered: &Registered,
    program: String,
    limit: Option<Duration>,
    telling: Telling,
    stop: Option<&StopFlag>,
) -> Result<Finished, CommandError> {
    let is_stopped = || stop.is_some_and(StopFlag::is_requested) || running().is_over;
    let finished = watch(child, program.clone(), limit, telling, &is_stopped)?;
    if is_stopped() {
        // The child has ended, but processes that it started may still run.
        end(registered.0, &mut || true);
        if !finished.status.success() {
            return Err(CommandError::Stopped { program });
        }
    }
    Ok(finished)
}

/// Waits for a child and collects its output.
fn watch(
    mut child: Child,
    program: String,
    limit: Option<Duration>,
    telling: Telling,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Finished, CommandError> {
    let started = Instant::now();
    let tail = Arc::new(Mutex::new(Tail::default()));
    let (closed, pipes) = channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    for stream in streams.into_iter().flatten() {
        if let Err(source) = take_lines(stream, telling, Arc::clone(&tail), closed.clone()) {
            end(Pid::from_child(&child), &mut || !matches!(child.try_wait(), Ok(None)));
            return Err(CommandError::Start { program, source });
        }
    }
    drop(closed);

    let waited = wait(&mut child, &pipes, limit.map(|limit| started + limit), is_stopped);
    let status = match waited.map_err(|source| CommandError::Wait { program: program.clone(), source })? {
        Some(status) => status,
        None => {
            end(Pid::from_child(&child), &mut || !matches!(child.try_wait(), Ok(None)));
            if is_stopped() {
                return Err(CommandError::Stopped { program });
            }
            let limit = limit.unwrap_or_default();
            return Err(CommandError::TimedOut { program, limit });
        }
    };
    // A background process may hold the pipes open for an unlimited time. What the child itself has written is in them
    // already; it matters most if the child has failed.
    let patience = if status.success() { 50 } else { 500 };
    wait_for_close(&pipes, Instant::now() + Duration::from_millis(patience));
    let output = tail.lock().unwrap_or_else(PoisonError::into_inner).text();
    Ok(Finished { status, output })
}

/// How long a process group may take to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long it may take to disappear after SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Waits until the child ends; `None` if the deadline or a request to stop comes first.
fn wait(
    child: &mut Child,
    pipes: &Receiver<()>,
    deadline: Option<Instant>,
    is_stopped: &dyn Fn() -> bool,
) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    let mut open = true;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if is_stopped() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        // The pipes close when the child ends, so waiting for that notices the end sooner than sleeping.
        if open {
            open = wait_for_close(pipes, Instant::now() + pause);
        } else {
            thread::sleep(pause);
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Waits until all pipes are closed or `until` is reached. Returns whether one is still open.
fn wait_for_close(pipes: &Receiver<()>, until: Instant) -> bool {
    use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
    loop {
        match pipes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(()) => {}
            Err(Timeout) => return true,
            Err(Disconnected) => return false,
        }
    }
}

/// Terminates a process group, at first with SIGTERM, then with SIGKILL, and returns when it is gone. `is_reaped` returns
/// whether the child itself has been waited for.
fn end(group: Pid, is_reaped: &mut dyn FnMut() -> bool) {
    // The group's number is not reused as long as one of its processes exists.
    let mut is_gone = || is_reaped() && !has_members(group);
    // A group that is gone already needs no signal.
    let _ = kill_process_group(group, Signal::TERM);
    if !wait_until(Instant::now() + STOP_GRACE, &mut is_gone) {
        let _ = kill_process_group(group, Signal::KILL);
        // What remains is in an uninterruptible system call, or a zombie whose parent does not wait for it.
        wait_until(Instant::now() + KILL_GRACE, &mut is_gone);
    }
}

/// Whether a process group has processes, other than zombies that nobody waits for: in a container process 1 may wait for
/// none of its adopted children.
fn has_members(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    let mut zombies = 0;
    for process in processes.flatten() {
        let Ok(stat) = std::fs::read(process.path().join("stat")) else { continue };
        // `PID (NAME) STATE PPID PGRP ...`, where NAME may contain anything.
        let Some(end) = stat.iter().rposition(|byte| *byte == b')') else { continue };
        let text = String::from_utf8_lossy(&stat[end + 1..]);
        let mut fields = text.split_whitespace();
        let (state, of) = (fields.next(), fields.nth(1));
        if of.and_then(|of| of.parse().ok()) == Some(group.as_raw_nonzero().get()) {
            match state {
                Some("Z" | "X") => zombies += 1,
                _ => return true,
            }
        }
    }
    // Processes that /proc does not show count.
    zombies == 0
}

/// Polls a condition until the deadline. Returns whether it became true.
fn wait_until(deadline: Instant, mut is_so: impl FnMut() -> bool) -> bool {
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Collects the lines of a stream on a thread of its own.
fn take_lines(
    stream: Box<dyn Read + Send>,
    telling: Telling,
    tail: Arc<Mutex<Tail>>,
    closed: Sender<()>,
) -> io::Result<()> {
    let take = move || {
        // Dropped when the thread ends, which closes this pipe's end of the channel.
        let _closed = closed;
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        // A very long line is passed on in pieces.
        while let Ok(1..) = stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(line.trim_ascii_end());
            if telling == Telling::Lines {
                tracing::info!(target: CHILD, "{text}");
            }
            tail.lock().unwrap_or_else(PoisonError::into_inner).push(&text);
            line.clear();
        }
    };
    thread::Builder::new().spawn(take).map(drop)
}

const MAX_LINE: u64 = 8192;

/// The last lines of the output.
#[derive(Default)]
struct Tail(VecDeque<String>);

impl Tail {
    fn push(&mut self, line: &str) {
        const LINES: usize = 20;
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn program_name(command: &Command) -> String {
    OsStr::to_string_lossy(command.get_program()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shell(script: &str, limit: Option<Duration>) -> Result<Finished, CommandError> {
        run(Command::new("/bin/sh").args(["-c", script]), limit)
    }

    #[test]
    fn a_stop_ends_a_child_and_what_it_started() {
        let stop = StopFlag::default();
        let asker = stop.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            asker.request();
        });
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 60 & wait"]);
        let started = Instant::now();
        let ended = run_until(&mut command, Duration::from_secs(60), Telling::Nothing, &stop);
        assert!(matches!(ended, Err(CommandError::Stopped { .. })), "{ended:?}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn output_and_status_come_back() {
        let finished = shell("echo out; echo err >&2; cat; exit 3", None).unwrap();
        let mut lines: Vec<_> = finished.output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["err", "out"]);
        assert_eq!(ExitReason(finished.status).to_string(), "child process exited with exit code 3");
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        let finished = shell("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done", None).unwrap();
        assert_eq!(finished.output.lines().count(), 20);
        assert_eq!(finished.output.lines().last(), Some("line 299"));
        let finished = shell("head -c 20000 /dev/zero | tr '\\0' x", None).unwrap();
        assert_eq!(finished.output.replace('\n', "").len(), 20_000);
    }

    #[test]
    fn a_signal_is_named() {
        let finished = shell("kill -9 $$", None).unwrap();
        assert_eq!(ExitReason(finished.status).to_string(), "child process was terminated by signal 9");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = run(&mut Command::new("/nonexistent/program"), None).unwrap_err();
        assert_eq!(error.to_string(), "could not execute \"/nonexistent/program\"");
    }

    /// Whether the process whose ID is in `file` has ended.
    fn has_ended(file: &Path) -> bool {
        let process: u32 = std::fs::read_to_string(file).unwrap().trim().parse().expect("it was started");
        let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    }

    #[test]
    fn the_time_limit_ends_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("process");
        let script = format!("sleep 60 & echo $! > {}; wait", process.display());
        let (limit, started) = (Duration::from_secs(1), Instant::now());
        let error = shell(&script, Some(limit)).unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }));
        // Processes that end on SIGTERM are not waited for any longer, but reaping an orphan may take seconds.
        assert!(started.elapsed() < limit + STOP_GRACE, "{:?}", started.elapsed());
        assert!(has_ended(&process));
    }

    #[test]
    fn what_a_child_has_started_gets_its_time_to_end_and_is_gone_then() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, process) = (dir.path().join("mark"), dir.path().join("process"));
        let cleans_up = format!("trap 'sleep 0.5; touch {}; exit' TERM", mark.display());
        let script = format!("({cleans_up}; while :; do sleep 0.05; done) & wait");
        shell(&script, Some(Duration::from_secs(1))).unwrap_err();
        assert!(mark.exists());

        let script = format!("(trap '' TERM; exec sleep 60) & echo $! > {}; wait", process.display());
        let (limit, started) = (Duration::from_secs(1), Instant::now());
        shell(&script, Some(limit)).unwrap_err();
        assert!(started.elapsed() >= limit + STOP_GRACE, "{:?}", started.elapsed());
        assert!(has_ended(&process));
    }

    #[test]
    fn what_runs_on_in_the_background_is_not_waited_for() {
        let started = Instant::now();
        let finished = shell("sleep 5 & echo done", None).unwrap();
        assert_eq!(finished.output, "done");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}
