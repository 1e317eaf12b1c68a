//! WAL segments: their size, their numbers, and the names of the files in the WAL directory.

use std::fmt;

use crate::lsn::{Lsn, TimelineId};

/// The size of a WAL segment file in bytes: a power of two from 1 MiB to 1 GiB (`xlog_seg_size`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// The size given by a control file; `None` if it is not a power of two from 1 MiB to 1 GiB.
    pub fn new(bytes: u32) -> Option<SegmentSize> {
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(SegmentSize(bytes))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The segment that holds the byte at `lsn`.
    pub fn segment_of(self, lsn: Lsn) -> SegmentNo {
        SegmentNo(lsn.0 >> self.0.trailing_zeros())
    }

    /// The segment that holds the last byte before `lsn` (`XLByteToPrevSeg`).
    pub fn segment_before(self, lsn: Lsn) -> SegmentNo {
        self.segment_of(Lsn(lsn.0.saturating_sub(1)))
    }

    /// The position of the first byte of a segment.
    pub fn start_of(self, segment: SegmentNo) -> Lsn {
        Lsn(segment.0.saturating_mul(self.bytes()))
    }

    /// The position one past the last byte of a segment.
    pub fn end_of(self, segment: SegmentNo) -> Lsn {
        self.start_of(segment).advance(self.bytes())
    }

    /// The offset of `lsn` in its segment.
    pub fn offset_of(self, lsn: Lsn) -> usize {
        // Masked, because this is called for every record and a division is as slow as its checksum.
        (lsn.0 & (self.bytes() - 1)) as usize
    }

    /// The name of a segment file (`XLogFileName`): the timeline and the two halves of the segment number, 8
    /// hexadecimal digits each.
    pub fn file_name(self, timeline: TimelineId, segment: SegmentNo) -> String {
        let per_id = (1u64 << 32) / self.bytes();
        format!("{:08X}{:08X}{:08X}", timeline.0, segment.0 / per_id, segment.0 % per_id)
    }

    /// Parses the name of a segment file; `None` for any other name.
    pub fn parse_file_name(self, name: &str) -> Option<(TimelineId, SegmentNo)> {
        let [timeline, high, low] = hex_words::<3>(name)?;
        let per_id = (1u64 << 32) / self.bytes();
        (u64::from(low) < per_id)
            .then(|| (TimelineId(timeline), SegmentNo(u64::from(high) * per_id + u64::from(low))))
    }
}

/// The number of a WAL segment, counted from the first byte of the WAL. Segment 0 is never written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNo(pub u64);

impl SegmentNo {
    /// The segment after this one.
    pub fn next(self) -> SegmentNo {
        SegmentNo(self.0 + 1)
    }
}

impl fmt::Display for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The meaning of a file name in the WAL directory.
///
/// ```
/// use walparse::{Lsn, SegmentSize, TimelineId, WalFileName};
///
/// let size = SegmentSize::new(16 << 20).expect("16 MiB is a valid segment size");
/// let Some(WalFileName::Segment(timeline, segment)) = WalFileName::parse("0000000D0000000100000069", size) else {
///     panic!("the name of a segment file");
/// };
/// assert_eq!(timeline, TimelineId(13));
/// assert_eq!(size.start_of(segment), Lsn(0x1_6900_0000));
/// assert_eq!(WalFileName::parse("archive_status", size), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalFileName {
    /// A segment file: 24 hexadecimal digits.
    Segment(TimelineId, SegmentNo),
    /// The last, incomplete segment of a timeline, renamed at a promotion: `<segment>.partial`.
    Partial(TimelineId, SegmentNo),
    /// A timeline history file: `%08X.history`.
    History(TimelineId),
    /// A backup history file: `<segment>.%08X.backup`.
    Backup(TimelineId, SegmentNo),
}

