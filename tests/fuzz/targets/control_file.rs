//! Control files, as they come and with their checksum made right, of every flavor.
#![no_main]

use walparse::{ControlFields, ControlFile, Flavor, Lsn, TimelineId};

/// The offsets of the checksum in the layouts of 9.6 to 19.
const CHECKSUMS: [usize; 5] = [256, 280, 288, 292, 308];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    look(bytes);
    for at in CHECKSUMS {
        let mut bytes = bytes.to_vec();
        if bytes.len() >= at + 4 {
            let checksum = crc32c::crc32c(&bytes[..at]);
            bytes[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
            look(&bytes);
        }
    }
});

fn look(bytes: &[u8]) {
    for field in ControlFields::read(bytes).map(|control| control.fields).unwrap_or_default() {
        let _ = field.value.to_string();
    }
    for flavor in Flavor::all() {
        look_as(bytes, flavor);
    }
}

fn look_as(bytes: &[u8], flavor: Flavor) {
    let Ok(control) = ControlFile::parse_as(bytes, flavor) else { return };
    let _ = (format!("{control:?}"), control.state(), control.timeline(), control.wal_level());
    let _ = (control.wal_log_hints(), control.has_data_checksums(), control.backup_end_required());
    let _ = (control.backup_start_point(), control.backup_end_point());
    let changed = control.recovering_to(Lsn(0x100_0028), TimelineId(7), 0);
    let again = ControlFile::parse_as(&changed, flavor).expect("what is written can be read");
    assert_eq!((again.min_recovery_point(), again.geometry()), (Lsn(0x100_0028), control.geometry()));
}
