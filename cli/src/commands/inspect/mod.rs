//! `kbrecover inspect`: shows the contents of control files, WAL and timeline histories.
//!
//! It only reads, takes no lock, and also works while a server runs on the directory. Results go to
//! standard output, messages to standard error.

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

/// Runs the command. The exit status is 1 if anything that was requested could not be shown.
pub(crate) fn run(args: &InspectArgs) -> ExitCode {
    let screen = Screen::stderr();
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let shown = show(&args.what, args.flavor.as_deref(), &mut out);
    // What was found before an error is printed before it.
    let flushed = out.flush().map_err(InspectError::from);
    match shown.and_then(|noted| flushed.map(|()| noted)) {
        Ok(note) => {
            if let Some(note) = note {
                let kind = if matches!(args.what, Subject::Control(_)) { Kind::Warning } else { Kind::Info };
                screen.message(kind, &note);
            }
            ExitCode::SUCCESS
        }
        // The reader, `head` for example, has closed the pipe on purpose.
        Err(InspectError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => Failed::from(error).show(&screen),
    }
}

/// Writes the result. Returns a message to show after it.
fn show(subject: &Subject, key: open::Key<'_>, out: &mut dyn Write) -> Result<Option<String>, InspectError> {
    match subject {
        Subject::Control(args) => control::show(args, key, out),
        Subject::Wal(args) => wal::show(args, key, out),
        Subject::Pagemap(args) => pagemap::show(args, key, out).map(|()| None),
        Subject::History(args) => history::show(args, key, out).map(|()| None),
    }
}
