//! `backup_label`: where replay starts, and the mark of an unfinished rewind.
//!
//! What a finished rewind writes:
//!
//! ```text
//! START WAL LOCATION: 0/715CD60 (file 000000010000000000000007)
//! CHECKPOINT LOCATION: 0/715CD98
//! BACKUP METHOD: pg_rewind
//! BACKUP FROM: standby
//! START TIME: 2026-11-22 05:58:10 UTC
//! ```
//!
//! The server reads the first two lines strictly. "standby" makes it take the control file's
//! minRecoveryPoint as the point from which the data is consistent.
//!
//! While a rewind is under way one line stands there that no server takes for a label, so none starts.

use jiff::Zoned;
use walparse::{Lsn, SegmentSize};

use crate::datadir::data_path::DataPath;
use crate::outcome::CommonCheckpoint;

const MARK: &str = "KBRECOVER: a rewind of this directory has not finished, so no server may start on it\n";
const METHOD: &str = "BACKUP METHOD: pg_rewind";

/// What a `backup_label` found in a data directory means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BackupLabel {
    /// The mark of a rewind that did not finish.
    Unfinished,
    /// Replay will start at a checkpoint.
    Start {
        /// The checkpoint record.
        checkpoint: Lsn,
        /// Where replay starts.
        redo: Lsn,
        /// Written by a rewind, not by a base backup.
        by_rewind: bool,
    },
}

impl BackupLabel {
    /// Reads a label; `None` if it is neither.
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

/// Whether a `backup_label` of this text is the mark of a rewind that did not finish.
pub fn is_mark(text: &[u8]) -> bool {
    BackupLabel::parse(text) == Some(BackupLabel::Unfinished)
}

/// The line that keeps servers from starting.
pub(crate) fn mark() -> &'static str {
    MARK
}

/// The label of a finished rewind.
pub(crate) fn label(checkpoint: &CommonCheckpoint, segment_size: SegmentSize, now: &Zoned) -> String {
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
    fn what_is_written_is_understood() {
        let checkpoint =
            CommonCheckpoint { lsn: Lsn(0x715CD98), redo: Lsn(0x715CD60), timeline: TimelineId(1) };
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
