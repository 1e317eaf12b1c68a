//! The entry of cron that runs a check each minute: installing, disabling, enabling and showing it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Subcommand};
use kbrecover_hooks::cron::{CronError, CronFile, CronState};
use kbrecover_rewind::command;

use crate::failure::chain;
use crate::screen::{self, Kind, Screen};
use crate::values::Format;

/// The exit status of `status` if the entry is not installed or not enabled.
const NO: u8 = 3;

/// Actions on the cron entry.
#[derive(Subcommand)]
pub(super) enum CronAction {
    /// Install a cron entry that runs this every minute, and disable that of the vendor's script
    Install(CronArgs),
    /// Disable the cron entry: nothing is recovered any more
    Disable(CronArgs),
    /// Re-enable the cron entry
    Enable(CronArgs),
    /// Show whether the cron entry is installed and enabled (exit status 0: yes, 3: no)
    Status(CronArgs),
}

#[derive(Args)]
pub(super) struct CronArgs {
    /// Cron file
    #[arg(long, value_name = "FILE", default_value = "/etc/cron.d/KINGBASECRON")]
    cron_file: PathBuf,

    /// User that cron runs it as [default: kingbase; for the pool KB_POOL_EXECUTE_SYS_USER, or root]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// What an entry is about.
pub(super) struct CronEntry<'a> {
    /// The configuration file.
    pub(super) config: &'a Path,
    /// What follows the configuration file in the command.
    pub(super) subcommand: &'static str,
    /// The script whose entry is disabled.
    pub(super) replaces: &'static str,
    /// The user that cron runs it as, if none is given.
    pub(super) user: String,
    /// What it means that the entry is disabled.
    pub(super) disabled: &'static str,
    /// Checks, for a user and the configuration file, what would make every run under cron fail.
    pub(super) check: &'a dyn Fn(&str, &Path) -> Result<(), String>,
}

/// What an action has done: the state of the entry after it, and one line.
struct Changed {
    state: CronState,
    text: String,
}

/// Carries out an action on the entry.
pub(super) fn change(
    screen: &Screen,
    action: &CronAction,
    entry: &CronEntry<'_>,
    format: Format,
) -> ExitCode {
    let (CronAction::Install(args)
    | CronAction::Disable(args)
    | CronAction::Enable(args)
    | CronAction::Status(args)) = action;
    let changed = changed(action, args, entry);
    if format == Format::Json {
        let object = match &changed {
            Ok(Changed { state, text }) => serde_json::json!({
                "cron_file": args.cron_file.display().to_string(),
                "state": state.name(),
                "text": text,
            }),
            Err(message) => serde_json::json!({ "error": message }),
        };
        screen::to_stdout(&(object.to_string() + "\n"));
    }
    match changed {
        Ok(Changed { state, text }) => {
            if format == Format::Text {
                screen::to_stdout(&(text + "\n"));
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

fn changed(action: &CronAction, args: &CronArgs, entry: &CronEntry<'_>) -> Result<Changed, String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("could not determine the path of this program: {error}"))?;
    let config = entry.config;
    let config = config
        .canonicalize()
        .map_err(|error| format!("could not open configuration file \"{}\": {error}", config.display()))?;
    let user = args.user.as_deref().unwrap_or(&entry.user);
    if let CronAction::Install(_) = action {
        for path in [&program, &config].map(|path| path.display().to_string()) {
            if path.contains(char::is_whitespace) || path.contains('%') {
                return Err(format!(
                    "cron cannot call \"{path}\": the path must not contain a space or \"%\""
                ));
            }
        }
        (entry.check)(user, &config)?;
    }
    let CronEntry { subcommand, replaces, disabled, .. } = entry;
    let written =
        |option: &str| format!("{} hook v8r3 {option} {}{subcommand}", program.display(), config.display());
    let cron = CronFile::new(&args.cron_file, user, written("-f"));
    let cron = cron.replacing(replaces).written_earlier_as(written("--config"));
    let file = args.cron_file.display();
    let failed = |error: CronError| chain(&error);
    let before = cron.state().map_err(failed)?;
    let text = match action {
        CronAction::Install(_) => match cron.install().map_err(failed)? {
            true => format!("installed in {file}; the entry of {replaces} has been disabled"),
            false => format!("installed in {file}"),
        },
        CronAction::Disable(_) => match cron.disable().map_err(failed)? {
            true => format!("disabled in {file}: {disabled}"),
            false => format!("{} in {file}, nothing to disable", before.name()),
        },
        CronAction::Enable(_) => match cron.enable().map_err(failed)? {
            true => format!("enabled in {file}"),
            false => format!("{} in {file}, nothing to enable", before.name()),
        },
        CronAction::Status(_) => format!("{} in {file}", before.name()),
    };
    Ok(Changed { state: cron.state().map_err(failed)?, text })
}

/// The ID of a user; `None` if the user does not exist.
pub(super) fn user_id(user: &str) -> Option<u32> {
    let found =
        command::run_quietly(Command::new("id").args(["-u", "--", user]), Some(Duration::from_secs(30)));
    found.ok().filter(|found| found.status.success())?.output.trim().parse().ok()
}
