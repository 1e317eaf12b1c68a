//! What the source has changed, and what its WAL says about files: from its WAL, or in part from the summaries of it.

use walparse::scan::ScanError;
use walparse::{FileChanges, Lsn, PageMap, WalFault};

use crate::outcome::{CheckpointAt, SourceChanges};
use crate::wal::changed::{BySource, WholeFiles};
use crate::wal::error::WalError;
use crate::wal::replay::ReplayWal;

/// What is known of the source's history since the last common checkpoint.
pub(super) struct Theirs {
    /// Its newest checkpoint, if replay may start there.
    pub(super) newest: Option<CheckpointAt>,
    /// The blocks that it has changed up to that checkpoint.
    pub(super) page_map: PageMap,
    /// By its summaries: files of which it may have changed other blocks up to that checkpoint.
    pub(super) whole: WholeFiles,
    /// The blocks that replay from that checkpoint restores, whatever stands in them.
    pub(super) rebuilt: BySource,
    /// What its WAL says about files, as far as it was read.
    pub(super) files: FileChanges,
    /// Where this is from. By its summaries, WAL is read from the newest checkpoint on.
    pub(super) known_from: SourceChanges,
    /// Where the last record before that checkpoint starts, if it was read.
    last_record: Lsn,
}

impl Theirs {
    /// Reads the WAL from `from` to its end.
    pub(super) fn of_wal(
        wal: &ReplayWal<'_>,
        from: Lsn,
        newest: Option<CheckpointAt>,
    ) -> Result<Theirs, WalError> {
        wal.reporting(from, || {
            let mut theirs = Theirs::new(newest, SourceChanges::Wal);
            let Some(newest) = newest else { return theirs.read_to_end(wal, from) };
            let before = wal.read(from, newest.redo)?;
            (theirs.page_map, theirs.files, theirs.last_record) =
                (before.page_map, before.files, before.last_record);
            theirs.read_to_end(wal, newest.redo)
        })
    }

    /// What the source's summaries say of its history from `common` to `newest`; `None` if they do not cover it. The
    /// source's WAL is yet to be read from `newest` on. `is_compared`: its WAL and the target's were compared.
    pub(super) fn of_summaries(
        wal: &ReplayWal<'_>,
        common: Lsn,
        newest: CheckpointAt,
        is_compared: bool,
    ) -> Result<Option<Theirs>, WalError> {
        let found = wal.summarized(common, newest.redo, is_compared)?;
        Ok(found.map(|found| Theirs {
            page_map: found.page_map,
            whole: found.whole,
            ..Theirs::new(Some(newest), SourceChanges::Summaries)
        }))
    }

    fn new(newest: Option<CheckpointAt>, known_from: SourceChanges) -> Theirs {
        Theirs {
            newest,
            page_map: PageMap::new(),
            whole: WholeFiles::default(),
            rebuilt: BySource::default(),
            files: FileChanges::default(),
            known_from,
            last_record: Lsn::INVALID,
        }
    }

    /// Reads the WAL from `from`, the newest checkpoint if there is one, to its end.
    pub(super) fn read_on(self, wal: &ReplayWal<'_>, from: Lsn) -> Result<Theirs, WalError> {
        wal.reporting(from, || self.read_to_end(wal, from))
    }

    fn read_to_end(mut self, wal: &ReplayWal<'_>, from: Lsn) -> Result<Theirs, WalError> {
        if wal.available() <= from {
            return Ok(self);
        }
        let after = wal.read_to_end(from)?;
        if let Some(found) = after.previous.filter(|_| self.last_record.is_valid())
            && found != self.last_record
        {
            let (fault, needed) = (WalFault::PreviousLink { found }, wal.available());
            return Err(WalError::ScanSource(ScanError::BreaksOff { position: from, needed, fault }));
        }
        self.files.append(after.files);
        if self.newest.is_some() {
            self.rebuilt = BySource { blocks: after.rebuilt, until: after.end };
        }
        Ok(self)
    }

    /// Whether all that the records before `end` do to files is known. Summaries are made from a server's own records only.
    pub(super) fn is_known_before(&self, end: Lsn) -> bool {
        let Some(unknown) = self.files.first_unknown.filter(|lsn| *lsn < end) else { return true };
        tracing::info!(
            "replay starts at the last common checkpoint: the source's WAL record at {unknown} changes relation files in an unknown way"
        );
        false
    }
}
