//! `kbrecover status`: what state a data directory is in.

use std::path::PathBuf;
use std::process::ExitCode;

use kbrecover_rewind::{Condition, Status};

use crate::args::{Format, StatusArgs};
use crate::failure::{Failed, SetupError};
use crate::report;
use crate::screen::{self, Screen};

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
        _ => 1,
    }
}
