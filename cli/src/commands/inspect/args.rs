//! The options of `kbrecover inspect`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use walparse::{Fork, Lsn, Relation};

use crate::values::{Format, flavor_names};

/// What to look at.
#[derive(Args)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    pub(crate) what: Subject,

    /// What wrote the files, if looking at them does not tell
    #[arg(long, global = true, value_name = "NAME", value_parser = flavor_names(), overrides_with = "flavor")]
    pub(crate) flavor: Option<String>,
}

/// The things that can be looked at.
#[derive(Subcommand)]
pub(crate) enum Subject {
    /// Show every field of a control file, as pg_controldata does
    Control(ControlArgs),
    /// Show WAL records, as pg_waldump does
    Wal(Box<WalArgs>),
    /// Show which blocks of which relations WAL changes
    Pagemap(PagemapArgs),
    /// Show the ancestors of a timeline
    History(HistoryArgs),
}

#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct ControlArgs {
    /// Data directory, or a control file
    #[arg(value_name = "DIR|FILE")]
    pub(crate) path: PathBuf,

    /// What to print: lines, or one object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct WalArgs {
    /// Data directory, directory of WAL files, or WAL files
    #[arg(value_name = "DIR|FILE", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Begin with the first record at this position or behind it [default: the oldest there is]
    #[arg(long, value_name = "LSN", overrides_with = "start", help_heading = "Which WAL")]
    pub(crate) start: Option<Lsn>,

    /// End before the first record at this position or behind it [default: the end of the WAL]
    #[arg(long, value_name = "LSN", overrides_with = "end", help_heading = "Which WAL")]
    pub(crate) end: Option<Lsn>,

    /// Read the WAL of this timeline and its ancestors [default: the cluster's, or the newest]
    #[arg(long, value_name = "N", overrides_with = "timeline", help_heading = "Which WAL")]
    pub(crate) timeline: Option<u32>,

    #[command(flatten)]
    pub(crate) filter: FilterArgs,

    /// Show no more than this many records
    #[arg(long, value_name = "N", overrides_with = "limit", help_heading = "Output")]
    pub(crate) limit: Option<u64>,

    /// Show counts and sizes for each resource manager instead of records
    #[arg(long, overrides_with = "stats", help_heading = "Output")]
    pub(crate) stats: bool,

    /// What to print: a line for each record, or an object in each line
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    #[arg(help_heading = "Output")]
    pub(crate) format: Format,
}

/// Which records to show: those that fit all that is given.
#[derive(Args)]
#[command(next_help_heading = "Which records")]
pub(crate) struct FilterArgs {
    /// Records of this resource manager, for example Heap
    #[arg(long, value_name = "NAME", overrides_with = "rmgr")]
    pub(crate) rmgr: Option<String>,

    /// Records that name a block of this relation, given as tablespace/database/relation
    #[arg(long, value_name = "SPC/DB/REL", value_parser = relation, overrides_with = "relation")]
    pub(crate) relation: Option<Relation>,

    /// Records that name this block of the relation
    #[arg(long, value_name = "N", requires = "relation", overrides_with = "block")]
    pub(crate) block: Option<u32>,

    /// Records that name a block of this fork
    #[arg(long, value_enum, value_name = "FORK", overrides_with = "fork")]
    pub(crate) fork: Option<ForkName>,

    /// Records of this transaction
    #[arg(long, value_name = "N", overrides_with = "xid")]
    pub(crate) xid: Option<u32>,
}

#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct PagemapArgs {
    /// Data directory, directory of WAL files, or WAL files
    #[arg(value_name = "DIR|FILE", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Begin with the first record at this position or behind it
    #[arg(long, value_name = "LSN", overrides_with = "start")]
    pub(crate) start: Lsn,

    /// End before the first record at this position or behind it
    #[arg(long, value_name = "LSN", overrides_with = "end")]
    pub(crate) end: Lsn,

    /// Read the WAL of this timeline and its ancestors [default: the cluster's, or the newest]
    #[arg(long, value_name = "N", overrides_with = "timeline")]
    pub(crate) timeline: Option<u32>,

    /// What to print: lines, or one object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

#[derive(Args)]
#[command(display_name = "kbrecover")]
pub(crate) struct HistoryArgs {
    /// Data directory, directory of WAL files, or a history file
    #[arg(value_name = "DIR|FILE")]
    pub(crate) path: PathBuf,

    /// What to print: lines, or one object
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text", overrides_with = "format")]
    pub(crate) format: Format,
}

/// A fork by its name.
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
    fn relations_are_three_numbers() {
        assert_eq!(relation("1663/5/16384"), Ok(Relation { tablespace: 1663, database: 5, number: 16384 }));
        for bad in ["", "1663/5", "1663/5/16384/1", "1663/x/1", "1663/5/-1", "1663//1"] {
            assert!(relation(bad).is_err(), "{bad}");
        }
    }
}
