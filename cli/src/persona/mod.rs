//! The names this program answers to.
//!
//! Cluster managers and scripts run `pg_rewind` or `sys_rewind`, give it that program's options and read its
//! words. Called by one of these names (by a link or as a copy), this program behaves as it: the options,
//! the messages of a normal run, their stream and their form, and the exit status. What differs from name
//! to name and from version to version is in one [`TABLE`]; the work is `kbrecover rewind`'s.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use kbrecover_rewind::conninfo::{ProcessEnvironment, WrittenPassword};
use kbrecover_rewind::{Need, SameTimeline};

use crate::args::{self, Command, Invocation, RewindArgs};
use crate::commands;
use crate::screen::{Kind, Screen, to_stdout, try_help};

mod getopt;
mod help;
mod narration;
mod options;

pub(crate) use narration::{Narration, Narrator, Told};
use options::{OptionRow, WrongOptions};

/// Where messages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What a name stands for, from one version on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Persona {
    /// The name.
    pub(crate) name: &'static str,
    /// The `server_version_num` of the first version that is so.
    since: u32,
    /// Where messages go; usage errors always go to standard error.
    pub(crate) stream: Stream,
    /// What stands before each message.
    pub(crate) prefix: &'static str,
    /// What stands before the text of an error.
    pub(crate) error: &'static str,
    /// What stands on the lines before and after it.
    pub(crate) error_frame: (&'static str, &'static str),
    /// Whether the error is the last that is said, behind details and hints.
    pub(crate) error_is_last: bool,
    /// What stands before the hint of a usage error.
    usage_hint: &'static str,
    /// The exit status of a failure that has left an unfinished target.
    pub(crate) unfinished_status: u8,
    /// Which targets are rewound.
    pub(crate) need: Need,
    /// What becomes of one that could follow on its timeline: V8R3's sys_rewind goes through with it.
    pub(crate) same_timeline: SameTimeline,
    /// What is told of a normal run.
    pub(crate) narration: Narration,
    /// By which names it looks for what a connection string leaves out.
    pub(crate) environment: ProcessEnvironment,
    /// When `-R` writes the password.
    pub(crate) written_password: WrittenPassword,
}

const fn persona(name: &'static str, since: u32, narration: Narration) -> Persona {
    Persona {
        name,
        since,
        stream: Stream::Stderr,
        prefix: "",
        error: "error: ",
        error_frame: ("", ""),
        error_is_last: true,
        usage_hint: "",
        unfinished_status: 1,
        need: Need::DivergedOrUnclean,
        same_timeline: SameTimeline::Follow,
        narration,
        environment: match narration {
            Narration::PgRewind => ProcessEnvironment::PostgreSql,
            Narration::Kbrecover | Narration::SysRewind => ProcessEnvironment::KingbaseEs,
        },
        written_password: WrittenPassword::IfGiven,
    }
}

impl Persona {
    /// A hint, with a word about options that this name does not have.
    pub(crate) fn hint(&self, text: &str) -> String {
        let names_option = text.split_whitespace().any(|word| word.starts_with("--"));
        if self.narration == Narration::Kbrecover || !names_option {
            return text.to_owned();
        }
        format!("{text} (Options that {} does not have can be given in {EXTRA_OPTIONS}.)", self.name)
    }
}

/// What differs. Up to 11 the programs wrote everything to standard output, without a prefix; `fatal:` was
/// the word for an error from 12 to 14. `sys_rewind` is of the version its server was made from: 9.6
/// (V8R3) or 12 (V8R6).
#[rustfmt::skip]
const TABLE: [Persona; 7] = [
    Persona { prefix: "kbrecover: ", error_is_last: false, usage_hint: "kbrecover: hint: ", unfinished_status: 2,
              need: Need::Diverged, written_password: WrittenPassword::IfNeeded,
              ..persona("kbrecover", 0, Narration::Kbrecover) },
    Persona { stream: Stream::Stdout, error: "", error_frame: ("\n", "\nFailure, exiting"),
              ..persona("pg_rewind", 0, Narration::PgRewind) },
    Persona { prefix: "pg_rewind: ", error: "fatal: ",
              ..persona("pg_rewind", 120_000, Narration::PgRewind) },
    Persona { prefix: "pg_rewind: ", usage_hint: "pg_rewind: hint: ",
              ..persona("pg_rewind", 150_000, Narration::PgRewind) },
    Persona { stream: Stream::Stdout, error: "", error_frame: ("\n", "\nFailure, exiting"),
              same_timeline: SameTimeline::Resync,
              ..persona("sys_rewind", 0, Narration::SysRewind) },
    Persona { prefix: "sys_rewind: ", error: "fatal: ",
              ..persona("sys_rewind", 120_000, Narration::SysRewind) },
    // The log of a recovery flow, in which sys_rewind's lines stand as they are.
    persona("a recovery log", 0, Narration::SysRewind),
];

/// The command by its own name.
pub(crate) static KBRECOVER: &Persona = &TABLE[0];

/// The engine within a recovery flow.
pub(crate) static IN_A_LOG: &Persona = &TABLE[6];

/// Options of `kbrecover rewind` for a run under another name: split at spaces as by a shell.
const EXTRA_OPTIONS: &str = "KBRECOVER_OPTIONS";

