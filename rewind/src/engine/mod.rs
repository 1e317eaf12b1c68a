//! The run: every stage in its order.
//!
//! [`survey`](crate::survey) reads everything and decides everything; the target is untouched until it
//! has succeeded. [`rewind`] then changes the target in one marked stretch.

mod precheck;
mod space;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use walparse::Flavor;

use crate::apply::archive_ready::{self, ArchiveCommand, ArchiveReadyError};
use crate::apply::copy::{Transfer, copy_data, create_entries};
use crate::apply::rate_limit::Pace;
use crate::apply::recovery_conf;
use crate::apply::save_diverged::Keeping;
use crate::apply::seal;
use crate::apply::startup_warnings;
use crate::apply::wal::{Copying, copy_during};
use crate::clock::Clock;
use crate::datadir::flavor;
use crate::datadir::label::{self, BackupLabel};
use crate::engine::precheck::rehearse;
use crate::error::{Failure, RewindError, TargetState};
use crate::milestone;
use crate::options::{KeepDiverged, Mode, Options, SourceChoice};
use crate::outcome::{Outcome, Report};
use crate::plan::{Planned, plan_wal_for_replay};
use crate::progress::{Progress, Stage};
use crate::source::{DirectorySource, ObservedSource, ServerSource, Source};
use crate::survey::preflight::{self, PreflightError};
use crate::survey::{Survey, survey};
use crate::target::Target;
use crate::target::journal::{Journal, NewJournal};

/// Rewinds the target, or says that there is no need, or (in a dry run) what would be done. A rewind that
/// an earlier run left unfinished is finished.
///
/// # Errors
/// [`Failure::target`] says whether the target is as it was.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Outcome, Failure> {
    let outcome = match options.jobs {
        None => run_stages(options, progress),
        Some(jobs) => match rayon::ThreadPoolBuilder::new().num_threads(jobs.get()).build() {
            Ok(pool) => pool.install(|| run_stages(options, progress)),
            Err(error) => {
                tracing::warn!("could not start {jobs} threads, using the usual number: {error}");
                run_stages(options, progress)
            }
        },
    };
    outcome.map_err(|failure| {
        if !options.stop.is_requested() {
            return failure;
        }
        tracing::debug!("the run ended with: {}", failure.error);
        Failure { error: Box::new(RewindError::Stopped), target: failure.target }
    })
}

/// Whether the directory holds a rewind that has not finished: no server starts on it.
pub fn is_unfinished(target: &Path) -> bool {
    matches!(preflight::label(target), Ok(Some(BackupLabel::Unfinished)))
}

