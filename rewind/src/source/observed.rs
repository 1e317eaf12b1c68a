//! A source that announces every request to an observer first, so that tests can make any one of them fail.

use std::sync::Arc;

use walparse::{ControlFile, Lsn};

use super::error::SourceError;
use super::seam::{
    ChunkSink, Comparand, Connected, FetchError, FetchRange, SlotState, Source, SummarizedBlocks,
    WalPosition, WalSummaries, WalSummary,
};
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::Inventory;
use crate::observer::ChangeObserver;

/// A source and its observer.
pub(crate) struct ObservedSource {
    pub(crate) source: Box<dyn Source>,
    pub(crate) observer: Arc<dyn ChangeObserver>,
}

impl ObservedSource {
    fn announce(&self, question: &str) -> Result<(), SourceError> {
        let failed = |source| SourceError::Read { path: question.into(), source };
        self.observer.before_question(question).map_err(failed)
    }
}

impl Source for ObservedSource {
    fn name(&self) -> String {
        self.source.name()
    }

    fn connected(&self) -> Option<Connected> {
        self.source.connected()
    }

    fn data_directory(&self) -> Option<String> {
        self.source.data_directory()
    }

    fn control_file(&self) -> Result<ControlFile, SourceError> {
        self.announce("control file")?;
        self.source.control_file()
    }

    fn read_file(&self, path: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
        self.announce("small file")?;
        self.source.read_file(path)
    }

    fn list(&self) -> Result<Inventory, SourceError> {
        self.announce("listing")?;
        self.source.list()
    }

    fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError> {
        self.announce("listing of WAL")?;
        self.source.list_wal()
    }

    fn archive(&self) -> Result<Option<Vec<(String, u64)>>, SourceError> {
        self.announce("listing of the archive")?;
        self.source.archive()
    }

    fn read_archived(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.announce("archived file")?;
        self.source.read_archived(name)
    }

    fn position(&self) -> Result<WalPosition, SourceError> {
        self.announce("position")?;
        self.source.position()
    }

    fn wal_summaries(&self) -> Result<WalSummaries, SourceError> {
        self.announce("listing of WAL summaries")?;
        self.source.wal_summaries()
    }

    fn summarized(&self, summaries: &[WalSummary]) -> Result<Option<SummarizedBlocks>, SourceError> {
        self.announce("contents of WAL summaries")?;
        self.source.summarized(summaries)
    }

    fn may_replicate(&self) -> Result<Option<bool>, SourceError> {
        self.announce("role")?;
        self.source.may_replicate()
    }

    fn check_may_checkpoint(&self) -> Result<(), SourceError> {
        self.announce("privilege")?;
        self.source.check_may_checkpoint()
    }

    fn checkpoint(&self) -> Result<(), SourceError> {
        self.announce("checkpoint")?;
        self.source.checkpoint()
    }

    fn replication_slot(&self, name: &str) -> Result<Option<SlotState>, SourceError> {
        self.announce("replication slot")?;
        self.source.replication_slot(name)
    }

    fn kept_wal(&self) -> Result<Option<u64>, SourceError> {
        self.announce("kept WAL")?;
        self.source.kept_wal()
    }

    fn try_replication_login(&self) -> Result<(), SourceError> {
        self.announce("replication login")?;
        self.source.try_replication_login()
    }

    fn replayed_from(&self, redo: Lsn) {
        self.source.replayed_from(redo);
    }

    fn fetch(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        sink: &dyn ChunkSink,
    ) -> Result<(), FetchError> {
        self.announce("fetch")?;
        self.source.fetch(files, ranges, &ObservedSink { sink, observer: &*self.observer })
    }

    fn compare(
        &self,
        files: &[DataPath],
        ranges: &[FetchRange],
        part: u32,
        with: &dyn Comparand,
    ) -> Result<(), FetchError> {
        self.announce("comparison")?;
        self.source.compare(files, ranges, part, with)
    }
}

/// Announces each piece of fetched data before passing it on.
struct ObservedSink<'a> {
    sink: &'a dyn ChunkSink,
    observer: &'a dyn ChangeObserver,
}

impl ChunkSink for ObservedSink<'_> {
    fn write(&self, range: FetchRange, bytes: Option<&[u8]>) -> std::io::Result<()> {
        self.observer.before_question("piece")?;
        self.sink.write(range, bytes)
    }

    fn is_slow(&self) -> bool {
        self.sink.is_slow()
    }
}
