//! The options of `kbrecover rewind`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kbrecover_rewind::{CompareData, Delta};

use crate::commands::common::ShownArgs;
use crate::values::{Format, flavor_names};

const AFTER_HELP: &str = "\
Copies from the source only what has changed since the two histories diverged. The target can then be started as a \
standby. Changes that only the target has made since then are lost.

The target keeps its own configuration files, keys, certificates, logs and standby.signal. With --keep none they are \
replaced by the source's, as pg_rewind does. Data files cannot be kept.";

/// The options of `kbrecover rewind`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = AFTER_HELP)]
pub(crate) struct RewindArgs {
    /// Data directory to rewind; its server must be stopped
    #[arg(short = 'D', long, value_name = "DIR", overrides_with = "target_data", help_heading = "Target")]
    #[arg(visible_alias = "target-pgdata", visible_alias = "target-kingbase-data")]
    pub(crate) target_data: Option<PathBuf>,

    /// Product that created both directories (default: detected)
    #[arg(long, value_name = "NAME", value_parser = flavor_names(), overrides_with = "flavor")]
    #[arg(help_heading = "Target")]
    pub(crate) flavor: Option<String>,

    /// The target's postgresql.conf, if it is not found automatically
    #[arg(long, value_name = "FILE", overrides_with = "config_file", help_heading = "Target")]
    pub(crate) config_file: Option<PathBuf>,

    /// Run the target's own server first to finish crash recovery (default: only read its WAL)
    #[arg(long, overrides_with_all = ["ensure_shutdown", "no_ensure_shutdown"], help_heading = "Target")]
    pub(crate) ensure_shutdown: bool,

    /// Refuse a target that was not shut down cleanly
    #[arg(long, overrides_with_all = ["no_ensure_shutdown", "ensure_shutdown"], help_heading = "Target")]
    pub(crate) no_ensure_shutdown: bool,

    /// Directory with the programs of the target's server, for --ensure-shutdown
    #[arg(long, value_name = "DIR", overrides_with = "bindir", help_heading = "Target")]
    pub(crate) bindir: Option<PathBuf>,

