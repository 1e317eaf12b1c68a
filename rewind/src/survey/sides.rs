//! Describes both sides for reports: an operator sees there which one will lose its changes.

use jiff::Timestamp;
use walparse::{ControlFields, ControlFile, FieldValue, Lsn, TimelineHistory};

use crate::outcome::{BothSides, Role, Side};
use crate::plan::Clusters;
use crate::source::WalPosition;
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::wal::source::source_end;

/// Both sides, which are on the last timelines of these histories. `target_end` is the end of the target's WAL, if it is
/// known.
pub(super) fn sides(
    input: Input<'_>,
    clusters: &Clusters,
    source_history: &TimelineHistory,
    target_history: &TimelineHistory,
    target_end: Option<Lsn>,
) -> Result<BothSides, SurveyError> {
    let (role, end) = match input.source.position()? {
        WalPosition::Primary { insert, .. } => (Role::Primary, Some(insert)),
        WalPosition::Standby { received, .. } => (Role::Standby, Some(received)),
        WalPosition::Stopped => {
            let (end, _) = source_end(input.source, &clusters.source, source_history, Lsn::INVALID)?;
            (role_of_stopped(&clusters.source), Some(end))
        }
    };
    let mut source = Side::new(input.source.name(), role, source_history.timeline());
    (source.wal_end, source.last_checkpoint) = (end, time_of_checkpoint(&clusters.source));
    let place = format!("data directory \"{}\"", input.target.root().display());
    let mut target = Side::new(place, role_of_stopped(&clusters.target), target_history.timeline());
    (target.wal_end, target.last_checkpoint) = (target_end, time_of_checkpoint(&clusters.target));
    Ok(BothSides::new(source, target))
}

fn role_of_stopped(control: &ControlFile) -> Role {
    if control.state().is_standby() { Role::Standby } else { Role::Primary }
}

fn time_of_checkpoint(control: &ControlFile) -> Option<Timestamp> {
    match ControlFields::read(control.bytes()).ok()?.get("checkPointCopy.time")? {
        FieldValue::Time(seconds) => Timestamp::from_second(*seconds).ok(),
        _ => None,
    }
}
