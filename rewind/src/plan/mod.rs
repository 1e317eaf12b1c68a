//! Decides what happens to every path of the target, from the facts that the survey found.
//!
//! The modules that decide are pure: [`files`] and [`wal`]. This one gives them what they need from both sides, and
//! checks that the plan can be carried out.

pub(crate) mod files;
pub(crate) mod wal;
mod tablespaces;
pub(crate) mod error;

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use walparse::{ChangedRows, ControlFile, FileChanges, FileEvent, Lsn, TimelineHistory, Transactions};

use crate::clock::Clock;
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};
use crate::datadir::keep::Keep;
use crate::datadir::label::BackupLabel;
use crate::options::{KeepDiverged, RebuiltBlocks};
use crate::outcome::{
    BothSides, CheckpointAt, ComparedData, Divergence, LostTransactions, ReplayStart, Report,
};
use crate::plan::error::PlanError;
use crate::plan::files::{Compared, PlanInput, RewindPlan};
use crate::plan::wal::{WalPlan, WalPlanInput};
use crate::source::Source;
use crate::target::external_files::ExternalFiles;
use crate::target::journal::OriginalFiles;
use crate::wal::changed::{BySource, ChangedBlocks};
use crate::wal::error::WalError;
use crate::wal::replay::check_length;
use crate::wal::source::{OwnCheckpoint, OwnPosition, source_end};
use crate::wal::target::TargetWal;

/// The control files of both sides, checked to be compatible.
#[derive(Clone, Debug)]
pub(crate) struct Clusters {
    pub(crate) source: ControlFile,
    pub(crate) target: ControlFile,
    /// The target's `backup_label`, if it has one.
    pub(crate) label: Option<BackupLabel>,
}

impl Clusters {
    /// The last checkpoint before which all of the target's data is on disk: the older of the one in the control
    /// file and the one in `backup_label`, where a pending replay starts.
    pub(crate) fn newest_target_checkpoint(&self) -> walparse::Lsn {
        match self.label {
            Some(BackupLabel::Start { checkpoint, .. }) => checkpoint.min(self.target.checkpoint_lsn()),
            _ => self.target.checkpoint_lsn(),
        }
    }
}

/// The fork: the point of divergence, and the changes in the target's WAL beyond it.
pub(crate) struct Fork {
    /// The history of the source's timeline.
    pub(crate) source_history: TimelineHistory,
    /// The point of divergence; `None` if data is compared and the histories do not tell it.
    pub(crate) divergence: Option<Divergence>,
    /// Up to here the WAL of both sides is known to be the same; invalid if it was not compared.
    pub(crate) common_until: Lsn,
    /// The last checkpoint of the target that both histories share; `None` if data is compared.
    pub(crate) common_checkpoint: Option<CheckpointAt>,
    /// Where replay will start.
    pub(crate) replay_start: ReplayStart,
    /// That checkpoint, if it is not the last common one but one of the source's own history.
    pub(crate) own_start: Option<OwnCheckpoint>,
    /// What the target's WAL says about files.
    pub(crate) file_changes: FileChanges,
    /// The transactions that are given up; `None` if the target's WAL was not read.
    pub(crate) lost: Option<LostTransactions>,
    /// The target's WAL that tells what they have done; `None` if it was not read by this run.
    pub(crate) own_wal: Option<OwnWal>,
    /// The copies of databases that replay will repeat.
    pub(crate) database_copies: Vec<FileEvent>,
    /// Blocks that replay restores by the source's own WAL, if it starts there.
    pub(crate) rebuilt: BySource,
    /// When the search for the common checkpoint began and ended; `None` if data is compared.
    pub(crate) search_time: Option<(Timestamp, Timestamp)>,
    /// What comparing the data has found, if it was compared.
    pub(crate) compared: Option<ComparedData>,
    /// If data is compared: a position of the source's history before which all was equal that was found so.
    pub(crate) compared_until: Option<OwnPosition>,
    /// The blocks changed by the target's WAL since the common checkpoint.
    pub(crate) changed: ChangedBlocks,
    /// Start and end of the common WAL that has been verified record by record, if any. It was read from the
    /// target, or from where its missing WAL was found.
    pub(crate) verified: Option<(Lsn, Lsn)>,
    /// Bytes and records of the target's WAL that were read.
    pub(crate) scanned: (u64, u64),
}

