//! WAL records: the header, and the fragments behind it.
//!
//! ```text
//! header (24 bytes)          fragment headers, unaligned, until the payload begins
//!  0 u32 xl_tot_len           0..=32  block reference
//!  4 u32 xl_xid               252     top-level transaction: u32 (14+)
//!  8 u64 xl_prev              253     replication origin: u16
//! 16 u8  xl_info              254     main data, long: u32 length
//! 17 u8  xl_rmid              255     main data, short: u8 length
//! 18     padding             payload: for each block its image, then its data; then the main data
//! 20 u32 xl_crc
//!
//! block reference: u8 id, u8 fork_flags, u16 data_length
//!   if HAS_IMAGE: u16 length, u16 hole_offset, u8 bimg_info [, u16 hole_length if compressed with a hole]
//!   if not SAME_REL: u32 spcOid, u32 dbOid, u32 relNumber
//!   u32 block number
//! ```

use byteorder::{ByteOrder, LittleEndian};

use crate::error::WalFault;
use crate::lsn::{BlockNumber, Lsn};
use crate::relation::{Fork, Relation};
use crate::version::{Version, WalGeometry};

/// The length of a record's header, and so of the shortest record.
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

/// `xl_info` bit: the record changes relation files in a way its block references do not show.
const SPECIAL_REL_UPDATE: u8 = 0x01;

/// The fixed front of a record (`XLogRecord`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// `xl_tot_len`: bytes of the whole record.
    pub total_length: u32,
    /// `xl_xid`: the transaction, 0 if none.
    pub xid: u32,
    /// `xl_prev`: where the previous record starts.
    pub previous: Lsn,
    /// `xl_info`: the high four bits belong to the resource manager.
    pub info: u8,
    /// `xl_rmid`
    pub rmid: u8,
    /// `xl_crc`: CRC-32C over the rest of the record, then over the header before it.
    pub crc: u32,
}

impl RecordHeader {
    /// Reads a header; `None` if there are fewer than 24 bytes.
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

    /// Whether the record changes relation files beyond its block references.
    pub fn is_special_relation_update(&self) -> bool {
        self.info & SPECIAL_REL_UPDATE != 0
    }
}

/// A whole record whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it starts.
    pub lsn: Lsn,
    /// Where it ends: aligned, and possibly a page boundary, where the next header has yet to be skipped.
    pub end: Lsn,
    /// Its header.
    pub header: RecordHeader,
    /// All its bytes, header included, page headers in between left out.
    pub bytes: &'a [u8],
}

/// One block that a record names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockRef {
    /// Its number in the record.
    pub id: u8,
    /// The relation.
    pub relation: Relation,
    /// Which fork of it.
    pub fork: Fork,
    /// The block.
    pub block: BlockNumber,
    /// Replay makes the page anew (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// A full-page image, if there is one.
    pub image: Option<BlockImage>,
    /// Bytes of data that belong to the block, image not counted.
    pub data_length: u16,
}

/// A full-page image in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockImage {
    /// Bytes stored.
    pub length: u16,
    /// Where the left-out middle of the page begins.
    pub hole_offset: u16,
    /// Its length; 0 if nothing was left out.
    pub hole_length: u16,
    /// `bimg_info` as stored.
    pub info: u8,
    /// Stored compressed.
    pub is_compressed: bool,
    /// Replay restores the page from it (it may be there for checking only).
    pub is_applied: bool,
}

/// What a record carries besides its blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Payload<'a> {
    /// The resource manager's own data.
    pub main_data: &'a [u8],
    /// Images and data of all blocks, one after the other.
    pub block_data: &'a [u8],
    /// The replication origin, 0 if local.
    pub origin: u16,
    /// The top-level transaction, 0 if not given.
    pub toplevel_xid: u32,
}

impl<'a> Record<'a> {
    /// Takes the record apart, with every cross-check of the server's `DecodeXLogRecord`: puts its block
    /// references into `blocks` (what was there before is dropped) and returns the rest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(
        &self,
        geometry: &WalGeometry,
        blocks: &mut Vec<BlockRef>,
    ) -> Result<Payload<'a>, WalFault> {
        blocks.clear();
        self.visit(geometry, |block| blocks.push(block))
    }

    /// The same, with each block reference shown to `see` as soon as it is found: before it is known whether
    /// the rest of the record is right.
    #[inline]
    pub(crate) fn visit(
        &self,
        geometry: &WalGeometry,
        mut see: impl FnMut(BlockRef),
    ) -> Result<Payload<'a>, WalFault> {
        let mut last: Option<(u8, Relation)> = None;
        let mut payload = Payload::default();
        let mut rest =
            Fields { bytes: self.bytes.get(RECORD_HEADER..).ok_or(WalFault::Fragment("no header"))? };
        let mut block_total = 0usize;
        let mut main_length = None;
        // The payload begins where the headers have announced all that is left.
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
                _ => return Err(WalFault::Fragment("invalid block id")),
            }
        }
        let main_length = main_length.unwrap_or(0);
        if block_total.checked_add(main_length) != Some(rest.bytes.len()) {
            return Err(WalFault::Fragment("lengths do not add up"));
        }
        (payload.block_data, payload.main_data) = rest.bytes.split_at(block_total);
        Ok(payload)
    }
}

