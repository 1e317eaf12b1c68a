//! `backup_label`: where replay starts, or the mark of an unfinished rewind.
//!
//! A finished rewind writes, in the format that the server reads in `read_backup_label` (xlogrecovery.c):
//!
//! ```text
//! START WAL LOCATION: 0/715CD60 (file 000000010000000000000007)
//! CHECKPOINT LOCATION: 0/715CD98
//! BACKUP METHOD: pg_rewind
//! BACKUP FROM: standby
//! START TIME: 2026-11-22 05:58:10 UTC
//! ```
//!
//! The server requires the exact format of the first two lines. "BACKUP FROM: standby" makes it use minRecoveryPoint of
//! the control file as the point at which the data becomes consistent.
//!
//! During a rewind the file holds one line that is not a valid label, so that no server starts.

use jiff::Zoned;
use walparse::{Lsn, SegmentSize};

use crate::datadir::data_path::DataPath;
use crate::outcome::CheckpointAt;

const MARK: &str = "KBRECOVER: a rewind of this directory has not finished, so no server may start on it\n";
const METHOD: &str = "BACKUP METHOD: pg_rewind";

/// The contents of a `backup_label` file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BackupLabel {
    /// The mark of an unfinished rewind.
    Unfinished,
    /// A valid label: replay starts from a checkpoint.
    Start {
        /// Position of the checkpoint record.
        checkpoint: Lsn,
        /// Where replay starts.
        redo: Lsn,
        /// Whether it was written by a rewind and not by a base backup.
        by_rewind: bool,
    },
}

impl BackupLabel {
    /// Parses a label; `None` if it is invalid.
    pub(crate) fn parse(text: &[u8]) -> Option<BackupLabel> {
        let text = String::from_utf8_lossy(text);
        if text.starts_with("KBRECOVER:") {
            return Some(BackupLabel::Unfinished);
        }
        let mut lines = text.lines();
        let redo = lines.next()?.strip_prefix("START WAL LOCATION: ")?.split_once(' ')?.0.parse().ok()?;
        let checkpoint = lines.next()?.strip_prefix("CHECKPOINT LOCATION: ")?.parse().ok()?;
        Some(BackupLabel::Start { checkpoint, redo, by_rewind: lines.any(|line| line == METHOD) })
    }
}

/// Whether `text`, the contents of a `backup_label`, is the mark of an unfinished rewind.
///
/// ```
/// assert!(!kbrecover_rewind::is_mark(b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"));
/// ```
pub fn is_mark(text: &[u8]) -> bool {
    BackupLabel::parse(text) == Some(BackupLabel::Unfinished)
}

/// The mark, which prevents a server from starting.
pub(crate) fn mark() -> &'static str {
    MARK
}

/// The contents of the label of a finished rewind.
pub(crate) fn label(checkpoint: &CheckpointAt, segment_size: SegmentSize, now: &Zoned) -> String {
    let redo_file = segment_size.file_name(checkpoint.timeline, segment_size.segment_of(checkpoint.redo));
    format!(
        "START WAL LOCATION: {} (file {redo_file})\nCHECKPOINT LOCATION: {}\n{METHOD}\nBACKUP FROM: standby\nSTART TIME: {}\n",
        checkpoint.redo,
        checkpoint.lsn,
        now.strftime("%Y-%m-%d %H:%M:%S %Z"),
    )
}

/// The path of `backup_label`.
pub(crate) fn label_path() -> DataPath {
    DataPath::parse("backup_label").unwrap_or_else(|_| unreachable!("a constant path without dots"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walparse::TimelineId;

    #[test]
    fn written_labels_are_parsed() {
        let checkpoint = CheckpointAt { lsn: Lsn(0x715CD98), redo: Lsn(0x715CD60), timeline: TimelineId(1) };
        let text = label(&checkpoint, SegmentSize::new(16 << 20).unwrap(), &Zoned::now());
        assert!(text.starts_with(
            "START WAL LOCATION: 0/715CD60 (file 000000010000000000000007)\nCHECKPOINT LOCATION: 0/715CD98\n"
        ));
        let start = BackupLabel::Start { checkpoint: checkpoint.lsn, redo: checkpoint.redo, by_rewind: true };
        assert_eq!(BackupLabel::parse(text.as_bytes()), Some(start));
        assert_eq!(BackupLabel::parse(mark().as_bytes()), Some(BackupLabel::Unfinished));
        assert_eq!(BackupLabel::parse(b"START WAL LOCATION: x\n"), None);
        assert_eq!(BackupLabel::parse(b""), None);
    }
}
