//! Builds WAL for tests: [`WalBuilder`] writes records into segments like a server does.

use std::collections::BTreeMap;

use crate::error::WalReadError;
use crate::lsn::{BlockNumber, Lsn, TimelineId};
use crate::mapped::FileBytes;
use crate::page::PageHeader;
use crate::reader::after_page_header;
use crate::relation::Relation;
use crate::segment::SegmentNo;
use crate::version::WalGeometry;
use crate::wal_dir::SegmentStore;

pub use crate::version::small_geometry;

/// WAL segments in memory, to which records can be appended.
#[derive(Clone, Debug)]
pub struct WalBuilder {
    geometry: WalGeometry,
    /// The timeline in the headers of new pages.
    pub timeline: TimelineId,
    /// The transaction ID of new records.
    pub xid: u32,
    segments: BTreeMap<u64, Vec<u8>>,
    position: Lsn,
    previous: Lsn,
}

/// A record to write.
#[derive(Clone, Debug, Default)]
pub struct RecordSpec {
    /// `xl_rmid`
    pub rmid: u8,
    /// `xl_info`
    pub info: u8,
    /// Its block references.
    pub blocks: Vec<BlockSpec>,
    /// Its main data.
    pub main_data: Vec<u8>,
}

/// A block reference.
#[derive(Clone, Copy, Debug)]
pub struct BlockSpec {
    /// The relation.
    pub relation: Relation,
    /// The fork, as stored: 0 is the main fork.
    pub fork: u8,
    /// The block.
    pub block: BlockNumber,
    /// What replay does to the block.
    pub change: BlockChange,
}

/// What replay does to a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockChange {
    /// It modifies the page.
    Part,
    /// It initializes the page (`BKPBLOCK_WILL_INIT`).
    Init,
    /// It restores the page from a full-page image, which consists of one byte and a hole.
    Image,
    /// As `Part`, but there is an image that serves `wal_consistency_checking` only (since 10).
    ImageForChecking,
}

impl BlockSpec {
    /// A modification of a page of the main fork.
    pub fn part(relation: Relation, block: BlockNumber) -> BlockSpec {
        BlockSpec { relation, fork: 0, block, change: BlockChange::Part }
    }
}

impl WalBuilder {
    /// Empty WAL that starts with segment 1.
    pub fn new(geometry: WalGeometry) -> WalBuilder {
        let position = geometry.segment_size.start_of(SegmentNo(1));
        let (timeline, previous) = (TimelineId(1), Lsn::INVALID);
        WalBuilder { geometry, timeline, xid: 0, segments: BTreeMap::new(), position, previous }
    }

    /// The start of the next record, or the page boundary before it.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Appends a record and returns its start.
    pub fn append(&mut self, spec: &RecordSpec) -> Lsn {
        self.put(&encode(spec, (self.xid, self.previous), &self.geometry))
    }

    /// Appends a record with arbitrary bytes after its header, and returns its start.
    pub fn append_raw(&mut self, rmid: u8, info: u8, fragments: &[u8]) -> Lsn {
        let mut record = vec![0; 24];
        record.extend_from_slice(fragments);
        self.put(&sealed(record, rmid, info, (self.xid, self.previous)))
    }

    /// Appends an online checkpoint with this redo position, and returns its start.
    pub fn checkpoint(&mut self, redo: Lsn) -> Lsn {
        let length = self.geometry.version.control_layout().checkpoint_length();
        let mut main_data = vec![0; length];
        main_data[0..8].copy_from_slice(&redo.0.to_le_bytes());
        main_data[8..12].copy_from_slice(&self.timeline.0.to_le_bytes());
        main_data[12..16].copy_from_slice(&self.timeline.0.to_le_bytes());
        main_data[16] = 1;
        self.append(&RecordSpec { rmid: 0, info: 0x10, main_data, ..RecordSpec::default() })
    }

    /// Appends an `XLOG_SWITCH`, after which the next record starts in the next segment, and returns its start.
    pub fn switch(&mut self) -> Lsn {
        let start = self.append(&RecordSpec { rmid: 0, info: 0x40, ..RecordSpec::default() });
        let size = self.geometry.segment_size;
        self.position = size.end_of(size.segment_before(self.position));
        start
    }

    /// Appends a torn record, of which only the first page exists, followed by the page that a server writes after
    /// such a crash, which marks the record as overwritten. Does nothing if the record fits on its page.
    pub fn tear(&mut self, spec: &RecordSpec) {
        let previous = self.previous;
        let bytes = encode(spec, (self.xid, previous), &self.geometry);
        let block = u64::from(self.geometry.wal_block_size);
        let start = after_page_header(self.position, &self.geometry);
        let left = (block - start.0 % block) as usize;
        if bytes.len() <= left {
            return;
        }
        let page = self.write(self.position, &bytes[..left], bytes.len());
        let mut main_data = start.0.to_le_bytes().to_vec();
        main_data.extend_from_slice(&[0; 8]);
        let overwrite = RecordSpec { rmid: 0, info: 0xD0, main_data, ..RecordSpec::default() };
        let record = encode(&overwrite, (0, previous), &self.geometry);
        self.previous = after_page_header(page, &self.geometry);
        self.position = self.write(page, &record, record.len()).aligned();
        let at = self.geometry.segment_size.offset_of(page);
        self.segment_mut(page)[at + 2] |= self.geometry.version.page_flags().overwrite as u8;
    }

