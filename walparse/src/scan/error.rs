//! Why a scan fails.

use crate::error::{WalFault, WalReadError};
use crate::lsn::Lsn;
use crate::rmgr;
use crate::segment::SegmentNo;
use crate::version::Version;

/// Why a scan failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// A segment is missing.
    #[error("could not find WAL segment {segment}, which holds WAL up to {needed}")]
    Missing {
        /// Its number.
        segment: SegmentNo,
        /// Its file, as [`SegmentStore::describe`](crate::SegmentStore::describe) names it.
        file: String,
        /// The position up to which WAL is needed.
        needed: Lsn,
        /// All missing segments of the needed range, where that range is known.
        all: Vec<SegmentNo>,
    },
    /// WAL ends too early.
    #[error("WAL of the target ends at {position}, before {needed}")]
    BreaksOff {
        /// Where it ends.
        position: Lsn,
        /// The position up to which WAL is needed.
        needed: Lsn,
        /// What was found instead of a record.
        #[source]
        fault: WalFault,
    },
    /// Valid WAL continues after an apparent end.
    #[error("WAL of the target is damaged at {position}: valid WAL continues at {later}")]
    Damaged {
        /// The apparent end.
        position: Lsn,
        /// A valid record after it.
        later: Lsn,
        /// What was found at the apparent end.
        #[source]
        fault: WalFault,
    },
    /// There is no checkpoint before the fork.
    #[error("could not find a checkpoint before {fork} in the WAL of the target")]
    NoCheckpoint {
        /// The fork.
        fork: Lsn,
    },
    /// A record changes relation files in an unknown way.
    #[error(
        "WAL record modifies a relation, but record type is not recognized: lsn: {lsn}, rmid: {rmid}, rmgr: {}, info: {info:02X}",
        rmgr::name(*rmid, *version)
    )]
    UnknownRelationChange {
        /// Where the record starts.
        lsn: Lsn,
        /// Its resource manager.
        rmid: u8,
        /// Its info byte.
        info: u8,
        /// The version, which gives `rmid` its meaning.
        version: Version,
    },
    /// WAL could not be read.
    #[error(transparent)]
    Read(#[from] WalReadError),
}
