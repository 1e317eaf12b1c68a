//! Runs `kbrecover rewind` under another program's name.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use crate::command_line::{self, Command, Invocation};
use crate::commands::rewind::{self, RewindArgs};
use crate::persona::options::{self, OptionRow, WrongOptions};
use crate::persona::{self, EXTRA_OPTIONS, Persona, help};
use crate::screen::{Kind, Screen, to_stdout, try_help};

/// Another program, by whose name this one was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    PgRewind,
    SysRewind,
}

impl Role {
    /// The role that the file name in the first argument stands for, if any.
    pub(crate) fn of(program: &OsStr) -> Option<Role> {
        match Path::new(program).file_name()?.to_str()? {
            "pg_rewind" => Some(Role::PgRewind),
            "sys_rewind" => Some(Role::SysRewind),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Role::PgRewind => "pg_rewind",
            Role::SysRewind => "sys_rewind",
        }
    }

    fn rows(self) -> &'static [OptionRow] {
        match self {
            Role::PgRewind => options::PG_REWIND,
            Role::SysRewind => options::SYS_REWIND,
        }
    }

    fn persona(self, version: u32) -> &'static Persona {
        persona::of(self.name(), version)
    }

    /// Runs what the command line requests.
    pub(crate) fn run(self, arguments: &[OsString]) -> ExitCode {
        let (program, arguments) =
            arguments.split_first().expect("the role was taken from the first argument");
        let extra = match extra_options() {
            Ok(extra) => extra,
            Err(text) => return self.usage_error(self.persona(u32::MAX), Some(&text), true),
        };
        let server = || kbrecover_hooks::server_version(program, bindir(&extra).as_deref());
        match arguments.first().and_then(|first| first.to_str()) {
            Some("--help" | "-?") => {
                let version = server().map_or(u32::MAX, |found| found.number);
                to_stdout(&help::text(self.name(), version));
                return ExitCode::SUCCESS;
            }
            Some("--version" | "-V") => {
                to_stdout(&version_line(self, server()));
                return ExitCode::SUCCESS;
            }
            _ => {}
        }
        let version = options::target(arguments, self.rows())
            .and_then(|target| version_of(Path::new(&target)))
            .or_else(|| server().map(|found| found.number))
            .unwrap_or(u32::MAX);
        let persona = self.persona(version);
        match options::translate(arguments, self.rows(), version) {
            Ok(ours) => self.rewind(persona, extra, ours),
            Err(WrongOptions::Getopt(message)) => {
                let text = format!("{}: {message}\n", program.to_string_lossy());
                let _ = io::stderr().write_all(text.as_bytes());
                self.usage_error(persona, None, true)
            }
            Err(WrongOptions::Misplaced) => self.usage_error(persona, None, true),
            Err(WrongOptions::Message(text)) => self.usage_error(persona, Some(&text), true),
            Err(WrongOptions::MessageOnly(text)) => self.usage_error(persona, Some(&text), false),
        }
    }

    /// Runs the rewind. The translated options have been checked; those of the environment may be invalid.
    fn rewind(self, persona: &'static Persona, extra: Vec<OsString>, ours: Vec<OsString>) -> ExitCode {
        if rustix::process::geteuid().is_root() {
            let screen = Screen::of(persona);
            screen.message(Kind::Error, "cannot be executed by \"root\"");
            let hint = format!("You must run {} as the PostgreSQL superuser.", self.name());
            screen.message(Kind::Hint, &hint);
            return ExitCode::FAILURE;
        }
        match rewind_args(extra, ours) {
            Ok(args) => rewind::run(&args, persona),
            Err(text) => self.usage_error(persona, Some(&format!("{EXTRA_OPTIONS}: {text}")), true),
        }
    }

    fn usage_error(self, persona: &Persona, text: Option<&str>, hint: bool) -> ExitCode {
        let mut lines = String::new();
        if let Some(text) = text {
            // Up to version 11 a usage error begins with the program's name, unlike other errors.
            let kind = if persona.prefix.is_empty() { "" } else { "error: " };
            lines = format!("{}: {kind}{text}\n", self.name());
        }
        if hint {
            lines += &format!("{}{}\n", persona.usage_hint, try_help(self.name()));
        }
        let _ = io::stderr().write_all(lines.as_bytes());
        ExitCode::FAILURE
    }
}

