//! The interface of a source, and the types that cross it.

use std::collections::BTreeMap;

use walparse::{BlockNumber, ControlFile, Lsn, PageMap, RelSegment, Relation, TimelineId};

use super::error::SourceError;
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::Inventory;

/// The side that a rewind copies from. Every method takes `&self` and may be called from several threads.
pub trait Source: Send + Sync {
    /// Its name in messages: host and port, or the directory. Never contains a password.
    fn name(&self) -> String;

    /// The path of its data directory on its own host; `None` if the role may not see it.
    fn data_directory(&self) -> Option<String> {
        None
    }

    /// The connections to a running server, as they were opened.
    fn connected(&self) -> Option<Connected> {
        None
    }

    /// Reads the control file. A copy torn by a concurrent write is read again.
    fn control_file(&self) -> Result<ControlFile, SourceError>;

    /// Reads a small file (at most 64 MiB) as a whole; `None` if it does not exist.
    fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError>;

    /// Lists the data directory.
    ///
    /// The WAL directory is listed as a directory even if it is a symbolic link. Links in `pg_tblspc` are listed as
    /// links, with the contents of the tablespaces below them. Any other symbolic link is listed as the file it points to
    /// by a server, and omitted by a data directory. Sockets and other special files are omitted.
    fn list(&self) -> Result<Inventory, SourceError>;

    /// Lists the regular files in the WAL directory: name and size in bytes.
    fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError>;

    /// Lists the regular files in the directory named by KingbaseES's `archive_dest`, into which the server archives
    /// without an `archive_command`; `None` if the setting does not exist or is empty.
    fn archive(&self) -> Result<Option<Vec<(String, u64)>>, SourceError>;

    /// Reads a file of that directory as a whole; `None` if it does not exist.
    fn read_archived(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError>;

    /// The current end of its WAL.
    fn position(&self) -> Result<WalPosition, SourceError>;

    /// The summaries of its WAL that a server has made (`summarize_wal`, since PostgreSQL 17). None if the role may not
    /// list them, if they may not say everything, or for a data directory.
    ///
    /// # Errors
    /// The connection was lost.
    fn wal_summaries(&self) -> Result<WalSummaries, SourceError> {
        Ok(WalSummaries::default())
    }

    /// What these summaries say about main forks; `None` if one of them can no longer be read.
    ///
    /// # Errors
    /// The connection was lost.
    fn summarized(&self, _summaries: &[WalSummary]) -> Result<Option<SummarizedBlocks>, SourceError> {
        Ok(None)
    }

    /// Whether the role of the connection may start replication, as a standby does: it has the attribute REPLICATION or is
    /// a superuser. `None` if this cannot be determined, as for a data directory.
    ///
    /// # Errors
    /// The connection was lost.
    fn may_replicate(&self) -> Result<Option<bool>, SourceError> {
        Ok(None)
    }

    /// Whether the role of the connection may request a checkpoint: it is a superuser or, from 15 on, has the privileges of
    /// `pg_checkpoint`.
    ///
    /// # Errors
    /// [`SourceError::MayNotCheckpoint`] if it may not; the connection was lost.
    fn check_may_checkpoint(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Requests a checkpoint, and waits until it is complete; a standby makes a restartpoint. Does nothing for a data
    /// directory.
    ///
    /// # Errors
    /// The server refuses it; the connection was lost.
    fn checkpoint(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// The state of the replication slot of this name; `None` if this cannot be determined, as for a data directory.
    ///
    /// # Errors
    /// The connection was lost.
    fn replication_slot(&self, _name: &str) -> Result<Option<SlotState>, SourceError> {
        Ok(None)
    }

    /// The bytes of WAL that the server keeps for standbys without a slot (`wal_keep_size`; up to 12 `wal_keep_segments`);
    /// `None` if this cannot be determined, as for a data directory.
    ///
    /// # Errors
    /// The connection was lost.
    fn kept_wal(&self) -> Result<Option<u64>, SourceError> {
        Ok(None)
    }

    /// Logs in for replication with the password that a standby would use, and disconnects. Does nothing for a data
    /// directory.
    ///
    /// # Errors
    /// [`SourceError::ReplicationLogin`] if the server refuses it, or a server of another database system answers.
    fn try_replication_login(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Announces where replay on the target will start. From then on a source must not return blocks older than that
    /// LSN, because replay would not bring them up to date. A stopped source cannot, and ignores the call.
    fn replayed_from(&self, _redo: Lsn) {}

    /// Reads ranges of files and passes each to `sink` exactly once, in any order and from several threads at once.
    /// [`FetchRange::file`] is an index into `files`.
    ///
    /// # Errors
    /// The first error of the source or of the sink. Reads in progress are then abandoned.
    fn fetch(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        sink: &dyn ChunkSink,
    ) -> Result<(), FetchError>;

    /// Compares ranges of files with those of `with` in parts of `part` bytes, and reports each part to it exactly once. A
    /// server sends digests of the parts instead of contents where it can.
    ///
    /// # Errors
    /// The first error of the source.
    fn compare(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        part: u32,
        with: &dyn Comparand,
    ) -> Result<(), FetchError>;
}

/// The connections to a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connected {
    /// Host and port, or the socket; never a password.
    pub server: String,
    /// `server_version_num`.
    pub version: u32,
    /// The number of connections.
    pub connections: usize,
}

/// The end of a source's WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalPosition {
    /// A running primary.
    Primary {
        /// Insert position; may point just past a WAL page header.
        insert: Lsn,
        /// Flush position: WAL is on disk up to here.
        flush: Lsn,
    },
    /// A running standby.
    Standby {
        /// WAL is on disk up to here: the larger of the receive and replay positions.
        received: Lsn,
        /// Replay position.
        replayed: Lsn,
    },
    /// A stopped server: the position is in its control file.
    Stopped,
}

/// The state of a replication slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SlotState {
    /// There is no slot of this name.
    Missing,
    /// A physical slot, which a standby can use.
    Physical {
        /// Whether another standby uses it at present.
        is_active: bool,
        /// From where on it keeps WAL; `None` if it keeps none.
        restart_lsn: Option<Lsn>,
    },
    /// A logical slot, which a standby cannot use.
    Logical,
}

/// The WAL summaries of a server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WalSummaries {
    /// Those that there are, in any order.
    pub present: Vec<WalSummary>,
    /// Whether the server makes others.
    pub goes_on: bool,
}