/// Another's name that this program was called by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    PgRewind,
    SysRewind,
}

impl Role {
    /// By the first word of a command line, as far as it names a file.
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
        let fits = |persona: &&Persona| persona.name == self.name() && persona.since <= version;
        TABLE.iter().rfind(fits).unwrap_or(KBRECOVER)
    }

    /// Does what the command line asks for.
    pub(crate) fn run(self, arguments: &[OsString]) -> ExitCode {
        let (program, arguments) = arguments.split_first().expect("there is a first word: it has the name");
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
            Err(WrongOptions::Getopt(complaint)) => {
                let text = format!("{}: {complaint}\n", program.to_string_lossy());
                let _ = io::stderr().write_all(text.as_bytes());
                self.usage_error(persona, None, true)
            }
            Err(WrongOptions::Misplaced) => self.usage_error(persona, None, true),
            Err(WrongOptions::Said(text)) => self.usage_error(persona, Some(&text), true),
            Err(WrongOptions::SaidOnly(text)) => self.usage_error(persona, Some(&text), false),
        }
    }

    /// Translated options are in order by themselves; those of the environment may not be.
    fn rewind(self, persona: &'static Persona, extra: Vec<OsString>, ours: Vec<OsString>) -> ExitCode {
        if rustix::process::geteuid().is_root() {
            let screen = Screen::of(persona);
            screen.message(Kind::Error, "cannot be executed by \"root\"");
            let hint = format!("You must run {} as the PostgreSQL superuser.", self.name());
            screen.message(Kind::Hint, &hint);
            return ExitCode::FAILURE;
        }
        match rewind_args(extra, ours) {
            Ok(args) => commands::rewind::run(&args, persona),
            Err(text) => self.usage_error(persona, Some(&format!("{EXTRA_OPTIONS}: {text}")), true),
        }
    }

    fn usage_error(self, persona: &Persona, text: Option<&str>, hint: bool) -> ExitCode {
        let mut lines = String::new();
        if let Some(text) = text {
            // Where an error has no word of its own, the name stands before it all the same.
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

/// What a command line of `kbrecover rewind` means: the later of two equal options counts. No files of the
/// target are kept unless the environment says so: who runs these programs sees to that.
fn rewind_args(extra: Vec<OsString>, ours: Vec<OsString>) -> Result<RewindArgs, String> {
    let words =
        ["kbrecover", "rewind", "--keep", "none"].map(OsString::from).into_iter().chain(extra).chain(ours);
    match args::parse(words) {
        Invocation::Run(Command::Rewind(args)) => Ok(*args),
        Invocation::Wrong(wrong) => Err(wrong.message),
        _ => Err("only options of \"kbrecover rewind\" can be given".to_owned()),
    }
}

/// `--bindir` among the options of the environment.
fn bindir(extra: &[OsString]) -> Option<std::path::PathBuf> {
    rewind_args(extra.to_vec(), Vec::new()).ok()?.bindir
}

/// `pg_rewind (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, as if it were of the server beside it. Where
/// there is none, it says what it is instead.
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

/// The version a data directory says it is of, as a `server_version_num` without the minor version.
fn version_of(target: &Path) -> Option<u32> {
    let read = |name| std::fs::read_to_string(target.join(name)).ok();
    kbrecover_hooks::major_number(read("PG_VERSION").or_else(|| read("SYS_VERSION"))?.trim())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pg_rewind(version: u32) -> &'static Persona {
        Role::PgRewind.persona(version)
    }

    #[test]
    fn names() {
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
    fn every_version_has_its_row() {
        let row = |role: Role, version| {
            let persona = role.persona(version);
            assert_eq!(persona.name, role.name());
            (persona.stream, persona.prefix, persona.error)
        };
        let old = (Stream::Stdout, "", "");
        assert_eq!(row(Role::PgRewind, 90_600), old);
        assert_eq!(row(Role::PgRewind, 110_000), old);
        assert_eq!(row(Role::PgRewind, 120_000), (Stream::Stderr, "pg_rewind: ", "fatal: "));
        assert_eq!(row(Role::PgRewind, 140_000), (Stream::Stderr, "pg_rewind: ", "fatal: "));
        assert_eq!(row(Role::PgRewind, 150_000), (Stream::Stderr, "pg_rewind: ", "error: "));
        assert_eq!(row(Role::PgRewind, u32::MAX), (Stream::Stderr, "pg_rewind: ", "error: "));
        assert_eq!(row(Role::SysRewind, 90_600), old);
        assert_eq!(row(Role::SysRewind, 120_000), (Stream::Stderr, "sys_rewind: ", "fatal: "));
        assert_eq!(KBRECOVER.name, "kbrecover");
        assert!(TABLE.iter().all(|persona| persona.name == "kbrecover" || persona.unfinished_status == 1));
    }

    #[test]
    fn only_options_of_a_rewind_can_be_added() {
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
    fn the_version_line() {
        let found =
            |text: &str| Some(kbrecover_hooks::ServerVersion { number: 150_000, text: text.to_owned() });
        assert_eq!(version_line(Role::PgRewind, found("15.3 (X)")), "pg_rewind (PostgreSQL) 15.3 (X)\n");
        assert!(version_line(Role::SysRewind, None).starts_with("sys_rewind (kbrecover) "));
    }
}
