//! `kbrecover inspect`: shows what is in control files, WAL and timeline histories.
//!
//! Only reads, locks nothing, and works on the directory of a running server too. Results go to standard
//! output, all else to standard error.

mod args;
mod error;

mod control;
mod history;
mod pagemap;
mod wal;

mod record;
mod stats;

mod open;
mod walk;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

pub(crate) use args::InspectArgs;
use args::Subject;
use error::InspectError;

use crate::failure::Failed;
use crate::screen::{Kind, Screen};

/// Runs the command. The exit status is 0, or 1 if not everything that was asked for could be shown.
pub(crate) fn run(args: &InspectArgs) -> ExitCode {
    let screen = Screen::stderr();
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let shown = show(&args.what, args.flavor.as_deref(), &mut out);
    // What was found before an error is shown before it.
    let flushed = out.flush().map_err(InspectError::from);
    match shown.and_then(|noted| flushed.map(|()| noted)) {
        Ok(note) => {
            if let Some(note) = note {
                let kind = if matches!(args.what, Subject::Control(_)) { Kind::Warning } else { Kind::Info };
                screen.message(kind, &note);
            }
            ExitCode::SUCCESS
        }
        // Whoever read the output has seen enough.
        Err(InspectError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => Failed::from(error).show(&screen),
    }
}

/// Shows the result; returns what is to be said after it.
fn show(subject: &Subject, key: open::Key<'_>, out: &mut dyn Write) -> Result<Option<String>, InspectError> {
    match subject {
        Subject::Control(args) => control::show(args, key, out),
        Subject::Wal(args) => wal::show(args, key, out),
        Subject::Pagemap(args) => pagemap::show(args, key, out).map(|()| None),
        Subject::History(args) => history::show(args, key, out).map(|()| None),
    }
}
