//! Decides whether the end that a scan found can be the end of the WAL.

use super::error::ScanError;
use super::request::{EndOfWal, ScanRequest};
use crate::error::WalFault;
use crate::lsn::Lsn;
use crate::reader::{WalEnd, WalReader, before_page_header};
use crate::segment::SegmentNo;
use crate::wal_dir::SegmentStore;

/// At most this many missing segments are listed.
const MAX_LISTED: usize = 10_000;

/// The store and the request, to look for WAL after an apparent end.
pub(super) struct EndFinder<'a, S: SegmentStore + ?Sized> {
    pub(super) store: &'a S,
    pub(super) request: &'a ScanRequest,
}

impl<S: SegmentStore + ?Sized> EndFinder<'_, S> {
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

    /// Fails if the WAL cannot end where the scan stopped.
    pub(super) fn check(&self, end: &WalEnd, highest: SegmentNo) -> Result<(), ScanError> {
        let request = self.request;
        let size = request.geometry.segment_size;
        if end.position < before_page_header(request.required_end, &request.geometry) {
            if end.fault == WalFault::NoSegment {
                let segment = size.segment_of(end.fault_at);
                return Err(self.missing(segment, request.required_end)?);
            }
            return Err(self.broken_off(end, request.required_end));
        }
        if request.end == EndOfWal::Crashed
            && let Some(later) = self.valid_wal_after(end, highest)?
        {
            if end.fault == WalFault::NoSegment {
                return Err(self.missing(size.segment_of(end.fault_at), later)?);
            }
            return Err(ScanError::Damaged { position: end.position, later, fault: end.fault });
        }
        Ok(())
    }

    /// The error for WAL that ends before `needed`.
    pub(super) fn broken_off(&self, end: &WalEnd, needed: Lsn) -> ScanError {
        if end.fault == WalFault::NoSegment {
            let segment = self.request.geometry.segment_size.segment_of(end.fault_at);
            let file = self.store.describe(segment);
            return ScanError::Missing { segment, file, needed, all: vec![segment] };
        }
        ScanError::BreaksOff { position: end.position, needed, fault: end.fault }
    }

    /// The error that lists every missing segment from `segment` up to `needed`.
    fn missing(&self, segment: SegmentNo, needed: Lsn) -> Result<ScanError, ScanError> {
        let last = self.request.geometry.segment_size.segment_before(needed).max(segment);
        let mut all = vec![segment];
        for other in (segment.0 + 1..=last.0).take(MAX_LISTED).map(SegmentNo) {
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

    /// A valid record after the apparent end whose predecessor is after that end, too: proof that the WAL
    /// does not end there.
    ///
    /// Valid pages alone prove nothing: the pages of a torn record, and those left by an earlier crash, are
    /// valid as well.
    fn valid_wal_after(&self, end: &WalEnd, highest: SegmentNo) -> Result<Option<Lsn>, ScanError> {
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

    /// The record at `lsn`, or the first one on the page at `lsn`, if it is valid and its predecessor is
    /// after `end`.
    fn linked_record(&self, lsn: Lsn, end: &WalEnd) -> Result<Option<Lsn>, ScanError> {
        let mut reader = WalReader::new(self.store, self.request.geometry, lsn);
        let Some(start) = reader.seek_on_page(lsn)? else { return Ok(None) };
        Ok(reader.read()?.ok().filter(|record| record.header.previous >= end.position).map(|_| start))
    }
}
