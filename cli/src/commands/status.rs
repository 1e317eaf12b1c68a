//! `kbrecover status`: what state a data directory is in.

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
    /// Data directory to look at; a server may run on it
    #[arg(short = 'D', long, value_name = "DIR", overrides_with = "target_data")]
    #[arg(visible_alias = "target-pgdata", visible_alias = "target-kingbase-data")]
    pub(crate) target_data: Option<PathBuf>,

    /// What to print: lines, or one object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

const STATUS_HELP: &str = "\
Only reads and takes no lock.

Exit status, by the state of the directory:
  0  clean
  1  could not be told: no data directory, or one of its files cannot be read
  2  a rewind has not finished: no server starts, run it again
  3  a server runs on it
  4  kbrecover works on it
  5  rewound, and no server has been started since
  6  not stopped in order: the next start begins with recovery
  7  a base backup that no server has been started on";

/// Runs the command. The exit status says the state.
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

/// Promised to scripts: documented in the help and the README.
fn exit_status(status: &Status) -> u8 {
    match status.condition {
        Condition::Clean => 0,
        // 1 is for what cannot be told. 2 means the same as at the end of a rewind.
        Condition::Unfinished => 2,
        Condition::ServerRuns => 3,
        Condition::KbrecoverRuns => 4,
        Condition::Rewound => 5,
        Condition::NeedsRecovery => 6,
        Condition::BaseBackup => 7,
    }
}
