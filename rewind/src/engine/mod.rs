//! The run: its stages in their order.
//!
//! [`survey`](crate::survey) reads both sides and [`plan`](crate::plan) decides; the target is untouched until both
//! have succeeded. [`apply`](crate::apply) then changes the target in one marked stretch.

pub(crate) mod compare;
pub(crate) mod entry;
mod given_up;
mod look_up;
mod limits;
pub(crate) mod lost;
mod open;
pub(crate) mod precheck;
pub(crate) mod restore;
mod space;

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;

use jiff::Timestamp;
use walparse::Version;

use crate::apply::archive_ready::{self, ArchiveCommand, ArchiveReadyError};
use crate::apply::error::ApplyError;
use crate::apply::mark::{journal, mark};
use crate::apply::save_diverged::{Saving, note_rewound};
use crate::apply::wal_kept::{self, Asked};
use crate::apply::{apply, keep_root, recovery_conf, startup_warnings};
use crate::causes::with_causes;
use crate::clock::Clock;
use crate::datadir::label::BackupLabel;
use crate::datadir::server;
use crate::datadir::starts_as::{StartsAs, starts_as};
use crate::error::{Failure, RewindError, TargetState};
use crate::options::{KeepDiverged, KeepRoot, Mode, Options, RecoveryConf, SyncChoice};
use crate::outcome::{Outcome, Report, Role, SpaceNeed};
use crate::plan::error::PlanError;
use crate::plan::{self, Facts, Planned, plan_wal_for_replay};
use crate::progress::{Event, Progress};
use crate::source::{Connected, Pace, Source};
use crate::survey::error::SurveyError;
use crate::survey::input::Input;
use crate::survey::{Survey, survey};
use crate::target::compared::ComparedSoFar;
use crate::target::copied::CopiedSoFar;
use crate::target::journal::Journal;
use crate::target::{Target, TargetError};
use crate::wal::temporary;

use limits::Jobs;
use open::OpenTarget;

pub use open::is_unfinished;

/// The run, on this thread, which must not be one that runs asynchronous tasks.
fn run_here(options: &Options, progress: &dyn Progress) -> Result<Outcome, Failure> {
    let outcome = with_jobs(options, |options| run_stages(options, progress));
    let refused = |error| Failure { error: Box::new(error), target: state_of(&options.target) };
    outcome.map_err(refused).flatten().map_err(|failure| {
        if !options.stop.is_requested() {
            return failure;
        }
        tracing::debug!("the stopped run ended with: {}", failure.error);
        Failure { error: Box::new(RewindError::Stopped), target: failure.target }
    })
}

/// Does `work` with as many threads as the options say, or as many as there may be.
///
/// # Errors
/// Too few threads can be started, or files opened.
fn with_jobs<T: Send>(options: &Options, work: impl FnOnce(&Options) -> T + Send) -> Result<T, RewindError> {
    let wanted = options.jobs.or(std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let connections = options.jobs.unwrap_or_else(open::default_connections);
    let Jobs { jobs, connections } = limits::jobs(options, Jobs { jobs: wanted, connections })?;
    if jobs < wanted {
        tracing::warn!(
            "the limits of threads and open files are low: {jobs} instead of {wanted} share the work"
        );
    }
    // The option is the number of connections from here on.
    let fewer = (jobs < wanted).then(|| Options { jobs: Some(connections), ..options.clone() });
    let options = fewer.as_ref().unwrap_or(options);
    let failed = |error| RewindError::Thread { source: io::Error::other(error) };
    if options.jobs.is_none() {
        match rayon::ThreadPoolBuilder::new().build_global() {
            // Without a cause: there is a pool already.
            Err(error) if std::error::Error::source(&error).is_some() => return Err(failed(error)),
            _ => return Ok(work(options)),
        }
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs.get()).build().map_err(failed)?;
    Ok(pool.install(|| work(options)))
}

fn run_stages(options: &Options, progress: &dyn Progress) -> Result<Outcome, Failure> {
    // Another run may already have marked the directory; report that even if locking fails.
    let state = state_of(&options.target);
    let failed = |error: RewindError| Failure { error: Box::new(error), target: state };
    let mut clock = Clock::start();
    let OpenTarget { target, flavor, label } =
        open::open_target(options, options.compare_data).map_err(failed)?;
    if options.mode == Mode::Rewind {
        temporary::remove_stale(target.root());
        // That of a run that was killed; this one has copied nothing yet. It is only for `status`.
        let _ = CopiedSoFar::remove(&target);
    }
    let source = open::open_source(options, &target, flavor).map_err(|error| failed(error.into()))?;
    let source = source.as_ref();
    if let Some(Connected { server, version, connections }) = source.connected() {
        progress.event(&Event::Connected { server, version, connections });
    }
    if let Some(directory) = source.data_directory() {
        progress.event(&Event::SourceDirectory { directory });
    }
    let pace = Pace::new(options.max_rate, &options.stop);
    let input = Input { options, progress, target: &target, flavor, label, source, pace: &pace };
    match survey(input, &mut clock).map_err(|error| failed(error.into()))? {
        Survey::Follows(version, mut outcome) => {
            if options.mode == Mode::Rewind {
                clean_up(options, &target, source, version).map_err(|error| failed(error.into()))?;
                outcome.report_mut().starts_as = starts_as(target.root(), version).ok();
                outcome.report_mut().version = Some(version);
            }
            Ok(*outcome)
        }
        Survey::Diverged(facts) => {
            let is_unfinished = label == Some(BackupLabel::Unfinished);
            let run = Run { options, progress, target: &target, source, state, is_unfinished };
            run.rewind(*facts, &mut clock)
        }
    }
}

fn state_of(target: &Path) -> TargetState {
    if is_unfinished(target) { TargetState::Unfinished } else { TargetState::Untouched }
}

/// Finishes a run that requires no rewind. Removes a journal left by a run that was interrupted right after its
/// commit, and writes the recovery configuration if that is requested.
fn clean_up(
    options: &Options,
    target: &Target,
    source: &dyn Source,
    version: Version,
) -> Result<(), ApplyError> {
    Journal::remove(target)?;
    ComparedSoFar::remove(target)?;
    target.sync(&|| {})?;
    Ok(recovery_conf::write_if_asked(options, target, source, version)?)
}

/// A run whose target has to be rewound.
struct Run<'a> {
    options: &'a Options,
    progress: &'a dyn Progress,
    target: &'a Target,
    source: &'a dyn Source,
    /// The target's state at the start.
    state: TargetState,
    /// Whether an earlier run left the target marked.
    is_unfinished: bool,
}

