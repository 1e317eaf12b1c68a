//! What can be wrong with bytes and names.

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// Text that should have been a name or a position.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// No LSN.
    #[error("invalid WAL location \"{text}\"")]
    Lsn {
        /// What stood there.
        text: String,
    },
}

/// A history file that cannot be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HistoryError {
    /// Not a timeline and a position.
    #[error("syntax error in history file of timeline {timeline}, line {line_number}: \"{line}\"")]
    Syntax {
        /// Whose file it is.
        timeline: TimelineId,
        /// Counted from 1.
        line_number: usize,
        /// The line.
        line: String,
    },
    /// Timelines must increase.
    #[error(
        "invalid data in history file of timeline {timeline}, line {line_number}: timelines must be in increasing sequence"
    )]
    Order {
        /// Whose file it is.
        timeline: TimelineId,
        /// Counted from 1.
        line_number: usize,
    },
    /// An ancestor must be older than its child.
    #[error(
        "invalid data in history file of timeline {timeline}, line {line_number}: timeline {parent} is not older than {timeline}"
    )]
    NotOlder {
        /// Whose file it is.
        timeline: TimelineId,
        /// What it names as an ancestor.
        parent: TimelineId,
        /// Counted from 1.
        line_number: usize,
    },
}

/// A control file that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// Not the length of a control file.
    #[error("unexpected control file size {length}, expected 8192")]
    TooShort {
        /// Bytes found.
        length: usize,
    },
    /// No row of the version table fits.
    #[error("control file version {control_version} with catalog version {catalog_version} is not supported")]
    UnknownVersion {
        /// `pg_control_version`
        control_version: u32,
        /// `catalog_version_no`
        catalog_version: u32,
    },
    /// The checksum is wrong.
    #[error("incorrect checksum in control file: stored {stored:08X}, computed {computed:08X}")]
    Checksum {
        /// What the file says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Nowhere in a fork's file stands the checksum of what is before it.
    #[error("incorrect checksum in control file: no place in it holds the checksum of what stands before")]
    NoChecksum,
    /// `state` is none of the server's.
    #[error("unrecognized cluster state {raw} in control file")]
    State {
        /// The number.
        raw: u32,
    },
    /// A size no server can have.
    #[error("invalid {field} in control file: {value}")]
    Size {
        /// Which size.
        field: &'static str,
        /// Its value.
        value: u32,
    },
}

impl ControlError {
    /// Whether the file may have been read while a server wrote it.
    pub fn may_be_torn(&self) -> bool {
        matches!(self, ControlError::Checksum { .. } | ControlError::NoChecksum)
    }
}

/// Why bytes are no valid WAL. At the end of the WAL this is no error: it is how one knows the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WalFault {
    /// No segment file goes on from here.
    #[error("there is no segment file")]
    NoSegment,
    /// The file ends before the page or record does.
    #[error("the file is too short")]
    FileTooShort,
    /// A page of another version, or no page at all.
    #[error("invalid magic number {found:04X} in page header")]
    PageMagic {
        /// What stands there.
        found: u16,
    },
    /// A flag that no server sets.
    #[error("invalid info bits {found:04X} in page header")]
    PageFlags {
        /// What stands there.
        found: u16,
    },
    /// The page was written for another position: a recycled file.
    #[error("page header says {found}: an old page of a recycled file")]
    PageAddress {
        /// The position in the header.
        found: Lsn,
    },
    /// The segment belongs to another cluster.
    #[error("the segment is of a different database system")]
    ForeignSystem,
    /// Segment or page size are not the cluster's.
    #[error("segment size or page size in the page header are not those of the cluster")]
    PageSizes,
    /// The first page of a segment lacks its long header.
    #[error("the first page of the segment has no long header")]
    NoLongHeader,
    /// The page and the record before it disagree about what is continued.
    #[error("the page does not continue the record before it as it should")]
    Continuation,
    /// Timelines only grow along the WAL.
    #[error("timeline {found} in page header after timeline {after}")]
    PageTimeline {
        /// In this header.
        found: TimelineId,
        /// In an earlier one.
        after: TimelineId,
    },
    /// No record is shorter than its header; zero is how the end usually looks.
    #[error("invalid record length {found}")]
    RecordLength {
        /// `xl_tot_len`
        found: u32,
    },
    /// No such resource manager.
    #[error("invalid resource manager {found}")]
    ResourceManager {
        /// `xl_rmid`
        found: u8,
    },
    /// The record does not follow the one before it.
    #[error("incorrect prev-link {found}")]
    PreviousLink {
        /// `xl_prev`
        found: Lsn,
    },
    /// The record's checksum is wrong.
    #[error("incorrect record checksum")]
    Checksum,
    /// A page declares another record void than the one it interrupts.
    #[error("a different torn record is declared void at {found}")]
    Overwrite {
        /// What the record says.
        found: Lsn,
    },
    /// The parts of a record do not fit together.
    #[error("invalid record: {0}")]
    Fragment(&'static str),
}

/// WAL could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WalReadError {
    /// A segment file could not be opened or mapped.
    #[error("could not open file \"{}\"", path.display())]
    Open {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A place outside the directory that should hand out a segment failed.
    #[error("could not get WAL segment {segment}")]
    Fetch {
        /// The name of the segment file.
        segment: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record with a right checksum that cannot be taken apart: not the format it should be.
    #[error("could not decode WAL record at {lsn}")]
    Undecodable {
        /// Where it starts.
        lsn: Lsn,
        /// What is wrong with it.
        #[source]
        source: WalFault,
    },
}
