//! The state of a data directory: its control file, its `backup_label`, and whether a server runs on it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walparse::{ControlError, ControlFile, Flavor, Names};

use crate::datadir::data_path::DataPath;
use crate::datadir::label::BackupLabel;
use crate::datadir::process;
use crate::datadir::running::{LockFileLines, ServerState};
use crate::stop::StopFlag;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirectoryError {
    /// A file of the data directory cannot be read.
    #[error("could not open file \"{}\" for reading", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The control file cannot be used.
    #[error("could not use control file \"{}\"", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ControlError,
    },
    /// The `backup_label` is neither a valid label nor the mark of an unfinished rewind.
    #[error("invalid data in file \"{}\"", path.display())]
    Label {
        /// The file.
        path: PathBuf,
    },
    /// A server runs on the directory. The text begins like that of `pg_rewind`.
    #[error("target server must be shut down: lock file \"{}\" names process {pid}", path.display())]
    Running {
        /// The lock file.
        path: PathBuf,
        /// The process ID in it.
        pid: u32,
        /// The program that stops such a server: `pg_ctl` or `sys_ctl`.
        ctl: &'static str,
    },
    /// The lock file names no running server, but processes of one are left.
    #[error("target server must be shut down: server process {pid} works in directory \"{}\"", path.display())]
    ServerProcess {
        /// The data directory.
        path: PathBuf,
        /// The ID of one of these processes.
        pid: u32,
    },
}

impl DataDirectoryError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            DataDirectoryError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "Is this a data directory? Specify the directory that contains PG_VERSION (or SYS_VERSION)."
                    .into()
            }
            DataDirectoryError::Open { .. } => {
                "Run kbrecover as the user who owns the data directory.".into()
            }
            DataDirectoryError::Control { source: ControlError::UnknownVersion { .. }, .. } => {
                let known: Vec<_> = walparse::Version::all().map(walparse::Version::name).collect();
                let forks = walparse::Flavor::all().filter(|flavor| flavor.is_fork());
                let mut forks: Vec<_> = forks.map(walparse::Flavor::product).collect();
                forks.dedup();
                format!(
                    "Supported versions are PostgreSQL {}, and {}.",
                    known.join(", "),
                    forks.join(" and ")
                )
            }
            DataDirectoryError::Control { .. } => {
                "The control file is damaged. Restore it, or take a new base backup.".into()
            }
            DataDirectoryError::Label { .. } => return None,
            DataDirectoryError::Running { ctl, .. } => {
                format!(
                    "Only if this is the old primary, stop it and run again: {ctl} stop -m fast. A rewind discards what only this server has written."
                )
            }
            DataDirectoryError::ServerProcess { pid, .. } => {
                format!(
                    "The postmaster has ended without it, or the lock file was removed. Only if this is the old primary, terminate the process and run again: kill {pid}."
                )
            }
        })
    }
}

/// How long to wait for a server that is shutting down: the default timeout of `pg_ctl stop`.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait for the last processes of a server to end after its lock file has been removed.
const LAST_PROCESSES_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks that `root` is a data directory, by the presence of its version file.
pub(crate) fn check_data_directory(root: &Path, names: &Names) -> Result<(), DataDirectoryError> {
    read(&root.join(names.version_file)).map(drop)
}

/// Reads the control file of the target.
pub(crate) fn target_control(root: &Path, flavor: Flavor) -> Result<ControlFile, DataDirectoryError> {
    let path = root.join(flavor.names().control_file);
    let bytes = read(&path)?;
    ControlFile::parse_as(&bytes, flavor).map_err(|source| DataDirectoryError::Control { path, source })
}

/// The target's `backup_label`; `None` if it has none.
pub(crate) fn backup_label(root: &Path) -> Result<Option<BackupLabel>, DataDirectoryError> {
    let path = root.join("backup_label");
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(BackupLabel::parse(&text).ok_or(DataDirectoryError::Label { path })?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirectoryError::Open { path, source }),
    }
}

/// The lock file of a stopped server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockFile {
    /// There is none, as after a clean shutdown.
    None,
    /// It was left by a crash.
    Stale,
}

/// Checks that no server runs on the directory, and that no process of one is left that may still write.
pub(crate) fn check_not_running(root: &Path, names: &Names) -> Result<LockFile, DataDirectoryError> {
    let path = root.join(names.lock_file);
    if let Some(pid) = lock_file_process(root, names)? {
        return Err(DataDirectoryError::Running { path, pid, ctl: names.ctl_program });
    }
    match process::find_server(root, names) {
        Some(pid) => Err(DataDirectoryError::ServerProcess { path: root.to_owned(), pid }),
        None if path.exists() => Ok(LockFile::Stale),
        None => Ok(LockFile::None),
    }
}

/// As [`check_not_running`], for the start of a run: waits for a server that is shutting down. pg_auto_failover, for
/// example, starts a rewind without waiting for the shutdown it requested. Also, the lock file is removed shortly before
/// the last process ends.
pub(crate) fn check_has_stopped(
    root: &Path,
    names: &Names,
    stop: &StopFlag,
) -> Result<LockFile, DataDirectoryError> {
    let shutdown_deadline = Instant::now() + SHUTDOWN_TIMEOUT;
    let mut last_process_deadline = Instant::now() + LAST_PROCESSES_TIMEOUT;
    let mut is_announced = false;
    loop {
        let checked = check_not_running(root, names);
        let now = Instant::now();
        match checked {
            Err(DataDirectoryError::Running { pid, .. })
                if now < shutdown_deadline && is_stopping(root, names) =>
            {
                last_process_deadline = now + LAST_PROCESSES_TIMEOUT;
                if !is_announced {
                    tracing::info!("target server is shutting down: waiting for process {pid}");
                    is_announced = true;
                }
            }
            Err(DataDirectoryError::ServerProcess { .. }) if now < last_process_deadline => {}
            checked => return checked,
        }
        if stop.is_requested() {
            return checked;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a server is shutting down, as its lock file says from version 10 on.
fn is_stopping(root: &Path, names: &Names) -> bool {
    match LockFileLines::read(root, names) {
        Ok(Some(lines)) => lines.state == Some(ServerState::Stopping),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// The process ID in the lock file (`postmaster.pid` or `kingbase.pid`) of the data directory `root`; `None` if there is
/// no lock file or no server runs.
///
/// A lock file may be left by a crash, and its process ID may have been reused. So the process counts only if its working
/// directory is `root`, as it is for every server. Where that cannot be seen, the process does not count if it can be no
/// server of this directory: if it is this process or one of its ancestors, if another user runs it, or if it runs
/// another program. Everything else is assumed to be the server. The server itself decides alike
/// (`CreateLockFile` in miscinit.c).
///
/// # Errors
/// [`DataDirectoryError::Open`] if the lock file exists but cannot be read.
pub fn lock_file_process(root: &Path, names: &Names) -> Result<Option<u32>, DataDirectoryError> {
    let path = root.join(names.lock_file);
    let text = match std::fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirectoryError::Open { path, source }),
    };
    // A single-user server writes its process ID as a negative number.
    let pid = text.lines().next().and_then(|line| line.trim().trim_start_matches('-').parse::<u32>().ok());
    Ok(pid.filter(|&pid| pid > 0 && process::may_be_server(pid, root, names)))
}

fn read(path: &Path) -> Result<Vec<u8>, DataDirectoryError> {
    std::fs::read(path).map_err(|source| DataDirectoryError::Open { path: path.to_owned(), source })
}

/// The path of the control file below the data directory.
pub(crate) fn control_path(names: &Names) -> DataPath {
    DataPath::parse(names.control_file).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}