fn run_stages(options: &Options, progress: &dyn Progress) -> Result<Outcome, Failure> {
    let failed = |target: TargetState| move |error: RewindError| Failure { error: Box::new(error), target };
    // Whoever else is at work there may have got half-way.
    let found = state_of(&options.target);
    let so_far = failed(found);
    let mut clock = Clock::start();
    let target = Target::lock(&options.target).map_err(|error| so_far(error.into()))?;
    let flavor = find_flavor(options, &target).map_err(|error| so_far(error.into()))?;
    let target = target.controlled_by(flavor.names(), &options.stop, options.observer.clone());
    let label = preflight::check_target(target.root(), flavor.names(), &options.stop)
        .map_err(|error| so_far(error.into()))?;
    preflight::check_wal_directories(&options.missing_wal.directories)
        .map_err(|error| so_far(error.into()))?;
    let is_unfinished = label == Some(BackupLabel::Unfinished);

    let source = open_source(options, &target, flavor).map_err(so_far)?;
    let source = source.as_ref();
    if let Some(directory) = source.data_directory() {
        tracing::debug!(milestone = milestone::SOURCE_DIRECTORY, "datadir_source = {directory}");
    }
    match survey(options, progress, &mut clock, (&target, flavor), label, source).map_err(so_far)? {
        Survey::Follows(version, outcome) => {
            if options.mode == Mode::Rewind {
                // Left behind by an interruption just after the commit.
                Journal::remove(&target)
                    .and_then(|()| target.sync(&|| {}))
                    .map_err(|error| so_far(error.into()))?;
                recovery_conf::write_if_asked(options, &target, version)
                    .map_err(|error| so_far(error.into()))?;
            }
            Ok(*outcome)
        }
        Survey::Planned(planned) if options.mode == Mode::DryRun => {
            archive_ready::announce(options, &planned);
            planned.outside.announce();
            Ok(Outcome::Planned(planned.report(&clock)))
        }
        Survey::Planned(mut planned) => {
            options.stop.check().map_err(|_| so_far(RewindError::Stopped))?;
            archive_ready::announce(options, &planned);
            let archive = ArchiveCommand::if_asked(options, target.root(), planned.clusters.target.version())
                .map_err(|error| so_far(error.into()))?;
            let keeping = Keeping::prepare(options, &target, &planned, source.name())
                .map_err(|error| so_far(error.into()))?;
            let kept = keeping.as_ref().map(Keeping::choice);
            let journal = journal(source, &planned, kept.as_ref());
            let space =
                rehearse(options, &target, source, &planned, &journal, keeping.as_ref()).map_err(so_far)?;
            clock.end_stage("rehearsal");
            if options.mode == Mode::Check {
                return Ok(Outcome::Checked(Report { space, ..planned.report(&clock) }));
            }
            if let Some(archive) = archive {
                archive.archive_all(&target, &mut planned, &options.stop).map_err(|error| match error {
                    ArchiveReadyError::Stopped => so_far(RewindError::Stopped),
                    other => so_far(other.into()),
                })?;
                // Time has passed, and a running source recycles WAL.
                planned.plan.wal = plan_wal_for_replay(&planned, source).map_err(so_far)?;
            }
            if let Some(keeping) = keeping {
                keeping.copy(&target).map_err(|error| so_far(error.into()))?;
                clock.end_stage("keep");
            }
            let journal = self::journal(source, &planned, kept.as_ref());
            if !is_unfinished && let Err(error) = mark(&target, &planned, &journal) {
                // The mark may be there although making it durable failed.
                let state = state_of(target.root());
                if state == TargetState::Untouched {
                    options.stop.clean_up();
                    // One that stays does no harm: only with the mark it is looked at.
                    let _ = Journal::remove(&target);
                }
                return Err(failed(state)(error));
            }
            let report = rewind(options, progress, &mut clock, &target, source, &planned);
            if report.is_ok() {
                startup_warnings::warn(options, target.root(), &planned.clusters.source);
            }
            report.map(|report| Outcome::Rewound(Report { space, ..report })).map_err(|error| {
                // Whatever else went wrong: a server here is the first thing to see to.
                let running = preflight::check_not_running(target.root(), flavor.names()).err();
                failed(TargetState::Unfinished)(running.map_or(error, RewindError::from))
            })
        }
    }
}

fn state_of(target: &Path) -> TargetState {
    if is_unfinished(target) { TargetState::Unfinished } else { TargetState::Untouched }
}

/// What a second run must know.
fn journal<'a>(
    source: &dyn Source,
    planned: &'a Planned<'_>,
    keep_diverged: Option<&'a KeepDiverged>,
) -> NewJournal<'a> {
    NewJournal {
        source: source.name(),
        control: &planned.clusters.target,
        history: planned.wal.history().to_text(),
        divergence: planned.divergence,
        checkpoint: planned.common_checkpoint,
        changed: &planned.changed,
        outside: &planned.outside,
        files: &planned.target_files,
        fetch_bytes: planned.fetch_bytes_again(),
        keep: planned.keep.patterns(),
        keep_diverged,
    }
}

