//! `kbrecover lost`: what a rewind of a node gives up.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kbrecover_rewind::conninfo::ProcessEnvironment;
use kbrecover_rewind::{
    ExportOptions, KEPT_LOST, KEPT_MANIFEST, LostCounter, LostFilter, LostJson, Options, Since, SourceChoice,
};
use walparse::Lsn;

use crate::commands::common::{self, ShownArgs};
use crate::failure::{Failed, SetupError};
use crate::logging;
use crate::output;
use crate::persona::KBRECOVER;
use crate::progress;
use crate::screen::Screen;
use crate::signals;
use crate::values::{Format, flavor_names};

const AFTER_HELP: &str = "\
Lists the transactions that the node has committed since its history left the source's: a rewind gives them up. Reads only, and \
needs no server: the node may have been stopped, or have crashed. Each row that was inserted, updated or deleted is listed with \
its values before and after, as far as WAL and the node's files have them.

--export DIR writes them to files: transactions.json, a CSV file for each table, apply.sql, which gives them to the new primary row \
by row and overwrites nothing, report.html for those who own the data, and summary.txt. They hold user data: only their owner can \
read them.

Of a directory made by --keep-diverged the lost/ in it is read, and a part of it can be chosen; the source server is asked only what it \
has by now.

Rows of unlogged and temporary tables are not in WAL, and so not listed.";

/// The options of `kbrecover lost`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = AFTER_HELP)]
pub(crate) struct LostArgs {
    /// Data directory of the node, whose server must be stopped; or a directory made by --keep-diverged
    #[arg(short = 'D', long, value_name = "DIR", overrides_with = "target_data", help_heading = "Node")]
    #[arg(visible_alias = "target-pgdata", visible_alias = "target-kingbase-data")]
    target_data: Option<PathBuf>,

    /// Product that created the directory (default: detected)
    #[arg(long, value_name = "NAME", value_parser = flavor_names(), overrides_with = "flavor")]
    #[arg(help_heading = "Node")]
    flavor: Option<String>,

    /// The node's postgresql.conf, if it is not found automatically
    #[arg(long, value_name = "FILE", overrides_with = "config_file", help_heading = "Node")]
    config_file: Option<PathBuf>,

    /// Running server whose history the node has left, as a libpq connection string
    #[arg(long, value_name = "CONNSTR", overrides_with = "source_server")]
    #[arg(help_heading = "Since when (a server, a directory or a position)")]
    source_server: Option<String>,

    /// Data directory of a stopped server whose history the node has left
    #[arg(long, value_name = "DIR", overrides_with = "source_data", visible_alias = "source-pgdata")]
    #[arg(help_heading = "Since when (a server, a directory or a position)")]
    source_data: Option<PathBuf>,

    /// The point of divergence, if it is known
    #[arg(long, value_name = "LSN", overrides_with = "fork")]
    #[arg(help_heading = "Since when (a server, a directory or a position)")]
    fork: Option<Lsn>,

    /// How long to retry after losing the connection to the source server; 0 disables retries
    #[arg(long, value_name = "SECONDS", default_value_t = 60, overrides_with = "retry_timeout")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    #[arg(help_heading = "Since when (a server, a directory or a position)")]
    retry_timeout: u64,

    /// Directory with copies of missing WAL files (can be given several times)
    #[arg(long, value_name = "DIR", help_heading = "WAL missing from the node")]
    wal_dir: Vec<PathBuf>,

    /// Fetch missing WAL files with restore_command from the node's configuration
    #[arg(
        short = 'c',
        long,
        overrides_with = "restore_target_wal",
        help_heading = "WAL missing from the node"
    )]
    restore_target_wal: bool,

    /// Fetch missing WAL files with this command (%f: file name, %p: path to restore it to)
    #[arg(long, value_name = "CMD", overrides_with = "restore_command")]
    #[arg(help_heading = "WAL missing from the node")]
    restore_command: Option<String>,

    /// List only this transaction (can be given several times)
    #[arg(long, value_name = "XID", help_heading = "What to list")]
    xid: Vec<u32>,

    /// List only changes of this table: name, schema.name or database.schema.name (can be given several times)
    #[arg(long, value_name = "TABLE", help_heading = "What to list")]
    table: Vec<String>,

    /// Write "***" in the place of this column's values: column, table.column or schema.table.column (can be given several times)
    #[arg(long, value_name = "COLUMN", help_heading = "What to list")]
    mask: Vec<String>,

    /// List no values except those of keys
    #[arg(long, overrides_with = "no_values", help_heading = "What to list")]
    no_values: bool,

    /// Write all to files in this directory, which must not exist or be empty
    #[arg(long, value_name = "DIR", overrides_with = "export", help_heading = "Output")]
    export: Option<PathBuf>,

    #[command(flatten)]
    shown: ShownArgs,

    /// Output format: a summary as text, or all as one JSON object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    #[arg(help_heading = "Output")]
    format: Format,
}

