//! What several commands have in common: options about what is shown, the source, missing WAL.

use std::path::{Path, PathBuf};

use clap::Args;
use kbrecover_rewind::conninfo::{Conninfo, ProcessEnvironment};
use kbrecover_rewind::{MissingWal, RestoreCommand, SourceChoice};

use crate::failure::SetupError;
use crate::logging::Verbosity;
use crate::persona::Narrator;
use crate::progress;
use crate::screen::Screen;

/// Options about what is shown of a run.
#[derive(Args)]
pub(crate) struct ShownArgs {
    /// Show progress even if the output is not a terminal
    #[arg(short = 'P', long, overrides_with_all = ["progress", "no_progress"], help_heading = "Output")]
    pub(crate) progress: bool,

    /// Show no progress, not even on a terminal
    #[arg(long, overrides_with_all = ["no_progress", "progress"], help_heading = "Output")]
    no_progress: bool,

    /// Show debugging messages
    #[arg(long, overrides_with = "debug", help_heading = "Output")]
    pub(crate) debug: bool,
}

impl ShownArgs {
    pub(crate) fn verbosity(&self) -> Verbosity {
        if self.debug { Verbosity::Debug } else { Verbosity::Normal }
    }

    /// Who tells what a run does. `is_in_the_way` says that the output leaves no room for progress.
    pub(crate) fn narrator(&self, screen: &Screen, is_in_the_way: bool) -> Narrator {
        let progress = progress::is_shown(screen, self.progress, self.no_progress || is_in_the_way);
        Narrator { narration: screen.persona().narration, progress }
    }
}

/// The source that the options of `command` name.
///
/// # Errors
/// They name none or two, or the connection string is not valid.
pub(crate) fn source(
    directory: Option<&Path>,
    server: Option<&str>,
    environment: &ProcessEnvironment,
    command: &'static str,
) -> Result<SourceChoice, SetupError> {
    match (directory, server) {
        (Some(_), Some(_)) => Err(SetupError::TwoSources { command }),
        (None, None) => Err(SetupError::NoSource { command }),
        (Some(directory), None) => Ok(SourceChoice::Directory(directory.to_owned())),
        (None, Some(text)) => Ok(SourceChoice::Server(Box::new(Conninfo::parse(text, environment)?))),
    }
}

/// Where missing WAL of the target is searched.
pub(crate) fn missing_wal(
    directories: &[PathBuf],
    restore_command: Option<&str>,
    uses_that_of_the_target: bool,
) -> MissingWal {
    let restore_command = match restore_command {
        Some(command) => RestoreCommand::Given(command.to_owned()),
        None if uses_that_of_the_target => RestoreCommand::FromTarget,
        None => RestoreCommand::Off,
    };
    MissingWal::new(directories.to_vec(), restore_command)
}
