//! The survey: reads both sides and returns facts. Nothing is written, unless the options request that the target's
//! own server completes crash recovery; but how far a long comparison has come is noted.

pub(crate) mod preflight;
pub(crate) mod divergence;
pub(crate) mod fork_wal;
pub(crate) mod delta;
pub(crate) mod error;
pub(crate) mod content;
mod announce;
mod compare_data;
mod compare_notes;
pub(crate) mod compare_node;
mod direction;
mod files;
pub(crate) mod relations;
pub(crate) mod differences;
pub(crate) mod input;
pub(crate) mod copied_databases;
mod replay;
pub(crate) mod own_history;
mod resume;
mod sides;
mod source_changes;
mod target_side;

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use walparse::{ClusterState, Lsn, TimelineHistory, Version, scan};

use crate::causes::with_causes;
use crate::clock::Clock;
use crate::datadir::keep::Keep;
use crate::datadir::label::BackupLabel;
use crate::datadir::server::target_control;
use crate::options::{CompareData, Need, RebuiltBlocks, SameTimeline};
use crate::outcome::{BothSides, CheckpointAt, LostTransactions, Outcome, Report};
use crate::plan::{Clusters, Facts, Files, Fork, OwnWal};
use crate::progress::Stage;
use crate::source::Source;
use crate::survey::announce::{announce_checkpoint, announce_fork};
use crate::survey::divergence::{Found, Sides};
use crate::survey::error::SurveyError;
use crate::survey::files::list;
use crate::survey::input::Input;
use crate::survey::preflight::HintBits;
use crate::survey::replay::Histories;
use crate::survey::sides::sides;
use crate::target::external_files::ExternalFiles;
use crate::target::journal::Journal;
use crate::threads;
use crate::wal::changed::ChangedBlocks;
use crate::wal::history::{source_history, target_history};
use crate::wal::source::SourceWal;
use crate::wal::target::TargetWal;

/// The result of the survey.
pub(crate) enum Survey<'a> {
    /// No rewind is required: the target can follow the source as it is.
    Follows(Version, Box<Outcome>),
    /// The target must be rewound.
    Diverged(Box<Facts<'a>>),
}

/// Both sides, checked to be compatible.
struct Checked<'a> {
    clusters: Clusters,
    source_history: TimelineHistory,
    /// The target's WAL, on the timelines of its own history.
    wal: TargetWal<'a>,
    /// The fork by the history files; `None` if both end on the same timeline.
    presumed: Option<Lsn>,
}

impl Checked<'_> {
    /// Whether both sides are on the same timeline.
    fn is_on_one_timeline(&self) -> bool {
        self.source_history.timeline() == self.wal.history().timeline()
    }

    /// Both sides, for the report. The target's WAL ends at `target_end`.
    fn sides(&self, input: Input<'_>, target_end: Lsn) -> Result<BothSides, SurveyError> {
        sides(input, &self.clusters, &self.source_history, self.wal.history(), Some(target_end))
    }
}

/// Reads both sides.
///
/// # Errors
/// A side cannot be read, or the target cannot be rewound to this source.
pub(crate) fn survey<'a>(input: Input<'a>, clock: &mut Clock) -> Result<Survey<'a>, SurveyError> {
    let choice = input.options.compare_data;
    let journal = read_journal(input)?;
    // A base backup has WAL that ends somewhere, and what its server would replay is not known.
    let is_backup = matches!(input.label, Some(BackupLabel::Start { by_rewind: false, .. }));
    let needs_comparing = journal.as_ref().is_some_and(Journal::needs_comparing);
    if journal.as_ref().is_some_and(|journal| journal.file_changes.is_none()) {
        tracing::warn!(
            "an older version began the unfinished rewind, and did not note all on which its result depends: the data of both sides is compared"
        );
    }
    if choice == CompareData::On || is_backup || needs_comparing {
        return Ok(Survey::Diverged(Box::new(compare_data::facts(input, journal, clock)?)));
    }
    match survey_by_wal(input, journal, clock) {
        Err(error) if choice == CompareData::Auto && error.is_cured_by_comparing() => {
            tracing::warn!("{}: the data of both sides is compared instead", with_causes(&error));
            let journal = read_journal(input)?;
            Ok(Survey::Diverged(Box::new(compare_data::facts(input, journal, clock)?)))
        }
        other => other,
    }
}

/// The journal of an unfinished rewind, if there is one.
fn read_journal(input: Input<'_>) -> Result<Option<Journal>, SurveyError> {
    let is_unfinished = input.label == Some(BackupLabel::Unfinished);
    Ok(is_unfinished.then(|| Journal::read(input.target.root(), input.flavor)).transpose()?)
}

