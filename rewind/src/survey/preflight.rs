//! Checks before anything is changed: whether target and source are clusters that can be rewound to each other, and
//! in a state that allows it.

use std::io;
use std::path::{Path, PathBuf};

use walparse::{ClusterState, ControlFile, Names};

use crate::datadir::flavor::FlavorError;
use crate::datadir::label::BackupLabel;
use crate::datadir::server::{
    DataDirectoryError, LockFile, backup_label, check_data_directory, check_has_stopped,
};
use crate::options::{Mode, Options, RecoveryConf, ReplicationLogin};
use crate::plan::Clusters;
use crate::source::{Source, SourceError, WalPosition};
use crate::stop::StopFlag;

/// Why the target cannot be rewound to this source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreflightError {
    /// The source directory is itself the target of a rewind that did not finish.
    #[error("source data directory \"{}\" has an unfinished rewind", path.display())]
    SourceUnfinished {
        /// The directory.
        path: PathBuf,
    },
    /// The two are not copies of one cluster.
    #[error("source and target clusters are from different systems")]
    DifferentSystems {
        /// The system identifier of the source.
        source_identifier: u64,
        /// The system identifier of the target.
        target_identifier: u64,
    },
    /// The two have different versions or sizes.
    #[error(
        "source and target clusters are not compatible: {what} is {source_value} in source and {target_value} in target"
    )]
    DifferentKinds {
        /// What differs.
        what: &'static str,
        /// Its value in the source.
        source_value: String,
        /// Its value in the target.
        target_value: String,
    },
    /// Changes of hint bits are not WAL-logged on the target.
    #[error("target server needs to use either data checksums or \"wal_log_hints = on\"")]
    HintsNotLogged,
    /// The source does not write full pages to WAL, so replay could not repair torn pages.
    #[error("full_page_writes must be enabled in the source server")]
    SourceFullPageWrites,
    /// A stopped source was not shut down cleanly.
    #[error("source data directory must be shut down cleanly")]
    SourceNotClean {
        /// The state in its control file.
        state: ClusterState,
        /// Name of the program that stops its server (`pg_ctl`).
        ctl: &'static str,
    },
    /// A running source has a state in its control file that no running server has.
    #[error("source system was in unexpected state: \"{state}\"")]
    SourceState {
        /// The state in its control file.
        state: ClusterState,
    },
    /// Source and target are one directory.
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
    /// The target was not shut down cleanly, and the options refuse that.
    #[error("target server must be shut down cleanly")]
    TargetNotClean {
        /// The state in its control file.
        state: ClusterState,
    },
    /// The target is a base backup on which no server has been started: up to which LSN it must be recovered is not
    /// known.
    #[error("file \"{}\" belongs to a base backup that has not been recovered", path.display())]
    PendingBackup {
        /// The file.
        path: PathBuf,
    },
    /// The product that created the target was not recognized.
    #[error("could not find out the flavor of the target")]
    Flavor(#[from] FlavorError),
    /// The target is not a data directory, or a server runs on it.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl PreflightError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            PreflightError::Flavor(error) => error.hint(),
            PreflightError::DataDirectory(error) => return error.hint(),
            PreflightError::Source(error) => return error.hint(),
            PreflightError::SourceUnfinished { .. } => {
                "Finish that rewind first, or use another source.".into()
            }
            PreflightError::DifferentSystems { source_identifier, target_identifier } => format!(
                "The system identifier of the source is {source_identifier}, that of the target is {target_identifier}. Only copies of one cluster can be rewound to each other."
            ),
            PreflightError::DifferentKinds { .. } => {
                "Both clusters must be of the same product and version, with the same sizes.".into()
            }
            PreflightError::HintsNotLogged => {
                "Without them, changes to the target could be missed. Take a new base backup. To be able to rewind in the future, set wal_log_hints = on or enable checksums with pg_checksums.".into()
            }
            PreflightError::SourceFullPageWrites => {
                "Set full_page_writes = on on the source (on its primary, if it is a standby), reload its configuration, and run CHECKPOINT there.".into()
            }
            PreflightError::SourceNotClean { state, ctl } => {
                format!("Its state is \"{state}\". Stop it with {ctl} stop -m fast, or use --source-server while it runs.")
            }
            PreflightError::TargetNotClean { state } => format!(
                "Its state is \"{state}\". Run again without --no-ensure-shutdown: its WAL is then read to the last valid record."
            ),
            PreflightError::WalDirectory { .. } => "With --wal-dir, name a directory that contains copies of WAL segments.".into(),
            PreflightError::PendingBackup { .. } => {
                "Start a server on it as a standby instead of rewinding it, or take a new base backup.".into()
            }
            PreflightError::SourceState { .. } | PreflightError::SameDirectory { .. } => return None,
        })
    }
}

/// Checks that the target is a data directory on which no server runs; waits for a server that is shutting down.
/// Returns its `backup_label`, if it has one. `is_backup_accepted`: it may be a base backup that has not been recovered.
///
/// # Errors
/// It is no data directory, a server runs on it, or it is a base backup that has not been recovered.
pub(crate) fn check_target(
    root: &Path,
    names: &Names,
    stop: &StopFlag,
    is_backup_accepted: bool,
) -> Result<Option<BackupLabel>, PreflightError> {
    check_data_directory(root, names)?;
    if check_has_stopped(root, names, stop)? == LockFile::Stale {
        tracing::info!("pid file found but it seems bogus. Trying to start rewind anyway...");
    }
    match backup_label(root)? {
        Some(BackupLabel::Start { by_rewind: false, .. }) if !is_backup_accepted => {
            Err(PreflightError::PendingBackup { path: root.join("backup_label") })
        }
        label => Ok(label),
    }
}

