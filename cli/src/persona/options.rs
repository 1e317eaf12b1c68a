//! The options of `pg_rewind` and `sys_rewind` by version, and their equivalents in `kbrecover rewind`.

use std::ffi::{OsStr, OsString};

use super::getopt::{self, Parsed, Spec};

/// An option of one of these programs.
pub(crate) struct OptionRow {
    spec: Spec,
    /// The `server_version_num` of the first version that has it.
    since: u32,
    meaning: Meaning,
}

impl OptionRow {
    /// Whether it is equivalent to this option of `kbrecover rewind`.
    fn is(&self, ours: &str) -> bool {
        matches!(self.meaning, Meaning::Same(name) if name == ours)
    }
}

/// The equivalent of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meaning {
    /// This long option of `kbrecover rewind`.
    Same(&'static str),
    /// `--sync-method` with a value that has to be checked: `fsync` or `syncfs`.
    SyncMethod,
    /// `--help` and `--version`, which are valid as the first argument only.
    FirstOnly,
}

const fn row(letter: u8, long: &'static str, takes_value: bool, since: u32, meaning: Meaning) -> OptionRow {
    let short = if letter == 0 { None } else { Some(letter) };
    OptionRow { spec: Spec { short, long, takes_value }, since, meaning }
}

/// In the original's order, in which the candidates for an ambiguous name are listed.
#[rustfmt::skip]
pub(crate) const PG_REWIND: &[OptionRow] = &[
    row(0,    "help",                false, 0,       Meaning::FirstOnly),
    row(b'D', "target-pgdata",       true,  0,       Meaning::Same("--target-data")),
    row(b'R', "write-recovery-conf", false, 130_000, Meaning::Same("--write-recovery-conf")),
    row(0,    "source-pgdata",       true,  0,       Meaning::Same("--source-data")),
    row(0,    "source-server",       true,  0,       Meaning::Same("--source-server")),
    row(0,    "no-ensure-shutdown",  false, 130_000, Meaning::Same("--no-ensure-shutdown")),
    row(0,    "config-file",         true,  150_000, Meaning::Same("--config-file")),
    row(0,    "version",             false, 0,       Meaning::FirstOnly),
    row(b'c', "restore-target-wal",  false, 130_000, Meaning::Same("--restore-target-wal")),
    row(b'n', "dry-run",             false, 0,       Meaning::Same("--dry-run")),
    row(b'N', "no-sync",             false, 120_000, Meaning::Same("--no-sync")),
    row(b'P', "progress",            false, 0,       Meaning::Same("--progress")),
    row(0,    "debug",               false, 0,       Meaning::Same("--debug")),
    row(0,    "sync-method",         true,  170_000, Meaning::SyncMethod),
];

/// The options known from use (`-D`, `--target-data`, `--source-server`, `-P`, `-n`), and those of the
/// version that it is derived from. The other spellings are those of the vendor's other programs.
#[rustfmt::skip]
pub(crate) const SYS_REWIND: &[OptionRow] = &[
    row(0,    "help",                 false, 0,       Meaning::FirstOnly),
    row(b'D', "target-data",          true,  0,       Meaning::Same("--target-data")),
    row(0,    "target-kingbase-data", true,  0,       Meaning::Same("--target-data")),
    row(0,    "target-pgdata",        true,  0,       Meaning::Same("--target-data")),
    row(0,    "source-data",          true,  0,       Meaning::Same("--source-data")),
    row(0,    "source-pgdata",        true,  0,       Meaning::Same("--source-data")),
    row(0,    "source-server",        true,  0,       Meaning::Same("--source-server")),
    row(0,    "version",              false, 0,       Meaning::FirstOnly),
    row(b'n', "dry-run",              false, 0,       Meaning::Same("--dry-run")),
    row(b'N', "no-sync",              false, 120_000, Meaning::Same("--no-sync")),
    row(b'P', "progress",             false, 0,       Meaning::Same("--progress")),
    row(0,    "debug",                false, 0,       Meaning::Same("--debug")),
];

/// A usage error.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum WrongOptions {
    /// In the words of the C library, which come after the name that the program was called by.
    Getopt(String),
    /// `--help` or `--version` after the first argument: only the hint is printed.
    Misplaced,
    /// In the words of the program itself, with the hint.
    Message(String),
    /// In the words of the program itself, without the hint.
    MessageOnly(String),
}

/// Translates a command line to arguments of `kbrecover rewind`.
pub(crate) fn translate(
    arguments: &[OsString],
    rows: &[OptionRow],
    version: u32,
) -> Result<Vec<OsString>, WrongOptions> {
    let Parsed { options, operands } =
        getopt::parse(arguments, &specs(rows, version)).map_err(WrongOptions::Getopt)?;
    let mut translated = Vec::new();
    for (name, value) in &options {
        let meaning = rows.iter().find(|row| row.spec.long == *name).map(|row| row.meaning);
        match (meaning, value) {
            (Some(Meaning::Same(ours)), Some(value)) => {
                let mut argument = OsString::from(ours);
                argument.push("=");
                argument.push(value);
                translated.push(argument);
            }
            (Some(Meaning::Same(ours)), None) => translated.push(ours.into()),
            (Some(Meaning::SyncMethod), Some(value)) if value == "fsync" || value == "syncfs" => {
                let mut argument = OsString::from("--sync-method=");
                argument.push(value);
                translated.push(argument);
            }
            (Some(Meaning::SyncMethod), value) => {
                let value = value.as_deref().unwrap_or(OsStr::new("")).to_string_lossy();
                return Err(WrongOptions::MessageOnly(format!("unrecognized sync method: {value}")));
            }
            (Some(Meaning::FirstOnly) | None, _) => return Err(WrongOptions::Misplaced),
        }
    }
    check(rows, &options, &operands).map_err(WrongOptions::Message)?;
    Ok(translated)
}