/// Reads both sides. The target's WAL tells which blocks differ.
fn survey_by_wal<'a>(
    input: Input<'a>,
    journal: Option<Journal>,
    clock: &mut Clock,
) -> Result<Survey<'a>, SurveyError> {
    if let Some(journal) = journal {
        return Ok(Survey::Diverged(Box::new(resume::resume(input, journal, clock)?)));
    }
    let mut checked = check_sides(input)?;
    if already_rewound(input.source, &checked)? {
        let end = checked.clusters.target.min_recovery_point();
        let sides = Some(checked.sides(input, end)?);
        let outcome = Outcome::AlreadyRewound(Report { sides, ..clock.report() });
        return Ok(Survey::Follows(checked.clusters.target.version(), Box::new(outcome)));
    }
    clock.end_stage("preflight");

    let searched_since = Timestamp::now();
    let names = checked.clusters.target.version().names();
    let keep = target_side::keep(input.options, input.target.root(), names)?;
    let (found, files) = scan_and_list(input, &mut checked, keep);
    let search_time = (searched_since, Timestamp::now());
    clock.end_stage("scan");
    let found = found?;
    if found.scan.diverged.is_none() {
        return follows(input, &checked, &found, clock);
    }
    facts(input, checked, found, files, search_time)
}

/// Checks that the target can be rewound to the source, and reads the histories of both.
fn check_sides(input: Input<'_>) -> Result<Checked<'_>, SurveyError> {
    let Input { options, target, flavor, source, .. } = input;
    let ours = target_control(target.root(), flavor)?;
    let mut clusters = Clusters { source: source.control_file()?, target: ours, label: input.label };
    preflight::check_sides(options, source, &mut clusters, HintBits::Logged)?;
    let source_history = source_history(source, &clusters.source)?;
    target_side::settle_unclean(input, &mut clusters)?;
    let mut wal = target_side::target_wal(input, &clusters.target)?;
    let history = target_history(&wal, &clusters.target)?;
    let (_, presumed) = divergence::from_histories(&source_history, &history)?;
    wal.set_history(history);
    let geometry = clusters.source.geometry();
    fork_wal::check(&clusters, &wal, &SourceWal { source, history: &source_history, geometry })?;
    Ok(Checked { clusters, source_history, wal, presumed })
}

/// Finds the point of divergence in the target's WAL. At the same time, lists and compares the files of both sides.
fn scan_and_list(
    input: Input<'_>,
    checked: &mut Checked<'_>,
    keep: Keep,
) -> (Result<Found, SurveyError>, Result<Files, SurveyError>) {
    let Input { options, progress, .. } = input;
    let version = checked.clusters.target.version();
    let give_up = AtomicBool::new(false);
    let find = || {
        progress.begin(Stage::Scan, None);
        let found = find_divergence(input, checked);
        progress.finish(Stage::Scan);
        // If no rewind is required, nothing will be copied.
        let is_needed = found.as_ref().is_ok_and(|found| found.scan.diverged.is_some());
        give_up.store(!is_needed, Ordering::Relaxed);
        found
    };
    threads::both(find, || list(input, version, keep)?.compare(options.delta, &give_up))
}

/// Finds the point of divergence, and logs it.
fn find_divergence(input: Input<'_>, checked: &mut Checked<'_>) -> Result<Found, SurveyError> {
    let Input { options, progress, source, .. } = input;
    let clusters = &checked.clusters;
    let sides = Sides {
        clusters,
        source,
        source_history: &checked.source_history,
        progress,
        rewinds_anyway: options.need == Need::DivergedOrUnclean
            && clusters.label.is_none()
            && !clusters.target.state().is_clean()
            && !checked.is_on_one_timeline(),
        rebuilt: match options.rebuilt_blocks {
            RebuiltBlocks::Leave => {
                scan::RebuiltBlocks::Prove { replay_limit: clusters.source.checkpoint().redo }
            }
            RebuiltBlocks::Copy => scan::RebuiltBlocks::Ignore,
        },
    };
    let found = divergence::find(&sides, &mut checked.wal, checked.presumed)?;
    let on_one_timeline = checked.is_on_one_timeline();
    if found.scan.diverged.is_some() || !on_one_timeline {
        announce_fork(progress, found.divergence);
        return Ok(found);
    }
    tracing::info!("source and target cluster are on the same timeline");
    if options.same_timeline != SameTimeline::Resync {
        return Ok(found);
    }
    Ok(divergence::since_checkpoint(&sides, &mut checked.wal, found.scan.end)?)
}

/// No rewind is required.
fn follows<'a>(
    input: Input<'_>,
    checked: &Checked<'_>,
    found: &Found,
    clock: &Clock,
) -> Result<Survey<'a>, SurveyError> {
    tracing::info!("no rewind required");
    let mut report = clock.report();
    report.sides = Some(checked.sides(input, found.scan.end)?);
    report.divergence = Some(found.divergence).filter(|_| !checked.is_on_one_timeline());
    (report.wal_bytes_scanned, report.wal_records_scanned) = (found.scan.bytes, found.scan.records);
    Ok(Survey::Follows(checked.clusters.target.version(), Box::new(Outcome::NotNeeded(report))))
}

