//! Checks before anything is read or changed: are these two directories what the user thinks they are?

use std::io;
use std::path::{Path, PathBuf};

use walparse::{ClusterState, ControlFile, Names};

use crate::datadir::flavor::FlavorError;
use crate::datadir::label::BackupLabel;
use crate::datadir::server::{
    DataDirectoryError, LockFile, backup_label, check_data_directory, check_has_stopped,
};
use crate::plan::Clusters;
use crate::source::{Source, SourceError, WalPosition};
use crate::stop::StopFlag;

/// Why the two clusters cannot be rewound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreflightError {
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
    /// A base backup that no server has been started on: how far its data reaches is not known.
    #[error("file \"{}\" is of a base backup that has not been recovered", path.display())]
    PendingBackup {
        /// The file.
        path: PathBuf,
    },
    /// The flavor of the target was not found.
    #[error("could not find out the flavor of the target")]
    Flavor(#[from] FlavorError),
    /// The data directory cannot be worked on.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl PreflightError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            PreflightError::Flavor(error) => error.hint(),
            PreflightError::DataDirectory(error) => return error.hint(),
            PreflightError::Source(error) => return error.hint(),
            PreflightError::SourceUnfinished { .. } => {
                "Finish that rewind first, or name another source.".into()
            }
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
            PreflightError::SourceState { .. } | PreflightError::SameDirectory { .. } => return None,
        })
    }
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
    match backup_label(root)? {
        Some(BackupLabel::Start { by_rewind: false, .. }) => {
            Err(PreflightError::PendingBackup { path: root.join("backup_label") })
        }
        label => Ok(label),
    }
}

/// Checks the directories given for missing WAL: one that is not there is a slip of the pen.
pub(crate) fn check_wal_directories(directories: &[PathBuf]) -> Result<(), PreflightError> {
    directories.iter().try_for_each(|path| match std::fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(PreflightError::WalDirectory { path: path.clone(), source }),
    })
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
