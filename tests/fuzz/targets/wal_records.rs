//! WAL of valid records with any content, then damaged. The scan and the sequential reader must find the same.
//!
//! The input is a list of steps, one letter each with its arguments: see [`step`].
#![no_main]

use kbrecover_fuzz::{Segments, compare, geometry, scan_in_this_thread};
use libfuzzer_sys::fuzz_target;
use walparse::testing::{BlockSpec, RecordSpec, WalBuilder};
use walparse::{BlockNumber, Lsn, Relation, SegmentNo};

fuzz_target!(init: scan_in_this_thread(), |bytes: &[u8]| {
    let mut wal = WalBuilder::new(geometry());
    wal.checkpoint(Lsn(0x10_0028));
    let mut rest = bytes;
    // Three segments are enough for every kind of border, and more would only be slower.
    while wal.position() < Lsn(0x40_0000) && step(&mut wal, &mut rest).is_some() {}
    compare(&Segments::of(&wal));
});

/// Does what the next bytes say; nothing if there are none.
fn step(wal: &mut WalBuilder, rest: &mut &[u8]) -> Option<()> {
    let [what, a, b, c] = *take(rest, 4)? else { return None };
    let number = u32::from_le_bytes([a, b, c, 0]);
    let filler = |length: u32| {
        let relation = Relation { tablespace: 1663, database: 5, number: u32::from(c) };
        // Mostly short: a long one in every eighth.
        let length = length & if length & 7 == 0 { 0x1F_FFFF } else { 0x3FFF };
        let main_data = vec![7; length as usize];
        RecordSpec { rmid: 10, info: 0, blocks: vec![BlockSpec::part(relation, BlockNumber(number))], main_data }
    };
    match what % 8 {
        0..=2 => {
            let fragments = take(rest, usize::from(c).min(rest.len()))?;
            wal.append_raw(a, b, fragments);
        }
        3 => _ = wal.append(&filler(number)),
        4 => wal.tear(&filler(number)),
        5 => _ = wal.checkpoint(Lsn(u64::from(number))),
        6 if a & 1 == 0 => _ = wal.switch(),
        6 => wal.remove(SegmentNo(u64::from(b % 4))),
        _ => wal.damage(Lsn(0x10_0000 + u64::from(number & 0x3F_FFFF)), take(rest, 1)?[0]),
    }
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}
