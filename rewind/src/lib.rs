//! The rewind engine: makes a diverged data directory one that can follow its new primary again.
//!
//! One straight line of stages, each a module: [`run`] calls them in this order.
//!
//! preflight -> divergence -> scan and inventory -> plan -> copy -> seal

#![warn(missing_docs)]

mod options;
mod outcome;
mod progress;

mod copy;
mod divergence;
mod engine;
mod exclude;
mod inventory;
mod plan;
mod preflight;
mod recovery_conf;
mod seal;
mod wal_plan;

pub mod archive;
mod clock;
pub mod command;
pub mod config;
mod data_path;
mod error;
mod label;
pub mod source;
mod target;
mod target_wal;

#[doc(hidden)]
pub mod fuzzing;

pub use copy::CopyError;
pub use data_path::{DataPath, PathError};
pub use divergence::DivergenceError;
pub use engine::run;
pub use error::{Failure, RewindError, TargetState};
pub use exclude::{Disposition, disposition};
pub use inventory::{EntryKind, Inventory};
pub use options::{
    CrashRecovery, CrashRecoveryError, MissingWal, Mode, Options, RecoveryConf, RestoreCommand, SourceChoice,
    SyncChoice,
};
pub use outcome::{CommonCheckpoint, Divergence, Outcome, PlanSummary, Report, StageTime, WalSpan};
pub use plan::PlanError;
pub use preflight::PreflightError;
pub use progress::{Progress, Silent, Stage};
pub use recovery_conf::RecoveryConfError;
pub use target::{LockError, TargetError};
