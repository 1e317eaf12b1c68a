//! WAL pages and their headers.
//!
//! ```text
//! every page (24 bytes)                 first page of a segment (40 bytes), in addition
//!  0 u16 xlp_magic                      24 u64 xlp_sysid
//!  2 u16 xlp_info                       32 u32 xlp_seg_size
//!  4 u32 xlp_tli                        36 u32 xlp_xlog_blcksz
//!  8 u64 xlp_pageaddr
//! 16 u32 xlp_rem_len
//! 20     padding
//! ```

use byteorder::{ByteOrder, LittleEndian};

use crate::error::WalFault;
use crate::flavor::Flavor;
use crate::lsn::Lsn;
use crate::segment::SegmentSize;
use crate::timeline::TimelineId;
use crate::version::{Version, WalGeometry};

const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG: u16 = 0x0002;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
/// All flags a server writes; 0x0004 (`XLP_BKP_REMOVABLE`) means nothing here.
const ALL_FLAGS: u16 = 0x000F;

/// A page header that passed every check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageHeader {
    /// Bytes the header takes: 24, or 40 on the first page of a segment.
    pub length: usize,
    /// The timeline in force when the page was begun.
    pub timeline: TimelineId,
    /// Bytes of a record begun on an earlier page that are still to come, from this page on; 0 if none.
    pub continued: u32,
    /// The page replaces the continuation of a record that a crash tore.
    pub overwrites_torn_record: bool,
}

impl PageHeader {
    /// Reads and checks the header of the page at `address`; the rules of the server's
    /// `XLogReaderValidatePageHeader`, but for the one that compares timelines of successive pages.
    pub fn check(page: &[u8], address: Lsn, geometry: &WalGeometry) -> Result<PageHeader, WalFault> {
        let front = page.get(..SHORT_HEADER).ok_or(WalFault::FileTooShort)?;
        let magic = LittleEndian::read_u16(&front[0..2]);
        if magic != geometry.version.wal_magic() {
            return Err(WalFault::PageMagic { found: magic });
        }
        let info = LittleEndian::read_u16(&front[2..4]);
        if info & !ALL_FLAGS != 0 {
            return Err(WalFault::PageFlags { found: info });
        }
        let is_long = info & LONG != 0;
        if is_long {
            let long = page.get(..LONG_HEADER).ok_or(WalFault::FileTooShort)?;
            if LittleEndian::read_u64(&long[24..32]) != geometry.system_identifier {
                return Err(WalFault::ForeignSystem);
            }
            if u64::from(LittleEndian::read_u32(&long[32..36])) != geometry.segment_size.bytes()
                || LittleEndian::read_u32(&long[36..40]) != geometry.wal_block_size
            {
                return Err(WalFault::PageSizes);
            }
        } else if geometry.segment_size.offset_of(address) == 0 {
            return Err(WalFault::NoLongHeader);
        }
        let found = Lsn(LittleEndian::read_u64(&front[8..16]));
        if found != address {
            return Err(WalFault::PageAddress { found });
        }
        let remaining = LittleEndian::read_u32(&front[16..20]);
        let is_continued = info & FIRST_IS_CONTRECORD != 0;
        if is_continued == (remaining == 0) {
            return Err(WalFault::Continuation);
        }
        Ok(PageHeader {
            length: if is_long { LONG_HEADER } else { SHORT_HEADER },
            timeline: TimelineId(LittleEndian::read_u32(&front[4..8])),
            continued: remaining,
            overwrites_torn_record: info & FIRST_IS_OVERWRITE_CONTRECORD != 0 && !is_continued,
        })
    }

    /// Reads from the first page of a segment what one must know to read that segment, and where it
    /// starts. For WAL that comes without its control file.
    ///
    /// PostgreSQL's version is found by its magic number; a fork, which may have any, must be named by its
    /// flavor. The size of data pages is not written there: it is taken to be 8192 bytes.
    ///
    /// # Errors
    /// No page, one of an unknown version, or sizes that no server can have.
    pub fn describe_segment(page: &[u8], flavor: Option<Flavor>) -> Result<(WalGeometry, Lsn), WalFault> {
        let page = page.get(..LONG_HEADER).ok_or(WalFault::FileTooShort)?;
        let magic = LittleEndian::read_u16(&page[0..2]);
        let version = match flavor.filter(|flavor| flavor.is_fork()) {
            Some(fork) => fork.with_wal_magic(magic).versions().next(),
            None => Version::all().find(|version| version.wal_magic() == magic),
        };
        let version = version.ok_or(WalFault::PageMagic { found: magic })?;
        if LittleEndian::read_u16(&page[2..4]) & LONG == 0 {
            return Err(WalFault::NoLongHeader);
        }
        let segment_size = SegmentSize::new(LittleEndian::read_u32(&page[32..36]));
        let wal_block_size = LittleEndian::read_u32(&page[36..40]);
        let is_block_size = wal_block_size.is_power_of_two() && (1024..=65_536).contains(&wal_block_size);
        let geometry = WalGeometry {
            version,
            system_identifier: LittleEndian::read_u64(&page[24..32]),
            segment_size: segment_size.filter(|_| is_block_size).ok_or(WalFault::PageSizes)?,
            wal_block_size,
            block_size: 8192,
        };
        let start = Lsn(LittleEndian::read_u64(&page[8..16]));
        PageHeader::check(page, start, &geometry).map(|_| (geometry, start))
    }

    /// The magic number of the segment that starts at `start`, if its first page is this cluster's in all
    /// else. For a fork whose magic number is not known.
    pub fn magic_of_segment(page: &[u8], start: Lsn, geometry: &WalGeometry) -> Option<u16> {
        let page = page.get(..LONG_HEADER)?;
        let magic = LittleEndian::read_u16(&page[0..2]);
        let version = geometry.version.with_wal_magic(magic);
        let is_long = LittleEndian::read_u16(&page[2..4]) & LONG != 0;
        let geometry = WalGeometry { version, ..*geometry };
        PageHeader::check(page, start, &geometry).ok().filter(|_| is_long).map(|_| magic)
    }

    /// The length of the header of the page that begins at `address`.
    pub fn length_at(address: Lsn, geometry: &WalGeometry) -> usize {
        if geometry.segment_size.offset_of(address) == 0 { LONG_HEADER } else { SHORT_HEADER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{RecordSpec, WalBuilder, small_geometry};

    #[test]
    fn a_segment_says_how_it_is_to_be_read() {
        for version in Version::all() {
            let geometry = small_geometry(version);
            let mut wal = WalBuilder::new(geometry);
            wal.append(&RecordSpec::default());
            let mut page = wal.segments()[&1][..8192].to_vec();
            assert_eq!(PageHeader::describe_segment(&page, None), Ok((geometry, Lsn(1 << 20))));
            assert_eq!(PageHeader::describe_segment(&page[..39], None), Err(WalFault::FileTooShort));
            page[34] = 0x30;
            assert_eq!(PageHeader::describe_segment(&page, None), Err(WalFault::PageSizes));
            page[0] ^= 0xFF;
            assert!(matches!(PageHeader::describe_segment(&page, None), Err(WalFault::PageMagic { .. })));
        }
    }
}
