//! The C struct `CheckPoint`: the main data of a checkpoint record, and part of the control file.

use byteorder::{ByteOrder, LittleEndian};

use crate::lsn::{Lsn, TimelineId};
use crate::version::Version;

/// The fields of `CheckPoint` that a rewind needs.
///
/// ```text
///  0 u64 redo    8 u32 ThisTimeLineID    12 u32 PrevTimeLineID    16 u8 fullPageWrites    ...
/// ```
///
/// Their offsets are the same in every version from 9.6 to 19; those of later fields are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Where replay starts: before the record for an online checkpoint, at the record for a shutdown checkpoint.
    pub redo: Lsn,
    /// The current timeline.
    pub timeline: TimelineId,
    /// The timeline before, which differs only if the record starts a new timeline.
    pub previous_timeline: TimelineId,
    /// Whether full-page writes were on.
    pub full_page_writes: bool,
}

impl Checkpoint {
    /// Parses the start of a `CheckPoint`; `None` if there are fewer than 17 bytes.
    pub fn parse(bytes: &[u8]) -> Option<Checkpoint> {
        let bytes = bytes.get(..17)?;
        Some(Checkpoint {
            redo: Lsn(LittleEndian::read_u64(&bytes[0..8])),
            timeline: TimelineId(LittleEndian::read_u32(&bytes[8..12])),
            previous_timeline: TimelineId(LittleEndian::read_u32(&bytes[12..16])),
            full_page_writes: bytes[16] != 0,
        })
    }
}

/// The control file version of PostgreSQL 19, whose `CheckPoint` has eight bytes more before `nextXid`.
const LOGICAL_DECODING: u32 = 1905;

/// The low 32 bits of `nextXid`, the first transaction ID that had not been assigned at a checkpoint, from the main data of
/// its record. `None` if there are too few bytes.
///
/// `nextXid` is at offset 24, in 19 at offset 32; up to 11 it has 32 bits, later 64.
pub fn next_xid(main_data: &[u8], version: Version) -> Option<u32> {
    let offset = if version.control_version() < LOGICAL_DECODING { 24 } else { 32 };
    main_data.get(offset..offset + 4).map(LittleEndian::read_u32)
}
