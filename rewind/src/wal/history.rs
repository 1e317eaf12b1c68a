//! The timeline histories of both sides.
//!
//! A standby's control file does not name the timeline that the standby follows until its next restartpoint. So the
//! history files and the WAL beside it are considered, too.

use walparse::{ControlFile, SegmentSize, TimelineHistory, TimelineId, WalFileName};

use crate::datadir::data_path::DataPath;
use crate::source::{Source, WalPosition};
use crate::wal::error::WalError;
use crate::wal::target::TargetWal;

/// The history of the timeline that the source is on: of a running standby, the newest one that it follows.
pub(crate) fn source_history(
    source: &dyn Source,
    control: &ControlFile,
) -> Result<TimelineHistory, WalError> {
    let wal_dir = control.version().wal_dir();
    let read = |timeline| {
        read_history(timeline, "source", |name| match DataPath::parse(format!("{wal_dir}/{name}")) {
            Ok(path) => Ok(source.read_file(&path)?),
            Err(error) => Err(crate::source::SourceError::from(error).into()),
        })
    };
    let own = required(read(control.timeline())?, control.timeline(), "source")?;
    let WalPosition::Standby { received, replayed } = source.position()? else { return Ok(own) };
    let names: Vec<String> = source.list_wal()?.into_iter().map(|(name, _)| name).collect();
    newest_followed(own, &names, control, read, |switched| received.max(replayed) >= switched)
}

/// The history of the timeline that the target's server was on: of a standby, the newest one that it followed.
pub(crate) fn target_history(
    wal: &TargetWal<'_>,
    control: &ControlFile,
) -> Result<TimelineHistory, WalError> {
    let read = |timeline| {
        read_history(timeline, "target", |name| {
            let failed = |source| WalError::Fetch { name: name.to_owned(), source };
            let Some(path) = wal.find(name, false).map_err(|error| failed(Box::new(error)))? else {
                return Ok(None);
            };
            std::fs::read(path).map(Some).map_err(|error| failed(Box::new(error)))
        })
    };
    let own = required(read(control.timeline())?, control.timeline(), "target")?;
    if !control.state().is_standby() {
        return Ok(own);
    }
    newest_followed(own, &wal.local_names()?, control, read, |_| true)
}

/// The newest history that a standby follows, beginning with that of its control file's timeline.
///
/// The server looks for the history files of the next timelines, one after the other, until one is missing
/// (`findNewestTimeLine` in timeline.c). It follows a timeline if that one branched off after the position up to which
/// the standby has recovered. A lone history file does not count: it is fetched before any WAL of its timeline. So
/// `names`, the files of the WAL directory, must include a segment of a timeline after the control file's.
fn newest_followed(
    own: TimelineHistory,
    names: &[String],
    control: &ControlFile,
    read: impl Fn(TimelineId) -> Result<Option<TimelineHistory>, WalError>,
    has_reached: impl Fn(walparse::Lsn) -> bool,
) -> Result<TimelineHistory, WalError> {
    let size = control.geometry().segment_size;
    let own_timeline = own.timeline();
    let mut newest = own;
    for candidate in (own_timeline.0 + 1..).map(TimelineId) {
        if !names.contains(&candidate.history_file_name()) {
            return Ok(newest);
        }
        let Some(history) = read(candidate)? else { return Ok(newest) };
        let own_entry = history.entries().iter().find(|entry| entry.timeline == own_timeline);
        let Some(switched) = own_entry.and_then(|entry| entry.end) else { continue };
        let is_recovered_before =
            control.checkpoint_lsn() < switched && control.min_recovery_point() <= switched;
        if is_recovered_before && has_reached(switched) && has_segment(names, &history, own_timeline, size) {
            newest = history;
        }
    }
    Ok(newest)
}

/// Whether one of the files is a segment of a timeline of `history` after `timeline`.
fn has_segment(names: &[String], history: &TimelineHistory, timeline: TimelineId, size: SegmentSize) -> bool {
    let later = |of: TimelineId| of > timeline && history.entries().iter().any(|entry| entry.timeline == of);
    names.iter().any(|name| match WalFileName::parse(name, size) {
        Some(WalFileName::Segment(of, _)) => later(of),
        _ => false,
    })
}

fn required(
    history: Option<TimelineHistory>,
    timeline: TimelineId,
    side: &'static str,
) -> Result<TimelineHistory, WalError> {
    history.ok_or_else(|| WalError::NoHistory { name: timeline.history_file_name(), side })
}

/// The history of a timeline, from the history file that `read` returns; `None` if there is none. Timeline 1 has no
/// history file.
fn read_history(
    timeline: TimelineId,
    side: &'static str,
    read: impl FnOnce(&str) -> Result<Option<Vec<u8>>, WalError>,
) -> Result<Option<TimelineHistory>, WalError> {
    if timeline <= TimelineId(1) {
        return Ok(Some(TimelineHistory::of_first(timeline)));
    }
    let Some(text) = read(&timeline.history_file_name())? else { return Ok(None) };
    let parsed = TimelineHistory::parse(timeline, &text);
    parsed.map(Some).map_err(|source| WalError::History { side, source })
}
