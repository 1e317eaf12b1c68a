//! The survey: both sides are read and everything is decided. Nothing is written, unless the caller asked
//! for the target's own server to be run.

pub(crate) mod preflight;
pub(crate) mod divergence;
pub(crate) mod fork_wal;
pub(crate) mod delta;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use walparse::{ClusterState, ControlFile, Flavor, Lsn, Names, TimelineHistory, TimelineId, Version, scan};

use crate::apply::copy::CopyError;
use crate::apply::recovery_conf;
use crate::clock::Clock;
use crate::datadir::config::Configuration;
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::Inventory;
use crate::datadir::keep::{Keep, KeepError};
use crate::datadir::label::BackupLabel;
use crate::datadir::walk::walk_data_directory;
use crate::error::RewindError;
use crate::milestone;
use crate::options::{
    Delta, Mode, Need, Options, RebuiltBlocks, RestoreCommand, SameTimeline, UncleanTarget,
};
use crate::outcome::{CommonCheckpoint, Divergence, Outcome};
use crate::plan::files::{PlanError, RewindPlan};
use crate::plan::{Planned, make_plan};
use crate::progress::{Progress, Stage};
use crate::source::Source;
use crate::survey::delta::{Compared, compare};
use crate::survey::divergence::Sides;
use crate::survey::preflight::{Clusters, PreflightError};
use crate::target::Target;
use crate::target::external_files::Outside;
use crate::target::journal::Journal;
use crate::wal::archive::Archive;
use crate::wal::changed::ChangedBlocks;
use crate::wal::target::{SourceWal, TargetWal, read_history};

/// What the survey came to.
pub(crate) enum Survey<'a> {
    /// The target can follow as it is.
    Follows(Version, Box<Outcome>),
    /// It must be rewound.
    Planned(Box<Planned<'a>>),
}

/// Reads both sides and decides what to do.
pub(crate) fn survey<'a>(
    options: &'a Options,
    progress: &dyn Progress,
    clock: &mut Clock,
    (target, flavor): (&Target, Flavor),
    label: Option<BackupLabel>,
    source: &'a dyn Source,
) -> Result<Survey<'a>, RewindError> {
    if label == Some(BackupLabel::Unfinished) {
        return resume(options, clock, (target, flavor), source);
    }
    let ours = preflight::target_control(target.root(), flavor)?;
    let mut clusters = Clusters { source: source.control_file()?, target: ours, label };
    preflight::check_clusters(source, &clusters)?;
    let source_history = source_history(source, &clusters.source)?;
    settle_unclean_target(options, target, &mut clusters, source)?;
    let mut wal = target_wal(options, target, &clusters.target, source)?;
    let history = target_history(&wal, &clusters.target)?;
    let presumed = divergence::from_histories(&source_history, &history)?;
    wal.set_history(history);
    let source_wal = SourceWal { source, history: &source_history, geometry: clusters.source.geometry() };
    fork_wal::check(&clusters, &wal, &source_wal)?;
    if already_rewound(&clusters, &wal, &source_wal, presumed.1)? {
        let outcome = Outcome::AlreadyRewound(clock.report());
        return Ok(Survey::Follows(clusters.target.version(), Box::new(outcome)));
    }
    clock.end_stage("preflight");

    let searched_since = Timestamp::now();
    let (give_up, version) = (AtomicBool::new(false), clusters.target.version());
    let keep = keep(options, target.root(), version.names()).map_err(PlanError::from)?;
    let (found, files) = std::thread::scope(|scope| {
        let files = scope.spawn(|| both_sides(options.delta, target, version, source, &keep, &give_up));
        progress.begin(Stage::Scan, None);
        let sides = Sides {
            clusters: &clusters,
            source,
            source_history: &source_history,
            progress,
            rewinds_anyway: options.need == Need::DivergedOrUnclean
                && clusters.label.is_none()
                && !clusters.target.state().is_clean()
                && !on_one_timeline(&clusters),
            rebuilt: match options.rebuilt_blocks {
                RebuiltBlocks::Leave => {
                    scan::RebuiltBlocks::Prove { replay_limit: clusters.source.checkpoint().redo }
                }
                RebuiltBlocks::Copy => scan::RebuiltBlocks::Ignore,
            },
        };
        let mut found = divergence::find(&sides, &mut wal, presumed.1);
        if let Ok(follows) = &found
            && follows.scan.diverged.is_none()
            && options.same_timeline == SameTimeline::Resync
            && on_one_timeline(&clusters)
        {
            tracing::info!("source and target cluster are on the same timeline");
            let end = follows.scan.end;
            found = divergence::since_checkpoint(&sides, &mut wal, end);
        } else if let Ok(found) = &found {
            announce_divergence(&clusters, found);
        }
        progress.finish(Stage::Scan);
        // Nothing will be copied.
        let is_needed = found.as_ref().is_ok_and(|found| found.scan.diverged.is_some());
        give_up.store(!is_needed, Ordering::Relaxed);
        (found, join(files))
    });
    let checkpoint_search = (searched_since, Timestamp::now());
    clock.end_stage("scan");
    let found = found?;
    let scanned = (found.scan.bytes, found.scan.records);
    let Some(diverged) = found.scan.diverged else {
        tracing::info!("no rewind required");
        let mut report = clock.report();
        report.divergence = Some(found.divergence).filter(|_| !on_one_timeline(&clusters));
        (report.wal_bytes_scanned, report.wal_records_scanned) = scanned;
        return Ok(Survey::Follows(clusters.target.version(), Box::new(Outcome::NotNeeded(report))));
    };
    let common_checkpoint = CommonCheckpoint {
        lsn: diverged.checkpoint_lsn,
        redo: diverged.checkpoint.redo,
        timeline: diverged.checkpoint.timeline,
    };
    announce_checkpoint(&common_checkpoint, checkpoint_search);
    let (page_map, rebuilt) = (diverged.page_map, diverged.rebuilt);
    let fork = found.divergence.lsn;
    let files = files?;
    let mut planned = Planned {
        checkpoint: replay_start(common_checkpoint, &clusters.source),
        source_history,
        wal,
        divergence: found.divergence,
        common_checkpoint,
        checkpoint_search,
        changed: ChangedBlocks { named: page_map, rebuilt, since: diverged.since, fork },
        verified: Some((diverged.since, fork)),
        source_files: files.source,
        target_files: files.target,
        present_files: None,
        compared: files.compared,
        outside: Outside::of_target(
            target.root(),
            clusters.target.version(),
            options.config_file.as_deref(),
        )?,
        own_wal_files: None,
        keep,
        keep_diverged: None,
        plan: RewindPlan::default(),
        scanned,
        clusters,
    };
    planned.plan = make_plan(&planned, source, target.root(), options.rebuilt_blocks)?;
    announce_plan(&planned);
    clock.end_stage("plan");
    Ok(Survey::Planned(Box::new(planned)))
}