/// Puts together the facts that the plan is made from.
fn facts<'a>(
    input: Input<'a>,
    checked: Checked<'a>,
    found: Found,
    files: Result<Files, SurveyError>,
    search_time: (Timestamp, Timestamp),
) -> Result<Survey<'a>, SurveyError> {
    let Found { divergence, scan, is_compared } = found;
    let Some(diverged) = scan.diverged else {
        unreachable!("the caller has checked that there is a divergence")
    };
    let Checked { clusters, source_history, wal, .. } = &checked;
    direction::check(input.options, source_history, &clusters.target, Some(wal.history()))?;
    let sides = checked.sides(input, scan.end)?;
    let Checked { clusters, source_history, wal, .. } = checked;
    let common_checkpoint = CheckpointAt {
        lsn: diverged.checkpoint_lsn,
        redo: diverged.checkpoint.redo,
        timeline: diverged.checkpoint.timeline,
    };
    announce_checkpoint(input.progress, &common_checkpoint, search_time);
    let files = files?;
    // A target that is rewound although it has not diverged was scanned from an earlier position on.
    let lost = match scan.end > divergence.lsn {
        true => LostTransactions::of(&diverged.transactions),
        false => LostTransactions::default(),
    };
    let mut changed = ChangedBlocks {
        named: diverged.page_map,
        rebuilt: diverged.rebuilt,
        since: diverged.since,
        fork: divergence.lsn,
    };
    let histories = Histories {
        source_history: &source_history,
        clusters: &clusters,
        wal: &wal,
        target_files: &files.target,
        common: common_checkpoint,
        own_start: None,
        fork: divergence.lsn,
        wal_is_compared: is_compared,
        read_since: Some(diverged.since),
        target_changes: &scan.files,
        own_wal_files: None,
        compares_data: false,
    };
    let replay = replay::choose(input, &histories, &mut changed)?;
    let external = ExternalFiles::of_target(
        input.target.root(),
        clusters.target.version(),
        input.options.config_file.as_deref(),
    )?;
    let fork = Fork {
        source_history,
        divergence: Some(divergence),
        common_until: divergence.lsn,
        common_checkpoint: Some(common_checkpoint),
        replay_start: replay.start,
        own_start: replay.own_start,
        file_changes: scan.files,
        lost: Some(lost),
        own_wal: Some(OwnWal {
            start: diverged.since,
            end: scan.end,
            rows: diverged.rows,
            transactions: diverged.transactions,
        }),
        database_copies: replay.copies,
        rebuilt: replay.rebuilt,
        search_time: Some(search_time),
        compared: None,
        compared_until: None,
        changed,
        verified: Some((diverged.since, divergence.lsn)),
        scanned: (scan.bytes, scan.records),
    };
    Ok(Survey::Diverged(Box::new(Facts { sides, clusters, fork, files, wal, external, resumed: None })))
}

/// Whether an earlier run has rewound the target, no server has been started since, and the source's WAL still goes
/// on from the minRecoveryPoint of that run.
fn already_rewound(source: &dyn Source, checked: &Checked<'_>) -> Result<bool, SurveyError> {
    let Checked { clusters, source_history, wal, presumed: left } = checked;
    let source_wal = SourceWal { source, history: source_history, geometry: clusters.source.geometry() };
    let control = &clusters.target;
    let end = control.min_recovery_point();
    let by_rewind = matches!(clusters.label, Some(BackupLabel::Start { by_rewind: true, .. }));
    let is_on_history = left.is_none_or(|left| end <= left);
    if !by_rewind || control.state() != ClusterState::InArchiveRecovery || !is_on_history {
        return Ok(false);
    }
    if !divergence::goes_on_from(wal, &source_wal, &clusters.source, end)? {
        return Ok(false);
    }
    tracing::info!("an earlier run has rewound the target to {end}, and no server has been started since");
    tracing::info!("no rewind required");
    Ok(true)
}
