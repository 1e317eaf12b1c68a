//! Rows of tables and their values, of columns of any type, in any encoding.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kbrecover_rewind::testing::fuzzing::row(bytes));
