//! The options of `kbrecover inspect`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use walparse::{Fork, Lsn, Relation};

use crate::values::{Format, flavor_names};

/// The options of `kbrecover inspect`.
#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    pub(crate) what: Subject,

    /// Product that wrote the files (default: detected)
    #[arg(long, global = true, value_name = "NAME", value_parser = flavor_names(), overrides_with = "flavor")]
    pub(crate) flavor: Option<String>,
}

/// What can be inspected.
#[derive(Subcommand)]
pub(crate) enum Subject {
    /// Show every field of a control file, like pg_controldata
    Control(ControlArgs),
    /// Show WAL records, like pg_waldump
    Wal(Box<WalArgs>),
    /// Show which blocks of which relations WAL records reference
    Pagemap(PagemapArgs),
    /// Show the ancestors of a timeline
    History(HistoryArgs),
}

#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct ControlArgs {
    /// Data directory or control file
    #[arg(value_name = "DIR|FILE")]
    pub(crate) path: PathBuf,

    /// Output format: text, or one JSON object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct WalArgs {
    /// Data directory, directory of WAL files, or WAL files
    #[arg(value_name = "DIR|FILE", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Start at the first record at or after this LSN [default: the oldest available]
    #[arg(long, value_name = "LSN", overrides_with = "start", help_heading = "Range of WAL")]
    pub(crate) start: Option<Lsn>,

    /// Stop before the first record at or after this LSN [default: the end of WAL]
    #[arg(long, value_name = "LSN", overrides_with = "end", help_heading = "Range of WAL")]
    pub(crate) end: Option<Lsn>,

    /// Read WAL of this timeline and its ancestors [default: the cluster's, or the newest]
    #[arg(long, value_name = "N", overrides_with = "timeline", help_heading = "Range of WAL")]
    pub(crate) timeline: Option<u32>,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,

    /// Show at most this many records
    #[arg(long, value_name = "N", overrides_with = "limit", help_heading = "Output")]
    pub(crate) limit: Option<u64>,

    /// Show record counts and sizes per resource manager instead of records
    #[arg(long, overrides_with = "stats", help_heading = "Output")]
    pub(crate) stats: bool,

    /// Output format: one line per record, or one JSON object per line
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    #[arg(help_heading = "Output")]
    pub(crate) format: Format,
}

/// Filters: a record is shown if it matches all that are given.
#[derive(Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct FilterArgs {
    /// Only records of this resource manager, such as Heap
    #[arg(long, value_name = "NAME", overrides_with = "rmgr")]
    pub(crate) rmgr: Option<String>,

    /// Only records that reference this relation, given as tablespace/database/relfilenode
    #[arg(long, value_name = "SPC/DB/REL", value_parser = relation, overrides_with = "relation")]
    pub(crate) relation: Option<Relation>,

    /// Only records that reference this block of the relation
    #[arg(long, value_name = "N", requires = "relation", overrides_with = "block")]
    pub(crate) block: Option<u32>,

    /// Only records that reference this fork
    #[arg(long, value_enum, value_name = "FORK", overrides_with = "fork")]
    pub(crate) fork: Option<ForkName>,

    /// Only records of this transaction
    #[arg(long, value_name = "N", overrides_with = "xid")]
    pub(crate) xid: Option<u32>,
}

#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct PagemapArgs {
    /// Data directory, directory of WAL files, or WAL files
    #[arg(value_name = "DIR|FILE", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Start at the first record at or after this LSN
    #[arg(long, value_name = "LSN", overrides_with = "start")]
    pub(crate) start: Lsn,

    /// Stop before the first record at or after this LSN
    #[arg(long, value_name = "LSN", overrides_with = "end")]
    pub(crate) end: Lsn,

    /// Read WAL of this timeline and its ancestors [default: the cluster's, or the newest]
    #[arg(long, value_name = "N", overrides_with = "timeline")]
    pub(crate) timeline: Option<u32>,

    /// Output format: text, or one JSON object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct HistoryArgs {
    /// Data directory, directory of WAL files, or a history file
    #[arg(value_name = "DIR|FILE")]
    pub(crate) path: PathBuf,

    /// Output format: text, or one JSON object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

/// The name of a fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ForkName {
    Main,
    Fsm,
    Vm,
    Init,
}

impl From<ForkName> for Fork {
    fn from(name: ForkName) -> Fork {
        match name {
            ForkName::Main => Fork::Main,
            ForkName::Fsm => Fork::FreeSpaceMap,
            ForkName::Vm => Fork::VisibilityMap,
            ForkName::Init => Fork::Init,
        }
    }
}

/// Parses `tablespace/database/relfilenode`.
fn relation(text: &str) -> Result<Relation, String> {
    let mut parts = text.split('/').map(str::parse);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(tablespace)), Some(Ok(database)), Some(Ok(number)), None) => {
            Ok(Relation { tablespace, database, number })
        }
        _ => Err("expected \"tablespace OID/database OID/relation filenode\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_is_given_by_three_numbers() {
        assert_eq!(relation("1663/5/16384"), Ok(Relation { tablespace: 1663, database: 5, number: 16384 }));
        for bad in ["", "1663/5", "1663/5/16384/1", "1663/x/1", "1663/5/-1", "1663//1"] {
            assert!(relation(bad).is_err(), "{bad}");
        }
    }
}
