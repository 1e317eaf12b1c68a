//! The command line.
//!
//! Options have the names and the letters of pg_rewind and sys_rewind, and wrong usage has their words
//! and their exit status.

use std::ffi::OsString;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::commands::hook::HookArgs;
use crate::commands::inspect::InspectArgs;
use crate::commands::package::{CompletionsArgs, ManArgs};

/// What the command line asks for.
pub(crate) enum Invocation {
    /// To do something.
    Run(Command),
    /// To print this and end.
    Help(String),
    /// Something that is not to be had.
    Wrong(WrongUsage),
}

/// A command line that was not understood.
#[derive(PartialEq, Debug)]
pub(crate) struct WrongUsage {
    /// What is wrong with it.
    pub(crate) message: String,
    /// The command whose `--help` says what is right.
    pub(crate) command: String,
}

/// Reads the command line, the program's name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = match arguments.get(1).and_then(|argument| argument.to_str()) {
        Some("rewind") => "kbrecover rewind",
        Some("status") => "kbrecover status",
        Some("grants") => "kbrecover grants",
        Some("inspect") => "kbrecover inspect",
        Some("hook") => "kbrecover hook",
        Some("completions") => "kbrecover completions",
        Some("man") => "kbrecover man",
        _ => "kbrecover",
    };
    let wrong = |message: String| {
        let message = without_password(&message);
        Invocation::Wrong(WrongUsage { message, command: command.to_owned() })
    };
    match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Some(command), .. }) => Invocation::Run(command),
        Ok(Cli { command: None, .. }) => wrong("no command specified".to_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Invocation::Help(error.render().to_string())
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            wrong("nothing to inspect specified (control, wal, pagemap or history)".to_owned())
        }
        Err(error) => wrong(message_of(&error)),
    }
}

/// Brings an old primary back as a standby of the new one.
#[derive(Parser)]
#[command(name = "kbrecover", version, propagate_version = true, infer_long_args = true)]
#[command(disable_help_subcommand = true, disable_help_flag = true, max_term_width = 100)]
struct Cli {
    /// Show this help
    #[arg(short = '?', short_alias = 'h', long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,

    #[command(subcommand)]
    command: Option<Command>,
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a stopped, diverged data directory follow the source's history again
    Rewind(Box<RewindArgs>),
    /// Print the SQL that gives a role the least it needs to be read from
    Grants(GrantsArgs),
    /// Show what state a data directory is in
    Status(StatusArgs),
    /// Show what is in a control file, in WAL or in a timeline history
    Inspect(Box<InspectArgs>),
    /// Recover a node of a cluster: what cron and cluster managers call
    Hook(Box<HookArgs>),
    /// Print a script that makes a shell complete kbrecover's command line
    Completions(CompletionsArgs),
    /// Print the manual page, or write all pages
    Man(ManArgs),
}

/// The whole command line, for what is made of its description. Each command is shown under its full
/// name, while a version line has the program's alone.
pub(crate) fn description() -> clap::Command {
    fn named(command: clap::Command, name: &str) -> clap::Command {
        let name = name.to_owned();
        command.display_name(name.clone()).mut_subcommands(|command| {
            let name = format!("{name}-{}", command.get_name());
            named(command, &name)
        })
    }
    named(Cli::command(), "kbrecover")
}

/// The options of `kbrecover rewind`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = AFTER_HELP)]
pub(crate) struct RewindArgs {
    /// Data directory to rewind; its server must be stopped
    #[arg(short = 'D', long, value_name = "DIR", overrides_with = "target_data", help_heading = "Target")]
    #[arg(visible_alias = "target-pgdata", visible_alias = "target-kingbase-data")]
    pub(crate) target_data: Option<PathBuf>,

    /// What made both data directories, if looking at them does not tell
    #[arg(long, value_name = "NAME", value_parser = flavor_names(), overrides_with = "flavor")]
    #[arg(help_heading = "Target")]
    pub(crate) flavor: Option<String>,

    /// The target's postgresql.conf, if it is not found in DIR
    #[arg(long, value_name = "FILE", overrides_with = "config_file", help_heading = "Target")]
    pub(crate) config_file: Option<PathBuf>,

    /// Let the target's own server finish its crash recovery first; without this its WAL is read as it is
    #[arg(long, overrides_with_all = ["ensure_shutdown", "no_ensure_shutdown"], help_heading = "Target")]
    pub(crate) ensure_shutdown: bool,