impl WalFileName {
    /// Parses the name of a file in the WAL directory, or in `archive_status` without its suffix `.ready` or
    /// `.done`; `None` for any other name.
    pub fn parse(name: &str, size: SegmentSize) -> Option<WalFileName> {
        let Some((stem, rest)) = name.split_once('.') else {
            return size.parse_file_name(name).map(|(tli, no)| WalFileName::Segment(tli, no));
        };
        match rest {
            "history" => hex_words::<1>(stem).map(|[tli]| WalFileName::History(TimelineId(tli))),
            "partial" => size.parse_file_name(stem).map(|(tli, no)| WalFileName::Partial(tli, no)),
            _ => {
                let offset = rest.strip_suffix(".backup")?;
                hex_words::<1>(offset)?;
                size.parse_file_name(stem).map(|(tli, no)| WalFileName::Backup(tli, no))
            }
        }
    }
}

impl TimelineId {
    /// The name of the history file of this timeline.
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.0)
    }
}

/// Parses exactly `N` times eight upper-case hexadecimal digits.
fn hex_words<const N: usize>(name: &str) -> Option<[u32; N]> {
    if name.len() != N * 8 || !name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')) {
        return None;
    }
    let mut words = [0; N];
    for (index, word) in words.iter_mut().enumerate() {
        *word = u32::from_str_radix(name.get(index * 8..index * 8 + 8)?, 16).ok()?;
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_segment_name_round_trips(shift in 20u32..=30, timeline: u32, lsn: u64) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let at = (TimelineId(timeline), size.segment_of(Lsn(lsn)));
            let name = size.file_name(at.0, at.1);
            prop_assert_eq!(size.parse_file_name(&name), Some(at));
            prop_assert_eq!(
                WalFileName::parse(&format!("{name}.partial"), size),
                Some(WalFileName::Partial(at.0, at.1))
            );
            let start = size.start_of(at.1);
            prop_assert!(start.0 <= lsn && lsn - start.0 == size.offset_of(Lsn(lsn)) as u64);
        }

        #[test]
        fn a_parsed_name_is_the_generated_name(shift in 20u32..=30, name in "[0-9A-Fa-f]{23,25}") {
            let size = SegmentSize::new(1 << shift).unwrap();
            if let Some((timeline, segment)) = size.parse_file_name(&name) {
                prop_assert_eq!(size.file_name(timeline, segment), name);
            }
        }
    }

    #[test]
    fn names_round_trip_for_every_segment_size() {
        for shift in 20..=30 {
            let size = SegmentSize::new(1 << shift).unwrap();
            for number in [1, 2, 255, 256, 4095, 4096, 1 << 20] {
                let name = size.file_name(TimelineId(13), SegmentNo(number));
                assert_eq!(size.parse_file_name(&name), Some((TimelineId(13), SegmentNo(number))));
            }
        }
        assert!(SegmentSize::new(1 << 19).is_none() && SegmentSize::new(3 << 20).is_none());
    }

    #[test]
    fn names_match_the_servers() {
        // 64 segments of 64 MB share the high half of their names; observed on a real cluster.
        let size = SegmentSize::new(64 << 20).unwrap();
        assert_eq!(
            size.file_name(TimelineId(1), size.segment_of(Lsn(0x400_0000))),
            "000000010000000000000001"
        );
        let size = SegmentSize::new(16 << 20).unwrap();
        assert_eq!(
            size.file_name(TimelineId(13), size.segment_of(Lsn(0x1_6900_0028))),
            "0000000D0000000100000069"
        );
        assert_eq!(size.segment_before(Lsn(0x200_0000)), SegmentNo(1));
    }

    #[test]
    fn kinds_of_file_names_are_distinguished() {
        let size = SegmentSize::new(16 << 20).unwrap();
        let seg = "00000002000000010000000A";
        let at = (TimelineId(2), SegmentNo(0x10A));
        assert_eq!(WalFileName::parse(seg, size), Some(WalFileName::Segment(at.0, at.1)));
        assert_eq!(
            WalFileName::parse(&format!("{seg}.partial"), size),
            Some(WalFileName::Partial(at.0, at.1))
        );
        assert_eq!(
            WalFileName::parse(&format!("{seg}.00000028.backup"), size),
            Some(WalFileName::Backup(at.0, at.1))
        );
        assert_eq!(WalFileName::parse("00000003.history", size), Some(WalFileName::History(TimelineId(3))));
        for other in ["xlogtemp.12", "00000003.historyx", "0000000200000001000001FF", "archive_status", ""] {
            assert_eq!(WalFileName::parse(other, size), None, "{other}");
        }
    }
}
