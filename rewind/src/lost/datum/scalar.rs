//! Numbers, identifiers, bytes and bits as text: the types whose output is a single number or a list of them.

use std::fmt::Write;

use crate::lost::bytes::{bytes_at, count_at, i16_at, i32_at, i64_at, u16_at, u32_at, u64_at};

pub(super) fn boolean(bytes: &[u8]) -> Option<String> {
    let [byte] = bytes_at(bytes, 0)?;
    Some(if byte == 0 { "f" } else { "t" }.to_owned())
}

pub(super) fn int2(bytes: &[u8]) -> Option<String> {
    Some(i16_at(bytes, 0)?.to_string())
}

pub(super) fn int4(bytes: &[u8]) -> Option<String> {
    Some(i32_at(bytes, 0)?.to_string())
}

pub(super) fn int8(bytes: &[u8]) -> Option<String> {
    Some(i64_at(bytes, 0)?.to_string())
}

/// OIDs, transaction and command IDs.
pub(super) fn unsigned4(bytes: &[u8]) -> Option<String> {
    Some(u32_at(bytes, 0)?.to_string())
}

pub(super) fn unsigned8(bytes: &[u8]) -> Option<String> {
    Some(u64_at(bytes, 0)?.to_string())
}

/// `regclass` and its like. The server prints a name, or the OID if there is no object of it, and reads both. The name may
/// have changed since.
pub(super) fn object(bytes: &[u8]) -> Option<String> {
    match u32_at(bytes, 0)? {
        0 => Some("-".to_owned()),
        oid => Some(oid.to_string()),
    }
}

/// The block in two halves, the higher first, and the item (`tid.c`).
pub(super) fn tid(bytes: &[u8]) -> Option<String> {
    let (high, low, item) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?, u16_at(bytes, 4)?);
    Some(format!("({},{item})", u32::from(high) << 16 | u32::from(low)))
}

/// From 19 on with all digits of the lower half (`pg_lsn.c`).
pub(super) fn pg_lsn(bytes: &[u8], version: u32) -> Option<String> {
    let (low, high) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?);
    Some(if version >= 190_000 { format!("{high:X}/{low:08X}") } else { format!("{high:X}/{low:X}") })
}

/// u32 number of transactions, u64 lower and upper limit, the transactions in progress (`xid8funcs.c`, before 13 `txid.c`).
pub(super) fn snapshot(bytes: &[u8]) -> Option<String> {
    let (low, high, list) = (u64_at(bytes, 4)?, u64_at(bytes, 12)?, bytes.get(20..)?);
    let list = list.get(..count_at(bytes, 0)?.checked_mul(8)?)?;
    let in_progress: Vec<String> = list.chunks_exact(8).filter_map(unsigned8).collect();
    Some(format!("{low}:{high}:{}", in_progress.join(",")))
}

pub(super) fn uuid(bytes: &[u8]) -> Option<String> {
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    let part = |from: u32, digits: usize| {
        let part = number >> from & ((1 << (4 * digits)) - 1);
        format!("{part:0digits$x}")
    };
    Some([part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12)].join("-"))
}

/// Hundredths. The sign stands before the currency's symbol (`cash.c`, in the locale C).
pub(super) fn money(bytes: &[u8]) -> Option<String> {
    let value = i64_at(bytes, 0)?;
    let (whole, cents) = ((value.unsigned_abs() / 100).to_string(), value.unsigned_abs() % 100);
    let mut text = String::from(if value < 0 { "-$" } else { "$" });
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    let _ = write!(text, ".{cents:02}");
    Some(text)
}

pub(super) fn bytea(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    bytes.iter().for_each(|byte| text.extend(hex_digits(*byte)));
    Some(text)
}

fn hex_digits(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }))
}

/// `bit` and `bit varying`: i32 number of bits, the first one highest in the first byte (`varbit.c`).
pub(super) fn bits(bytes: &[u8]) -> Option<String> {
    let (count, stored) = (count_at(bytes, 0)?, bytes.get(4..)?);
    if count > stored.len() * 8 {
        return None;
    }
    let all = stored.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
    Some(all.take(count).map(|bit| if bit { '1' } else { '0' }).collect())
}

/// The type `"char"`, one byte. From 16 on a byte beyond ASCII is printed as its octal number; before, as it is, which is no
/// text (`char.c`).
pub(super) fn char(bytes: &[u8], version: u32) -> Option<String> {
    match bytes_at(bytes, 0)? {
        [0] => Some(String::new()),
        [byte] if byte.is_ascii() => Some(char::from(byte).to_string()),
        [byte] if version >= 160_000 => Some(format!("\\{byte:03o}")),
        _ => None,
    }
}

pub(super) fn int2vector(bytes: &[u8]) -> Option<String> {
    vector(bytes, 2, int2)
}

pub(super) fn oidvector(bytes: &[u8]) -> Option<String> {
    vector(bytes, 4, unsigned4)
}

