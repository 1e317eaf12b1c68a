//! Running another program to its end.
//!
//! A child gets nothing on its standard input and none of our standard output: whoever reads that may be
//! a cluster manager that takes any line for an answer. What a child says becomes `tracing` events of
//! the target [`CHILD`], line by line, and the end of it is kept for an error message. Each child leads
//! its own process group, so that a time limit ends what it started as well. That also keeps a signal to this
//! program's group away from it: whoever ends this program calls [`end_all`].

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

/// The `tracing` target of lines that a child wrote.
pub const CHILD: &str = "kbrecover::child";

/// A child that has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// The last lines it wrote to standard output and standard error, mixed as they came.
    pub output: String,
}

/// Starts `command`, waits for its end and takes what it writes meanwhile.
///
/// Programs that it leaves running in the background are not waited for.
///
/// # Errors
/// It cannot be started, or runs longer than `limit` and is ended then.
pub fn run(command: &mut Command, limit: Option<Duration>) -> Result<Finished, CommandError> {
    run_with(command, limit, Telling::Lines, None)
}

/// As [`run`], for a child that must not be cut off in the middle: [`end_all`] leaves it alone, with what it starts.
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

/// As [`run`], for a child that is only asked something: what it writes is not passed on.
///
/// # Errors
/// As [`run`].
pub fn run_quietly(command: &mut Command, limit: Option<Duration>) -> Result<Finished, CommandError> {
    run_with(command, limit, Telling::Nothing, None)
}

/// As [`run`], but the child and what it started are ended as soon as a stop is asked for.
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

/// How a child ended, in the words of the server's programs.
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

/// Why a program could not be run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It cannot be started.
    #[error("could not execute \"{program}\"")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The operating system lost it.
    #[error("could not wait for \"{program}\"")]
    Wait {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("\"{program}\" did not end within {} seconds and was stopped", limit.as_secs())]
    TimedOut {
        /// The program.
        program: String,
        /// What it was given.
        limit: Duration,
    },
    /// Somebody asked for an end of everything.
    #[error("\"{program}\" was stopped")]
    Stopped {
        /// The program.
        program: String,
    },
}

/// What becomes of the lines that a child writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// They are passed on as events.
    Lines,
    /// Only the last of them are kept.
    Nothing,
}

/// The children that run, and whether there are to be none any more.
struct Running {
    groups: Vec<Pid>,
    is_over: bool,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { groups: Vec::new(), is_over: false });

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has every child asked to end, with what it started, and starts no other: this program was told to stop. Calls
/// that wait for a child make it end if it does not by itself, and return [`CommandError::Stopped`].
pub fn end_all() {
    let mut running = running();
    running.is_over = true;
    for group in &running.groups {
        // A group that is gone already needs no signal.
        let _ = kill_process_group(*group, Signal::TERM);
    }
}

/// Waits for the end of the children after [`end_all`], with what they started. Whoever waits for a child kills what takes
/// longer than `STOP_GRACE`; in case nobody does, it is killed here.
pub fn wait_for_end() {
    let is_over = || running().groups.is_empty();
    if !wait_until(Instant::now() + STOP_GRACE + KILL_GRACE, is_over) {
        for group in &running().groups {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        wait_until(Instant::now() + KILL_GRACE, is_over);
    }
}

/// A child's place among those that run.
struct Registered(Pid);

impl Drop for Registered {
    fn drop(&mut self) {
        running().groups.retain(|group| *group != self.0);
    }
}

/// Starts a child, unless there are to be none any more.
fn start(command: &mut Command, program: &str) -> Result<(Child, Registered), CommandError> {
    // Held, so that no child can be missed by who ends them all.
    let mut running = running();
    if running.is_over {
        return Err(CommandError::Stopped { program: program.to_owned() });
    }
    let child = spawn(command, program)?;
    let group = Pid::from_child(&child);
    running.groups.push(group);
    Ok((child, Registered(group)))
}

/// Starts a child in a process group of its own.
fn spawn(command: &mut Command, program: &str) -> Result<Child, CommandError> {
    // Not with its arguments: a restore_command may carry a password.
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
    let is_stopped = || stop.is_some_and(StopFlag::is_requested) || running().is_over;
    let finished = watch(child, program.clone(), limit, telling, &is_stopped)?;
    if is_stopped() {
        // It ended by itself, or when everybody was asked to. What it started need not have.
        end(registered.0, &mut || true);
        if !finished.status.success() {
            return Err(CommandError::Stopped { program });
        }
    }
    Ok(finished)
}

/// Waits for a child, and takes what it writes.
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
        take_lines(stream, telling, Arc::clone(&tail), closed.clone());
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
    // A background process may hold the pipes open for as long as it likes.
    wait_for_close(&pipes, Instant::now() + Duration::from_millis(500));
    let output = tail.lock().unwrap_or_else(PoisonError::into_inner).text();
    Ok(Finished { status, output })
}

/// How long a child may take to end after it was asked to, with what it started.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long it may take to be gone after it was killed.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Waits for the child to end; `None` if the deadline or a stop comes first.
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
        // A child's pipes close when it ends, which wakes us earlier than the pause would.
        if open {
            open = wait_for_close(pipes, Instant::now() + pause);
        } else {
            thread::sleep(pause);
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Waits until all pipes are closed, at most until then; says whether one is still open.
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

/// Asks a whole group to end, then makes it, and returns when it is gone: all that a child has started, and the child,
/// which `is_reaped` looks after.
fn end(group: Pid, is_reaped: &mut dyn FnMut() -> bool) {
    // A group has its number for as long as one of its processes is there, so this is no other one's.
    let mut is_gone = || is_reaped() && test_kill_process_group(group).is_err();
    // A group that is gone already needs no signal.
    let _ = kill_process_group(group, Signal::TERM);
    if !wait_until(Instant::now() + STOP_GRACE, &mut is_gone) {
        let _ = kill_process_group(group, Signal::KILL);
        // Only one that the kernel does not let go, or whose parent does not ask for its end, is there yet.
        wait_until(Instant::now() + KILL_GRACE, &mut is_gone);
    }
}

/// Waits until something is so; says whether it was in time.
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

fn take_lines(stream: Box<dyn Read + Send>, telling: Telling, tail: Arc<Mutex<Tail>>, closed: Sender<()>) {
    thread::spawn(move || {
        // Sent when the thread ends, by dropping it: that closes this pipe's half of the channel.
        let _closed = closed;
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        // A line without end is passed on in pieces instead of being collected.
        while let Ok(1..) = stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(line.trim_ascii_end());
            if telling == Telling::Lines {
                tracing::info!(target: CHILD, "{text}");
            }
            tail.lock().unwrap_or_else(PoisonError::into_inner).push(&text);
            line.clear();
        }
    });
}

const MAX_LINE: u64 = 8192;

/// The last lines of an output.
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

    /// Whether the process whose number `file` holds has ended.
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
        // Who ends when asked is not waited for any longer; it may take seconds until an orphan is reaped.
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