const CUT_SHORT: WalFault = WalFault::Fragment("header cut short");

/// Takes little-endian fields off the front of a slice.
pub(crate) struct Fields<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], WalFault> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// The same for a length known beforehand: several fields in one go need one check.
    #[inline]
    fn array<const LENGTH: usize>(&mut self) -> Result<&'a [u8; LENGTH], WalFault> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(CUT_SHORT)?;
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

    /// The block reference behind its id; `last` are those of the one before.
    #[inline]
    fn block(
        &mut self,
        id: u8,
        last: Option<(u8, Relation)>,
        geometry: &WalGeometry,
    ) -> Result<BlockRef, WalFault> {
        if last.is_some_and(|(last, _)| last >= id) {
            return Err(WalFault::Fragment("block ids out of order"));
        }
        let &[flags, low, high] = self.array()?;
        let data_length = u16::from_le_bytes([low, high]);
        let fork = Fork::from_raw(flags & FORK_MASK).ok_or(WalFault::Fragment("invalid fork"))?;
        if (flags & HAS_DATA != 0) != (data_length > 0) {
            return Err(WalFault::Fragment("block data flag and length disagree"));
        }
        let image = if flags & HAS_IMAGE != 0 { Some(self.image(geometry)?) } else { None };
        let (relation, block) = if flags & SAME_REL != 0 {
            (last.ok_or(WalFault::Fragment("same relation as none"))?.1, self.u32()?)
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
                .map_err(|_| WalFault::Fragment("image longer than a page"))?,
            (false, _) => 0,
        };
        let is_whole = stored == geometry.block_size;
        let fits = match (has_hole, is_compressed) {
            (true, _) => hole_offset > 0 && hole_length > 0 && stored < geometry.block_size,
            (false, true) => hole_offset == 0 && stored < geometry.block_size,
            (false, false) => hole_offset == 0 && is_whole,
        };
        if !fits {
            return Err(WalFault::Fragment("image and hole disagree"));
        }
        let is_applied = bits.apply.is_none_or(|apply| info & apply != 0);
        Ok(BlockImage { length, hole_offset, hole_length, info, is_compressed, is_applied })
    }
}

/// The checks a header must pass before its length is trusted.
pub(crate) fn check_header(
    header: &RecordHeader,
    lsn: Lsn,
    previous: Option<Lsn>,
    version: Version,
) -> Result<(), WalFault> {
    if (header.total_length as usize) < RECORD_HEADER {
        return Err(WalFault::RecordLength { found: header.total_length });
    }
    if !crate::rmgr::is_valid_id(header.rmid, version) {
        return Err(WalFault::ResourceManager { found: header.rmid });
    }
    let links = previous.map_or(header.previous < lsn, |previous| header.previous == previous);
    if !links {
        return Err(WalFault::PreviousLink { found: header.previous });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::small_geometry;

    fn geometry(version: &str) -> WalGeometry {
        small_geometry(Version::all().find(|row| row.name() == version).unwrap())
    }

    /// A record of nothing but these fragments and payload.
    fn decode(version: &str, bytes: &[u8]) -> Result<Vec<BlockRef>, WalFault> {
        let bytes = [&[0; RECORD_HEADER], bytes].concat();
        let header = RecordHeader::parse(&bytes).unwrap();
        let record = Record { lsn: Lsn(0), end: Lsn(0), header, bytes: &bytes };
        let mut blocks = Vec::new();
        record.decode(&geometry(version), &mut blocks).map(|_| blocks)
    }

    /// Block 7 of a relation, with an image of 100 bytes that leaves out a hole.
    fn with_image(info: u8, hole_length: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0, HAS_IMAGE, 0, 0, 100, 0, 50, 0, info];
        bytes.extend(hole_length.into_iter().flat_map(u16::to_le_bytes));
        bytes.extend([1, 2, 3, 7].into_iter().flat_map(u32::to_le_bytes));
        bytes.extend([0xEE; 100]);
        bytes
    }

    #[test]
    fn the_bits_of_an_image_changed_twice() {
        // version, bimg_info, whether the length of the hole is stored, compressed, applied
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
            // Taken for the other kind, it does not add up.
            let wrong = decode(version, &with_image(info, (!stores_hole).then_some(4000)));
            assert!(wrong.is_err(), "{version} {info:x}");
        }
    }

    #[test]
    fn the_same_relation_is_that_of_the_block_before() {
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
        // There is none before the first, and ids only grow.
        assert!(decode("15", &bytes[20..28]).is_err());
        let mut again = bytes.clone();
        again[20] = 0;
        assert!(decode("15", &again).is_err());
    }

    #[test]
    fn the_top_level_transaction_came_with_14() {
        let bytes = [ID_TOPLEVEL_XID, 9, 0, 0, 0, ID_DATA_SHORT, 1, 0xEE];
        assert!(decode("13", &bytes).is_err() && decode("9.6", &bytes).is_err());
        assert!(decode("14", &bytes).is_ok() && decode("18", &bytes).is_ok());
    }
}
