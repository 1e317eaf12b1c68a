//! The interface to the engine: a flow requests rewinds, and its caller performs them.

use std::path::PathBuf;

use kbrecover_rewind::KeepRoot;

use crate::flow::StepError;
use crate::sql::Server;

/// A rewind that a flow requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RewindJob {
    /// The data directory of a stopped server.
    pub data: PathBuf,
    /// The new primary.
    pub source: Server,
    /// Rewinds the node even if it has not diverged.
    pub always: bool,
    /// Compares the data of both sides if WAL cannot tell what differs.
    pub compares: bool,
    /// Where what the rewind gives up is kept; `None`: it is not kept.
    pub keep_root: Option<KeepRoot>,
    /// The largest number of committed transactions that the rewind may give up; `None`: any.
    pub max_lost: Option<u64>,
}

/// Whether a rewind is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RewindPlan {
    /// The node has not diverged and can follow the source as it is.
    NotNeeded,
    /// The node has diverged. A rewind discards its changes after the fork.
    Needed {
        /// The position of the fork, for messages.
        fork: String,
        /// The transactions that a rewind gives up, for messages: a line, and more about what they have done.
        lost: String,
    },
}

/// The result of a rewind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RewindResult {
    /// The node has not diverged and can follow the source as it is.
    NotNeeded,
    /// The data directory has been rewound.
    Rewound,
}

/// The failure of a rewind.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RewindFailed {
    /// What failed, and why.
    pub message: String,
    /// What the operator can do.
    pub hint: Option<String>,
    /// Whether the rewind is unfinished: no server can start on the data directory until another rewind has finished it.
    /// Otherwise, the data directory is unchanged.
    pub is_unfinished: bool,
}

impl RewindFailed {
    /// A failure that left the data directory unchanged.
    pub fn unchanged(message: impl Into<String>) -> RewindFailed {
        RewindFailed { message: message.into(), hint: None, is_unfinished: false }
    }

    /// A failure that left the data directory partly rewound.
    pub fn unfinished(message: impl Into<String>) -> RewindFailed {
        RewindFailed { is_unfinished: true, ..RewindFailed::unchanged(message) }
    }

    /// The same failure with a hint.
    pub fn hint(self, hint: impl Into<String>) -> RewindFailed {
        RewindFailed { hint: Some(hint.into()), ..self }
    }

    /// The failure of the step that requested the rewind, with the same hint.
    pub(crate) fn into_step(self, message: impl FnOnce(&str) -> String) -> StepError {
        StepError { message: message(&self.message), hint: self.hint }
    }
}

/// Performs the rewinds that a flow requests.
///
/// ```no_run
/// use kbrecover_hooks::{RewindFailed, RewindJob, RewindPlan, RewindResult, Rewinder};
/// use kbrecover_rewind::{Failure, Mode, Options, Outcome, Silent, SourceChoice, TargetState, run};
///
/// struct Engine;
///
/// impl Rewinder for Engine {
///     fn plan(&self, job: &RewindJob) -> Result<RewindPlan, RewindFailed> {
///         Ok(match rewind(job, Mode::DryRun)? {
///             Outcome::Planned(_) => RewindPlan::Needed { fork: "the fork".to_owned(), lost: "some".to_owned() },
///             _ => RewindPlan::NotNeeded,
///         })
///     }
///
///     fn rewind(&self, job: &RewindJob) -> Result<RewindResult, RewindFailed> {
///         Ok(match rewind(job, Mode::Rewind)? {
///             Outcome::NotNeeded(_) => RewindResult::NotNeeded,
///             _ => RewindResult::Rewound,
///         })
///     }
/// }
///
/// fn rewind(job: &RewindJob, mode: Mode) -> Result<Outcome, RewindFailed> {
///     let source = job.source.conninfo().map_err(|error| RewindFailed::unchanged(error.to_string()))?;
///     let mut options = Options::new(job.data.clone(), SourceChoice::Server(Box::new(source)));
///     options.mode = mode;
///     run(&options, &Silent).map_err(|failure: Failure| match failure.target {
///         TargetState::Unfinished => RewindFailed::unfinished(failure.error.to_string()),
///         _ => RewindFailed::unchanged(failure.error.to_string()),
///     })
/// }
/// ```
pub trait Rewinder {
    /// Determines whether a rewind is needed. Changes nothing.
    ///
    /// # Errors
    /// That cannot be determined, or the rewind is not possible.
    fn plan(&self, job: &RewindJob) -> Result<RewindPlan, RewindFailed>;

    /// Rewinds a data directory if that is needed. Messages are emitted as `tracing` events.
    ///
    /// # Errors
    /// The data directory was not rewound, or only partly.
    fn rewind(&self, job: &RewindJob) -> Result<RewindResult, RewindFailed>;
}