/// One summary of WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalSummary {
    /// The timeline of the WAL.
    pub timeline: TimelineId,
    /// The start of the first record.
    pub start: Lsn,
    /// The end of the last record. May be before or after the page header at which the next record starts.
    pub end: Lsn,
}

/// What summaries of WAL say about the main forks of relations.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SummarizedBlocks {
    /// Blocks that records refer to.
    pub named: PageMap,
    /// Relations of which a file was created, removed or truncated, with the number of blocks from which on any may have
    /// changed. A relation with the number 0 stands for all files in the directory of a database.
    pub limits: BTreeMap<Relation, BlockNumber>,
}

impl SummarizedBlocks {
    /// Notes that all blocks of `relation` from `limit` on may have changed.
    pub fn limit(&mut self, relation: Relation, limit: BlockNumber) {
        let least = self.limits.entry(relation).or_insert(limit);
        *least = limit.min(*least);
    }
}

/// A range of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchRange {
    /// Index into the list of files passed along.
    pub file: u32,
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes, at most [`MAX_RANGE`].
    pub length: u32,
}

impl FetchRange {
    /// Its parts of `length` bytes, in order; the last one may be shorter.
    pub(crate) fn parts(self, length: u32) -> impl Iterator<Item = FetchRange> {
        let part = move |done: u32| FetchRange {
            offset: self.offset + u64::from(done),
            length: length.min(self.length - done),
            ..self
        };
        (0..self.length).step_by(length.max(1) as usize).map(part)
    }

    /// The bytes of a part, of those of the range: fewer at the end of the file.
    pub(crate) fn bytes_of<'a>(&self, part: FetchRange, bytes: &'a [u8]) -> &'a [u8] {
        let begin = ((part.offset - self.offset) as usize).min(bytes.len());
        let end = (begin + part.length as usize).min(bytes.len());
        &bytes[begin..end]
    }
}

/// The largest length of a range, in bytes. Larger ones cost the server more memory traffic than they save.
pub const MAX_RANGE: u32 = 256 << 10;

/// Receives the data of [`Source::fetch`].
pub trait ChunkSink: Sync {
    /// Takes the bytes of `range`: fewer than requested at the end of the file, `None` if the file does not exist.
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> std::io::Result<()>;

    /// Copies the bytes of `range` from the open file, without a buffer of the caller's. Returns `false` if this is not
    /// possible; the caller then reads them and calls [`ChunkSink::write`].
    fn copy_from(&self, _range: FetchRange, _file: &std::fs::File) -> std::io::Result<bool> {
        Ok(false)
    }

    /// Whether the sink limits its rate. Data is then requested only shortly before the sink can take it.
    fn is_slow(&self) -> bool {
        false
    }
}

/// The side that [`Source::compare`] compares with.
pub trait Comparand: Sync {
    /// Appends its bytes of `range` to `bytes`: fewer than requested at the end of the file.
    fn read(&self, range: FetchRange, bytes: &mut Vec<u8>) -> std::io::Result<()>;
    /// Receives the result for a part of a range: whether both sides hold the same bytes.
    fn found(&self, part: FetchRange, same: bool);
}

/// An error of [`Source::fetch`] or [`Source::compare`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Fetched data could not be written.
    #[error("could not write data fetched for file \"{path}\"")]
    Sink {
        /// The path of the file in the source.
        path: DataPath,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// For callers whose sink only collects in memory: an error of the sink is then reported as one of reading.
impl From<FetchError> for SourceError {
    fn from(error: FetchError) -> SourceError {
        match error {
            FetchError::Source(error) => error,
            FetchError::Sink { path, source } => SourceError::Read { path: path.below("".as_ref()), source },
        }
    }
}

/// The number of the block at `offset` of a file of the source: as the server counts it, in the relation, if the file is one
/// of a main fork.
pub(super) fn block_at(path: &DataPath, offset: u64, control: &ControlFile) -> BlockNumber {
    match path.as_str().and_then(|path| RelSegment::parse(path, control.version())) {
        Some(file) => file.block_at(offset, control),
        None => BlockNumber(u32::try_from(offset / u64::from(control.block_size())).unwrap_or(u32::MAX)),
    }
}

/// Checks the arguments of [`Source::fetch`]. Ranges are made by this program, so a bad one is a bug.
pub(super) fn assert_valid(files: &[DataPath], ranges: &[FetchRange]) {
    for range in ranges {
        assert!((range.file as usize) < files.len(), "range of file {} of {}", range.file, files.len());
        assert!(range.length <= MAX_RANGE, "range of {} bytes", range.length);
    }
}
