//! Why no plan can be made. The target is as it was.

use std::path::PathBuf;

use crate::datadir::data_path::DataPath;
use crate::datadir::keep::KeepError;
use crate::wal::error::WalError;

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A path is a file on one side and something else on the other.
    #[error("file \"{path}\" is of different type in source and target")]
    DifferentType {
        /// The path.
        path: DataPath,
    },
    /// A pattern of files to keep matches data.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// A relation's path on the source is no regular file.
    #[error("data file \"{path}\" in source is not a regular file")]
    NotRegular {
        /// The path.
        path: DataPath,
    },
    /// A tablespace of the source cannot be made on the target.
    #[error("tablespace link \"{link}\" of the source points to {directory:?}, which {problem}")]
    TablespacePlace {
        /// The link, below the data directory.
        link: DataPath,
        /// Where it points.
        directory: PathBuf,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// WAL that replay needs is missing, or could not be listed.
    #[error(transparent)]
    Wal(#[from] WalError),
}

impl PlanError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            PlanError::Keep(error) => return Some(error.hint()),
            PlanError::Wal(error) => return error.hint(),
            PlanError::TablespacePlace { .. } => {
                "Source and target must not share a directory. Empty it, or make the link on the target by hand, to a directory of its own."
            }
            PlanError::DifferentType { .. } | PlanError::NotRegular { .. } => {
                "Make it on the target what it is on the source: a link, for example, can be replaced by what it leads to."
            }
        };
        Some(hint.to_owned())
    }
}
