//! The timeline histories of both sides.

use walparse::{ControlFile, TimelineHistory, TimelineId};

use crate::datadir::data_path::DataPath;
use crate::source::Source;
use crate::wal::error::WalError;
use crate::wal::target::TargetWal;

/// The history of the source's timeline.
pub(crate) fn source_history(
    source: &dyn Source,
    control: &ControlFile,
) -> Result<TimelineHistory, WalError> {
    let timeline = control.timeline();
    let wal_dir = control.version().wal_dir();
    let history = read_history(timeline, |name| match DataPath::parse(format!("{wal_dir}/{name}")) {
        Ok(path) => source.read_file(&path),
        Err(error) => Err(error.into()),
    })?;
    checked_history(history, timeline, "source")
}

/// The history of the target's timeline.
pub(crate) fn target_history(
    wal: &TargetWal<'_>,
    control: &ControlFile,
) -> Result<TimelineHistory, WalError> {
    let timeline = control.timeline();
    let history = read_history(timeline, |name| -> Result<Option<Vec<u8>>, WalError> {
        let failed = |source| WalError::Fetch { name: name.to_owned(), source };
        let Some(path) = wal.find(name, false).map_err(|error| failed(Box::new(error)))? else {
            return Ok(None);
        };
        std::fs::read(path).map(Some).map_err(|error| failed(Box::new(error)))
    })?;
    checked_history(history, timeline, "target")
}

fn checked_history(
    history: Option<Result<TimelineHistory, walparse::HistoryError>>,
    timeline: TimelineId,
    side: &'static str,
) -> Result<TimelineHistory, WalError> {
    let missing = || WalError::NoHistory { name: timeline.history_file_name(), side };
    history.ok_or_else(missing)?.map_err(|source| WalError::History { side, source })
}

/// The history of a timeline, from the history file that `read` returns; `None` if there is none. Timeline 1 has no
/// history file.
fn read_history<E>(
    timeline: TimelineId,
    read: impl FnOnce(&str) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Result<TimelineHistory, walparse::HistoryError>>, E> {
    if timeline <= TimelineId(1) {
        return Ok(Some(Ok(TimelineHistory::of_first(timeline))));
    }
    let text = read(&timeline.history_file_name())?;
    Ok(text.map(|text| TimelineHistory::parse(timeline, &text)))
}
