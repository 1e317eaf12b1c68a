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
use crate::lsn::{Lsn, TimelineId};
use crate::segment::SegmentSize;
use crate::version::{Version, WalGeometry};

const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG: u16 = 0x0002;

/// A verified page header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PageHeader {
    /// The length of the header: 24 bytes, or 40 on the first page of a segment.
    pub length: usize,
    /// `xlp_tli`: the timeline on which the page was started.
    pub timeline: TimelineId,
    /// `xlp_rem_len`: how many bytes remain of a record that started on an earlier page; 0 if none.
    pub continued: u32,
    /// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`: the page replaces the continuation of a record torn by a crash.
    pub overwrites_torn_record: bool,
}

impl PageHeader {
    /// Parses and verifies the header of the page at `address`, by the rules of `XLogReaderValidatePageHeader`
    /// (xlogreader.c), except that the timelines of successive pages are not compared.
    ///
    /// # Errors
    /// The first rule that is violated.
    pub fn check(page: &[u8], address: Lsn, geometry: &WalGeometry) -> Result<PageHeader, WalFault> {
        let front = page.get(..SHORT_HEADER).ok_or(WalFault::FileTooShort)?;
        let magic = LittleEndian::read_u16(&front[0..2]);
        if magic != geometry.version.wal_magic() {
            return Err(WalFault::PageMagic { found: magic });
        }
        let info = LittleEndian::read_u16(&front[2..4]);
        let flags = geometry.version.page_flags();
        if info & !flags.all != 0 {
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
            overwrites_torn_record: info & flags.overwrite != 0 && !is_continued,
        })
    }

    /// What is needed to read a segment, and where it starts, from its first page. For WAL without a control file.
    ///
    /// The version of PostgreSQL is determined by the magic number. A fork may have any magic number and must be
    /// specified by its flavor. WAL pages do not contain the size of data pages, which is assumed to be 8192 bytes.
    ///
    /// # Errors
    /// The page is invalid, its version is unknown, or a size is out of range.
    ///
    /// # Examples
    /// ```
    /// use walparse::{Lsn, PageHeader};
    /// # use walparse::{Version, testing::{RecordSpec, WalBuilder, small_geometry}};
    /// # let mut wal = WalBuilder::new(small_geometry(Version::find(1800, 202_506_291).unwrap()));
    /// # wal.append(&RecordSpec::default());
    /// # let segment = &wal.segments()[&1];
    ///
    /// // `segment` are the bytes of a segment file.
    /// let (geometry, start) = PageHeader::describe_segment(segment, None)?;
    /// assert_eq!((geometry.version.name(), start), ("18", Lsn(0x10_0000)));
    /// # Ok::<(), walparse::WalFault>(())
    /// ```
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

    /// The magic number of the segment that starts at `start`, if its first page belongs to this cluster in every
    /// other respect. For forks, whose magic number is unknown.
    pub fn magic_of_segment(page: &[u8], start: Lsn, geometry: &WalGeometry) -> Option<u16> {
        let page = page.get(..LONG_HEADER)?;
        let magic = LittleEndian::read_u16(&page[0..2]);
        let version = geometry.version.with_wal_magic(magic);
        let is_long = LittleEndian::read_u16(&page[2..4]) & LONG != 0;
        let geometry = WalGeometry { version, ..*geometry };
        PageHeader::check(page, start, &geometry).ok().filter(|_| is_long).map(|_| magic)
    }

    /// The length of the header of the page at `address`.
    pub fn length_at(address: Lsn, geometry: &WalGeometry) -> usize {
        if geometry.segment_size.offset_of(address) == 0 { LONG_HEADER } else { SHORT_HEADER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::small_geometry;

    /// The header of the first page of a segment.
    fn first_page(geometry: &WalGeometry, start: Lsn) -> Vec<u8> {
        let mut page = Vec::new();
        page.extend_from_slice(&geometry.version.wal_magic().to_le_bytes());
        page.extend_from_slice(&LONG.to_le_bytes());
        page.extend_from_slice(&1u32.to_le_bytes());
        page.extend_from_slice(&start.0.to_le_bytes());
        page.extend_from_slice(&0u64.to_le_bytes());
        page.extend_from_slice(&geometry.system_identifier.to_le_bytes());
        page.extend_from_slice(&(geometry.segment_size.bytes() as u32).to_le_bytes());
        page.extend_from_slice(&geometry.wal_block_size.to_le_bytes());
        page
    }

    #[test]
    fn the_first_page_describes_the_segment() {
        for version in Version::all() {
            let geometry = small_geometry(version);
            let mut page = first_page(&geometry, Lsn(1 << 20));
            assert_eq!(PageHeader::describe_segment(&page, None), Ok((geometry, Lsn(1 << 20))));
            assert_eq!(PageHeader::describe_segment(&page[..39], None), Err(WalFault::FileTooShort));
            page[34] = 0x30;
            assert_eq!(PageHeader::describe_segment(&page, None), Err(WalFault::PageSizes));
            page[0] ^= 0xFF;
            assert!(matches!(PageHeader::describe_segment(&page, None), Err(WalFault::PageMagic { .. })));
        }
    }

    #[test]
    fn flags_that_no_server_of_the_version_sets_are_rejected() {
        let check = |name: &str, flags: u16| {
            let version = Version::all().find(|version| version.name() == name).unwrap();
            let geometry = small_geometry(version);
            let mut page = first_page(&geometry, Lsn(1 << 20));
            page[2..4].copy_from_slice(&(LONG | flags).to_le_bytes());
            PageHeader::check(&page, Lsn(1 << 20), &geometry).map(|header| header.overwrites_torn_record)
        };
        assert_eq!([check("18", 4), check("18", 8), check("19", 4)], [Ok(false), Ok(true), Ok(true)]);
        assert_eq!(check("19", 8), Err(WalFault::PageFlags { found: LONG | 8 }));
        assert_eq!(check("18", 16), Err(WalFault::PageFlags { found: LONG | 16 }));
    }
}
