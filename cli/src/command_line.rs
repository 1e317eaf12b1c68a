//! The command line.
//!
//! Options have the long and short names of pg_rewind and sys_rewind. Usage errors have their words and
//! their exit status.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::color::{self, ColorChoice};
use crate::commands::compare::CompareArgs;
use crate::commands::grants::GrantsArgs;
use crate::commands::hook::HookArgs;
use crate::commands::inspect::InspectArgs;
use crate::commands::lost::LostArgs;
use crate::commands::package::{CompletionsArgs, ManArgs};
use crate::commands::restore::RestoreArgs;
use crate::commands::rewind::RewindArgs;
use crate::commands::status::StatusArgs;
use crate::manual;
use crate::passwords::without_password;

/// What the command line asks for.
pub(crate) enum Invocation {
    /// Run a command.
    Run(Command),
    /// Print this text and exit.
    Help(String),
    /// Report a usage error.
    Wrong(WrongUsage),
}

/// A usage error.
#[derive(PartialEq, Debug)]
pub(crate) struct WrongUsage {
    /// What is wrong.
    pub(crate) message: String,
    /// The word that may have been meant.
    pub(crate) meant: Option<String>,
    /// The command whose `--help` the hint names.
    pub(crate) command: String,
    /// The help of that command, which is shown instead of the hint.
    pub(crate) help: Option<String>,
}

/// Parses the command line, which starts with the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut definition = manual::with_examples(Cli::command());
    let command = named(&definition, &arguments);
    let wrong = |message: String, meant: Option<String>| {
        let message = without_password(&message);
        Invocation::Wrong(WrongUsage { message, meant, command: command.join(" "), help: None })
    };
    let parsed = definition
        .try_get_matches_from_mut(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut definition)));
    match parsed {
        Ok(Cli { command: Some(command), color, .. }) => {
            color::choose(color);
            Invocation::Run(command)
        }
        Ok(Cli { command: None, .. }) => wrong("no command specified".to_owned(), None),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Invocation::Help(error.render().to_string())
        }
        Err(error) if is_without_subcommand(&error) => {
            let help = match help_of(&command[1..]) {
                Invocation::Help(help) => Some(help),
                _ => None,
            };
            let message = "no subcommand specified".to_owned();
            Invocation::Wrong(WrongUsage { message, meant: None, command: command.join(" "), help })
        }
        Err(error) => wrong(message_of(&error), meant_by(&error)),
    }
}

fn is_without_subcommand(error: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    matches!(error.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand)
}

/// The command and the subcommands that the arguments name, also if options stand between them.
fn named(definition: &clap::Command, arguments: &[OsString]) -> Vec<String> {
    let mut names = vec!["kbrecover".to_owned()];
    let mut command = definition;
    for argument in arguments.iter().skip(1) {
        let Some(found) = command.find_subcommand(argument) else { continue };
        names.push(found.get_name().to_owned());
        command = found;
    }
    names
}

/// What `kbrecover help COMMAND` asks for: the same as `kbrecover COMMAND --help`.
pub(crate) fn help_of(command: &[String]) -> Invocation {
    let words = ["kbrecover"].into_iter().chain(command.iter().map(String::as_str)).chain(["--help"]);
    parse(words.map(OsString::from))
}

/// What `kbrecover version` asks for: the same as `kbrecover --version`.
pub(crate) fn version() -> Invocation {
    parse(["kbrecover", "--version"].map(OsString::from))
}

/// Brings a former primary back as a standby of the new primary
#[derive(Parser)]
#[command(name = "kbrecover", version, propagate_version = true, infer_long_args = true)]
#[command(disable_help_subcommand = true, disable_help_flag = true, max_term_width = 100)]
struct Cli {
    /// Show this help
    #[arg(short = '?', short_alias = 'h', long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,

    /// Color messages: on a terminal unless NO_COLOR is set (auto), always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        global = true,
        hide_possible_values = true
    )]
    color: ColorChoice,

    #[command(subcommand)]
    command: Option<Command>,
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Rewind a stopped data directory so that it can follow the source
    Rewind(Box<RewindArgs>),
    /// Compare a stopped data directory with its source, block by block
    Compare(Box<CompareArgs>),
    /// List the transactions that a rewind gives up, with every row that they have changed
    Lost(Box<LostArgs>),
    /// Restore a data directory as it was before a rewind that has saved what it discards
    Restore(RestoreArgs),
    /// Print the SQL that grants a role the privileges to read the source
    Grants(GrantsArgs),
    /// Show the state of a data directory
    Status(StatusArgs),
    /// Show the contents of a control file, of WAL or of a timeline history
    Inspect(Box<InspectArgs>),
    /// Recover a node of a cluster; to be called by cron or a cluster manager
    Hook(Box<HookArgs>),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page of kbrecover, or write a page for each command
    Man(ManArgs),
    /// Show the help of kbrecover or of a command
    Help(HelpArgs),
    /// Show the version
    Version,
}

