//! Checks before anything is read or changed: are these two directories what the user thinks they are?

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walparse::{ClusterState, ControlError, ControlFile, Flavor, Names};

use crate::datadir::data_path::DataPath;
use crate::datadir::flavor::FlavorError;
use crate::datadir::label::BackupLabel;
use crate::source::{Source, SourceError, WalPosition};
use crate::stop::StopFlag;

/// How long a server may need to stop that has begun to: as long as `pg_ctl stop` waits for it.
const SERVER_STOPS: Duration = Duration::from_secs(60);

/// How long its last process may need to end after its lock file is gone.
const LAST_PROCESSES_END: Duration = Duration::from_secs(5);

/// Why the two clusters cannot be rewound.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// A file that every data directory has cannot be read.
    #[error("could not open file \"{}\" for reading", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The target's control file cannot be used.
    #[error("could not use control file \"{}\"", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ControlError,
    },
    /// A server runs on the target.
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
    /// The source directory is itself the target of a rewind that did not finish.
    #[error("source data directory \"{}\" has been rewound only in part", path.display())]
    SourceUnfinished {
        /// The directory.
        path: PathBuf,
    },
    /// Not copies of one cluster.
    #[error("source and target clusters are from different systems")]
    DifferentSystems {
        /// The system identifier of the source.
        source_identifier: u64,
        /// The system identifier of the target.
        target_identifier: u64,
    },
    /// Different versions or sizes.
    #[error(
        "source and target clusters are not of the same kind: {what} is {source_value} in source and {target_value} in target"
    )]
    DifferentKinds {
        /// What differs.
        what: &'static str,
        /// In the source.
        source_value: String,
        /// In the target.
        target_value: String,
    },
    /// Hint bits of the target were not logged.
    #[error("target server needs to use either data checksums or \"wal_log_hints = on\"")]
    HintsNotLogged,
    /// Torn pages of the source could not be repaired.
    #[error("full_page_writes must be enabled in the source server")]
    SourceFullPageWrites,
    /// A stopped source must be stopped cleanly.
    #[error("source data directory must be shut down cleanly")]
    SourceNotClean {
        /// What its control file says.
        state: ClusterState,
        /// The program that stops it.
        ctl: &'static str,
    },
    /// A running source is in a state that cannot be copied from.
    #[error("source system was in unexpected state: \"{state}\"")]
    SourceState {
        /// What its control file says.
        state: ClusterState,
    },
    /// The two directories are one.
    #[error("source and target are the same directory \"{}\"", path.display())]
    SameDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A directory given for missing WAL cannot be listed.
    #[error("could not open WAL directory \"{}\"", path.display())]
    WalDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The target was not stopped cleanly, and the caller takes no such target.
    #[error("target server must be shut down cleanly")]
    TargetNotClean {
        /// Its state.
        state: ClusterState,
    },
    /// The target was started and stopped, or changed otherwise, while it was being read.
    #[error("target data directory \"{}\" was changed while kbrecover was reading it", path.display())]
    TargetChanged {
        /// The data directory.
        path: PathBuf,
    },
    /// A base backup that no server has been started on: how far its data reaches is not known.
    #[error("file \"{}\" is of a base backup that has not been recovered", path.display())]
    PendingBackup {
        /// The file.
        path: PathBuf,
    },
    /// There is a backup label that cannot be read.
    #[error("invalid data in file \"{}\"", path.display())]
    Label {
        /// The file.
        path: PathBuf,
    },
    /// The flavor of the target was not found.
    #[error("could not find out the flavor of the target")]
    Flavor(#[from] FlavorError),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl PreflightError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            PreflightError::Flavor(error) => error.hint(),
            PreflightError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "Is this a data directory? Give the directory that holds PG_VERSION (or SYS_VERSION).".into()
            }
            PreflightError::Open { .. } => "Run kbrecover as the user who owns the data directory.".into(),
            PreflightError::Control { source: ControlError::UnknownVersion { .. }, .. } => {
                let known: Vec<_> = walparse::Version::all().map(walparse::Version::name).collect();
                let forks = walparse::Flavor::all().filter(|flavor| flavor.is_fork());
                let mut forks: Vec<_> = forks.map(walparse::Flavor::product).collect();
                forks.dedup();
                format!("Supported are PostgreSQL {}, and {}.", known.join(", "), forks.join(" and "))
            }
            PreflightError::Control { .. } => {
                "The control file is damaged. Restore it or take a new base backup.".into()
            }
            PreflightError::ServerProcess { pid, .. } => {
                format!("Its main process is gone or its lock file was removed. End it first: kill {pid}.")
            }
            PreflightError::SourceUnfinished { .. } => {
                "Finish that rewind first, or name another source.".into()
            }
            PreflightError::Running { ctl, .. } => format!("Stop the target server first: {ctl} stop -m fast."),
            PreflightError::DifferentSystems { source_identifier, target_identifier } => format!(
                "System identifier of the source: {source_identifier}, of the target: {target_identifier}. Only copies of one cluster can be rewound to each other."
            ),
            PreflightError::DifferentKinds { .. } => {
                "Both must be of the same product and version, and with the same sizes.".into()
            }
            PreflightError::HintsNotLogged => {
                "Without them changes to the target can be missed. Take a new base backup; for the next time, set wal_log_hints = on or enable checksums with pg_checksums.".into()
            }
            PreflightError::SourceFullPageWrites => {
                "Set full_page_writes = on on the source (on its primary, if it is a standby), reload its configuration, and run CHECKPOINT there.".into()
            }
            PreflightError::SourceNotClean { state, ctl } => {
                format!("Its state is \"{state}\". Stop it with {ctl} stop -m fast, or give --source-server while it runs.")
            }
            PreflightError::TargetNotClean { state } => format!(
                "Its state is \"{state}\". Run again without --no-ensure-shutdown: its WAL is then read to the real end."
            ),
            PreflightError::WalDirectory { .. } => "Give a directory with copies of WAL segments with --wal-dir.".into(),
            PreflightError::PendingBackup { .. } => {
                "Start a server on it as a standby instead, or take a new base backup.".into()
            }
            _ => return None,
        })
    }
}