/// The files of both sides.
pub(crate) struct Files {
    pub(crate) source: Inventory,
    /// The target's files before the rewind, even if an unfinished one is resumed.
    pub(crate) target: Inventory,
    /// The ranges that differ in files that would be copied whole, as far as these were compared.
    pub(crate) compared: Compared,
    /// The rules for local files of the target that are kept.
    pub(crate) keep: Keep,
}

/// What an earlier, unfinished run left behind.
pub(crate) struct Resumed {
    /// The target's files as they are now.
    pub(crate) present_files: Inventory,
    /// The target's own files before that run.
    pub(crate) original: OriginalFiles,
    /// Where that run has saved discarded data, if anywhere.
    pub(crate) keep_diverged: Option<KeepDiverged>,
    /// Whether this run starts replay elsewhere, or copies more blocks, than the journal has.
    pub(crate) needs_more: bool,
}

/// The result of the survey.
pub(crate) struct Facts<'a> {
    /// Both sides, for reports.
    pub(crate) sides: BothSides,
    pub(crate) clusters: Clusters,
    pub(crate) fork: Fork,
    pub(crate) files: Files,
    /// The target's WAL.
    pub(crate) wal: TargetWal<'a>,
    /// Files that belong to the target but lie outside its data directory.
    pub(crate) external: ExternalFiles,
    pub(crate) resumed: Option<Resumed>,
}

impl Fork {
    /// Whether this run or the unfinished one compared data.
    pub(crate) fn is_by_comparing(&self) -> bool {
        self.common_checkpoint.is_none()
    }
}

/// The target's WAL from where replay of the common WAL starts.
pub(crate) struct OwnWal {
    pub(crate) start: Lsn,
    /// The end of the last record.
    pub(crate) end: Lsn,
    /// What the scan has found of rows and transactions.
    pub(crate) rows: ChangedRows,
    pub(crate) transactions: Transactions,
}

impl Facts<'_> {
    /// When an unfinished rewind is resumed: the names of the WAL files that the target had before it.
    pub(crate) fn own_wal_files(&self) -> Option<&BTreeSet<String>> {
        self.resumed.as_ref().map(|resumed| &resumed.original.wal)
    }

    /// When an unfinished rewind is resumed: where it has saved discarded data.
    pub(crate) fn saved_before(&self) -> Option<&KeepDiverged> {
        self.resumed.as_ref().and_then(|resumed| resumed.keep_diverged.as_ref())
    }
}

/// The plan, with the facts that it is made from.
pub(crate) struct Planned<'a> {
    pub(crate) facts: Facts<'a>,
    pub(crate) plan: RewindPlan,
}

/// Makes the plan. `root` is the target's data directory.
///
/// # Errors
/// The files of the two sides do not fit together, or WAL that replay needs is missing.
pub(crate) fn make<'a>(
    facts: Facts<'a>,
    source: &dyn Source,
    root: &Path,
    rebuilt: RebuiltBlocks,
) -> Result<Planned<'a>, PlanError> {
    let plan = decide(&facts, source, root, rebuilt)?;
    Ok(Planned { facts, plan })
}

impl Planned<'_> {
    /// Bytes that the next run would fetch if this one did not finish. That run compares no files.
    pub(crate) fn fetch_bytes_again(&self) -> u64 {
        let copied: BTreeSet<&DataPath> = self.plan.copy.iter().map(|(path, _)| path).collect();
        let compared = self.facts.files.compared.differing.iter().filter(|(path, _)| !copied.contains(path));
        let avoided = compared.map(|(path, ranges)| {
            let size = match self.facts.files.source.get(path) {
                Some(EntryKind::File { size }) => *size,
                _ => 0,
            };
            size.saturating_sub(ranges.iter().map(|(_, length)| u64::from(*length)).sum())
        });
        self.fetch_bytes() + avoided.sum::<u64>()
    }

    /// Bytes to fetch from the source.
    pub(crate) fn fetch_bytes(&self) -> u64 {
        self.plan.summary(&self.facts.files.source, self.facts.clusters.target.block_size()).fetch_bytes()
    }

    /// A report with the figures known so far.
    pub(crate) fn report(&self, clock: &Clock) -> Report {
        let mut report = clock.report();
        report.version = Some(self.facts.clusters.target.version());
        report.sides = Some(self.facts.sides.clone());
        report.divergence = self.facts.fork.divergence;
        report.checkpoint = self.facts.fork.common_checkpoint;
        report.lost = self.facts.fork.lost.clone();
        report.compared = self.facts.fork.compared;
        report.replay_start = Some(self.facts.fork.replay_start);
        report.checkpoint_search = self.facts.fork.search_time;
        report.plan =
            Some(self.plan.summary(&self.facts.files.source, self.facts.clusters.target.block_size()));
        let names = |paths: &[DataPath]| paths.iter().map(ToString::to_string).collect();
        report.kept = names(&self.plan.kept);
        report.not_taken = names(&self.plan.not_taken);
        (report.wal_bytes_scanned, report.wal_records_scanned) = self.facts.fork.scanned;
        report
    }
}