impl Run<'_> {
    /// Makes the plan, and carries it out as far as the mode says.
    fn rewind(&self, facts: Facts<'_>, clock: &mut Clock) -> Result<Outcome, Failure> {
        let Run { options, target, source, .. } = *self;
        let failed = |error: RewindError| Failure { error: Box::new(error), target: self.state };
        let planned = plan::make(facts, source, target.root(), options.rebuilt_blocks);
        let mut planned = planned.map_err(|error| failed(error.into()))?;
        if let Some(summary) = given_up::summary(options, &planned.facts, target.root())
            && let Some(lost) = &mut planned.facts.fork.lost
        {
            lost.summary = Some(Box::new(summary));
        }
        announce_plan(self.progress, &planned);
        check_lost(options, &planned.facts).map_err(|error| failed(error.into()))?;
        clock.end_stage("plan");
        archive_ready::announce(options, &planned);
        if options.mode == Mode::DryRun {
            planned.facts.external.announce();
            return Ok(Outcome::Planned(self.report(&planned, clock)));
        }
        let Ready { space, saved, kept_wal } = self.prepare(&mut planned, clock).map_err(failed)?;
        if options.mode == Mode::Check {
            return Ok(Outcome::Checked(Report { space, ..self.report(&planned, clock) }));
        }
        self.mark(&planned, saved.as_ref())?;
        match apply(options, self.progress, clock, target, source, &planned) {
            Ok(report) => {
                if let Some(saved) = &saved {
                    let verified = report.verified.as_ref().filter(|_| planned.facts.resumed.is_none());
                    self.note_rewound(saved, verified.map(|found| found.different + found.not_logged));
                }
                let control = &planned.facts.clusters.source;
                startup_warnings::warn(options, target.root(), control, source);
                let starts_as = starts_as(target.root(), control.version()).ok();
                let asked = Asked { source, kept: kept_wal };
                let replay = report.replay.as_ref();
                let wal_kept = replay
                    .and_then(|replay| wal_kept::wal_kept(options, target.root(), control, &asked, replay));
                let saved_in = saved.map(|saved| saved.directory);
                Ok(Outcome::Rewound(Report { space, starts_as, wal_kept, saved_in, ..report }))
            }
            Err(error) => {
                // A running server is reported first, whatever else failed: it must be stopped.
                let names = planned.facts.clusters.target.version().names();
                let running = server::check_not_running(target.root(), names).err();
                let error = running.map_or(error, ApplyError::from);
                Err(Failure { error: Box::new(error.into()), target: TargetState::Unfinished })
            }
        }
    }

    /// The report on a plan.
    fn report(&self, planned: &Planned<'_>, clock: &Clock) -> Report {
        Report { starts_as: self.will_start_as(&planned.facts), ..planned.report(clock) }
    }

    /// What a server started on the rewound target will be; `None` if that is not known.
    fn will_start_as(&self, facts: &Facts<'_>) -> Option<StartsAs> {
        if self.options.recovery_conf != RecoveryConf::Leave {
            return Some(StartsAs::Standby);
        }
        if self.options.keep.has_standard() {
            return starts_as(self.target.root(), facts.clusters.target.version()).ok();
        }
        // The files that tell it become the source's, and a primary has none.
        (facts.sides.source.role == Role::Primary).then_some(StartsAs::Primary)
    }

    /// Checks everything that can fail. Then, unless this run is only a check, archives WAL and saves discarded data
    /// if the options ask for it.
    fn prepare(&self, planned: &mut Planned<'_>, clock: &mut Clock) -> Result<Ready, RewindError> {
        let Run { options, target, source, .. } = *self;
        options.stop.check().map_err(|_| RewindError::Stopped)?;
        let version = planned.facts.clusters.target.version();
        let archive = ArchiveCommand::if_asked(options, target.root(), version).map_err(ApplyError::from)?;
        let saving = self.saving(planned)?;
        let mut saved = saving.as_ref().map(Saving::choice);
        let new_journal = journal(source, planned, saved.as_ref());
        let space = precheck::precheck(options, target, source, planned, &new_journal, saving.as_ref())?;
        let kept_wal = source.kept_wal().map_err(SurveyError::from)?;
        clock.end_stage("precheck");
        if options.mode == Mode::Check {
            return Ok(Ready { space, saved, kept_wal });
        }
        if let Some(archive) = archive {
            archive.archive_all(target, planned, &options.stop).map_err(|error| match error {
                ArchiveReadyError::Stopped => RewindError::Stopped,
                other => ApplyError::from(other).into(),
            })?;
            // A running source may have recycled WAL while the commands ran.
            planned.plan.wal = plan_wal_for_replay(&planned.facts, source).map_err(PlanError::from)?;
        }
        if let Some(saving) = saving {
            let directory = saving.choice().directory;
            match saving.copy(target) {
                Ok(()) => {
                    let has_room = || has_room(target.root(), planned, None);
                    given_up::export(options, &planned.facts, target.root(), &directory, &has_room);
                }
                Err(error) if self.saves_if_possible(planned) && !options.stop.is_requested() => {
                    tracing::warn!("{}: discarded data is not saved", with_causes(&error));
                    keep_root::discard(&directory, target.disk());
                    saved = None;
                }
                Err(error) => return Err(ApplyError::from(error).into()),
            }
            if let Some(root) = options.keep_root.as_ref().filter(|_| self.saves_if_possible(planned)) {
                self.retire(root, &directory);
            }
            clock.end_stage("save");
        }
        Ok(Ready { space, saved, kept_wal })
    }

    /// Whether discarded data is saved only if that is possible.
    fn saves_if_possible(&self, planned: &Planned<'_>) -> bool {
        planned.facts.resumed.is_none()
            && self.options.keep_diverged.is_none()
            && self.options.keep_root.is_some()
    }

    /// What is saved before the first change, if anything.
    fn saving(&self, planned: &Planned<'_>) -> Result<Option<Saving>, ApplyError> {
        let root = self.options.keep_root.as_ref().filter(|_| self.saves_if_possible(planned));
        let Some(root) = root else {
            return self.prepare_saving(planned, self.options.keep_diverged.as_ref());
        };
        if self.options.mode != Mode::Rewind && !root.directory.is_dir() {
            return Ok(None);
        }
        let saving = self.saving_below(root, planned);
        Ok(saving.map_err(|why| tracing::warn!("{why}: discarded data is not saved")).ok())
    }

    fn prepare_saving(
        &self,
        planned: &Planned<'_>,
        asked: Option<&KeepDiverged>,
    ) -> Result<Option<Saving>, ApplyError> {
        let Run { options, target, source, .. } = *self;
        Ok(Saving::prepare(options, asked, target, planned, source.name())?)
    }

    /// What is saved in a directory of its own below `root`.
    ///
    /// # Errors
    /// Why nothing can be saved there, for the log.
    fn saving_below(&self, root: &KeepRoot, planned: &Planned<'_>) -> Result<Saving, String> {
        let (target, shown) = (self.target, root.directory.display());
        keep_root::create(root, target.disk())
            .map_err(|error| format!("could not create directory \"{shown}\": {error}"))?;
        let directory = keep_root::directory(root, target.root(), Timestamp::now());
        let asked = KeepDiverged { directory, blocks: root.blocks, all: root.all };
        let saving = self.prepare_saving(planned, Some(&asked)).map_err(|error| with_causes(&error))?;
        let fits = saving.filter(|saving| has_room(target.root(), planned, Some((saving, root.room))));
        fits.ok_or_else(|| format!("there is not enough free space for it in \"{shown}\""))
    }

    /// Notes beside what was saved what has become of the target.
    fn note_rewound(&self, saved: &KeepDiverged, verified: Option<u64>) {
        if let Err(error) = note_rewound(&saved.directory, self.target, verified) {
            tracing::warn!("{}: kbrecover restore needs it", with_causes(&error));
        }
    }

    /// Removes what earlier rewinds have saved beside `current`, beyond the limits. That it remains is no reason not to rewind.
    fn retire(&self, root: &KeepRoot, current: &Path) {
        if let Err(error) = keep_root::retire(root, self.target.root(), current, self.target.disk()) {
            tracing::warn!(
                "could not remove what earlier rewinds have saved in \"{}\": {error}",
                root.directory.display()
            );
        }
    }

    /// Marks the target, unless an earlier run has done so. If this run copies more blocks than that one, the journal is
    /// written anew: the next run may have another source, and must copy them, too.
    fn mark(&self, planned: &Planned<'_>, saved: Option<&KeepDiverged>) -> Result<(), Failure> {
        let failed = |error: TargetError| Failure {
            error: Box::new(ApplyError::from(error).into()),
            target: self.state,
        };
        self.sync_compared(planned).map_err(failed)?;
        if self.is_unfinished {
            if planned.facts.resumed.as_ref().is_some_and(|resumed| resumed.needs_more) {
                journal(self.source, planned, saved).write(self.target).map_err(failed)?;
            }
            return Ok(());
        }
        mark(self.target, planned, &journal(self.source, planned, saved)).map_err(|error| {
            // The mark may have been written although making it durable failed.
            let state = state_of(self.target.root());
            if state == TargetState::Untouched {
                self.options.stop.clean_up();
                // A leftover journal is harmless: it is read only if backup_label carries our mark.
                let _ = Journal::remove(self.target);
            }
            Failure { error: Box::new(error.into()), target: state }
        })
    }
}

