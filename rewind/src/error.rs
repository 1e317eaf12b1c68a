//! Why a run failed, and what it left behind.

use crate::apply::error::ApplyError;
use crate::engine::precheck::PrecheckError;
use crate::plan::error::PlanError;
use crate::survey::error::SurveyError;
use crate::target::LockError;

/// A failed run: what went wrong, and whether the target has been touched.
#[derive(Debug, thiserror::Error)]
#[error("rewinding failed")]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong.
    #[source]
    pub error: Box<RewindError>,
    /// What state the target is in.
    pub target: TargetState,
}

/// What a failed run leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetState {
    /// As it was.
    Untouched,
    /// Partly rewound, and marked so that no server starts on it.
    Unfinished,
}

/// Why a rewind failed: the stage that failed, with its reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewindError {
    /// The caller asked for it.
    #[error("stopped by a signal")]
    Stopped,
    /// The target could not be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The survey of both sides failed.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// No plan could be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Something that the rewind would do cannot be done.
    #[error(transparent)]
    Precheck(#[from] PrecheckError),
    /// Changing the target failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl RewindError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            RewindError::Stopped => None,
            RewindError::Lock(error) => Some(error.hint()),
            RewindError::Survey(error) => error.hint(),
            RewindError::Plan(error) => error.hint(),
            RewindError::Precheck(error) => error.hint(),
            RewindError::Apply(error) => error.hint(),
        }
    }
}
