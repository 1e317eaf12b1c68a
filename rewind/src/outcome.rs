//! The result of a run: the figures that reports are made from.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use walparse::{BlockNumber, Lsn, Microseconds, TimelineId, Transactions, Version};

use crate::datadir::starts_as::StartsAs;
use crate::lost::export::LostSummary;

/// The point where the histories of source and target diverge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The first byte of WAL that is not common to both.
    pub lsn: Lsn,
    /// The last common timeline.
    pub timeline: TimelineId,
}

/// A checkpoint: the last one that both histories share, or the one from which replay starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointAt {
    /// Start of its record.
    pub lsn: Lsn,
    /// Its redo location, where replay starts.
    pub redo: Lsn,
    /// Its timeline.
    pub timeline: TimelineId,
}

/// Where replay on the rewound target starts, and what was estimated for the two possible starts.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct ReplayStart {
    /// The checkpoint that was chosen.
    pub checkpoint: CheckpointAt,
    /// The last common checkpoint, or the source's last one if that is older.
    pub common: ReplayEstimate,
    /// The source's newest checkpoint, if it is a later one of the source's own history.
    pub newest: Option<ReplayEstimate>,
    /// How it is known what the source has changed before that.
    pub source_changes: SourceChanges,
}

/// How it is known what the source has changed before its newest checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SourceChanges {
    /// From its WAL.
    Wal,
    /// From the summaries of its WAL, which a server of version 17 or later makes (`summarize_wal`).
    Summaries,
}

impl fmt::Display for SourceChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceChanges::Wal => "its WAL",
            SourceChanges::Summaries => "its WAL summaries",
        })
    }
}

impl ReplayStart {
    /// Replay starts at `checkpoint`; the estimates are those for the two possible starts. What the source has changed is
    /// known from its WAL.
    pub fn new(
        checkpoint: CheckpointAt,
        common: ReplayEstimate,
        newest: Option<ReplayEstimate>,
    ) -> ReplayStart {
        ReplayStart { checkpoint, common, newest, source_changes: SourceChanges::Wal }
    }

    /// Whether replay starts at the source's newest checkpoint.
    pub fn is_newest(&self) -> bool {
        self.newest.is_some_and(|newest| newest.start == self.checkpoint.redo)
    }

    /// The estimate for the start that was chosen.
    pub fn chosen(&self) -> ReplayEstimate {
        self.newest.filter(|_| self.is_newest()).unwrap_or(self.common)
    }
}

/// What a start of replay costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ReplayEstimate {
    /// The redo location.
    pub start: Lsn,
    /// Bytes of WAL from there to the source's present end.
    pub wal_bytes: u64,
    /// Bytes of blocks that are copied for this start only.
    pub more_bytes: u64,
    /// Whether a server that starts replay there admits sessions at the end of this WAL. It does not while transactions with
    /// more than 64 subtransactions are open: it streams, but does not know all running transactions.
    pub admits_sessions: bool,
}

impl ReplayEstimate {
    /// The estimate for a start at `start`, if the source's WAL ends at `end` and `more_bytes` are copied for this start
    /// only.
    pub fn new(start: Lsn, end: Lsn, more_bytes: u64) -> ReplayEstimate {
        ReplayEstimate { start, wal_bytes: end.0.saturating_sub(start.0), more_bytes, admits_sessions: true }
    }

    /// Bytes of WAL that are assumed to be replayed in a second. One process replays; 100 MB are modest for pages in
    /// memory, and much for pages that must be read from a disk.
    pub const REPLAY_RATE: u64 = 100_000_000;

    /// Bytes that are assumed to be copied in a second: a network of 1 Gbit/s.
    pub const COPY_RATE: u64 = 100_000_000;

    /// The seconds to copy and replay the WAL, and to copy the blocks that only this start needs, at the assumed rates.
    pub fn seconds(&self) -> f64 {
        let copied = self.wal_bytes.saturating_add(self.more_bytes);
        copied as f64 / ReplayEstimate::COPY_RATE as f64
            + self.wal_bytes as f64 / ReplayEstimate::REPLAY_RATE as f64
    }
}

/// Both sides of a run, as it found them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BothSides {
    /// The side that is copied from.
    pub source: Side,
    /// The side that is rewound.
    pub target: Side,
}

impl BothSides {
    /// Both sides.
    pub fn new(source: Side, target: Side) -> BothSides {
        BothSides { source, target }
    }
}

/// One side of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Side {
    /// The server's address, or the data directory. Never contains a password.
    pub place: String,
    /// What it is, or was when it was stopped.
    pub role: Role,
    /// The timeline that it is on.
    pub timeline: TimelineId,
    /// The end of its WAL, if it is known.
    pub wal_end: Option<Lsn>,
    /// The time of its latest checkpoint, by its own clock.
    pub last_checkpoint: Option<Timestamp>,
}

