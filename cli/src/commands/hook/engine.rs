//! Runs the engine for the flows, with its messages in the flow's log.

use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use kbrecover_hooks::recovery_log::RecoveryLog;
use kbrecover_hooks::{RewindFailed, RewindJob, RewindPlan, RewindResult, Rewinder};
use kbrecover_rewind::{
    CompareData, Mode, OlderSource, Options, Outcome, PlanError, RestoreCommand, RewindError, SameTimeline,
    SourceChoice, TargetState,
};

use crate::failure::{Failed, SetupError};
use crate::faults;
use crate::logging::{self, Verbosity};
use crate::owner::adopt_owner_of;
use crate::persona::IN_A_LOG;
use crate::progress;
use crate::report;
use crate::screen::Screen;

/// Writes the messages of this process to the log of a flow, in sys_rewind's words.
pub(super) fn log_messages(log: &Arc<RecoveryLog>) {
    let screen = Screen::to_as(IN_A_LOG, LogFile(Arc::clone(log)));
    logging::init(Arc::new(screen), Verbosity::Normal);
}

/// A flow's log as a writer. Each write has to be a whole line.
struct LogFile(Arc<RecoveryLog>);

impl io::Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(String::from_utf8_lossy(bytes).trim_end_matches('\n'));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Rewinds within this process.
pub(crate) struct Engine;

impl Rewinder for Engine {
    fn plan(&self, job: &RewindJob) -> Result<RewindPlan, RewindFailed> {
        let outcome = run(job, Mode::DryRun).map_err(rewind_failed)?;
        let Outcome::Planned(report) = &outcome else { return Ok(RewindPlan::NotNeeded) };
        let fork =
            report.divergence.map_or_else(|| "an unknown position".to_owned(), |fork| fork.lsn.to_string());
        let lost = report.lost.as_ref();
        let mut lines = vec![report::lost_text(lost, &TimeZone::system())];
        lines.extend(report::lost_details(lost));
        Ok(RewindPlan::Needed { fork, lost: lines.join("\n") })
    }

    fn rewind(&self, job: &RewindJob) -> Result<RewindResult, RewindFailed> {
        let outcome = run(job, Mode::Rewind).map_err(rewind_failed)?;
        for line in report::closing_lines(&outcome, IN_A_LOG.narration, &TimeZone::system()) {
            tracing::info!("{line}");
        }
        Ok(match outcome {
            Outcome::Rewound(_) | Outcome::AlreadyRewound(_) => RewindResult::Rewound,
            _ => RewindResult::NotNeeded,
        })
    }
}

fn rewind_failed(failed: Failed) -> RewindFailed {
    let failure = match failed.target {
        TargetState::Unfinished => RewindFailed::unfinished(failed.message),
        _ => RewindFailed::unchanged(failed.message),
    };
    match failed.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn run(job: &RewindJob, mode: Mode) -> Result<Outcome, Failed> {
    let conninfo = job.source.conninfo().map_err(SetupError::from)?;
    adopt_owner_of(&job.data)?;
    let mut options = Options::new(job.data.clone(), SourceChoice::Server(Box::new(conninfo)));
    options.mode = mode;
    // The flows have rules of their own about which node is the primary, and a person may have chosen this one.
    options.older_source = OlderSource::Warn;
    if job.compares {
        options.compare_data = CompareData::Auto;
    }
    if job.always {
        options.same_timeline = SameTimeline::Resync;
    }
    options.keep_root = job.keep_root.clone();
    options.max_lost_transactions = job.max_lost;
    options.observer = faults::from_environment();
    options.missing_wal.restore_command = restore_command(&job.data);
    kbrecover_rewind::run(&options, &progress::events(IN_A_LOG.narration)).map_err(|failure| {
        let is_limit = matches!(*failure.error, RewindError::Plan(PlanError::TooManyLost { .. }));
        let failed = Failed::from(failure);
        match is_limit {
            true => Failed { hint: Some(ABOVE_THE_LIMIT.to_owned()), ..failed },
            false => failed,
        }
    })
}

/// What to do about more lost transactions than the configuration allows. The flows have no option for it.
const ABOVE_THE_LIMIT: &str = "Look at them with \"kbrecover lost\", and keep them with its option --export. Then raise \
    MAX_LOST_TRANSACTIONS in HAmodule.conf (recovery_max_lost_transactions in repmgr.conf), or remove it.";

/// Fetches missing WAL with the node's own `restore_command`, if it has one.
fn restore_command(data: &Path) -> RestoreCommand {
    let Ok(flavor) = kbrecover_rewind::flavor_of_directory(data, None) else { return RestoreCommand::Off };
    let configuration = kbrecover_rewind::config::Configuration::read(data, flavor.names(), None);
    match configuration.as_ref().map(kbrecover_rewind::config::Configuration::restore_command) {
        Ok(Ok(_)) => RestoreCommand::FromTarget,
        _ => RestoreCommand::Off,
    }
}