/// The two sides, checked to fit together.
#[derive(Clone, Debug)]
pub(crate) struct Clusters {
    pub(crate) source: ControlFile,
    pub(crate) target: ControlFile,
    /// The target's `backup_label`, if it has one.
    pub(crate) label: Option<BackupLabel>,
}

impl Clusters {
    /// The latest checkpoint from which the target's data is surely on disk: where a pending replay
    /// would start, or the control file's.
    pub(crate) fn newest_target_checkpoint(&self) -> walparse::Lsn {
        match self.label {
            Some(BackupLabel::Start { checkpoint, .. }) => checkpoint.min(self.target.checkpoint_lsn()),
            _ => self.target.checkpoint_lsn(),
        }
    }
}

/// Reads the target's control file.
pub(crate) fn target_control(root: &Path, flavor: Flavor) -> Result<ControlFile, PreflightError> {
    let path = root.join(flavor.names().control_file);
    let bytes = read(&path)?;
    ControlFile::parse_as(&bytes, flavor).map_err(|source| PreflightError::Control { path, source })
}

/// Checks that the target is a stopped data directory; its label, if any. A server that is stopping is waited for.
pub(crate) fn check_target(
    root: &Path,
    names: &Names,
    stop: &StopFlag,
) -> Result<Option<BackupLabel>, PreflightError> {
    check_data_directory(root, names)?;
    if check_has_stopped(root, names, stop)? == LockFile::Stale {
        tracing::info!("pid file found but it seems bogus. Trying to start rewind anyway...");
    }
    match label(root)? {
        Some(BackupLabel::Start { by_rewind: false, .. }) => {
            Err(PreflightError::PendingBackup { path: root.join("backup_label") })
        }
        label => Ok(label),
    }
}

/// Checks that this is a data directory.
pub(crate) fn check_data_directory(root: &Path, names: &Names) -> Result<(), PreflightError> {
    read(&root.join(names.version_file)).map(drop)
}

/// Checks the directories given for missing WAL: one that is not there is a slip of the pen.
pub(crate) fn check_wal_directories(directories: &[PathBuf]) -> Result<(), PreflightError> {
    directories.iter().try_for_each(|path| match std::fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(PreflightError::WalDirectory { path: path.clone(), source }),
    })
}

/// The target's backup label, if it has one.
pub(crate) fn label(root: &Path) -> Result<Option<BackupLabel>, PreflightError> {
    let path = root.join("backup_label");
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(BackupLabel::parse(&text).ok_or(PreflightError::Label { path })?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PreflightError::Open { path, source }),
    }
}

