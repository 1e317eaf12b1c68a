//! The sequential reader: one record after the other, with every check the server makes.
//!
//! It keeps one invariant: [`WalReader::position`] is where the next record starts (or the page boundary
//! before it), and everything before it that was read is valid WAL of one unbroken chain.

use byteorder::{ByteOrder, LittleEndian};

use crate::crc;
use crate::error::{WalFault, WalReadError};
use crate::lsn::Lsn;
use crate::mapped::FileBytes;
use crate::page::PageHeader;
use crate::record::{RECORD_HEADER, Record, RecordHeader, check_header};
use crate::rmgr;
use crate::segment::SegmentNo;
use crate::timeline::TimelineId;
use crate::version::WalGeometry;
use crate::wal_dir::SegmentStore;

/// Where valid WAL stops, and what stands there instead of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalEnd {
    /// Where the next record would start: the end of the last valid one.
    pub position: Lsn,
    /// Where the fault was found: at or after `position`, later if a record breaks off half-way.
    pub fault_at: Lsn,
    /// The fault.
    pub fault: WalFault,
}

/// Where a record may start at or after `lsn`: behind the page header if `lsn` is a page boundary.
pub fn after_page_header(lsn: Lsn, geometry: &WalGeometry) -> Lsn {
    if lsn.0.is_multiple_of(u64::from(geometry.wal_block_size)) {
        lsn.advance(PageHeader::length_at(lsn, geometry) as u64)
    } else {
        lsn
    }
}

/// The end of a record that `lsn` stands for: a position just behind a page header is the page boundary,
/// which is how the server's insert position and a record's end may differ.
pub fn before_page_header(lsn: Lsn, geometry: &WalGeometry) -> Lsn {
    let page = Lsn(lsn.0 - lsn.0 % u64::from(geometry.wal_block_size));
    if lsn.0 - page.0 <= PageHeader::length_at(page, geometry) as u64 { page } else { lsn }
}

/// Reads the records of one history in order.
#[derive(Debug)]
pub struct WalReader<'s, S: SegmentStore + ?Sized> {
    store: &'s S,
    geometry: WalGeometry,
    position: Lsn,
    previous: Option<Lsn>,
    timeline: TimelineId,
    page: Option<(Lsn, PageHeader)>,
    segment: Option<(SegmentNo, FileBytes)>,
    /// Up to here the bytes of the segment have been asked for.
    window_end: usize,
    torn: Option<Lsn>,
    scratch: Vec<u8>,
}

/// A fault and where it was found.
type Faulty<T> = Result<T, Stop>;

/// Why reading cannot go on: the WAL ends, or it cannot be read.
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
    /// In the current segment, from this offset.
    Segment(usize),
    /// Put together in the scratch buffer.
    Scratch,
}

impl<'s, S: SegmentStore + ?Sized> WalReader<'s, S> {
    /// A reader whose first record starts at `start` (or behind the page header, at a page boundary).
    /// Its `xl_prev` is only checked to lie before it, because nothing is known of the one before.
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

    /// Where the next record starts, or the page boundary before it.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Where the last record that was read starts.
    pub fn previous(&self) -> Option<Lsn> {
        self.previous
    }

    /// The newest timeline seen in page headers; 0 before the first page.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// Moves to the first record that starts in `segment`, skipping what is continued from before.
    /// `None` if no record starts there.
    ///
    /// # Errors
    /// The inner error is the end of the WAL, somewhere in this segment.
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

