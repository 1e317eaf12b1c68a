//! The rewind engine: makes a diverged data directory one that can follow its new primary again.
//!
//! One straight line of stages, each a module: [`run`] calls them in this order.
//!
//! preflight -> divergence, scan and inventory -> plan -> journal and mark -> copy -> seal

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests write what they need"))]

mod options;
mod outcome;
mod progress;

mod engine;
mod survey;
mod look;
mod preflight;
mod fork_wal;
mod divergence;
mod inventory;
mod compare;
mod exclude;
mod keep;
mod prepare;
mod changed;
mod plan;
mod wal_plan;
mod tablespaces;
mod rehearse;
mod space;
mod journal;
mod copy;
mod early_wal;
mod pace;
mod archive_ready;
mod keep_diverged;
mod outside;
mod seal;
mod recovery_conf;
mod next_start;

mod status;
mod lock_holder;

pub mod milestone;
pub mod source;
mod target;
mod disk;
mod stop;
mod target_wal;
pub mod archive;
pub mod config;
pub mod command;
mod label;
mod data_path;
mod clock;
mod error;

#[doc(hidden)]
pub mod benching;
#[doc(hidden)]
pub mod fuzzing;

pub use archive_ready::ArchiveReadyError;
pub use copy::CopyError;
pub use data_path::{DataPath, PathError};
pub use disk::{Change, ChangeObserver, Verdict};
pub use divergence::DivergenceError;
pub use engine::{is_unfinished, run};
pub use error::{Failure, RewindError, TargetState};
pub use exclude::{Disposition, disposition};
pub use inventory::{EntryKind, Inventory};
pub use journal::JournalError;
pub use keep::{KeepError, KeepRules};
pub use keep_diverged::KeepDivergedError;
pub use label::is_mark;
pub use lock_holder::Holder;
pub use look::{FlavorError, flavor_of_directory, look_at_wal};
pub use options::{
    CrashRecovery, CrashRecoveryError, Delta, KeepDiverged, MissingWal, Mode, Need, Options, RebuiltBlocks,
    RecoveryConf, RestoreCommand, SameTimeline, SourceChoice, SpaceCheck, SyncChoice, UncleanTarget,
};
pub use outcome::{
    CommonCheckpoint, Divergence, Outcome, PlanSummary, Report, SpaceNeed, StageTime, WalSpan,
};
pub use outside::ArchiveRewindError;
pub use plan::PlanError;
pub use preflight::{PreflightError, lock_file_process};
pub use progress::{Progress, Silent, Stage};
pub use recovery_conf::RecoveryConfError;
pub use status::{Condition, StartsAs, Status, UnfinishedRewind, status};
pub use stop::StopFlag;
pub use target::{LockError, TargetError};
