//! The sequential reader: returns one record after the other, with all checks that the server makes.
//!
//! Invariant: [`WalReader::position`] is the start of the next record, or the page boundary before it, and all records
//! read before it are valid and linked to each other.

use byteorder::{ByteOrder, LittleEndian};

use crate::crc;
use crate::error::{WalFault, WalReadError};
use crate::lsn::{Lsn, TimelineId};
use crate::mapped::FileBytes;
use crate::page::PageHeader;
use crate::record::{RECORD_HEADER, Record, RecordHeader};
use crate::rmgr;
use crate::segment::SegmentNo;
use crate::version::{Version, WalGeometry};
use crate::wal_dir::SegmentStore;

/// Where valid WAL ends, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WalEnd {
    /// The end of the last valid record, where the next one would start.
    pub position: Lsn,
    /// Where the fault is: at `position`, or later if the next record is incomplete.
    pub fault_at: Lsn,
    /// The fault.
    pub fault: WalFault,
}

/// The first position at or after `lsn` at which a record can start: after the page header if `lsn` is a page boundary.
pub fn after_page_header(lsn: Lsn, geometry: &WalGeometry) -> Lsn {
    if lsn.0.is_multiple_of(u64::from(geometry.wal_block_size)) {
        lsn.advance(PageHeader::length_at(lsn, geometry) as u64)
    } else {
        lsn
    }
}

/// The end of a record that `lsn` denotes: the page boundary if `lsn` is the end of a page header. The server's insert
/// position and the end of the last record can differ in this way.
pub fn before_page_header(lsn: Lsn, geometry: &WalGeometry) -> Lsn {
    let page = Lsn(lsn.0 - lsn.0 % u64::from(geometry.wal_block_size));
    if lsn.0 - page.0 <= PageHeader::length_at(page, geometry) as u64 { page } else { lsn }
}

/// Reads the records of a history in order.
///
/// ```
/// use walparse::{BlockRef, Lsn, WalReader, operation};
/// # use walparse::testing::{BlockSpec, RecordSpec, WalBuilder, small_geometry};
/// # use walparse::{BlockNumber, Relation, Version};
/// # let geometry = small_geometry(Version::find(1800, 202_506_291).unwrap());
/// # let table = Relation { tablespace: 1663, database: 5, number: 16384 };
/// # let mut store = WalBuilder::new(geometry);
/// # let start = store.append(&RecordSpec { rmid: 10, blocks: vec![BlockSpec::part(table, BlockNumber(7))], ..Default::default() });
///
/// // `store` is a `WalDir`, `geometry` that of the control file, and a record starts at `start`.
/// let mut reader = WalReader::new(&store, geometry, start);
/// let mut blocks: Vec<BlockRef> = Vec::new();
/// # let mut lines = Vec::new();
/// let end = loop {
///     match reader.read()? {
///         Ok(record) => {
///             record.decode(&geometry, &mut blocks)?;
///             let operation = operation(&record.header, geometry.version);
///             println!("{} {operation}, {} blocks", record.lsn, blocks.len());
/// #           lines.push((record.lsn, operation, blocks.len()));
///         }
///         Err(end) => break end,
///     }
/// };
/// println!("WAL ends at {}: {}", end.position, end.fault);
/// # assert_eq!(lines, [(start, "INSERT".into(), 1)]);
/// # assert_eq!(end.fault, walparse::WalFault::RecordLength { found: 0 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WalReader<'s, S: SegmentStore + ?Sized> {
    store: &'s S,
    geometry: WalGeometry,
    position: Lsn,
    previous: Option<Lsn>,
    timeline: TimelineId,
    page: Option<(Lsn, PageHeader)>,
    segment: Option<(SegmentNo, FileBytes)>,
    /// The end of the populated window of the segment; see [`FileBytes::move_window`].
    window_end: usize,
    torn: Option<Lsn>,
    scratch: Vec<u8>,
}

/// The result of an internal step.
type Faulty<T> = Result<T, Stop>;

/// Why reading stops: the WAL ends, or it cannot be read.
enum Stop {
    Fault { at: Lsn, fault: WalFault },
    Read(WalReadError),
}

impl From<WalReadError> for Stop {
    fn from(error: WalReadError) -> Stop {
        Stop::Read(error)
    }
}

/// Where the bytes of a record are.
enum Place {
    /// In the current segment, at this offset.
    Segment(usize),
    /// In the scratch buffer, assembled from several pages.
    Scratch,
}

