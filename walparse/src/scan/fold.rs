//! What one worker finds in one segment.

use super::error::ScanError;
use super::request::{ScanRequest, UnknownChanges};
use crate::changes::Changes;
use crate::checkpoint::Checkpoint;
use crate::effect::Finish;
use crate::error::{WalFault, WalReadError};
use crate::lsn::{Lsn, TimelineId};
use crate::reader::{WalEnd, WalReader};
use crate::record::Record;
use crate::relation::Fork;
use crate::rmgr;
use crate::segment::SegmentNo;
use crate::wal_dir::SegmentStore;

/// The result of reading one segment, with what its neighbours are checked against.
pub(super) struct Fold {
    pub(super) changes: Changes,
    pub(super) checkpoint: Option<(Lsn, Checkpoint)>,
    /// Where the first record starts, even if that one is torn, and the `xl_prev` of the first whole one.
    pub(super) first: Option<(Lsn, Lsn)>,
    /// The last record that starts in this segment.
    pub(super) last: Option<Lsn>,
    /// Where the next record starts, in a later segment, unless the WAL ends before.
    pub(super) next: Lsn,
    /// The timelines of the first and of the last page read.
    pub(super) timelines: (TimelineId, TimelineId),
    pub(super) end: Option<WalEnd>,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Fold {
    /// Reads the records that start in `segment`, but none before `from`, where a record starts.
    pub(super) fn of<S: SegmentStore + ?Sized>(
        store: &S,
        request: &ScanRequest,
        segment: SegmentNo,
        from: Lsn,
    ) -> Result<Fold, ScanError> {
        let geometry = &request.geometry;
        let (start, stop) = (geometry.segment_size.start_of(segment), geometry.segment_size.end_of(segment));
        let mut fold = Fold::starting_at(start.max(from));
        let mut reader = WalReader::new(store, *geometry, fold.next);
        if from <= start {
            match reader.seek_first_in(segment)? {
                Err(end) => fold.end = Some(end),
                Ok(None) => fold.next = stop,
                Ok(Some(first)) => fold.next = first,
            }
        }
        fold.timelines.0 = reader.timeline();
        let stop_reading = stop.min(request.known_end());
        while fold.end.is_none() && fold.next < stop_reading {
            match reader.read()? {
                Err(end) => fold.end = Some(end),
                // If the segment ends with a torn record, the next record starts in a later segment.
                Ok(record) if record.lsn >= stop => {
                    fold.next = record.lsn;
                }
                Ok(record) => fold.add(&record, request)?,
            }
        }
        fold.timelines.1 = reader.timeline();
        fold.changes.rows.settle();
        Ok(fold)
    }

    fn starting_at(start: Lsn) -> Fold {
        Fold {
            changes: Changes::default(),
            checkpoint: None,
            first: None,
            last: None,
            next: start,
            timelines: (TimelineId(0), TimelineId(0)),
            end: None,
            records: 0,
            bytes: 0,
        }
    }

    // Inlined into the loop over the records, so that the decoded fields stay in registers.
    #[inline(always)]
    fn add(&mut self, record: &Record<'_>, request: &ScanRequest) -> Result<(), ScanError> {
        let undecodable = |source| WalReadError::Undecodable { lsn: record.lsn, source };
        let header = &record.header;
        // The source does not replay a record that ends after the fork.
        let is_common = record.end <= request.fork;
        let mut relation = None;
        let payload = record.visit(&request.geometry, |block| {
            if block.fork == Fork::Main {
                let is_rebuilt = is_common && rmgr::rebuilds(header, &block, request.geometry.version);
                self.changes.insert(block.relation, block.block, is_rebuilt);
                relation = relation.or(Some(block.relation));
            }
        });
        let payload = payload.map_err(undecodable)?;
        // `next` is where the record was expected: before its start if a torn record stands there.
        self.first.get_or_insert((self.next, header.previous));
        (self.last, self.next) = (Some(record.lsn), record.end);
        self.records += 1;
        self.bytes += u64::from(header.total_length);
        if rmgr::is_checkpoint(header) && record.lsn < request.fork && record.lsn <= request.newest_checkpoint
        {
            let checkpoint = Checkpoint::parse(payload.main_data);
            let checkpoint = checkpoint.ok_or(undecodable(WalFault::Fragment("checkpoint too short")))?;
            self.checkpoint = Some((record.lsn, checkpoint));
        }
        self.changes.files.add((record.lsn, record.end), header, payload.main_data, request.geometry.version);
        if header.rmid == rmgr::TRANSACTION {
            if !is_common || request.counts_rows {
                self.add_transaction(record, payload.main_data, request);
            }
        } else if request.counts_rows {
            self.changes.rows.add(
                record.lsn,
                (header, payload.main_data),
                relation,
                request.geometry.version,
            );
        }
        if rmgr::may_copy_files(header, request.geometry.version) {
            self.changes.prove_no_more();
        }
        if header.is_special_relation_update()
            && !rmgr::is_known_relation_change(header, request.geometry.version)
        {
            if request.unknown_changes == UnknownChanges::Ignore {
                self.changes.files.first_unknown.get_or_insert(record.lsn);
                return Ok(());
            }
            return Err(ScanError::UnknownRelationChange {
                lsn: record.lsn,
                rmid: header.rmid,
                info: header.info,
                version: request.geometry.version,
            });
        }
        Ok(())
    }
    /// The ID of this resource manager is the same in all flavors.
    #[cold]
    fn add_transaction(&mut self, record: &Record<'_>, main_data: &[u8], request: &ScanRequest) {
        let (header, version, end_and_fork) =
            (&record.header, request.geometry.version, (record.end, request.fork));
        let finish = Finish::of(header, main_data, version);
        self.changes.transactions.add(header, end_and_fork, (main_data, finish.as_ref()), version);
        if request.counts_rows {
            let is_beyond = record.end > request.fork;
            self.changes.rows.add_transaction((record.lsn, is_beyond), (header, main_data), finish);
        }
    }
}
