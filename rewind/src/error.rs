//! Why a run failed, and what it left behind.

use std::path::PathBuf;

use walparse::scan::ScanError;
use walparse::{HistoryError, Lsn, TimelineId, Version, WalFault, WalReadError};

use crate::apply::archive_ready::ArchiveReadyError;
use crate::apply::copy::CopyError;
use crate::apply::recovery_conf::RecoveryConfError;
use crate::apply::save_diverged::KeepDivergedError;
use crate::datadir::config::ConfigError;
use crate::datadir::data_path::DataPath;
use crate::options::CrashRecoveryError;
use crate::outcome::SpaceNeed;
use crate::plan::files::PlanError;
use crate::source::{SourceError, WalkError};
use crate::survey::divergence::DivergenceError;
use crate::survey::preflight::PreflightError;
use crate::target::external_files::ArchiveRewindError;
use crate::target::journal::JournalError;
use crate::target::{LockError, TargetError};
use crate::wal::archive::ArchiveError;

/// A failed run: what went wrong, and whether the target has been touched.
#[derive(Debug, thiserror::Error)]
#[error("rewinding failed")]
pub struct Failure {
    /// What went wrong.
    #[source]
    pub error: Box<RewindError>,
    /// What state the target is in.
    pub target: TargetState,
}

/// What a failed run leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetState {
    /// As it was.
    Untouched,
    /// Partly rewound, and marked so that no server starts on it.
    Unfinished,
}