impl<'s, S: SegmentStore + ?Sized> WalReader<'s, S> {
    /// A reader whose first record starts at `start`, or after the page header if `start` is a page boundary.
    ///
    /// Of the first record's `xl_prev` only the order is checked, because the preceding record is unknown.
    pub fn new(store: &'s S, geometry: WalGeometry, start: Lsn) -> WalReader<'s, S> {
        WalReader {
            store,
            geometry,
            position: start,
            previous: None,
            timeline: TimelineId(0),
            page: None,
            segment: None,
            window_end: 0,
            torn: None,
            scratch: Vec::new(),
        }
    }

    /// The start of the next record, or the page boundary before it.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Moves to `lsn`, where a record starts. Unlike a new reader it keeps the segment that is open.
    pub fn move_to(&mut self, lsn: Lsn) {
        (self.position, self.previous, self.torn) = (lsn, None, None);
        self.timeline = TimelineId(0);
    }

    /// The start of the last record read.
    pub fn previous(&self) -> Option<Lsn> {
        self.previous
    }

    /// The newest timeline in the page headers read so far; 0 before the first page.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// Moves to the first record that starts in `segment`, skipping the rest of a record continued from the segment
    /// before. `None` if no record starts in the segment.
    ///
    /// # Errors
    /// Inner: the WAL ends in this segment. Outer: the segment could not be read.
    pub fn seek_first_in(&mut self, segment: SegmentNo) -> Result<Result<Option<Lsn>, WalEnd>, WalReadError> {
        let mut page = self.geometry.segment_size.start_of(segment);
        let end = self.geometry.segment_size.end_of(segment);
        while page < end {
            let header = match self.enter_page(page) {
                Ok(header) => header,
                Err(Stop::Read(error)) => return Err(error),
                Err(Stop::Fault { at, fault }) => {
                    return Ok(Err(WalEnd { position: page, fault_at: at, fault }));
                }
            };
            let continued = u64::from(header.continued).next_multiple_of(8);
            let block = u64::from(self.geometry.wal_block_size);
            let in_page = header.length as u64 + continued;
            if in_page < block {
                let first = page.advance(in_page);
                self.position = first;
                return Ok(Ok(Some(first)));
            }
            page = page.advance(block);
        }
        self.position = end;
        Ok(Ok(None))
    }

    /// Moves to the first record that starts at or after `lsn`, which need not be the start of a record.
    ///
    /// # Errors
    /// Inner: the WAL ends before such a record. Outer: a segment could not be read.
    pub fn seek_from(&mut self, lsn: Lsn) -> Result<Result<(), WalEnd>, WalReadError> {
        let mut segment = self.geometry.segment_size.segment_of(lsn);
        loop {
            match self.seek_first_in(segment)? {
                Err(end) => return Ok(Err(end)),
                Ok(Some(_)) => break,
                // A single record fills the segment.
                Ok(None) => segment = segment.next(),
            }
        }
        while after_page_header(self.position, &self.geometry) < lsn {
            if let Err(end) = self.read()? {
                return Ok(Err(end));
            }
        }
        Ok(Ok(()))
    }

    /// Moves to the first record that starts on the page at `lsn` if that is a page boundary, otherwise to `lsn`.
    /// `None` if the page is invalid or no record starts on it.
    pub(crate) fn seek_on_page(&mut self, lsn: Lsn) -> Result<Option<Lsn>, WalReadError> {
        let block = u64::from(self.geometry.wal_block_size);
        let mut start = lsn;
        if lsn.0.is_multiple_of(block) {
            let header = match self.enter_page(lsn) {
                Ok(header) => header,
                Err(Stop::Read(error)) => return Err(error),
                Err(Stop::Fault { .. }) => return Ok(None),
            };
            start = lsn.advance(header.length as u64 + u64::from(header.continued).next_multiple_of(8));
        }
        self.position = start;
        Ok((start.0 - lsn.0 < block).then_some(start))
    }

    /// Reads the next record.
    ///
    /// # Errors
    /// Inner: the WAL ends here; no valid record follows. Outer: a segment could not be read.
    #[inline]
    pub fn read(&mut self) -> Result<Result<Record<'_>, WalEnd>, WalReadError> {
        match self.next_in_page() {
            Some((at, header)) => {
                let lsn = self.position;
                let end = lsn.advance(u64::from(header.total_length)).aligned();
                (self.position, self.previous) = (end, Some(lsn));
                Ok(Ok(Record { lsn, end, header, bytes: self.in_segment(at, header.total_length) }))
            }
            None => self.read_slowly(),
        }
    }

