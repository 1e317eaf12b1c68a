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