/// Decides about every path.
fn decide(
    facts: &Facts<'_>,
    source: &dyn Source,
    root: &Path,
    rebuilt: RebuiltBlocks,
) -> Result<RewindPlan, PlanError> {
    let wal = plan_wal_for_replay(facts, source)?;
    let control = &facts.clusters.target;
    for name in &wal.keep {
        let wal_dir = control.version().wal_dir();
        tracing::debug!("Not removing file \"{wal_dir}/{name}\" because it is required for recovery");
    }
    let (redo, fork) = (facts.fork.replay_start.checkpoint.redo, facts.fork.common_until);
    let (page_map, left_to_replay) =
        facts.fork.changed.to_copy((redo, fork), &facts.fork.rebuilt.blocks, rebuilt);
    let mut plan = files::plan(PlanInput {
        source: &facts.files.source,
        target: &facts.files.target,
        present: facts.resumed.as_ref().map(|resumed| &resumed.present_files),
        page_map: &page_map,
        compared: &facts.files.compared,
        version: control.version(),
        block_size: control.block_size(),
        blocks_per_segment: control.relation_segment_blocks(),
        wal,
        keep: &facts.files.keep,
    })?;
    plan.left_to_replay = left_to_replay;
    plan.relink = tablespaces::check(&plan, root, control.version().names())?;
    Ok(plan)
}

/// Plans the WAL directory, and checks that all WAL that replay needs can be found.
///
/// # Errors
/// Some of it cannot be found, or the source could not be read.
pub(crate) fn plan_wal_for_replay(facts: &Facts<'_>, source: &dyn Source) -> Result<WalPlan, WalError> {
    let wal = plan_wal_now(facts, source)?;
    missing_for_replay(facts, &wal.elsewhere)?;
    Ok(wal)
}

/// Plans the WAL directory, with the WAL that the source has on disk now.
pub(crate) fn plan_wal_now(facts: &Facts<'_>, source: &dyn Source) -> Result<WalPlan, WalError> {
    let available = available_wal(source, &facts.clusters.source, &facts.fork.source_history)?;
    plan_wal(facts, &facts.fork.source_history, source, available)
}

/// Plans the WAL directory, with the files in the source's WAL directory now. `available` is how far the source's
/// WAL is on its disk.
pub(crate) fn plan_wal(
    facts: &Facts<'_>,
    source_history: &TimelineHistory,
    source: &dyn Source,
    available: Lsn,
) -> Result<WalPlan, WalError> {
    let redo = facts.fork.replay_start.checkpoint.redo;
    check_length(redo, available, facts.clusters.target.geometry().segment_size)?;
    let files = source.list_wal()?;
    Ok(wal::plan(&WalPlanInput {
        geometry: facts.clusters.target.geometry(),
        source_history,
        source: &files,
        target: &facts.files.target,
        redo,
        fork: facts.fork.common_until,
        available,
        own_files: facts.own_wal_files(),
    }))
}

/// How far the source's WAL is on its disk now.
pub(crate) fn available_wal(
    source: &dyn Source,
    control: &ControlFile,
    history: &TimelineHistory,
) -> Result<Lsn, WalError> {
    // With an invalid LSN to wait for, this returns at once.
    let (_, on_disk) = source_end(source, control, history, Lsn::INVALID)?;
    Ok(on_disk)
}

/// Checks that segments that replay needs and that neither side has can be found elsewhere.
fn missing_for_replay(facts: &Facts<'_>, names: &[String]) -> Result<(), WalError> {
    let mut missing = Vec::new();
    for name in names {
        let found = facts.wal.find_elsewhere(name, false);
        let found = found.map_err(|error| WalError::Fetch { name: name.clone(), source: Box::new(error) })?;
        if found.is_none() {
            missing.push(name.clone());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(WalError::MissingForReplay {
        names: missing,
        redo: facts.fork.replay_start.checkpoint.redo,
        places: facts.wal.places(),
        later: None,
    })
}
