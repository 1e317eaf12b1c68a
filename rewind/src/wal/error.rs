//! Errors in finding and reading WAL and timeline histories.

use std::error::Error;

use walparse::scan::ScanError;
use walparse::{HistoryError, Lsn, Version, WalFault, WalReadError};

use crate::datadir::data_path::DataPath;
use crate::source::SourceError;
use crate::wal::archive::ArchiveError;

/// Why WAL or a timeline history could not be found or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The history file of a timeline was not found.
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
    /// WAL of the target is missing. HA tools match on this text, which is that of `pg_rewind`.
    #[error("could not open file \"{file}\": No such file or directory")]
    Missing {
        /// The path of the first missing segment in the WAL directory.
        file: String,
        /// The file names of all segments known to be missing.
        all: Vec<String>,
        /// The position up to which the target's WAL is needed.
        needed: Lsn,
        /// The places that were searched, for display.
        places: String,
    },
    /// Neither side has the WAL needed for replay.
    #[error("WAL needed for replay is neither on the target nor on the source: {}", name_list(names))]
    MissingForReplay {
        /// The file names of the missing segments.
        names: Vec<String>,
        /// Where replay starts.
        redo: Lsn,
        /// The places that were searched, for display.
        places: String,
        /// Where replay could start instead, if it were known what the source has changed before.
        later: Option<Lsn>,
    },
    /// The target's WAL could not be read.
    #[error("could not read the WAL of the target")]
    Scan(#[source] ScanError),
    /// The source's WAL from the fork on could not be read.
    #[error("could not read the WAL of the source")]
    ScanSource(#[source] ScanError),
    /// The WAL on the rewound target does not reach from redo to minRecoveryPoint.
    #[error("the WAL copied to the target is incomplete")]
    Incomplete(#[source] ScanError),
    /// A file of the WAL directory could not be fetched.
    #[error("could not fetch WAL file \"{name}\"")]
    Fetch {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The source reports more WAL than a server can have.
    #[error("source reports that its WAL ends at {end}, too far from {redo}, where replay starts")]
    TooLong {
        /// Where replay starts.
        redo: Lsn,
        /// Where the source's WAL ends.
        end: Lsn,
    },
    /// The WAL of a fork does not have the format of the PostgreSQL version that its control file indicates.
    #[error(
        "could not read the WAL of the {side} at {position} in the format of {version}: page magic {magic:04X}, control file version {}, catalog version {}",
        version.control_version(),
        version.catalog_version()
    )]
    UnknownFormat {
        /// "source" or "target".
        side: &'static str,
        /// The version whose format was assumed.
        version: Version,
        /// The magic number of its pages.
        magic: u16,
        /// Where reading failed.
        position: Lsn,
        /// What is wrong at that position.
        #[source]
        source: WalFault,
    },
    /// The source removed a segment before it was copied.
    #[error("WAL file \"{path}\" vanished from the source before it was copied")]
    Vanished {
        /// Its path below the data directory.
        path: DataPath,
    },
    /// The last checkpoint record of a stopped source could not be read, so the end of its WAL is unknown.
    #[error("could not read the last checkpoint record of the source at {lsn}")]
    SourceEnd {
        /// The position of that record, from the control file.
        lsn: Lsn,
        /// What is wrong at that position.
        #[source]
        source: WalFault,
    },
    /// The checkpoint at which replay starts could not be read.
    #[error("could not read the checkpoint at {lsn}, where replay starts")]
    Checkpoint {
        /// The position of its record.
        lsn: Lsn,
        /// What is wrong at that position.
        #[source]
        source: WalFault,
    },
    /// A segment could not be read.
    #[error(transparent)]
    Read(#[from] WalReadError),
    /// The `restore_command` could not be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl WalError {
    /// Whether it does not matter if data is compared, which needs no WAL but the source's since its newest checkpoint.
    pub(crate) fn is_cured_by_comparing(&self) -> bool {
        match self {
            WalError::NoHistory { side, .. } | WalError::History { side, .. } => *side == "target",
            WalError::UnknownFormat { side, .. } => *side == "target",
            WalError::Missing { .. }
            | WalError::MissingForReplay { .. }
            | WalError::Scan(_)
            | WalError::ScanSource(_)
            | WalError::Fetch { .. }
            | WalError::Read(_)
            | WalError::Archive(_) => true,
            _ => false,
        }
    }

    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            WalError::Source(error) => return error.hint(),
            WalError::Archive(error) => return error.hint(),
            WalError::Scan(error) => return scan_hint(error),
            WalError::NoHistory { .. } => {
                "Copy the file to the WAL directory of that server, for example from its archive.".into()
            }
            WalError::History { .. } => {
                "The file is damaged. Restore it on that server, for example from the archive.".into()
            }
            WalError::Missing { all, needed, places, .. } => format!(
                "WAL of the target is needed up to {needed}, and {} is missing. Searched {places}. Use -c for the target's restore_command, --restore-command CMD, or --wal-dir DIR with copies of the files.",
                name_list(all)
            ),
            WalError::MissingForReplay { places, later: Some(later), .. } => format!(
                "Replay could start at {later}, the source's newest checkpoint, but without this WAL it is not known what the source has changed before, and another checkpoint does not help. Searched {places}. Use --wal-dir DIR with copies of the files, --restore-command CMD, or -c. From version 17 on the source's WAL summaries serve as well, if summarize_wal was on there since the last common checkpoint. Otherwise take a new base backup."
            ),
            WalError::MissingForReplay { redo, places, .. } => format!(
                "Replay will start at {redo}. Searched {places}. Use -c, --restore-command CMD, or --wal-dir DIR with copies of the files."
            ),
            WalError::UnknownFormat { .. } => {
                "This server's WAL format differs from the known PostgreSQL formats. Without reading the WAL, the changed blocks are unknown and the directory cannot be rewound. Take a new base backup.".into()
            }
            WalError::TooLong { .. } => {
                "No server can have so much WAL. Is this the right source? If it is, take a new base backup.".into()
            }
            WalError::Incomplete(_)
            | WalError::ScanSource(_)
            | WalError::Fetch { .. }
            | WalError::Vanished { .. }
            | WalError::SourceEnd { .. }
            | WalError::Checkpoint { .. }
            | WalError::Read(_) => return None,
        })
    }
}

/// A hint for the operator if the target's WAL cannot be read.
fn scan_hint(error: &ScanError) -> Option<String> {
    let hint = match error {
        ScanError::Damaged { .. } => {
            "If the disk lost writes in the crash, use --ensure-shutdown: the target's own server then recovers first, up to the damaged record."
        }
        ScanError::BreaksOff { .. } => {
            "Required WAL is damaged or was never written. Restore the segment, for example from the archive, or take a new base backup."
        }
        ScanError::UnknownRelationChange { .. } => {
            "The changes of that record are unknown, so this directory cannot be rewound. Take a new base backup."
        }
        ScanError::Read(WalReadError::Open { .. }) => {
            "Run kbrecover as the user who owns the data directory, and check that the file is accessible."
        }
        ScanError::Read(WalReadError::Fetch { .. }) => {
            "Check that restore_command copies the complete segment to the path given as %p, and exits with status 1 if the archive does not have it."
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// The names of segments, in order, separated by commas. A long list is abbreviated to its first and last name.
pub(crate) fn name_list(names: &[String]) -> String {
    match names {
        [first, .., last] if names.len() > 4 => format!("{first} to {last} ({} segments)", names.len()),
        _ => names.join(", "),
    }
}
