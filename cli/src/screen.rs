//! The two outputs. Neither can stop a run: nobody may be reading any more.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use indicatif::MultiProgress;

use crate::persona::{KBRECOVER, Narration, Persona, Stream};

/// Where messages go: whole lines, and progress bars that stay out of their way.
pub(crate) struct Screen {
    out: Mutex<Box<dyn Write + Send>>,
    bars: Option<MultiProgress>,
    persona: &'static Persona,
    is_terminal: bool,
}

impl Screen {
    /// Where the program of this name writes.
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

    /// The name that is spoken under.
    pub(crate) fn persona(&self) -> &'static Persona {
        self.persona
    }

    /// Where bars may be drawn, if that is a terminal.
    pub(crate) fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Writes a line as it is.
    pub(crate) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Writes a line that, on a terminal, the next one is to take the place of.
    pub(crate) fn passing_line(&self, text: &str) {
        self.write(&format!("{text}{}", if self.is_terminal { '\r' } else { '\n' }));
    }

    fn write(&self, text: &str) {
        let write = || {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            // In one piece, so that lines of other processes do not get into it.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Writes a message.
    pub(crate) fn message(&self, kind: Kind, text: &str) {
        let persona = self.persona;
        let (before, after) = if kind == Kind::Error { persona.error_frame } else { ("", "") };
        self.line(&format!("{before}{}{}{text}{after}", persona.prefix, kind.word(persona)));
    }

    /// Says what is wrong with the command line, and where to read what is right.
    pub(crate) fn usage_error(&self, message: &str, command: &str) -> ExitCode {
        self.message(Kind::Error, message);
        self.message(Kind::Hint, &try_help(command));
        ExitCode::FAILURE
    }

    #[cfg(test)]
    pub(crate) fn to(out: impl Write + Send + 'static) -> Screen {
        Screen::to_as(KBRECOVER, out)
    }

    /// Somewhere that is no terminal.
    pub(crate) fn to_as(persona: &'static Persona, out: impl Write + Send + 'static) -> Screen {
        Screen { out: Mutex::new(Box::new(out)), bars: None, persona, is_terminal: false }
    }
}

/// The hint of every usage error.
pub(crate) fn try_help(command: &str) -> String {
    format!("Try \"{command} --help\" for more information.")
}

/// What a message is, in the order and with the words of the server's programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Said as it is.
    Info,
    /// Something odd that stops nothing.
    Warning,
    /// The end of a run.
    Error,
    /// More about the error before.
    Detail,
    /// What to do about the error before.
    Hint,
}

impl Kind {
    fn word(self, persona: &Persona) -> &'static str {
        match self {
            Kind::Info => "",
            Kind::Warning => "warning: ",
            Kind::Error => persona.error,
            Kind::Detail => "detail: ",
            Kind::Hint => "hint: ",
        }
    }
}

/// Writes a result to standard output, if anyone still reads it.
pub(crate) fn to_stdout(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A place for lines that a test can look at.
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
    fn a_reader_that_went_away_stops_nothing() {
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
