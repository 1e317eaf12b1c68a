//! Determines the state of a data directory from its files alone.
//!
//! Nothing is written and no lock is taken: this is safe while a server or another run uses the directory.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use walparse::{ControlFile, Flavor};

use crate::datadir::config::ConfigError;
use crate::datadir::flavor::{FlavorError, flavor_of_directory};
use crate::datadir::label::BackupLabel;
use crate::datadir::server::{self, DataDirectoryError, LockFile};
use crate::datadir::starts_as::{StartsAs, starts_as};
use crate::outcome::{CheckpointAt, Divergence};
use crate::target::compared::ComparedSoFar;
use crate::target::copied::CopiedSoFar;
use crate::target::journal::{Journal, JournalError};
use crate::target::lock_holder;

/// Why the state of a data directory cannot be determined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// The directory cannot be read.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// The product that created it was not recognized.
    #[error("could not find out the flavor of the target")]
    Flavor(#[from] FlavorError),
    /// Its recovery settings cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl StatusError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        match self {
            StatusError::DataDirectory(error) => error.hint(),
            StatusError::Flavor(error) => Some(error.hint()),
            StatusError::Config(error) => error.hint(),
        }
    }
}

/// The state of a data directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Status {
    /// The directory, as an absolute path.
    pub directory: PathBuf,
    /// What can be done with it.
    pub condition: Condition,
    /// Its control file.
    pub control: ControlFile,
    /// Process ID of the server that runs on it.
    pub server: Option<u32>,
    /// Whether there is a lock file of a server that no longer runs.
    pub has_stale_lock_file: bool,
    /// Process ID of the kbrecover that has locked it.
    pub kbrecover: Option<u32>,
    /// The unfinished rewind; `None` with [`Condition::Unfinished`] if its journal cannot be used.
    pub unfinished: Option<UnfinishedRewind>,
    /// How far the copy of a run has come that works on it, as it has noted last.
    pub copy: Option<CopiedSoFar>,
    /// Why the journal of an unfinished rewind cannot be used.
    pub journal_problem: Option<JournalError>,
    /// How far a comparison of all data has come that runs or was interrupted, as it has noted last. Nothing has been changed.
    pub comparison: Option<ComparisonSoFar>,
    /// The role that a server will have after its next start.
    pub starts_as: StartsAs,
}

/// What can be done with a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Condition {
    /// Shut down cleanly.
    Clean,
    /// A server runs on it.
    ServerRuns,
    /// A kbrecover has locked it.
    KbrecoverRuns,
    /// A rewind has not finished: no server starts on it.
    Unfinished,
    /// Rewound, and no server has been started since.
    Rewound,
    /// Not shut down cleanly: the next start begins with recovery.
    NeedsRecovery,
    /// A base backup; no server has been started on it yet.
    BaseBackup,
}

/// An unfinished rewind, as its journal describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UnfinishedRewind {
    /// When it began, in ISO 8601; in older journals local time with its zone.
    pub begun: String,
    /// The same in local time with its zone.
    pub begun_text: String,
    /// The name of the source it began with.
    pub source: String,
    /// The point of divergence, if it is known.
    pub divergence: Option<Divergence>,
    /// Where replay is to start, if the journal tells it.
    pub replay_start: Option<CheckpointAt>,
    /// Bytes that the next run fetches again, by the plan of the first run; `None` in journals of older versions.
    pub bytes_left: Option<u64>,
    /// Relations that have blocks named in the target's WAL after the fork.
    pub relations: u64,
    /// The number of these blocks.
    pub blocks: u64,
}

/// A comparison of all data (`--compare-data`), as its note describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ComparisonSoFar {
    /// Relation files that were compared, the last of them maybe in part.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes to compare in all; `None` in notes of older versions.
    pub total: Option<u64>,
    /// Blocks that differ.
    pub different_blocks: u64,
}

