#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests write what they need"))]

mod options;
mod outcome;
mod error;
mod progress;
mod observer;
mod stop;
mod threads;
mod clock;
mod causes;
mod shown;
mod status;
mod standby;
mod wait;
pub mod command;

mod engine;
mod apply;
mod survey;
mod plan;
mod lost;
mod target;
mod wal;
pub mod source;
mod datadir;
pub mod conninfo;

#[doc(hidden)]
pub mod testing;

pub use apply::archive_ready::ArchiveReadyError;
pub use apply::copy::CopyError;
pub use apply::error::ApplyError;
pub use apply::kept::{KeptError, LOST as KEPT_LOST, MANIFEST as KEPT_MANIFEST};
pub use apply::recovery_conf::RecoveryConfError;
pub use apply::restore::{RestoreError, RestoreRequest, Restored};
pub use apply::save_diverged::SaveDivergedError;
pub use causes::with_causes;
pub use datadir::config;
pub use datadir::data_path::{DataPath, PathError};
pub use datadir::exclude::{Disposition, disposition};
pub use datadir::flavor::{FlavorError, flavor_of_directory, with_wal_magic_of_directory};
pub use datadir::inventory::{EntryKind, Inventory};
pub use datadir::keep::{KeepError, KeepRules};
pub use datadir::label::is_mark;
pub use datadir::server::{DataDirectoryError, lock_file_process};
pub use datadir::starts_as::StartsAs;
pub use engine::compare::compare;
pub use engine::entry::{run, run_async};
pub use engine::is_unfinished;
pub use engine::lost::{Since, export_lost, lost};
pub use engine::precheck::PrecheckError;
pub use engine::restore::restore;
pub use error::{Failure, RewindError, TargetState};
pub use lost::export::{
    ExportError, ExportOptions, LostCounter, LostFilter, LostJson, LostNameError, LostSummary, ObjectSummary,
    RelationName, RowCounts, SourceCounts,
};
pub use lost::{
    LostChange, LostColumn, LostError, LostHistory, LostObject, LostPart, LostRow, LostSink, LostTable,
    LostTransaction, LostValue, OBJECT_KINDS, ObjectOp, OnSource, Quality, RowOp, SinkError, SourceRow,
    SourceState, Undecided,
};
pub use observer::{Change, ChangeObserver, Verdict};
pub use options::{
    CompareData, CrashRecovery, CrashRecoveryError, Delta, KeepDiverged, KeepRoot, MissingWal, Mode, Need,
    OlderSource, Options, RebuiltBlocks, RecoveryConf, ReplayFrom, ReplicationLogin, RestoreCommand,
    SameTimeline, SourceChoice, SpaceCheck, SyncChoice, UncleanTarget,
};
pub use outcome::{
    BothSides, CheckpointAt, ComparedData, Comparison, DifferentFile, Divergence, LostTransactions, Outcome,
    PlanSummary, ReplayEstimate, ReplayStart, Report, Role, Side, SourceChanges, SpaceNeed, StageTime,
    VerifiedData, WalKept, WalSpan,
};
pub use plan::error::PlanError;
pub use progress::{Event, Progress, Silent, Stage};
pub use shown::{Size, duration_text, time_text};
pub use standby::Position;
pub use status::{ComparisonSoFar, Condition, Status, StatusError, UnfinishedRewind, status};
pub use stop::StopFlag;
pub use survey::content::ContentError;
pub use survey::divergence::DivergenceError;
pub use survey::error::SurveyError;
pub use survey::preflight::PreflightError;
pub use target::copied::CopiedSoFar;
pub use target::external_files::ArchiveRewindError;
pub use target::journal::JournalError;
pub use target::lock_holder::Holder;
pub use target::{LockError, TargetError};
pub use wait::{ReplayProgress, WaitEnd, WaitOptions, Waited, wait_until_streaming};
pub use wal::archive;
pub use wal::error::WalError;
pub use walparse::Lsn;