impl Side {
    /// A side of which no more is known.
    pub fn new(place: String, role: Role, timeline: TimelineId) -> Side {
        Side { place, role, timeline, wal_end: None, last_checkpoint: None }
    }
}

/// What a server is in its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It accepts writes.
    Primary,
    /// It is in recovery.
    Standby,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Standby => "standby",
        })
    }
}

/// How a successful run ended.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The target's history is a part of the source's: it can follow the source as it is.
    NotNeeded(Report),
    /// An earlier run has finished this rewind, and no server has been started since.
    AlreadyRewound(Report),
    /// A dry run: the report says what a rewind would do.
    Planned(Report),
    /// A check: the report says what a rewind would do, and all checks have passed.
    Checked(Report),
    /// The target has been rewound.
    Rewound(Report),
}

impl Outcome {
    /// The figures of the run, whatever its outcome.
    pub fn report(&self) -> &Report {
        match self {
            Outcome::NotNeeded(report)
            | Outcome::AlreadyRewound(report)
            | Outcome::Planned(report)
            | Outcome::Checked(report)
            | Outcome::Rewound(report) => report,
        }
    }

    pub(crate) fn report_mut(&mut self) -> &mut Report {
        match self {
            Outcome::NotNeeded(report)
            | Outcome::AlreadyRewound(report)
            | Outcome::Planned(report)
            | Outcome::Checked(report)
            | Outcome::Rewound(report) => report,
        }
    }
}

/// The figures of a run. Those of stages that it did not reach are `None`, empty or zero.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Report {
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The stages in their order, with the time that each took.
    pub stages: Vec<StageTime>,
    /// The version of both sides.
    pub version: Option<Version>,
    /// Both sides.
    pub sides: Option<BothSides>,
    /// The point of divergence.
    pub divergence: Option<Divergence>,
    /// The last common checkpoint.
    pub checkpoint: Option<CheckpointAt>,
    /// The transactions that the rewind gives up; `None` if it is not known.
    pub lost: Option<LostTransactions>,
    /// The directory in which discarded data was saved.
    pub saved_in: Option<PathBuf>,
    /// What comparing the data of both sides has found, if it was compared.
    pub compared: Option<ComparedData>,
    /// What comparing all blocks before the commit has found, if they were compared.
    pub verified: Option<VerifiedData>,
    /// Where replay starts.
    pub replay_start: Option<ReplayStart>,
    /// When the search for the common checkpoint began and ended.
    pub checkpoint_search: Option<(Timestamp, Timestamp)>,
    /// The source's WAL that the target must replay; its end is the minRecoveryPoint.
    pub replay: Option<WalSpan>,
    /// Files and bytes of the plan.
    pub plan: Option<PlanSummary>,
    /// Local files and directories of the target that are kept: paths below the data directory.
    pub kept: Vec<String>,
    /// Files and directories that match the same patterns but exist only on the source: they are not copied.
    pub not_taken: Vec<String>,
    /// What a server started on the target now will be, in a plan: after the rewind; `None` if it is not known.
    pub starts_as: Option<StartsAs>,
    /// What keeps the source's WAL until the target streams; `None` if nothing was rewound, or it is not known.
    pub wal_kept: Option<WalKept>,
    /// Space needed on each file system; empty if it was not checked.
    pub space: Vec<SpaceNeed>,
    /// Bytes fetched from the source.
    pub bytes_fetched: u64,
    /// Bytes of the target's WAL that were read.
    pub wal_bytes_scanned: u64,
    /// Records in these bytes.
    pub wal_records_scanned: u64,
}

impl Report {
    /// The report of a run that reached no stage.
    pub fn new(started: Timestamp, finished: Timestamp) -> Report {
        Report {
            started,
            finished,
            stages: Vec::new(),
            version: None,
            sides: None,
            divergence: None,
            checkpoint: None,
            lost: None,
            saved_in: None,
            compared: None,
            verified: None,
            replay_start: None,
            checkpoint_search: None,
            replay: None,
            plan: None,
            kept: Vec::new(),
            not_taken: Vec::new(),
            starts_as: None,
            wal_kept: None,
            space: Vec::new(),
            bytes_fetched: 0,
            wal_bytes_scanned: 0,
            wal_records_scanned: 0,
        }
    }
}

/// The transactions of the target's own history, which a rewind gives up.
#[derive(Clone, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct LostTransactions {
    /// How many have committed beyond the point of divergence.
    pub committed: u64,
    /// When the first and the last of them committed.
    pub times: Option<(Timestamp, Timestamp)>,
    /// The identifiers of transactions that were prepared beyond the point of divergence and are undecided.
    pub undecided: Vec<String>,
    /// What they have done, by table; `None` if this run has not looked at it.
    pub summary: Option<Box<LostSummary>>,
}

impl LostTransactions {
    /// Those that were found in the target's WAL.
    pub(crate) fn of(found: &Transactions) -> LostTransactions {
        let time = |time: Microseconds| Timestamp::from_microsecond(time.0).ok();
        LostTransactions {
            committed: found.committed(),
            times: found.times().and_then(|(first, last)| time(first).zip(time(last))),
            undecided: found.prepared().values().cloned().collect(),
            summary: None,
        }
    }
}

