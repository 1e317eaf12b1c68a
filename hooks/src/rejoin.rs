//! The seam to the engine: a flow says what is to be rewound to what, the caller does it.

use std::path::PathBuf;

use crate::flow::StepError;
use crate::sql::Server;

/// A rewind that a flow asks for.
#[derive(Clone, Debug)]
pub struct RewindJob {
    /// The data directory; its server is stopped.
    pub data: PathBuf,
    /// The new primary.
    pub source: Server,
    /// Makes the node's files the source's even if it has not diverged.
    pub always: bool,
}

/// What a rewind would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RewindPlan {
    /// The node can follow as it is.
    NotNeeded,
    /// The histories part here; what the node has written since is lost by a rewind.
    Needed {
        /// The fork, as a message shows it.
        fork: String,
    },
}

/// How a rewind ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RewindResult {
    /// The node can follow as it is.
    NotNeeded,
    /// The data directory has been rewound.
    Rewound,
}

/// A rewind that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RewindFailed {
    /// What failed, and why.
    pub message: String,
    /// What the operator can do.
    pub hint: Option<String>,
    /// Whether the data directory is half rewound: no server starts on it, and another rewind finishes it.
    pub is_unfinished: bool,
}

impl RewindFailed {
    /// The failure as that of a step, with the hint that came with it.
    pub(crate) fn into_step(self, message: impl FnOnce(&str) -> String) -> StepError {
        StepError { message: message(&self.message), hint: self.hint }
    }
}

/// Does rewinds.
pub trait Rewinder {
    /// Finds out what a rewind would do; changes nothing.
    ///
    /// # Errors
    /// It could not be done.
    fn plan(&self, job: &RewindJob) -> Result<RewindPlan, RewindFailed>;

    /// Rewinds a data directory. What there is to say is said through `tracing`.
    ///
    /// # Errors
    /// It was not rewound, or only in part.
    fn rewind(&self, job: &RewindJob) -> Result<RewindResult, RewindFailed>;
}
