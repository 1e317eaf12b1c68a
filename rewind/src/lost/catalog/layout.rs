//! Where the fixed columns of `pg_attribute` are, by version. This is the only catalog whose layout must be known: its rows
//! describe all others, and the rest of its own columns.

use crate::lost::bytes::{i16_at, i32_at, u32_at};
use crate::lost::types::Attribute;

/// Offsets behind `t_hoff`, in bytes.
struct Layout {
    attlen: usize,
    attnum: usize,
    atttypmod: usize,
    attalign: usize,
    attisdropped: usize,
}

const NAME: std::ops::Range<usize> = 4..68;
const TYPE: usize = 68;

/// Source: `pg_attribute.h` of each version.
fn layout(server_version_num: u32) -> Layout {
    let (attlen, attnum) = if server_version_num < 160_000 { (76, 78) } else { (72, 74) };
    let (atttypmod, attalign, attisdropped) = match server_version_num / 10_000 {
        0..=9 => (88, 94, 97),
        10 => (88, 94, 98),
        11 => (88, 94, 99),
        12..=13 => (88, 94, 100),
        14..=15 => (88, 93, 101),
        16..=17 => (80, 87, 95),
        _ => (76, 83, 91),
    };
    Layout { attlen, attnum, atttypmod, attalign, attisdropped }
}

/// The relation and the column that a row of `pg_attribute` describes, from the bytes behind its `t_hoff`.
pub(super) fn attribute(data: &[u8], server_version_num: u32) -> Option<(u32, Attribute)> {
    let layout = layout(server_version_num);
    let name = data.get(NAME)?;
    let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
    let attribute = Attribute {
        name: String::from_utf8_lossy(name).into_owned(),
        type_oid: u32_at(data, TYPE)?,
        number: i16_at(data, layout.attnum)?,
        length: i16_at(data, layout.attlen)?,
        align: *data.get(layout.attalign)?,
        type_modifier: i32_at(data, layout.atttypmod)?,
        is_dropped: *data.get(layout.attisdropped)? != 0,
        ..Attribute::default()
    };
    let is_plausible = matches!(attribute.align, b'c' | b's' | b'i' | b'd') && attribute.length >= -2;
    is_plausible.then_some((u32_at(data, 0)?, attribute))
}
