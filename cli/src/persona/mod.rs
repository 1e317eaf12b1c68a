//! The names that this program can be called by.
//!
//! Cluster managers and scripts run `pg_rewind` or `sys_rewind`, pass it that program's options and parse
//! its messages. Called by one of these names (through a link or as a copy), this program behaves like that
//! program: its options, the messages of a normal run, their output stream and format, and the exit status.
//! What differs between names and versions is in one [`TABLE`]. The rewind itself is that of
//! `kbrecover rewind`.

use kbrecover_rewind::conninfo::{ProcessEnvironment, WrittenPassword};
use kbrecover_rewind::{Need, OlderSource, ReplicationLogin, SameTimeline};

mod getopt;
pub(crate) mod help;
mod narration;
pub(crate) mod options;

pub(crate) use narration::{Narration, Narrator, times};

/// The output stream of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The behavior of a program, from one version on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Persona {
    /// The name of the program.
    pub(crate) name: &'static str,
    /// The `server_version_num` of the first version that behaves so.
    since: u32,
    /// The stream of messages; usage errors always go to standard error.
    pub(crate) stream: Stream,
    /// Printed before each message.
    pub(crate) prefix: &'static str,
    /// Printed before the text of an error.
    pub(crate) error: &'static str,
    /// Printed before and after the whole error message.
    pub(crate) error_frame: (&'static str, &'static str),
    /// Whether the error is printed last, after its detail and hint.
    pub(crate) error_is_last: bool,
    /// Printed before the hint of a usage error.
    pub(crate) usage_hint: &'static str,
    /// The exit status of a failure that leaves the target unfinished.
    pub(crate) unfinished_status: u8,
    /// Which targets are rewound.
    pub(crate) need: Need,
    /// What happens to a target that could follow on its own timeline: V8R3's sys_rewind rewinds it.
    pub(crate) same_timeline: SameTimeline,
    /// What happens if the source's timeline is older than the target's.
    pub(crate) older_source: OlderSource,
    /// What happens if `-R` is given and the role cannot be used for replication.
    pub(crate) replication_login: ReplicationLogin,
    /// The messages of a normal run.
    pub(crate) narration: Narration,
    /// The environment variables that supply what a connection string omits.
    pub(crate) environment: ProcessEnvironment,
    /// When `-R` writes the password to the configuration.
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
        older_source: OlderSource::Warn,
        replication_login: ReplicationLogin::Warn,
        narration,
        environment: match narration {
            Narration::PgRewind => ProcessEnvironment::PostgreSql,
            Narration::Kbrecover | Narration::SysRewind => ProcessEnvironment::KingbaseEs,
        },
        written_password: WrittenPassword::IfGiven,
    }
}

impl Persona {
    /// A hint; if it names an option, it tells how to give options that the program does not have.
    pub(crate) fn hint(&self, text: &str) -> String {
        let names_option = text.split_whitespace().any(|word| word.starts_with("--"));
        if self.narration == Narration::Kbrecover || !names_option {
            return text.to_owned();
        }
        format!("{text} (Options that {} does not have can be given in {EXTRA_OPTIONS}.)", self.name)
    }
}

/// What differs. Up to version 11 the programs print everything to standard output, without a prefix. From
/// 12 to 14 errors are labelled `fatal:`. `sys_rewind` counts as the version that its server is derived
/// from: 9.6 (V8R3) or 12 (V8R6).
#[rustfmt::skip]
const TABLE: [Persona; 7] = [
    Persona { prefix: "kbrecover: ", error_is_last: false, usage_hint: "kbrecover: hint: ", unfinished_status: 2,
              need: Need::Diverged, written_password: WrittenPassword::IfNeeded,
              older_source: OlderSource::Refuse, replication_login: ReplicationLogin::Require,
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
    // The log of a recovery flow has sys_rewind's messages without a prefix.
    persona("a recovery log", 0, Narration::SysRewind),
];

/// The program under its own name.
pub(crate) static KBRECOVER: &Persona = &TABLE[0];

/// A rewind within a recovery flow.
pub(crate) static IN_A_LOG: &Persona = &TABLE[6];

/// The environment variable with options of `kbrecover rewind` for a run under another name, split into
/// words as by a shell.
pub(crate) const EXTRA_OPTIONS: &str = "KBRECOVER_OPTIONS";

/// The persona of a program of this name and version.
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
