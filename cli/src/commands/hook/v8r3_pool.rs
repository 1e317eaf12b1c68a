//! `kbrecover hook v8r3 pool`: the check of the pool's own process, and its cron entry.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use kbrecover_hooks::flow::{Run, StepState};
use kbrecover_hooks::pid_file::{PidFile, PidFileError};
use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
use kbrecover_hooks::v8r3::{PoolModule, PoolRequest, watch_pool};

use super::cron::{CronAction, CronEntry, change, user_id};
use super::engine::log_messages;
use super::report;
use crate::failure::chain;
use crate::faults;
use crate::screen::{self, Kind, Screen};
use crate::signals;
use crate::values::Format;

/// The options of `kbrecover hook v8r3 pool`.
#[derive(Args)]
pub(super) struct PoolArgs {
    /// Show what each step would do, without doing it
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(subcommand)]
    action: Option<CronAction>,
}

/// Runs the command.
pub(super) fn run(
    screen: &Screen,
    args: &PoolArgs,
    config: &Path,
    run_dir: &Path,
    format: Format,
) -> ExitCode {
    let module = match PoolModule::read(config) {
        Ok(module) => module,
        Err(error) => return failed(screen, &chain(&error)),
    };
    match &args.action {
        Some(action) => change(screen, action, &entry(config, &module), format),
        None => check(screen, args, &module, run_dir, format),
    }
}

/// The entry of cron that runs the check.
fn entry<'a>(config: &'a Path, module: &PoolModule) -> CronEntry<'a> {
    CronEntry {
        config,
        subcommand: " pool",
        replaces: "restartcluster.sh",
        user: module.user.clone(),
        disabled: "a pool that is gone is no longer started",
        check: &|user, _| match user_id(user) {
            Some(_) => Ok(()),
            None => Err(format!("user \"{user}\" does not exist: specify the pool's user with --user")),
        },
    }
}

fn check(screen: &Screen, args: &PoolArgs, module: &PoolModule, run_dir: &Path, format: Format) -> ExitCode {
    let _lock = match PidFile::take(&run_dir.join("kb_pool.lock"), "a check of the pool") {
        Ok(lock) => lock,
        // Cron starts the next one in a minute.
        Err(error @ PidFileError::Taken { .. }) => {
            screen.message(Kind::Info, &chain(&error));
            return if args.dry_run { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
        Err(error) => return failed(screen, &chain(&error)),
    };
    let by_hand = args.dry_run || std::io::stdout().is_terminal();
    let log = match RecoveryLog::open(Some(&module.log), if by_hand { Echo::On } else { Echo::Off }) {
        Ok(log) => Arc::new(log),
        Err(error) => {
            let path = module.log.display();
            return failed(screen, &format!("could not open log file \"{path}\": {error}"));
        }
    };
    log_messages(&log);
    if let Err(error) = signals::end_with_children(&log) {
        return failed(screen, &format!("could not set up signal handlers: {error}"));
    }
    let mut request = PoolRequest::new(module, &log);
    request.run = if args.dry_run { Run::Dry } else { Run::Real };
    request.watch = &faults::at_step;
    let report = watch_pool(&request);
    screen::to_stdout(&match format {
        Format::Json => report::json(&report),
        Format::Text if args.dry_run => report::text(&report),
        Format::Text => String::new(),
    });
    match report.end() {
        StepState::Failed => ExitCode::from(FAILED),
        StepState::Refused => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// The exit status of a failed run, as of the flow.
const FAILED: u8 = 66;

fn failed(screen: &Screen, message: &str) -> ExitCode {
    screen.message(Kind::Error, message);
    ExitCode::from(FAILED)
}
