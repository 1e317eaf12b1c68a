//! `jsonb` as text (`jsonb.h`, `jsonb_util.c`, `jsonb.c`, `escape_json` in `json.c`).
//!
//! ```text
//! u32 header: number of elements or pairs, flags
//! u32 for each element, or for all keys and then all values: its type, and its length or the offset of its end
//! their bytes one after the other, numbers and containers aligned to 4
//! ```

use std::borrow::Cow;
use std::fmt::Write;

use super::encoding::Encoding;
use super::fetch::{Datum, fetch};
use super::numeric::numeric;
use crate::lost::bytes::{aligned, most_text, u32_at};

/// The flags of a header. A scalar at the top is stored as an array with one element.
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
/// The number in headers and entries.
const NUMBER: u32 = 0x0fff_ffff;
/// The entry has the offset of its end.
const IS_OFFSET: u32 = 0x8000_0000;
/// The types of entries.
const TYPE: u32 = 0x7000_0000;
const STRING: u32 = 0x0000_0000;
const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;

pub(super) fn jsonb(bytes: &[u8], encoding: Encoding) -> Option<String> {
    let mut text = String::new();
    // Without recursion: an intact value may be nested deeply.
    let mut open = vec![Container::open(bytes, &mut text)?];
    while let Some(container) = open.last_mut() {
        if container.left == 0 {
            text.push_str(container.close);
            open.pop();
            continue;
        }
        container.left -= 1;
        if container.values.entry > container.first_value {
            text.push_str(", ");
        }
        if let Some(keys) = &mut container.keys {
            let (kind, key) = keys.next(container.entries, container.data)?;
            if kind != STRING {
                return None;
            }
            string(key, encoding, &mut text)?;
            text.push_str(": ");
        }
        match container.values.next(container.entries, container.data)? {
            (STRING, value) => string(value, encoding, &mut text)?,
            (NUMERIC, value) => number(value, &mut text)?,
            (FALSE, _) => text.push_str("false"),
            (TRUE, _) => text.push_str("true"),
            (NULL, _) => text.push_str("null"),
            (CONTAINER, value) => open.push(Container::open(value, &mut text)?),
            _ => return None,
        }
        if text.len() > most_text(bytes.len()) {
            return None;
        }
    }
    Some(text)
}

/// An array or an object of which a part is printed.
struct Container<'a> {
    entries: &'a [u8],
    data: &'a [u8],
    /// The next key of an object.
    keys: Option<Cursor>,
    /// The next value.
    values: Cursor,
    first_value: usize,
    /// How many values there are still.
    left: usize,
    close: &'static str,
}

/// A place among the entries of a container.
struct Cursor {
    entry: usize,
    /// Where the bytes of the entry start.
    offset: usize,
}

impl<'a> Container<'a> {
    /// Prints its opening bracket.
    fn open(bytes: &'a [u8], text: &mut String) -> Option<Container<'a>> {
        let header = u32_at(bytes, 0)?;
        let left = usize::try_from(header & NUMBER).ok()?;
        let is_object = header & OBJECT != 0;
        let count = if is_object { left.checked_mul(2)? } else { left };
        let (entries, data) = bytes.get(4..)?.split_at_checked(count.checked_mul(4)?)?;
        let mut values = Cursor { entry: 0, offset: 0 };
        let (open, close) = match (is_object, header & ARRAY != 0, header & SCALAR != 0) {
            (true, false, false) => ("{", "}"),
            (false, true, false) => ("[", "]"),
            (false, true, true) if left == 1 => ("", ""),
            _ => return None,
        };
        if is_object {
            for _ in 0..left {
                values.next(entries, data)?;
            }
        }
        text.push_str(open);
        let keys = is_object.then_some(Cursor { entry: 0, offset: 0 });
        Some(Container { entries, data, keys, first_value: values.entry, values, left, close })
    }
}

impl Cursor {
    /// The type and the bytes of the entry here, without padding; goes on to the next one.
    fn next<'a>(&mut self, entries: &[u8], data: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let entry = u32_at(entries, self.entry.checked_mul(4)?)?;
        let (kind, number) = (entry & TYPE, usize::try_from(entry & NUMBER).ok()?);
        let end = if entry & IS_OFFSET != 0 { number } else { self.offset.checked_add(number)? };
        let stored = data.get(self.offset..end)?;
        let padding = match kind {
            NUMERIC | CONTAINER => aligned(self.offset, b'i')? - self.offset,
            _ => 0,
        };
        (self.entry, self.offset) = (self.entry + 1, end);
        Some((kind, stored.get(padding..)?))
    }
}

