//! The rewind engine: makes a diverged data directory one that can follow its new primary again.
//!
//! One straight line of stages, each a module: [`run`] calls them in this order.
//!
//! preflight -> divergence -> scan and inventory -> plan -> copy -> seal

#![warn(missing_docs)]

mod options;
mod outcome;
mod progress;

mod engine;
mod preflight;
mod divergence;
mod inventory;
mod exclude;
mod plan;
mod wal_plan;
mod copy;
mod seal;
mod recovery_conf;

pub mod source;
mod target;
mod target_wal;
pub mod archive;
pub mod config;
pub mod command;
mod label;
mod data_path;
mod clock;
mod error;

pub use engine::run;
pub use data_path::{DataPath, PathError};
pub use error::{Failure, RewindError, TargetState};
pub use exclude::{Disposition, disposition};
pub use inventory::{EntryKind, Inventory};
pub use options::{
    CrashRecovery, CrashRecoveryError, MissingWal, Mode, Options, RecoveryConf, RestoreCommand, SourceChoice,
    SyncChoice,
};
pub use outcome::{CommonCheckpoint, Divergence, Outcome, PlanSummary, Report, StageTime, WalSpan};
pub use progress::{Progress, Silent, Stage};

// PLACEHOLDER for the engine, so that the command line can be built before it is here.
/// Rewinds the target.
///
/// # Errors
/// Not yet.
pub fn run(_: &Options, _: &dyn Progress) -> Result<Outcome, Failure> {
    todo!("the engine")
}
