//! Names: paths below a data directory, relation files, WAL files, positions. What is read back is the same.
#![no_main]

use std::path::Path;

use kbrecover_rewind::DataPath;
use walparse::{Lsn, RelSegment, SegmentSize, Version, WalFileName};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(path) = DataPath::parse(bytes) {
        let below = path.below(Path::new("/data"));
        assert!(below.starts_with("/data") && below.components().all(|part| part.as_os_str() != ".."));
        let _ = (path.file_name(), path.parent(), path.to_string());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse::<Lsn>(), Ok(lsn));
    }
    for version in Version::all() {
        if let Some(segment) = RelSegment::parse(text, version) {
            assert_eq!(segment.path(version), text);
        }
    }
    for shift in [20, 24, 30] {
        let size = SegmentSize::new(1 << shift).expect("a segment size");
        let _ = WalFileName::parse(text, size);
        if let Some((timeline, segment)) = size.parse_file_name(text) {
            assert_eq!(size.file_name(timeline, segment), text);
        }
    }
});
