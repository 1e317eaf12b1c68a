//! The input of a run.

use std::ffi::OsStr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use walparse::ControlFile;

use crate::conninfo::{Conninfo, WrittenPassword};
use crate::datadir::keep::KeepRules;
use crate::observer::ChangeObserver;
use crate::stop::StopFlag;

/// All input of a run. The engine reads no environment variables.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The data directory to rewind.
    pub target: PathBuf,
    /// The cluster whose history the target will have.
    pub source: SourceChoice,
    /// Key of the product that created both clusters ([`walparse::Flavor::key`]); `None`: detected from their files.
    pub flavor: Option<String>,
    /// How long reconnecting to a running source is tried after a connection is lost; zero: not at all.
    pub retry_timeout: Duration,
    /// Whether to rewind, to check, or only to plan.
    pub mode: Mode,
    /// What to do about a target that is on the source's timeline and has not diverged.
    pub same_timeline: SameTimeline,
    /// What to do about a source whose timeline is older than the target's.
    pub older_source: OlderSource,
    /// Whether to make the target a standby of the source.
    pub recovery_conf: RecoveryConf,
    /// What to do if that standby could not log in for replication.
    pub replication_login: ReplicationLogin,
    /// Which local files of the target are kept.
    pub keep: KeepRules,
    /// Where to search for WAL that the target no longer has.
    pub missing_wal: MissingWal,
    /// The target's `postgresql.conf`, if it is not in the data directory.
    pub config_file: Option<PathBuf>,
    /// What to do if there is too little free space.
    pub space: SpaceCheck,
    /// Where replay on the rewound target starts.
    pub replay_from: ReplayFrom,
    /// Whether the data of both sides is compared, instead of reading from the target's WAL what differs.
    pub compare_data: CompareData,
    /// Whether, before the commit, every block of the relations is compared with the source's. One that differs though the
    /// source has not changed it since replay's start is copied and reported.
    pub verify: bool,
    /// Whether a running source is asked for a checkpoint first, so that replay can start there. The role must be a superuser
    /// or, from 15 on, have the privileges of `pg_checkpoint`. A standby makes a restartpoint at the last checkpoint of its
    /// primary that it has replayed. A run that changes nothing ([`Mode::DryRun`], [`Mode::Check`]) only checks the
    /// privilege. A stopped source has made a checkpoint when it was shut down.
    pub checkpoint_source: bool,
    /// What to do about changed blocks that replay rebuilds.
    pub rebuilt_blocks: RebuiltBlocks,
    /// Where discarded data is saved before the first change; `None`: it is not saved.
    pub keep_diverged: Option<KeepDiverged>,
    /// A directory that gets a directory for each rewind in which discarded data is saved, if there is room for it. Not used if
    /// [`Options::keep_diverged`] is set.
    pub keep_root: Option<KeepRoot>,
    /// The largest number of committed transactions that a rewind may give up; `None`: any. A rewind that would give up more, or
    /// does not know how many, fails before the first change.
    pub max_lost_transactions: Option<u64>,
    /// Whether WAL of the target that is not archived yet (`archive_status/*.ready`) is archived before the first
    /// change.
    pub archive_ready: bool,
    /// How changes are made durable.
    pub sync: SyncChoice,
    /// Number of connections, and of threads; `None`: the engine's choice.
    pub jobs: Option<NonZeroUsize>,
    /// Which targets are rewound.
    pub need: Need,
    /// Whether files are compared before they are copied whole.
    pub delta: Delta,
    /// Limit on the bytes read from the source per second; `None`: no limit.
    pub max_rate: Option<NonZeroU64>,
    /// What to do about a target that was not shut down cleanly.
    pub unclean_target: UncleanTarget,
    /// Requests the run to stop early.
    pub stop: StopFlag,
    /// Called before every change to the target; for tests.
    pub observer: Option<Arc<dyn ChangeObserver>>,
}