/// What can go wrong in a rewind, one variant for each thing a user can be told.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// Somebody asked for it.
    #[error("stopped by a signal")]
    Stopped,
    /// The target cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The two clusters cannot be rewound to each other.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The target's own server could not finish its crash recovery.
    #[error(transparent)]
    CrashRecovery(#[from] CrashRecoveryError),
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The target's configuration could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// WAL that waited for archiving could not be archived.
    #[error(transparent)]
    ArchiveReady(#[from] ArchiveReadyError),
    /// The history of a timeline is nowhere to be found.
    #[error("could not find the history file \"{name}\" of the {side}")]
    NoHistory {
        /// Its name.
        name: String,
        /// "source" or "target".
        side: &'static str,
    },
    /// A history file cannot be right.
    #[error("could not read a history file of the {side}")]
    History {
        /// "source" or "target".
        side: &'static str,
        /// What is wrong with it.
        #[source]
        source: HistoryError,
    },
    /// What the rewind gives up could not be copied.
    #[error(transparent)]
    KeepDiverged(#[from] KeepDivergedError),
    /// The point of divergence could not be found.
    #[error(transparent)]
    Divergence(#[from] DivergenceError),
    /// WAL of the target is gone. The words are those that HA managers look for.
    #[error("could not open file \"{file}\": No such file or directory")]
    MissingWal {
        /// Where it would be.
        file: String,
        /// The names of all segments known to be missing.
        all: Vec<String>,
        /// How far WAL of the target is needed.
        needed: Lsn,
        /// Where it was looked for.
        places: String,
    },
    /// WAL that replay will need is neither on the target nor on the source.
    #[error("WAL that replay needs is neither on the target nor on the source: {}", name_list(names))]
    MissingReplayWal {
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
    IncompleteWal(#[source] ScanError),
    /// A file of the WAL directory could not be got from elsewhere.
    #[error("could not get WAL file \"{name}\"")]
    FetchWal {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The target could not be listed.
    #[error("could not list the files of the target")]
    Walk(#[source] WalkError),
    /// The two sides do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
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
    /// A source whose WAL would have an impossible length.
    #[error("the source says that its WAL ends at {end}, which is too far from {redo}, where replay starts")]
    WalTooLong {
        /// Where replay starts.
        redo: Lsn,
        /// Where the source's WAL ends.
        end: Lsn,
    },
    /// File systems are too full.
    #[error("not enough free space: {}", shortage_list(shortages))]
    NoSpace {
        /// Those, with what they need.
        shortages: Vec<SpaceNeed>,
    },
    /// The journal of an unfinished run cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The unfinished run cannot be finished from this source.
    #[error(
        "this source forks off at {fork}, before the checkpoint at {checkpoint} that the unfinished rewind starts from"
    )]
    ForkTooOld {
        /// Where the source forks off from the target's history.
        fork: Lsn,
        /// The checkpoint.
        checkpoint: Lsn,
    },
    /// A stopped source was changed during the run.
    #[error("source system was modified while kbrecover was running")]
    SourceModified,
    /// The source went to another timeline of a history that does not fit.
    #[error(
        "the source went from timeline {before} to {after} while kbrecover was running, and its history forks off elsewhere now"
    )]
    SourceForked {
        /// At the start.
        before: TimelineId,
        /// At the end.
        after: TimelineId,
    },
    /// The WAL of a fork is not what it was taken for.
    #[error(
        "could not read the WAL of the {side} at {position} as that of {version}: page magic {magic:04X}, control file version {}, catalog version {}",
        version.control_version(),
        version.catalog_version()
    )]
    UnknownWal {
        /// Source or target.
        side: &'static str,
        /// What it was taken for.
        version: Version,
        /// The magic number of its pages.
        magic: u16,
        /// Where it was not right.
        position: Lsn,
        /// What is wrong there.
        #[source]
        source: WalFault,
    },
    /// A segment vanished from the source before it was copied.
    #[error("WAL file \"{path}\" vanished from the source before it was copied")]
    WalVanished {
        /// Its path.
        path: DataPath,
    },
    /// Copying failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The target could not be written.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The archive outside the data directory could not be brought in line.
    #[error(transparent)]
    ArchiveRewind(#[from] ArchiveRewindError),
    /// The recovery configuration could not be written.
    #[error(transparent)]
    RecoveryConf(#[from] RecoveryConfError),
}

impl RewindError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            RewindError::CrashRecovery(error) => return error.hint.clone(),
            RewindError::Source(error)
            | RewindError::Preflight(PreflightError::Source(error))
            | RewindError::Divergence(DivergenceError::Source(error)) => return error.hint(),
            RewindError::Preflight(error) => return error.hint(),
            RewindError::Config(error) => return error.hint(),
            RewindError::Archive(error) => return error.hint(),
            RewindError::KeepDiverged(error) => return error.hint(),
            RewindError::ArchiveReady(error) => return error.hint(),
            RewindError::Lock(LockError::Taken { .. }) => "Wait until it has finished.".into(),
            RewindError::Lock(_) => "Give the data directory of the stopped server, and run as its owner.".into(),
            RewindError::NoHistory { .. } => {
                "Copy it into the WAL directory of that side, for example from its archive.".into()
            }
            RewindError::History { .. } => {
                "The file is damaged. Restore it on that side, for example from the archive.".into()
            }
            RewindError::MissingWal { all, needed, places, .. } => format!(
                "WAL of the target up to {needed} is needed, and {} is missing. Looked in {places}. Give -c to use the target's restore_command, --restore-command CMD, or --wal-dir DIR with copies.",
                name_list(all)
            ),
            RewindError::MissingReplayWal { redo, places, .. } => format!(
                "Replay will start at {redo}. Looked in {places}. Give -c, --restore-command CMD, or --wal-dir DIR with copies."
            ),
            RewindError::Scan(ScanError::Damaged { .. }) => {
                "If the disk lost writes in the crash, --ensure-shutdown lets the target's own server recover first, up to the damage.".into()
            }
            RewindError::Scan(ScanError::BreaksOff { .. }) => {
                "WAL that must be there is damaged or was never written. Restore the segment, for example from the archive, or take a new base backup.".into()
            }
            RewindError::UnknownWal { .. } => {
                "Only the formats of PostgreSQL are known, and that of this server seems to be another. Without knowing what its WAL changed, the directory cannot be rewound. Take a new base backup.".into()
            }
            RewindError::Scan(ScanError::UnknownRelationChange { .. }) => {
                "What it changed cannot be known, so this directory cannot be rewound. Take a new base backup.".into()
            }
            RewindError::Walk(_)
            | RewindError::Target(_)
            | RewindError::Scan(ScanError::Read(WalReadError::Open { .. })) => {
                "Run kbrecover as the user who owns the data directory, and see that the file is accessible.".into()
            }
            RewindError::Scan(ScanError::Read(WalReadError::Fetch { .. })) => {
                "See that restore_command brings the whole segment to the path given as %p, and exits with 1 when the archive has none.".into()
            }
            RewindError::Plan(PlanError::Keep(error)) => error.hint(),
            RewindError::Plan(_) => {
                "Make it on the target what it is on the source: a link, for example, can be replaced by what it leads to.".into()
            }
            RewindError::Journal(_) => {
                "Without its journal the rewind cannot be finished. Take a new base backup of the source.".into()
            }
            RewindError::ForkTooOld { .. } => {
                "Name the source of the unfinished run, or a server that was promoted later. Else take a new base backup.".into()
            }
            RewindError::TablespacePlace { .. } => {
                "Source and target must not share a directory. Empty it, or make the link on the target by hand, to a directory of its own.".into()
            }
            RewindError::WalTooLong { .. } => {
                "No disk holds so much WAL. Is this the right source? If it is, take a new base backup.".into()
            }
            RewindError::Divergence(DivergenceError::NotComparable { .. }) => {
                "Both are on one timeline, and only this WAL could tell whether the target may follow. Take a new base backup, or, if you are sure that it may, start the target as a standby that can restore WAL from an archive.".into()
            }
            RewindError::Divergence(DivergenceError::NoAncestor | DivergenceError::Unknown { .. }) => {
                "These two cannot be rewound to each other. Take a new base backup.".into()
            }
            RewindError::NoSpace { .. } => {
                "Free space there. What the rewind will remove is not counted, for it goes last. If you know better: --ignore-free-space.".into()
            }
            _ => return None,
        })
    }
}

/// What is short where.
fn shortage_list(shortages: &[SpaceNeed]) -> String {
    let one = |short: &SpaceNeed| {
        let (needed, free) = (short.needed.div_ceil(1024), short.available / 1024);
        format!("the file system of \"{}\" needs {needed} kB and has {free} kB", short.directory.display())
    };
    shortages.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A list of names of segments in order, without the middle of a long one.
pub(crate) fn name_list(names: &[String]) -> String {
    match names {
        [first, .., last] if names.len() > 4 => format!("{first} to {last} ({} segments)", names.len()),
        _ => names.join(", "),
    }
}

impl From<walparse::WalReadError> for RewindError {
    fn from(error: walparse::WalReadError) -> RewindError {
        RewindError::Divergence(DivergenceError::Read(error))
    }
}