    /// Flips the bits `mask` of the byte at `lsn`, if its segment exists.
    pub fn damage(&mut self, lsn: Lsn, mask: u8) {
        let at = self.geometry.segment_size.offset_of(lsn);
        if let Some(byte) = self.segments.get_mut(&self.number(lsn)).and_then(|bytes| bytes.get_mut(at)) {
            *byte ^= mask;
        }
    }

    /// Removes a segment.
    pub fn remove(&mut self, segment: SegmentNo) {
        self.segments.remove(&segment.0);
    }

    /// The segments by number.
    pub fn segments(&self) -> &BTreeMap<u64, Vec<u8>> {
        &self.segments
    }

    fn number(&self, lsn: Lsn) -> u64 {
        self.geometry.segment_size.segment_of(lsn).0
    }

    fn segment_mut(&mut self, lsn: Lsn) -> &mut Vec<u8> {
        let size = self.geometry.segment_size.bytes() as usize;
        self.segments.entry(self.number(lsn)).or_insert_with(|| vec![0; size])
    }

    fn put(&mut self, bytes: &[u8]) -> Lsn {
        let start = after_page_header(self.position, &self.geometry);
        self.previous = start;
        self.position = self.write(self.position, bytes, bytes.len()).aligned();
        start
    }

    /// Writes the first `bytes` of a record of `total` bytes, with page headers in between. Returns the end.
    fn write(&mut self, from: Lsn, bytes: &[u8], total: usize) -> Lsn {
        let block = u64::from(self.geometry.wal_block_size);
        let (mut at, mut done) = (from, 0);
        while done < bytes.len() {
            if at.0.is_multiple_of(block) {
                let remaining = if done == 0 { 0 } else { (total - done) as u32 };
                at = self.write_header(at, remaining);
            }
            let here = (bytes.len() - done).min((block - at.0 % block) as usize);
            let offset = self.geometry.segment_size.offset_of(at);
            self.segment_mut(at)[offset..offset + here].copy_from_slice(&bytes[done..done + here]);
            done += here;
            at = at.advance(here as u64);
        }
        at
    }

    fn write_header(&mut self, page: Lsn, remaining: u32) -> Lsn {
        let geometry = self.geometry;
        let length = PageHeader::length_at(page, &geometry);
        let is_long = length > 24;
        let info = u16::from(remaining > 0) | if is_long { 2 } else { 0 };
        let mut header = Vec::with_capacity(length);
        header.extend_from_slice(&geometry.version.wal_magic().to_le_bytes());
        header.extend_from_slice(&info.to_le_bytes());
        header.extend_from_slice(&self.timeline.0.to_le_bytes());
        header.extend_from_slice(&page.0.to_le_bytes());
        header.extend_from_slice(&u64::from(remaining).to_le_bytes());
        if is_long {
            header.extend_from_slice(&geometry.system_identifier.to_le_bytes());
            header.extend_from_slice(&(geometry.segment_size.bytes() as u32).to_le_bytes());
            header.extend_from_slice(&geometry.wal_block_size.to_le_bytes());
        }
        let at = geometry.segment_size.offset_of(page);
        self.segment_mut(page)[at..at + length].copy_from_slice(&header);
        page.advance(length as u64)
    }
}

fn encode(spec: &RecordSpec, before: (u32, Lsn), geometry: &WalGeometry) -> Vec<u8> {
    let mut record = vec![0; 24];
    let mut images = 0;
    for (id, block) in spec.blocks.iter().enumerate().take(33) {
        let has_image = matches!(block.change, BlockChange::Image | BlockChange::ImageForChecking);
        let init = if block.change == BlockChange::Init { 0x40 } else { 0 };
        record.extend_from_slice(&[id as u8, block.fork | init | if has_image { 0x10 } else { 0 }, 0, 0]);
        if has_image {
            let bits = geometry.version.image_bits();
            let apply = bits.apply.filter(|_| block.change == BlockChange::Image).unwrap_or(0);
            record.extend_from_slice(&[1, 0, 1, 0, bits.has_hole | apply]);
            images += 1;
        }
        let Relation { tablespace, database, number } = block.relation;
        for part in [tablespace, database, number, block.block.0] {
            record.extend_from_slice(&part.to_le_bytes());
        }
    }
    if spec.main_data.len() > 255 {
        record.push(254);
        record.extend_from_slice(&(spec.main_data.len() as u32).to_le_bytes());
    } else if !spec.main_data.is_empty() {
        record.extend_from_slice(&[255, spec.main_data.len() as u8]);
    }
    record.extend(std::iter::repeat_n(0xEE, images));
    record.extend_from_slice(&spec.main_data);
    sealed(record, spec.rmid, spec.info, before)
}

/// Fills in the header of a record whose other bytes are complete.
fn sealed(mut record: Vec<u8>, rmid: u8, info: u8, (xid, previous): (u32, Lsn)) -> Vec<u8> {
    let total = record.len() as u32;
    record[0..4].copy_from_slice(&total.to_le_bytes());
    record[4..8].copy_from_slice(&xid.to_le_bytes());
    record[8..16].copy_from_slice(&previous.0.to_le_bytes());
    (record[16], record[17]) = (info, rmid);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&record[24..]), &record[..20]);
    record[20..24].copy_from_slice(&crc.to_le_bytes());
    record
}

impl SegmentStore for WalBuilder {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        Ok(self.segments.get(&segment.0).map(|bytes| FileBytes::Owned(bytes.clone())))
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        Ok(self.segments.keys().next_back().map(|&number| SegmentNo(number)))
    }

    fn describe(&self, segment: SegmentNo) -> String {
        self.geometry.segment_size.file_name(self.timeline, segment)
    }
}
