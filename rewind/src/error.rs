//! Why a run failed, and the state it left the target in.

use std::io;

use crate::apply::error::ApplyError;
use crate::apply::restore::RestoreError;
use crate::engine::precheck::PrecheckError;
use crate::lost::LostError;
use crate::plan::error::PlanError;
use crate::shown::Size;
use crate::survey::error::SurveyError;
use crate::target::LockError;

/// A failed run: the error, and the state of the target afterwards.
#[derive(Debug, thiserror::Error)]
#[error("rewinding failed")]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong.
    #[source]
    pub error: Box<RewindError>,
    /// The state of the target now.
    pub target: TargetState,
}

/// The state of the target after a failed run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetState {
    /// Nothing has been changed.
    Untouched,
    /// Partly rewound. The mark in `backup_label` keeps every server from starting; the next run finishes the rewind.
    Unfinished,
}

/// Why a rewind failed: one variant for each stage, with the error of that stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewindError {
    /// A stop was requested through [`StopFlag`](crate::StopFlag).
    #[error("stopped by a signal")]
    Stopped,
    /// The target could not be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Source or target could not be read, or do not fit together.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// What is lost could not be listed.
    #[error(transparent)]
    Lost(#[from] LostError),
    /// What was saved could not be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The plan could not be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A check before the first change failed.
    #[error(transparent)]
    Precheck(#[from] PrecheckError),
    /// Changing the target failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// No thread could be started for the run.
    #[error("could not start a thread for the rewind")]
    Thread {
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Too few threads can be started. Nothing has been changed.
    #[error("only {started} threads can be started, and a run needs {needed}")]
    Threads {
        /// How many could be started.
        started: usize,
        /// How many are needed.
        needed: usize,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The address space is too small: memory would run out at any moment. Nothing has been changed.
    #[error("the address space is limited to {limit}, and a run needs {needed}")]
    AddressSpace {
        /// The limit.
        limit: Size,
        /// What is needed.
        needed: Size,
    },
    /// Too few files can be opened. Nothing has been changed.
    #[error("only {opened} more files can be opened, and a run needs {needed}")]
    Files {
        /// How many could be opened.
        opened: usize,
        /// How many are needed.
        needed: usize,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

impl RewindError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        match self {
            RewindError::Stopped => None,
            RewindError::Thread { .. } | RewindError::Threads { .. } => Some(
                "Raise the limit of processes (ulimit -u), or the pids limit of the container.".to_owned(),
            ),
            RewindError::AddressSpace { .. } => {
                Some("Raise the limit of address space (ulimit -v).".to_owned())
            }
            RewindError::Files { .. } => Some("Raise the limit of open files (ulimit -n).".to_owned()),
            RewindError::Lock(error) => Some(error.hint()),
            RewindError::Survey(error) => error.hint(),
            RewindError::Lost(error) => error.hint(),
            RewindError::Restore(error) => error.hint(),
            RewindError::Plan(error) => error.hint(),
            RewindError::Precheck(error) => error.hint(),
            RewindError::Apply(error) => error.hint(),
        }
    }
}
