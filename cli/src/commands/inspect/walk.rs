//! Walks over the records of WAL, and tells the end of WAL from a gap in it.

use std::ops::ControlFlow;

use walparse::{
    BlockRef, Lsn, Payload, Record, SegmentNo, SegmentStore, WalEnd, WalFault, WalReadError, WalReader,
    after_page_header, before_page_header,
};

use super::error::InspectError;
use super::open::Wal;

/// A record, decoded.
pub(super) struct Seen<'a> {
    pub(super) record: &'a Record<'a>,
    pub(super) payload: &'a Payload<'a>,
    pub(super) blocks: &'a [BlockRef],
}

/// The range of WAL that a walk covered.
pub(super) struct Span {
    /// The start of the first record; `None` if there was none.
    pub(super) first: Option<Lsn>,
    /// The end of the last record.
    pub(super) end: Lsn,
    /// Why WAL ends there; `None` if the walk stopped before the end of WAL.
    pub(super) wal_end: Option<WalEnd>,
}

/// Calls `see` for each record that starts at or after `start` and before `end`, until it breaks.
///
/// # Errors
/// Missing or invalid WAL before `end`, or before segments that exist.
pub(super) fn walk(
    wal: &Wal,
    start: Option<Lsn>,
    end: Option<Lsn>,
    mut see: impl FnMut(&Seen<'_>) -> Result<ControlFlow<()>, InspectError>,
) -> Result<Span, InspectError> {
    let oldest = || wal.oldest().map(|oldest| wal.geometry.segment_size.start_of(oldest));
    // A start after the end of WAL is an error only if it was requested.
    let (asked, start) = (start, start.map_or_else(oldest, Ok)?);
    if let Some(end) = end.filter(|end| *end <= start) {
        return Err(InspectError::Order { start, end });
    }
    let is_past = |lsn: Lsn| end.is_some_and(|end| after_page_header(lsn, &wal.geometry) >= end);
    let mut reader = WalReader::new(wal, wal.geometry, start);
    let mut blocks = Vec::new();
    let mut span = Span { first: None, end: start, wal_end: None };
    if let Err(stop) = reader.seek_from(start)? {
        return checked(wal, Span { wal_end: Some(stop), end: stop.position, ..span }, end.or(asked));
    }
    while !is_past(reader.position()) {
        let record = match reader.read()? {
            Ok(record) => record,
            Err(stop) => {
                return checked(wal, Span { wal_end: Some(stop), end: stop.position, ..span }, end);
            }
        };
        if end.is_some_and(|end| record.lsn >= end) {
            break;
        }
        let undecodable = |source| WalReadError::Undecodable { lsn: record.lsn, source };
        let payload = record.decode(&wal.geometry, &mut blocks).map_err(undecodable)?;
        span.first.get_or_insert(record.lsn);
        span.end = record.end;
        if see(&Seen { record: &record, payload: &payload, blocks: &blocks })?.is_break() {
            break;
        }
    }
    Ok(span)
}

/// Accepts the end of WAL unless more WAL was requested or more segments follow.
fn checked(wal: &Wal, span: Span, wanted: Option<Lsn>) -> Result<Span, InspectError> {
    let Some(stop) = span.wal_end else { return Ok(span) };
    let size = wal.geometry.segment_size;
    let segment = size.segment_of(stop.fault_at);
    let is_gap = wal.has_segments_after(segment);
    if stop.fault == WalFault::NoSegment && (is_gap || wanted.is_some() || span.first.is_none()) {
        return Err(InspectError::Missing { segment: wal.describe(segment), position: stop.fault_at });
    }
    let needed = if is_gap { Some(size.start_of(SegmentNo(segment.0 + 1))) } else { wanted };
    match needed.filter(|needed| stop.position < before_page_header(*needed, &wal.geometry)) {
        Some(wanted) => Err(InspectError::EndsBefore { position: stop.position, wanted, source: stop.fault }),
        None => Ok(span),
    }
}