/// Decides how to finish what an earlier run began. What the directory no longer tells is in the journal;
/// the source is looked at anew, for it may have moved on or be another one.
fn resume<'a>(
    options: &'a Options,
    clock: &mut Clock,
    (target, flavor): (&Target, Flavor),
    source: &'a dyn Source,
) -> Result<Survey<'a>, RewindError> {
    let searched_since = Timestamp::now();
    let journal = Journal::read(target.root(), flavor)?;
    tracing::info!("resuming the rewind begun at {} from {}", journal.begun, journal.source);
    let label = Some(BackupLabel::Unfinished);
    let clusters = Clusters { source: source.control_file()?, target: journal.control.clone(), label };
    preflight::check_clusters(source, &clusters)?;
    let source_history = source_history(source, &clusters.source)?;
    let history = TimelineHistory::parse(clusters.target.timeline(), &journal.history)
        .map_err(|source| RewindError::History { side: "target", source })?;
    let (timeline, left) = divergence::from_histories(&source_history, &history)?;
    let mut divergence = journal.divergence;
    if let Some(lsn) = left.filter(|lsn| *lsn < divergence.lsn) {
        divergence = Divergence { lsn, timeline };
    }
    let common_checkpoint = journal.checkpoint;
    if divergence.lsn <= common_checkpoint.lsn {
        return Err(RewindError::ForkTooOld { fork: divergence.lsn, checkpoint: common_checkpoint.lsn });
    }
    let mut wal = target_wal(options, target, &clusters.target, source)?;
    wal.set_history(history);
    wal.set_limits(divergence.lsn, divergence.lsn);
    let keep = Keep::again(&journal.keep).map_err(PlanError::from)?;
    // Not compared: what the other run wrote and failed to make durable reads as if it were on the disk.
    let Files { source: source_files, target: target_files, compared } =
        both_sides(Delta::Off, target, clusters.target.version(), source, &keep, &AtomicBool::new(false))?;
    clock.end_stage("preflight");
    let checkpoint_search = (searched_since, Timestamp::now());
    announce_fork(divergence);
    announce_checkpoint(&common_checkpoint, checkpoint_search);
    let mut planned = Planned {
        checkpoint: replay_start(common_checkpoint, &clusters.source),
        source_history,
        wal,
        divergence,
        common_checkpoint,
        checkpoint_search,
        target_files: journal.original(target_files.clone(), &source_files, clusters.target.version()),
        present_files: Some(target_files),
        changed: journal.changed,
        verified: None,
        source_files,
        compared,
        outside: journal.outside,
        own_wal_files: Some(journal.wal_files),
        keep,
        keep_diverged: journal.keep_diverged,
        plan: RewindPlan::default(),
        scanned: (0, 0),
        clusters,
    };
    planned.plan = make_plan(&planned, source, target.root(), options.rebuilt_blocks)?;
    announce_plan(&planned);
    clock.end_stage("plan");
    Ok(Survey::Planned(Box::new(planned)))
}

