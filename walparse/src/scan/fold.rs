//! What one worker finds in one segment, and how such findings are joined.

use super::{Found, ScanError, ScanRequest, Scanner, UnknownChanges};
use crate::changes::Changes;
use crate::checkpoint::Checkpoint;
use crate::error::{WalFault, WalReadError};
use crate::lsn::Lsn;
use crate::reader::{WalEnd, WalReader, after_page_header};
use crate::record::Record;
use crate::relation::Fork;
use crate::rmgr;
use crate::segment::SegmentNo;
use crate::timeline::TimelineId;
use crate::version::WalGeometry;
use crate::wal_dir::SegmentStore;

/// What one worker found in one segment.
pub(super) struct Fold {
    changes: Changes,
    pub(super) checkpoint: Option<(Lsn, Checkpoint)>,
    /// Where the first record starts (a torn one counts), and the `xl_prev` of the first whole one.
    first: Option<(Lsn, Lsn)>,
    /// Last record that starts here.
    last: Option<Lsn>,
    /// Where the next record starts (in a later segment), unless the WAL ends before.
    next: Lsn,
    timelines: (TimelineId, TimelineId),
    end: Option<WalEnd>,
    records: u64,
    bytes: u64,
}

impl<S: SegmentStore + ?Sized> Scanner<'_, S> {
    /// Reads the records that start in one segment, but none before `from`, where a record starts.
    pub(super) fn fold(&self, segment: SegmentNo, from: Lsn) -> Result<Fold, ScanError> {
        let geometry = &self.request.geometry;
        let (start, stop) = (geometry.segment_size.start_of(segment), geometry.segment_size.end_of(segment));
        let mut fold = Fold::starting_at(start.max(from));
        let mut reader = WalReader::new(self.store, *geometry, fold.next);
        if from <= start {
            match reader.seek_first_in(segment)? {
                Err(end) => fold.end = Some(end),
                Ok(None) => fold.next = stop,
                Ok(Some(first)) => fold.next = first,
            }
        }
        fold.timelines.0 = reader.timeline();
        while fold.end.is_none() && fold.next < stop && !self.is_past_end(fold.next) {
            match reader.read()? {
                Err(end) => fold.end = Some(end),
                // Behind a record torn at the end of the segment the next one starts in a later segment.
                Ok(record) if record.lsn >= stop => {
                    fold.next = record.lsn;
                }
                Ok(record) => fold.add(&record, self.request)?,
            }
        }
        fold.timelines.1 = reader.timeline();
        (self.progress)(geometry.segment_size.bytes());
        Ok(fold)
    }
}

impl Fold {
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

    // Into the loop over the records, so that what was found in one need not go through memory.
    #[inline(always)]
    fn add(&mut self, record: &Record<'_>, request: &ScanRequest) -> Result<(), ScanError> {
        let undecodable = |source| WalReadError::Undecodable { lsn: record.lsn, source };
        let header = &record.header;
        // What goes on past the fork is not what the source will replay.
        let is_common = record.end <= request.fork;
        let payload = record.visit(&request.geometry, |block| {
            if block.fork == Fork::Main {
                let is_rebuilt = is_common && rmgr::rebuilds(header, &block, request.geometry.version);
                self.changes.insert(block.relation, block.block, is_rebuilt);
            }
        });
        let payload = payload.map_err(undecodable)?;
        // `next` is where this record was looked for: before it if a torn one stands there.
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
        if rmgr::may_copy_files(header, request.geometry.version) {
            self.changes.prove_no_more();
        }
        if request.unknown_changes == UnknownChanges::Refuse
            && header.is_special_relation_update()
            && !rmgr::is_known_relation_change(header, request.geometry.version)
        {
            return Err(ScanError::UnknownRelationChange {
                lsn: record.lsn,
                rmid: header.rmid,
                info: header.info,
                version: request.geometry.version,
            });
        }
        Ok(())
    }
}

