//! The run: every stage in its order.
//!
//! [`survey`] reads everything and decides everything; the target is untouched until it has succeeded.
//! [`rewind`] then changes the target in one marked stretch.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use walparse::scan::{EndOfWal, Scan, ScanError, ScanRequest, scan};
use walparse::{
    ClusterState, ControlFile, Lsn, PageMap, SegmentNo, SegmentStore, TimelineHistory, TimelineId, Version,
    WalFault, WalReader,
};

use crate::archive::Archive;
use crate::clock::Clock;
use crate::copy::SourceLife;
use crate::data_path::DataPath;
use crate::divergence::{self, DivergenceError};
use crate::error::{Failure, RewindError, TargetState};
use crate::inventory::{EntryKind, Inventory};
use crate::label::BackupLabel;
use crate::options::{Mode, Options, RecoveryConf, RestoreCommand, SourceChoice};
use crate::outcome::{CommonCheckpoint, Divergence, Outcome, Report};
use crate::plan::{self, PlanInput, RewindPlan};
use crate::preflight::{self, Clusters, PreflightError};
use crate::progress::{Progress, Stage};
use crate::recovery_conf;
use crate::seal;
use crate::source::{
    DEFAULT_CONNECTIONS, DirectorySource, ServerSource, Source, WalPosition, walk_data_directory,
};
use crate::target::Target;
use crate::target_wal::{SourceWal, TargetWal, read_history};
use crate::wal_plan::{self, WalPlanInput};

/// Rewinds the target, or says that there is no need, or (in a dry run) what would be done.
///
/// # Errors
/// [`Failure::target`] says whether the target has been touched.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Outcome, Failure> {
    let untouched = |error| Failure { error: Box::new(error), target: TargetState::Untouched };
    let mut clock = Clock::start();
    let target = Target::lock(&options.target).map_err(|error| untouched(error.into()))?;
    let label = preflight::check_target(target.root()).map_err(|error| untouched(error.into()))?;
    let source = open_source(options, &target).map_err(untouched)?;
    let source = source.as_ref();
    let survey = survey(options, progress, &mut clock, &target, label, source).map_err(untouched)?;
    match survey {
        Survey::Follows(version, outcome) => {
            if options.mode == Mode::Rewind {
                write_recovery_conf(options, &target, version).map_err(untouched)?;
            }
            Ok(outcome)
        }
        Survey::Planned(plan) if options.mode == Mode::DryRun => Ok(Outcome::Planned(plan.report(&clock))),
        Survey::Planned(plan) => {
            tracing::info!("point of no return: from here on the target is marked as unfinished");
            let mark = crate::label::mark();
            target
                .replace_file(&seal::label_path(), mark.as_bytes())
                .map_err(|error| untouched(error.into()))?;
            let done = rewind(options, progress, &mut clock, &target, source, &plan);
            let done =
                done.map_err(|error| Failure { error: Box::new(error), target: TargetState::Unfinished })?;
            Ok(Outcome::Rewound(done))
        }
    }
}

/// What reading both sides came to.
enum Survey<'a> {
    /// The target can follow as it is.
    Follows(Version, Outcome),
    Planned(Box<Planned<'a>>),
}

/// Everything that is known before the first write.
pub(crate) struct Planned<'a> {
    pub(crate) clusters: Clusters,
    pub(crate) source_history: TimelineHistory,
    pub(crate) wal: TargetWal<'a>,
    pub(crate) divergence: Divergence,
    /// Where replay will start.
    pub(crate) checkpoint: CommonCheckpoint,
    pub(crate) checkpoint_search: (Timestamp, Timestamp),
    pub(crate) source_files: Inventory,
    pub(crate) target_files: Inventory,
    pub(crate) plan: RewindPlan,
    pub(crate) scanned: (u64, u64),
}

impl Planned<'_> {
    pub(crate) fn report(&self, clock: &Clock) -> Report {
        let mut report = clock.report();
        report.divergence = Some(self.divergence);
        report.checkpoint = Some(self.checkpoint);
        report.checkpoint_search = Some(self.checkpoint_search);
        report.plan = Some(self.plan.summary(&self.source_files, self.clusters.target.block_size()));
        (report.wal_bytes_scanned, report.wal_records_scanned) = self.scanned;
        report
    }
}

