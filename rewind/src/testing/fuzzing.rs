//! Entry points to private parsers, for the fuzz targets. Not part of the library's interface.

use std::path::Path;

use walparse::{ControlFile, Lsn, SegmentStore};

use crate::datadir::label::BackupLabel;
use crate::lost::doors;

/// Parses `text` as a `backup_label`.
pub fn backup_label(text: &[u8]) {
    let _ = BackupLabel::parse(text);
}

/// Takes `bytes` apart as a row of a table, with columns that its beginning chooses.
pub fn row(bytes: &[u8]) {
    doors::row(bytes);
}

/// Reads `bytes` as a relation map file.
pub fn relation_map(bytes: &[u8]) {
    doors::map(bytes);
}

/// Lists what the directory `root` has lost, by WAL from `start` to `end`, since the fork.
pub fn lost(root: &Path, control: &ControlFile, wal: &dyn SegmentStore, start_fork_end: [Lsn; 3]) {
    doors::everything(root, control, wal, start_fork_end);
}
