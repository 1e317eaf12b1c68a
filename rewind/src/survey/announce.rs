//! Logs the point of divergence and the last common checkpoint, and determines where replay starts.

use jiff::Timestamp;
use walparse::ControlFile;

use crate::milestone;
use crate::outcome::{CommonCheckpoint, Divergence};

/// Logs the point of divergence, in the words of `pg_rewind`.
pub(super) fn announce_fork(Divergence { lsn, timeline }: Divergence) {
    tracing::info!(
        milestone = milestone::DIVERGED,
        "servers diverged at WAL location {lsn} on timeline {timeline}"
    );
}

/// Logs the last common checkpoint in the words of `pg_rewind`, and when the search for it began and ended in those
/// of `sys_rewind`.
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
