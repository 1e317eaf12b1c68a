//! WAL records: the header, and the fragments after it.
//!
//! ```text
//! header (24 bytes)          fragment headers, unaligned, up to the payload
//!  0 u32 xl_tot_len           0..=32  block reference
//!  4 u32 xl_xid               252     top-level transaction ID: u32 (14+)
//!  8 u64 xl_prev              253     replication origin: u16
//! 16 u8  xl_info              254     main data, long: u32 length
//! 17 u8  xl_rmid              255     main data, short: u8 length
//! 18     padding             payload: image and data of each block, then the main data
//! 20 u32 xl_crc
//!
//! block reference: u8 id, u8 fork_flags, u16 data_length
//!   if HAS_IMAGE: u16 length, u16 hole_offset, u8 bimg_info [, u16 hole_length if compressed with a hole]
//!   if not SAME_REL: u32 spcOid, u32 dbOid, u32 relNumber
//!   u32 block number
//! ```

use byteorder::{ByteOrder, LittleEndian};

use crate::compression::{decompress_lz4, decompress_pglz, decompress_zstd};
use crate::error::WalFault;
use crate::lsn::{BlockNumber, Lsn};
use crate::relation::{Fork, Relation};
use crate::version::{Compression, WalGeometry};

/// The length of a record header, and of the shortest record.
pub(crate) const RECORD_HEADER: usize = 24;

const MAX_BLOCK_ID: u8 = 32;
const ID_TOPLEVEL_XID: u8 = 252;
const ID_ORIGIN: u8 = 253;
const ID_DATA_LONG: u8 = 254;
const ID_DATA_SHORT: u8 = 255;

const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_REL: u8 = 0x80;

/// `XLR_SPECIAL_REL_UPDATE`: the record changes relation files beyond its block references.
const SPECIAL_REL_UPDATE: u8 = 0x01;

/// The header of a record (`XLogRecord`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// `xl_tot_len`: the length of the whole record in bytes.
    pub total_length: u32,
    /// `xl_xid`: the transaction ID; 0 if none.
    pub xid: u32,
    /// `xl_prev`: the start of the previous record.
    pub previous: Lsn,
    /// `xl_info`: the high four bits are the resource manager's.
    pub info: u8,
    /// `xl_rmid`
    pub rmid: u8,
    /// `xl_crc`: the CRC-32C of the rest of the record, followed by the header up to this field.
    pub crc: u32,
}

impl RecordHeader {
    /// Parses a header; `None` if there are fewer than 24 bytes.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<RecordHeader> {
        let bytes: &[u8; RECORD_HEADER] = bytes.first_chunk()?;
        Some(RecordHeader {
            total_length: LittleEndian::read_u32(&bytes[0..4]),
            xid: LittleEndian::read_u32(&bytes[4..8]),
            previous: Lsn(LittleEndian::read_u64(&bytes[8..16])),
            info: bytes[16],
            rmid: bytes[17],
            crc: LittleEndian::read_u32(&bytes[20..24]),
        })
    }

    /// Whether the record changes relation files beyond its block references (`XLR_SPECIAL_REL_UPDATE`).
    pub fn is_special_relation_update(&self) -> bool {
        self.info & SPECIAL_REL_UPDATE != 0
    }
}

/// A complete record with a valid checksum.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it starts.
    pub lsn: Lsn,
    /// Where it ends, aligned to 8 bytes. This may be a page boundary, before the header of the next page.
    pub end: Lsn,
    /// Its header.
    pub header: RecordHeader,
    /// Its bytes, including the record header, without the page headers in between.
    pub bytes: &'a [u8],
}

/// A block reference of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BlockRef {
    /// The block ID, its number in the record.
    pub id: u8,
    /// The relation.
    pub relation: Relation,
    /// The fork.
    pub fork: Fork,
    /// The block.
    pub block: BlockNumber,
    /// Replay initializes the page (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// The full-page image, if there is one.
    pub image: Option<BlockImage>,
    /// The length of the data that belongs to the block, without the image.
    pub data_length: u16,
}

/// A full-page image in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BlockImage {
    /// The number of bytes stored.
    pub length: u16,
    /// Where the hole starts, the part of the page that is not stored.
    pub hole_offset: u16,
    /// The length of the hole; 0 if there is none.
    pub hole_length: u16,
    /// `bimg_info`
    pub info: u8,
    /// Whether the image is compressed.
    pub is_compressed: bool,
    /// Whether replay restores the page from the image. If not, it serves `wal_consistency_checking` only.
    pub is_applied: bool,
}

