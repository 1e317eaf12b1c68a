//! Standard error and standard output. Write errors are ignored: a reader that goes away does not stop a run.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use indicatif::MultiProgress;

use crate::persona::{KBRECOVER, Narration, Persona, Stream};

/// Prints messages line by line, and progress bars below them.
pub(crate) struct Screen {
    out: Mutex<Box<dyn Write + Send>>,
    bars: Option<MultiProgress>,
    persona: &'static Persona,
    is_terminal: bool,
}

impl Screen {
    /// The screen of a program of this name.
    pub(crate) fn of(persona: &'static Persona) -> Screen {
        let (out, is_terminal): (Box<dyn Write + Send>, _) = match persona.stream {
            Stream::Stdout => (Box::new(io::stdout()), io::stdout().is_terminal()),
            Stream::Stderr => (Box::new(io::stderr()), io::stderr().is_terminal()),
        };
        let bars = (is_terminal && persona.narration == Narration::Kbrecover).then(MultiProgress::new);
        Screen { out: Mutex::new(out), bars, persona, is_terminal }
    }

    /// Standard error, under our own name.
    pub(crate) fn stderr() -> Screen {
        Screen::of(KBRECOVER)
    }

    /// The name and the message format in use.
    pub(crate) fn persona(&self) -> &'static Persona {
        self.persona
    }

    /// The progress bars, if the output is a terminal.
    pub(crate) fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Prints a line without a prefix.
    pub(crate) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Prints a line that the next one overwrites on a terminal.
    pub(crate) fn passing_line(&self, text: &str) {
        self.write(&format!("{text}{}", if self.is_terminal { '\r' } else { '\n' }));
    }

    fn write(&self, text: &str) {
        let write = || {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            // In one write, so that output of other processes is not mixed into it.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Prints a message.
    pub(crate) fn message(&self, kind: Kind, text: &str) {
        let persona = self.persona;
        let (before, after) = if kind == Kind::Error { persona.error_frame } else { ("", "") };
        self.line(&format!("{before}{}{}{text}{after}", persona.prefix, kind.label(persona)));
    }

    /// Reports a usage error, with a hint at the command's `--help`.
    pub(crate) fn usage_error(&self, message: &str, command: &str) -> ExitCode {
        self.message(Kind::Error, message);
        self.message(Kind::Hint, &try_help(command));
        ExitCode::FAILURE
    }

    #[cfg(test)]
    pub(crate) fn to(out: impl Write + Send + 'static) -> Screen {
        Screen::to_as(KBRECOVER, out)
    }

    /// A screen that writes to `out`, which is not a terminal.
    pub(crate) fn to_as(persona: &'static Persona, out: impl Write + Send + 'static) -> Screen {
        Screen { out: Mutex::new(Box::new(out)), bars: None, persona, is_terminal: false }
    }
}

/// The hint of every usage error.
pub(crate) fn try_help(command: &str) -> String {
    format!("Try \"{command} --help\" for more information.")
}

/// The kind of a message, with the labels of the server's programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// No label.
    Info,
    /// A problem that does not stop the run.
    Warning,
    /// The reason why the run failed.
    Error,
    /// More about the error.
    Detail,
    /// What to do about the error.
    Hint,
}

impl Kind {
    fn label(self, persona: &Persona) -> &'static str {
        match self {
            Kind::Info => "",
            Kind::Warning => "warning: ",
            Kind::Error => persona.error,
            Kind::Detail => "detail: ",
            Kind::Hint => "hint: ",
        }
    }
}

/// Writes a result to standard output, ignoring write errors.
pub(crate) fn to_stdout(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Collects output for tests.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Lines(std::sync::Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_prefixes_of_the_server_programs() {
        let lines = Lines::default();
        let screen = Screen::to(lines.clone());
        screen.message(Kind::Info, "Done!");
        screen.message(Kind::Warning, "odd");
        screen.usage_error("wrong", "kbrecover rewind");
        screen.line("bare");
        assert_eq!(
            lines.text(),
            "kbrecover: Done!\nkbrecover: warning: odd\nkbrecover: error: wrong\n\
             kbrecover: hint: Try \"kbrecover rewind --help\" for more information.\nbare\n"
        );
    }

    #[test]
    fn write_errors_are_ignored() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        Screen::to(Closed).message(Kind::Error, "unheard");
    }
}