/// What comparing the relation files of both sides has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ComparedData {
    /// Files that both sides have and that were compared.
    pub files: u64,
    /// Bytes that were read on each side.
    pub bytes: u64,
    /// Blocks that differ.
    pub different_blocks: u64,
}

/// What comparing the relation files of a node with the source's has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VerifiedData {
    /// Files that were compared.
    pub files: u64,
    /// Bytes that were read on each side.
    pub bytes: u64,
    /// Blocks that differ and that replay will change: the source has changed or removed them since, or has not written them
    /// to its disk yet.
    pub replayed: u64,
    /// Blocks of which only hint bits and the like differ, which servers change without WAL.
    pub not_logged: u64,
    /// Blocks that differ in contents.
    pub different: u64,
}

/// What comparing a stopped node with its source has found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Comparison {
    /// Both sides; the node is the target.
    pub sides: BothSides,
    /// The point where the node's WAL has left the source's history, if it has.
    pub divergence: Option<Divergence>,
    /// How far the node's data is complete. What the source has changed after that may differ; replay will change it.
    pub complete_to: Lsn,
    /// What was compared, and the number of blocks that differ.
    pub blocks: VerifiedData,
    /// The relation files in which contents differ.
    pub different_files: Vec<DifferentFile>,
    /// Relation files that only the node has, with more than zeros: their relations were dropped since, or a crash has left
    /// them behind.
    pub surplus_files: Vec<String>,
}

impl Comparison {
    /// Whether no contents differ, and the node can follow the source.
    pub fn is_equal(&self) -> bool {
        self.blocks.different == 0 && self.divergence.is_none()
    }
}

/// A relation file of a node whose contents differ from the source's.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DifferentFile {
    /// Its path below the data directory.
    pub path: String,
    /// The number of blocks that differ.
    pub blocks: u64,
    /// The number of the first of them in the relation.
    pub first: BlockNumber,
}

/// What keeps the source's WAL for a server on the target, from the end of what was copied until the server streams.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WalKept {
    /// A replication slot.
    Slot {
        /// Its name, which is the target's `primary_slot_name`.
        name: String,
    },
    /// A setting of the source that is at least as large as the WAL to be replayed: `wal_keep_size`, or up to 12
    /// `wal_keep_segments`.
    Setting {
        /// The bytes that it keeps.
        bytes: u64,
    },
    /// The archive that the target's `restore_command` reads.
    Archive,
    /// Nothing that is sure to keep it.
    Nothing {
        /// The SQL command that makes a slot which does.
        command: String,
        /// The name of that slot.
        slot: String,
        /// Whether the target's `primary_slot_name` names it already.
        is_named: bool,
    },
}

/// A range of WAL, with the names of the segment files of its ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalSpan {
    /// Redo location of the checkpoint that replay starts from.
    pub start: Lsn,
    /// Name of the segment file that contains `start`.
    pub start_file: String,
    /// The minRecoveryPoint: the end of a record.
    pub end: Lsn,
    /// The timeline of the last byte before `end`.
    pub end_timeline: TimelineId,
    /// Name of the segment file that contains the last byte before `end`.
    pub end_file: String,
}

/// Space that a rewind needs on one file system, and what is free there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceNeed {
    /// A directory on this file system.
    pub directory: PathBuf,
    /// Bytes that the rewind adds, with a margin.
    pub needed: u64,
    /// Bytes available to this user.
    pub available: u64,
}

/// The time that one stage took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageTime {
    /// Its name: a single lower-case word.
    pub name: &'static str,
    /// Wall-clock time.
    pub elapsed: Duration,
}

/// Files and bytes per action of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
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
    /// Relation files of which the part that the target lacks is copied.
    pub copy_tail: u64,
    /// The bytes of these parts.
    pub copy_tail_bytes: u64,
    /// Relation files of which single blocks are copied.
    pub changed_files: u64,
    /// The number of these blocks.
    pub blocks: u64,
    /// Their bytes.
    pub block_bytes: u64,
    /// Changed blocks that are not copied, because replay of the common WAL restores them.
    pub left_to_replay: u64,
    /// Relation files to truncate to their length on the source.
    pub truncate: u64,
    /// Local files and directories that are kept; a directory counts once.
    pub kept: u64,
    /// Files, directories and links to remove.
    pub remove: u64,
    /// Files, directories and links that need no change.
    pub unchanged: u64,
    /// Bytes of all files in the source's data directory, for comparison.
    pub source_bytes: u64,
}

impl PlanSummary {
    /// Bytes to fetch from the source.
    pub fn fetch_bytes(&self) -> u64 {
        let parts = [self.copy_bytes, self.wal_bytes, self.copy_tail_bytes, self.block_bytes];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}