    /// Running server to copy from, as a libpq connection string
    #[arg(
        long,
        value_name = "CONNSTR",
        overrides_with = "source_server",
        help_heading = "Source (a server or a directory)"
    )]
    pub(crate) source_server: Option<String>,

    /// Data directory of a stopped server to copy from
    #[arg(
        long,
        value_name = "DIR",
        overrides_with = "source_data",
        help_heading = "Source (a server or a directory)"
    )]
    #[arg(visible_alias = "source-pgdata")]
    pub(crate) source_data: Option<PathBuf>,

    /// How long to retry after losing the connection to the source server; 0 disables retries
    #[arg(long, value_name = "SECONDS", default_value_t = 60, overrides_with = "retry_timeout")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=31_536_000), help_heading = "Source (a server or a directory)")]
    pub(crate) retry_timeout: u64,

    /// Directory with copies of missing WAL files (can be given several times)
    #[arg(long, value_name = "DIR", help_heading = "WAL missing from the target")]
    pub(crate) wal_dir: Vec<PathBuf>,

    /// Fetch missing WAL files with restore_command from the target's configuration
    #[arg(
        short = 'c',
        long,
        overrides_with = "restore_target_wal",
        help_heading = "WAL missing from the target"
    )]
    pub(crate) restore_target_wal: bool,

    /// Fetch missing WAL files with this command (%f: file name, %p: path to restore it to)
    #[arg(long, value_name = "CMD", overrides_with = "restore_command")]
    #[arg(help_heading = "WAL missing from the target")]
    pub(crate) restore_command: Option<String>,

    /// Show the plan of the rewind and change nothing
    #[arg(short = 'n', long, overrides_with = "dry_run", help_heading = "Behavior")]
    pub(crate) dry_run: bool,

    /// Like --dry-run, and also check everything that could make the rewind fail
    #[arg(long, overrides_with = "check", help_heading = "Behavior")]
    pub(crate) check: bool,

    /// Only warn if there seems to be too little free space
    #[arg(long, overrides_with = "ignore_free_space", help_heading = "Behavior")]
    pub(crate) ignore_free_space: bool,

    /// Keep matching files of the target, in addition to the default ones; "none" drops the defaults (can be given
    /// several times)
    #[arg(long, value_name = "GLOB", help_heading = "Behavior")]
    pub(crate) keep: Vec<String>,

    /// Before the first change, save the target's WAL from the point of divergence on in this directory
    #[arg(long, value_name = "DIR", overrides_with = "keep_diverged", help_heading = "Behavior")]
    #[arg(group = "kept")]
    pub(crate) keep_diverged: Option<PathBuf>,

    /// As --keep-diverged, in a new directory below this one, if there is room; what cannot be saved is no reason to fail
    #[arg(long, value_name = "DIR", overrides_with = "keep_diverged_root", conflicts_with = "keep_diverged")]
    #[arg(group = "kept", help_heading = "Behavior")]
    pub(crate) keep_diverged_root: Option<PathBuf>,

    /// How many directories are kept below --keep-diverged-root; the oldest are removed
    #[arg(long, value_name = "N", default_value = "5", overrides_with = "keep_diverged_most")]
    #[arg(value_parser = positive, help_heading = "Behavior")]
    pub(crate) keep_diverged_most: NonZeroUsize,

    /// Remove directories below --keep-diverged-root that are older
    #[arg(long, value_name = "DAYS", overrides_with = "keep_diverged_days", help_heading = "Behavior")]
    pub(crate) keep_diverged_days: Option<NonZeroU64>,

    /// Remove the oldest directories below --keep-diverged-root while all of them take more, in MiB
    #[arg(long, value_name = "MIB", overrides_with = "keep_diverged_size", help_heading = "Behavior")]
    pub(crate) keep_diverged_size: Option<NonZeroU64>,

    /// With --keep-diverged or --keep-diverged-root, also save all other data that will be overwritten or removed
    #[arg(long, requires = "kept", overrides_with = "keep_diverged_blocks", help_heading = "Behavior")]
    pub(crate) keep_diverged_blocks: bool,

    /// With --keep-diverged or --keep-diverged-root, save the whole data directory, so that it can be restored whatever becomes of
    /// the rewound one
    #[arg(long, requires = "kept", overrides_with = "keep_diverged_all", help_heading = "Behavior")]
    pub(crate) keep_diverged_all: bool,

    /// Fail before the first change if more committed transactions would be lost, or if their number is not known
    #[arg(long, value_name = "N", overrides_with = "max_lost_transactions", help_heading = "Behavior")]
    pub(crate) max_lost_transactions: Option<u64>,

    /// Before the first change, archive the target's WAL files that are ready, with its archive_command
    #[arg(long, overrides_with = "archive_ready", help_heading = "Behavior")]
    pub(crate) archive_ready: bool,

    /// Configure the target as a standby of --source-server
    #[arg(short = 'R', long, overrides_with = "write_recovery_conf", help_heading = "Behavior")]
    pub(crate) write_recovery_conf: bool,

    /// Where replay starts: at the last common checkpoint, at the source's newest checkpoint, or where the target is
    /// expected to stream sooner
    #[arg(
        long,
        value_enum,
        value_name = "CHECKPOINT",
        default_value = "auto",
        overrides_with = "replay_from"
    )]
    #[arg(help_heading = "Behavior")]
    pub(crate) replay_from: ReplayFromChoice,

    /// Compare all data instead of reading from WAL what differs; auto: only where WAL cannot tell it
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value = "off",
        default_missing_value = "on",
        overrides_with = "compare_data",
        help_heading = "Behavior"
    )]
    pub(crate) compare_data: CompareDataChoice,

    /// Before the end, compare every block with the source's, and copy those that differ without reason (reads all data on both
    /// sides)
    #[arg(long, overrides_with = "verify", help_heading = "Behavior")]
    pub(crate) verify: bool,

    /// Request a checkpoint from --source-server first, so that replay can start there (the role must be a superuser or, from
    /// 15 on, a member of pg_checkpoint; with --dry-run or --check only that is checked)
    #[arg(long, overrides_with = "checkpoint_source", help_heading = "Behavior")]
    pub(crate) checkpoint_source: bool,

    /// Copy every block that the target changed, even those that replay restores
    #[arg(long, overrides_with = "copy_all_changed", help_heading = "Behavior")]
    pub(crate) copy_all_changed: bool,

    /// Rewind even a target that is on the source's timeline and could follow it unchanged
    #[arg(long, overrides_with = "same_timeline_resync", help_heading = "Behavior")]
    pub(crate) same_timeline_resync: bool,

    /// Accept a source on an older timeline, from which the target's branched off
    #[arg(long, overrides_with = "allow_older_source", help_heading = "Behavior")]
    pub(crate) allow_older_source: bool,

    /// Do not wait until the changes are safely on disk
    #[arg(short = 'N', long, overrides_with = "no_sync", help_heading = "Behavior")]
    pub(crate) no_sync: bool,

    /// How to make changes durable: fsync of each changed file, or syncfs of whole file systems
    #[arg(long, value_enum, value_name = "METHOD", default_value = "fsync", overrides_with = "sync_method")]
    #[arg(help_heading = "Behavior")]
    pub(crate) sync_method: SyncMethod,

    /// When to compare files and copy only what differs, instead of copying them whole
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", overrides_with = "delta")]
    #[arg(help_heading = "Behavior")]
    pub(crate) delta: DeltaChoice,

    /// Maximum rate per second at which the source is read, in kB or with unit, such as 50MB
    #[arg(long, value_name = "RATE", overrides_with = "max_rate", help_heading = "Behavior")]
    #[arg(value_parser = rate)]
    pub(crate) max_rate: Option<NonZeroU64>,

    /// Number of threads and connections [default: a thread per processor, 2 to 4 connections]
    #[arg(short = 'j', long, value_name = "N", overrides_with = "jobs", help_heading = "Behavior")]
    #[arg(value_parser = positive)]
    pub(crate) jobs: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) shown: ShownArgs,

    /// What to print on standard output: the plan of a dry run (text), or a report on any run (json)
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    #[arg(help_heading = "Output")]
    pub(crate) format: Format,
}

