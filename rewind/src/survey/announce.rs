//! Reports the point of divergence and the last common checkpoint.

use jiff::Timestamp;

use crate::outcome::{CheckpointAt, Divergence};
use crate::progress::{Event, Progress};

/// Reports the point of divergence.
pub(super) fn announce_fork(progress: &dyn Progress, divergence: Divergence) {
    progress.event(&Event::Diverged(divergence));
}

/// Reports the last common checkpoint, and when the search for it began and ended.
pub(super) fn announce_checkpoint(
    progress: &dyn Progress,
    checkpoint: &CheckpointAt,
    (since, until): (Timestamp, Timestamp),
) {
    progress.event(&Event::CommonCheckpoint(*checkpoint));
    progress.event(&Event::CheckpointSearch { since, until });
}