/// The options of `kbrecover help`.
#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct HelpArgs {
    /// Command to show the help of, such as "inspect wal"
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// The definition of the command line, from which completions and manual pages are generated. Each
/// command has its full name there, `kbrecover-rewind`; its `--version` shows the program's name only.
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

/// The error on one line, without clap's usage text.
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

/// The command, option or value that may have been meant.
fn meant_by(error: &clap::Error) -> Option<String> {
    let kinds = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(word) => Some(word.clone()),
        // The last one is the most similar.
        ContextValue::Strings(words) => words.last().cloned(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU64, NonZeroUsize};
    use std::path::PathBuf;

    use super::*;
    use crate::commands::rewind::DeltaChoice;
    use crate::values::Format;

    fn rewind_args(arguments: &str) -> RewindArgs {
        let words = ["kbrecover", "rewind"].into_iter().chain(arguments.split_whitespace());
        match parse(words.map(OsString::from)) {
            Invocation::Run(Command::Rewind(args)) => *args,
            Invocation::Run(_) => panic!("another command"),
            Invocation::Help(text) => panic!("{text}"),
            Invocation::Wrong(wrong) => panic!("{wrong:?}"),
        }
    }

    fn wrong(arguments: &[&str]) -> WrongUsage {
        match parse(arguments.iter().map(OsString::from)) {
            Invocation::Wrong(wrong) => wrong,
            _ => panic!("{arguments:?} was accepted"),
        }
    }

    #[test]
    fn the_command_definition_is_valid() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn options_have_aliases_letters_and_abbreviations() {
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
        assert!(args.dry_run && args.shown.progress && args.write_recovery_conf && args.restore_target_wal);
        assert!(args.no_sync && args.copy_all_changed && args.shown.debug && args.ensure_shutdown);
        assert_eq!(args.wal_dir, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((args.jobs, args.format), (NonZeroUsize::new(4), Format::Json));
        assert_eq!(args.source_data, Some(PathBuf::from("/s")));
        assert_eq!(args.restore_command.as_deref(), Some("cp"));
        assert_eq!(rewind_args("").format, Format::Text);
        assert_eq!((rewind_args("").delta, rewind_args("").max_rate), (DeltaChoice::Auto, None));
        assert_eq!(rewind_args("--delta on --delta off").delta, DeltaChoice::Off);
        for (text, bytes) in [
            ("32", 32 << 10),
            ("32k", 32 << 10),
            ("32kB", 32 << 10),
            ("5M", 5 << 20),
            ("50MB", 50 << 20),
            ("50MiB", 50 << 20),
            ("2G", 2 << 30),
            ("2gb", 2 << 30),
        ] {
            let args = rewind_args(&format!("--max-rate {text}"));
            assert_eq!(args.max_rate.map(NonZeroU64::get), Some(bytes), "{text}");
        }
    }

    #[test]
    fn help_and_version_need_no_other_option() {
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
    fn usage_errors_have_the_words_of_pg_rewind() {
        let usage = wrong(&["kbrecover", "rewind", "-D", "/d", "extra"]);
        assert_eq!(usage.message, "too many command-line arguments (first is \"extra\")");
        assert_eq!(usage.command, "kbrecover rewind");
        assert_eq!(
            wrong(&["kbrecover", "rewind", "--nonsense"]).message,
            "unexpected argument '--nonsense' found"
        );
        for jobs in ["0", "-1", "x", "99999999999999999999"] {
            let message = wrong(&["kbrecover", "rewind", &format!("-j{jobs}")]).message;
            let expected = "for '--jobs <N>': must be a positive integer";
            assert!(message.ends_with(expected) && message.contains(jobs), "{message}");
        }
        for rate in ["0", "M", "-1", "1.5M", "1T", "5MBs", "99999999999999999999", "18014398509481984k"] {
            let message = wrong(&["kbrecover", "rewind", &format!("--max-rate={rate}")]).message;
            assert!(message.contains("for '--max-rate <RATE>': must be a positive integer"), "{message}");
        }
        assert!(wrong(&["kbrecover", "rewind", "--format", "xml"]).message.contains("xml"));
        assert!(wrong(&["kbrecover", "rewind", "-D"]).message.contains("--target-data"));
        assert_eq!(wrong(&["kbrecover"]).message, "no command specified");
        assert_eq!(wrong(&["kbrecover", "undo"]).command, "kbrecover");
        let usage = wrong(&["kbrecover", "inspect"]);
        assert_eq!(usage.message, "no subcommand specified");
        assert_eq!(usage.command, "kbrecover inspect");
        assert_eq!(
            wrong(&["kbrecover", "hook", "v8r6", "-f", "c", "rejoin"]).command,
            "kbrecover hook v8r6 rejoin"
        );
        assert!(wrong(&["kbrecover", "inspect", "wal", "f", "--block", "1"]).message.contains("--relation"));
        assert!(wrong(&["kbrecover", "inspect", "wal", "f", "--start", "1"]).message.contains("--start"));
    }

    #[test]
    fn without_a_subcommand_the_help_of_the_command_is_shown() {
        for (words, subcommand) in [
            (vec!["inspect"], "pagemap"),
            (vec!["hook"], "v8r6"),
            (vec!["hook", "v8r6"], "rejoin"),
            (vec!["hook", "v8r6", "-f", "repmgr.conf"], "rejoin"),
        ] {
            let words: Vec<_> = ["kbrecover"].into_iter().chain(words).collect();
            let usage = wrong(&words);
            let help = usage.help.unwrap_or_default();
            assert_eq!(usage.message, "no subcommand specified", "{words:?}");
            assert!(help.contains(&format!("Usage: {} ", usage.command)), "{help}");
            assert!(help.contains(&format!("\n  {subcommand} ")), "{help}");
        }
    }

    #[test]
    fn every_command_has_examples_in_its_help() {
        fn check(command: &clap::Command, name: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{name}: {help}"));
            assert!(examples.lines().filter(|line| line.starts_with("  kbrecover")).count() >= 2, "{name}");
            command.get_subcommands().for_each(|of| check(of, &format!("{name} {}", of.get_name())));
        }
        check(&manual::with_examples(Cli::command()), "kbrecover");
    }

    #[test]
    fn the_examples_are_understood() {
        for line in manual::example_lines() {
            for part in line.split(" && ").flat_map(|part| part.split(" || ")) {
                let words = shell_words::split(part).unwrap();
                let words = words.iter().take_while(|word| !["|", ">"].contains(&word.as_str()));
                match parse(words.map(OsString::from)) {
                    Invocation::Run(_) | Invocation::Help(_) => {}
                    Invocation::Wrong(wrong) => assert!(part.starts_with(". "), "{line}: {wrong:?}"),
                }
            }
        }
    }

    #[test]
    fn what_may_have_been_meant_is_told() {
        for (arguments, meant) in [
            (vec!["rewynd"], Some("rewind")),
            (vec!["rewind", "--source-sever=x"], Some("--source-server")),
            (vec!["rewind", "--format", "jsn"], Some("json")),
            (vec!["inspect", "controll", "f"], Some("control")),
            (vec!["hook", "v8r6", "-f", "c", "rejion"], Some("rejoin")),
            (vec!["zzz"], None),
            (vec!["rewind", "-D"], None),
        ] {
            let words: Vec<_> = ["kbrecover"].into_iter().chain(arguments).collect();
            assert_eq!(wrong(&words).meant.as_deref(), meant, "{words:?}");
        }
    }

    #[test]
    fn help_and_version_are_commands_too() {
        let help = |invocation| match invocation {
            Invocation::Help(text) => text,
            _ => panic!("no help"),
        };
        let of =
            |words: &[&str]| help(help_of(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()));
        assert!(of(&[]).contains("\nCommands:\n"));
        assert!(of(&["rewind"]).contains("--target-data"));
        assert!(of(&["inspect", "wal"]).contains("--rmgr"));
        assert!(help(version()).starts_with("kbrecover 0."));
        match help_of(&["rewynd".to_owned()]) {
            Invocation::Wrong(wrong) => assert_eq!(wrong.meant.as_deref(), Some("rewind")),
            _ => panic!("a command that does not exist"),
        }
    }

    #[test]
    fn usage_errors_do_not_repeat_passwords() {
        let usage = wrong(&["kbrecover", "rewind", "--source-server=host=a", "password=s3cret"]);
        assert_eq!(usage.message, "too many command-line arguments (first is \"password=********\")");
    }
}