    /// Refuse a target that was not shut down cleanly
    #[arg(long, overrides_with_all = ["no_ensure_shutdown", "ensure_shutdown"], help_heading = "Target")]
    pub(crate) no_ensure_shutdown: bool,

    /// Where the programs of the target's server are, for --ensure-shutdown
    #[arg(long, value_name = "DIR", overrides_with = "bindir", help_heading = "Target")]
    pub(crate) bindir: Option<PathBuf>,

    /// Running server to copy from, as a libpq connection string
    #[arg(long, value_name = "CONNSTR", overrides_with = "source_server", help_heading = "Source (one of)")]
    pub(crate) source_server: Option<String>,

    /// Data directory of a stopped server to copy from
    #[arg(long, value_name = "DIR", overrides_with = "source_data", help_heading = "Source (one of)")]
    #[arg(visible_alias = "source-pgdata")]
    pub(crate) source_data: Option<PathBuf>,

    /// How long to try again when the connection to the source server is lost; 0: not at all
    #[arg(long, value_name = "SECONDS", default_value_t = 60, overrides_with = "retry_timeout")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=31_536_000), help_heading = "Source (one of)")]
    pub(crate) retry_timeout: u64,

    /// Directory with copies of WAL files that the target no longer has (may be given several times)
    #[arg(long, value_name = "DIR", help_heading = "Missing WAL of the target")]
    pub(crate) wal_dir: Vec<PathBuf>,

    /// Fetch missing WAL with the restore_command of the target's configuration
    #[arg(
        short = 'c',
        long,
        overrides_with = "restore_target_wal",
        help_heading = "Missing WAL of the target"
    )]
    pub(crate) restore_target_wal: bool,

    /// Fetch missing WAL with this command (%f: file wanted, %p: where to put it)
    #[arg(long, value_name = "CMD", overrides_with = "restore_command")]
    #[arg(help_heading = "Missing WAL of the target")]
    pub(crate) restore_command: Option<String>,

    /// Only show what would be done
    #[arg(short = 'n', long, overrides_with = "dry_run", help_heading = "What to do")]
    pub(crate) dry_run: bool,

    /// Try all that a rewind could fail with before its first change, and stop there
    #[arg(long, overrides_with = "check", help_heading = "What to do")]
    pub(crate) check: bool,

    /// Go on although there seems to be too little free space
    #[arg(long, overrides_with = "ignore_free_space", help_heading = "What to do")]
    pub(crate) ignore_free_space: bool,

    /// Keep files of the target that match, besides the usual ones; "none" forgets those (may be given several times)
    #[arg(long, value_name = "GLOB", help_heading = "What to do")]
    pub(crate) keep: Vec<String>,

    /// Before the first change, copy the target's WAL from the fork on to this directory
    #[arg(long, value_name = "DIR", overrides_with = "keep_diverged", help_heading = "What to do")]
    pub(crate) keep_diverged: Option<PathBuf>,

    /// With --keep-diverged: and all bytes of other files that will be overwritten or removed
    #[arg(long, requires = "keep_diverged", overrides_with = "keep_diverged_blocks")]
    #[arg(help_heading = "What to do")]
    pub(crate) keep_diverged_blocks: bool,

    /// Before the first change, archive WAL of the target that waits for it with its archive_command
    #[arg(long, overrides_with = "archive_ready", help_heading = "What to do")]
    pub(crate) archive_ready: bool,

    /// Make the target a standby of --source-server
    #[arg(short = 'R', long, overrides_with = "write_recovery_conf", help_heading = "What to do")]
    pub(crate) write_recovery_conf: bool,

    /// Copy every block that the target changed, even if replay makes it anew in any case
    #[arg(long, overrides_with = "copy_all_changed", help_heading = "What to do")]
    pub(crate) copy_all_changed: bool,

    /// Copy what differs even if the target is on the source's timeline and could follow as it is
    #[arg(long, overrides_with = "same_timeline_resync", help_heading = "What to do")]
    pub(crate) same_timeline_resync: bool,

    /// Do not wait until what was written is safely on disk
    #[arg(short = 'N', long, overrides_with = "no_sync", help_heading = "What to do")]
    pub(crate) no_sync: bool,

    /// How to wait for that: for each file that was written, or for whole file systems
    #[arg(long, value_enum, value_name = "METHOD", default_value = "fsync", overrides_with = "sync_method")]
    #[arg(help_heading = "What to do")]
    pub(crate) sync_method: SyncMethod,

    /// Compare files before copying them whole, and copy only what differs
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", overrides_with = "delta")]
    #[arg(help_heading = "What to do")]
    pub(crate) delta: DeltaChoice,

    /// Fetch no more than this per second: kB, or with k, M or G at the end
    #[arg(long, value_name = "RATE", overrides_with = "max_rate", help_heading = "What to do")]
    #[arg(value_parser = rate)]
    pub(crate) max_rate: Option<NonZeroU64>,

    /// Threads and connections to use [default: one for each processor, and 2 to 4 connections]
    #[arg(short = 'j', long, value_name = "N", overrides_with = "jobs", help_heading = "What to do")]
    #[arg(value_parser = positive)]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// Show progress
    #[arg(short = 'P', long, overrides_with = "progress", help_heading = "Output")]
    pub(crate) progress: bool,

    /// Show debugging messages
    #[arg(long, overrides_with = "debug", help_heading = "Output")]
    pub(crate) debug: bool,

    /// What to print on standard output: a dry run's plan (text) or an object about any run (json)
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    #[arg(help_heading = "Output")]
    pub(crate) format: Format,
}

