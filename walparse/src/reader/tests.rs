use proptest::prelude::*;

use super::*;
use crate::lsn::BlockNumber;
use crate::relation::Relation;
use crate::testing::{BlockSpec, RecordSpec, WalBuilder};
use crate::version::small_geometry;

fn geometry() -> WalGeometry {
    small_geometry(Version::find(1300, 202_209_061).unwrap())
}

fn filler(length: usize) -> RecordSpec {
    RecordSpec { rmid: 10, main_data: vec![7; length], ..RecordSpec::default() }
}

fn read_all(wal: &WalBuilder) -> (Vec<(Lsn, Lsn)>, WalEnd) {
    read_all_of(wal, geometry())
}

fn read_all_of(wal: &WalBuilder, geometry: WalGeometry) -> (Vec<(Lsn, Lsn)>, WalEnd) {
    let mut reader = WalReader::new(wal, geometry, Lsn(1 << 20));
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
    // With these lengths, records end at, just before and just after page boundaries.
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

/// The last possible segment, which only a damaged or forged file can refer to.
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

/// Even the 24 bytes of a switch record can cross the end of a page or of a segment.
#[test]
fn a_switch_ends_its_segment_at_any_offset() {
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
fn a_torn_record_is_skipped_if_it_is_marked_as_overwritten() {
    // The flag of such a page changed in 19.
    for version in Version::all() {
        let geometry = small_geometry(version);
        let mut wal = WalBuilder::new(geometry);
        let first = wal.append(&filler(100));
        wal.tear(&filler(20_000));
        let after = wal.append(&filler(5));
        let (records, end) = read_all_of(&wal, geometry);
        assert_eq!((records.len(), records[0].0, records[2].0), (3, first, after), "{version}");
        assert_eq!(end.position, wal.position());
        // A record other than the torn one is marked as overwritten.
        let overwrite = records[1].0;
        wal.damage(overwrite.advance(26), 8);
        let (records, end) = read_all_of(&wal, geometry);
        assert_eq!((records.len(), end.position), (1, records[0].1), "{version}");
    }
}

#[test]
fn the_end_of_a_page_header_is_the_page_boundary() {
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
        // Damage is undetected only in bytes that no check covers (padding, XLP_BKP_REMOVABLE). An increased
        // timeline is detected on the next page.
        if records.len() < whole.len() && !(4..8).contains(&(at % 8192)) {
            prop_assert!(end.position.0 <= (1 << 20) + at);
        }
    }
}
