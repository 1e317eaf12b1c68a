//! The check of the pool's own process, which root's cron runs each minute on the nodes with a pool, in the place of
//! `restartcluster.sh`: a pool that is gone is started again, and one on a node without network is ended, so that the pool of
//! another node can take its address.

mod config;
mod process;

use std::fs::OpenOptions;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

pub use config::PoolModule;

use crate::files::{self, file_error};
use crate::flow::{
    self, Decision, FlowReport, Run, Step, StepError, StepResult, StepState, Watch, no_action,
};
use crate::ping;
use crate::programs;
use crate::recovery_log::{RecoveryLog, timestamp};

/// The input of [`watch_pool`].
#[non_exhaustive]
pub struct PoolRequest<'a> {
    /// The settings.
    pub config: &'a PoolModule,
    /// Whether the steps act or only check.
    pub run: Run,
    /// The log.
    pub log: &'a RecoveryLog,
    /// Called at the beginning and the end of each action.
    pub watch: Watch<'a>,
}

impl<'a> PoolRequest<'a> {
    /// A run as from cron.
    pub fn new(config: &'a PoolModule, log: &'a RecoveryLog) -> PoolRequest<'a> {
        PoolRequest { config, run: Run::Real, log, watch: flow::UNWATCHED }
    }
}

/// What the steps know.
struct Pool<'a> {
    config: &'a PoolModule,
    /// Whether a trusted gateway responds.
    has_network: bool,
}

/// How long a pool that was started is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Starts the pool if it is gone and a trusted gateway responds, and ends it if none responds. The caller prevents concurrent
/// runs.
///
/// ```no_run
/// use std::path::Path;
///
/// use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
/// use kbrecover_hooks::v8r3::{PoolModule, PoolRequest, watch_pool};
///
/// let config = PoolModule::read(Path::new("/home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf"))?;
/// let log = RecoveryLog::open(Some(&config.log), Echo::On)?;
/// assert!(watch_pool(&PoolRequest::new(&config, &log)).is_success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn watch_pool(request: &PoolRequest<'_>) -> FlowReport {
    let PoolRequest { config, run, log, watch } = *request;
    let steps = [
        Step::new("network", check_network, no_action),
        Step::new("pool", check_pool, end_pool),
        Step::new("leftovers", check_leftovers, remove_leftovers),
        Step::new("start", check_start, start),
    ];
    let mut ended = |result: &StepResult| {
        let StepResult { name, state, text, .. } = result;
        let text = match state {
            StepState::Failed => format!("ERROR: {name}: {text}"),
            StepState::Would => format!("would {name}: {text}"),
            _ => text.clone(),
        };
        if !text.is_empty() {
            log.line(&format!("{} {text}", timestamp()));
        }
    };
    let mut begun = |name: &str, what: &str| log.line(&format!("{} {name}: {what}", timestamp()));
    let mut pool = Pool { config, has_network: false };
    let report = flow::run(&steps, &mut pool, run, watch, &mut begun, &mut ended);
    if let Some(hint) = &report.hint {
        log.line(&format!("{} HINT: {hint}", timestamp()));
    }
    // A pool that runs as it should is no news.
    if report.end() != StepState::Finished || !pool.has_network || report.steps.len() > 2 {
        log.release();
    }
    report
}

fn check_network(pool: &mut Pool<'_>) -> Result<Decision, StepError> {
    let config = pool.config;
    for round in 0..config.retries.max(1) {
        if round > 0 {
            thread::sleep(config.retry_delay);
        }
        for gateway in &config.gateways {
            if ping::responds(gateway, config.ping_times)? {
                pool.has_network = true;
                return Ok(Decision::Pass(format!("ping trust ip {gateway} success")));
            }
        }
    }
    Ok(Decision::Skip(format!("none of the trusted gateways responds ({})", config.gateways.join(", "))))
}

fn check_pool(pool: &mut Pool<'_>) -> Result<Decision, StepError> {
    let name = name(pool.config);
    Ok(match (process::find(&pool.config.program), pool.has_network) {
        (Some(_), true) => Decision::Finish(format!("{name} is still alive.")),
        (Some(process), false) => Decision::Act(format!("end {name} (process {process})")),
        (None, true) => Decision::Pass(format!("{name} is not running")),
        (None, false) => {
            Decision::Finish(format!("{name} is not running, and is not started without a network"))
        }
    })
}

fn end_pool(pool: &mut Pool<'_>) -> Result<String, StepError> {
    let program = &pool.config.program;
    match process::end(program) {
        true => Ok(format!("{} was ended", name(pool.config))),
        false => Err(StepError::new(format!("\"{}\" could not be ended", program.display()))
            .hint("Run this command as the user of the pool's processes, or as root.")),
    }
}

