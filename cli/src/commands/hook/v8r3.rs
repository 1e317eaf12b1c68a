//! `kbrecover hook v8r3`: the options, log and exit status of the V8R3 flow, and its cron entry.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use kbrecover_hooks::cron::{CronFile, CronState};
use kbrecover_hooks::flow::{FlowReport, Run, StepState};
use kbrecover_hooks::guard::{Guard, GuardError};
use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
use kbrecover_hooks::v8r3::{HaModule, Request, Trigger, recover};
use kbrecover_rewind::command;

use super::engine::{Engine, log_messages};
use super::report;
use crate::failure::chain;
use crate::faults;
use crate::owner::refuse_root;
use crate::screen::{self, Kind, Screen};
use crate::signals;
use crate::values::Format;

/// The exit status of a failed run, as in the vendor's scripts.
const FAILED: u8 = 66;

/// The exit status of `status` if the cron entry is not installed or not enabled.
const NO: u8 = 3;

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
    action: Option<CronAction>,
}

/// Actions on the cron entry.
#[derive(Subcommand)]
enum CronAction {
    /// Install a cron entry that runs this every minute, and disable that of network_rewind.sh
    Install(CronArgs),
    /// Disable the cron entry: this node is no longer recovered
    Disable(CronArgs),
    /// Re-enable the cron entry
    Enable(CronArgs),
    /// Show whether the cron entry is installed and enabled (exit status 0: yes, 3: no)
    Status(CronArgs),
}

#[derive(Args)]
struct CronArgs {
    /// Cron file
    #[arg(long, value_name = "FILE", default_value = "/etc/cron.d/KINGBASECRON")]
    cron_file: PathBuf,

    /// User that owns the data directory
    #[arg(long, value_name = "NAME", default_value = "kingbase")]
    user: String,
}

/// Runs the command.
pub(super) fn run(args: &V8r3Args) -> ExitCode {
    let screen = Screen::stderr();
    let Some(config) = &args.config_file else {
        return screen.usage_error("no configuration file specified (-f)", None, "kbrecover hook v8r3");
    };
    match &args.action {
        Some(action) => cron(&screen, action, config, args.format),
        None => flow(&screen, args, config),
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

fn cron(screen: &Screen, action: &CronAction, config: &Path, format: Format) -> ExitCode {
    let (CronAction::Install(args)
    | CronAction::Disable(args)
    | CronAction::Enable(args)
    | CronAction::Status(args)) = action;
    let changed = change_cron(action, args, config);
    if format == Format::Json {
        let object = match &changed {
            Ok(Changed { state, text }) => serde_json::json!({
                "cron_file": args.cron_file.display().to_string(),
                "state": state.name(),
                "text": text.trim_end(),
            }),
            Err(message) => serde_json::json!({ "error": message }),
        };
        screen::to_stdout(&(object.to_string() + "\n"));
    }
    match changed {
        Ok(Changed { state, text }) => {
            if format == Format::Text {
                screen::to_stdout(&text);
            }
            let is_no = matches!(action, CronAction::Status(_)) && state != CronState::Enabled;
            if is_no { ExitCode::from(NO) } else { ExitCode::SUCCESS }
        }
        Err(message) => {
            screen.message(Kind::Error, &message);
            ExitCode::FAILURE
        }
    }
}

/// What an action on the cron entry has done: the state of the entry after it, and one line.
struct Changed {
    state: CronState,
    text: String,
}

/// Checks for what would make every run under cron fail.
fn check_before_install(user: &str, config: &Path, program: &Path) -> Result<(), String> {
    let data = HaModule::read(config).map_err(|error| chain(&error))?.data;
    for path in [program, config].map(|path| path.display().to_string()) {
        if path.contains(char::is_whitespace) || path.contains('%') {
            return Err(format!("cron cannot call \"{path}\": the path must not contain a space or \"%\""));
        }
    }
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

/// The ID of a user; `None` if the user does not exist.
fn user_id(user: &str) -> Option<u32> {
    let found =
        command::run_quietly(Command::new("id").args(["-u", "--", user]), Some(Duration::from_secs(30)));
    found.ok().filter(|found| found.status.success())?.output.trim().parse().ok()
}

fn change_cron(action: &CronAction, args: &CronArgs, config: &Path) -> Result<Changed, String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("could not determine the path of this program: {error}"))?;
    let config = config
        .canonicalize()
        .map_err(|error| format!("could not open configuration file \"{}\": {error}", config.display()))?;
    if let CronAction::Install(args) = action {
        check_before_install(&args.user, &config, &program)?;
    }
    let written = |option: &str| format!("{} hook v8r3 {option} {}", program.display(), config.display());
    let cron = CronFile::new(&args.cron_file, &args.user, written("-f"));
    let cron = cron.replacing("network_rewind.sh").written_earlier_as(written("--config"));
    let file = args.cron_file.display();
    let text = |error: kbrecover_hooks::cron::CronError| chain(&error);
    let before = cron.state().map_err(text)?;
    let said = match action {
        CronAction::Install(_) => match cron.install().map_err(text)? {
            true => format!("installed in {file}; the entry of network_rewind.sh has been disabled\n"),
            false => format!("installed in {file}\n"),
        },
        CronAction::Disable(_) => match cron.disable().map_err(text)? {
            true => format!("disabled in {file}: this node is no longer recovered\n"),
            false => format!("{} in {file}, nothing to disable\n", before.name()),
        },
        CronAction::Enable(_) => match cron.enable().map_err(text)? {
            true => format!("enabled in {file}\n"),
            false => format!("{} in {file}, nothing to enable\n", before.name()),
        },
        CronAction::Status(_) => format!("{} in {file}\n", before.name()),
    };
    Ok(Changed { state: cron.state().map_err(text)?, text: said })
}
