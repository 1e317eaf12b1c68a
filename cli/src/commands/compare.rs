//! `kbrecover compare`: whether a stopped node has what its source has.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kbrecover_rewind::conninfo::ProcessEnvironment;
use kbrecover_rewind::{Comparison, Options};

use crate::commands::common::{self, ShownArgs};
use crate::commands::rewind::{positive, rate};
use crate::failure::{Failed, SetupError};
use crate::logging;
use crate::output;
use crate::persona::KBRECOVER;
use crate::progress;
use crate::report;
use crate::screen::{self, Screen};
use crate::signals;
use crate::values::{Format, flavor_names};

const AFTER_HELP: &str = "\
Compares every block of the relations' main forks and changes nothing. The node's server must be stopped; the source may run.

Blocks that the source has changed after the point up to which the node's data is complete, or has not written to its disk \
yet, are counted apart: replay changes them. So are blocks that differ only in what servers change without WAL: hint bits, index entries \
marked as dead, unused space, values of sequences. Unlogged tables, free space maps, visibility maps and files that belong to no relation, \
such as the commit log, are not compared.

If contents differ, run kbrecover rewind with --compare-data: without it, a node that has not diverged is left as it is.";

/// The options of `kbrecover compare`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = AFTER_HELP)]
pub(crate) struct CompareArgs {
    /// Data directory of the node; its server must be stopped
    #[arg(short = 'D', long, value_name = "DIR", overrides_with = "target_data", help_heading = "Node")]
    #[arg(visible_alias = "target-pgdata", visible_alias = "target-kingbase-data")]
    target_data: Option<PathBuf>,

    /// Product that created both directories (default: detected)
    #[arg(long, value_name = "NAME", value_parser = flavor_names(), overrides_with = "flavor")]
    #[arg(help_heading = "Node")]
    flavor: Option<String>,

    /// Running server to compare with, as a libpq connection string
    #[arg(long, value_name = "CONNSTR", overrides_with = "source_server")]
    #[arg(help_heading = "Source (a server or a directory)")]
    source_server: Option<String>,

    /// Data directory of a stopped server to compare with
    #[arg(long, value_name = "DIR", overrides_with = "source_data", visible_alias = "source-pgdata")]
    #[arg(help_heading = "Source (a server or a directory)")]
    source_data: Option<PathBuf>,

    /// How long to retry after losing the connection to the source server; 0 disables retries
    #[arg(long, value_name = "SECONDS", default_value_t = 60, overrides_with = "retry_timeout")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=31_536_000), help_heading = "Source (a server or a directory)")]
    retry_timeout: u64,

    /// Maximum rate per second at which each side is read, in kB or with unit, such as 50MB
    #[arg(long, value_name = "RATE", overrides_with = "max_rate", help_heading = "Behavior")]
    #[arg(value_parser = rate)]
    max_rate: Option<NonZeroU64>,

    /// Number of threads and connections [default: a thread per processor, 2 to 4 connections]
    #[arg(short = 'j', long, value_name = "N", overrides_with = "jobs", help_heading = "Behavior")]
    #[arg(value_parser = positive)]
    jobs: Option<NonZeroUsize>,

    #[command(flatten)]
    shown: ShownArgs,

    /// Output format: text, or one JSON object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    #[arg(help_heading = "Output")]
    format: Format,
}

/// Runs the command. The exit status tells whether contents differ.
pub(crate) fn run(args: &CompareArgs) -> ExitCode {
    let screen = Arc::new(Screen::of(KBRECOVER));
    logging::init(Arc::clone(&screen), args.shown.verbosity());
    match compare(args, &screen) {
        Ok(comparison) => {
            let result = match args.format {
                Format::Text => report::compare::text(&comparison),
                Format::Json => report::compare::json(&comparison),
            };
            output::print(&result, ExitCode::from(if comparison.is_equal() { 0 } else { 2 }))
        }
        Err(failed) => {
            if args.format == Format::Json {
                screen::to_stdout(&report::compare::json_of_failure(&failed));
            }
            failed.show(&screen)
        }
    }
}

fn compare(args: &CompareArgs, screen: &Arc<Screen>) -> Result<Comparison, Failed> {
    let target = args.target_data.clone().ok_or(SetupError::NoDirectory { command: COMMAND })?;
    let (directory, server) = (args.source_data.as_deref(), args.source_server.as_deref());
    let source = common::source(directory, server, &ProcessEnvironment::PostgreSql, COMMAND)?;
    let mut options = Options::new(target, source);
    options.flavor.clone_from(&args.flavor);
    options.retry_timeout = Duration::from_secs(args.retry_timeout);
    options.max_rate = args.max_rate;
    options.jobs = args.jobs;
    signals::listen(&options.stop, &options.target, screen)?;
    let progress = progress::progress(screen, args.shown.narrator(screen, false));
    Ok(kbrecover_rewind::compare(&options, &*progress)?)
}

/// The command's name, for hints.
const COMMAND: &str = "kbrecover compare";
