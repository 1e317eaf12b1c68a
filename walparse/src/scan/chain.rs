//! Joins the results of neighbouring segments, and checks that the records of one continue those of the other.

use super::fold::Fold;
use crate::changes::Changes;
use crate::checkpoint::Checkpoint;
use crate::error::WalFault;
use crate::lsn::{Lsn, TimelineId};
use crate::reader::{WalEnd, after_page_header};
use crate::segment::SegmentNo;
use crate::version::WalGeometry;

/// The joined results of some neighbouring segments.
pub(super) struct Found {
    pub(super) changes: Changes,
    pub(super) checkpoint: Option<(Lsn, Checkpoint)>,
    /// The first record: its start and its `xl_prev`.
    first: Option<(Lsn, Lsn)>,
    pub(super) last_record: Lsn,
    pub(super) stop: WalEnd,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Records and bytes that will be read again, and so are not counted in the fields above.
    pub(super) reread: (u64, u64),
}

impl Found {
    fn nothing() -> Found {
        Found {
            changes: Changes::default(),
            checkpoint: None,
            first: None,
            last_record: Lsn::INVALID,
            stop: WalEnd { position: Lsn::INVALID, fault_at: Lsn::INVALID, fault: WalFault::NoSegment },
            records: 0,
            bytes: 0,
            reread: (0, 0),
        }
    }

    /// Where the first record starts, if there is one.
    pub(super) fn start(&self) -> Option<Lsn> {
        self.first.map(|(start, _)| start)
    }

    /// The `xl_prev` of the first record.
    pub(super) fn previous(&self) -> Option<Lsn> {
        self.first.map(|(_, previous)| previous)
    }

    /// Drops what was counted so far, because the segments read up to here will be read again.
    pub(super) fn forget(&mut self) {
        self.reread = (self.records, self.bytes);
        (self.records, self.bytes) = (0, 0);
        self.changes = Changes::default();
    }

    /// Adds the segment below all others.
    ///
    /// # Errors
    /// The first record above does not continue what was read below it.
    pub(super) fn prepend(&mut self, fold: Fold, geometry: &WalGeometry) -> Result<(), WalFault> {
        if let Some(seam) = fold.last.and(self.first)
            && let Some(fault) = seam_fault(seam, fold.last, Some(fold.next), geometry)
        {
            return Err(fault);
        }
        self.first = fold.first.or(self.first);
        self.checkpoint = fold.checkpoint;
        if fold.checkpoint.is_none() {
            self.records += fold.records;
            self.bytes += fold.bytes;
            self.changes.prepend(fold.changes);
        }
        Ok(())
    }
}

/// The segments read so far, in ascending order.
pub(super) struct Chain<'a> {
    geometry: &'a WalGeometry,
    pub(super) found: Found,
    timeline: TimelineId,
    next: Option<Lsn>,
}

impl<'a> Chain<'a> {
    pub(super) fn new(geometry: &'a WalGeometry) -> Chain<'a> {
        Chain { geometry, found: Found::nothing(), timeline: TimelineId(0), next: None }
    }

    /// Adds the next segment. Returns the end of the WAL if it lies in that segment.
    pub(super) fn append(&mut self, fold: Fold) -> Option<WalEnd> {
        let expected = self.next.unwrap_or(fold.next);
        if let Some(end) = fold.end.filter(|_| fold.first.is_none()) {
            return Some(WalEnd { position: self.next.unwrap_or(end.position), ..end });
        }
        let last = Some(self.found.last_record).filter(|lsn| lsn.is_valid());
        if let Some((start, _)) = fold.first {
            let older = (fold.timelines.0 < self.timeline)
                .then_some(WalFault::PageTimeline { found: fold.timelines.0, after: self.timeline });
            let fault = fold.first.and_then(|seam| seam_fault(seam, last, self.next, self.geometry));
            if let Some(fault) = fault.or(older) {
                return Some(WalEnd { position: expected, fault_at: start, fault });
            }
        }
        self.timeline = self.timeline.max(fold.timelines.1);
        // A segment in which no record starts continues a single record, whose end is known already.
        self.next = if fold.first.is_some() { Some(fold.next) } else { self.next.max(Some(fold.next)) };
        let found = &mut self.found;
        found.first = found.first.or(fold.first);
        found.last_record = fold.last.unwrap_or(found.last_record);
        found.records += fold.records;
        found.bytes += fold.bytes;
        found.changes.append(fold.changes);
        found.checkpoint = fold.checkpoint.or(found.checkpoint);
        fold.end
    }

    /// The end of the WAL if every segment up to `highest` was read to its end.
    pub(super) fn end_after(&self, highest: SegmentNo) -> WalEnd {
        let stop = self.geometry.segment_size.end_of(highest);
        WalEnd { position: self.next.unwrap_or(stop), fault_at: stop, fault: WalFault::NoSegment }
    }
}

/// What is wrong between the first record of a segment (its start and its `xl_prev`) and what was read below it.
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
