//! The rewind engine: makes a diverged data directory one that can follow its new primary again.
//!
//! One straight line of stages, each a module: [`run`] calls them in this order.
//!
//! preflight -> divergence -> scan and inventory -> plan -> copy -> seal

#![warn(missing_docs)]

pub mod archive;
pub mod command;
pub mod config;
mod data_path;
mod error;
mod inventory;
mod options;
mod outcome;
mod progress;
pub mod source;

pub use data_path::{DataPath, PathError};
pub use error::{Failure, RewindError, TargetState};
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
