//! `kbrecover status`: the state of a data directory; with `--wait` also how far the replay of its server has come.

mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use kbrecover_rewind::{Condition, Status, WaitEnd};

use crate::failure::{Failed, SetupError};
use crate::output;
use crate::report;
use crate::screen::{self, Screen};
use crate::values::Format;

/// The options of `kbrecover status`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = STATUS_HELP)]
pub(crate) struct StatusArgs {
    /// Data directory to examine; its server may be running
    #[arg(short = 'D', long, value_name = "DIR", overrides_with = "target_data")]
    #[arg(visible_alias = "target-pgdata", visible_alias = "target-kingbase-data")]
    pub(crate) target_data: Option<PathBuf>,

    /// Wait until the standby that runs on the directory streams, and show how far replay has come; for at most SECONDS, or
    /// without limit. 0 looks once
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, overrides_with = "wait")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    pub(crate) wait: Option<Option<u64>>,

    /// With --wait, how to log in to that server, as a libpq connection string or the name of a database (default: its own
    /// socket and port, database postgres)
    #[arg(short = 'd', long, value_name = "CONNSTR", requires = "wait", overrides_with = "dbname")]
    pub(crate) dbname: Option<String>,

    /// Output format: text, or one JSON object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

const STATUS_HELP: &str = "\
Only reads the directory, without locking it.

With --wait: a standby streams when its WAL receiver does, replay is past the minimum recovery point, and replay has \
reached the end that the source's WAL had when streaming began. Positions are read in a session if the server admits one, \
and otherwise from the titles of its processes: then they are known to the WAL segment only, and the end of the source's \
WAL is not known. Unlike pg_ctl, --wait has no limit of 60 seconds: replay may take hours. Progress is shown on standard \
error.";

/// Runs the command. The exit status tells the state.
pub(crate) fn run(args: &StatusArgs) -> ExitCode {
    match look(args) {
        Ok((text, exit_status)) => output::print(&text, ExitCode::from(exit_status)),
        Err(failed) => {
            if args.format == Format::Json {
                screen::to_stdout(&report::status::json_of_failure(&failed));
            }
            failed.show(&Screen::stderr())
        }
    }
}

/// What is printed, and the exit status.
fn look(args: &StatusArgs) -> Result<(String, u8), Failed> {
    let directory =
        args.target_data.as_deref().ok_or(SetupError::NoDirectory { command: "kbrecover status" })?;
    if let Some(limit) = args.wait {
        return wait(args, directory, limit);
    }
    let status = kbrecover_rewind::status(directory);
    let status = status.map_err(|error| Failed::untouched(&error, error.hint()))?;
    let text = match args.format {
        Format::Text => report::status::text(&status),
        Format::Json => report::status::json(&status),
    };
    Ok((text, exit_status(&status)))
}

fn wait(args: &StatusArgs, directory: &Path, limit: Option<u64>) -> Result<(String, u8), Failed> {
    let waited = wait::until_streaming(directory, limit, args.dbname.as_deref())?;
    let text = match args.format {
        Format::Text => report::status::text_of_wait(&waited),
        Format::Json => report::status::json_of_wait(&waited),
    };
    Ok((text, exit_status_of_wait(waited.end)))
}

/// The exit status of each state. Scripts rely on it: it is documented in `--help` and `docs/reference/status.md`.
fn exit_status(status: &Status) -> u8 {
    match status.condition {
        Condition::Clean => 0,
        // 1 is left to errors. 2 has the meaning that it has as the exit status of a rewind.
        Condition::Unfinished => 2,
        Condition::ServerRuns => 3,
        Condition::KbrecoverRuns => 4,
        Condition::Rewound => 5,
        Condition::NeedsRecovery => 6,
        Condition::BaseBackup => 7,
        _ => 1,
    }
}

/// The exit status of each end of a wait. None of them but 0 is that of a state.
fn exit_status_of_wait(end: WaitEnd) -> u8 {
    match end {
        WaitEnd::Streams => 0,
        WaitEnd::TimedOut => 8,
        WaitEnd::NoServer => 9,
        WaitEnd::NotStandby => 10,
        _ => 1,
    }
}