/// How what was written is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SyncMethod {
    Fsync,
    Syncfs,
}

/// The options of `kbrecover grants`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = GRANTS_HELP)]
pub(crate) struct GrantsArgs {
    /// Major version of the source server: 9.6, 10, ... 18
    #[arg(long, value_name = "VERSION", value_parser = server_version, overrides_with = "source_version")]
    pub(crate) source_version: u32,

    /// The role
    #[arg(long, value_name = "NAME", default_value = "rewind_user", overrides_with = "role")]
    pub(crate) role: String,
}

const GRANTS_HELP: &str = "\
Connects to nothing. To be run by a superuser on the primary, in the database that the connection string names.";

/// The `server_version_num` of a version with or without its minor number.
fn server_version(text: &str) -> Result<u32, String> {
    let major =
        |name: &str| text == name || text.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let known = walparse::Version::all().find(|version| major(version.name()));
    known
        .map(walparse::Version::server_version_num)
        .ok_or_else(|| "no version of PostgreSQL from 9.6 to 18".to_owned())
}

/// The options of `kbrecover status`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = STATUS_HELP)]
pub(crate) struct StatusArgs {
    /// Data directory to look at; a server may run on it
    #[arg(short = 'D', long, value_name = "DIR", overrides_with = "target_data")]
    #[arg(visible_alias = "target-pgdata", visible_alias = "target-kingbase-data")]
    pub(crate) target_data: Option<PathBuf>,