/// A number has the header of its length.
fn number(stored: &[u8], text: &mut String) -> Option<()> {
    match fetch(stored, 0, -1, b'i')? {
        (Datum::Bytes(Cow::Borrowed(digits)), _) => text.push_str(&numeric(digits)?),
        _ => return None,
    }
    Some(())
}

fn string(stored: &[u8], encoding: Encoding, text: &mut String) -> Option<()> {
    text.push('"');
    for c in encoding.decode(stored)?.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            c if c < ' ' => write!(text, "\\u{:04x}", u32::from(c)).ok()?,
            c => text.push(c),
        }
    }
    text.push('"');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(bytes: &[u8]) -> Option<String> {
        jsonb(bytes, Encoding::Utf8)
    }

    fn container(header: u32, entries: &[u32], data: &[u8]) -> Vec<u8> {
        let numbers = [header].into_iter().chain(entries.iter().copied());
        numbers.flat_map(u32::to_le_bytes).chain(data.iter().copied()).collect()
    }

    /// 12 as a numeric in the short form.
    const TWELVE: [u8; 8] = [32, 0, 0, 0, 0, 0x80, 12, 0];

    #[test]
    fn scalars() {
        let scalar = |entry, data: &[u8]| print(&container(ARRAY | SCALAR | 1, &[entry], data));
        assert_eq!(scalar(STRING | 3, b"a\"\n").as_deref(), Some(r#""a\"\n""#));
        assert_eq!(scalar(STRING | 4, b"\x01\x7f\x08\\").as_deref(), Some("\"\\u0001\x7f\\b\\\\\""));
        assert_eq!(scalar(NUMERIC | 8, &TWELVE).as_deref(), Some("12"));
        assert_eq!(scalar(TRUE, b"").as_deref(), Some("true"));
        assert_eq!(scalar(NULL, b"").as_deref(), Some("null"));
        assert_eq!(scalar(STRING | 2, b"\xe4\xe4"), None);
        assert_eq!(scalar(0x7000_0000, b""), None);
    }

    #[test]
    fn arrays_and_objects() {
        assert_eq!(print(&container(ARRAY, &[], b"")).as_deref(), Some("[]"));
        assert_eq!(print(&container(OBJECT, &[], b"")).as_deref(), Some("{}"));
        // A number behind a string, aligned; its length counts the padding.
        let data = [b"a\0\0\0".as_slice(), &TWELVE].concat();
        let array = container(ARRAY | 3, &[STRING | 1, NUMERIC | 11, FALSE], &data);
        assert_eq!(print(&array).as_deref(), Some(r#"["a", 12, false]"#));
        // Two pairs: a is the array, b is null. The second entry has the offset of its end.
        let data = [b"ab\0\0".as_slice(), &array].concat();
        let value = CONTAINER | (2 + array.len() as u32);
        let object = container(OBJECT | 2, &[STRING | 1, STRING | IS_OFFSET | 2, value, NULL], &data);
        assert_eq!(print(&object).as_deref(), Some(r#"{"a": ["a", 12, false], "b": null}"#));
        for length in 0..object.len() {
            assert_eq!(print(&object[..length]), None, "{length}");
        }
    }

    #[test]
    fn nesting_may_be_deep() {
        let mut nested = container(ARRAY, &[], b"");
        for _ in 0..5000 {
            nested = container(ARRAY | 1, &[CONTAINER | nested.len() as u32], &nested);
        }
        assert_eq!(print(&nested), Some(format!("{}{}", "[".repeat(5001), "]".repeat(5001))));
    }

    #[test]
    fn damage_is_no_text() {
        for header in [ARRAY | OBJECT, 0, SCALAR | ARRAY, ARRAY | NUMBER, OBJECT | 1] {
            assert_eq!(print(&container(header, &[], b"")), None);
        }
        // An end before the start.
        let entries = [STRING | 2, STRING | IS_OFFSET | 1];
        assert_eq!(print(&container(ARRAY | 2, &entries, b"abc")), None);
    }
}
