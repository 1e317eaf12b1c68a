//! Configuration files of a server.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let lines = text.split(|&byte| byte == b'\n').count();
    for setting in kbrecover_rewind::config::parse(text).unwrap_or_default() {
        assert!((1..=lines).contains(&setting.line) && !setting.name.is_empty());
    }
});
