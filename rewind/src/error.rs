//! Why a run failed, and what it left behind.

use crate::source::SourceError;

/// A failed run: what went wrong, and whether the target has been touched.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
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

/// What can go wrong in a rewind, one variant for each thing a user can be told.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl RewindError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            RewindError::Source(error) => error.hint(),
        }
    }
}
