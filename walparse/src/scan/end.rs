//! Whether the end that a scan came to may be the end.

use super::{EndOfWal, ScanError, Scanner};
use crate::error::WalFault;
use crate::lsn::Lsn;
use crate::reader::{WalEnd, WalReader, before_page_header};
use crate::segment::SegmentNo;
use crate::wal_dir::SegmentStore;

/// Of missing segments so many are named.
const MOST_NAMED: usize = 10_000;

impl<S: SegmentStore + ?Sized> Scanner<'_, S> {
    /// The highest segment that can be part of the WAL.
    pub(super) fn highest(&self, lowest: SegmentNo) -> Result<SegmentNo, ScanError> {
        let needed = self.request.geometry.segment_size.segment_before(self.request.required_end).max(lowest);
        if self.request.end == EndOfWal::Known {
            return Ok(needed);
        }
        let newest = self.store.newest()?.unwrap_or(needed);
        for segment in (needed.0 + 1..=newest.0).rev().map(SegmentNo) {
            if self.first_record_in(segment)?.is_some() {
                return Ok(segment);
            }
        }
        Ok(needed)
    }

    /// Decides whether the end found may be the end.
    pub(super) fn judge_end(&self, end: &WalEnd, highest: SegmentNo) -> Result<(), ScanError> {
        let request = self.request;
        let size = request.geometry.segment_size;
        if end.position < before_page_header(request.required_end, &request.geometry) {
            if end.fault == WalFault::NoSegment {
                let segment = size.segment_of(end.fault_at);
                return Err(self.missing(segment, request.required_end)?);
            }
            return Err(ScanError::BreaksOff {
                position: end.position,
                needed: request.required_end,
                fault: end.fault,
            });
        }
        if request.end == EndOfWal::Crashed
            && let Some(later) = self.valid_wal_behind(end, highest)?
        {
            if end.fault == WalFault::NoSegment {
                return Err(self.missing(size.segment_of(end.fault_at), later)?);
            }
            return Err(ScanError::Damaged { position: end.position, later, fault: end.fault });
        }
        Ok(())
    }

    /// Names every missing segment from the first missing one to where WAL is needed.
    fn missing(&self, segment: SegmentNo, needed: Lsn) -> Result<ScanError, ScanError> {
        let last = self.request.geometry.segment_size.segment_before(needed).max(segment);
        let mut all = vec![segment];
        for other in (segment.0 + 1..=last.0).take(MOST_NAMED).map(SegmentNo) {
            if self.store.open(other)?.is_none() {
                all.push(other);
            }
        }
        Ok(ScanError::Missing { segment, file: self.store.describe(segment), needed, all })
    }

    /// The first record of a segment whose first page is valid.
    fn first_record_in(&self, segment: SegmentNo) -> Result<Option<Lsn>, ScanError> {
        let start = self.request.geometry.segment_size.start_of(segment);
        let mut reader = WalReader::new(self.store, self.request.geometry, start);
        Ok(reader.seek_first_in(segment)?.ok().flatten())
    }

    /// A valid record behind the end that follows others behind it: proof that the end is none.
    ///
    /// Pages alone prove nothing: those of a record that a crash tore, or left from an earlier crash,
    /// look valid too.
    fn valid_wal_behind(&self, end: &WalEnd, highest: SegmentNo) -> Result<Option<Lsn>, ScanError> {
        let geometry = &self.request.geometry;
        let size = geometry.segment_size;
        let block = u64::from(geometry.wal_block_size);
        let last_page = size.end_of(size.segment_of(end.fault_at));
        let mut page = Lsn(end.fault_at.0 - end.fault_at.0 % block).advance(block);
        while page < last_page && end.fault != WalFault::NoSegment {
            if let Some(later) = self.linked_record(page, end)? {
                return Ok(Some(later));
            }
            page = page.advance(block);
        }
        for segment in (size.segment_of(end.fault_at).0 + 1..=highest.0).map(SegmentNo) {
            if let Some(first) = self.first_record_in(segment)?
                && let Some(later) = self.linked_record(first, end)?
            {
                return Ok(Some(later));
            }
        }
        Ok(None)
    }

    /// The record at (or on the page at) `lsn`, if it is valid and follows one behind `end`.
    fn linked_record(&self, lsn: Lsn, end: &WalEnd) -> Result<Option<Lsn>, ScanError> {
        let mut reader = WalReader::new(self.store, self.request.geometry, lsn);
        let Some(start) = reader.seek_on_page(lsn)? else { return Ok(None) };
        Ok(reader.read()?.ok().filter(|record| record.header.previous >= end.position).map(|_| start))
    }
}
