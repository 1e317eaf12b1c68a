//! Why WAL or a timeline history could not be had or read.

use std::error::Error;

use walparse::scan::ScanError;
use walparse::{HistoryError, Lsn, Version, WalFault, WalReadError};

use crate::datadir::data_path::DataPath;
use crate::source::SourceError;
use crate::wal::archive::ArchiveError;

/// Why WAL or a timeline history could not be had or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// No history file of a timeline was found.
    #[error("could not find the history file \"{name}\" of the {side}")]
    NoHistory {
        /// Its name.
        name: String,
        /// "source" or "target".
        side: &'static str,
    },
    /// A history file is damaged.
    #[error("could not read a history file of the {side}")]
    History {
        /// "source" or "target".
        side: &'static str,
        /// What is wrong with it.
        #[source]
        source: HistoryError,
    },
    /// WAL of the target is missing. HA managers look for these words.
    #[error("could not open file \"{file}\": No such file or directory")]
    Missing {
        /// The path where it would be.
        file: String,
        /// The names of all segments known to be missing.
        all: Vec<String>,
        /// The position up to which the target's WAL is needed.
        needed: Lsn,
        /// Where it was looked for.
        places: String,
    },
    /// Neither side has WAL that replay will need.
    #[error("WAL that replay needs is neither on the target nor on the source: {}", name_list(names))]
    MissingForReplay {
        /// The names of the segments.
        names: Vec<String>,
        /// Where replay starts.
        redo: Lsn,
        /// Where they were looked for.
        places: String,
    },
    /// The target's WAL could not be read.
    #[error("could not read the WAL of the target")]
    Scan(#[source] ScanError),
    /// The WAL on the rewound target does not reach from redo to minRecoveryPoint.
    #[error("the WAL brought to the target is not complete")]
    Incomplete(#[source] ScanError),
    /// A file of the WAL directory could not be fetched.
    #[error("could not get WAL file \"{name}\"")]
    Fetch {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The source's WAL would be impossibly long.
    #[error("the source says that its WAL ends at {end}, which is too far from {redo}, where replay starts")]
    TooLong {
        /// Where replay starts.
        redo: Lsn,
        /// Where the source's WAL ends.
        end: Lsn,
    },
    /// The WAL of a fork does not have the format of the version it was taken for.
    #[error(
        "could not read the WAL of the {side} at {position} as that of {version}: page magic {magic:04X}, control file version {}, catalog version {}",
        version.control_version(),
        version.catalog_version()
    )]
    UnknownFormat {
        /// "source" or "target".
        side: &'static str,
        /// The version it was taken for.
        version: Version,
        /// The magic number of its pages.
        magic: u16,
        /// Where reading failed.
        position: Lsn,
        /// What is wrong there.
        #[source]
        source: WalFault,
    },
    /// The source removed a segment before it was copied.
    #[error("WAL file \"{path}\" vanished from the source before it was copied")]
    Vanished {
        /// Its path.
        path: DataPath,
    },
    /// The end of the source's WAL could not be found.
    #[error("could not read the end of the WAL of the source at {lsn}")]
    SourceEnd {
        /// Where its last record should be.
        lsn: Lsn,
        /// What stands there.
        #[source]
        source: WalFault,
    },
    /// A segment could not be read.
    #[error(transparent)]
    Read(#[from] WalReadError),
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl WalError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            WalError::Source(error) => return error.hint(),
            WalError::Archive(error) => return error.hint(),
            WalError::Scan(error) => return scan_hint(error),
            WalError::NoHistory { .. } => {
                "Copy it into the WAL directory of that side, for example from its archive.".into()
            }
            WalError::History { .. } => {
                "The file is damaged. Restore it on that side, for example from the archive.".into()
            }
            WalError::Missing { all, needed, places, .. } => format!(
                "WAL of the target up to {needed} is needed, and {} is missing. Looked in {places}. Give -c to use the target's restore_command, --restore-command CMD, or --wal-dir DIR with copies.",
                name_list(all)
            ),
            WalError::MissingForReplay { redo, places, .. } => format!(
                "Replay will start at {redo}. Looked in {places}. Give -c, --restore-command CMD, or --wal-dir DIR with copies."
            ),
            WalError::UnknownFormat { .. } => {
                "Only the formats of PostgreSQL are known, and that of this server seems to be another. Without knowing what its WAL changed, the directory cannot be rewound. Take a new base backup.".into()
            }
            WalError::TooLong { .. } => {
                "No disk holds so much WAL. Is this the right source? If it is, take a new base backup.".into()
            }
            WalError::Incomplete(_)
            | WalError::Fetch { .. }
            | WalError::Vanished { .. }
            | WalError::SourceEnd { .. }
            | WalError::Read(_) => return None,
        })
    }
}

/// What to do about WAL of the target that cannot be read.
fn scan_hint(error: &ScanError) -> Option<String> {
    let hint = match error {
        ScanError::Damaged { .. } => {
            "If the disk lost writes in the crash, --ensure-shutdown lets the target's own server recover first, up to the damage."
        }
        ScanError::BreaksOff { .. } => {
            "WAL that must be there is damaged or was never written. Restore the segment, for example from the archive, or take a new base backup."
        }
        ScanError::UnknownRelationChange { .. } => {
            "What it changed cannot be known, so this directory cannot be rewound. Take a new base backup."
        }
        ScanError::Read(WalReadError::Open { .. }) => {
            "Run kbrecover as the user who owns the data directory, and see that the file is accessible."
        }
        ScanError::Read(WalReadError::Fetch { .. }) => {
            "See that restore_command brings the whole segment to the path given as %p, and exits with 1 when the archive has none."
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// A list of names of segments in order, without the middle of a long one.
pub(crate) fn name_list(names: &[String]) -> String {
    match names {
        [first, .., last] if names.len() > 4 => format!("{first} to {last} ({} segments)", names.len()),
        _ => names.join(", "),
    }
}