/// What a pool that was killed has left behind. It would not start with its sockets and its process ID there, and would take
/// the states of the nodes from a time before.
fn check_leftovers(pool: &mut Pool<'_>) -> Result<Decision, StepError> {
    if !pool.has_network {
        return Ok(Decision::Finish(String::new()));
    }
    let left = leftovers(pool.config)?;
    for socket in left.iter().filter(|path| pool.config.sockets.contains(path)) {
        if !is_abandoned(socket) {
            return Ok(Decision::Refuse(format!(
                "{} does not run, but a process accepts connections on \"{}\", or it may: nothing is removed, and no pool is started",
                pool.config.program.display(),
                socket.display()
            )));
        }
    }
    let shown: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
    Ok(match shown.is_empty() {
        true => Decision::Skip(String::new()),
        false => Decision::Act(format!("remove {}", shown.join(", "))),
    })
}

/// Whether certainly no process accepts connections on a socket. Does not wait: a process that is slow to accept is one.
fn is_abandoned(socket: &Path) -> bool {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let tried = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let own = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&own, &SocketAddrUnix::new(socket)?)
    };
    matches!(tried(), Err(Errno::CONNREFUSED | Errno::NOENT))
}

fn remove_leftovers(pool: &mut Pool<'_>) -> Result<String, StepError> {
    for path in leftovers(pool.config)? {
        files::remove(&path)?;
    }
    Ok(String::new())
}

/// The sockets and files that are there. A symbolic link is not followed, and nothing of another kind is removed.
fn leftovers(config: &PoolModule) -> Result<Vec<PathBuf>, StepError> {
    let mut found = Vec::new();
    let sockets = config.sockets.iter().map(|path| (path, true));
    for (path, is_socket) in sockets.chain(config.files.iter().map(|path| (path, false))) {
        let Ok(entry) = path.symlink_metadata() else { continue };
        let is_of_kind = if is_socket { entry.file_type().is_socket() } else { entry.is_file() };
        if !is_of_kind {
            let wanted = if is_socket { "socket" } else { "regular file" };
            return Err(StepError::new(format!(
                "\"{}\" is not a {wanted}, and is not removed",
                path.display()
            ))
            .hint(
                "Check KINGBASECLUSTERSOCKET1 to 4, CLUSTER_STAT_FILE and POOL_PID_FILE in HAmodule.conf.",
            ));
        }
        found.push(path.clone());
    }
    Ok(found)
}

fn check_start(pool: &mut Pool<'_>) -> Result<Decision, StepError> {
    let program = &pool.config.program;
    if !programs::is_executable(program) {
        return Err(StepError::new(format!(
            "\"{}\" is no program that this user can run",
            program.display()
        ))
        .hint("CLUSTER_BIN_PATH is the directory of the pool's program, POOL_EXENAME its name."));
    }
    Ok(Decision::Act(
        format!("start {} -n {}", program.display(), pool.config.options.join(" ")).trim_end().into(),
    ))
}

fn start(pool: &mut Pool<'_>) -> Result<String, StepError> {
    let PoolModule { program, options, output, .. } = pool.config;
    let failed = |error| file_error("open", output, &error);
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let log = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(output);
    let log = log.map_err(failed)?;
    let mut command = Command::new(program);
    // In a process group of its own: it goes on when this program, or cron, ends.
    command.arg("-n").args(options).process_group(0).stdin(Stdio::null());
    command.stdout(log.try_clone().map_err(failed)?).stderr(log);
    let child = command.spawn().map_err(|error| file_error("execute", program, &error))?;
    watch_start(pool.config, child)
}

/// Waits until a pool that was started accepts connections, or for a while if it is not known where it does.
fn watch_start(config: &PoolModule, mut child: Child) -> Result<String, StepError> {
    let deadline = Instant::now() + WATCHED;
    let (name, process) = (name(config), child.id());
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(StepError::new(format!("{name} ended after it was started ({status})"))
                .hint(format!("\"{}\" says why.", config.output.display())));
        }
        if config.sockets.first().is_some_and(|socket| UnixStream::connect(socket).is_ok()) {
            return Ok(format!("{name} was started (process {process})"));
        }
        if Instant::now() >= deadline {
            return Ok(format!("{name} was started (process {process}); it accepts no connections yet"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The name of the program, as the vendor's script logs it.
fn name(config: &PoolModule) -> String {
    config.program.file_name().unwrap_or(Path::new("").as_os_str()).to_string_lossy().into_owned()
}