/// Checks that the directories given for missing WAL can be listed: a missing one is most likely a typing error.
pub(crate) fn check_wal_directories(directories: &[PathBuf]) -> Result<(), PreflightError> {
    directories.iter().try_for_each(|path| match std::fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(PreflightError::WalDirectory { path: path.clone(), source }),
    })
}

/// What a survey needs of the target's hint bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HintBits {
    /// The target must have logged them.
    Logged,
    /// Nothing, or an earlier run has checked them.
    Any,
}

/// Checks that the target can be made a copy of the source, and lets the source make a checkpoint first if the options ask
/// for it.
///
/// # Errors
/// The first check that fails; the source cannot make a checkpoint.
pub(crate) fn check_sides(
    options: &Options,
    source: &dyn Source,
    clusters: &mut Clusters,
    hint_bits: HintBits,
) -> Result<(), PreflightError> {
    take_wal_magic(clusters);
    check_compatible(clusters)?;
    if hint_bits == HintBits::Logged {
        check_hints(&clusters.target)?;
    }
    check_source(source, &clusters.source)?;
    check_replication(options, source)?;
    checkpoint_source(options, source, clusters)
}

/// A target of a fork without any WAL is taken to have the magic number that the source's WAL has.
pub(crate) fn take_wal_magic(clusters: &mut Clusters) {
    let (ours, theirs) = (clusters.target.version(), clusters.source.version());
    if ours.flavor().is_fork() && !ours.flavor().has_found_wal_magic() {
        clusters.target = clusters.target.clone().with_wal_magic(theirs.wal_magic());
    }
}

/// Checks that both sides are copies of one cluster, with the same format.
pub(crate) fn check_compatible(clusters: &Clusters) -> Result<(), PreflightError> {
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
    same("WAL segment size", segment_size(theirs), segment_size(ours))
}

/// Checks that the target logs hint bits.
fn check_hints(target: &ControlFile) -> Result<(), PreflightError> {
    if !target.has_data_checksums() && !target.wal_log_hints() {
        return Err(PreflightError::HintsNotLogged);
    }
    Ok(())
}

/// Checks that the source, whose control file is `theirs`, can be replayed from.
fn check_source(source: &dyn Source, theirs: &ControlFile) -> Result<(), PreflightError> {
    check_state(source, theirs)?;
    // The checkpoint, unlike a standby's own setting, shows what the primary does.
    if !theirs.checkpoint().full_page_writes {
        return Err(PreflightError::SourceFullPageWrites);
    }
    Ok(())
}

/// Checks that the source, whose control file is `theirs`, runs or was shut down cleanly.
pub(crate) fn check_state(source: &dyn Source, theirs: &ControlFile) -> Result<(), PreflightError> {
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
    Ok(())
}

/// If the options make the target a standby: checks that it could log in for replication, or warns if its role may not
/// replicate.
fn check_replication(options: &Options, source: &dyn Source) -> Result<(), PreflightError> {
    if options.recovery_conf == RecoveryConf::Leave {
        return Ok(());
    }
    match options.replication_login {
        ReplicationLogin::Require => source.try_replication_login()?,
        ReplicationLogin::Warn if source.may_replicate()? == Some(false) => tracing::warn!(
            "the role of the source connection may not replicate, so a standby cannot use it: run ALTER ROLE ... REPLICATION on the source, or set primary_conninfo for another role"
        ),
        ReplicationLogin::Warn => {}
    }
    Ok(())
}

/// If the options ask for it: lets a running source make a checkpoint, at which replay can then start, and reads its control
/// file anew.
fn checkpoint_source(
    options: &Options,
    source: &dyn Source,
    clusters: &mut Clusters,
) -> Result<(), PreflightError> {
    if !options.checkpoint_source {
        return Ok(());
    }
    let is_standby = match source.position()? {
        WalPosition::Stopped => {
            tracing::info!("no checkpoint is requested: a stopped source has made one when it was shut down");
            return Ok(());
        }
        position => matches!(position, WalPosition::Standby { .. }),
    };
    source.check_may_checkpoint()?;
    if options.mode != Mode::Rewind {
        tracing::info!(
            "no checkpoint is requested from the source, because nothing is to be changed: the plan is that without it"
        );
        return Ok(());
    }
    if is_standby {
        tracing::info!(
            "requesting a restartpoint from the source, which is a standby: replay can start at the last checkpoint of its primary that it has replayed"
        );
    } else {
        tracing::info!("requesting a checkpoint from the source");
    }
    source.checkpoint()?;
    clusters.source = source.control_file()?;
    Ok(())
}

/// Checks that both sides have the same value of `what`.
fn same<T: ToString>(what: &'static str, source: T, target: T) -> Result<(), PreflightError> {
    let (source_value, target_value) = (source.to_string(), target.to_string());
    if source_value == target_value {
        return Ok(());
    }
    Err(PreflightError::DifferentKinds { what, source_value, target_value })
}
