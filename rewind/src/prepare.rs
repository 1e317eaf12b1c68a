//! Making the plan: the pure parts ([`crate::plan`], [`crate::wal_plan`]) with what they need from both
//! sides, and the checks of what the plan would do.

use std::collections::BTreeSet;

use walparse::{ControlFile, Lsn, TimelineHistory};

use crate::divergence;
use crate::error::RewindError;
use crate::inventory::EntryKind;
use crate::plan::{self, PlanInput, RewindPlan};
use crate::source::{Source, WalPosition};
use crate::survey::Planned;
use crate::target_wal::SourceWal;
use crate::wal_plan::{self, WalPlan, WalPlanInput};

/// Decides about every path.
pub(crate) fn make_plan(planned: &Planned<'_>, source: &dyn Source) -> Result<RewindPlan, RewindError> {
    let available = available_wal(source, &planned.clusters.source, &planned.source_history)?;
    let wal = plan_wal(planned, &planned.source_history, source, available)?;
    missing_for_replay(planned, &wal.elsewhere)?;
    let control = &planned.clusters.target;
    for name in &wal.keep {
        let wal_dir = control.version().wal_dir();
        tracing::debug!("Not removing file \"{wal_dir}/{name}\" because it is required for recovery");
    }
    let plan = plan::plan(PlanInput {
        source: &planned.source_files,
        target: &planned.target_files,
        page_map: &planned.page_map,
        version: control.version(),
        block_size: control.block_size(),
        blocks_per_segment: control.relation_segment_blocks(),
        wal,
    })?;
    check_tablespaces(&plan)?;
    Ok(plan)
}

/// Decides about the WAL directory, with what the source has in its own now.
pub(crate) fn plan_wal(
    planned: &Planned<'_>,
    source_history: &TimelineHistory,
    source: &dyn Source,
    available: Lsn,
) -> Result<WalPlan, RewindError> {
    let files = source.list_wal()?;
    Ok(wal_plan::plan(&WalPlanInput {
        geometry: planned.clusters.target.geometry(),
        source_history,
        source: &files,
        target: &planned.target_files,
        redo: planned.checkpoint.redo,
        fork: planned.divergence.lsn,
        available,
        own_files: planned.own_wal_files.as_ref(),
    }))
}

/// How far the source's WAL is on its disk.
pub(crate) fn available_wal(
    source: &dyn Source,
    control: &ControlFile,
    history: &TimelineHistory,
) -> Result<Lsn, RewindError> {
    Ok(match source.position()? {
        WalPosition::Primary { flush, .. } => flush,
        WalPosition::Standby { received, .. } => received,
        WalPosition::Stopped => {
            let store = SourceWal { source, history, geometry: control.geometry() };
            divergence::stopped_end(&store, control)?
        }
    })
}

/// Segments that replay needs and that neither side has must be somewhere else.
fn missing_for_replay(planned: &Planned<'_>, names: &[String]) -> Result<(), RewindError> {
    let mut missing = Vec::new();
    for name in names {
        let found = planned.wal.find_elsewhere(name, false);
        let found =
            found.map_err(|error| RewindError::FetchWal { name: name.clone(), source: Box::new(error) })?;
        if found.is_none() {
            missing.push(name.clone());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(RewindError::MissingReplayWal {
        names: missing,
        redo: planned.checkpoint.redo,
        places: planned.wal.places(),
    })
}

/// A tablespace that only the source has is made at the same place here: nothing may be there yet.
fn check_tablespaces(plan: &RewindPlan) -> Result<(), RewindError> {
    let mut seen = BTreeSet::new();
    for (link, kind) in &plan.create {
        let EntryKind::Symlink { target: directory } = kind else { continue };
        let is_empty = match std::fs::read_dir(directory) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if !is_empty || !seen.insert(directory) {
            return Err(RewindError::TablespaceInUse { link: link.clone(), directory: directory.clone() });
        }
    }
    Ok(())
}
