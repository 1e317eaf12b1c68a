//! WAL as bytes on disk: the input is the front of segment 1, the rest of it the front of segment 2.
//! The scan and the sequential reader must find the same.
#![no_main]

use kbrecover_fuzz::{Segments, compare, scan_in_this_thread};
use libfuzzer_sys::fuzz_target;

/// What of the input goes into the first segment.
const FIRST: usize = 3 * 8192;

fuzz_target!(init: scan_in_this_thread(), |bytes: &[u8]| {
    let (first, second) = bytes.split_at_checked(FIRST).unwrap_or((bytes, &[]));
    let mut segments = Segments::with_headers([first.to_vec(), second.to_vec()]);
    compare(&segments);
    segments.make_checksums_right();
    compare(&segments);
});
