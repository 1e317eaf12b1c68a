//! One value among the bytes of a row, an array or a range: where it starts and ends, and its bytes without the header of
//! their length (`varatt.h`, `tupmacs.h`, `detoast.c`).

use std::borrow::Cow;

use crate::lost::bytes::{aligned, bytes_at, u32_at};

/// The first byte of a value that is stored outside of the row.
const EXTERNAL: u8 = 1;
/// The second one, if it is stored in a TOAST table. All other kinds exist in memory only.
const ON_DISK: u8 = 18;
/// The sizes in headers of compressed values have 30 bits; the method is in the two above them.
const SIZE_BITS: u32 = 30;
const SIZE: u32 = (1 << SIZE_BITS) - 1;
/// A compressed byte never makes more bytes than this. The longest match of pglz has this length.
const MOST_EXPANSION: usize = 273;

/// The value of a column, before it is printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Datum<'a> {
    /// NULL.
    Null,
    /// Of a type of fixed length: the bytes. Of another: the bytes without the header of their length, decompressed. Of a C
    /// string: the bytes before the NUL.
    Bytes(Cow<'a, [u8]>),
    /// It is stored in a TOAST table.
    External(ToastPointer),
    /// The row ends before it, or its bytes are no value: the row is damaged.
    Missing,
}

/// Where a value is stored outside of its row (`varatt_external`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ToastPointer {
    /// The bytes of the value when it is decompressed, without a header.
    pub(crate) raw_size: u32,
    /// The bytes of all its chunks.
    pub(crate) stored_size: u32,
    /// How it is compressed.
    pub(crate) method: Option<Compression>,
    /// `chunk_id` of its rows in the TOAST table.
    pub(crate) value_id: u32,
    /// The OID of the TOAST table. It is not the number of its file.
    pub(crate) toast_relation: u32,
}

/// How a value is compressed (`toast_compression.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compression {
    /// PostgreSQL's own method.
    Pglz,
    /// From 14 on.
    Lz4,
}

impl Compression {
    /// The method in the bits above a size. Before 14 they are zero.
    fn of_header(header: u32) -> Option<Compression> {
        match header >> SIZE_BITS {
            0 => Some(Compression::Pglz),
            1 => Some(Compression::Lz4),
            _ => None,
        }
    }
}

/// The value of these chunks, in the order of their numbers.
pub(crate) fn detoast(pointer: &ToastPointer, chunks: &[u8]) -> Option<Vec<u8>> {
    if u32::try_from(chunks.len()) != Ok(pointer.stored_size) {
        return None;
    }
    match pointer.method {
        None => Some(chunks.to_vec()),
        // What is stored begins with the size and the method, as a compressed value in a row does behind its length.
        Some(_) => decompress(chunks, Some(pointer.raw_size)),
    }
}

/// The value at this offset or behind padding, and the offset of its end. `None` if the bytes end before it does, or are no
/// value.
pub(super) fn fetch(bytes: &[u8], at: usize, length: i16, align: u8) -> Option<(Datum<'_>, usize)> {
    match length {
        -1 => {
            // Padding is zero, and a header of one byte never is: before that there is no padding.
            let start = if *bytes.get(at)? == 0 { aligned(at, align)? } else { at };
            varlena(bytes, start)
        }
        -2 => {
            let start = aligned(at, align)?;
            let rest = bytes.get(start..)?;
            let length = rest.iter().position(|byte| *byte == 0)?;
            Some((Datum::Bytes(Cow::Borrowed(rest.get(..length)?)), start + length + 1))
        }
        1.. => {
            let start = aligned(at, align)?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            Some((Datum::Bytes(Cow::Borrowed(bytes.get(start..end)?)), end))
        }
        _ => None,
    }
}

/// A value that starts with its length. The lowest bits of the first byte tell headers apart: `1` is a length of 7 bits,
/// `00` one of 30 bits, `10` such a one with a compressed value behind it. All lengths count their header.
fn varlena(bytes: &[u8], start: usize) -> Option<(Datum<'_>, usize)> {
    let first = *bytes.get(start)?;
    if first == EXTERNAL {
        return external(bytes, start);
    }
    let (header, size) =
        if first & 1 == 1 { (1, u32::from(first >> 1)) } else { (4, u32_at(bytes, start)? >> 2) };
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    let payload = bytes.get(start + header..end)?;
    let datum = match first & 3 {
        2 => decompress(payload, None).map_or(Datum::Missing, |raw| Datum::Bytes(Cow::Owned(raw))),
        _ => Datum::Bytes(Cow::Borrowed(payload)),
    };
    Some((datum, end))
}

/// Two bytes of tags and, unaligned, i32 size of the value with a header of 4 bytes, u32 size and method of what is stored,
/// u32 value, u32 TOAST table.
fn external(bytes: &[u8], start: usize) -> Option<(Datum<'_>, usize)> {
    let [_, tag] = bytes_at(bytes, start)?;
    if tag != ON_DISK {
        return None;
    }
    let number = |index: usize| u32_at(bytes, start + 2 + 4 * index);
    let (size, stored, value_id, toast_relation) = (number(0)?, number(1)?, number(2)?, number(3)?);
    let (raw_size, stored_size) = (size.checked_sub(4)?, stored & SIZE);
    // There is no other mark of a compressed value than that it is shorter.
    let is_compressed = stored_size < raw_size;
    let method = if is_compressed { Some(Compression::of_header(stored)?) } else { None };
    let pointer = ToastPointer { raw_size, stored_size, method, value_id, toast_relation };
    Some((Datum::External(pointer), start + 2 + 16))
}

