//! One record in one form, whoever read it: this program's reader, or pg_waldump of any version.
//!
//!     Heap 59/251 tx 730 lsn 0/01500028 prev 0/014FFFF0 #0 rel 1663/5/1259 blk 0 FPW hole 220+8
//!
//! It has the fixed part and the blocks. Padding and the description, which say nothing more, are left out.

use std::fmt::Write;

use walparse::{ControlFile, Fork, Record, rmgr};

/// A record that was read here; with `holes`, those of its images, which pg_waldump prints with --bkp-details only.
pub fn record_line(record: &Record<'_>, control: &ControlFile, holes: bool) -> String {
    let wide = |lsn: walparse::Lsn| format!("{:X}/{:08X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF);
    let mut blocks = Vec::new();
    record.decode(&control.geometry(), &mut blocks).expect("decode a record");
    let total = record.header.total_length;
    let images: u32 =
        blocks.iter().filter_map(|block| block.image).map(|image| u32::from(image.length)).sum();
    let mut line = format!(
        "{} {}/{total} tx {} lsn {} prev {}",
        rmgr::name(record.header.rmid, control.version()),
        total - images,
        record.header.xid,
        wide(record.lsn),
        wide(record.header.previous),
    );
    for block in &blocks {
        let fork =
            if block.fork == Fork::Main { String::new() } else { format!(" fork {}", block.fork.name()) };
        write!(line, " #{} rel {}{fork} blk {}", block.id, block.relation, block.block)
            .expect("write to a string");
        let Some(image) = block.image else { continue };
        line.push_str(if image.is_applied { " FPW" } else { " FPW for WAL verification" });
        if holes {
            assert!(!image.is_compressed, "with compression the details are others");
            write!(line, " hole {}+{}", image.hole_offset, image.hole_length).expect("write to a string");
        }
    }
    line
}

/// The same of what pg_waldump prints: one line, or with --bkp-details one more for each block.
pub fn waldump_line(text: &str) -> String {
    let (fixed, rest) = text.split_once(", desc: ").unwrap_or_else(|| panic!("no description: {text}"));
    let words: Vec<&str> = fixed.split([' ', ',', ':']).filter(|word| !word.is_empty()).collect();
    let after = |name: &str| words[words.iter().position(|word| *word == name).expect(name) + 1];
    // `len (rec/tot):     54/    54`
    let (_, lengths) = fixed.split_once("len (rec/tot):").expect("lengths");
    let lengths = lengths.split(',').next().expect("lengths").replace(' ', "");
    let mut line =
        format!("{} {lengths} tx {} lsn {} prev {}", words[1], after("tx"), after("lsn"), after("prev"));
    for block in rest.split("blkref #").skip(1) {
        let (id, block) = block.split_once(": ").expect("a block reference");
        let block = block.trim_end().trim_end_matches([',', ';']);
        let block = block.replace(" fork main", "").replace("(FPW)", "FPW");
        let block = block.replace("; hole: offset: ", " hole ").replace(", length: ", "+");
        write!(line, " #{id} {block}").expect("write to a string");
    }
    line
}
