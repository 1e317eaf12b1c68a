//! What a run tells about the fork and the checkpoint that replay starts from.

use jiff::Timestamp;
use walparse::ControlFile;

use crate::milestone;
use crate::outcome::{CommonCheckpoint, Divergence};

pub(super) fn announce_fork(Divergence { lsn, timeline }: Divergence) {
    tracing::info!(
        milestone = milestone::DIVERGED,
        "servers diverged at WAL location {lsn} on timeline {timeline}"
    );
}

pub(super) fn announce_checkpoint(checkpoint: &CommonCheckpoint, (since, until): (Timestamp, Timestamp)) {
    let CommonCheckpoint { lsn, timeline, .. } = checkpoint;
    tracing::info!(
        milestone = milestone::COMMON_CHECKPOINT,
        "rewinding from last common checkpoint at {lsn} on timeline {timeline}"
    );
    let local = |time: Timestamp| {
        time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.6f %Z").to_string()
    };
    let seconds = until.duration_since(since).as_secs_f64();
    tracing::info!(
        milestone = milestone::CHECKPOINT_SEARCH,
        "find last common checkpoint start time from {} to {}, in \"{seconds:.6}\" seconds.",
        local(since),
        local(until)
    );
}

/// Replay must also start no later than at the source's own last checkpoint: what is copied from its disk
/// may be as old as that, if it is a standby or has just been promoted.
pub(super) fn replay_start(common: CommonCheckpoint, source: &ControlFile) -> CommonCheckpoint {
    let checkpoint = source.checkpoint();
    if checkpoint.redo >= common.redo {
        return common;
    }
    tracing::debug!("replay starts at the source's older checkpoint {}", source.checkpoint_lsn());
    CommonCheckpoint { lsn: source.checkpoint_lsn(), redo: checkpoint.redo, timeline: checkpoint.timeline }
}
