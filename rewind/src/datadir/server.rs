//! A stopped data directory: its control file, its label, and whether a server runs on it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walparse::{ControlError, ControlFile, Flavor, Names};

use crate::datadir::data_path::DataPath;
use crate::datadir::label::BackupLabel;
use crate::stop::StopFlag;

/// Why a data directory cannot be worked on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirectoryError {
    /// A file that every data directory has cannot be read.
    #[error("could not open file \"{}\" for reading", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
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
    /// There is a `backup_label` that cannot be read.
    #[error("invalid data in file \"{}\"", path.display())]
    Label {
        /// The file.
        path: PathBuf,
    },
    /// A server runs on the directory.
    #[error("target server must be shut down: lock file \"{}\" names process {pid}", path.display())]
    Running {
        /// The lock file.
        path: PathBuf,
        /// The process in it.
        pid: u32,
        /// The program that stops it.
        ctl: &'static str,
    },
    /// No lock file names a running server, but processes of one are left.
    #[error("target server must be shut down: server process {pid} works in directory \"{}\"", path.display())]
    ServerProcess {
        /// The data directory.
        path: PathBuf,
        /// The process.
        pid: u32,
    },
}

impl DataDirectoryError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            DataDirectoryError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "Is this a data directory? Give the directory that holds PG_VERSION (or SYS_VERSION).".into()
            }
            DataDirectoryError::Open { .. } => {
                "Run kbrecover as the user who owns the data directory.".into()
            }
            DataDirectoryError::Control { source: ControlError::UnknownVersion { .. }, .. } => {
                let known: Vec<_> = walparse::Version::all().map(walparse::Version::name).collect();
                let forks = walparse::Flavor::all().filter(|flavor| flavor.is_fork());
                let mut forks: Vec<_> = forks.map(walparse::Flavor::product).collect();
                forks.dedup();
                format!("Supported are PostgreSQL {}, and {}.", known.join(", "), forks.join(" and "))
            }
            DataDirectoryError::Control { .. } => {
                "The control file is damaged. Restore it or take a new base backup.".into()
            }
            DataDirectoryError::Label { .. } => return None,
            DataDirectoryError::Running { ctl, .. } => {
                format!("Stop the target server first: {ctl} stop -m fast.")
            }
            DataDirectoryError::ServerProcess { pid, .. } => {
                format!("Its main process is gone or its lock file was removed. End it first: kill {pid}.")
            }
        })
    }
}

/// How long a server may need to stop that has begun to: as long as `pg_ctl stop` waits for it.
const SERVER_STOPS: Duration = Duration::from_secs(60);

/// How long its last process may need to end after its lock file is gone.
const LAST_PROCESSES_END: Duration = Duration::from_secs(5);

/// Checks that this is a data directory.
pub(crate) fn check_data_directory(root: &Path, names: &Names) -> Result<(), DataDirectoryError> {
    read(&root.join(names.version_file)).map(drop)
}

/// Reads the target's control file.
pub(crate) fn target_control(root: &Path, flavor: Flavor) -> Result<ControlFile, DataDirectoryError> {
    let path = root.join(flavor.names().control_file);
    let bytes = read(&path)?;
    ControlFile::parse_as(&bytes, flavor).map_err(|source| DataDirectoryError::Control { path, source })
}

/// The target's backup label, if it has one.
pub(crate) fn backup_label(root: &Path) -> Result<Option<BackupLabel>, DataDirectoryError> {
    let path = root.join("backup_label");
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(BackupLabel::parse(&text).ok_or(DataDirectoryError::Label { path })?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirectoryError::Open { path, source }),
    }
}

/// What the lock file of a stopped server looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockFile {
    /// There is none: it was stopped in order.
    None,
    /// Left from a crash.
    Stale,
}

/// Refuses a directory on which a server runs, or on which one has left processes that still write.
pub(crate) fn check_not_running(root: &Path, names: &Names) -> Result<LockFile, DataDirectoryError> {
    let path = root.join(names.lock_file);
    if let Some(pid) = lock_file_process(root, names)? {
        return Err(DataDirectoryError::Running { path, pid, ctl: names.ctl_program });
    }
    match server_process(root, names) {
        Some(pid) => Err(DataDirectoryError::ServerProcess { path: root.to_owned(), pid }),
        None if path.exists() => Ok(LockFile::Stale),
        None => Ok(LockFile::None),
    }
}

/// The same at the start of a run. A server may be stopping then: pg_auto_failover tells its server to stop and calls us
/// without waiting, and a lock file is removed a moment before the last process ends.
pub(crate) fn check_has_stopped(
    root: &Path,
    names: &Names,
    stop: &StopFlag,
) -> Result<LockFile, DataDirectoryError> {
    let given_up = Instant::now() + SERVER_STOPS;
    let mut last_process_ends = Instant::now() + LAST_PROCESSES_END;
    let mut is_told = false;
    loop {
        let checked = check_not_running(root, names);
        let now = Instant::now();
        match checked {
            Err(DataDirectoryError::Running { pid, .. }) if now < given_up && is_stopping(root, names) => {
                last_process_ends = now + LAST_PROCESSES_END;
                if !is_told {
                    tracing::info!("target server is shutting down: waiting for process {pid}");
                    is_told = true;
                }
            }
            Err(DataDirectoryError::ServerProcess { .. }) if now < last_process_ends => {}
            checked => return checked,
        }
        if stop.is_requested() {
            return checked;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a server has begun to stop: from 10 on its lock file says so in the eighth line.
fn is_stopping(root: &Path, names: &Names) -> bool {
    match std::fs::read(root.join(names.lock_file)) {
        // The path in its second line may be in any encoding.
        Ok(bytes) => bytes
            .split(|byte| *byte == b'\n')
            .nth(7)
            .is_some_and(|status| status.trim_ascii_end() == b"stopping"),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// A process of a server that works in this directory, as all of them do in their own: its main process may
/// have been killed alone, or somebody may have removed the lock file.
fn server_process(root: &Path, names: &Names) -> Option<u32> {
    let root = root.canonicalize().ok()?;
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let is_here = || std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == root);
        // An operator's shell may be there, too.
        let is_server = || {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.contains(names.server_program)
        };
        is_here() && is_server()
    })
}

/// The process of the running server that the lock file names.
///
/// A lock file may be left from a crash, and its process number may belong to another process by now: it
/// counts if that process works in this directory, as every server does in its own. Of a process whose
/// directory cannot be seen the worst is assumed.
///
/// # Errors
/// The lock file is there but cannot be read.
pub fn lock_file_process(root: &Path, names: &Names) -> Result<Option<u32>, DataDirectoryError> {
    let path = root.join(names.lock_file);
    let text = match std::fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirectoryError::Open { path, source }),
    };
    // A stand-alone server writes its process number with a minus sign.
    let pid = text.lines().next().and_then(|line| line.trim().trim_start_matches('-').parse::<u32>().ok());
    Ok(pid.filter(|&pid| pid > 0).filter(|pid| match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(directory) => root.canonicalize().is_ok_and(|root| root == directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(_) => Path::new(&format!("/proc/{pid}")).exists(),
    }))
}

fn read(path: &Path) -> Result<Vec<u8>, DataDirectoryError> {
    std::fs::read(path).map_err(|source| DataDirectoryError::Open { path: path.to_owned(), source })
}

/// The control file's path.
pub(crate) fn control_path(names: &Names) -> DataPath {
    DataPath::parse(names.control_file).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}