/// A value behind the u32 of its size and method. The size is `expected` if that is known.
fn decompress(bytes: &[u8], expected: Option<u32>) -> Option<Vec<u8>> {
    let header = u32_at(bytes, 0)?;
    let (raw_size, input) = (header & SIZE, bytes.get(4..)?);
    let size = usize::try_from(raw_size).ok()?;
    let is_possible = size <= input.len().saturating_mul(MOST_EXPANSION);
    if !is_possible || expected.is_some_and(|expected| expected != raw_size) {
        return None;
    }
    match Compression::of_header(header)? {
        Compression::Pglz => walparse::decompress_pglz(input, size),
        Compression::Lz4 => walparse::decompress_lz4(input, size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &[u8]) -> Datum<'_> {
        Datum::Bytes(Cow::Borrowed(value))
    }

    /// A value with a header of 4 bytes.
    fn long(value: &[u8]) -> Vec<u8> {
        [&(4 * (value.len() as u32 + 4)).to_le_bytes(), value].concat()
    }

    /// A compressed value, 4 literals of pglz.
    fn compressed(raw_size: u32) -> Vec<u8> {
        [&raw_size.to_le_bytes()[..], &[0], b"abcd"].concat()
    }

    fn pointer(raw_size: u32, stored: u32) -> Vec<u8> {
        let numbers = [raw_size + 4, stored, 7, 8];
        [vec![EXTERNAL, ON_DISK], numbers.iter().flat_map(|number| number.to_le_bytes()).collect()].concat()
    }

    #[test]
    fn values_of_fixed_length_are_aligned() {
        assert_eq!(fetch(&[1, 0, 0, 0, 5, 6, 7, 8], 1, 4, b'i'), Some((bytes(&[5, 6, 7, 8]), 8)));
        assert_eq!(fetch(&[1, 2, 3], 1, 2, b'c'), Some((bytes(&[2, 3]), 3)));
        assert_eq!(fetch(&[1, 0, 0, 0, 5, 6, 7], 1, 4, b'i'), None);
        assert_eq!(fetch(&[1, 2], 0, 0, b'c'), None);
        assert_eq!(fetch(b"xab\0c", 1, -2, b'c'), Some((bytes(b"ab"), 4)));
        assert_eq!(fetch(b"xab", 1, -2, b'c'), None);
    }

    #[test]
    fn a_short_header_has_no_padding_before_it() {
        assert_eq!(fetch(&[9, 7, b'a', b'b'], 1, -1, b'i'), Some((bytes(b"ab"), 4)));
        let padded = [vec![9, 0, 0, 0], long(b"ab")].concat();
        assert_eq!(fetch(&padded, 1, -1, b'i'), Some((bytes(b"ab"), 10)));
        // The lowest byte of this length is zero, as padding is.
        let whole = long(&[5; 60]);
        assert_eq!(whole[0], 0);
        assert_eq!(fetch(&whole, 0, -1, b'i'), Some((bytes(&[5; 60]), 64)));
    }

    #[test]
    fn lengths_that_cannot_be_are_no_value() {
        // Less than their headers, and more than there is.
        for damaged in
            [&[8u8, 0, 0, 0][..], &[0, 0, 0, 0], &[9, 1], &[40, 0, 0, 0, 1], &[1, 1], &[1, 18], &[]]
        {
            assert_eq!(fetch(damaged, 0, -1, b'i'), None, "{damaged:?}");
        }
        assert_eq!(fetch(&[3], 0, -1, b'i'), Some((bytes(b""), 1)));
    }

    #[test]
    fn compressed_values_are_decompressed() {
        let mut value = long(&compressed(4));
        value[0] |= 2;
        assert_eq!(fetch(&value, 0, -1, b'i'), Some((bytes(b"abcd"), value.len())));
        // A size that the bytes cannot have been, and a method that is not known.
        for raw_size in [SIZE, 4 | 2 << SIZE_BITS] {
            value[4..8].copy_from_slice(&raw_size.to_le_bytes());
            assert_eq!(fetch(&value, 0, -1, b'i'), Some((Datum::Missing, value.len())));
        }
    }

    #[test]
    fn values_stored_outside_are_pointed_to() {
        let found = |stored| match fetch(&pointer(100, stored), 0, -1, b'i') {
            Some((Datum::External(pointer), 18)) => Some(pointer),
            _ => None,
        };
        let plain =
            ToastPointer { raw_size: 100, stored_size: 100, method: None, value_id: 7, toast_relation: 8 };
        assert_eq!(found(100), Some(plain));
        assert_eq!(found(50).unwrap().method, Some(Compression::Pglz));
        assert_eq!(found(50 | 1 << SIZE_BITS).unwrap().method, Some(Compression::Lz4));
        assert_eq!(found(50 | 3 << SIZE_BITS), None);
    }

    #[test]
    fn chunks_make_a_value_if_their_size_is_right() {
        let plain =
            ToastPointer { raw_size: 4, stored_size: 4, method: None, value_id: 7, toast_relation: 8 };
        assert_eq!(detoast(&plain, b"abcd").as_deref(), Some(&b"abcd"[..]));
        assert_eq!(detoast(&plain, b"abc"), None);
        let stored = compressed(4);
        let pglz =
            ToastPointer { stored_size: stored.len() as u32, method: Some(Compression::Pglz), ..plain };
        assert_eq!(detoast(&pglz, &stored).as_deref(), Some(&b"abcd"[..]));
        assert_eq!(detoast(&ToastPointer { raw_size: 5, ..pglz }, &stored), None);
    }
}