/// Reads the state of the data directory at `directory`.
///
/// # Errors
/// It is no data directory, or one of the files that tell its state cannot be read.
///
/// ```
/// use kbrecover_rewind::{Condition, StartsAs, status};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let data_directory = directory.path();
/// # let version = walparse::Version::all().find(|version| version.name() == "15").ok_or("no such version")?;
/// # std::fs::create_dir(data_directory.join("global"))?;
/// # std::fs::write(data_directory.join("PG_VERSION"), "15\n")?;
/// # let control = walparse::control::testing::ControlFields::clean(version).build();
/// # std::fs::write(data_directory.join("global/pg_control"), control)?;
/// # std::fs::write(data_directory.join("standby.signal"), "")?;
/// let status = status(data_directory)?;
/// assert_eq!(status.condition, Condition::Clean);
/// assert_eq!(status.starts_as, StartsAs::Standby);
/// assert_eq!(status.control.version().name(), "15");
/// # Ok(())
/// # }
/// ```
pub fn status(directory: &Path) -> Result<Status, StatusError> {
    let open = |source| DataDirectoryError::Open { path: directory.to_owned(), source };
    let root = directory.canonicalize().map_err(open)?;
    let flavor = flavor_of_directory(&root, None)?;
    server::check_data_directory(&root, flavor.names())?;
    let (label, journal) = label_and_journal(&root, flavor)?;
    let control = control_file(&root, flavor)?;
    let kbrecover = lock_holder::find(&root);
    let (server, has_stale_lock_file) = match server::check_not_running(&root, flavor.names()) {
        Ok(lock_file) => (None, lock_file == LockFile::Stale),
        Err(DataDirectoryError::Running { pid, .. } | DataDirectoryError::ServerProcess { pid, .. }) => {
            (Some(pid), false)
        }
        Err(error) => return Err(error.into()),
    };
    let condition = match label {
        _ if kbrecover.is_some() => Condition::KbrecoverRuns,
        Some(BackupLabel::Unfinished) => Condition::Unfinished,
        _ if server.is_some() => Condition::ServerRuns,
        Some(BackupLabel::Start { by_rewind: true, .. }) => Condition::Rewound,
        Some(BackupLabel::Start { .. }) => Condition::BaseBackup,
        None if control.state().is_clean() => Condition::Clean,
        None => Condition::NeedsRecovery,
    };
    let (unfinished, journal_problem) = match journal {
        None => (None, None),
        Some(Ok(journal)) => (Some(UnfinishedRewind::of(&journal)), None),
        Some(Err(problem)) => (None, Some(problem)),
    };
    let comparison = match label {
        Some(BackupLabel::Unfinished) => None,
        _ => ComparedSoFar::read(&root, &control).map(|noted| ComparisonSoFar::of(&noted)),
    };
    let copy = unfinished.as_ref().filter(|_| kbrecover.is_some()).and_then(|_| CopiedSoFar::read(&root));
    let starts_as = starts_as(&root, control.version())?;
    Ok(Status {
        directory: root,
        condition,
        control,
        server,
        has_stale_lock_file,
        kbrecover,
        unfinished,
        copy,
        journal_problem,
        comparison,
        starts_as,
    })
}

impl UnfinishedRewind {
    fn of(journal: &Journal) -> UnfinishedRewind {
        let relations = journal.changed.named.relations();
        UnfinishedRewind {
            begun: journal.begun.clone(),
            begun_text: journal.begun_text(),
            source: journal.source.clone(),
            divergence: journal.divergence,
            replay_start: journal.replay_start.map(|start| start.at).or(journal.checkpoint),
            bytes_left: journal.fetch_bytes,
            relations: relations.len() as u64,
            blocks: relations.into_iter().map(|(_, blocks)| blocks.len()).sum(),
        }
    }
}

impl ComparisonSoFar {
    fn of(noted: &ComparedSoFar) -> ComparisonSoFar {
        ComparisonSoFar {
            files: noted.files.len() as u64,
            bytes: noted.files.values().sum(),
            total: noted.total,
            different_blocks: noted.different.len(),
        }
    }
}

/// `backup_label`, and the journal if the label carries our mark. A run may finish between the two reads, so the
/// label is read again afterwards.
fn label_and_journal(
    root: &Path,
    flavor: Flavor,
) -> Result<(Option<BackupLabel>, Option<Result<Journal, JournalError>>), DataDirectoryError> {
    let label = server::backup_label(root)?;
    if label != Some(BackupLabel::Unfinished) {
        return Ok((label, None));
    }
    let journal = Journal::read(root, flavor);
    match server::backup_label(root)? {
        Some(BackupLabel::Unfinished) => Ok((label, Some(journal))),
        finished => Ok((finished, None)),
    }
}

