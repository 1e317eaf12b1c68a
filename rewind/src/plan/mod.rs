//! Making the plan: the pure parts ([`crate::plan::files`], [`crate::plan::wal`]) with what they need from both
//! sides, and the checks of what the plan would do.

pub(crate) mod files;
pub(crate) mod wal;
mod tablespaces;

use std::collections::BTreeSet;

use std::path::Path;

use jiff::Timestamp;
use walparse::{ControlFile, Lsn, TimelineHistory};

use crate::clock::Clock;
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::datadir::keep::Keep;
use crate::error::RewindError;
use crate::options::{KeepDiverged, RebuiltBlocks};
use crate::outcome::{CommonCheckpoint, Divergence, Report};
use crate::plan::files::{PlanInput, RewindPlan};
use crate::plan::wal::{WalPlan, WalPlanInput};
use crate::source::Source;
use crate::survey::delta::Compared;
use crate::survey::divergence;
use crate::survey::preflight::Clusters;
use crate::target::external_files::Outside;
use crate::wal::changed::ChangedBlocks;
use crate::wal::target::TargetWal;

/// The most segments that replay may have to go through: 16 TB of the usual size.
const MAX_SEGMENTS: u64 = 1 << 20;

/// Everything that is known before the first write.
pub(crate) struct Planned<'a> {
    pub(crate) clusters: Clusters,
    pub(crate) source_history: TimelineHistory,
    pub(crate) wal: TargetWal<'a>,
    pub(crate) divergence: Divergence,
    /// The last checkpoint of the target that both histories share.
    pub(crate) common_checkpoint: CommonCheckpoint,
    /// Where replay will start.
    pub(crate) checkpoint: CommonCheckpoint,
    pub(crate) checkpoint_search: (Timestamp, Timestamp),
    pub(crate) changed: ChangedBlocks,
    /// From where to where the common WAL, as it is in the target's WAL directory or was fetched, has been
    /// read through.
    pub(crate) verified: Option<(Lsn, Lsn)>,
    pub(crate) source_files: Inventory,
    pub(crate) target_files: Inventory,
    /// When an unfinished run is resumed: the target as that has left it.
    pub(crate) present_files: Option<Inventory>,
    /// What is known to differ in files that would be copied whole.
    pub(crate) compared: Compared,
    /// What is outside the target's data directory.
    pub(crate) outside: Outside,
    /// When an unfinished run is resumed: the WAL files that were there before it.
    pub(crate) own_wal_files: Option<BTreeSet<String>>,
    pub(crate) keep: Keep,
    /// When an unfinished run is resumed: where that one has kept what it gives up.
    pub(crate) keep_diverged: Option<KeepDiverged>,
    pub(crate) plan: RewindPlan,
    /// Bytes and records of the target's WAL.
    pub(crate) scanned: (u64, u64),
}

impl Planned<'_> {
    /// What a second run would fetch, which compares nothing.
    pub(crate) fn fetch_bytes_again(&self) -> u64 {
        let copied: BTreeSet<&DataPath> = self.plan.copy.iter().map(|(path, _)| path).collect();
        let compared = self.compared.differing.iter().filter(|(path, _)| !copied.contains(path));
        let spared = compared.map(|(path, ranges)| {
            let size = match self.source_files.get(path) {
                Some(EntryKind::File { size }) => *size,
                _ => 0,
            };
            size.saturating_sub(ranges.iter().map(|(_, length)| u64::from(*length)).sum())
        });
        self.fetch_bytes() + spared.sum::<u64>()
    }

    /// Bytes to fetch from the source.
    pub(crate) fn fetch_bytes(&self) -> u64 {
        self.plan.summary(&self.source_files, self.clusters.target.block_size()).fetch_bytes()
    }

    /// The figures known so far.
    pub(crate) fn report(&self, clock: &Clock) -> Report {
        let mut report = clock.report();
        report.divergence = Some(self.divergence);
        report.checkpoint = Some(self.common_checkpoint);
        report.checkpoint_search = Some(self.checkpoint_search);
        report.plan = Some(self.plan.summary(&self.source_files, self.clusters.target.block_size()));
        let names = |paths: &[DataPath]| paths.iter().map(ToString::to_string).collect();
        report.kept = names(&self.plan.kept);
        report.not_taken = names(&self.plan.not_taken);
        (report.wal_bytes_scanned, report.wal_records_scanned) = self.scanned;
        report
    }
}

/// Decides about every path.
pub(crate) fn make_plan(
    planned: &Planned<'_>,
    source: &dyn Source,
    root: &Path,
    rebuilt: RebuiltBlocks,
) -> Result<RewindPlan, RewindError> {
    let wal = plan_wal_for_replay(planned, source)?;
    let control = &planned.clusters.target;
    for name in &wal.keep {
        let wal_dir = control.version().wal_dir();
        tracing::debug!("Not removing file \"{wal_dir}/{name}\" because it is required for recovery");
    }
    let (redo, fork) = (planned.checkpoint.redo, planned.divergence.lsn);
    let (page_map, left_to_replay) = planned.changed.to_copy(redo, fork, rebuilt);
    let mut plan = files::plan(PlanInput {
        source: &planned.source_files,
        target: &planned.target_files,
        present: planned.present_files.as_ref(),
        page_map: &page_map,
        compared: &planned.compared,
        version: control.version(),
        block_size: control.block_size(),
        blocks_per_segment: control.relation_segment_blocks(),
        wal,
        keep: &planned.keep,
    })?;
    plan.left_to_replay = left_to_replay;
    tablespaces::check(&plan, root, control.version().names())?;
    Ok(plan)
}

/// Decides about the WAL directory, and makes sure that all that replay needs is to be had.
pub(crate) fn plan_wal_for_replay(
    planned: &Planned<'_>,
    source: &dyn Source,
) -> Result<WalPlan, RewindError> {
    let wal = plan_wal_now(planned, source)?;
    missing_for_replay(planned, &wal.elsewhere)?;
    Ok(wal)
}

/// Decides about the WAL directory, with what the source has on its disk now.
pub(crate) fn plan_wal_now(planned: &Planned<'_>, source: &dyn Source) -> Result<WalPlan, RewindError> {
    let available = available_wal(source, &planned.clusters.source, &planned.source_history)?;
    plan_wal(planned, &planned.source_history, source, available)
}

/// Decides about the WAL directory, with what the source has in its own now.
pub(crate) fn plan_wal(
    planned: &Planned<'_>,
    source_history: &TimelineHistory,
    source: &dyn Source,
    available: Lsn,
) -> Result<WalPlan, RewindError> {
    let (redo, size) = (planned.checkpoint.redo, planned.clusters.target.geometry().segment_size);
    if size.segment_of(available).0.saturating_sub(size.segment_of(redo).0) > MAX_SEGMENTS {
        return Err(RewindError::WalTooLong { redo, end: available });
    }
    let files = source.list_wal()?;
    Ok(wal::plan(&WalPlanInput {
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
    // Nothing is waited for: what is there now is what can be copied.
    let (_, on_disk) = divergence::source_end(source, control, history, Lsn::INVALID)?;
    Ok(on_disk)
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
