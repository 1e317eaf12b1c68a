//! The `CheckPoint` struct: the payload of a checkpoint record, and a part of the control file.

use byteorder::{ByteOrder, LittleEndian};

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// The parts of a `CheckPoint` that a rewind needs.
///
/// ```text
///  0 u64 redo    8 u32 ThisTimeLineID    12 u32 PrevTimeLineID    16 u8 fullPageWrites    ...
/// ```
///
/// These stand at the same offsets in every version from 9.6 to 18; what follows differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Where replay starts: for an online checkpoint before the record itself.
    pub redo: Lsn,
    /// The timeline in force.
    pub timeline: TimelineId,
    /// The timeline before, different only in the record that starts a new timeline.
    pub previous_timeline: TimelineId,
    /// Whether full-page writes were on.
    pub full_page_writes: bool,
}

impl Checkpoint {
    /// Reads the front part of a `CheckPoint`; `None` if `bytes` is too short to be one.
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
