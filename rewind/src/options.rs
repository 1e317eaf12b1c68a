//! What a caller asks of the engine.

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

/// Everything the engine is told. Nothing is read from the environment below this.
#[derive(Debug)]
pub struct Options {
    /// The data directory to rewind.
    pub target: PathBuf,
    /// Where the good history is.
    pub source: SourceChoice,
    /// The key of both sides' flavor; `None` finds it by looking.
    pub flavor: Option<String>,
    /// How long a lost connection to a running server is tried to be made again; zero: not at all.
    pub retry_timeout: Duration,
    /// Whether to change anything.
    pub mode: Mode,
    /// What to do about a target that is on the source's own timeline and has not diverged.
    pub same_timeline: SameTimeline,
    /// Whether to make the target a standby of the source.
    pub recovery_conf: RecoveryConf,
    /// Which files of the target stay its own.
    pub keep: KeepRules,
    /// Where to look for WAL that the target no longer has.
    pub missing_wal: MissingWal,
    /// The target's `postgresql.conf`, if it is not in the data directory.
    pub config_file: Option<PathBuf>,
    /// What to do if free space is short.
    pub space: SpaceCheck,
    /// What to do about changed blocks that replay makes anew.
    pub rebuilt_blocks: RebuiltBlocks,
    /// Where what the rewind gives up is copied to before the first change.
    pub keep_diverged: Option<KeepDiverged>,
    /// Whether WAL of the target that waits for archiving is archived before the first change.
    pub archive_ready: bool,
    /// Whether what was written is made durable.
    pub sync: SyncChoice,
    /// Connections and threads; `None` leaves the choice to the engine.
    pub jobs: Option<NonZeroUsize>,
    /// Which targets are rewound.
    pub need: Need,
    /// Whether files are compared before they are copied whole.
    pub delta: Delta,
    /// The most bytes to fetch per second.
    pub max_rate: Option<NonZeroU64>,
    /// What to do about a target that was not stopped cleanly.
    pub unclean_target: UncleanTarget,
    /// Asks the run to stop before it is done.
    pub stop: StopFlag,
    /// Is told of every change to the target before it is made: for tests.
    pub observer: Option<Arc<dyn ChangeObserver>>,
}

impl Options {
    /// A rewind with nothing said beyond what it needs.
    pub fn new(target: PathBuf, source: SourceChoice) -> Options {
        Options {
            target,
            source,
            mode: Mode::Rewind,
            same_timeline: SameTimeline::Follow,
            recovery_conf: RecoveryConf::Leave,
            keep: KeepRules::standard(),
            missing_wal: MissingWal { directories: Vec::new(), restore_command: RestoreCommand::Off },
            config_file: None,
            space: SpaceCheck::Enforce,
            rebuilt_blocks: RebuiltBlocks::Leave,
            keep_diverged: None,
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

/// A copy of what a rewind gives up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepDiverged {
    /// Where: a directory that is empty or not there yet.
    pub directory: PathBuf,
    /// Whether not only WAL is copied, but also all bytes of other files that will be overwritten or removed.
    pub blocks: bool,
}

/// The two kinds of source.
#[derive(Debug)]
pub enum SourceChoice {
    /// A running server.
    Server(Box<Conninfo>),
    /// The data directory of a stopped one.
    Directory(PathBuf),
}

/// Whether the source may change while it is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SourceLife {
    Running,
    Stopped,
}

impl SourceChoice {
    pub(crate) fn life(&self) -> SourceLife {
        match self {
            SourceChoice::Server(_) => SourceLife::Running,
            SourceChoice::Directory(_) => SourceLife::Stopped,
        }
    }
}

/// Do it, or only say what would be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Rewind the target.
    Rewind,
    /// Make the plan and stop; no data is moved.
    DryRun,
    /// Besides, try all that a rewind could fail with before its first change.
    Check,
}

/// What to do about a target on the source's timeline whose WAL is part of the source's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SameTimeline {
    /// Nothing: it can follow as it is.
    Follow,
    /// Make its files the source's all the same, as sys_rewind of KingbaseES V8R3 does.
    Resync,
}

/// What to do about the target's recovery configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoveryConf {
    /// Nothing.
    Leave,
    /// Write `primary_conninfo` and `standby.signal`, or up to 11 `recovery.conf` (`-R`).
    Write(WrittenPassword),
}

/// Where to look for WAL of the target that is not in its WAL directory, in this order.
#[derive(Clone, Debug)]
pub struct MissingWal {
    /// Directories with copies of segments.
    pub directories: Vec<PathBuf>,
    /// A command that fetches a segment.
    pub restore_command: RestoreCommand,
}

/// Which `restore_command` to use for missing WAL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestoreCommand {
    /// None.
    Off,
    /// The one in the target's configuration (`-c`).
    FromTarget,
    /// This one.
    Given(String),
}

/// What to do if a file system seems too full for the rewind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceCheck {
    /// Stop before the first change.
    Enforce,
    /// Warn and go on.
    Ignore,
}

/// What to do about changed blocks that replay of the common WAL makes anew, whatever stands there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RebuiltBlocks {
    /// Leave them to replay.
    Leave,
    /// Copy them like all others.
    Copy,
}

/// Whether to make writes durable before the run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncChoice {
    /// fsync every file and directory that was changed.
    Fsync,
    /// Sync the whole file systems of the data directory, the WAL directory and the tablespaces.
    Syncfs,
    /// Leave it to the operating system (`-N`).
    Off,
}

/// Which targets are rewound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Those with WAL that the source has not.
    Diverged,
    /// Also those that were not stopped cleanly while the source went to another timeline. `pg_rewind` does
    /// so: it lets them recover first, and the checkpoint at the end of that is WAL of their own. Then all
    /// files become the source's.
    DivergedOrUnclean,
}

/// Whether files that would be copied whole are compared first, so that only what differs is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delta {
    /// Yes, unless there is much to compare and a try shows that copying takes less time.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What to do about a target that was not stopped cleanly.
#[derive(Debug)]
pub enum UncleanTarget {
    /// Nothing: its WAL is read to the real end.
    Accept,
    /// Let its own server recover it first.
    Recover(Box<dyn CrashRecovery>),
    /// End the run.
    Refuse,
}

/// Brings a data directory that was not stopped cleanly to a clean stop by running its own server.
pub trait CrashRecovery: std::fmt::Debug + Send + Sync {
    /// Recovers `target`, whose control file is `control`; afterwards its state must be clean.
    ///
    /// # Errors
    /// The server program was not found, is of another version, or failed.
    fn recover(&self, target: &Path, control: &ControlFile) -> Result<(), CrashRecoveryError>;
}

/// Why the target's own server could not finish its recovery.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CrashRecoveryError {
    /// What failed, on which path.
    pub message: String,
    /// What the operator can do.
    pub hint: Option<String>,
}
