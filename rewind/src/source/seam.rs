//! The seam to where the good history is: a running server or a stopped data directory.

use walparse::{ControlFile, Lsn};

use super::error::SourceError;
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::Inventory;

/// What a rewind asks of the side it copies from.
pub trait Source: Send + Sync {
    /// What to call it in messages: host and port, or the directory. Never a password.
    fn name(&self) -> String;

    /// Where its data is on its own machine, as far as that can be known.
    fn data_directory(&self) -> Option<String> {
        None
    }

    /// The control file as it is now. One torn by a concurrent write is read again.
    fn control_file(&self) -> Result<ControlFile, SourceError>;

    /// The whole of a small file; `None` if there is none.
    fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError>;

    /// Everything in the data directory.
    ///
    /// The WAL directory counts as a directory even if it is a link, tablespace links are followed and
    /// listed as links, any other link is listed as what it points to on a server and not at all in a
    /// directory. Sockets and the like are left out.
    fn list(&self) -> Result<Inventory, SourceError>;

    /// The names and sizes of the regular files in the WAL directory as they are now (no directories).
    fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError>;

    /// The names and sizes of the files in the directory the server archives into by itself (`archive_dest`);
    /// `None` if it has none.
    fn archive(&self) -> Result<Option<Vec<(String, u64)>>, SourceError>;

    /// The whole of a file of that directory; `None` if there is none.
    fn read_archived(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError>;

    /// How far its WAL has come.
    fn position(&self) -> Result<WalPosition, SourceError>;

    /// Says from where on replay will begin: nothing older may be handed out than what that makes good. A
    /// source that stays what it is has nothing to do for it.
    fn replayed_from(&self, _redo: Lsn) {}

    /// Fetches ranges of files, in any order and from many threads at once, and hands each to `sink`
    /// exactly once. `files` is what [`FetchRange::file`] counts in.
    ///
    /// # Errors
    /// The first error of the source or of the sink; others under way are then abandoned.
    fn fetch(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        sink: &dyn ChunkSink,
    ) -> Result<(), FetchError>;

    /// Finds out which ranges hold the same bytes here and at `with`, which is told of each exactly once.
    /// As few of the bytes as possible are moved.
    ///
    /// # Errors
    /// The first error of the source.
    fn compare(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        with: &dyn Comparand,
    ) -> Result<(), FetchError>;
}

/// How far a source's WAL has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalPosition {
    /// A running primary: WAL is inserted up to here, and is on its disk up to there.
    Primary {
        /// Insert position (may lie just behind a page header).
        insert: Lsn,
        /// Flush position.
        flush: Lsn,
    },
    /// A running standby: WAL is on its disk up to `received` and replayed up to `replayed`.
    Standby {
        /// The larger of the receive and replay positions.
        received: Lsn,
        /// Replay position.
        replayed: Lsn,
    },
    /// A stopped server: its control file says it.
    Stopped,
}

/// A stretch of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchRange {
    /// Index into the list of files.
    pub file: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes wanted, at most [`MAX_RANGE`].
    pub length: u32,
}

/// The longest range: larger ones cost a server more than they save.
pub const MAX_RANGE: u32 = 256 << 10;

/// Takes what [`Source::fetch`] brings.
pub trait ChunkSink: Sync {
    /// The bytes of `range`: fewer than asked at the end of the file; `None` if the file is gone.
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> std::io::Result<()>;

    /// Takes the bytes of `range` from the file itself. `false`: it cannot, and they must be handed to
    /// [`ChunkSink::write`].
    fn copy_from(&self, _range: FetchRange, _file: &std::fs::File) -> std::io::Result<bool> {
        Ok(false)
    }

    /// Whether it takes its time on purpose: then nothing is asked for long before it can be taken.
    fn is_slow(&self) -> bool {
        false
    }
}

/// The other side of [`Source::compare`].
pub trait Comparand: Sync {
    /// Appends its bytes of `range`: fewer than that at the end of the file.
    fn read(&self, range: FetchRange, bytes: &mut Vec<u8>) -> std::io::Result<()>;
    /// Whether the source has the same there.
    fn found(&self, range: FetchRange, same: bool);
}

/// Why a fetch ended early.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What was fetched could not be stored.
    #[error("could not write what was fetched of \"{path}\"")]
    Sink {
        /// The file, as the source names it.
        path: DataPath,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Where nothing is stored, whatever fails is a failure to read.
impl From<FetchError> for SourceError {
    fn from(error: FetchError) -> SourceError {
        match error {
            FetchError::Source(error) => error,
            FetchError::Sink { path, source } => SourceError::Read { path: path.below("".as_ref()), source },
        }
    }
}

/// Checks what [`Source::fetch`] is given; the ranges are this program's own, so a bad one is its fault.
pub(super) fn assert_valid(files: &[DataPath], ranges: &[FetchRange]) {
    for range in ranges {
        assert!((range.file as usize) < files.len(), "range of file {} of {}", range.file, files.len());
        assert!(range.length <= MAX_RANGE, "range of {} bytes", range.length);
    }
}
