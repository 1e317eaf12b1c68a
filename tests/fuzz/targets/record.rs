//! WAL records in one piece, whose checksum is taken for right.
#![no_main]

use walparse::testing::small_geometry;
use walparse::{Effect, Lsn, Record, RecordHeader, Version, operation, rmgr};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(header) = RecordHeader::parse(bytes) else { return };
    let record = Record { lsn: Lsn(0x100_0028), end: Lsn(0x100_0028), header, bytes };
    let mut blocks = Vec::new();
    for version in Version::all() {
        let geometry = small_geometry(version);
        let Ok(payload) = record.decode(&geometry, &mut blocks) else { continue };
        let stored: usize = blocks.iter().map(|block| usize::from(block.data_length)).sum();
        let images: usize =
            blocks.iter().filter_map(|block| block.image).map(|image| usize::from(image.length)).sum();
        assert_eq!(payload.block_data.len(), stored + images);
        assert!(blocks.is_sorted_by(|a, b| a.id < b.id) && blocks.len() <= 33);
        let _ = (operation(&header, version), Effect::of(&header, payload.main_data, version));
        let _ = (
            rmgr::overwritten_record(&record, payload.main_data),
            rmgr::is_known_relation_change(&header, version),
        );
    }
});