/// Makes the checks of the original, in its order.
fn check(
    rows: &[OptionRow],
    options: &[(&str, Option<OsString>)],
    operands: &[OsString],
) -> Result<(), String> {
    let given = |ours: &str| {
        options.iter().any(|(name, _)| rows.iter().any(|row| row.spec.long == *name && row.is(ours)))
    };
    let name = |ours: &'static str| rows.iter().find(|row| row.is(ours)).map_or(ours, |row| row.spec.long);
    let (directory, server) = (given("--source-data"), given("--source-server"));
    if !directory && !server {
        return Err(format!("no source specified (--{} or --source-server)", name("--source-data")));
    }
    if directory && server {
        return Err(format!("only one of --{} or --source-server can be specified", name("--source-data")));
    }
    if !given("--target-data") {
        return Err(format!("no target data directory specified (--{})", name("--target-data")));
    }
    if given("--write-recovery-conf") && !server {
        return Err(
            "no source server information (--source-server) specified for --write-recovery-conf".to_owned()
        );
    }
    match operands.first() {
        Some(first) => {
            Err(format!("too many command-line arguments (first is \"{}\")", first.to_string_lossy()))
        }
        None => Ok(()),
    }
}

/// The target of a command line, even if the command line is invalid otherwise.
pub(crate) fn target(arguments: &[OsString], rows: &[OptionRow]) -> Option<OsString> {
    let parsed = getopt::parse(arguments, &specs(rows, u32::MAX)).ok()?;
    let is_target = |name: &str| rows.iter().any(|row| row.spec.long == name && row.is("--target-data"));
    parsed.options.into_iter().rev().find(|(name, _)| is_target(name))?.1
}

fn specs(rows: &[OptionRow], version: u32) -> Vec<Spec> {
    rows.iter().filter(|row| row.since <= version).map(|row| row.spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pg(version: u32, line: &str) -> Result<Vec<OsString>, WrongOptions> {
        let arguments: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        translate(&arguments, PG_REWIND, version)
    }

    #[test]
    fn options_are_translated() {
        let ours =
            pg(180_000, "-cnNPR --debug --config-file /c --no-e --sync-method syncfs --source-server h -D d");
        let expected = [
            "--restore-target-wal",
            "--dry-run",
            "--no-sync",
            "--progress",
            "--write-recovery-conf",
            "--debug",
            "--config-file=/c",
            "--no-ensure-shutdown",
            "--sync-method=syncfs",
            "--source-server=h",
            "--target-data=d",
        ];
        assert_eq!(ours.unwrap(), expected.map(OsString::from));
    }

    #[test]
    fn each_version_has_its_own_options() {
        for (option, since) in [
            ("-N", 120_000),
            ("-R", 130_000),
            ("-c", 130_000),
            ("--no-ensure-shutdown", 130_000),
            ("--config-file=f", 150_000),
            ("--sync-method=fsync", 170_000),
        ] {
            let line = format!("-D d --source-server h {option}");
            assert!(pg(since, &line).is_ok(), "{option}");
            assert!(matches!(pg(since - 10_000, &line), Err(WrongOptions::Getopt(_))), "{option}");
        }
        assert_eq!(
            pg(170_000, "-D d --source-server h --sync-method=x"),
            Err(WrongOptions::MessageOnly("unrecognized sync method: x".to_owned()))
        );
    }

    #[test]
    fn usage_errors_are_found_in_the_order_of_the_original() {
        let said = |line: &str| match pg(150_000, line) {
            Err(WrongOptions::Message(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(said(""), "no source specified (--source-pgdata or --source-server)");
        let both = "only one of --source-pgdata or --source-server can be specified";
        assert_eq!(said("--source-pgdata=a --source-server=b"), both);
        assert_eq!(said("--source-pgdata=a x"), "no target data directory specified (--target-pgdata)");
        let recovery = "no source server information (--source-server) specified for --write-recovery-conf";
        assert_eq!(said("--source-pgdata=a -D d -R x"), recovery);
        assert_eq!(said("--source-pgdata=a -D d x y"), "too many command-line arguments (first is \"x\")");
        assert_eq!(pg(150_000, "-D d --vers"), Err(WrongOptions::Misplaced));
    }

    #[test]
    fn sys_rewind_has_its_own_option_names() {
        let arguments = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        for target in ["--target-data=/d", "-D /d", "--target-pgdata /d", "--target-kingbase-data=/d"] {
            let line = arguments(&format!("-Pn {target} --source-server=h"));
            assert_eq!(super::target(&line, SYS_REWIND), Some("/d".into()));
            let ours = translate(&line, SYS_REWIND, 90_600).unwrap();
            assert!(ours.contains(&"--target-data=/d".into()), "{ours:?}");
        }
        let none = translate(&[], SYS_REWIND, 90_600);
        let expected = "no source specified (--source-data or --source-server)".to_owned();
        assert_eq!(none, Err(WrongOptions::Message(expected)));
    }
}
