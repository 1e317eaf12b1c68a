//! Reports the point of divergence and the last common checkpoint, and determines where replay starts.

use jiff::Timestamp;
use walparse::ControlFile;

use crate::outcome::{CommonCheckpoint, Divergence};
use crate::progress::{Event, Progress};

/// Reports the point of divergence.
pub(super) fn announce_fork(progress: &dyn Progress, divergence: Divergence) {
    progress.event(&Event::Diverged(divergence));
}

/// Reports the last common checkpoint, and when the search for it began and ended.
pub(super) fn announce_checkpoint(
    progress: &dyn Progress,
    checkpoint: &CommonCheckpoint,
    (since, until): (Timestamp, Timestamp),
) {
    progress.event(&Event::CommonCheckpoint(*checkpoint));
    progress.event(&Event::CheckpointSearch { since, until });
}

/// The checkpoint that replay starts from: the last common one, or the source's last one if that is older. The
/// files of a standby, or of a server that has just been promoted, may be as old as its last restartpoint.
pub(super) fn replay_start(common: CommonCheckpoint, source: &ControlFile) -> CommonCheckpoint {
    let checkpoint = source.checkpoint();
    if checkpoint.redo >= common.redo {
        return common;
    }
    tracing::debug!("replay starts at the source's older checkpoint {}", source.checkpoint_lsn());
    CommonCheckpoint { lsn: source.checkpoint_lsn(), redo: checkpoint.redo, timeline: checkpoint.timeline }
}
