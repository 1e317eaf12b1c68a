//! `kbrecover completions` and `kbrecover man`: files that a package installs beside the program.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failed;
use crate::manual;
use crate::output;
use crate::screen::Screen;

/// The options of `kbrecover completions`.
#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct CompletionsArgs {
    /// Shell to print the script for
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// The options of `kbrecover man`.
#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct ManArgs {
    /// Write a page for each command to this directory, instead of one page to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the completion script of a shell.
pub(crate) fn completions(args: &CompletionsArgs, mut command: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "kbrecover", &mut script);
    output::print(&String::from_utf8_lossy(&script), ExitCode::SUCCESS)
}

/// Prints the manual page of the program, or writes the pages of all commands.
pub(crate) fn man(args: &ManArgs, command: clap::Command) -> ExitCode {
    let Some(directory) = &args.out else {
        return match manual::render(&command, "kbrecover") {
            Ok(page) => output::print(&String::from_utf8_lossy(&page), ExitCode::SUCCESS),
            Err(error) => failed(error.into()),
        };
    };
    match manual::render_all(command, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(source) => failed(PagesError { directory: directory.clone(), source }.into()),
    }
}

/// The manual pages could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write manual pages to \"{}\"", directory.display())]
struct PagesError {
    directory: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(error: Box<dyn std::error::Error>) -> ExitCode {
    Failed::untouched(&*error, None).show(&Screen::stderr())
}