/// Changes the target: copy, then seal.
fn rewind(
    options: &Options,
    progress: &dyn Progress,
    clock: &mut Clock,
    target: &Target,
    source: &dyn Source,
    planned: &Planned<'_>,
) -> Result<Report, RewindError> {
    let summary = planned.plan.summary(&planned.source_files, planned.clusters.target.block_size());
    let life = source_life(options);
    tracing::info!("copying {} kB from the source", summary.fetch_bytes().div_ceil(1024));
    progress.begin(Stage::Copy, Some(summary.fetch_bytes()));
    crate::copy::create_entries(&planned.plan, target)?;
    let early = seal::copy_complete_segments(planned, source, target, progress)?;
    let mut bytes = early.bytes;
    bytes += crate::copy::copy_data(
        &planned.plan,
        planned.clusters.target.block_size(),
        source,
        life,
        target,
        progress,
    )?;
    clock.end_stage("copy");
    let sealed = seal::seal(options, progress, clock, target, source, planned, &early)?;
    let mut report = planned.report(clock);
    report.bytes_fetched = bytes + sealed.bytes;
    report.replay = Some(sealed.replay);
    Ok(report)
}

pub(crate) fn source_life(options: &Options) -> SourceLife {
    match options.source {
        SourceChoice::Server(_) => SourceLife::Running,
        SourceChoice::Directory(_) => SourceLife::Stopped,
    }
}

pub(crate) fn write_recovery_conf(
    options: &Options,
    target: &Target,
    version: Version,
) -> Result<(), RewindError> {
    if let (RecoveryConf::Write, SourceChoice::Server(conninfo)) = (options.recovery_conf, &options.source) {
        recovery_conf::write(target, version, conninfo)?;
    }
    Ok(())
}

fn open_source(options: &Options, target: &Target) -> Result<Box<dyn Source>, RewindError> {
    match &options.source {
        SourceChoice::Server(conninfo) => {
            Ok(Box::new(ServerSource::connect(conninfo, options.jobs.unwrap_or(DEFAULT_CONNECTIONS))?))
        }
        SourceChoice::Directory(path) => {
            if path.canonicalize().is_ok_and(|path| path == target.root()) {
                return Err(PreflightError::SameDirectory { path: path.clone() }.into());
            }
            Ok(Box::new(DirectorySource::open(path)?))
        }
    }
}

/// Reads both sides and decides what to do. Writes nothing, unless the caller asked for the target's own
/// server to be run.
fn survey<'a>(
    options: &'a Options,
    progress: &dyn Progress,
    clock: &mut Clock,
    target: &Target,
    label: Option<BackupLabel>,
    source: &'a dyn Source,
) -> Result<Survey<'a>, RewindError> {
    let mut clusters =
        Clusters { source: source.control_file()?, target: preflight::target_control(target.root())?, label };
    preflight::check_clusters(source, &clusters)?;
    let archive = archive(options, target, &clusters.target)?;
    let source_history = source_history(source, &clusters.source)?;
    if let Some(outcome) = already_rewound(&clusters, &source_history, clock) {
        return Ok(Survey::Follows(clusters.target.version(), outcome));
    }
    finish_crash_recovery(options, target, &mut clusters)?;
    clock.end_stage("preflight");

    let searched_since = Timestamp::now();
    let control = &clusters.target;
    let unknown = TimelineHistory::of_first(control.timeline());
    let directories = &options.missing_wal.directories;
    let mut wal = TargetWal::new(target.root(), unknown, control.geometry(), directories, archive, source);
    let history = target_history(&wal, control)?;
    let presumed = divergence::from_histories(&source_history, &history)?;
    wal.set_history(history);

    let (found, source_files, target_files) = std::thread::scope(|scope| {
        let source_files = scope.spawn(|| source.list());
        let wal_dir = control.version().wal_dir();
        let target_files = scope.spawn(|| walk_data_directory(target.root(), wal_dir));
        progress.begin(Stage::Scan, None);
        let sides = Sides { clusters: &clusters, source, source_history: &source_history, progress };
        let found = find_divergence(&sides, &mut wal, presumed.1);
        progress.finish(Stage::Scan);
        (found, join(source_files), join(target_files))
    });
    let checkpoint_search = (searched_since, Timestamp::now());
    clock.end_stage("scan");
    let found = found?;
    let same_timeline = clusters.source.timeline() == clusters.target.timeline();
    if found.scan.diverged.is_none() && same_timeline {
        tracing::info!("source and target cluster are on the same timeline");
    } else {
        let Divergence { lsn, timeline } = found.divergence;
        tracing::info!("servers diverged at WAL location {lsn} on timeline {timeline}");
    }
    let scanned = (found.scan.bytes, found.scan.records);
    let Some(diverged) = found.scan.diverged else {
        tracing::info!("no rewind required");
        let mut report = clock.report();
        report.divergence = (!same_timeline).then_some(found.divergence);
        (report.wal_bytes_scanned, report.wal_records_scanned) = scanned;
        return Ok(Survey::Follows(clusters.target.version(), Outcome::NotNeeded(report)));
    };
    let checkpoint = CommonCheckpoint {
        lsn: diverged.checkpoint_lsn,
        redo: diverged.checkpoint.redo,
        timeline: diverged.checkpoint.timeline,
    };
    announce_checkpoint(&checkpoint, checkpoint_search);
    let source_files = source_files?;
    let target_files = target_files.map_err(RewindError::Walk)?;
    let checkpoint = replay_start(checkpoint, &clusters.source);
    let mut planned = Planned {
        source_history,
        wal,
        divergence: found.divergence,
        checkpoint,
        checkpoint_search,
        source_files,
        target_files,
        plan: RewindPlan::default(),
        scanned,
        clusters,
    };
    planned.plan = make_plan(&planned, source, &diverged.page_map)?;
    check_tablespaces(&planned.plan)?;
    clock.end_stage("plan");
    Ok(Survey::Planned(Box::new(planned)))
}

