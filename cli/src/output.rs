//! Results on standard output.

use std::io;
use std::process::ExitCode;

use crate::failure::{Failed, chain};
use crate::screen::{Kind, Screen, write_result};

/// A result could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write to standard output")]
struct OutputError(#[source] io::Error);

/// Prints the result of a command that changes nothing. The exit status is the one given, or 1 if the result could not be
/// written.
pub(crate) fn print(text: &str, status: ExitCode) -> ExitCode {
    write(text).map_or_else(|failed| failed.show(&Screen::stderr()), |()| status)
}

/// Writes the result of a command that changes nothing.
pub(crate) fn write(text: &str) -> Result<(), Failed> {
    write_result(text).map_err(|source| Failed::untouched(&OutputError(source), None))
}

/// Prints the report on what has been done. If it cannot be written, that is only told: the work is done.
pub(crate) fn print_report(screen: &Screen, text: &str) {
    if let Err(source) = write_result(text) {
        screen.message(Kind::Warning, &chain(&OutputError(source)));
    }
}
