//! Why changing the target failed.

use std::path::PathBuf;

use walparse::TimelineId;

use crate::apply::archive_ready::ArchiveReadyError;
use crate::apply::copy::CopyError;
use crate::apply::recovery_conf::RecoveryConfError;
use crate::apply::save_diverged::SaveDivergedError;
use crate::datadir::data_path::PathError;
use crate::datadir::server::DataDirectoryError;
use crate::plan::error::PlanError;
use crate::source::SourceError;
use crate::survey::content::ContentError;
use crate::survey::error::SurveyError;
use crate::target::TargetError;
use crate::target::external_files::ArchiveRewindError;
use crate::wal::error::WalError;

/// Why changing the target failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A stop was requested through [`StopFlag`](crate::StopFlag).
    #[error("stopped by a signal")]
    Stopped,
    /// WAL that was not archived yet could not be archived.
    #[error(transparent)]
    ArchiveReady(#[from] ArchiveReadyError),
    /// Discarded data could not be saved.
    #[error(transparent)]
    SaveDiverged(#[from] SaveDivergedError),
    /// The target's control file has changed since it was first read: a server has been started on it meanwhile.
    #[error("target data directory \"{}\" was changed while kbrecover was reading it", path.display())]
    TargetChanged {
        /// The data directory.
        path: PathBuf,
    },
    /// A server runs on the target, or its files cannot be read.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// Copying failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// WAL could not be copied, or is not valid.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// What the source wrote while it was copied cannot be replayed with a sure result.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The data could not be verified.
    #[error(transparent)]
    Verify(Box<SurveyError>),
    /// The plan cannot be made with the present state of the source.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A stopped source was changed during the run.
    #[error("source system was modified while kbrecover was running")]
    SourceModified,
    /// The source switched to a timeline that diverges at another point.
    #[error(
        "the source switched from timeline {before} to {after} while kbrecover was running, and its history now diverges at another point"
    )]
    SourceForked {
        /// Its timeline at the start of the run.
        before: TimelineId,
        /// Its timeline at the end of the run.
        after: TimelineId,
    },
    /// The target could not be written.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The WAL archive of the target could not be made to match the source's history.
    #[error(transparent)]
    ArchiveRewind(#[from] ArchiveRewindError),
    /// The recovery configuration could not be written.
    #[error(transparent)]
    RecoveryConf(#[from] RecoveryConfError),
}

impl From<SurveyError> for ApplyError {
    fn from(error: SurveyError) -> ApplyError {
        ApplyError::Verify(Box::new(error))
    }
}

impl From<PathError> for ApplyError {
    fn from(error: PathError) -> ApplyError {
        ApplyError::Source(error.into())
    }
}

impl ApplyError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        match self {
            ApplyError::ArchiveReady(error) => error.hint(),
            ApplyError::SaveDiverged(error) => error.hint(),
            ApplyError::DataDirectory(error) => error.hint(),
            ApplyError::Wal(error) => error.hint(),
            ApplyError::Content(error) => Some(error.hint()),
            ApplyError::Plan(error) => error.hint(),
            ApplyError::Verify(error) => error.hint(),
            ApplyError::Source(error) => error.hint(),
            ApplyError::Target(error) => Some(error.hint()),
            ApplyError::Copy(error) => error.hint(),
            ApplyError::Stopped
            | ApplyError::TargetChanged { .. }
            | ApplyError::SourceModified
            | ApplyError::SourceForked { .. }
            | ApplyError::ArchiveRewind(_)
            | ApplyError::RecoveryConf(_) => None,
        }
    }
}