/// What is known of the files of both sides.
struct Files {
    source: Inventory,
    target: Inventory,
    compared: Compared,
}

/// Lists both sides, and compares what would be copied whole.
fn both_sides(
    delta: Delta,
    target: &Target,
    version: Version,
    source: &dyn Source,
    keep: &Keep,
    give_up: &AtomicBool,
) -> Result<Files, RewindError> {
    let (source_files, target_files) = std::thread::scope(|scope| {
        let source_files = scope.spawn(|| source.list());
        let target_files = walk_data_directory(target.root(), version.names());
        (join(source_files), target_files)
    });
    let (source_files, target_files) = (source_files?, target_files.map_err(RewindError::Walk)?);
    let sides = delta::Sides {
        source,
        source_files: &source_files,
        target: target.root(),
        target_files: &target_files,
        keep,
        version,
    };
    let compared = compare(&sides, delta, give_up).map_err(CopyError::from)?;
    Ok(Files { source: source_files, target: target_files, compared })
}

fn on_one_timeline(clusters: &Clusters) -> bool {
    clusters.source.timeline() == clusters.target.timeline()
}

fn announce_divergence(clusters: &Clusters, found: &divergence::Found) {
    if found.scan.diverged.is_none() && on_one_timeline(clusters) {
        tracing::info!("source and target cluster are on the same timeline");
    } else {
        announce_fork(found.divergence);
    }
}

fn announce_fork(Divergence { lsn, timeline }: Divergence) {
    tracing::info!(
        milestone = milestone::DIVERGED,
        "servers diverged at WAL location {lsn} on timeline {timeline}"
    );
}