fn announce_checkpoint(checkpoint: &CommonCheckpoint, (since, until): (Timestamp, Timestamp)) {
    let CommonCheckpoint { lsn, timeline, .. } = checkpoint;
    tracing::info!("rewinding from last common checkpoint at {lsn} on timeline {timeline}");
    let local = |time: Timestamp| {
        time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.6f %Z").to_string()
    };
    let seconds = until.duration_since(since).as_secs_f64();
    tracing::info!(
        "find last common checkpoint start time from {} to {}, in \"{seconds:.6}\" seconds.",
        local(since),
        local(until)
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

/// An earlier run has finished here, no server has been started since, and the source still goes on from
/// where that run ended.
fn already_rewound(clusters: &Clusters, source_history: &TimelineHistory, clock: &Clock) -> Option<Outcome> {
    let control = &clusters.target;
    let by_rewind = matches!(clusters.label, Some(BackupLabel::Start { by_rewind: true, .. }));
    let end = control.min_recovery_point();
    let last_byte = Lsn(end.0.saturating_sub(1));
    let is_on_history = source_history.timeline_at(last_byte) == control.min_recovery_point_timeline();
    if !by_rewind || control.state() != ClusterState::InArchiveRecovery || !is_on_history {
        return None;
    }
    tracing::info!("an earlier run has rewound the target to {end}, and no server has been started since");
    tracing::info!("no rewind required");
    Some(Outcome::AlreadyRewound(clock.report()))
}

/// Lets the target's own server bring it to a clean stop, if the caller asked for that.
fn finish_crash_recovery(
    options: &Options,
    target: &Target,
    clusters: &mut Clusters,
) -> Result<(), RewindError> {
    let state = clusters.target.state();
    if state.is_clean() {
        return Ok(());
    }
    let Some(recovery) = &options.crash_recovery else {
        tracing::info!("target was not shut down cleanly (\"{state}\"): its WAL is read to the real end");
        return Ok(());
    };
    if options.mode == Mode::DryRun {
        tracing::info!("dry run: the target's server would be run to complete crash recovery");
        return Ok(());
    }
    recovery.recover(target.root(), &clusters.target)?;
    clusters.target = preflight::target_control(target.root())?;
    clusters.label = preflight::check_target(target.root())?;
    Ok(())
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

/// Both sides, as far as the search for the divergence needs them.
struct Sides<'a> {
    clusters: &'a Clusters,
    source: &'a dyn Source,
    source_history: &'a TimelineHistory,
    progress: &'a dyn Progress,
}

/// Where the histories part, and the target's WAL beyond that.
struct Found {
    divergence: Divergence,
    scan: Scan,
}

/// Finds the true fork, and scans the target's WAL with it. `presumed` is what the histories say; `None`
/// if both end on the same timeline.
fn find_divergence(
    sides: &Sides<'_>,
    wal: &mut TargetWal<'_>,
    presumed: Option<Lsn>,
) -> Result<Found, RewindError> {
    let control = &sides.clusters.target;
    let geometry = control.geometry();
    // Until more is known, segments below the checkpoint's may be asked of the source.
    wal.set_limits(presumed.unwrap_or(control.checkpoint_lsn()), control.checkpoint_lsn().advance(1));
    let required_end = required_end(wal, control)?;
    wal.set_limits(presumed.unwrap_or(control.checkpoint_lsn()), required_end);
    let scan_to = |wal: &TargetWal<'_>, fork: Lsn| {
        let request = ScanRequest {
            geometry,
            fork,
            newest_checkpoint: sides.clusters.newest_target_checkpoint(),
            required_end,
            end: match control.state() {
                ClusterState::ShutDown => EndOfWal::Known,
                ClusterState::ShutDownInRecovery => EndOfWal::Open,
                _ if sides.clusters.label.is_some() => EndOfWal::Open,
                _ => EndOfWal::Crashed,
            },
        };
        scan(wal, &request, &|bytes| sides.progress.advance(Stage::Scan, bytes))
            .map_err(|error| scan_error(error, wal))
    };
    let source_wal = SourceWal { source: sides.source, history: sides.source_history, geometry };
    let first = scan_to(wal, presumed.unwrap_or(Lsn(u64::MAX)))?;
    let source = &sides.clusters.source;
    let (common_end, comparable) = match presumed {
        Some(fork) => (fork, fork),
        None => divergence::source_end(sides.source, source, sides.source_history, first.end)?,
    };
    let limit = first.end.min(comparable);
    let mut divergence = divergence::confirm(wal, &source_wal, limit)?;
    if divergence.lsn < limit {
        tracing::info!("source and target wrote different WAL from {} on", divergence.lsn);
    } else if first.end <= common_end {
        divergence.lsn = common_end;
        return Ok(Found { divergence, scan: Scan { diverged: None, ..first } });
    } else {
        // The target wrote on where the source left its history, or where that ends.
        divergence.lsn = match presumed {
            Some(fork) => fork,
            None => {
                let segment = geometry.segment_size.segment_before(common_end);
                divergence::record_boundary(wal, segment, common_end, &geometry)?
            }
        };
    }
    if presumed == Some(divergence.lsn) {
        return Ok(Found { divergence, scan: first });
    }
    wal.set_limits(divergence.lsn, required_end);
    let scan = scan_to(wal, divergence.lsn)?;
    Ok(Found { divergence, scan })
}

/// How far the target's WAL must be there: the end of its last checkpoint, or its minRecoveryPoint.
fn required_end(wal: &TargetWal<'_>, control: &ControlFile) -> Result<Lsn, RewindError> {
    let lsn = control.checkpoint_lsn();
    let mut reader = WalReader::new(wal, control.geometry(), lsn);
    let end = match reader.read().map_err(|error| RewindError::Scan(error.into()))? {
        Ok(record) if walparse::rmgr::is_checkpoint(&record.header) => {
            return Ok(record.end.max(control.min_recovery_point()));
        }
        Ok(record) => (record.lsn, WalFault::Fragment("not the checkpoint record the control file names")),
        Err(end) => (end.fault_at, end.fault),
    };
    let needed = lsn.advance(1);
    let error = if end.1 == WalFault::NoSegment {
        let segment = control.geometry().segment_size.segment_of(end.0);
        ScanError::Missing { segment, file: wal.describe(segment), needed, all: vec![segment] }
    } else {
        ScanError::BreaksOff { position: lsn, needed, fault: end.1 }
    };
    Err(scan_error(error, wal))
}

/// Missing WAL has words of its own.
fn scan_error(error: ScanError, wal: &TargetWal<'_>) -> RewindError {
    match error {
        ScanError::Missing { file, needed, all, .. } => {
            let name = |segment: &SegmentNo| {
                let path = PathBuf::from(wal.describe(*segment));
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            };
            RewindError::MissingWal {
                file,
                all: all.iter().map(name).collect(),
                needed,
                places: wal.places(),
            }
        }
        other => RewindError::Scan(other),
    }
}

/// Decides about every path.
fn make_plan(
    planned: &Planned<'_>,
    source: &dyn Source,
    page_map: &PageMap,
) -> Result<RewindPlan, RewindError> {
    let available = available_wal(source, &planned.clusters.source, &planned.source_history)?;
    let wal = plan_wal(planned, &planned.source_history, source, available)?;
    missing_for_replay(planned, &wal.elsewhere)?;
    for name in &wal.keep {
        tracing::debug!(
            "Not removing file \"{}/{name}\" because it is required for recovery",
            planned.clusters.target.version().wal_dir()
        );
    }
    let control = &planned.clusters.target;
    Ok(plan::plan(PlanInput {
        source: &planned.source_files,
        target: &planned.target_files,
        page_map,
        version: control.version(),
        block_size: control.block_size(),
        blocks_per_segment: control.relation_segment_blocks(),
        wal,
    })?)
}

/// Decides about the WAL directory, with what the source has in its own now.
pub(crate) fn plan_wal(
    planned: &Planned<'_>,
    source_history: &TimelineHistory,
    source: &dyn Source,
    available: Lsn,
) -> Result<wal_plan::WalPlan, RewindError> {
    let files = source.list_wal()?;
    Ok(wal_plan::plan(&WalPlanInput {
        geometry: planned.clusters.target.geometry(),
        source_history,
        source: &files,
        target: &planned.target_files,
        redo: planned.checkpoint.redo,
        fork: planned.divergence.lsn,
        available,
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

/// The result of a thread; one that panicked makes this one panic, too.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl From<walparse::WalReadError> for RewindError {
    fn from(error: walparse::WalReadError) -> RewindError {
        RewindError::Divergence(DivergenceError::Read(error))
    }
}
