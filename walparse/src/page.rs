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
use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::WalGeometry;

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

    /// The length of the header of the page that begins at `address`.
    pub fn length_at(address: Lsn, geometry: &WalGeometry) -> usize {
        if geometry.segment_size.offset_of(address) == 0 { LONG_HEADER } else { SHORT_HEADER }
    }
}