/// Checks that the two clusters can be rewound to each other.
pub(crate) fn check_clusters(source: &dyn Source, clusters: &Clusters) -> Result<(), PreflightError> {
    let (ours, theirs) = (&clusters.target, &clusters.source);
    if theirs.system_identifier() != ours.system_identifier() {
        return Err(PreflightError::DifferentSystems {
            source_identifier: theirs.system_identifier(),
            target_identifier: ours.system_identifier(),
        });
    }
    same("flavor", theirs.version().flavor(), ours.version().flavor())?;
    same("version", theirs.version().name(), ours.version().name())?;
    let catalog_version = |control: &ControlFile| control.version().catalog_version();
    same("catalog version", catalog_version(theirs), catalog_version(ours))?;
    let wal_magic = |control: &ControlFile| format!("{:04X}", control.version().wal_magic());
    same("WAL page magic", wal_magic(theirs), wal_magic(ours))?;
    same("block size", theirs.block_size(), ours.block_size())?;
    same("blocks per segment", theirs.relation_segment_blocks(), ours.relation_segment_blocks())?;
    same("WAL block size", theirs.geometry().wal_block_size, ours.geometry().wal_block_size)?;
    let segment_size = |control: &ControlFile| control.geometry().segment_size.bytes();
    same("WAL segment size", segment_size(theirs), segment_size(ours))?;
    if !ours.has_data_checksums() && !ours.wal_log_hints() {
        return Err(PreflightError::HintsNotLogged);
    }
    let state = theirs.state();
    let is_running = source.position()? != WalPosition::Stopped;
    match state {
        _ if !is_running && !state.is_clean() => {
            let ctl = theirs.version().names().ctl_program;
            return Err(PreflightError::SourceNotClean { state, ctl });
        }
        ClusterState::InProduction | ClusterState::InArchiveRecovery => {}
        _ if is_running => return Err(PreflightError::SourceState { state }),
        _ => {}
    }
    // What a standby is told by its own setting is not what its primary did.
    if !theirs.checkpoint().full_page_writes {
        return Err(PreflightError::SourceFullPageWrites);
    }
    Ok(())
}

fn same<T: ToString>(what: &'static str, source: T, target: T) -> Result<(), PreflightError> {
    let (source_value, target_value) = (source.to_string(), target.to_string());
    if source_value == target_value {
        return Ok(());
    }
    Err(PreflightError::DifferentKinds { what, source_value, target_value })
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
pub(crate) fn check_not_running(root: &Path, names: &Names) -> Result<LockFile, PreflightError> {
    let path = root.join(names.lock_file);
    if let Some(pid) = lock_file_process(root, names)? {
        return Err(PreflightError::Running { path, pid, ctl: names.ctl_program });
    }
    match server_process(root, names) {
        Some(pid) => Err(PreflightError::ServerProcess { path: root.to_owned(), pid }),
        None if path.exists() => Ok(LockFile::Stale),
        None => Ok(LockFile::None),
    }
}

/// The same at the start of a run. A server may be stopping then: pg_auto_failover tells its server to stop and calls us
/// without waiting, and a lock file is removed a moment before the last process ends.
fn check_has_stopped(root: &Path, names: &Names, stop: &StopFlag) -> Result<LockFile, PreflightError> {
    let given_up = Instant::now() + SERVER_STOPS;
    let mut last_process_ends = Instant::now() + LAST_PROCESSES_END;
    let mut is_told = false;
    loop {
        let checked = check_not_running(root, names);
        let now = Instant::now();
        match checked {
            Err(PreflightError::Running { pid, .. }) if now < given_up && is_stopping(root, names) => {
                last_process_ends = now + LAST_PROCESSES_END;
                if !is_told {
                    tracing::info!("target server is shutting down: waiting for process {pid}");
                    is_told = true;
                }
            }
            Err(PreflightError::ServerProcess { .. }) if now < last_process_ends => {}
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
pub fn lock_file_process(root: &Path, names: &Names) -> Result<Option<u32>, PreflightError> {
    let path = root.join(names.lock_file);
    let text = match std::fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(PreflightError::Open { path, source }),
    };
    // A stand-alone server writes its process number with a minus sign.
    let pid = text.lines().next().and_then(|line| line.trim().trim_start_matches('-').parse::<u32>().ok());
    Ok(pid.filter(|&pid| pid > 0).filter(|pid| match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(directory) => root.canonicalize().is_ok_and(|root| root == directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(_) => Path::new(&format!("/proc/{pid}")).exists(),
    }))
}

fn read(path: &Path) -> Result<Vec<u8>, PreflightError> {
    std::fs::read(path).map_err(|source| PreflightError::Open { path: path.to_owned(), source })
}

/// The control file's path.
pub(crate) fn control_path(names: &Names) -> DataPath {
    DataPath::parse(names.control_file).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}
