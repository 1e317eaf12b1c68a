//! The names this program answers to.
//!
//! Cluster managers and scripts run `pg_rewind` or `sys_rewind`, give it that program's options and read its
//! words. Called by one of these names (by a link or as a copy), this program behaves as it: the options,
//! the messages of a normal run, their stream and their form, and the exit status. What differs from name
//! to name and from version to version is in one [`TABLE`]; the work is `kbrecover rewind`'s.

use kbrecover_rewind::conninfo::{ProcessEnvironment, WrittenPassword};
use kbrecover_rewind::{Need, SameTimeline};

mod getopt;
pub(crate) mod help;
mod narration;
pub(crate) mod options;

pub(crate) use narration::{Narration, Narrator, Told};

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
    pub(crate) usage_hint: &'static str,
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
pub(crate) const EXTRA_OPTIONS: &str = "KBRECOVER_OPTIONS";

/// The persona of the program of this name and version.
pub(crate) fn of(name: &str, version: u32) -> &'static Persona {
    TABLE.iter().rfind(|persona| persona.name == name && persona.since <= version).unwrap_or(KBRECOVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_its_row() {
        let row = |name, version| {
            let persona = of(name, version);
            assert_eq!(persona.name, name);
            (persona.stream, persona.prefix, persona.error)
        };
        let old = (Stream::Stdout, "", "");
        assert_eq!(row("pg_rewind", 90_600), old);
        assert_eq!(row("pg_rewind", 110_000), old);
        assert_eq!(row("pg_rewind", 120_000), (Stream::Stderr, "pg_rewind: ", "fatal: "));
        assert_eq!(row("pg_rewind", 140_000), (Stream::Stderr, "pg_rewind: ", "fatal: "));
        assert_eq!(row("pg_rewind", 150_000), (Stream::Stderr, "pg_rewind: ", "error: "));
        assert_eq!(row("pg_rewind", u32::MAX), (Stream::Stderr, "pg_rewind: ", "error: "));
        assert_eq!(row("sys_rewind", 90_600), old);
        assert_eq!(row("sys_rewind", 120_000), (Stream::Stderr, "sys_rewind: ", "fatal: "));
        assert_eq!(KBRECOVER.name, "kbrecover");
        assert!(TABLE.iter().all(|persona| persona.name == "kbrecover" || persona.unfinished_status == 1));
    }
}