impl Options {
    /// The default options for rewinding the data directory `target`. Other choices are made by setting fields.
    ///
    /// ```
    /// use kbrecover_rewind::{Mode, Options, SourceChoice};
    ///
    /// let source = SourceChoice::Directory("/backup/new_primary".into());
    /// let mut options = Options::new("/var/lib/postgresql/18/main".into(), source);
    /// options.mode = Mode::Check;
    /// options.archive_ready = true;
    /// ```
    pub fn new(target: PathBuf, source: SourceChoice) -> Options {
        Options {
            target,
            source,
            mode: Mode::Rewind,
            same_timeline: SameTimeline::Follow,
            older_source: OlderSource::Refuse,
            recovery_conf: RecoveryConf::Leave,
            replication_login: ReplicationLogin::Require,
            keep: KeepRules::standard(),
            missing_wal: MissingWal { directories: Vec::new(), restore_command: RestoreCommand::Off },
            config_file: None,
            space: SpaceCheck::Enforce,
            replay_from: ReplayFrom::Auto,
            compare_data: CompareData::Off,
            verify: false,
            checkpoint_source: false,
            rebuilt_blocks: RebuiltBlocks::Leave,
            keep_diverged: None,
            keep_root: None,
            max_lost_transactions: None,
            archive_ready: false,
            sync: SyncChoice::Fsync,
            delta: Delta::Auto,
            max_rate: None,
            jobs: None,
            need: Need::Diverged,
            unclean_target: UncleanTarget::Accept,
            flavor: None,
            retry_timeout: Duration::from_secs(60),
            stop: StopFlag::default(),
            observer: None,
        }
    }
}

/// What to do about a source on a timeline from which the target's timeline branched off. Most likely the two sides are
/// swapped: the new primary would be rewound to the old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OlderSource {
    /// The run fails before the first change.
    Refuse,
    /// The run warns and continues, as `pg_rewind` would without a warning.
    Warn,
    /// The caller has asked for it.
    Allow,
}

/// Where and to what extent discarded data is saved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeepDiverged {
    /// A directory outside the data directory that is empty or does not exist yet.
    pub directory: PathBuf,
    /// Whether all bytes of other files that will be overwritten or removed are saved, too, and not only WAL.
    pub blocks: bool,
    /// Whether the whole target is saved. Then [`restore`](crate::restore) does not need the rewound directory.
    #[serde(default)]
    pub all: bool,
}

impl KeepDiverged {
    /// Discarded data is saved in `directory`: WAL and, with `blocks`, also the bytes of other files.
    pub fn new(directory: PathBuf, blocks: bool) -> KeepDiverged {
        KeepDiverged { directory, blocks, all: false }
    }
}

/// Where discarded data of many rewinds is saved, each in a directory of its own, and how much of it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KeepRoot {
    /// The directory; it is made if it does not exist.
    pub directory: PathBuf,
    /// As [`KeepDiverged::blocks`].
    pub blocks: bool,
    /// As [`KeepDiverged::all`].
    pub all: bool,
    /// How many directories are kept at most, that of the present rewind among them; `None`: any number.
    pub most: Option<NonZeroUsize>,
    /// How many days each of the others is kept at most; `None`: any number.
    pub days: Option<NonZeroU64>,
    /// How many bytes all of them take at most; `None`: any number.
    pub bytes: Option<NonZeroU64>,
    /// How many times what is saved must be free there, beside what the rewind needs. Otherwise nothing is saved.
    pub room: NonZeroU64,
}

impl KeepRoot {
    /// The last five are kept in `directory`, if there is room.
    pub fn new(directory: PathBuf) -> KeepRoot {
        KeepRoot {
            directory,
            blocks: false,
            all: false,
            most: NonZeroUsize::new(5),
            days: None,
            bytes: None,
            room: NonZeroU64::MIN,
        }
    }

    /// The last three are kept for 30 days beside the data directory, in `DATA.diverged`, if ten times as much is free: for runs of
    /// which nobody has said where.
    pub fn beside(data: &Path) -> KeepRoot {
        let mut name = data.file_name().unwrap_or(OsStr::new("data")).to_owned();
        name.push(".diverged");
        KeepRoot {
            most: NonZeroUsize::new(3),
            days: NonZeroU64::new(30),
            room: NonZeroU64::MIN.saturating_add(9),
            ..KeepRoot::new(data.with_file_name(name))
        }
    }
}

/// The source: a server or a directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SourceChoice {
    /// A running server.
    Server(Box<Conninfo>),
    /// The data directory of a stopped server.
    Directory(PathBuf),
}

/// Whether the source may change while it is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SourceLife {
    Running,
    Stopped,
}

impl SourceChoice {
    /// Whether the source may change during the run.
    pub(crate) fn life(&self) -> SourceLife {
        match self {
            SourceChoice::Server(_) => SourceLife::Running,
            SourceChoice::Directory(_) => SourceLife::Stopped,
        }
    }
}

/// How far a run goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mode {
    /// Rewind the target.
    Rewind,
    /// Make the plan and stop; nothing is changed and no data is copied.
    DryRun,
    /// Make the plan, check everything that can fail, and stop.
    Check,
}

