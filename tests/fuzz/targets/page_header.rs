//! WAL page headers: 8 bytes of position, then the page.
#![no_main]

use walparse::testing::small_geometry;
use walparse::{Lsn, PageHeader, Version};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((address, page)) = bytes.split_first_chunk::<8>() else { return };
    let address = Lsn(u64::from_le_bytes(*address));
    for version in Version::all() {
        let geometry = small_geometry(version);
        if let Ok(header) = PageHeader::check(page, address, &geometry) {
            assert!(
                header.length <= page.len() && header.length >= PageHeader::length_at(address, &geometry)
            );
        }
    }
});