/// An array of one dimension without NULLs: i32 dimensions, i32 zero, u32 type, i32 number of elements, i32 lower bound, then
/// the elements. They are printed with spaces between them (`int.c`, `oid.c`).
fn vector(bytes: &[u8], size: usize, print: fn(&[u8]) -> Option<String>) -> Option<String> {
    let (dimensions, has_nulls) = (i32_at(bytes, 0)?, i32_at(bytes, 4)? != 0);
    if dimensions != 1 || has_nulls {
        return None;
    }
    let elements = bytes.get(20..)?.get(..count_at(bytes, 12)?.checked_mul(size)?)?;
    Some(elements.chunks_exact(size).map(print).collect::<Option<Vec<_>>>()?.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        assert_eq!(boolean(&[1]).as_deref(), Some("t"));
        assert_eq!(boolean(&[0]).as_deref(), Some("f"));
        assert_eq!(int2(&[0xff, 0xff]).as_deref(), Some("-1"));
        assert_eq!(int4(&i32::MIN.to_le_bytes()).as_deref(), Some("-2147483648"));
        assert_eq!(int8(&i64::MIN.to_le_bytes()).as_deref(), Some("-9223372036854775808"));
        assert_eq!(unsigned4(&[0xff; 4]).as_deref(), Some("4294967295"));
        assert_eq!(unsigned8(&[0xff; 8]).as_deref(), Some("18446744073709551615"));
        assert_eq!(object(&[0; 4]).as_deref(), Some("-"));
        assert_eq!(object(&[10, 0, 0, 0]).as_deref(), Some("10"));
        assert_eq!(int4(&[1, 2, 3]), None);
    }

    #[test]
    fn identifiers() {
        assert_eq!(tid(&[1, 0, 2, 0, 3, 0]).as_deref(), Some("(65538,3)"));
        let lsn = 0x1_0000_00ABu64.to_le_bytes();
        assert_eq!(pg_lsn(&lsn, 180_000).as_deref(), Some("1/AB"));
        assert_eq!(pg_lsn(&lsn, 190_000).as_deref(), Some("1/000000AB"));
        let id: Vec<u8> = (0..16).map(|byte| byte * 0x11).collect();
        assert_eq!(uuid(&id).as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
        assert_eq!(uuid(&id[1..]), None);
        let numbers = |count: u32, list: &[u64]| {
            let list = list.iter().flat_map(|number| number.to_le_bytes()).collect();
            [count.to_le_bytes().to_vec(), list].concat()
        };
        assert_eq!(snapshot(&numbers(0, &[7, 7])).as_deref(), Some("7:7:"));
        assert_eq!(snapshot(&numbers(2, &[7, 10, 7, 9])).as_deref(), Some("7:10:7,9"));
        assert_eq!(snapshot(&numbers(3, &[7, 10, 7, 9])), None);
    }

    #[test]
    fn amounts_of_money() {
        for (cents, text) in [
            (0, "$0.00"),
            (-5, "-$0.05"),
            (99_999, "$999.99"),
            (-123_456_789, "-$1,234,567.89"),
            (100_000, "$1,000.00"),
            (i64::MIN, "-$92,233,720,368,547,758.08"),
        ] {
            assert_eq!(money(&cents.to_le_bytes()).as_deref(), Some(text));
        }
    }

    #[test]
    fn bytes_and_bits() {
        assert_eq!(bytea(&[0, 0xaf, 9]).as_deref(), Some("\\x00af09"));
        assert_eq!(bits(&[10, 0, 0, 0, 0b1010_0001, 0b1000_0000]).as_deref(), Some("1010000110"));
        assert_eq!(bits(&[0; 4]).as_deref(), Some(""));
        assert_eq!(bits(&[9, 0, 0, 0, 1]), None);
        assert_eq!(char(b"x", 150_000).as_deref(), Some("x"));
        assert_eq!(char(&[0], 150_000).as_deref(), Some(""));
        assert_eq!(char(&[0xe4], 150_000), None);
        assert_eq!(char(&[0xe4], 160_000).as_deref(), Some("\\344"));
    }

    #[test]
    fn vectors() {
        let header = |dimensions: i32, size: i32| {
            [dimensions, 0, 21, size, 0].iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()
        };
        let values = [1, 0, 0xff, 0xff];
        assert_eq!(int2vector(&[header(1, 2), values.to_vec()].concat()).as_deref(), Some("1 -1"));
        assert_eq!(oidvector(&[header(1, 1), values.to_vec()].concat()).as_deref(), Some("4294901761"));
        assert_eq!(int2vector(&header(1, 0)).as_deref(), Some(""));
        assert_eq!(int2vector(&[header(1, 3), values.to_vec()].concat()), None);
        assert_eq!(int2vector(&[header(2, 2), values.to_vec()].concat()), None);
    }
}
