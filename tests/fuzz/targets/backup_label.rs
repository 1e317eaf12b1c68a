//! `backup_label` as a target may have it.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| kbrecover_rewind::testing::fuzzing::backup_label(text));
