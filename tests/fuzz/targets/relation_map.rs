//! Relation map files, as they come and with their magic number made right.
#![no_main]

use kbrecover_rewind::testing::fuzzing::relation_map;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    relation_map(bytes);
    if let Some((_, rest)) = bytes.split_first_chunk::<4>() {
        relation_map(&[&0x0059_2717u32.to_le_bytes()[..], rest].concat());
    }
});
