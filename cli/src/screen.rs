//! Standard error and standard output: messages line by line, and a line of progress below them.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::color::{self, Color};
use crate::persona::{KBRECOVER, Narration, Persona, Stream};

/// Prints messages line by line. On a terminal a line about progress can stand below them. Write errors are ignored: a reader
/// that goes away does not stop a run.
pub(crate) struct Screen {
    out: Mutex<Out>,
    persona: &'static Persona,
    is_terminal: bool,
    has_status_line: bool,
    is_colored: bool,
}

struct Out {
    to: Box<dyn Write + Send>,
    /// The line about progress; empty if there is none.
    status: String,
}

/// Moves to the start of the line, and clears it.
const CLEAR: &str = "\r\x1b[K";

/// The width of a terminal that does not tell it.
const USUAL_WIDTH: usize = 80;

impl Screen {
    /// The screen of a program of this name.
    pub(crate) fn of(persona: &'static Persona) -> Screen {
        let (to, is_terminal): (Box<dyn Write + Send>, _) = match persona.stream {
            Stream::Stdout => (Box::new(io::stdout()), io::stdout().is_terminal()),
            Stream::Stderr => (Box::new(io::stderr()), io::stderr().is_terminal()),
        };
        // Other programs have neither.
        let is_ours = persona.narration == Narration::Kbrecover;
        Screen {
            out: Mutex::new(Out { to, status: String::new() }),
            persona,
            is_terminal,
            has_status_line: is_ours && is_terminal && !color::is_dumb(),
            is_colored: is_ours && color::is_wanted(is_terminal),
        }
    }

    /// Standard error, under our own name.
    pub(crate) fn stderr() -> Screen {
        Screen::of(KBRECOVER)
    }

    /// The name and the message format in use.
    pub(crate) fn persona(&self) -> &'static Persona {
        self.persona
    }

    /// Whether a line about progress can be shown below the messages.
    pub(crate) fn has_status_line(&self) -> bool {
        self.has_status_line
    }

    /// How many characters fit into the line about progress.
    pub(crate) fn width(&self) -> usize {
        let size = match self.persona.stream {
            Stream::Stdout => rustix::termios::tcgetwinsize(io::stdout()),
            Stream::Stderr => rustix::termios::tcgetwinsize(io::stderr()),
        };
        let width = size.map_or(0, |size| usize::from(size.ws_col));
        // In the last column some terminals begin a new line.
        if width == 0 { USUAL_WIDTH - 1 } else { width - 1 }
    }

    /// Prints a line without a prefix.
    pub(crate) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Prints a line that the next one overwrites on a terminal.
    pub(crate) fn passing_line(&self, text: &str) {
        self.write(&format!("{text}{}", if self.is_terminal { '\r' } else { '\n' }));
    }

    /// Shows this as the line about progress; with an empty text there is none any more.
    pub(crate) fn status_line(&self, text: &str) {
        let mut out = self.lock();
        if self.has_status_line && out.status != text {
            out.status = cut(text, self.width()).to_owned();
            let line = format!("{CLEAR}{}", out.status);
            out.write(&line);
        }
    }

    fn write(&self, text: &str) {
        let mut out = self.lock();
        match out.status.as_str() {
            "" => out.write(text),
            status => {
                let both = format!("{CLEAR}{text}{status}");
                out.write(&both);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a message.
    pub(crate) fn message(&self, kind: Kind, text: &str) {
        let persona = self.persona;
        let (before, after) = if kind == Kind::Error { persona.error_frame } else { ("", "") };
        let (label, text) = match kind.color().filter(|_| self.is_colored) {
            Some(color) if kind == Kind::Success => (String::new(), color.paint(text)),
            Some(color) => (color.paint(kind.label(persona).trim_end()) + " ", text.to_owned()),
            None => (kind.label(persona).to_owned(), text.to_owned()),
        };
        self.line(&format!("{before}{}{label}{text}{after}", persona.prefix));
    }

    /// Reports a usage error, with a hint at what was meant and at the command's `--help`.
    pub(crate) fn usage_error(&self, message: &str, meant: Option<&str>, command: &str) -> ExitCode {
        self.message(Kind::Error, message);
        if let Some(meant) = meant {
            self.message(Kind::Hint, &format!("Did you mean \"{meant}\"?"));
        }
        self.message(Kind::Hint, &try_help(command));
        ExitCode::FAILURE
    }

    #[cfg(test)]
    pub(crate) fn to(out: impl Write + Send + 'static) -> Screen {
        Screen::to_as(KBRECOVER, out)
    }

    /// A screen that writes to `out`, which is not a terminal.
    pub(crate) fn to_as(persona: &'static Persona, out: impl Write + Send + 'static) -> Screen {
        let out = Mutex::new(Out { to: Box::new(out), status: String::new() });
        Screen { out, persona, is_terminal: false, has_status_line: false, is_colored: false }
    }

    /// A screen that writes to `out` as to a terminal.
    #[cfg(test)]
    pub(crate) fn terminal(persona: &'static Persona, out: impl Write + Send + 'static) -> Screen {
        let is_ours = persona.narration == Narration::Kbrecover;
        Screen {
            is_terminal: true,
            has_status_line: is_ours,
            is_colored: is_ours,
            ..Screen::to_as(persona, out)
        }
    }
}

impl Out {
    /// In one write, so that output of other processes is not mixed into it.
    fn write(&mut self, text: &str) {
        let _ = self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush());
    }
}

/// As much of a line as fits: it ends at a comma, if there is one.
fn cut(text: &str, width: usize) -> &str {
    let Some((end, _)) = text.char_indices().nth(width) else { return text };
    let fits = &text[..end];
    if text[end..].starts_with(',') {
        fits
    } else {
        fits.rsplit_once(", ").map_or(fits, |(before, _)| before)
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
    /// The run has done what was asked for; no label.
    Success,
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
            Kind::Info | Kind::Success => "",
            Kind::Warning => "warning: ",
            Kind::Error => persona.error,
            Kind::Detail => "detail: ",
            Kind::Hint => "hint: ",
        }
    }

    /// The color of the label, or of the whole text if there is none.
    fn color(self) -> Option<Color> {
        match self {
            Kind::Info | Kind::Detail => None,
            Kind::Success => Some(Color::Green),
            Kind::Warning => Some(Color::Yellow),
            Kind::Error => Some(Color::Red),
            Kind::Hint => Some(Color::Cyan),
        }
    }
}