/// How changes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SyncMethod {
    Fsync,
    Syncfs,
}

/// Where replay starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ReplayFromChoice {
    /// Where the target is expected to stream sooner
    Auto,
    /// At the last common checkpoint
    Common,
    /// At the source's newest checkpoint, if it is later
    Newest,
}

/// When the data of both sides is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum CompareDataChoice {
    /// Always
    On,
    /// Only where WAL cannot tell what differs
    Auto,
    /// Never
    Off,
}

impl From<CompareDataChoice> for CompareData {
    fn from(choice: CompareDataChoice) -> CompareData {
        match choice {
            CompareDataChoice::On => CompareData::On,
            CompareDataChoice::Auto => CompareData::Auto,
            CompareDataChoice::Off => CompareData::Off,
        }
    }
}

/// When files are compared instead of being copied whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum DeltaChoice {
    /// Unless copying turns out to be faster
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

impl From<DeltaChoice> for Delta {
    fn from(choice: DeltaChoice) -> Delta {
        match choice {
            DeltaChoice::Auto => Delta::Auto,
            DeltaChoice::On => Delta::On,
            DeltaChoice::Off => Delta::Off,
        }
    }
}

/// Parses a number of threads.
pub(crate) fn positive(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "must be a positive integer".to_owned())
}

/// Parses a rate, a number of kB or one with a unit, into bytes per second. As in the server's settings a kB has 1024 bytes;
/// `50M` is pg_basebackup's way of writing `50MB`.
pub(crate) fn rate(text: &str) -> Result<NonZeroU64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes
        .and_then(NonZeroU64::new)
        .ok_or_else(|| "must be a positive integer, in kB or with unit kB, MB or GB".to_owned())
}

/// Parses a line of arguments.
#[cfg(test)]
pub(super) fn rewind_args(arguments: &str) -> RewindArgs {
    use clap::FromArgMatches;
    let command = RewindArgs::augment_args(clap::Command::new("rewind").no_binary_name(true));
    let matches = command.try_get_matches_from(arguments.split_whitespace());
    matches
        .and_then(|matches| RewindArgs::from_arg_matches(&matches))
        .unwrap_or_else(|error| panic!("{error}"))
}
