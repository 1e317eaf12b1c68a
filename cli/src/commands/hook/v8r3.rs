//! `kbrecover hook v8r3`: the options, log and exit status of the V8R3 flow, and its cron entry.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use kbrecover_hooks::flow::{FlowReport, Run, StepState};
use kbrecover_hooks::guard::{Guard, GuardError};
use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
use kbrecover_hooks::v8r3::{HaModule, Request, Trigger, node_state, recover};

use super::cron::{CronAction, CronEntry, change, user_id};
use super::engine::{Engine, log_messages};
use super::report;
use super::v8r3_pool::{self as pool, PoolArgs};
use crate::failure::chain;
use crate::faults;
use crate::owner::refuse_root;
use crate::screen::{self, Kind, Screen};
use crate::signals;
use crate::values::Format;

/// The exit status of a failed run, as in the vendor's scripts.
const FAILED: u8 = 66;

/// The options of `kbrecover hook v8r3`.
#[derive(Args)]
pub(super) struct V8r3Args {
    /// HAmodule.conf of this node
    #[arg(short = 'f', long, value_name = "FILE", global = true, alias = "config")]
    config_file: Option<PathBuf>,

    /// Recover the node even if it was the primary, and without delay after failures
    #[arg(long)]
    force: bool,

    /// Show what each step would do, without doing it
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Format of standard output
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,

    /// Directory of the lock and of the state kept between runs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    run_dir: PathBuf,

    #[command(subcommand)]
    action: Option<Action>,
}

/// What is done instead of a run.
#[derive(Subcommand)]
enum Action {
    #[command(flatten)]
    Cron(CronAction),
    /// Start the pool of this node if it is gone; replaces root's restartcluster.sh
    Pool(PoolArgs),
    /// Show what another node asks for before it starts a cluster whose servers are all down
    State,
}

/// Runs the command.
pub(super) fn run(args: &V8r3Args) -> ExitCode {
    let screen = Screen::stderr();
    let Some(config) = &args.config_file else {
        return screen.usage_error("no configuration file specified (-f)", None, "kbrecover hook v8r3");
    };
    match &args.action {
        Some(Action::Cron(action)) => change(&screen, action, &entry(config), args.format),
        Some(Action::State) => state(&screen, config, args.format),
        Some(Action::Pool(of_pool)) => pool::run(&screen, of_pool, config, &args.run_dir, args.format),
        None => flow(&screen, args, config),
    }
}

/// The state of this node's data directory.
fn state(screen: &Screen, config: &Path, format: Format) -> ExitCode {
    let read = HaModule::read(config).map_err(|error| chain(&error));
    match read.and_then(|config| node_state(&config).map_err(|error| error.message)) {
        Ok(state) => {
            screen::to_stdout(&match format {
                // Serializing plain strings and numbers cannot fail.
                Format::Json => serde_json::to_string(&state).unwrap_or_default() + "\n",
                Format::Text => format!(
                    "running {}, standby {}, unfinished rewind {}, timeline {}, position {}\n",
                    state.running, state.standby, state.unfinished, state.timeline, state.position
                ),
            });
            ExitCode::SUCCESS
        }
        Err(message) => {
            screen.message(Kind::Error, &message);
            ExitCode::FAILURE
        }
    }
}

fn flow(screen: &Screen, args: &V8r3Args, config: &Path) -> ExitCode {
    let failed = |message: &str| {
        screen.message(Kind::Error, message);
        ExitCode::from(FAILED)
    };
    // Before root creates a file that the next run could not write.
    if let Err(error) = refuse_root() {
        return failed(&error.to_string());
    }
    let config = match HaModule::read(config) {
        Ok(config) => config,
        Err(error) => return failed(&chain(&error)),
    };
    // Cron has no terminal.
    let by_hand = args.force || args.dry_run || std::io::stdout().is_terminal();
    let echo = if by_hand { Echo::On } else { Echo::Off };
    let log = match RecoveryLog::open(Some(&config.log), echo) {
        Ok(log) => Arc::new(log),
        Err(error) => {
            return failed(&format!("could not open log file \"{}\": {error}", config.log.display()));
        }
    };
    log_messages(&log);
    if let Err(error) = signals::end_with_children(&log) {
        return failed(&format!("could not set up signal handlers: {error}"));
    }
    let unguarded = |error: &GuardError| {
        // Under cron only the log is read.
        log.line(&format!("ERROR: {}", chain(error)));
        log.release();
        failed(&chain(error))
    };
    let guard = match Guard::take(&args.run_dir.join("kb.lock"), &args.run_dir.join("KB_RECOVERY_FLAG")) {
        Ok(guard) => guard,
        Err(error @ GuardError::Taken { .. }) => {
            log.line(&format!("Another process is on, exit this time: {error}"));
            log.release();
            // Cron starts the next run in a minute. A person must see that nothing was done.
            return if by_hand { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
        Err(error) => return unguarded(&error),
    };
    if by_hand {
        log.release();
    }
    let mut request = Request::new(&config, &Engine, &log);
    request.trigger = if args.force { Trigger::Manual } else { Trigger::Cron };
    request.run = if args.dry_run { Run::Dry } else { Run::Real };
    request.run_dir = &args.run_dir;
    let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    request.program = &program;
    request.interrupted = guard.interrupted().is_some();
    request.watch = &faults::at_step;
    let report = match guarded(&request, guard) {
        Ok(report) => report,
        Err(error) => return unguarded(&error),
    };
    let out = match args.format {
        Format::Json => report::json(&report),
        Format::Text if args.dry_run => report::text(&report),
        Format::Text => String::new(),
    };
    screen::to_stdout(&out);
    status(&report)
}

/// Runs the flow, and records when it begins and finishes. A failed run is not recorded as finished: the next
/// run continues it.
fn guarded(request: &Request<'_>, guard: Guard) -> Result<FlowReport, GuardError> {
    if request.run == Run::Dry {
        return Ok(recover(request));
    }
    guard.begin()?;
    let report = recover(request);
    if report.end() != StepState::Failed {
        guard.finish()?;
    }
    Ok(report)
}

fn status(report: &FlowReport) -> ExitCode {
    match report.end() {
        StepState::Failed => ExitCode::from(FAILED),
        StepState::Refused => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

/// The entry of cron that runs the flow.
fn entry(config: &Path) -> CronEntry<'_> {
    CronEntry {
        config,
        subcommand: "",
        replaces: "network_rewind.sh",
        user: "kingbase".to_owned(),
        disabled: "this node is no longer recovered",
        check: &check_before_install,
    }
}

/// Checks for what would make every run under cron fail.
fn check_before_install(user: &str, config: &Path) -> Result<(), String> {
    let data = HaModule::read(config).map_err(|error| chain(&error))?.data;
    let owner =
        fs::metadata(&data).map_err(|error| format!("could not open \"{}\": {error}", data.display()))?;
    if user_id(user) != Some(owner.uid()) {
        let data = data.display();
        return Err(format!(
            "user \"{user}\" does not own data directory \"{data}\": specify its owner with --user"
        ));
    }
    Ok(())
}
