//! How much of the copy is done, for `kbrecover status` while a run works.
//!
//! It is noted every few seconds in `kbrecover.copied`, a line of JSON. Nothing depends on the note: it is not made durable, and
//! a run that cannot write it goes on without.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::datadir::data_path::DataPath;
use crate::progress::{Event, Progress, Stage};
use crate::target::{Target, TargetError};

const NAME: &str = "kbrecover.copied";

/// The time between two notes. A short copy makes none.
const INTERVAL: Duration = Duration::from_secs(5);

/// How much of the copy is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopiedSoFar {
    /// Bytes copied by this run.
    pub bytes: u64,
    /// Bytes to copy in all, by the plan. In the end, a few more or less may have been copied.
    pub total: u64,
    /// Seconds since the copy has begun.
    pub seconds: u64,
}

impl CopiedSoFar {
    /// The bytes left, and how long they will take at the rate so far.
    pub fn left(&self) -> (u64, Option<Duration>) {
        let left = self.total.saturating_sub(self.bytes);
        let rate = self.bytes.checked_div(self.seconds).filter(|rate| *rate > 0);
        (left, rate.map(|rate| Duration::from_secs(left / rate)))
    }

    /// Reads the note in a data directory, if there is one.
    pub(crate) fn read(root: &Path) -> Option<CopiedSoFar> {
        serde_json::from_slice(&std::fs::read(path().below(root)).ok()?).ok()
    }

    /// Removes the note and its temporary file, as far as they exist.
    pub(crate) fn remove(target: &Target) -> Result<(), TargetError> {
        target.remove_replaced(&path())
    }
}

/// Passes progress on, and notes that of the copy.
pub(crate) struct NotedProgress<'a> {
    to: &'a dyn Progress,
    target: &'a Target,
    total: u64,
    begun: Instant,
    bytes: AtomicU64,
    last: Mutex<Instant>,
}

impl<'a> NotedProgress<'a> {
    /// The copy of `total` bytes begins now. The note of an earlier run is removed.
    pub(crate) fn new(
        to: &'a dyn Progress,
        target: &'a Target,
        total: u64,
    ) -> Result<NotedProgress<'a>, TargetError> {
        CopiedSoFar::remove(target)?;
        let begun = Instant::now();
        Ok(NotedProgress { to, target, total, begun, bytes: AtomicU64::new(0), last: Mutex::new(begun) })
    }

    /// The copy has ended, as far as it takes long. The note would say that something is left.
    pub(crate) fn end(&self) {
        let _ = CopiedSoFar::remove(self.target);
    }

    /// Writes the note, unless that was done a moment ago or another thread is doing it.
    fn note(&self, bytes: u64) {
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.elapsed() < INTERVAL {
            return;
        }
        *last = Instant::now();
        let note = CopiedSoFar { bytes, total: self.total, seconds: self.begun.elapsed().as_secs() };
        let text = serde_json::to_vec(&note).unwrap_or_default();
        if let Err(error) = self.target.replace_fleeting(&path(), &text) {
            tracing::debug!("{error}: {}", error.source);
        }
    }
}

impl Progress for NotedProgress<'_> {
    fn begin(&self, stage: Stage, total: Option<u64>) {
        self.to.begin(stage, total);
    }

    fn advance(&self, stage: Stage, amount: u64) {
        if stage == Stage::Copy {
            self.note(self.bytes.fetch_add(amount, Ordering::Relaxed) + amount);
        }
        self.to.advance(stage, amount);
    }

    fn finish(&self, stage: Stage) {
        if stage == Stage::Copy {
            self.end();
        }
        self.to.finish(stage);
    }

    fn event(&self, event: &Event) {
        self.to.event(event);
    }
}

fn path() -> DataPath {
    DataPath::parse(NAME).unwrap_or_else(|_| unreachable!("a constant path without dots"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn the_copy_is_noted_now_and_then() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::lock(directory.path()).unwrap();
        let read = || CopiedSoFar::read(directory.path());
        std::fs::write(directory.path().join(NAME), r#"{"bytes":1,"total":2,"seconds":3}"#).unwrap();
        assert_eq!(read(), Some(CopiedSoFar { bytes: 1, total: 2, seconds: 3 }));
        let mut progress = NotedProgress::new(&Silent, &target, 1000).unwrap();
        progress.advance(Stage::Copy, 100);
        assert_eq!(read(), None, "the note of an earlier run is gone, and it is too early for another one");
        let ago = Instant::now().checked_sub(INTERVAL * 2).unwrap();
        progress.begun = ago;
        *progress.last.get_mut().unwrap() = ago;
        progress.advance(Stage::Scan, 50);
        assert_eq!(read(), None, "no bytes of the copy");
        progress.advance(Stage::Copy, 150);
        assert_eq!(read(), Some(CopiedSoFar { bytes: 250, total: 1000, seconds: 10 }));
        progress.advance(Stage::Copy, 150);
        assert_eq!(read().unwrap().bytes, 250, "that was a moment ago");
        progress.finish(Stage::Copy);
        assert_eq!(read(), None);
        std::fs::write(directory.path().join(NAME), "{").unwrap();
        assert_eq!(read(), None);
    }

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let left = |bytes, total, seconds| CopiedSoFar { bytes, total, seconds }.left();
        assert_eq!(left(250, 1000, 10), (750, Some(Duration::from_secs(30))));
        assert_eq!(left(1001, 1000, 10), (0, Some(Duration::ZERO)));
        assert_eq!(left(0, 1000, 10), (1000, None));
        assert_eq!(left(10, 1000, 0), (990, None));
    }
}