/// The point of no return: the journal first, then the mark that says there is one.
fn mark(target: &Target, planned: &Planned<'_>, journal: &NewJournal<'_>) -> Result<(), RewindError> {
    journal.write(target)?;
    let label = std::fs::read(seal::label_path().below(target.root())).ok();
    // The survey may have taken long: nobody must have started a server meanwhile. One that starts after the
    // first look and before the mark is seen by the second.
    let flavor = planned.clusters.target.version().flavor();
    preflight::check_not_running(target.root(), flavor.names())?;
    if preflight::target_control(target.root(), flavor)? != planned.clusters.target {
        return Err(PreflightError::TargetChanged { path: target.root().to_owned() }.into());
    }
    target.replace_file(&seal::label_path(), label::mark().as_bytes())?;
    if let Err(error) = preflight::check_not_running(target.root(), flavor.names()) {
        match label {
            Some(label) => target.replace_file(&seal::label_path(), &label)?,
            None => {
                target.remove_file(&seal::label_path())?;
                // Before the journal: a mark without one could never be finished.
                target.sync(&|| {})?;
            }
        }
        Journal::remove(target)?;
        return Err(error.into());
    }
    Ok(())
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
    source.replayed_from(planned.checkpoint.redo);
    let transfer =
        Transfer { source, target, progress, pace: Pace::new(options.max_rate), sync: options.sync };
    let fetch_bytes = planned.fetch_bytes();
    tracing::info!(
        milestone = milestone::COPYING,
        "copying {} kB from the source",
        fetch_bytes.div_ceil(1024)
    );
    progress.begin(Stage::Copy, Some(fetch_bytes));
    create_entries(&planned.plan, target)?;
    preflight::check_not_running(target.root(), planned.clusters.target.version().names())?;
    let life = options.source.life();
    let (copied, early) = copy_during(Copying { planned, transfer: &transfer }, life, || {
        Ok(copy_data(&planned.plan, &planned.clusters.target, life, &transfer)?)
    })?;
    clock.end_stage("copy");
    let sealed = seal::seal(options, clock, &transfer, planned, &early)?;
    let mut report = planned.report(clock);
    report.bytes_fetched = planned.compared.bytes + early.bytes + copied + sealed.bytes;
    report.replay = Some(sealed.replay);
    Ok(report)
}

/// The target's flavor, and what its WAL says besides.
fn find_flavor(options: &Options, target: &Target) -> Result<Flavor, PreflightError> {
    let flavor = flavor::flavor_of_directory(target.root(), options.flavor.as_deref())?;
    if !flavor.is_fork() {
        return Ok(flavor);
    }
    let control = preflight::target_control(target.root(), flavor)?;
    Ok(flavor::look_at_wal(flavor, target.root(), &control))
}

/// Connections to use unless told otherwise: as many as there are processors. The second nearly doubles the
/// rate, and more than four were never seen to gain anything.
fn default_connections() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    NonZeroUsize::new(processors.clamp(2, 4)).unwrap_or(NonZeroUsize::MIN)
}

fn open_source(options: &Options, target: &Target, flavor: Flavor) -> Result<Box<dyn Source>, RewindError> {
    let source = open_chosen_source(options, target, flavor)?;
    Ok(match &options.observer {
        Some(observer) => Box::new(ObservedSource { source, observer: Arc::clone(observer) }),
        None => source,
    })
}

fn open_chosen_source(
    options: &Options,
    target: &Target,
    flavor: Flavor,
) -> Result<Box<dyn Source>, RewindError> {
    match &options.source {
        SourceChoice::Server(conninfo) => {
            let connections = options.jobs.unwrap_or_else(default_connections);
            let expected = (flavor, options.flavor.as_deref());
            let (retry, stop) = (options.retry_timeout, options.stop.clone());
            Ok(Box::new(ServerSource::connect(conninfo, connections, retry, stop, expected)?))
        }
        SourceChoice::Directory(path) => {
            if path.canonicalize().is_ok_and(|path| path == target.root()) {
                return Err(PreflightError::SameDirectory { path: path.clone() }.into());
            }
            if is_unfinished(path) {
                return Err(PreflightError::SourceUnfinished { path: path.clone() }.into());
            }
            Ok(Box::new(DirectorySource::open(path, options.flavor.as_deref())?))
        }
    }
}

#[cfg(test)]
mod tests;