impl Run<'_> {
    /// If data was compared, makes durable what was equal: it may be so in memory only, and the next run takes it for what
    /// is on disk.
    fn sync_compared(&self, planned: &Planned<'_>) -> Result<(), TargetError> {
        if planned.facts.fork.compared.is_none() || self.options.sync == SyncChoice::Off {
            return Ok(());
        }
        self.target.sync_file_systems(planned.facts.clusters.target.version().names())
    }
}

/// What has been prepared before the target is marked.
struct Ready {
    /// Space needed on each file system.
    space: Vec<SpaceNeed>,
    /// Where discarded data is saved, if anywhere.
    saved: Option<KeepDiverged>,
    /// The bytes of WAL that the source keeps by a setting, if that is known.
    kept_wal: Option<u64>,
}

/// Whether there is room for what the rewind needs, and for this many times what is saved, with what is exported beside it.
fn has_room(root: &Path, planned: &Planned<'_>, saving: Option<(&Saving, NonZeroU64)>) -> bool {
    const MARGIN: u64 = 64 << 20;
    let saved = saving.map(|(saving, times)| {
        let (directory, bytes) = saving.need(planned);
        (directory, bytes.saturating_mul(times.get()).saturating_add(MARGIN))
    });
    let needs = space::needs(root, planned, 0, saved);
    needs.is_ok_and(|needs| space::shortages(&needs).is_empty())
}

/// Whether a rewind gives up no more transactions than are allowed. One that was begun is finished in any case.
fn check_lost(options: &Options, facts: &Facts<'_>) -> Result<(), PlanError> {
    let Some(most) = options.max_lost_transactions.filter(|_| facts.resumed.is_none()) else {
        return Ok(());
    };
    match &facts.fork.lost {
        Some(lost) if lost.committed <= most => Ok(()),
        Some(lost) => {
            let summary = lost.summary.as_ref().map(|summary| summary.short_text()).unwrap_or_default();
            summary.lines().for_each(|line| tracing::warn!("{line}"));
            Err(PlanError::TooManyLost { lost: lost.committed, most })
        }
        None => Err(PlanError::LostUnknown { most }),
    }
}

fn announce_plan(progress: &dyn Progress, planned: &Planned<'_>) {
    let facts = &planned.facts;
    let summary = planned.plan.summary(&facts.files.source, facts.clusters.target.block_size());
    let (fetch_bytes, total_bytes) = (summary.fetch_bytes(), summary.source_bytes);
    progress.event(&Event::Planned { fetch_bytes, total_bytes });
}

#[cfg(test)]
mod tests;
