//! Why lost transactions could not be listed. Nothing has been changed.

use std::io;
use std::path::PathBuf;

use walparse::{Lsn, WalFault, WalReadError};

use super::export::ExportError;
use super::model::SinkError;
use crate::stop::Stopped;

/// Why the lost transactions could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LostError {
    /// WAL that is needed ends too early.
    #[error("the target's WAL ends at {position}, before {needed}: {fault}")]
    WalEnds {
        /// Where.
        position: Lsn,
        /// How far it is needed.
        needed: Lsn,
        /// What is wrong there.
        fault: WalFault,
    },
    /// A record cannot be decoded.
    #[error("could not decode the WAL record at {lsn}: {fault}")]
    Record {
        /// Where it starts.
        lsn: Lsn,
        /// What is wrong with it.
        fault: WalFault,
    },
    /// WAL could not be read.
    #[error(transparent)]
    Wal(#[from] WalReadError),
    /// A file of the data directory could not be read.
    #[error("could not read file \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A rewind has left no export of what was lost.
    #[error("there is no list of lost transactions in \"{}\"", path.display())]
    NoExport {
        /// The file that is missing.
        path: PathBuf,
    },
    /// The server is not one of the cluster that lost the transactions.
    #[error("the source server does not belong to the cluster of the lost transactions: {problem}")]
    AnotherCluster {
        /// How that was seen.
        problem: String,
    },
    /// An export is not one, or not whole.
    #[error("could not read the exported transactions in \"{}\"", path.display())]
    Exported {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Rows could not be kept in a temporary file.
    #[error("could not keep rows in a temporary file in directory \"{}\"", directory.display())]
    Spool {
        /// Where the file is.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The export could not be made.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// What was found could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The run was asked to stop.
    #[error("the run was asked to stop")]
    Stopped,
}

impl From<Stopped> for LostError {
    fn from(_: Stopped) -> LostError {
        LostError::Stopped
    }
}

impl LostError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            LostError::WalEnds { .. } | LostError::Wal(_) => {
                "Name a directory that has the missing WAL files with --wal-dir, or use --restore-target-wal."
            }
            LostError::Record { .. } => {
                "The WAL is damaged there, or was written by a server that this program does not know."
            }
            LostError::Read { .. } => "Run kbrecover as the user who owns the data directory.",
            LostError::NoExport { .. } => {
                "The rewind could not export what was lost, or needed its space: its log says why. The WAL is beside it, for \"kbrecover inspect wal\"."
            }
            LostError::AnotherCluster { .. } => {
                "Name the server that has taken over from the node that was rewound."
            }
            LostError::Exported { .. } => {
                "Was the run that wrote the file killed? Its lines can be read as far as they go: it has one for each change."
            }
            LostError::Spool { .. } | LostError::Sink(_) => "Make sure that there is enough free space.",
            LostError::Export(error) => return Some(error.hint()),
            LostError::Stopped => return None,
        };
        Some(hint.to_owned())
    }
}