fn announce_checkpoint(checkpoint: &CommonCheckpoint, (since, until): (Timestamp, Timestamp)) {
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

fn announce_plan(planned: &Planned<'_>) {
    let summary = planned.plan.summary(&planned.source_files, planned.clusters.target.block_size());
    tracing::debug!(
        milestone = milestone::PLANNED,
        fetch_bytes = summary.fetch_bytes(),
        total_bytes = summary.source_bytes,
        "{} bytes are to be copied, of {} that the source has",
        summary.fetch_bytes(),
        summary.source_bytes
    );
}

/// Replay must also start no later than at the source's own last checkpoint: what is copied from its disk
/// may be as old as that, if it is a standby or has just been promoted.
fn replay_start(common: CommonCheckpoint, source: &ControlFile) -> CommonCheckpoint {
    let checkpoint = source.checkpoint();
    if checkpoint.redo >= common.redo {
        return common;
    }
    tracing::debug!("replay starts at the source's older checkpoint {}", source.checkpoint_lsn());
    CommonCheckpoint { lsn: source.checkpoint_lsn(), redo: checkpoint.redo, timeline: checkpoint.timeline }
}

/// Whether an earlier run has finished here, no server has been started since, and the source still goes
/// on from where that run ended.
fn already_rewound(
    clusters: &Clusters,
    wal: &TargetWal<'_>,
    source: &SourceWal<'_>,
    left: Option<Lsn>,
) -> Result<bool, RewindError> {
    let control = &clusters.target;
    let end = control.min_recovery_point();
    let by_rewind = matches!(clusters.label, Some(BackupLabel::Start { by_rewind: true, .. }));
    let is_on_history = left.is_none_or(|left| end <= left);
    if !by_rewind || control.state() != ClusterState::InArchiveRecovery || !is_on_history {
        return Ok(false);
    }
    if !divergence::goes_on_from(wal, source, &clusters.source, end)? {
        return Ok(false);
    }
    tracing::info!("an earlier run has rewound the target to {end}, and no server has been started since");
    tracing::info!("no rewind required");
    Ok(true)
}

/// What the caller wants done about a target that was not stopped cleanly.
fn settle_unclean_target(
    options: &Options,
    target: &Target,
    clusters: &mut Clusters,
    source: &dyn Source,
) -> Result<(), RewindError> {
    let state = clusters.target.state();
    // A server run on a rewound directory would end its recovery and write WAL of its own.
    if state.is_clean() || clusters.label.is_some() {
        return Ok(());
    }
    let recovery = match &options.unclean_target {
        UncleanTarget::Recover(recovery) => recovery,
        UncleanTarget::Refuse => return Err(PreflightError::TargetNotClean { state }.into()),
        UncleanTarget::Accept => {
            tracing::info!("target was not shut down cleanly (\"{state}\"): its WAL is read to the real end");
            return Ok(());
        }
    };
    if options.mode != Mode::Rewind {
        tracing::info!("dry run: the target's server would be run to complete crash recovery");
        return Ok(());
    }
    // The server would take a missing segment for the end, and write its own WAL there: what was flushed
    // behind it would never be found again.
    let mut wal = target_wal(options, target, &clusters.target, source)?;
    wal.set_history(target_history(&wal, &clusters.target)?);
    match divergence::check_end(&mut wal, clusters) {
        Err(RewindError::Scan(error)) => tracing::warn!("{error}: recovery will end there"),
        other => other?,
    }
    recovery.recover(target.root(), &clusters.target)?;
    let flavor = clusters.target.version().flavor();
    clusters.target = preflight::target_control(target.root(), flavor)?;
    clusters.label = preflight::check_target(target.root(), flavor.names(), &options.stop)?;
    Ok(())
}

/// What is kept: by the options, and the directory of the target's logs.
fn keep(options: &Options, root: &Path, names: &Names) -> Result<Keep, KeepError> {
    let mut log_directory = None;
    if options.keep.has_standard() {
        match Configuration::read(root, names, options.config_file.as_deref()) {
            Ok(configuration) => log_directory = configuration.get("log_directory").map(PathBuf::from),
            Err(error) => tracing::debug!("the target's log_directory is not known: {error}"),
        }
    }
    // One outside the data directory is no concern of a rewind.
    let below = log_directory.as_deref().map(|path| path.strip_prefix(root).unwrap_or(path));
    Keep::new(&options.keep, below.filter(|path| path.is_relative()))
}

/// The target's WAL; its history is not known yet.
fn target_wal<'a>(
    options: &'a Options,
    target: &Target,
    control: &ControlFile,
    source: &'a dyn Source,
) -> Result<TargetWal<'a>, RewindError> {
    let unknown = TimelineHistory::of_first(control.timeline());
    let archive = archive(options, target, control)?;
    let directories = &options.missing_wal.directories;
    let stop = options.stop.clone();
    Ok(TargetWal::new(target.root(), unknown, control.geometry(), directories, archive, source, stop))
}

/// The archive to look for missing WAL in.
fn archive(
    options: &Options,
    target: &Target,
    control: &ControlFile,
) -> Result<Option<Archive>, RewindError> {
    let command = match &options.missing_wal.restore_command {
        RestoreCommand::Off => return Ok(None),
        RestoreCommand::Given(command) => command.clone(),
        RestoreCommand::FromTarget => {
            let config_file = options.config_file.as_deref();
            let configuration = recovery_conf::configuration(target.root(), control.version(), config_file)?;
            configuration.restore_command()?.to_owned()
        }
    };
    Ok(Some(Archive::new(command, control.geometry(), None)?.in_directory(target.root())))
}

/// The history of the timeline the source is on.
pub(crate) fn source_history(
    source: &dyn Source,
    control: &ControlFile,
) -> Result<TimelineHistory, RewindError> {
    let timeline = control.timeline();
    let wal_dir = control.version().wal_dir();
    let history = read_history(timeline, |name| match DataPath::parse(format!("{wal_dir}/{name}")) {
        Ok(path) => source.read_file(&path),
        Err(error) => Err(error.into()),
    })?;
    checked_history(history, timeline, "source")
}

fn target_history(wal: &TargetWal<'_>, control: &ControlFile) -> Result<TimelineHistory, RewindError> {
    let timeline = control.timeline();
    let history = read_history(timeline, |name| -> Result<Option<Vec<u8>>, RewindError> {
        let failed = |source| RewindError::FetchWal { name: name.to_owned(), source };
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
) -> Result<TimelineHistory, RewindError> {
    let missing = || RewindError::NoHistory { name: timeline.history_file_name(), side };
    history.ok_or_else(missing)?.map_err(|source| RewindError::History { side, source })
}

/// The result of a thread; one that panicked makes this one panic, too.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
