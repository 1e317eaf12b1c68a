//! A request to stop a run.
//!
//! Until the commit a run may stop after any change, and the next run resumes the rewind. After the commit a run
//! is finished rather than stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const GO_ON: u8 = 0;
const STOP: u8 = 1;
const TOO_LATE: u8 = 2;

/// Requests a run to stop. Clones belong to the same run.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicU8>);

/// The run was asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("the run was asked to stop")]
pub(crate) struct Stopped;

impl StopFlag {
    /// Requests the run to stop at the next safe point. Returns whether it will: after the commit it is too late.
    pub fn request(&self) -> bool {
        let before = self.0.compare_exchange(GO_ON, STOP, Ordering::SeqCst, Ordering::SeqCst);
        before != Err(TOO_LATE)
    }

    /// Whether a stop has been requested in time.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst) == STOP
    }

    /// Fails if a stop has been requested.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.is_requested() { Err(Stopped) } else { Ok(()) }
    }

    /// Accepts no request any more. Fails if a stop has been requested before.
    pub(crate) fn close(&self) -> Result<(), Stopped> {
        match self.0.compare_exchange(GO_ON, TOO_LATE, Ordering::SeqCst, Ordering::SeqCst) {
            Err(STOP) => Err(Stopped),
            _ => Ok(()),
        }
    }

    /// Lets the changes pass that undo what was begun, although a stop was asked for.
    pub(crate) fn clean_up(&self) {
        self.0.store(TOO_LATE, Ordering::SeqCst);
    }
}

impl From<Stopped> for std::io::Error {
    fn from(stopped: Stopped) -> std::io::Error {
        std::io::Error::other(stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_until_the_commit() {
        let (early, late) = (StopFlag::default(), StopFlag::default());
        assert!(early.check().is_ok() && early.clone().request() && early.request());
        assert!(early.check().is_err() && early.close().is_err());
        assert!(late.close().is_ok() && !late.request());
        assert!(late.check().is_ok() && !late.is_requested() && late.close().is_ok());
        early.clean_up();
        assert!(early.check().is_ok());
    }
}
