//! What a directory with any catalogs has lost by any WAL: rows of catalogs and pages of tables that nobody has checked.
//!
//! The input is a list of steps, one letter each with its arguments: see [`step`].
#![no_main]

use kbrecover_fuzz::cluster::{Cluster, FILES, TABLE, TOAST};
use kbrecover_rewind::testing::fuzzing::lost;
use walparse::control::testing::ControlFields;
use walparse::testing::{WalBuilder, small_geometry};
use walparse::{ControlFile, Lsn, Version};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let version = Version::find(1300, 202_209_061).expect("version 15");
    let control = ControlFile::parse(&ControlFields::clean(version).build()).expect("a good control file");
    let mut wal = WalBuilder::new(small_geometry(version));
    let mut cluster = Cluster::new();
    let start = wal.checkpoint(Lsn(0x10_0028));
    let (mut rest, mut fork) = (bytes, start);
    while wal.position() < Lsn(0x20_0000) && step(&mut wal, &mut cluster, &mut fork, &mut rest).is_some() {}
    for xid in 700..704 {
        wal.xid = xid;
        wal.append_raw(1, 0, &[255, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    lost(&cluster.write(), &control, &wal, [start, fork, wal.position()]);
});

/// Does what the next bytes say; nothing if there are none.
fn step(wal: &mut WalBuilder, cluster: &mut Cluster, fork: &mut Lsn, rest: &mut &[u8]) -> Option<()> {
    let [what, a, b, c] = *take(rest, 4)? else { return None };
    let file = FILES[usize::from(a) % FILES.len()];
    wal.xid = 700 + u32::from(a % 4);
    match what % 8 {
        0 => cluster.patch(file, usize::from(b) << 8 | usize::from(c), take(rest, rest.len().min(4))?),
        1 => {
            let data = take(rest, usize::from(c).min(rest.len()))?;
            let xmin = if b & 0x80 == 0 { 2 } else { 700 + u32::from(b & 3) };
            let xmax = if b & 0x40 == 0 { 0 } else { 700 + u32::from(b >> 2 & 3) };
            cluster.add_row(file, [xmin, xmax], [u16::from(b & 0x1f), 0x0100], data);
        }
        2 => cluster.cut(file, usize::from(b) << 8 | usize::from(c)),
        3 => {
            let fragments = take(rest, usize::from(c).min(rest.len()))?;
            wal.append_raw([10, 9, 0, 15, 7, 1, 4, 10][usize::from(what >> 3) % 8], b, fragments);
        }
        4 => {
            wal.checkpoint(Lsn(u64::from(b)));
            *fork = wal.position();
        }
        _ => {
            let of = [TABLE, TOAST, 1249, 1259, 1247, 2615, 2610, 1262][usize::from(a >> 2) % 8];
            let main = take(rest, usize::from(c & 15).min(rest.len()))?;
            let data = take(rest, usize::from(c >> 4).saturating_mul(8).min(rest.len()))?;
            wal.append_raw(
                if what & 8 == 0 { 10 } else { 9 },
                b,
                &heap_record(of, what >> 4 & 1, main, data),
            );
        }
    }
    Some(())
}

/// One block with data: its header, that of the main data, the data of both.
fn heap_record(relation: u32, block: u8, main: &[u8], data: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0x20];
    record.extend_from_slice(&(data.len() as u16).to_le_bytes());
    let (tablespace, database) = if relation == 1262 { (1664, 0) } else { (1663, 1) };
    for word in [tablespace, database, relation, u32::from(block)] {
        record.extend_from_slice(&word.to_le_bytes());
    }
    record.extend_from_slice(&[255, main.len() as u8]);
    record.extend_from_slice(data);
    record.extend_from_slice(main);
    record
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}
