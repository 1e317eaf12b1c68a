//! Why the survey failed. The target is unchanged.

use std::io;
use std::path::PathBuf;

use walparse::Lsn;

use crate::causes::causes;
use crate::datadir::config::ConfigError;
use crate::datadir::keep::KeepError;
use crate::datadir::server::DataDirectoryError;
use crate::datadir::walk::WalkError;
use crate::options::CrashRecoveryError;
use crate::source::{DamagedBlocks, FetchError, SourceError};
use crate::stop::Stopped;
use crate::survey::content::ContentError;
use crate::survey::divergence::DivergenceError;
use crate::survey::preflight::PreflightError;
use crate::target::TargetError;
use crate::target::journal::JournalError;
use crate::wal::error::WalError;

/// Why the survey of both sides failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// The target is not a data directory, or a server runs on it.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// The target cannot be rewound to this source.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The content of the rewound target would not surely be the source's.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The point of divergence could not be found.
    #[error(transparent)]
    Divergence(#[from] DivergenceError),
    /// WAL or a timeline history could not be found or read.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Files could not be compared with the source's.
    #[error(transparent)]
    Compare(#[from] FetchError),
    /// The target could not be listed.
    #[error("could not list the files of the target")]
    Walk(#[source] WalkError),
    /// The target's configuration could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A pattern of files to keep cannot be used.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// Files of the target outside its data directory could not be read.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The target's own server could not complete crash recovery.
    #[error(transparent)]
    CrashRecovery(#[from] CrashRecoveryError),
    /// The journal of an unfinished run cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The unfinished rewind cannot be finished from this source.
    #[error(
        "the history of this source diverges at {fork}, before the checkpoint at {checkpoint} that the unfinished rewind starts from"
    )]
    ForkTooOld {
        /// The point of divergence from this source.
        fork: Lsn,
        /// The last common checkpoint of the unfinished rewind.
        checkpoint: Lsn,
    },
    /// A rewind of the target has not finished.
    #[error("a rewind of \"{}\" has not finished", path.display())]
    TargetUnfinished {
        /// The data directory.
        path: PathBuf,
    },
    /// The node to compare is a primary that has crashed: what it has is in its WAL in part.
    #[error("the server of \"{}\" was not shut down cleanly", path.display())]
    NodeCrashed {
        /// The data directory.
        path: PathBuf,
    },
    /// A block of the target could not be read.
    #[error("could not read file \"{}\" at offset {offset}", path.display())]
    ReadBlock {
        /// The file.
        path: PathBuf,
        /// The offset of the block.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A block of the source that differs is damaged.
    #[error(transparent)]
    Damaged(#[from] DamagedBlocks),
    /// The run was asked to stop while data was compared.
    #[error("stopped while the data of both sides was compared")]
    Stopped,
}

/// The way out of most refusals.
const COMPARE: &str = "Or run again with --compare-data: it needs neither the target's WAL nor logged hint bits; it reads all data on both sides and copies what differs.";

impl SurveyError {
    /// Whether the rewind is possible if the data of both sides is compared: what is wrong concerns the target's WAL, its
    /// hint bits, or WAL of the source from before its newest checkpoint.
    pub(crate) fn is_cured_by_comparing(&self) -> bool {
        match self {
            _ if self.is_of_access() => false,
            SurveyError::Preflight(error) => {
                matches!(error, PreflightError::HintsNotLogged | PreflightError::PendingBackup { .. })
            }
            SurveyError::Content(error) => {
                matches!(error, ContentError::HintsNotLogged { .. } | ContentError::ChecksumsDiffer { .. })
            }
            SurveyError::Divergence(error) => error.is_cured_by_comparing(),
            SurveyError::Wal(error) => error.is_cured_by_comparing(),
            SurveyError::ForkTooOld { .. } => true,
            _ => false,
        }
    }

    /// Whether the cause is the connection to the source, a request to stop, or a missing permission: neither says anything
    /// about WAL.
    pub(super) fn is_of_access(&self) -> bool {
        causes(self).any(|error| {
            let is_denied = error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
            is_denied || error.is::<SourceError>() || error.is::<FetchError>() || error.is::<Stopped>()
        })
    }

    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        let hint = self.own_hint();
        if !self.is_cured_by_comparing() {
            return hint;
        }
        let hint = hint.map_or_else(String::new, |hint| hint + " ");
        Some(hint + COMPARE)
    }

    /// The hint without that.
    fn own_hint(&self) -> Option<String> {
        let hint = match self {
            SurveyError::DataDirectory(error) => return error.hint(),
            SurveyError::Preflight(error) => return error.hint(),
            SurveyError::Divergence(error) => return error.hint(),
            SurveyError::Content(error) => return Some(error.hint()),
            SurveyError::Wal(error) => return error.hint(),
            SurveyError::Source(error) => return error.hint(),
            SurveyError::Config(error) => return error.hint(),
            SurveyError::Keep(error) => return Some(error.hint()),
            SurveyError::Target(error) => return Some(error.hint()),
            SurveyError::CrashRecovery(error) => return error.hint.clone(),
            SurveyError::Compare(FetchError::Source(error @ SourceError::Unreadable { .. })) => {
                return error.hint();
            }
            SurveyError::Damaged(error) => return Some(error.hint()),
            SurveyError::Compare(_) | SurveyError::Stopped => return None,
            SurveyError::NodeCrashed { .. } => {
                "What it changed last is only in its WAL. If it is the old primary, rewind it. Otherwise start its server and shut it down."
            }
            SurveyError::TargetUnfinished { .. } => "Run that rewind again to finish it.",
            SurveyError::Walk(_) | SurveyError::ReadBlock { .. } => {
                "Run kbrecover as the user who owns the data directory, and make sure that the file is accessible."
            }
            SurveyError::Journal(_) => {
                "Without its journal the rewind cannot be finished. Take a new base backup of the source."
            }
            SurveyError::ForkTooOld { .. } => {
                "Use the source of the unfinished rewind, or a server that was promoted later. Otherwise take a new base backup."
            }
        };
        Some(hint.to_owned())
    }
}