    /// What to print: lines, or one object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

const STATUS_HELP: &str = "\
Only reads and takes no lock.

Exit status, by the state of the directory:
  0  clean
  1  could not be told: no data directory, or one of its files cannot be read
  2  a rewind has not finished: no server starts, run it again
  3  a server runs on it
  4  kbrecover works on it
  5  rewound, and no server has been started since
  6  not stopped in order: the next start begins with recovery
  7  a base backup that no server has been started on";

const AFTER_HELP: &str = "\
Copies from the source only what differs since both histories parted. Afterwards the target can be started as a standby. \
What only the target has written since then is lost.

Configuration files, keys, certificates, logs and standby.signal of the target stay its own; --keep none makes them the \
source's, as pg_rewind does. Data cannot be kept.

Exit status: 0 done or not needed; 1 failed, the target is untouched; 2 failed, the target is changed in part and must \
not be started.";

/// A count that makes sense.
fn positive(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it must be a whole number of at least 1".to_owned())
}

/// The flavors one may name.
pub(crate) fn flavor_names() -> PossibleValuesParser {
    PossibleValuesParser::new(walparse::Flavor::keys())
}

/// When files are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum DeltaChoice {
    /// Unless copying is seen to be faster
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

/// Bytes per second, written as pg_basebackup takes a rate: a number of kB, or one with a unit.
fn rate(text: &str) -> Result<NonZeroU64, String> {
    let (number, unit) = match text.strip_suffix(['k', 'M', 'G']) {
        Some(number) if text.ends_with('M') => (number, 1 << 20),
        Some(number) if text.ends_with('G') => (number, 1 << 30),
        Some(number) => (number, 1 << 10),
        None => (text, 1 << 10),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| NonZeroU64::new(number.checked_mul(unit)?));
    bytes.ok_or_else(|| {
        "it must be a whole number of at least 1, in kB or with k, M or G at the end".to_owned()
    })
}

/// What standard output is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// The error in one line, without clap's own usage text.
fn message_of(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
        && !argument.starts_with('-')
    {
        return format!("too many command-line arguments (first is \"{argument}\")");
    }
    let text = error.render().to_string();
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let text = lines.join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

/// Hides passwords in text that repeats the command line: a connection string that was not quoted well
/// arrives in pieces, and one of them is its password.
pub(crate) fn without_password(text: &str) -> String {
    const HIDDEN: &str = "********";
    let mut text = text.to_owned();
    let mut from = 0;
    while let Some(at) = text[from..].to_ascii_lowercase().find("password") {
        let start = from + at + "password".len();
        let value = text[start..].trim_start_matches(is_space_or('='));
        from = start;
        if value.len() < text.len() - start {
            let begin = text.len() - value.len();
            let end = begin + value_length(value);
            text.replace_range(begin..end, HIDDEN);
            from = begin + HIDDEN.len();
        }
    }
    // scheme://user:password@host
    if let Some(authority) = text.find("://").map(|at| at + 3)
        && let Some(host) = text[authority..].rfind('@').map(|at| authority + at)
        && let Some(colon) = text[authority..host].find(':').map(|at| authority + at)
    {
        text.replace_range(colon + 1..host, HIDDEN);
    }
    text
}

/// What separates the words of a connection string, or this character.
fn is_space_or(other: char) -> impl Fn(char) -> bool {
    move |character| character == other || character.is_ascii_whitespace() || character == '\x0b'
}

/// The length of the value at the beginning of `text`: quoted, or up to a space or what ends a URI's value. A
/// backslash makes the next character part of it.
fn value_length(text: &str) -> usize {
    let quoted = text.starts_with('\'');
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '\'' if quoted => return at + 1,
            '&' | '"' if !quoted => return at,
            _ if !quoted && is_space_or('&')(character) => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
pub(crate) fn rewind_args(arguments: &str) -> RewindArgs {
    let words = ["kbrecover", "rewind"].into_iter().chain(arguments.split_whitespace());
    match parse(words.map(OsString::from)) {
        Invocation::Run(Command::Rewind(args)) => *args,
        Invocation::Run(_) => panic!("another command"),
        Invocation::Help(text) => panic!("{text}"),
        Invocation::Wrong(wrong) => panic!("{wrong:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(arguments: &[&str]) -> WrongUsage {
        match parse(arguments.iter().map(OsString::from)) {
            Invocation::Wrong(wrong) => wrong,
            _ => panic!("{arguments:?} was accepted"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn names_letters_and_spellings() {
        for target in [
            "-D /d",
            "-D/d",
            "--target-data /d",
            "--target-data=/d",
            "--target-pgdata=/d",
            "--target-kingbase-data=/d",
            "--target-d /d",
            "-PD /d",
            "-D /other -D /d",
        ] {
            assert_eq!(rewind_args(target).target_data, Some(PathBuf::from("/d")), "{target}");
        }
        let args = rewind_args(
            "-nPRcN -j 4 --source-pgdata=/s --wal-dir a --debug --wal-dir=b -P --format json --bindir /b \
             --ensure-shutdown --copy-all-changed --restore-command cp --config-file=/c",
        );
        assert!(args.dry_run && args.progress && args.write_recovery_conf && args.restore_target_wal);
        assert!(args.no_sync && args.copy_all_changed && args.debug && args.ensure_shutdown);
        assert_eq!(args.wal_dir, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((args.jobs, args.format), (NonZeroUsize::new(4), Format::Json));
        assert_eq!(args.source_data, Some(PathBuf::from("/s")));
        assert_eq!(args.restore_command.as_deref(), Some("cp"));
        assert_eq!(rewind_args("").format, Format::Text);
        assert_eq!((rewind_args("").delta, rewind_args("").max_rate), (DeltaChoice::Auto, None));
        assert_eq!(rewind_args("--delta on --delta off").delta, DeltaChoice::Off);
        for (text, bytes) in [("32", 32 << 10), ("32k", 32 << 10), ("5M", 5 << 20), ("2G", 2 << 30)] {
            let args = rewind_args(&format!("--max-rate {text}"));
            assert_eq!(args.max_rate.map(NonZeroU64::get), Some(bytes), "{text}");
        }
    }

    #[test]
    fn help_and_version_need_nothing_else() {
        for (arguments, expected) in [
            (vec!["kbrecover", "--version"], "kbrecover 0."),
            (vec!["kbrecover", "rewind", "-V"], "kbrecover 0."),
            (vec!["kbrecover", "--help"], "rewind"),
            (vec!["kbrecover", "rewind", "--help"], "--target-data"),
            (vec!["kbrecover", "rewind", "-?"], "--wal-dir"),
            (vec!["kbrecover", "rewind", "-D", "/d", "-h"], "--restore-target-wal"),
        ] {
            match parse(arguments.iter().map(OsString::from)) {
                Invocation::Help(text) => assert!(text.contains(expected), "{text}"),
                _ => panic!("{arguments:?}"),
            }
        }
    }

    #[test]
    fn wrong_usage_has_the_original_words() {
        let usage = wrong(&["kbrecover", "rewind", "-D", "/d", "extra"]);
        assert_eq!(usage.message, "too many command-line arguments (first is \"extra\")");
        assert_eq!(usage.command, "kbrecover rewind");
        assert_eq!(
            wrong(&["kbrecover", "rewind", "--nonsense"]).message,
            "unexpected argument '--nonsense' found"
        );
        for jobs in ["0", "-1", "x", "99999999999999999999"] {
            let message = wrong(&["kbrecover", "rewind", &format!("-j{jobs}")]).message;
            let expected = "for '--jobs <N>': it must be a whole number of at least 1";
            assert!(message.ends_with(expected) && message.contains(jobs), "{message}");
        }
        for rate in ["0", "M", "-1", "1.5M", "1T", "99999999999999999999", "18014398509481984k"] {
            let message = wrong(&["kbrecover", "rewind", &format!("--max-rate={rate}")]).message;
            assert!(message.contains("for '--max-rate <RATE>': it must be a whole number"), "{message}");
        }
        assert!(wrong(&["kbrecover", "rewind", "--format", "xml"]).message.contains("xml"));
        assert!(wrong(&["kbrecover", "rewind", "-D"]).message.contains("--target-data"));
        assert_eq!(wrong(&["kbrecover"]).message, "no command specified");
        assert_eq!(wrong(&["kbrecover", "undo"]).command, "kbrecover");
        let usage = wrong(&["kbrecover", "inspect"]);
        assert_eq!(usage.message, "nothing to inspect specified (control, wal, pagemap or history)");
        assert_eq!(usage.command, "kbrecover inspect");
        assert!(wrong(&["kbrecover", "inspect", "wal", "f", "--block", "1"]).message.contains("--relation"));
        assert!(wrong(&["kbrecover", "inspect", "wal", "f", "--start", "1"]).message.contains("--start"));
    }

    #[test]
    fn a_password_on_the_command_line_is_not_repeated() {
        let usage = wrong(&["kbrecover", "rewind", "--source-server=host=a", "password=s3cret"]);
        assert_eq!(usage.message, "too many command-line arguments (first is \"password=********\")");
        for (text, hidden) in [
            ("x 'sslPassword = s3cret' y", "x 'sslPassword = ******** y"),
            ("password='s3 \\' cret' y", "password=******** y"),
            (r"password=s3\ cret\'s y", "password=******** y"),
            ("password='s3 cret", "password=********"),
            ("postgres://u:s3cret@h:1/db", "postgres://u:********@h:1/db"),
            ("postgres://h/db?password=s3cret&x=1", "postgres://h/db?password=********&x=1"),
            ("password\t=\ns3cret\ty", "password\t=\n********\ty"),
            ("password\x0b= s3cret", "password\x0b= ********"),
            ("passwords are not shown", "passwords are not shown"),
            ("password", "password"),
            ("a://b@c", "a://b@c"),
            ("é", "é"),
        ] {
            assert_eq!(without_password(text), hidden);
        }
    }
}
