//! What a scan is asked.

use crate::lsn::Lsn;
use crate::reader::before_page_header;
use crate::version::WalGeometry;

/// What to scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ScanRequest {
    /// The version and the sizes of the cluster.
    pub geometry: WalGeometry,
    /// The end of the WAL that both clusters share.
    pub fork: Lsn,
    /// The latest checkpoint known to be complete on disk: that of the control file or of a backup label.
    /// Later checkpoints are not considered as the common one.
    pub newest_checkpoint: Lsn,
    /// WAL must be valid at least up to here.
    pub required_end: Lsn,
    /// How the end of the WAL is found.
    pub end: EndOfWal,
    /// What to do about a record that changes relation files in an unknown way.
    pub unknown_changes: UnknownChanges,
    /// What to do about blocks that replay rebuilds.
    pub rebuilt: RebuiltBlocks,
    /// Whether changed rows are counted: see [`Diverged::rows`](super::Diverged::rows).
    pub counts_rows: bool,
}

impl ScanRequest {
    /// A request for what lies beyond `fork` in the WAL of a cleanly stopped server.
    ///
    /// `newest_checkpoint` is the control file's checkpoint location, `required_end` the end of that record,
    /// where the WAL ends ([`EndOfWal::Known`]). Records of unknown effect stop the scan
    /// ([`UnknownChanges::Refuse`]), every block counts as changed ([`RebuiltBlocks::Ignore`]), and rows are not counted.
    /// Set the fields to ask for something else.
    pub fn new(geometry: WalGeometry, fork: Lsn, newest_checkpoint: Lsn, required_end: Lsn) -> ScanRequest {
        ScanRequest {
            geometry,
            fork,
            newest_checkpoint,
            required_end,
            end: EndOfWal::Known,
            unknown_changes: UnknownChanges::Refuse,
            rebuilt: RebuiltBlocks::Ignore,
            counts_rows: false,
        }
    }

    /// The same request with another way to find the end of the WAL.
    pub fn with_end(self, end: EndOfWal) -> ScanRequest {
        ScanRequest { end, ..self }
    }

    /// The same request with another treatment of records of unknown effect.
    pub fn with_unknown_changes(self, unknown_changes: UnknownChanges) -> ScanRequest {
        ScanRequest { unknown_changes, ..self }
    }

    /// The same request with another treatment of the blocks that replay rebuilds.
    pub fn with_rebuilt(self, rebuilt: RebuiltBlocks) -> ScanRequest {
        ScanRequest { rebuilt, ..self }
    }

    /// The same request, with changed rows counted.
    pub fn with_counted_rows(self) -> ScanRequest {
        ScanRequest { counts_rows: true, ..self }
    }

    /// The end of the last record of WAL whose end is known; the largest position if it is not. The known end may be given as
    /// the end of a page header.
    pub(super) fn known_end(&self) -> Lsn {
        match self.end {
            EndOfWal::Known => before_page_header(self.required_end, &self.geometry),
            _ => Lsn(u64::MAX),
        }
    }
}

/// What to do about blocks that replay of the common WAL rebuilds without reading them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RebuiltBlocks {
    /// List them in [`Diverged::rebuilt`](super::Diverged::rebuilt).
    Prove {
        /// Replay starts at the redo position of the common checkpoint, or here if this is earlier.
        replay_limit: Lsn,
    },
    /// Treat them like all other changed blocks.
    Ignore,
}

/// What to do about records of unknown effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UnknownChanges {
    /// Fail: what they changed is missing from the page map.
    Refuse,
    /// Continue: the caller does not need a complete page map, or looks at
    /// [`FileChanges::first_unknown`](crate::FileChanges::first_unknown).
    Ignore,
}

/// How the end of the WAL is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndOfWal {
    /// The server was shut down: the WAL ends exactly at `required_end`.
    Known,
    /// The server stopped during replay: valid WAL may continue after `required_end`.
    Open,
    /// The server crashed: as [`EndOfWal::Open`], but valid WAL after the apparent end means that something
    /// in between was damaged.
    Crashed,
}
