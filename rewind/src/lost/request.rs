//! What is asked of this room.

use std::path::{Path, PathBuf};

use walparse::{ControlFile, Lsn, SegmentStore};

use super::model::LostHistory;
use crate::outcome::Divergence;
use crate::stop::StopFlag;

/// What to list.
pub(crate) struct LostRequest<'a> {
    /// The data directory.
    pub(crate) root: &'a Path,
    pub(crate) control: &'a ControlFile,
    /// The target's WAL.
    pub(crate) wal: &'a dyn SegmentStore,
    pub(crate) fork: Divergence,
    /// The redo position of the last common checkpoint, or where the WAL that there is begins.
    pub(crate) start: Lsn,
    /// The end of the last record.
    pub(crate) end: Lsn,
    /// Whether the values of rows are wanted, and not only what was done to which table.
    pub(crate) has_values: bool,
    /// Where rows wait that do not fit into memory; `None` if all stay in memory.
    pub(crate) spool: Option<PathBuf>,
    pub(crate) stop: &'a StopFlag,
    /// Called with the number of bytes of WAL that were read.
    pub(crate) progress: &'a dyn Fn(u64),
}

impl LostRequest<'_> {
    /// The history, of which nothing has been found yet.
    pub(super) fn history(&self) -> LostHistory {
        LostHistory {
            directory: self.root.display().to_string(),
            system_identifier: self.control.system_identifier(),
            version: self.control.version().to_string(),
            fork: self.fork.lsn,
            timeline: self.fork.timeline,
            read_from: self.start,
            read_to: self.end,
            undecided: Vec::new(),
            notes: Vec::new(),
            on_source: None,
            is_complete: true,
        }
    }
}