fn extra_options() -> Result<Vec<OsString>, String> {
    let text = env::var(EXTRA_OPTIONS).unwrap_or_default();
    let words = shell_words::split(&text).map_err(|error| format!("{EXTRA_OPTIONS}: {error}"))?;
    Ok(words.into_iter().map(OsString::from).collect())
}

/// Parses the options as those of `kbrecover rewind`; the last of several equal options counts. By default
/// no file of the target is kept, because users of these programs expect the source's files.
fn rewind_args(extra: Vec<OsString>, ours: Vec<OsString>) -> Result<RewindArgs, String> {
    let words =
        ["kbrecover", "rewind", "--keep", "none"].map(OsString::from).into_iter().chain(extra).chain(ours);
    match command_line::parse(words) {
        Invocation::Run(Command::Rewind(args)) => Ok(*args),
        Invocation::Wrong(wrong) => Err(wrong.message),
        _ => Err("only options of \"kbrecover rewind\" can be given".to_owned()),
    }
}

/// `--bindir` from the options of the environment.
fn bindir(extra: &[OsString]) -> Option<PathBuf> {
    rewind_args(extra.to_vec(), Vec::new()).ok()?.bindir
}

/// `pg_rewind (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, with the version of the server that it is
/// installed with; without a server, the version of kbrecover.
fn version_line(role: Role, server: Option<kbrecover_hooks::ServerVersion>) -> String {
    let product = match role {
        Role::PgRewind => "PostgreSQL",
        Role::SysRewind => "KingbaseES",
    };
    match server {
        Some(found) => format!("{} ({product}) {}\n", role.name(), found.text),
        None => format!("{} (kbrecover) {}\n", role.name(), env!("CARGO_PKG_VERSION")),
    }
}

/// The major version of a data directory as a `server_version_num`.
fn version_of(target: &Path) -> Option<u32> {
    let read = |name| fs::read_to_string(target.join(name)).ok();
    kbrecover_hooks::major_number(read("PG_VERSION").or_else(|| read("SYS_VERSION"))?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_recognized_by_file_name() {
        for (word, role) in [
            ("pg_rewind", Some(Role::PgRewind)),
            ("/usr/lib/postgresql/15/bin/pg_rewind", Some(Role::PgRewind)),
            ("./sys_rewind", Some(Role::SysRewind)),
            ("kbrecover", None),
            ("pg_rewind2", None),
            ("", None),
        ] {
            assert_eq!(Role::of(OsStr::new(word)), role, "{word}");
        }
    }

    #[test]
    fn only_options_of_rewind_can_be_added() {
        let words = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let args = rewind_args(words("--jobs 3 -D /other"), words("--target-data=/d")).unwrap();
        assert_eq!(args.target_data.as_deref(), Some(Path::new("/d")));
        assert_eq!(args.jobs.map(usize::from), Some(3));
        assert_eq!(args.keep, ["none"]);
        let refused = |line| rewind_args(words(line), Vec::new()).err().unwrap_or_default();
        assert!(refused("--help").contains("only options"));
        assert!(refused("--nonsense").contains("--nonsense"));
        assert_eq!(bindir(&words("--bindir /b")).as_deref(), Some(Path::new("/b")));
    }

    #[test]
    fn the_version_line_is_that_of_the_server() {
        let found =
            |text: &str| Some(kbrecover_hooks::ServerVersion { number: 150_000, text: text.to_owned() });
        assert_eq!(version_line(Role::PgRewind, found("15.3 (X)")), "pg_rewind (PostgreSQL) 15.3 (X)\n");
        assert!(version_line(Role::SysRewind, None).starts_with("sys_rewind (kbrecover) "));
    }
}
