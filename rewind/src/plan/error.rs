//! Why no plan can be made. The target is unchanged.

use std::path::PathBuf;

use crate::datadir::data_path::DataPath;
use crate::datadir::keep::KeepError;
use crate::wal::error::WalError;

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A path is of one type on the source and of another on the target.
    #[error("file \"{path}\" is of different type in source and target")]
    DifferentType {
        /// The path.
        path: DataPath,
    },
    /// A directory or file of the data cannot be removed.
    #[error(
        "\"{path}\" on the target is a mount point, and the source has nothing of this name: it cannot be removed"
    )]
    MountPoint {
        /// The path.
        path: DataPath,
    },
    /// A pattern of files to keep matches data.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The path of a relation is not a regular file on the source.
    #[error("data file \"{path}\" in source is not a regular file")]
    NotRegular {
        /// The path.
        path: DataPath,
    },
    /// A tablespace of the source cannot be created on the target.
    #[error("tablespace link \"{link}\" of the source points to {directory:?}, which {problem}")]
    TablespacePlace {
        /// The link: a path below the data directory.
        link: DataPath,
        /// The directory that it points to.
        directory: PathBuf,
        /// What is wrong with that directory.
        problem: &'static str,
    },
    /// More transactions would be given up than the caller allows.
    #[error("this rewind would give up {lost} committed transactions, more than the {most} that are allowed")]
    TooManyLost {
        /// How many.
        lost: u64,
        /// How many are allowed.
        most: u64,
    },
    /// A number of transactions is allowed, and it is not known how many would be given up.
    #[error("it is not known how many transactions this rewind would give up, and {most} are allowed")]
    LostUnknown {
        /// How many are allowed.
        most: u64,
    },
    /// WAL that replay needs is missing, or could not be listed.
    #[error(transparent)]
    Wal(#[from] WalError),
}

impl PlanError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            PlanError::Keep(error) => return Some(error.hint()),
            PlanError::Wal(error) => return error.hint(),
            PlanError::TablespacePlace { .. } => {
                "Source and target must not share a directory. Empty it, or create the link on the target by hand, to a directory of its own."
            }
            PlanError::TooManyLost { .. } => {
                "Look at them with \"kbrecover lost\", and keep them with its option --export. Then rewind with --max-lost-transactions and this number, or without the limit."
            }
            PlanError::LostUnknown { .. } => {
                "Where data is compared, the target's WAL is not read. Look at the node; then rewind without the limit."
            }
            PlanError::MountPoint { .. } => "Unmount it first.",
            PlanError::DifferentType { .. } | PlanError::NotRegular { .. } => {
                "Give it the same type on both sides: replace a link, for example, by what it points to."
            }
        };
        Some(hint.to_owned())
    }
}