/// Runs the command.
pub(crate) fn run(args: &LostArgs) -> ExitCode {
    let screen = Arc::new(Screen::of(KBRECOVER));
    logging::init(Arc::clone(&screen), args.shown.verbosity());
    match lost(args, &screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.show(&screen),
    }
}

fn lost(args: &LostArgs, screen: &Arc<Screen>) -> Result<(), Failed> {
    let kept = args.target_data.as_deref().filter(|path| path.join(KEPT_MANIFEST).is_file());
    if let Some(kept) = kept.filter(|_| is_as_it_is(args)) {
        return Ok(show_kept(kept, args.format)?);
    }
    let (options, since) = match kept {
        Some(kept) => options_of_kept(kept, args)?,
        None => options(args)?,
    };
    signals::listen(&options.stop, &options.target, screen)?;
    // A terminal to which all of it is written has no room for a line about progress.
    let is_in_the_way = args.format == Format::Json && args.export.is_none() && io::stdout().is_terminal();
    let progress = progress::progress(screen, args.shown.narrator(screen, is_in_the_way));
    let filter = LostFilter { xids: args.xid.clone(), tables: args.table.clone() };
    let shown = ExportOptions { mask: args.mask.clone(), no_values: args.no_values, filter };
    if let Some(directory) = &args.export {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
        let summary = kbrecover_rewind::export_lost(&options, since, &directory, &shown, &*progress)?;
        let report = match args.format {
            Format::Text => format!("{summary}\nWritten to \"{}\".\n", directory.display()),
            Format::Json => format!("{}\n", serde_json::json!({ "export": directory.display().to_string() })),
        };
        output::print_report(screen, &report);
        return Ok(());
    }
    match args.format {
        Format::Text => {
            let mut counter = LostCounter::default();
            kbrecover_rewind::lost(&options, since, &shown, &mut counter, &*progress)?;
            output::write(&counter.summary().to_string())?;
        }
        Format::Json => {
            let mut json = LostJson::new(BufWriter::new(io::stdout()), "standard output");
            kbrecover_rewind::lost(&options, since, &shown, &mut json, &*progress)?;
        }
    }
    Ok(())
}

/// Whether all of a listing is asked for, and nothing beside it.
fn is_as_it_is(args: &LostArgs) -> bool {
    let is_whole = args.xid.is_empty() && args.table.is_empty() && args.mask.is_empty() && !args.no_values;
    is_whole && args.export.is_none() && args.source_server.is_none()
}

/// The engine's options to read what a rewind has exported.
fn options_of_kept(kept: &Path, args: &LostArgs) -> Result<(Options, Since), SetupError> {
    let source = match args.source_server.as_deref() {
        Some(server) => common::source(None, Some(server), &ProcessEnvironment::PostgreSql, COMMAND)?,
        None => SourceChoice::Directory(kept.to_owned()),
    };
    Ok((Options::new(kept.to_owned(), source), Since::Exported))
}

/// Shows what a rewind has exported to the directory of its `--keep-diverged`.
fn show_kept(kept: &Path, format: Format) -> Result<(), SetupError> {
    let name = match format {
        Format::Text => "summary.txt",
        Format::Json => "transactions.json",
    };
    let path = kept.join(KEPT_LOST).join(name);
    let read = |source| SetupError::Kept { path: path.clone(), source };
    let mut file = File::open(&path).map_err(read)?;
    io::copy(&mut file, &mut io::stdout()).map_err(read)?;
    Ok(())
}

/// The engine's options, and where the node's own history begins.
fn options(args: &LostArgs) -> Result<(Options, Since), SetupError> {
    let target = args.target_data.clone().ok_or(SetupError::NoDirectory { command: COMMAND })?;
    let (directory, server) = (args.source_data.as_deref(), args.source_server.as_deref());
    let named = [directory.is_some(), server.is_some(), args.fork.is_some()];
    match named.into_iter().filter(|is_named| *is_named).count() {
        0 => return Err(SetupError::NoFork { command: COMMAND }),
        1 => {}
        _ => return Err(SetupError::SeveralForks { command: COMMAND }),
    }
    let (source, since) = match args.fork {
        Some(fork) => (SourceChoice::Directory(target.clone()), Since::Fork(fork)),
        None => (common::source(directory, server, &ProcessEnvironment::PostgreSql, COMMAND)?, Since::Source),
    };
    let mut options = Options::new(target, source);
    options.flavor.clone_from(&args.flavor);
    options.config_file.clone_from(&args.config_file);
    options.retry_timeout = Duration::from_secs(args.retry_timeout);
    options.missing_wal =
        common::missing_wal(&args.wal_dir, args.restore_command.as_deref(), args.restore_target_wal);
    Ok((options, since))
}

/// The command's name, for hints.
const COMMAND: &str = "kbrecover lost";