/// What to do about a target on the source's timeline whose WAL is a part of the source's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SameTimeline {
    /// Nothing: it can follow the source as it is.
    Follow,
    /// Rewind it from its last checkpoint on all the same, as `sys_rewind` of KingbaseES V8R3 does.
    Resync,
}

/// What to do about the target's recovery configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RecoveryConf {
    /// Nothing.
    Leave,
    /// Write `primary_conninfo` and `standby.signal`, or up to 11 `recovery.conf` (`-R`).
    Write(WrittenPassword),
}

/// What to do if the target is to become a standby ([`RecoveryConf::Write`]) and the role of the source connection cannot be
/// used for replication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReplicationLogin {
    /// A login for replication is tried; if it fails, the run fails before the first change.
    Require,
    /// The run warns if the role may not replicate, and continues. `pg_rewind` is used with roles whose connection string is
    /// replaced before the start.
    Warn,
}

/// Where to search for WAL of the target that is not in its WAL directory; the directories come first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MissingWal {
    /// Directories with copies of segments, in the order in which they are searched.
    pub directories: Vec<PathBuf>,
    /// The command that fetches a segment from an archive.
    pub restore_command: RestoreCommand,
}

impl MissingWal {
    /// WAL is searched for in `directories`, then fetched with `restore_command`.
    pub fn new(directories: Vec<PathBuf>, restore_command: RestoreCommand) -> MissingWal {
        MissingWal { directories, restore_command }
    }
}

/// Which `restore_command` to use for missing WAL.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RestoreCommand {
    /// None.
    Off,
    /// The one in the target's configuration (`-c`).
    FromTarget,
    /// This command.
    Given(String),
}

/// What to do if a file system has too little free space for the rewind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SpaceCheck {
    /// Stop before the first change.
    Enforce,
    /// Warn and go on.
    Ignore,
}

/// Where replay on the rewound target starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReplayFrom {
    /// Where the target is expected to stream sooner, or where replay is sure to be right.
    Auto,
    /// At the last common checkpoint.
    Common,
    /// At the source's newest checkpoint, if that is a later one of its own history.
    Newest,
}

/// Whether the data of both sides is compared, instead of reading from the target's WAL what differs. All relation files are
/// then read on both sides, and what differs is copied. Neither the target's WAL nor logged hint bits are needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CompareData {
    /// No.
    Off,
    /// Only if WAL cannot tell what differs.
    Auto,
    /// Yes.
    On,
}

/// What to do about changed blocks that replay of the common WAL rebuilds whatever their contents are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RebuiltBlocks {
    /// Do not copy them: replay restores them.
    Leave,
    /// Copy them like all others.
    Copy,
}

/// How changes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SyncChoice {
    /// fsync every file and directory that was changed.
    Fsync,
    /// Sync the whole file systems of the data directory, the WAL directory and the tablespaces.
    Syncfs,
    /// Not at all: when data reaches the disk is left to the operating system (`-N`).
    Off,
}

/// Which targets are rewound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Need {
    /// Those with WAL that the source does not have.
    Diverged,
    /// Also those that were not shut down cleanly, if the source is on another timeline. `pg_rewind` does so:
    /// it completes crash recovery first, and the checkpoint at the end of recovery is WAL that the source
    /// does not have.
    DivergedOrUnclean,
}

/// Whether files that would be copied whole are compared first, so that only the ranges that differ are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Delta {
    /// Yes, unless there is much to compare and a sample shows that copying is faster.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What to do about a target that was not shut down cleanly.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum UncleanTarget {
    /// Read its WAL to the last valid record.
    Accept,
    /// Run its own server to complete crash recovery first.
    Recover(Arc<dyn CrashRecovery>),
    /// Fail.
    Refuse,
}

/// Completes crash recovery of a data directory by running its own server, and shuts that down cleanly.
pub trait CrashRecovery: std::fmt::Debug + Send + Sync {
    /// Recovers the data directory `target`, whose control file is `control`. After success the state in the
    /// control file must be clean.
    ///
    /// # Errors
    /// The server program was not found, has another version, or failed.
    fn recover(&self, target: &Path, control: &ControlFile) -> Result<(), CrashRecoveryError>;
}

/// Why the target's own server could not complete crash recovery.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct CrashRecoveryError {
    /// What failed, with the path.
    pub message: String,
    /// A hint for the operator.
    pub hint: Option<String>,
}

impl CrashRecoveryError {
    /// An error with the text `message`, and a hint for the operator.
    pub fn new(message: String, hint: Option<String>) -> CrashRecoveryError {
        CrashRecoveryError { message, hint }
    }
}
