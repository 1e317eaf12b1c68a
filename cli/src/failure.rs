//! Turns an error into what the user sees: a message, a hint and an exit status.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use kbrecover_rewind::conninfo::ConninfoError;
use kbrecover_rewind::{Failure, KeepError, TargetState};

use crate::manual::page_of_messages;
use crate::persona::Persona;
use crate::screen::{Kind, Screen, try_help};

/// The failure of a command, ready to be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failed {
    /// What went wrong and why, on one line.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// The state of the target.
    pub(crate) target: TargetState,
}

impl Failed {
    /// The exit status: 1 if the target is unchanged, else that of the persona.
    pub(crate) fn status(&self, persona: &Persona) -> u8 {
        match self.target {
            TargetState::Untouched => 1,
            TargetState::Unfinished => persona.unfinished_status,
        }
    }

    /// The failure of a command that changes nothing.
    pub(crate) fn untouched(error: &dyn Error, hint: Option<String>) -> Failed {
        Failed { message: chain(error), hint, target: TargetState::Untouched }
    }

    /// Shows the failure, and returns the exit status.
    pub(crate) fn show(&self, screen: &Screen) -> ExitCode {
        let persona = screen.persona();
        let show_error = || screen.message(Kind::Error, &self.message);
        if !persona.error_is_last {
            show_error();
        }
        if self.target == TargetState::Unfinished {
            screen.message(
                Kind::Detail,
                "The target data directory has been rewound only partly, and no server starts on it.",
            );
        }
        if let Some(hint) = &self.hint {
            screen.message(Kind::Hint, &persona.hint(hint));
        } else if self.target == TargetState::Unfinished {
            screen
                .message(Kind::Hint, "Run the same command again to finish; a different source can be used.");
        }
        if persona.error_is_last {
            show_error();
        } else {
            screen.message(Kind::Hint, &page_of_messages());
        }
        ExitCode::from(self.status(persona))
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Failed {
        Failed { message: chain(&*failure.error), hint: failure.error.hint(), target: failure.target }
    }
}

impl From<SetupError> for Failed {
    fn from(error: SetupError) -> Failed {
        Failed { message: chain(&error), hint: error.hint(), target: TargetState::Untouched }
    }
}

/// Errors that are found before the engine runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// `-D` is missing.
    #[error("no target data directory specified (--target-data)")]
    NoTarget,
    /// `-D` is missing for `status` or `compare`.
    #[error("no data directory specified (--target-data)")]
    NoDirectory {
        /// The command, for the hint.
        command: &'static str,
    },
    /// No source was specified.
    #[error("no source specified (--source-data or --source-server)")]
    NoSource {
        /// The command, for the hint.
        command: &'static str,
    },
    /// Both a server and a directory were specified as the source.
    #[error("only one of --source-data or --source-server can be specified")]
    TwoSources {
        /// The command, for the hint.
        command: &'static str,
    },
    /// Nothing says where the node's own history begins.
    #[error("no point of divergence specified (--source-server, --source-data or --fork)")]
    NoFork {
        /// The command, for the hint.
        command: &'static str,
    },
    /// Several options say where the node's own history begins.
    #[error("only one of --source-server, --source-data or --fork can be specified")]
    SeveralForks {
        /// The command, for the hint.
        command: &'static str,
    },
    /// What a rewind has exported cannot be read.
    #[error("could not show \"{}\", which a rewind with --keep-diverged has written", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// `-R` without a server to follow.
    #[error("no source server information (--source-server) specified for --write-recovery-conf")]
    NoServerForRecoveryConf,
    /// Running as root: a server cannot use files that are owned by root.
    #[error("cannot be executed by \"root\"")]
    Root,
    /// The target does not exist or is not accessible.
    #[error("could not read permissions of directory \"{}\"", path.display())]
    Permissions {
        /// The target.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// `--keep` matches files that cannot be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// Signal handlers cannot be installed.
    #[error("could not set up signal handlers")]
    Signals(#[source] io::Error),
    /// `--source-server` is not a valid connection string.
    #[error(transparent)]
    Conninfo(#[from] ConninfoError),
}

impl SetupError {
    fn hint(&self) -> Option<String> {
        match self {
            SetupError::NoTarget | SetupError::NoDirectory { .. } if std::env::var_os("PGDATA").is_some() => {
                Some("PGDATA is not used; specify the data directory with -D.".to_owned())
            }
            SetupError::NoDirectory { command }
            | SetupError::NoSource { command }
            | SetupError::TwoSources { command }
            | SetupError::NoFork { command }
            | SetupError::SeveralForks { command } => Some(try_help(command)),
            SetupError::NoTarget | SetupError::NoServerForRecoveryConf => Some(try_help("kbrecover rewind")),
            SetupError::Signals(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    Some("No thread can be started: raise the limit of processes (ulimit -u), or the pids limit of the container.".to_owned())
                }
                io::ErrorKind::PermissionDenied => {
                    Some("No thread can be started: the filter of system calls (seccomp) of an old container runtime refuses clone3.".to_owned())
                }
                _ => None,
            },
            SetupError::Kept { .. } => Some(
                "If there is no such file, the rewind could not export what was lost: its log says why. The WAL is beside it, for \"kbrecover inspect wal\".".to_owned(),
            ),
            SetupError::Root => Some("Run it as the user that owns the data directory.".to_owned()),
            SetupError::Permissions { .. } => {
                Some("Specify the data directory to rewind with -D.".to_owned())
            }
            SetupError::Keep(error) => Some(error.hint()),
            SetupError::Conninfo(error) => error.hint(),
        }
    }
}

/// An error and the chain of its causes, joined by colons.
///
/// Our own errors never repeat their cause. Some errors of other crates do, so a cause that the text
/// already ends with is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = without_error_numbers(&error.to_string());
    let mut next = error.source();
    while let Some(error) = next {
        let why = without_error_numbers(&error.to_string());
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        next = error.source();
    }
    text
}

/// Removes ` (os error 2)` from `No such file or directory (os error 2)`: cluster managers match messages as
/// the server's programs write them.
fn without_error_numbers(text: &str) -> String {
    const START: &str = " (os error ";
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(START) {
        let number = &rest[at + START.len()..];
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        let end = if number[digits..].starts_with(')') { START.len() + digits + 1 } else { 0 };
        // Keeps text that only starts like an error number.
        result.push_str(&rest[..if end == 0 { at + START.len() } else { at }]);
        rest = &rest[at + end.max(START.len())..];
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persona::{self, KBRECOVER};
    use crate::screen::Lines;

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let source = io::Error::from_raw_os_error(2);
        let failed = Failed::from(SetupError::Permissions { path: "/nix".into(), source });
        let lines = Lines::default();
        failed.show(&Screen::to(lines.clone()));
        assert_eq!(
            lines.text(),
            "kbrecover: error: could not read permissions of directory \"/nix\": No such file or \
             directory\nkbrecover: hint: Specify the data directory to rewind with -D.\n\
             kbrecover: hint: reference/messages.md in kbrecover's documentation (docs) explains this message.\n"
        );
        assert_eq!(failed.status(KBRECOVER), 1);
    }

    /// PostgreSQL's own tests expect the error on the last line.
    #[test]
    fn under_another_name_the_error_is_the_last_line() {
        let failed = Failed {
            message: "broke".to_owned(),
            hint: Some("Try --wal-dir.".to_owned()),
            target: TargetState::Unfinished,
        };
        let lines = Lines::default();
        let persona = persona::of("pg_rewind", 150_000);
        failed.show(&Screen::to_as(persona, lines.clone()));
        let text = lines.text();
        let [detail, hint, error] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(detail.starts_with("pg_rewind: detail: "), "{text}");
        assert!(
            hint.starts_with("pg_rewind: hint: Try --wal-dir. ") && hint.contains("KBRECOVER_OPTIONS"),
            "{text}"
        );
        assert_eq!(error, "pg_rewind: error: broke");
        assert_eq!(failed.status(persona), 1);

        let lines = Lines::default();
        failed.show(&Screen::to_as(persona::of("pg_rewind", 110_000), lines.clone()));
        assert!(lines.text().ends_with("\n\nbroke\nFailure, exiting\n"), "{}", lines.text());
    }

    #[test]
    fn an_unfinished_target_is_reported() {
        let failed = Failed { message: "broke".to_owned(), hint: None, target: TargetState::Unfinished };
        let lines = Lines::default();
        failed.show(&Screen::to(lines.clone()));
        assert_eq!(
            lines.text(),
            "kbrecover: error: broke\nkbrecover: detail: The target data directory has been rewound only \
             partly, and no server starts on it.\nkbrecover: hint: Run the same command again to finish; a \
             different source can be used.\nkbrecover: hint: reference/messages.md in kbrecover's documentation (docs) \
             explains this message.\n"
        );
        assert_eq!(failed.status(KBRECOVER), 2);
    }

    #[test]
    fn causes_are_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not connect: refused")]
        struct Chatty(#[source] io::Error);
        assert_eq!(chain(&Chatty(io::Error::other("refused"))), "could not connect: refused");
        assert_eq!(
            without_error_numbers("a (os error 13): b (os error x) (os error 5"),
            "a: b (os error x) (os error 5"
        );
    }
}