impl Found {
    /// Adds the segment below all others, and checks the seam.
    pub(super) fn prepend<S: SegmentStore + ?Sized>(
        &mut self,
        fold: Fold,
        scanner: &Scanner<'_, S>,
    ) -> Result<(), ScanError> {
        let geometry = &scanner.request.geometry;
        let needed = self.first.map_or(scanner.request.fork, |(start, _)| start);
        if let Some(end) = fold.end {
            return Err(scanner.broken_off(&end, needed));
        }
        if let Some(seam) = fold.last.and(self.first)
            && let Some(fault) = seam_fault(seam, fold.last, Some(fold.next), geometry)
        {
            return Err(ScanError::BreaksOff { position: fold.next, needed, fault });
        }
        self.first = fold.first.or(self.first);
        self.checkpoint = fold.checkpoint;
        if fold.checkpoint.is_none() {
            self.records += fold.records;
            self.bytes += fold.bytes;
            self.changes.go_behind(fold.changes);
        }
        Ok(())
    }
}

/// The segments read so far, from the lowest up.
pub(super) struct Chain<'a, 'b, S: SegmentStore + ?Sized> {
    scanner: &'a Scanner<'b, S>,
    pub(super) found: Found,
    timeline: TimelineId,
    next: Option<Lsn>,
}

impl<'a, 'b, S: SegmentStore + ?Sized> Chain<'a, 'b, S> {
    pub(super) fn new(scanner: &'a Scanner<'b, S>) -> Chain<'a, 'b, S> {
        Chain { scanner, found: Found::nothing(), timeline: TimelineId(0), next: None }
    }

    /// Adds the next segment; the end of the WAL, if it is there.
    pub(super) fn append(&mut self, fold: Fold) -> Option<WalEnd> {
        let geometry = &self.scanner.request.geometry;
        let expected = self.next.unwrap_or(fold.next);
        if let Some(end) = fold.end.filter(|_| fold.first.is_none()) {
            return Some(WalEnd { position: self.next.unwrap_or(end.position), ..end });
        }
        let last = Some(self.found.last_record).filter(|lsn| lsn.is_valid());
        if let Some((start, _)) = fold.first {
            let older = (fold.timelines.0 < self.timeline)
                .then_some(WalFault::PageTimeline { found: fold.timelines.0, after: self.timeline });
            let fault = fold.first.and_then(|seam| seam_fault(seam, last, self.next, geometry)).or(older);
            if let Some(fault) = fault {
                return Some(WalEnd { position: expected, fault_at: start, fault });
            }
        }
        self.timeline = self.timeline.max(fold.timelines.1);
        // A segment in which no record starts is one record's continuation, whose end is known already.
        self.next = if fold.first.is_some() { Some(fold.next) } else { self.next.max(Some(fold.next)) };
        let found = &mut self.found;
        found.first = found.first.or(fold.first);
        found.last_record = fold.last.unwrap_or(found.last_record);
        found.records += fold.records;
        found.bytes += fold.bytes;
        found.changes.go_on_with(fold.changes);
        found.checkpoint = fold.checkpoint.or(found.checkpoint);
        fold.end
    }

    /// The end when every segment was read through.
    pub(super) fn end_behind(&self, highest: SegmentNo) -> WalEnd {
        let stop = self.scanner.request.geometry.segment_size.end_of(highest);
        WalEnd { position: self.next.unwrap_or(stop), fault_at: stop, fault: WalFault::NoSegment }
    }
}

/// What is wrong between a segment's first record (its start and `xl_prev`) and what was read below it.
fn seam_fault(
    (start, previous): (Lsn, Lsn),
    last: Option<Lsn>,
    next: Option<Lsn>,
    geometry: &WalGeometry,
) -> Option<WalFault> {
    if next.is_some_and(|next| after_page_header(next, geometry) != start) {
        return Some(WalFault::Continuation);
    }
    if last.is_some_and(|last| last != previous) {
        return Some(WalFault::PreviousLink { found: previous });
    }
    None
}
