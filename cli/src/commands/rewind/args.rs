//! The options of `kbrecover rewind`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::values::{Format, flavor_names};

const AFTER_HELP: &str = "\
Copies from the source only what differs since both histories parted. Afterwards the target can be started as a standby. \
What only the target has written since then is lost.

Configuration files, keys, certificates, logs and standby.signal of the target stay its own; --keep none makes them the \
source's, as pg_rewind does. Data cannot be kept.

Exit status: 0 done or not needed; 1 failed, the target is untouched; 2 failed, the target is changed in part and must \
not be started.";

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

/// A count that makes sense.
fn positive(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it must be a whole number of at least 1".to_owned())
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

/// The options that a line of arguments gives.
#[cfg(test)]
pub(super) fn rewind_args(arguments: &str) -> RewindArgs {
    use clap::FromArgMatches;
    let command = RewindArgs::augment_args(clap::Command::new("rewind").no_binary_name(true));
    let matches = command.try_get_matches_from(arguments.split_whitespace());
    matches
        .and_then(|matches| RewindArgs::from_arg_matches(&matches))
        .unwrap_or_else(|error| panic!("{error}"))
}