/// The contents of a record besides its block references.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Payload<'a> {
    /// The main data, which only the resource manager interprets.
    pub main_data: &'a [u8],
    /// The images and data of all blocks, in order.
    pub block_data: &'a [u8],
    /// The replication origin; 0 if none.
    pub origin: u16,
    /// The top-level transaction ID; 0 if none is given.
    pub toplevel_xid: u32,
}

impl<'a> Payload<'a> {
    /// The image and the data of each block, in the order of `blocks`, which are those that were decoded with this payload. Either
    /// may be empty.
    pub fn of_blocks(&self, blocks: &[BlockRef]) -> Vec<(&'a [u8], &'a [u8])> {
        let mut rest = self.block_data;
        let mut take = |length: u16| {
            let (taken, after) = rest.split_at_checked(usize::from(length)).unwrap_or((rest, &[]));
            rest = after;
            taken
        };
        let parts =
            |block: &BlockRef| (take(block.image.map_or(0, |image| image.length)), take(block.data_length));
        blocks.iter().map(parts).collect()
    }
}

impl BlockImage {
    /// The page, from the bytes that are stored. `None` if they cannot be decompressed to a page.
    pub fn restore(&self, stored: &[u8], geometry: &WalGeometry) -> Option<Vec<u8>> {
        let size = geometry.block_size as usize;
        let (hole, hole_length) = (usize::from(self.hole_offset), usize::from(self.hole_length));
        let raw_size = size.checked_sub(hole_length)?;
        let decompressed;
        let raw = if self.is_compressed {
            decompressed = match geometry.version.image_bits().method(self.info) {
                Compression::Pglz => decompress_pglz(stored, raw_size),
                Compression::Lz4 => decompress_lz4(stored, raw_size),
                Compression::Zstd => decompress_zstd(stored, raw_size),
            }?;
            &decompressed[..]
        } else {
            stored
        };
        let (before, after) = raw.split_at_checked(hole)?;
        let mut page = Vec::with_capacity(size);
        page.extend_from_slice(before);
        page.resize(hole + hole_length, 0);
        page.extend_from_slice(after);
        (page.len() == size).then_some(page)
    }
}

impl<'a> Record<'a> {
    /// Decodes the record, with all checks of `DecodeXLogRecord` (xlogreader.c). Replaces the contents of `blocks` with
    /// the block references, and returns the rest.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn decode(
        &self,
        geometry: &WalGeometry,
        blocks: &mut Vec<BlockRef>,
    ) -> Result<Payload<'a>, WalFault> {
        blocks.clear();
        self.visit(geometry, |block| blocks.push(block))
    }

    /// Like [`Record::decode`], but calls `see` for each block reference as soon as it is decoded, before the rest of
    /// the record is known to be valid.
    #[inline]
    pub(crate) fn visit(
        &self,
        geometry: &WalGeometry,
        mut see: impl FnMut(BlockRef),
    ) -> Result<Payload<'a>, WalFault> {
        let mut last: Option<(u8, Relation)> = None;
        let mut payload = Payload::default();
        let mut rest = Fields {
            bytes: self.bytes.get(RECORD_HEADER..).ok_or(WalFault::Fragment("record header missing"))?,
        };
        let mut block_total = 0usize;
        let mut main_length = None;
        // The payload starts when the headers account for all remaining bytes.
        while main_length.is_none() && rest.bytes.len() > block_total {
            match rest.u8()? {
                ID_DATA_SHORT => main_length = Some(usize::from(rest.u8()?)),
                ID_DATA_LONG => main_length = Some(rest.u32()? as usize),
                ID_ORIGIN => payload.origin = rest.u16()?,
                ID_TOPLEVEL_XID if geometry.version.has_toplevel_xid() => {
                    payload.toplevel_xid = rest.u32()?
                }
                id if id <= MAX_BLOCK_ID => {
                    let block = rest.block(id, last, geometry)?;
                    block_total += usize::from(block.data_length);
                    block_total += block.image.map_or(0, |image| usize::from(image.length));
                    last = Some((id, block.relation));
                    see(block);
                }
                _ => return Err(WalFault::Fragment("invalid block ID")),
            }
        }
        let main_length = main_length.unwrap_or(0);
        if block_total.checked_add(main_length) != Some(rest.bytes.len()) {
            return Err(WalFault::Fragment("data lengths do not match the record length"));
        }
        (payload.block_data, payload.main_data) = rest.bytes.split_at(block_total);
        Ok(payload)
    }
}

