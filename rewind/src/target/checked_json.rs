//! Files of our own in the target: JSON behind a checksum.
//!
//! ```text
//! 8 bytes      the format; any other is rejected
//! u32 LE       CRC-32C of the body
//! body         JSON, with page maps as hexadecimal roaring bitmaps
//! ```
//!
//! They are written and read relation by relation: a page map of 10^8 blocks is never in memory in this form.

use std::fmt;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use walparse::{PageMap, Relation, RelationBlocks};

/// The format, at the beginning of a file.
pub(super) type Magic = [u8; 8];

/// Serializes the body twice, first to compute its checksum, so that the whole is never in memory.
pub(super) fn write(magic: &Magic, body: &impl Serialize, to: &mut dyn Write) -> io::Result<()> {
    let mut measured = Measured::default();
    serde_json::to_writer(&mut measured, body)?;
    to.write_all(magic)?;
    to.write_all(&measured.crc.to_le_bytes())?;
    Ok(serde_json::to_writer(to, body)?)
}

/// Reads the file twice: to check its checksum, and to parse it.
///
/// # Errors
/// It cannot be read, has another format, or is damaged.
pub(super) fn read<B: DeserializeOwned>(magic: &Magic, mut file: impl Read + Seek) -> Result<B, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "too short".to_owned(),
        _ => error.to_string(),
    };
    let (mut found, mut crc) = ([0; size_of::<Magic>()], [0; 4]);
    file.read_exact(&mut found).map_err(failed)?;
    if &found != magic {
        return Err("unknown format".into());
    }
    file.read_exact(&mut crc).map_err(failed)?;
    let mut measured = Measured::default();
    io::copy(&mut file, &mut measured).map_err(failed)?;
    if measured.crc != u32::from_le_bytes(crc) {
        return Err("incorrect checksum".into());
    }
    file.seek(SeekFrom::Start((found.len() + crc.len()) as u64)).map_err(failed)?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| error.to_string())
}

/// Computes the CRC-32C and the length of what is written to it.
#[derive(Default)]
pub(super) struct Measured {
    crc: u32,
    pub(super) length: u64,
}

impl Write for Measured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.crc = walparse::crc32c_append(self.crc, bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serializes one relation at a time, so that only one bitmap is in memory twice.
pub(super) fn store_map<S: Serializer>(map: &&PageMap, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    serializer.collect_seq(map.relations().into_iter().map(|(relation, blocks)| {
        bytes.clear();
        // Writing to memory cannot fail.
        let _ = blocks.serialize_into(&mut bytes);
        (relation.tablespace, relation.database, relation.number, to_hex(&bytes))
    }))
}

/// Reads what [`store_map`] has stored.
pub(super) fn read_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PageMap, D::Error> {
    deserializer.deserialize_seq(StoredRelations)
}

/// A list of relations: tablespace, database, number, and the blocks as a roaring bitmap in hexadecimal.
struct StoredRelations;

impl<'de> Visitor<'de> for StoredRelations {
    type Value = PageMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("relations and their blocks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut relations: A) -> Result<PageMap, A::Error> {
        let mut map = PageMap::new();
        while let Some((tablespace, database, number, blocks)) =
            relations.next_element::<(u32, u32, u32, String)>()?
        {
            let blocks = from_hex(&blocks).ok_or_else(|| A::Error::custom("invalid page map"))?;
            let blocks = RelationBlocks::deserialize_from(&blocks[..]).map_err(A::Error::custom)?;
            map.insert_all(Relation { tablespace, database, number }, blocks);
        }
        Ok(map)
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None })
        .collect()
}
