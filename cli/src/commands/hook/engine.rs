//! The engine as the flows call it: with the node's own password, and messages into the flow's log.

use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use kbrecover_hooks::recovery_log::RecoveryLog;
use kbrecover_hooks::{RewindFailed, RewindJob, RewindPlan, RewindResult, Rewinder};
use kbrecover_rewind::{
    Mode, Options, Outcome, RestoreCommand, SameTimeline, Silent, SourceChoice, TargetState,
};

use crate::commands::rewind::adopt_owner_of;
use crate::failure::{Failed, SetupError};
use crate::faults;
use crate::logging::{self, Verbosity};
use crate::persona::{IN_A_LOG, Narrator};
use crate::report;
use crate::screen::Screen;

/// Has the messages of this process written into the log of a flow, in sys_rewind's words.
pub(super) fn log_messages(log: &Arc<RecoveryLog>) {
    let screen = Screen::to_as(IN_A_LOG, LogFile(Arc::clone(log)));
    let narrator = Narrator { narration: IN_A_LOG.narration, progress: false };
    logging::init(Arc::new(screen), Verbosity::Normal, narrator);
}

/// The log as something to write to: whole lines come at once.
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

/// Rewinds in this process.
pub(crate) struct Engine;

impl Rewinder for Engine {
    fn plan(&self, job: &RewindJob) -> Result<RewindPlan, RewindFailed> {
        let outcome = run(job, Mode::DryRun).map_err(told)?;
        Ok(match (&outcome, outcome.report().divergence) {
            (Outcome::Planned(_), Some(fork)) => RewindPlan::Needed { fork: fork.lsn.to_string() },
            (Outcome::Planned(_), None) => RewindPlan::Needed { fork: "an unknown position".to_owned() },
            _ => RewindPlan::NotNeeded,
        })
    }

    fn rewind(&self, job: &RewindJob) -> Result<RewindResult, RewindFailed> {
        let outcome = run(job, Mode::Rewind).map_err(told)?;
        for line in report::closing_lines(&outcome, IN_A_LOG.narration, &TimeZone::system()) {
            tracing::info!("{line}");
        }
        Ok(match outcome {
            Outcome::Rewound(_) | Outcome::AlreadyRewound(_) => RewindResult::Rewound,
            _ => RewindResult::NotNeeded,
        })
    }
}

fn told(failed: Failed) -> RewindFailed {
    RewindFailed {
        is_unfinished: failed.target == TargetState::Unfinished,
        message: failed.message,
        hint: failed.hint,
    }
}

fn run(job: &RewindJob, mode: Mode) -> Result<Outcome, Failed> {
    let conninfo = job.source.conninfo().map_err(SetupError::from)?;
    adopt_owner_of(&job.data)?;
    let mut options = Options::new(job.data.clone(), SourceChoice::Server(Box::new(conninfo)));
    options.mode = mode;
    if job.always {
        options.same_timeline = SameTimeline::Resync;
    }
    options.observer = faults::from_environment();
    options.missing_wal.restore_command = restore_command(&job.data);
    Ok(kbrecover_rewind::run(&options, &Silent)?)
}

/// The node's archive is asked for missing WAL if it has one.
fn restore_command(data: &Path) -> RestoreCommand {
    let Ok(flavor) = kbrecover_rewind::flavor_of_directory(data, None) else { return RestoreCommand::Off };
    let configuration = kbrecover_rewind::config::Configuration::read(data, flavor.names(), None);
    match configuration.as_ref().map(kbrecover_rewind::config::Configuration::restore_command) {
        Ok(Ok(_)) => RestoreCommand::FromTarget,
        _ => RestoreCommand::Off,
    }
}
