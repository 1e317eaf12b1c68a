//! What a run found and did: the data of every report.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use walparse::{Lsn, TimelineId};

/// Where the target's history left the source's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The first byte of WAL that is not common.
    pub lsn: Lsn,
    /// The last common timeline.
    pub timeline: TimelineId,
}

/// The last checkpoint of the target that both histories share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommonCheckpoint {
    /// Where its record starts.
    pub lsn: Lsn,
    /// Where replay from it starts.
    pub redo: Lsn,
    /// Its timeline.
    pub timeline: TimelineId,
}

/// How a successful run ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The target's history is part of the source's: it can follow as it is.
    NotNeeded(Report),
    /// An earlier run has finished this rewind and the server has not been started since.
    AlreadyRewound(Report),
    /// A dry run: this would have been done.
    Planned(Report),
    /// A check: this would have been done, and nothing was found that it would fail with.
    Checked(Report),
    /// Done.
    Rewound(Report),
}

impl Outcome {
    /// What was found on the way, whatever the end.
    pub fn report(&self) -> &Report {
        match self {
            Outcome::NotNeeded(report)
            | Outcome::AlreadyRewound(report)
            | Outcome::Planned(report)
            | Outcome::Checked(report)
            | Outcome::Rewound(report) => report,
        }
    }
}

/// The figures of a run; what a run did not come to is absent.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The stages in order, with the time each took (stages may overlap).
    pub stages: Vec<StageTime>,
    /// Where the histories part.
    pub divergence: Option<Divergence>,
    /// The checkpoint that replay will start from.
    pub checkpoint: Option<CommonCheckpoint>,
    /// When the search for it began and ended.
    pub checkpoint_search: Option<(Timestamp, Timestamp)>,
    /// From where to where the source's WAL must be replayed; its end is the minRecoveryPoint.
    pub replay: Option<WalSpan>,
    /// What was planned (and, after a rewind, done).
    pub plan: Option<PlanSummary>,
    /// Paths of entries that are the target's own and stay.
    pub kept: Vec<String>,
    /// Paths of such entries that only the source has, and that are not taken from there.
    pub not_taken: Vec<String>,
    /// What each file system needs, if that was looked at.
    pub space: Vec<SpaceNeed>,
    /// Bytes that came from the source.
    pub bytes_fetched: u64,
    /// WAL of the target that was read, in bytes and in records.
    pub wal_bytes_scanned: u64,
    /// Records in it.
    pub wal_records_scanned: u64,
}

/// A stretch of WAL, with the segment files its ends lie in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalSpan {
    /// Redo of the checkpoint replay starts from.
    pub start: Lsn,
    /// The segment file of `start`.
    pub start_file: String,
    /// The minRecoveryPoint: the end of a record.
    pub end: Lsn,
    /// Its timeline.
    pub end_timeline: TimelineId,
    /// The segment file of the last byte before `end`.
    pub end_file: String,
}

/// Free space that a rewind needs on one file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceNeed {
    /// A directory on it.
    pub directory: PathBuf,
    /// Bytes that will be added, with a margin.
    pub needed: u64,
    /// Bytes that are free for this user.
    pub available: u64,
}

/// The time one stage took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageTime {
    /// Its name: a single lower-case word.
    pub name: &'static str,
    /// Wall time.
    pub elapsed: Duration,
}

/// Files and bytes per action of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlanSummary {
    /// Directories and links to create.
    pub create: u64,
    /// Files to copy whole.
    pub copy: u64,
    /// Their bytes.
    pub copy_bytes: u64,
    /// WAL segments and history files to copy.
    pub wal: u64,
    /// Their bytes.
    pub wal_bytes: u64,
    /// Relation files whose missing end is copied.
    pub copy_tail: u64,
    /// The bytes of these ends.
    pub copy_tail_bytes: u64,
    /// Relation files of which single blocks are copied.
    pub changed_files: u64,
    /// These blocks.
    pub blocks: u64,
    /// Their bytes.
    pub block_bytes: u64,
    /// Changed blocks that are not copied, because replay of the common WAL makes them anew.
    pub left_to_replay: u64,
    /// Relation files to cut to the source's length.
    pub truncate: u64,
    /// Entries that are the target's own; a directory counts once.
    pub kept: u64,
    /// Files, directories and links to remove.
    pub remove: u64,
    /// Files that stay as they are.
    pub unchanged: u64,
    /// All bytes of the source's data directory, for comparison.
    pub source_bytes: u64,
}

impl PlanSummary {
    /// Bytes to fetch from the source.
    pub fn fetch_bytes(&self) -> u64 {
        let parts = [self.copy_bytes, self.wal_bytes, self.copy_tail_bytes, self.block_bytes];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}
