//! Doors for fuzzing: bytes that nobody has checked, to where they are taken apart.

use std::borrow::Cow;
use std::path::Path;

use walparse::{ControlFile, Lsn, SegmentStore, TimelineId};

use super::catalog::relation_map;
use super::datum::{Datum, Tuple, deform, detoast, text};
use super::export::LostJson;
use super::model::LostValue;
use super::request::LostRequest;
use super::types::{Attribute, Type, Types};
use crate::outcome::Divergence;
use crate::stop::StopFlag;

/// Types of every kind beside the built-in ones, and one that contains itself.
struct HostileTypes {
    types: Vec<Type>,
    columns: Vec<Attribute>,
    encoding: &'static str,
    version: u32,
}

/// The types of columns that the input chooses from: some built-in ones of each module, and those of [`HostileTypes`].
const TYPES: [u32; 64] = [
    16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 30, 142, 600, 601, 602, 603, 604, 628, 650, 700, 701, 718,
    774, 790, 829, 869, 1042, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1700, 2950, 2970, 3220, 3614, 3615,
    3802, 5069, 20_000, 20_001, 20_002, 20_003, 20_004, 20_005, 20_006, 20_007, 20_008, 20_009, 20_010,
    99_999, 0, 2202, 24, 28, 114, 705, 1043, 1562, 2275,
];

impl HostileTypes {
    fn new(choice: u8) -> HostileTypes {
        let of = |oid: u32, kind: u8, length: i16| Type {
            oid,
            kind,
            length,
            align: [b'i', b'd', b's', b'c', b'x'][oid as usize % 5],
            delimiter: b',',
            ..Type::default()
        };
        let array = |oid: u32, element: u32| Type { element, ..of(oid, b'b', -1) };
        let encodings =
            ["UTF8", "LATIN1", "SQL_ASCII", "EUC_JP", "GB18030", "MULE_INTERNAL", "JOHAB", "none"];
        HostileTypes {
            types: vec![
                of(23, b'b', 4),
                of(25, b'b', -1),
                of(1700, b'b', -1),
                array(20_000, 23),
                array(20_001, 25),
                array(20_002, 20_001),
                Type { base: 20_000, ..of(20_003, b'd', -1) },
                of(20_004, b'e', 4),
                Type { relation: 1, ..of(20_005, b'c', -1) },
                array(20_006, 20_005),
                of(20_007, b'r', -1),
                of(20_008, b'm', -1),
                Type { base: 20_009, ..of(20_009, b'd', -1) },
                array(20_010, 20_010),
            ],
            columns: (1..=3)
                .map(|number| column(number, [23, 20_005, 25][number as usize % 3], choice))
                .collect(),
            encoding: encodings[usize::from(choice % 8)],
            version: [90_600, 100_000, 120_000, 140_000, 160_000, 190_000][usize::from(choice / 8) % 6],
        }
    }
}

impl Types for HostileTypes {
    fn get(&self, oid: u32) -> Option<&Type> {
        self.types.iter().find(|found| found.oid == oid)
    }

    fn enum_label(&self, oid: u32) -> Option<&str> {
        oid.is_multiple_of(2).then_some("a label")
    }

    fn range_subtype(&self, oid: u32) -> Option<u32> {
        Some(if oid == 20_007 { 1700 } else { 23 })
    }

    fn columns(&self, relation: u32) -> Option<&[Attribute]> {
        (relation == 1).then_some(&self.columns)
    }

    fn encoding(&self) -> &str {
        self.encoding
    }

    fn server_version_num(&self) -> u32 {
        self.version
    }
}

fn column(number: i16, type_oid: u32, choice: u8) -> Attribute {
    Attribute {
        number,
        type_oid,
        length: [-1, -2, 1, 2, 4, 8, 6, 16, 12, 64][usize::from(choice) % 10],
        align: [b'c', b's', b'i', b'd'][usize::from(choice / 10) % 4],
        type_modifier: -1,
        ..Attribute::default()
    }
}

/// Takes a row apart and prints its values. The first bytes say what columns the row should have.
pub(crate) fn row(input: &[u8]) {
    let Some(([choice, count, infomask2, infomask, header_length, missing], rest)) =
        input.split_first_chunk()
    else {
        return;
    };
    let types = HostileTypes::new(*choice);
    let count = usize::from(count % 8);
    let Some((columns, body)) = rest.split_at_checked(2 * count) else { return };
    let columns = columns.chunks_exact(2).zip(1..).map(|(pair, number)| Attribute {
        missing: (missing % 9 == number as u8).then(|| body.to_vec()),
        ..column(number, TYPES[usize::from(pair[0]) % TYPES.len()], pair[1])
    });
    let columns: Vec<Attribute> = columns.collect();
    let tuple = Tuple {
        infomask2: u16::from(*infomask2),
        infomask: u16::from(*infomask),
        header_length: *header_length,
        body,
    };
    for (datum, column) in deform(&tuple, &columns).iter().zip(&columns) {
        if let Datum::External(pointer) = datum {
            let _ = detoast(pointer, body);
        }
        print(datum, column.type_oid, &types);
        // What a value is stored as says nothing about its type.
        print(&Datum::Bytes(Cow::Borrowed(body)), column.type_oid, &types);
    }
}

fn print(datum: &Datum<'_>, type_oid: u32, types: &HostileTypes) {
    let LostValue::Text(text) = text(datum, type_oid, -1, types) else { return };
    if let Datum::Bytes(bytes) = datum {
        assert!(
            text.len() <= super::bytes::most_text(bytes.len()),
            "{} bytes of {}",
            text.len(),
            bytes.len()
        );
    }
}

/// Reads a relation map file.
pub(crate) fn map(bytes: &[u8]) {
    assert!(relation_map(bytes).len() <= bytes.len() / 8);
}

/// Lists what a directory has lost since `fork`. What is written is JSON, whatever the directory and its WAL have.
pub(crate) fn everything(
    root: &Path,
    control: &ControlFile,
    wal: &dyn SegmentStore,
    [start, fork, end]: [Lsn; 3],
) {
    let stop = StopFlag::default();
    let request = LostRequest {
        root,
        control,
        wal,
        fork: Divergence { lsn: fork, timeline: TimelineId(1) },
        start,
        end,
        has_values: true,
        spool: None,
        stop: &stop,
        progress: &|_| {},
    };
    let mut json = LostJson::new(Vec::new(), "memory");
    if super::list(&request, &mut json).is_ok() {
        let read = serde_json::from_slice::<serde_json::Value>(json.get_mut());
        assert!(read.is_ok(), "{read:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, and are the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    #[test]
    fn rows_of_any_bytes_are_taken_apart() {
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        for round in 0..20_000usize {
            let length = numbers.next() as usize % 200;
            // Small numbers are lengths and offsets more often than large ones.
            let small = numbers.next() % 4;
            let byte = |numbers: &mut Numbers| match small {
                0 => (numbers.next() % 5) as u8,
                1 => [0, 1, 3, 4, 8, 18, 0x1b, 0xff][numbers.next() as usize % 8],
                _ => numbers.next() as u8,
            };
            let mut input: Vec<u8> = (0..length).map(|_| byte(&mut numbers)).collect();
            if let Some([_, count, infomask2, _, header_length, _, first, ..]) = input.get_mut(..) {
                (*count, *infomask2, *header_length) = (1 + (round % 3) as u8, 7, 23 + (round % 2) as u8);
                *first = (round % TYPES.len()) as u8;
            }
            row(&input);
            map(&[&0x0059_2717u32.to_le_bytes()[..], &input].concat());
        }
    }
}