const TRUNCATED: WalFault = WalFault::Fragment("fragment header truncated");

/// Takes little-endian fields from the start of a slice.
pub(crate) struct Fields<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], WalFault> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(TRUNCATED)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Takes a constant number of bytes: one bounds check for several fields.
    #[inline]
    fn array<const LENGTH: usize>(&mut self) -> Result<&'a [u8; LENGTH], WalFault> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(TRUNCATED)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, WalFault> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, WalFault> {
        self.array().map(|bytes| u16::from_le_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, WalFault> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WalFault> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The rest of a block reference after its ID; `last` are the ID and the relation of the one before.
    #[inline]
    fn block(
        &mut self,
        id: u8,
        last: Option<(u8, Relation)>,
        geometry: &WalGeometry,
    ) -> Result<BlockRef, WalFault> {
        if last.is_some_and(|(last, _)| last >= id) {
            return Err(WalFault::Fragment("block IDs out of order"));
        }
        let &[flags, low, high] = self.array()?;
        let data_length = u16::from_le_bytes([low, high]);
        let fork = Fork::from_raw(flags & FORK_MASK).ok_or(WalFault::Fragment("invalid fork"))?;
        if (flags & HAS_DATA != 0) != (data_length > 0) {
            return Err(WalFault::Fragment("block data flag and length disagree"));
        }
        let image = if flags & HAS_IMAGE != 0 { Some(self.image(geometry)?) } else { None };
        let (relation, block) = if flags & SAME_REL != 0 {
            (last.ok_or(WalFault::Fragment("first block reference without a relation"))?.1, self.u32()?)
        } else {
            let numbers = self.array::<16>()?.as_chunks().0;
            let [tablespace, database, number, block] =
                [0, 1, 2, 3].map(|at| u32::from_le_bytes(numbers[at]));
            (Relation { tablespace, database, number }, block)
        };
        let block = BlockNumber(block);
        Ok(BlockRef { id, relation, fork, block, will_init: flags & WILL_INIT != 0, image, data_length })
    }

    fn image(&mut self, geometry: &WalGeometry) -> Result<BlockImage, WalFault> {
        let bits = geometry.version.image_bits();
        let length = self.u16()?;
        let hole_offset = self.u16()?;
        let info = self.u8()?;
        let has_hole = info & bits.has_hole != 0;
        let is_compressed = info & bits.compressed != 0;
        let stored = u32::from(length);
        let hole_length = match (has_hole, is_compressed) {
            (true, true) => self.u16()?,
            (true, false) => u16::try_from(geometry.block_size.saturating_sub(stored))
                .map_err(|_| WalFault::Fragment("full-page image longer than a page"))?,
            (false, _) => 0,
        };
        let is_whole = stored == geometry.block_size;
        let fits = match (has_hole, is_compressed) {
            (true, _) => hole_offset > 0 && hole_length > 0 && stored < geometry.block_size,
            (false, true) => hole_offset == 0 && stored < geometry.block_size,
            (false, false) => hole_offset == 0 && is_whole,
        };
        if !fits {
            return Err(WalFault::Fragment("full-page image and its hole disagree"));
        }
        let is_applied = bits.apply.is_none_or(|apply| info & apply != 0);
        Ok(BlockImage { length, hole_offset, hole_length, info, is_compressed, is_applied })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{Version, small_geometry};

    fn geometry(version: &str) -> WalGeometry {
        small_geometry(Version::all().find(|row| row.name() == version).unwrap())
    }

    /// Decodes a record with these fragments and payload.
    fn decode(version: &str, bytes: &[u8]) -> Result<Vec<BlockRef>, WalFault> {
        let bytes = [&[0; RECORD_HEADER], bytes].concat();
        let header = RecordHeader::parse(&bytes).unwrap();
        let record = Record { lsn: Lsn(0), end: Lsn(0), header, bytes: &bytes };
        let mut blocks = Vec::new();
        record.decode(&geometry(version), &mut blocks).map(|_| blocks)
    }

    /// A reference to block 7 of a relation, with an image of 100 bytes and a hole.
    fn with_image(info: u8, hole_length: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0, HAS_IMAGE, 0, 0, 100, 0, 50, 0, info];
        bytes.extend(hole_length.into_iter().flat_map(u16::to_le_bytes));
        bytes.extend([1, 2, 3, 7].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend([0xEE; 100]);
        bytes
    }

    #[test]
    fn the_bits_of_bimg_info_depend_on_the_version() {
        // version, bimg_info, whether the length of the hole is stored, is_compressed, is_applied
        for (version, info, stores_hole, is_compressed, is_applied) in [
            ("9.6", 0x01, false, false, true),
            ("9.6", 0x03, true, true, true),
            ("10", 0x01, false, false, false),
            ("10", 0x05, false, false, true),
            ("14", 0x07, true, true, true),
            ("14", 0x03, true, true, false),
            ("15", 0x03, false, false, true),
            ("15", 0x01, false, false, false),
            ("15", 0x07, true, true, true),
            ("18", 0x0B, true, true, true),
            ("18", 0x11, true, true, false),
        ] {
            let hole = if stores_hole { 4000 } else { 8192 - 100 };
            let blocks = decode(version, &with_image(info, stores_hole.then_some(4000))).unwrap();
            assert_eq!(blocks[0].block, BlockNumber(7), "{version} {info:x}");
            let image = blocks[0].image.unwrap();
            assert_eq!((image.length, image.hole_offset, image.hole_length), (100, 50, hole));
            assert_eq!((image.is_compressed, image.is_applied), (is_compressed, is_applied));
            // With the other kind of hole, the lengths do not match.
            let wrong = decode(version, &with_image(info, (!stores_hole).then_some(4000)));
            assert!(wrong.is_err(), "{version} {info:x}");
        }
    }

    #[test]
    fn an_image_becomes_a_page() {
        let page: Vec<u8> =
            (0..8192).map(|at| if (50..8142).contains(&at) { 0 } else { at as u8 | 1 }).collect();
        let stored = [&page[..50], &page[8142..]].concat();
        let restored = |version: &str, info: u8, bytes: &[u8]| {
            let blocks = decode(version, &with_image(0x0F & info, None)).unwrap();
            blocks[0].image.unwrap().restore(bytes, &geometry(version))
        };
        assert_eq!(restored("15", 0x03, &stored), Some(page.clone()));
        assert_eq!(restored("15", 0x03, &stored[..99]), None);
        let image = |info| BlockImage {
            length: 0,
            hole_offset: 50,
            hole_length: 8092,
            info,
            is_compressed: true,
            is_applied: true,
        };
        let lz4 = lz4_flex::block::compress(&stored);
        assert_eq!(image(0x0B).restore(&lz4, &geometry("15")), Some(page.clone()));
        // A stream of pglz with nothing but literals.
        let pglz: Vec<u8> = stored.chunks(8).flat_map(|bytes| [&[0], bytes].concat()).collect();
        assert_eq!(image(0x07).restore(&pglz, &geometry("15")), Some(page.clone()));
        assert_eq!(image(0x07).restore(&pglz, &geometry("13")), Some(page));
        assert_eq!(image(0x07).restore(&lz4[..9], &geometry("15")), None);
    }

    #[test]
    fn same_rel_refers_to_the_preceding_block() {
        let relation = |number: u32| [1663, 5, number].into_iter().flat_map(u32::to_le_bytes);
        let block = |number: u32| number.to_le_bytes();
        let mut bytes = Vec::new();
        bytes.extend([0, 0, 0, 0].into_iter().chain(relation(16384)).chain(block(1)));
        bytes.extend([1, SAME_REL, 0, 0].into_iter().chain(block(2)));
        bytes.extend([4, 0, 0, 0].into_iter().chain(relation(16390)).chain(block(3)));
        bytes.extend([5, SAME_REL, 0, 0].into_iter().chain(block(4)));
        let blocks = decode("15", &bytes).unwrap();
        let found: Vec<_> =
            blocks.iter().map(|block| (block.id, block.relation.number, block.block.0)).collect();
        assert_eq!(found, [(0, 16384, 1), (1, 16384, 2), (4, 16390, 3), (5, 16390, 4)]);
        // The first block has no predecessor, and IDs must increase.
        assert!(decode("15", &bytes[20..28]).is_err());
        let mut again = bytes.clone();
        again[20] = 0;
        assert!(decode("15", &again).is_err());
    }

    #[test]
    fn the_top_level_transaction_is_valid_since_14() {
        let bytes = [ID_TOPLEVEL_XID, 9, 0, 0, 0, ID_DATA_SHORT, 1, 0xEE];
        assert!(decode("13", &bytes).is_err() && decode("9.6", &bytes).is_err());
        assert!(decode("14", &bytes).is_ok() && decode("18", &bytes).is_ok());
    }
}