    /// Reads the next record, wherever it is. Not inlined, to keep the code in the caller's loop short.
    #[inline(never)]
    fn read_slowly(&mut self) -> Result<Result<Record<'_>, WalEnd>, WalReadError> {
        let (lsn, place, header, end) = match self.find_record() {
            Ok(found) => found,
            Err(Stop::Read(error)) => return Err(error),
            Err(Stop::Fault { at, fault }) => {
                return Ok(Err(WalEnd { position: self.position, fault_at: at, fault }));
            }
        };
        self.position = end;
        self.previous = Some(lsn);
        let bytes = match place {
            Place::Scratch => &self.scratch[..],
            Place::Segment(at) => self.in_segment(at, header.total_length),
        };
        Ok(Ok(Record { lsn, end, header, bytes }))
    }

    /// The bytes of a record in the current segment.
    #[inline]
    fn in_segment(&self, at: usize, length: u32) -> &[u8] {
        let segment = self.segment.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        segment.get(at..at + length as usize).unwrap_or_default()
    }

    /// The next record in the usual case: it is valid, on the current page only, not the first on that page and not
    /// an `XLOG_SWITCH`. Everything else, and every fault, is left to [`WalReader::find_record`].
    #[inline]
    fn next_in_page(&self) -> Option<(usize, RecordHeader)> {
        let (page, page_header) = self.page?;
        let block = u64::from(self.geometry.wal_block_size);
        let in_page = self.position.0.checked_sub(page.0)?;
        if in_page <= page_header.length as u64 || in_page >= block {
            return None;
        }
        let at = self.geometry.segment_size.offset_of(self.position);
        let (_, segment) = self.segment.as_ref()?;
        let rest = segment.get(at..at + (block - in_page) as usize)?;
        let header = RecordHeader::parse(rest)?;
        let record = rest.get(..header.total_length as usize)?;
        check_header(&header, self.position, self.previous, self.geometry.version).ok()?;
        (!rmgr::is_switch(&header) && crc::is_valid(record)).then_some((at, header))
    }

    /// Finds and verifies the record at the current position.
    fn find_record(&mut self) -> Faulty<(Lsn, Place, RecordHeader, Lsn)> {
        let block = u64::from(self.geometry.wal_block_size);
        let mut start = self.position;
        self.torn = None;
        loop {
            let page = Lsn(start.0 - start.0 % block);
            let page_header = self.enter_page(page)?;
            if start == page {
                start = page.advance(page_header.length as u64);
            }
            let fault = |fault| Stop::Fault { at: start, fault };
            if start.0 - page.0 < page_header.length as u64
                || (start.0 - page.0 == page_header.length as u64 && page_header.continued > 0)
            {
                return Err(fault(WalFault::Continuation));
            }
            let left_in_page = (block - start.0 % block) as usize;
            let at = self.geometry.segment_size.offset_of(start);
            let bytes = self.segment_bytes(start, at, left_in_page)?;
            let total = bytes.get(..4).map(LittleEndian::read_u32).ok_or(fault(WalFault::FileTooShort))?;
            if (total as usize) < RECORD_HEADER {
                return Err(fault(WalFault::RecordLength { found: total }));
            }
            if total as usize <= left_in_page {
                let record = &bytes[..total as usize];
                let header = RecordHeader::parse(record).ok_or(fault(WalFault::FileTooShort))?;
                check_header(&header, start, self.previous, self.geometry.version).map_err(fault)?;
                if !crc::is_valid(record) {
                    return Err(fault(WalFault::Checksum));
                }
                self.check_overwrite(start, header, record)?;
                let end = self.next_after(&header, start.advance(u64::from(total)).aligned());
                return Ok((start, Place::Segment(at), header, end));
            }
            match self.assemble(start, total as usize, left_in_page)? {
                Assembled::Whole { header, end } => {
                    self.check_overwrite(start, header, &self.scratch)?;
                    return Ok((start, Place::Scratch, header, self.next_after(&header, end)));
                }
                // The torn record is skipped; its successor links to the record before it.
                Assembled::Torn { page } => {
                    self.torn = Some(start);
                    start = page;
                }
            }
        }
    }

    /// The position of the next record after one that ends at `end`: `end`, or the next segment after a switch.
    fn next_after(&self, header: &RecordHeader, end: Lsn) -> Lsn {
        let size = self.geometry.segment_size;
        if rmgr::is_switch(header) { size.end_of(size.segment_before(end)) } else { end }
    }

    /// Assembles a record that continues beyond its page.
    fn assemble(&mut self, start: Lsn, total: usize, left_in_page: usize) -> Faulty<Assembled> {
        let block = u64::from(self.geometry.wal_block_size);
        let at = self.geometry.segment_size.offset_of(start);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(self.segment_bytes(start, at, left_in_page)?);
        let mut header = None;
        let mut page = Lsn(start.0 - start.0 % block);
        loop {
            // The length is not trusted before the header has been verified, and the buffer never grows by more than
            // the bytes that exist.
            if header.is_none() && scratch.len() >= RECORD_HEADER {
                let parsed = RecordHeader::parse(&scratch);
                let parsed = parsed.ok_or(Stop::Fault { at: start, fault: WalFault::FileTooShort })?;
                check_header(&parsed, start, self.previous, self.geometry.version)
                    .map_err(|fault| Stop::Fault { at: start, fault })?;
                header = Some(parsed);
            }
            if scratch.len() >= total {
                break;
            }
            page = page.advance(block);
            let page_header = self.enter_page(page)?;
            if page_header.overwrites_torn_record {
                self.scratch = scratch;
                return Ok(Assembled::Torn { page });
            }
            let missing = total - scratch.len();
            if page_header.continued as usize != missing {
                return Err(Stop::Fault { at: page, fault: WalFault::Continuation });
            }
            let here = missing.min(block as usize - page_header.length);
            let from = page.advance(page_header.length as u64);
            let at = self.geometry.segment_size.offset_of(from);
            scratch.extend_from_slice(self.segment_bytes(from, at, here)?);
        }
        let valid = crc::is_valid(&scratch);
        self.scratch = scratch;
        match header {
            Some(header) if valid => {
                let page_header = self.enter_page(page)?;
                let end =
                    page.advance(page_header.length as u64 + u64::from(page_header.continued)).aligned();
                Ok(Assembled::Whole { header, end })
            }
            _ => Err(Stop::Fault { at: page, fault: WalFault::Checksum }),
        }
    }

    /// Checks that the record after a torn one marks that one as overwritten.
    fn check_overwrite(&self, start: Lsn, header: RecordHeader, bytes: &[u8]) -> Faulty<()> {
        let Some(torn) = self.torn else { return Ok(()) };
        let record = Record { lsn: start, end: start, header, bytes };
        let main_data = record.decode(&self.geometry, &mut Vec::new()).map(|payload| payload.main_data);
        let found = main_data.ok().and_then(|data| rmgr::overwritten_record(&record, data));
        if found == Some(torn) {
            return Ok(());
        }
        Err(Stop::Fault { at: start, fault: WalFault::Overwrite { found: found.unwrap_or(Lsn::INVALID) } })
    }

    /// Makes `page` the current page: opens its segment if necessary, and verifies its header.
    fn enter_page(&mut self, page: Lsn) -> Faulty<PageHeader> {
        if let Some((current, header)) = self.page
            && current == page
        {
            return Ok(header);
        }
        let size = self.geometry.segment_size;
        let segment = size.segment_of(page);
        let fault = |fault| Stop::Fault { at: page, fault };
        if self.segment.as_ref().is_none_or(|(current, _)| *current != segment) {
            let bytes = self.store.open(segment)?.ok_or(fault(WalFault::NoSegment))?;
            // A recycled file can contain pages that look valid, but not at its start.
            let first =
                bytes.get(..self.geometry.wal_block_size as usize).ok_or(fault(WalFault::FileTooShort))?;
            PageHeader::check(first, size.start_of(segment), &self.geometry).map_err(fault)?;
            self.segment = Some((segment, bytes));
            (self.page, self.window_end) = (None, 0);
        }
        let at = size.offset_of(page);
        if at >= self.window_end
            && let Some((_, bytes)) = &self.segment
        {
            self.window_end = bytes.move_window(at);
        }
        let bytes = self.segment_bytes(page, at, self.geometry.wal_block_size as usize)?;
        let header = PageHeader::check(bytes, page, &self.geometry).map_err(fault)?;
        if header.timeline < self.timeline {
            return Err(fault(WalFault::PageTimeline { found: header.timeline, after: self.timeline }));
        }
        self.timeline = header.timeline;
        self.page = Some((page, header));
        Ok(header)
    }

    /// `length` bytes at the offset `at` of the current segment. `lsn` is for the error.
    fn segment_bytes(&self, lsn: Lsn, at: usize, length: usize) -> Faulty<&[u8]> {
        let segment = self.segment.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        segment.get(at..at + length).ok_or(Stop::Fault { at: lsn, fault: WalFault::FileTooShort })
    }
}

/// The result of assembling a record.
enum Assembled {
    Whole { header: RecordHeader, end: Lsn },
    Torn { page: Lsn },
}

/// Verifies a record header. Before that, its length must not be trusted.
fn check_header(
    header: &RecordHeader,
    lsn: Lsn,
    previous: Option<Lsn>,
    version: Version,
) -> Result<(), WalFault> {
    if (header.total_length as usize) < RECORD_HEADER {
        return Err(WalFault::RecordLength { found: header.total_length });
    }
    if !rmgr::is_valid_id(header.rmid, version) {
        return Err(WalFault::ResourceManager { found: header.rmid });
    }
    let links = previous.map_or(header.previous < lsn, |previous| header.previous == previous);
    if !links {
        return Err(WalFault::PreviousLink { found: header.previous });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