/// The control file. A torn read, because a running server is writing it, is repeated.
fn control_file(root: &Path, flavor: Flavor) -> Result<ControlFile, DataDirectoryError> {
    for _ in 0..5 {
        match server::target_control(root, flavor) {
            Err(DataDirectoryError::Control { source, .. }) if source.may_be_torn() => {
                thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
    server::target_control(root, flavor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::inventory::Inventory;
    use crate::datadir::label;
    use crate::target::Target;
    use crate::target::external_files::ExternalFiles;
    use crate::target::journal::NewJournal;
    use crate::wal::changed::ChangedBlocks;
    use walparse::control::testing::ControlFields;
    use walparse::{BlockNumber, Lsn, Relation, TimelineHistory, TimelineId, Version};

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    /// A directory with the files that determine its state.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("global")).unwrap();
        std::fs::write(directory.path().join("PG_VERSION"), "15\n").unwrap();
        let control = ControlFields::clean(version()).build();
        std::fs::write(directory.path().join("global/pg_control"), control).unwrap();
        directory
    }

    fn put(directory: &tempfile::TempDir, name: &str, text: &str) {
        std::fs::write(directory.path().join(name), text).unwrap();
    }

    fn write_journal(directory: &tempfile::TempDir, target: &Target) {
        let control = server::target_control(directory.path(), version().flavor()).unwrap();
        let mut changed = ChangedBlocks::default();
        for (number, block) in [(16384, 0), (16384, 7), (16385, 1)] {
            changed.named.insert(Relation { tablespace: 1663, database: 5, number }, BlockNumber(block));
        }
        let journal = NewJournal {
            source: "server x".into(),
            control: &control,
            history: &TimelineHistory::of_first(TimelineId(1)),
            divergence: Some(Divergence { lsn: Lsn(0x500_0000), timeline: TimelineId(1) }),
            checkpoint: Some(CheckpointAt {
                lsn: Lsn(0x400_0060),
                redo: Lsn(0x400_0028),
                timeline: TimelineId(1),
            }),
            changed: &changed,
            outside: &ExternalFiles::default(),
            files: &Inventory::default(),
            original: None,
            file_changes: &walparse::FileChanges::default(),
            lost: None,
            replay_start: None,
            compared_until: None,
            fetch_bytes: 4711,
            keep: &[],
            keep_diverged: None,
        };
        journal.write(target).unwrap();
    }

    #[test]
    fn condition_and_role_follow_from_the_files() {
        let directory = directory();
        let state = || status(directory.path()).unwrap();
        let clean = state();
        assert_eq!((clean.condition, clean.starts_as), (Condition::Clean, StartsAs::Primary));
        assert_eq!((clean.server, clean.kbrecover, clean.has_stale_lock_file), (None, None, false));
        put(&directory, "recovery.signal", "");
        assert_eq!(state().starts_as, StartsAs::Recovery);
        put(&directory, "standby.signal", "");
        assert_eq!(state().starts_as, StartsAs::Standby);

        let text = "START WAL LOCATION: 0/1 (file x)\nCHECKPOINT LOCATION: 0/2\nBACKUP METHOD: ";
        put(&directory, "backup_label", &format!("{text}pg_rewind\n"));
        assert_eq!(state().condition, Condition::Rewound);
        put(&directory, "backup_label", &format!("{text}streamed\n"));
        assert_eq!(state().condition, Condition::BaseBackup);
        put(&directory, "backup_label", "nonsense");
        assert!(status(directory.path()).is_err());
    }

    #[test]
    fn an_unfinished_rewind_reports_what_is_left() {
        let directory = directory();
        put(&directory, "backup_label", label::mark());
        let lost = status(directory.path()).unwrap();
        assert_eq!(lost.condition, Condition::Unfinished);
        assert!(lost.unfinished.is_none() && lost.journal_problem.is_some());

        let target = Target::lock(directory.path()).unwrap();
        write_journal(&directory, &target);
        assert_eq!(status(directory.path()).unwrap().condition, Condition::KbrecoverRuns);
        drop(target);
        let status = status(directory.path()).unwrap();
        assert_eq!(status.condition, Condition::Unfinished);
        let unfinished = status.unfinished.unwrap();
        assert_eq!((unfinished.relations, unfinished.blocks, unfinished.bytes_left), (2, 3, Some(4711)));
        assert_eq!(unfinished.source, "server x");
        assert_eq!(unfinished.divergence.map(|at| at.lsn), Some(Lsn(0x500_0000)));
        assert_eq!(unfinished.replay_start.map(|start| start.redo), Some(Lsn(0x400_0028)));
    }

    #[test]
    fn status_takes_no_lock_and_names_the_holder() {
        let directory = directory();
        let target = Target::lock(directory.path()).unwrap();
        assert_eq!(status(directory.path()).unwrap().kbrecover, Some(std::process::id()));
        drop(target);
        assert_eq!(status(directory.path()).unwrap().kbrecover, None);
        Target::lock(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_no_data_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(status(directory.path()).is_err());
        assert!(status(&directory.path().join("none")).is_err());
    }
}