    /// Moves to the first record that starts at `lsn` or behind it, whatever stands at `lsn` itself.
    ///
    /// # Errors
    /// The inner error is the end of the WAL, before any such record.
    pub fn seek_from(&mut self, lsn: Lsn) -> Result<Result<(), WalEnd>, WalReadError> {
        let mut segment = self.geometry.segment_size.segment_of(lsn);
        loop {
            match self.seek_first_in(segment)? {
                Err(end) => return Ok(Err(end)),
                Ok(Some(_)) => break,
                // One record fills the segment.
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

    /// Moves to the first record that starts on the page at `lsn`, or to `lsn` itself inside a page.
    /// `None` if the page is not valid, or no record starts on it.
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
    /// The inner error is the end of the WAL: nothing valid follows. The outer one is trouble in reading.
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

    /// Reads the next record wherever it is. Kept apart so that what is compiled into the caller's loop is short.
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

    /// The bytes of a record that was found there in the current segment.
    #[inline]
    fn in_segment(&self, at: usize, length: u32) -> &[u8] {
        let segment = self.segment.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        segment.get(at..at + length as usize).unwrap_or_default()
    }

    /// The next record if it is the usual case: valid, wholly on the current page, not the first there and
    /// not the last of its segment. Everything else, and every fault, is for [`WalReader::find_record`].
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
        (!rmgr::is_switch(&header) && crc::is_right(record)).then_some((at, header))
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
                if !crc::is_right(record) {
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
                // The chain goes on behind the torn record, which is as if it had never been.
                Assembled::Torn { page } => {
                    self.torn = Some(start);
                    start = page;
                }
            }
        }
    }

    /// Where the next record is to be looked for behind one that ends at `end`: there, or in the next
    /// segment behind a switch.
    fn next_after(&self, header: &RecordHeader, end: Lsn) -> Lsn {
        let size = self.geometry.segment_size;
        if rmgr::is_switch(header) { size.end_of(size.segment_before(end)) } else { end }
    }

    /// Puts together a record that goes on past its page.
    fn assemble(&mut self, start: Lsn, total: usize, left_in_page: usize) -> Faulty<Assembled> {
        let block = u64::from(self.geometry.wal_block_size);
        let at = self.geometry.segment_size.offset_of(start);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(self.segment_bytes(start, at, left_in_page)?);
        let mut header = None;
        let mut page = Lsn(start.0 - start.0 % block);
        loop {
            // The claimed length is trusted only once the header has been verified; until then, and
            // beyond it, the buffer grows only by bytes that are really there.
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
        let valid = crc::is_right(&scratch);
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

    /// Checks that a record found behind a torn one declares just that one void.
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

    /// Makes `page` the current page: opens its segment and checks its header, once.
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
            // A recycled file can hold valid-looking pages anywhere but at its start.
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

    /// Bytes of the current segment.
    fn segment_bytes(&self, lsn: Lsn, at: usize, length: usize) -> Faulty<&[u8]> {
        let segment = self.segment.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        segment.get(at..at + length).ok_or(Stop::Fault { at: lsn, fault: WalFault::FileTooShort })
    }
}

/// How putting a record together ended.
enum Assembled {
    Whole { header: RecordHeader, end: Lsn },
    Torn { page: Lsn },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lsn::BlockNumber;
    use crate::relation::Relation;
    use crate::testing::{BlockSpec, RecordSpec, WalBuilder, small_geometry};
    use crate::version::Version;

    fn geometry() -> WalGeometry {
        small_geometry(Version::find(1300, 202_209_061).unwrap())
    }

    fn filler(length: usize) -> RecordSpec {
        RecordSpec { rmid: 10, main_data: vec![7; length], ..RecordSpec::default() }
    }

    fn read_all(wal: &WalBuilder) -> (Vec<(Lsn, Lsn)>, WalEnd) {
        let mut reader = WalReader::new(wal, geometry(), Lsn(1 << 20));
        let mut records = Vec::new();
        loop {
            match reader.read().unwrap() {
                Ok(record) => records.push((record.lsn, record.end)),
                Err(end) => return (records, end),
            }
        }
    }

    #[test]
    fn records_at_page_and_segment_boundaries_are_read() {
        let mut wal = WalBuilder::new(geometry());
        let mut starts = Vec::new();
        // Each length in turn puts ends at, just before and just behind page boundaries.
        for length in (8000..8300).chain([1_100_000, 1, 2_200_000, 1 << 20]) {
            starts.push(wal.append(&filler(length)));
        }
        starts.push(wal.switch());
        starts.push(wal.append(&filler(10)));
        let (records, end) = read_all(&wal);
        assert_eq!(records.iter().map(|(start, _)| *start).collect::<Vec<_>>(), starts);
        assert_eq!(end.position, wal.position());
        assert_eq!(end.fault, WalFault::RecordLength { found: 0 });
    }

    /// The last segment there can be, as only a damaged or forged file can name it.
    #[test]
    fn positions_at_the_end_of_the_range_do_not_overflow() {
        struct Last(Vec<u8>);
        impl SegmentStore for Last {
            fn open(&self, _: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
                Ok(Some(FileBytes::Owned(self.0.clone())))
            }
            fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
                Ok(None)
            }
            fn describe(&self, segment: SegmentNo) -> String {
                segment.to_string()
            }
        }
        let mut wal = WalBuilder::new(geometry());
        wal.append(&filler((1 << 20) - 24 * 128 - 16 - 24 - 5 - 8));
        let mut bytes = wal.segments()[&1].clone();
        let last = geometry().segment_size.segment_of(Lsn(u64::MAX));
        let start = geometry().segment_size.start_of(last);
        for (index, page) in bytes.chunks_mut(8192).enumerate() {
            page[8..16].copy_from_slice(&(start.0 + index as u64 * 8192).to_le_bytes());
        }
        let store = Last(bytes);
        for from in [start, Lsn(u64::MAX - 8191), Lsn(u64::MAX - 7), Lsn(u64::MAX)] {
            let mut reader = WalReader::new(&store, geometry(), from);
            while reader.read().unwrap().is_ok() {}
            let mut reader = WalReader::new(&store, geometry(), from);
            let _ = reader.seek_from(from).unwrap();
            let _ = reader.seek_on_page(from).unwrap();
        }
    }

    /// Even the 24 bytes of a switch can go on over a page's end, and over a segment's.
    #[test]
    fn a_switch_ends_its_segment_wherever_it_stands() {
        for gap in [8_160, 8_152, 8_144, 8_136, 8_128] {
            for pages in [0, 127] {
                let mut wal = WalBuilder::new(geometry());
                if pages > 0 {
                    let usable = pages * (8192 - 24) - 16;
                    wal.append(&filler(usable - 24 - 5));
                }
                wal.append(&filler(gap - 24 - 5));
                wal.switch();
                let after = wal.append(&filler(5));
                let (records, end) = read_all(&wal);
                assert_eq!(records.last().map(|(start, _)| *start), Some(after), "{gap} after {pages}");
                assert_eq!(end.position, wal.position());
            }
        }
    }

    #[test]
    fn a_torn_record_is_skipped_when_it_is_declared_void() {
        let mut wal = WalBuilder::new(geometry());
        let first = wal.append(&filler(100));
        wal.tear(&filler(20_000));
        let after = wal.append(&filler(5));
        let (records, end) = read_all(&wal);
        assert_eq!((records.len(), records[0].0, records[2].0), (3, first, after));
        assert_eq!(end.position, wal.position());
        // Declared void is another record than the one that is torn.
        let void = records[1].0;
        let mut other = wal.clone();
        other.damage(void.advance(26), 8);
        let (records, end) = read_all(&other);
        assert_eq!((records.len(), end.position), (1, records[0].1));
    }

    #[test]
    fn positions_at_a_page_header_are_the_page_boundary() {
        let geometry = geometry();
        for (lsn, end) in
            [(0x10_0000, 0x10_0000), (0x10_0028, 0x10_0000), (0x10_2018, 0x10_2000), (0x10_2020, 0x10_2020)]
        {
            assert_eq!(before_page_header(Lsn(lsn), &geometry), Lsn(end), "{lsn:X}");
        }
        assert_eq!(after_page_header(Lsn(0x10_0000), &geometry), Lsn(0x10_0028));
        assert_eq!(after_page_header(Lsn(0x10_2000), &geometry), Lsn(0x10_2018));
        assert_eq!(after_page_header(Lsn(0x10_2020), &geometry), Lsn(0x10_2020));
    }

    proptest! {
        #[test]
        fn any_damage_ends_the_wal_before_it_and_never_panics(
            lengths in prop::collection::vec(0usize..20_000, 1..40),
            at in 0u64..400_000,
            mask in 1u8..,
        ) {
            let mut wal = WalBuilder::new(geometry());
            let block = Relation { tablespace: 1663, database: 5, number: 16384 };
            for length in lengths {
                let spec = RecordSpec { blocks: vec![BlockSpec::part(block, BlockNumber(length as u32))], ..filler(length) };
                wal.append(&spec);
            }
            let (whole, _) = read_all(&wal);
            wal.damage(Lsn((1 << 20) + at), mask);
            let (records, end) = read_all(&wal);
            prop_assert_eq!(&records[..], &whole[..records.len()]);
            // Only bytes that no check covers (padding, the removable flag) may go unnoticed, and a larger
            // timeline is noticed on the next page only.
            if records.len() < whole.len() && !(4..8).contains(&(at % 8192)) {
                prop_assert!(end.position.0 <= (1 << 20) + at);
            }
        }
    }
}
