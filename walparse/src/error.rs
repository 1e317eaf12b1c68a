//! What can be wrong with a control file, a history file or WAL.

use crate::lsn::{Lsn, TimelineId};

/// Why a timeline history file is invalid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// A line does not start with a timeline and a WAL location.
    #[error("syntax error in history file of timeline {timeline}, line {line_number}: \"{line}\"")]
    Syntax {
        /// The timeline whose history file this is.
        timeline: TimelineId,
        /// The number of the line, starting at 1.
        line_number: usize,
        /// The line.
        line: String,
    },
    /// The timelines do not increase from line to line.
    #[error(
        "invalid data in history file of timeline {timeline}, line {line_number}: timelines must be in increasing sequence"
    )]
    Order {
        /// The timeline whose history file this is.
        timeline: TimelineId,
        /// The number of the line, starting at 1.
        line_number: usize,
    },
    /// An ancestor's number is not less than that of its descendant.
    #[error(
        "invalid data in history file of timeline {timeline}, line {line_number}: timeline {parent} is not older than {timeline}"
    )]
    NotOlder {
        /// The timeline whose history file this is.
        timeline: TimelineId,
        /// The ancestor.
        parent: TimelineId,
        /// The number of the line, starting at 1.
        line_number: usize,
    },
}

/// Why a control file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The bytes are too few or too many to be a control file.
    #[error("unexpected control file size {length}, expected 8192")]
    TooShort {
        /// The number of bytes.
        length: usize,
    },
    /// The version table has no such version.
    #[error("control file version {control_version} with catalog version {catalog_version} is not supported")]
    UnknownVersion {
        /// `pg_control_version`
        control_version: u32,
        /// `catalog_version_no`
        catalog_version: u32,
    },
    /// The checksum does not match.
    #[error("incorrect checksum in control file: stored {stored:08X}, computed {computed:08X}")]
    Checksum {
        /// The checksum in the file.
        stored: u32,
        /// The checksum of its contents.
        computed: u32,
    },
    /// No four bytes of a fork's file are the checksum of the bytes before them.
    #[error("incorrect checksum in control file: no field matches the checksum of the preceding bytes")]
    NoChecksum,
    /// `state` is not a known `DBState`.
    #[error("unrecognized cluster state {raw} in control file")]
    State {
        /// The stored number.
        raw: u32,
    },
    /// A size is out of range.
    #[error("invalid {field} in control file: {value}")]
    Size {
        /// Which size.
        field: &'static str,
        /// Its value.
        value: u32,
    },
}

impl ControlError {
    /// Whether the cause may be that a server was writing the file while it was read.
    pub fn may_be_torn(&self) -> bool {
        matches!(self, ControlError::Checksum { .. } | ControlError::NoChecksum)
    }
}

/// Why some bytes are not valid WAL. Every WAL ends with such a fault; it is an error only if more WAL is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalFault {
    /// The next segment file does not exist.
    #[error("segment file does not exist")]
    NoSegment,
    /// The file ends in the middle of a page or a record.
    #[error("segment file is too short")]
    FileTooShort,
    /// The page belongs to another version, or is not a WAL page.
    #[error("invalid magic number {found:04X} in page header")]
    PageMagic {
        /// `xlp_magic`
        found: u16,
    },
    /// The page header has flags that no server sets.
    #[error("invalid info bits {found:04X} in page header")]
    PageFlags {
        /// `xlp_info`
        found: u16,
    },
    /// The page was written for another position: the file is a recycled segment.
    #[error("unexpected page address {found} in page header")]
    PageAddress {
        /// `xlp_pageaddr`
        found: Lsn,
    },
    /// The segment belongs to another cluster.
    #[error("segment file is from a different database system")]
    ForeignSystem,
    /// The segment size or the page size is not that of the cluster.
    #[error("incorrect segment size or block size in page header")]
    PageSizes,
    /// The first page of a segment has no long header.
    #[error("first page of the segment has no long header")]
    NoLongHeader,
    /// The page header and the record before it disagree about what the page continues.
    #[error("page does not continue the preceding record")]
    Continuation,
    /// The timeline is older than on an earlier page.
    #[error("out-of-sequence timeline ID {found} (after {after}) in page header")]
    PageTimeline {
        /// The timeline of this page.
        found: TimelineId,
        /// The timeline of an earlier page.
        after: TimelineId,
    },
    /// The length is less than that of a record header. It is usually 0 at the end of the WAL.
    #[error("invalid record length {found}")]
    RecordLength {
        /// `xl_tot_len`
        found: u32,
    },
    /// There is no such resource manager.
    #[error("invalid resource manager {found}")]
    ResourceManager {
        /// `xl_rmid`
        found: u8,
    },
    /// The record is not the successor of the one before it.
    #[error("incorrect prev-link {found}")]
    PreviousLink {
        /// `xl_prev`
        found: Lsn,
    },
    /// The checksum of the record does not match.
    #[error("incorrect record checksum")]
    Checksum,
    /// The record after a torn one marks a different record as overwritten.
    #[error("overwrite record refers to {found}, which is not the torn record")]
    Overwrite {
        /// The record that is marked as overwritten.
        found: Lsn,
    },
    /// The parts of a record are inconsistent.
    #[error("invalid record: {0}")]
    Fragment(&'static str),
}

/// Why WAL could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalReadError {
    /// A segment file or the WAL directory could not be read.
    #[error("could not open file \"{}\"", path.display())]
    Open {
        /// The path.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A segment that is not in the WAL directory could not be fetched.
    #[error("could not fetch WAL segment {segment}")]
    Fetch {
        /// The name of the segment file.
        segment: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record has a valid checksum but not the expected format.
    #[error("could not decode WAL record at {lsn}")]
    Undecodable {
        /// Where the record starts.
        lsn: Lsn,
        /// What is wrong with it.
        #[source]
        source: WalFault,
    },
}
