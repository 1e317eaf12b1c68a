//! A data directory with the least that the catalogs of a database can be: its files are in memory, where an input changes them
//! before they are written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PAGE: usize = 8192;
/// The bytes of a tuple's header, with padding.
const HEADER: usize = 24;

/// A column of a catalog: its name, its type's OID, length and alignment.
type Column = (&'static str, u32, i16, u8);

const OID: (u32, i16, u8) = (26, 4, b'i');
const NAME: (u32, i16, u8) = (19, 64, b'c');
const INT2: (u32, i16, u8) = (21, 2, b's');
const INT4: (u32, i16, u8) = (23, 4, b'i');
const CHAR: (u32, i16, u8) = (18, 1, b'c');
const BOOL: (u32, i16, u8) = (16, 1, b'c');
const VECTOR: (u32, i16, u8) = (22, -1, b'i');
const TEXT: (u32, i16, u8) = (25, -1, b'i');

const fn column(name: &'static str, (of, length, align): (u32, i16, u8)) -> Column {
    (name, of, length, align)
}

/// The columns of catalogs as far as they are read, by the catalogs' OIDs. Those of `pg_attribute` are version 15's.
const CATALOGS: [(u32, &[Column]); 8] = [
    (
        1249,
        &[
            column("attrelid", OID),
            column("attname", NAME),
            column("atttypid", OID),
            column("attstattarget", INT4),
            column("attlen", INT2),
            column("attnum", INT2),
            column("attndims", INT4),
            column("attcacheoff", INT4),
            column("atttypmod", INT4),
            column("attbyval", BOOL),
            column("attalign", CHAR),
            column("attstorage", CHAR),
            column("attcompression", CHAR),
            column("attnotnull", BOOL),
            column("atthasdef", BOOL),
            column("atthasmissing", BOOL),
            column("attidentity", CHAR),
            column("attgenerated", CHAR),
            column("attisdropped", BOOL),
            column("attmissingval", TEXT),
        ],
    ),
    (
        1259,
        &[
            column("oid", OID),
            column("relname", NAME),
            column("relnamespace", OID),
            column("relfilenode", OID),
            column("reltablespace", OID),
            column("relkind", CHAR),
            column("relpersistence", CHAR),
            column("relnatts", INT2),
        ],
    ),
    (
        1247,
        &[
            column("oid", OID),
            column("typname", NAME),
            column("typnamespace", OID),
            column("typlen", INT2),
            column("typalign", CHAR),
            column("typtype", CHAR),
            column("typdelim", CHAR),
            column("typrelid", OID),
            column("typelem", OID),
            column("typbasetype", OID),
        ],
    ),
    (
        1262,
        &[
            column("oid", OID),
            column("datname", NAME),
            column("dattablespace", OID),
            column("encoding", INT4),
        ],
    ),
    (2615, &[column("oid", OID), column("nspname", NAME)]),
    (
        2610,
        &[
            column("indrelid", OID),
            column("indisunique", BOOL),
            column("indisprimary", BOOL),
            column("indimmediate", BOOL),
            column("indisvalid", BOOL),
            column("indnkeyatts", INT2),
            column("indkey", VECTOR),
        ],
    ),
    (3501, &[column("oid", OID), column("enumlabel", NAME)]),
    (3541, &[column("rngtypid", OID), column("rngsubtype", OID), column("rngmultitypid", OID)]),
];

/// A table of a user's, of version 15's type OIDs: the number of its file is its OID.
pub const TABLE: u32 = 16384;
/// The relation that holds its values out of line.
pub const TOAST: u32 = 16390;
const COLUMNS: [Column; 6] = [
    column("id", INT4),
    column("note", TEXT),
    column("mood", (16400, 4, b'i')),
    column("list", (1007, -1, b'i')),
    column("pair", (16402, -1, b'd')),
    column("span", (3904, -1, b'i')),
];

/// A value of a catalog's column.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(i64),
    Name(&'a str),
    /// With the header of its length.
    Bytes(&'a [u8]),
}

/// Files by their paths, with rows that can be added to.
pub struct Cluster {
    files: BTreeMap<&'static str, Vec<u8>>,
}

/// The paths of the files, for an input to choose from.
pub const FILES: [&str; 12] = [
    "base/1/1249",
    "base/1/1259",
    "base/1/1247",
    "global/1262",
    "base/1/2615",
    "base/1/2610",
    "base/1/3501",
    "base/1/3541",
    "base/1/16384",
    "base/1/16390",
    "base/1/pg_filenode.map",
    "global/pg_filenode.map",
];

impl Cluster {
    /// The least that can be read.
    pub fn new() -> Cluster {
        let mut cluster = Cluster { files: BTreeMap::new() };
        cluster.files.insert(FILES[10], map(&[(1259, 1259), (1249, 1249), (1247, 1247)]));
        cluster.files.insert(FILES[11], map(&[(1262, 1262)]));
        for (oid, columns) in CATALOGS {
            cluster.describe(oid, columns);
        }
        cluster.describe(TABLE, &COLUMNS);
        cluster.describe(16401, &COLUMNS[..2]);
        for (oid, kind, name) in [
            (2615, b'r', "pg_namespace"),
            (2610, b'r', "pg_index"),
            (3501, b'r', "pg_enum"),
            (3541, b'r', "pg_range"),
            (TABLE, b'r', "t"),
            (TOAST, b't', "pg_toast_16384"),
            (16401, b'c', "pair"),
        ] {
            let schema = if kind == b't' { 99 } else { 2200 };
            let file = if kind == b'c' { 0 } else { oid };
            let numbers = [schema, file, 0, u32::from(kind), u32::from(b'p'), 6].map(i64::from);
            cluster.row(
                1259,
                &[&[Value::Number(oid.into()), Value::Name(name)][..], &numbers.map(Value::Number)].concat(),
            );
        }
        for [oid, length, align, kind, relation, element, base] in [
            [23, 4, b'i'.into(), b'b'.into(), 0, 0, 0],
            [25, -1, b'i'.into(), b'b'.into(), 0, 0, 0],
            [1007, -1, b'i'.into(), b'b'.into(), 0, 23, 0],
            [3904, -1, b'i'.into(), b'r'.into(), 0, 0, 0],
            [16400, 4, b'i'.into(), b'e'.into(), 0, 0, 0],
            [16402, -1, b'd'.into(), b'c'.into(), 16401, 0, 0],
            [16403, 4, b'i'.into(), b'd'.into(), 0, 0, 16400],
        ] {
            let rest = [2200, length, align, kind, b','.into(), relation, element, base].map(Value::Number);
            cluster.row(1247, &[&[Value::Number(oid), Value::Name("of")][..], &rest].concat());
        }
        cluster.row(1262, &[Value::Number(1), Value::Name("db"), Value::Number(1663), Value::Number(6)]);
        cluster.row(2615, &[Value::Number(2200), Value::Name("public")]);
        cluster.row(2615, &[Value::Number(99), Value::Name("pg_toast")]);
        let key = [
            &((4 * (24 + 2)) as u32).to_le_bytes()[..],
            &[1, 0, 0, 0, 0, 0, 0, 0, 21, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ]
        .concat();
        let flags = [TABLE.into(), 1, 1, 1, 1, 1].map(Value::Number);
        cluster.row(2610, &[&flags[..], &[Value::Bytes(&key)]].concat());
        cluster.row(3501, &[Value::Number(16405), Value::Name("happy")]);
        cluster.row(3541, &[Value::Number(3904), Value::Number(23), Value::Number(4451)]);
        cluster
    }

    fn describe(&mut self, relation: u32, columns: &[Column]) {
        for (number, (name, of, length, align)) in (1..).zip(columns) {
            let numbers = [
                (*of).into(),
                -1,
                (*length).into(),
                number,
                0,
                -1,
                -1,
                0,
                (*align).into(),
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ];
            let values =
                [&[Value::Number(relation.into()), Value::Name(name)][..], &numbers.map(Value::Number)]
                    .concat();
            self.row(1249, &values);
        }
    }

    /// Adds a row to a catalog. The columns behind the last value are not stored.
    fn row(&mut self, catalog: u32, values: &[Value<'_>]) {
        let columns =
            CATALOGS.iter().find(|(oid, _)| *oid == catalog).map_or(&[][..], |(_, columns)| columns);
        let mut data = Vec::new();
        for (value, (_, _, length, align)) in values.iter().zip(columns) {
            let size = match align {
                b'i' => 4,
                b's' => 2,
                _ => 1,
            };
            data.resize(data.len().next_multiple_of(size), 0);
            match value {
                Value::Number(number) => data.extend_from_slice(&number.to_le_bytes()[..*length as usize]),
                Value::Name(name) => {
                    let end = data.len() + 64;
                    data.extend_from_slice(name.as_bytes());
                    data.resize(end, 0);
                }
                Value::Bytes(bytes) => data.extend_from_slice(bytes),
            }
        }
        let file = FILES.iter().find(|path| path.ends_with(&format!("/{catalog}"))).expect("a file");
        // Its transaction is frozen.
        self.add_row(file, [2, 0], [values.len() as u16, 0x0B00], &data);
    }

    /// Adds a row with these bytes behind its header to the last page of a file.
    pub fn add_row(
        &mut self,
        path: &'static str,
        [xmin, xmax]: [u32; 2],
        [infomask2, infomask]: [u16; 2],
        data: &[u8],
    ) {
        let length = HEADER + data.len();
        if length > 2000 {
            return;
        }
        let mut tuple = [xmin.to_le_bytes(), xmax.to_le_bytes(), [0; 4]].concat();
        tuple.extend_from_slice(&[0; 6]);
        tuple.extend_from_slice(&infomask2.to_le_bytes());
        tuple.extend_from_slice(&infomask.to_le_bytes());
        tuple.extend_from_slice(&[HEADER as u8, 0]);
        tuple.extend_from_slice(data);
        let file = self.files.entry(path).or_default();
        let has_room = |page: &[u8]| {
            let (lower, upper) = (number(page, 12), number(page, 14));
            upper.checked_sub(lower).is_some_and(|room| room >= length.next_multiple_of(8) + 4)
        };
        if file.len() < PAGE || !has_room(&file[file.len() - PAGE..]) {
            let mut page = vec![0; PAGE];
            for (at, value) in [(12, 24), (14, PAGE), (16, PAGE), (18, PAGE + 4)] {
                page[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
            }
            file.extend_from_slice(&page);
        }
        let start = file.len() - PAGE;
        let page = &mut file[start..];
        let (lower, upper) = (number(page, 12), number(page, 14));
        let at = upper - length.next_multiple_of(8);
        page[at..at + length].copy_from_slice(&tuple);
        let pointer = at as u32 | 1 << 15 | (length as u32) << 17;
        page[lower..lower + 4].copy_from_slice(&pointer.to_le_bytes());
        page[12..14].copy_from_slice(&(lower as u16 + 4).to_le_bytes());
        page[14..16].copy_from_slice(&(at as u16).to_le_bytes());
    }

    /// Overwrites bytes of a file.
    pub fn patch(&mut self, path: &'static str, at: usize, bytes: &[u8]) {
        let file = self.files.entry(path).or_default();
        let at = at % file.len().max(1);
        if let Some(place) = file.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Cuts a file.
    pub fn cut(&mut self, path: &'static str, length: usize) {
        self.files.entry(path).or_default().truncate(length);
    }

    /// Writes all files below the directory for temporary files. What was there before is replaced.
    pub fn write(&self) -> PathBuf {
        let root = std::env::temp_dir().join("kbrecover-fuzz-lost");
        for directory in ["base/1", "global"] {
            std::fs::create_dir_all(root.join(directory)).expect("make a directory");
        }
        for path in FILES {
            let contents = self.files.get(path).map_or(&[][..], Vec::as_slice);
            std::fs::write(Path::new(&root).join(path), contents).expect("write a file");
        }
        root
    }
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster::new()
    }
}

fn number(page: &[u8], at: usize) -> usize {
    // An input may have changed it.
    usize::from(u16::from_le_bytes([page[at], page[at + 1]])).min(PAGE)
}

fn map(entries: &[(u32, u32)]) -> Vec<u8> {
    let mut words = vec![0x0059_2717, entries.len() as u32];
    words.extend(entries.iter().flat_map(|(catalog, file)| [*catalog, *file]));
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
