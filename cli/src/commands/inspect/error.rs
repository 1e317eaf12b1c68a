//! What can be wrong when something is looked at.

use std::io;
use std::path::PathBuf;

use kbrecover_rewind::{FlavorError, TargetState};
use walparse::{ControlError, HistoryError, Lsn, WalFault, WalReadError};

use crate::failure::{Failed, chain};

/// Why nothing, or not everything, can be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum InspectError {
    #[error("could not read file \"{}\"", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("could not read control file \"{}\"", path.display())]
    Control { path: PathBuf, source: ControlError },
    #[error("could not read history file \"{}\"", path.display())]
    History { path: PathBuf, source: HistoryError },
    #[error("\"{}\" is not the name of a history file", path.display())]
    HistoryName { path: PathBuf },
    #[error("file \"{}\" is no WAL segment", path.display())]
    NoSegment { path: PathBuf, source: WalFault },
    #[error("directory \"{}\" has no WAL segment to read", path.display())]
    NoSegments { path: PathBuf },
    #[error("file \"{}\" belongs to another cluster than the files before", path.display())]
    OtherCluster { path: PathBuf },
    #[error("files \"{}\" and \"{}\" hold the same WAL", one.display(), other.display())]
    SameSegment { one: PathBuf, other: PathBuf },
    #[error("unknown resource manager \"{name}\"")]
    Rmgr { name: String },
    #[error("could not find WAL segment {segment}, which holds WAL from {position} on")]
    Missing { segment: String, position: Lsn },
    #[error("WAL ends at {position}, before {wanted}")]
    EndsBefore { position: Lsn, wanted: Lsn, source: WalFault },
    #[error("the start {start} is not before the end {end}")]
    Order { start: Lsn, end: Lsn },
    #[error(transparent)]
    Flavor(#[from] FlavorError),
    #[error("could not write to standard output")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Wal(#[from] WalReadError),
}

impl InspectError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            InspectError::Flavor(error) => return Some(error.hint()),
            InspectError::Control {
                source: ControlError::UnknownVersion { control_version, .. }, ..
            } if (900..2_000).contains(&control_version.swap_bytes()) => {
                "It was written on a machine with the other byte order."
            }
            InspectError::Control { source: ControlError::UnknownVersion { .. }, .. } => {
                "It is no control file, or one of a version that is not known."
            }
            InspectError::Control { source: ControlError::TooShort { .. }, .. } => {
                "Name a data directory, or its control file (global/pg_control, global/sys_control)."
            }
            InspectError::Control { source, .. } if source.may_be_torn() => {
                "A running server may just have written it: try again. \"kbrecover inspect control\" shows it as it is."
            }
            InspectError::HistoryName { .. } => {
                "History files have names such as 00000002.history: the timeline is known from it."
            }
            InspectError::NoSegment { .. } => {
                "Only WAL segments can be read, and only those of the versions that can be rewound."
            }
            InspectError::NoSegments { .. } => {
                "Name a data directory, its WAL directory, or the files of WAL themselves."
            }
            InspectError::SameSegment { .. } => "Name only those of one timeline.",
            InspectError::Rmgr { .. } => {
                "Known are XLOG, Transaction, Storage, Heap and the others that --stats lists, and custom128 to custom255."
            }
            InspectError::Missing { .. } => {
                "It may be in an archive: name its copy together with the other files, or begin behind it with --start."
            }
            InspectError::EndsBefore { .. } => {
                "What is behind cannot be read. Leave out --end to see all that can."
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<InspectError> for Failed {
    fn from(error: InspectError) -> Failed {
        Failed { message: chain(&error), hint: error.hint(), target: TargetState::Untouched }
    }
}
