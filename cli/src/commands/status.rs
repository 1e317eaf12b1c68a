//! `kbrecover status`: the state of a data directory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use kbrecover_rewind::{Condition, Status};

use crate::failure::{Failed, SetupError};
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

    /// Output format: text, or one JSON object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

const STATUS_HELP: &str = "\
Only reads the directory, without locking it.

Exit status, by the state of the directory:
  0  cleanly shut down
  1  unknown: not a data directory, or a file that is needed cannot be read
  2  a rewind has not finished: no server starts, run the rewind again
  3  a server is running
  4  kbrecover is running
  5  rewound, and not started since
  6  not shut down cleanly: the next start performs recovery
  7  a base backup that has not been started yet";

/// Runs the command. The exit status tells the state.
pub(crate) fn run(args: &StatusArgs) -> ExitCode {
    let looked = data_directory(args).map_err(Failed::from).and_then(|directory| {
        kbrecover_rewind::status(&directory).map_err(|error| Failed::untouched(&error, error.hint()))
    });
    match looked {
        Ok(status) => {
            screen::to_stdout(&match args.format {
                Format::Text => report::status::text(&status),
                Format::Json => report::status::json(&status),
            });
            ExitCode::from(exit_status(&status))
        }
        Err(failed) => {
            if args.format == Format::Json {
                screen::to_stdout(&report::status::json_of_failure(&failed));
            }
            failed.show(&Screen::stderr())
        }
    }
}

fn data_directory(args: &StatusArgs) -> Result<PathBuf, SetupError> {
    args.target_data.clone().ok_or(SetupError::NoDirectory)
}

/// The exit status of each state. Scripts rely on it: it is documented in `--help` and the README.
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
