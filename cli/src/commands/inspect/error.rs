//! The errors of `kbrecover inspect`.

use std::io;
use std::path::PathBuf;

use kbrecover_rewind::{FlavorError, TargetState};
use walparse::{ControlError, HistoryError, Lsn, WalFault, WalReadError};

use crate::failure::{Failed, chain};

/// Why something could not be shown.
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
    #[error("file \"{}\" is not a WAL segment", path.display())]
    NoSegment { path: PathBuf, source: WalFault },
    #[error("directory \"{}\" contains no readable WAL segment", path.display())]
    NoSegments { path: PathBuf },
    #[error("file \"{}\" belongs to a different cluster than the files before it", path.display())]
    OtherCluster { path: PathBuf },
    #[error("files \"{}\" and \"{}\" contain the same WAL segment", one.display(), other.display())]
    SameSegment { one: PathBuf, other: PathBuf },
    #[error("unknown resource manager \"{name}\"")]
    Rmgr { name: String },
    #[error("could not find WAL segment {segment}, which contains WAL from {position} on")]
    Missing { segment: String, position: Lsn },
    #[error("WAL ends at {position}, before {wanted}")]
    EndsBefore { position: Lsn, wanted: Lsn, source: WalFault },
    #[error("start LSN {start} is not before end LSN {end}")]
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
                "It was written on a machine with a different byte order."
            }
            InspectError::Control { source: ControlError::UnknownVersion { .. }, .. } => {
                "It is not a control file, or it is of an unknown version."
            }
            InspectError::Control { source: ControlError::TooShort { .. }, .. } => {
                "Specify a data directory, or its control file (global/pg_control, global/sys_control)."
            }
            InspectError::Control { source, .. } if source.may_be_torn() => {
                "A running server may be writing it: try again. \"kbrecover inspect control\" shows it even with a wrong checksum."
            }
            InspectError::HistoryName { .. } => {
                "The timeline is taken from the file name, which must look like 00000002.history."
            }
            InspectError::NoSegment { .. } => {
                "Only WAL segments of the supported server versions can be read."
            }
            InspectError::NoSegments { .. } => {
                "Specify a data directory, a directory of WAL files, or WAL files."
            }
            InspectError::SameSegment { .. } => "Specify files of one timeline only.",
            InspectError::Rmgr { .. } => {
                "Valid names are those that --stats lists, and custom128 to custom255."
            }
            InspectError::Missing { .. } => {
                "If the segment has been archived, specify its copy together with the other files, or start after it with --start."
            }
            InspectError::EndsBefore { .. } => {
                "WAL after this position cannot be read. Omit --end to see everything before it."
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