/// Writes to standard output, ignoring write errors: for what nobody relies on.
pub(crate) fn to_stdout(text: &str) {
    let _ = write_result(text);
}

/// Writes a result to standard output.
///
/// # Errors
/// Not all of it could be written. A reader that has closed a pipe, `head` for example, has done so on purpose.
pub(crate) fn write_result(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
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
        screen.usage_error("wrong", Some("right"), "kbrecover rewind");
        screen.line("bare");
        assert_eq!(
            lines.text(),
            "kbrecover: Done!\nkbrecover: warning: odd\nkbrecover: error: wrong\n\
             kbrecover: hint: Did you mean \"right\"?\nkbrecover: hint: Try \"kbrecover rewind --help\" for more information.\nbare\n"
        );
    }

    #[test]
    fn labels_are_colored_on_a_terminal_and_only_under_our_own_name() {
        let said = |persona| {
            let lines = Lines::default();
            let screen = Screen::terminal(persona, lines.clone());
            for (kind, text) in [
                (Kind::Info, "a"),
                (Kind::Warning, "b"),
                (Kind::Error, "c"),
                (Kind::Hint, "d"),
                (Kind::Success, "Done!"),
            ] {
                screen.message(kind, text);
            }
            lines.text()
        };
        assert_eq!(
            said(KBRECOVER),
            "kbrecover: a\nkbrecover: \x1b[1;33mwarning:\x1b[0m b\nkbrecover: \x1b[1;31merror:\x1b[0m c\n\
             kbrecover: \x1b[1;36mhint:\x1b[0m d\nkbrecover: \x1b[1;32mDone!\x1b[0m\n"
        );
        assert!(!said(crate::persona::of("pg_rewind", 150_000)).contains('\x1b'));
    }

    #[test]
    fn the_status_line_stays_below_the_messages() {
        let lines = Lines::default();
        let screen = Screen::terminal(KBRECOVER, lines.clone());
        screen.status_line("one");
        screen.line("message");
        screen.status_line("two");
        screen.status_line("two");
        screen.status_line("");
        screen.line("end");
        assert_eq!(lines.text(), "\r\x1b[Kone\r\x1b[Kmessage\none\r\x1b[Ktwo\r\x1b[Kend\n");
        let lines = Lines::default();
        Screen::to(lines.clone()).status_line("unseen");
        assert_eq!(lines.text(), "");
    }

    #[test]
    fn a_status_line_that_is_too_long_ends_at_a_comma() {
        let line = "copying: 15%, 12 of 80 MiB, 3:20 left";
        assert_eq!(cut(line, 80), line);
        assert_eq!(cut(line, line.len()), line);
        assert_eq!(cut(line, line.len() - 1), "copying: 15%, 12 of 80 MiB");
        assert_eq!(cut(line, 26), "copying: 15%, 12 of 80 MiB");
        assert_eq!(cut(line, 25), "copying: 15%");
        assert_eq!(cut(line, 5), "copyi");
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
