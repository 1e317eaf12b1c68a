//! Ranges and multiranges as text (`rangetypes.c`, `multirangetypes.c`).

use super::composite::quote;
use super::fetch::{Datum, fetch};
use crate::lost::bytes::{aligned, count_at};
use crate::lost::types::Type;

/// What a range consists of, in a byte.
const EMPTY: u8 = 0x01;
const LOWER_INCLUSIVE: u8 = 0x02;
const UPPER_INCLUSIVE: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;
/// The bytes of the header that are not here: alignment counts them.
const LENGTH: usize = 4;

/// Prints a bound.
pub(super) type Print<'p> = &'p mut dyn FnMut(&Datum<'_>) -> Option<String>;

/// u32 type, then those bounds that are finite, then the flags.
pub(super) fn range(bytes: &[u8], subtype: &Type, print: Print<'_>) -> Option<String> {
    let (flags, bounds) = bytes.split_last()?;
    let mut bounds = Bounds { bytes: bounds.get(4..)?, at: 0, subtype, print };
    bounds.range(*flags)
}

/// u32 type, u32 number of ranges, u32 for each but the first (where it starts), the flags of each, then the bounds of each,
/// aligned as the subtype is.
pub(super) fn multirange(bytes: &[u8], subtype: &Type, print: Print<'_>) -> Option<String> {
    let count = count_at(bytes, 4)?;
    let first_flags = count.saturating_sub(1).checked_mul(4)?.checked_add(8)?;
    let end_of_flags = first_flags.checked_add(count)?;
    let all_flags = bytes.get(first_flags..end_of_flags)?;
    let start = aligned(end_of_flags + LENGTH, subtype.align)? - LENGTH;
    let mut bounds = Bounds { bytes: bytes.get(start..).unwrap_or_default(), at: 0, subtype, print };
    let mut text = String::from("{");
    for (index, flags) in all_flags.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&bounds.range(*flags)?);
        bounds.at = aligned(bounds.at, subtype.align)?;
    }
    text.push('}');
    Some(text)
}

struct Bounds<'a, 'p> {
    bytes: &'a [u8],
    /// Where the next one starts.
    at: usize,
    subtype: &'a Type,
    print: Print<'p>,
}

impl Bounds<'_, '_> {
    /// The next range, which has these flags.
    fn range(&mut self, flags: u8) -> Option<String> {
        if flags & EMPTY != 0 {
            return Some("empty".to_owned());
        }
        let mut text = String::from(if flags & LOWER_INCLUSIVE != 0 { "[" } else { "(" });
        if flags & LOWER_INFINITE == 0 {
            self.bound(&mut text)?;
        }
        text.push(',');
        if flags & UPPER_INFINITE == 0 {
            self.bound(&mut text)?;
        }
        text.push(if flags & UPPER_INCLUSIVE != 0 { ']' } else { ')' });
        Some(text)
    }

    fn bound(&mut self, text: &mut String) -> Option<()> {
        let (value, end) = fetch(self.bytes, self.at, self.subtype.length, self.subtype.align)?;
        self.at = end;
        quote(&(self.print)(&value)?, "()[],", text);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int4() -> Type {
        Type { length: 4, align: b'i', ..Type::default() }
    }

    fn text_type() -> Type {
        Type { length: -1, align: b'i', ..Type::default() }
    }

    fn number(value: &Datum<'_>) -> Option<String> {
        match value {
            Datum::Bytes(bytes) => Some(i32::from_le_bytes(bytes[..].try_into().ok()?).to_string()),
            _ => None,
        }
    }

    fn text(value: &Datum<'_>) -> Option<String> {
        match value {
            Datum::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        }
    }

    fn numbers(numbers: &[i32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn ranges_have_two_bounds_or_one_or_none() {
        let print = |bounds: &[i32], flags: u8| {
            let bytes = [numbers(&[3904]), numbers(bounds), vec![flags]].concat();
            range(&bytes, &int4(), &mut number)
        };
        assert_eq!(print(&[1, 5], LOWER_INCLUSIVE).as_deref(), Some("[1,5)"));
        assert_eq!(print(&[-1, 5], UPPER_INCLUSIVE).as_deref(), Some("(-1,5]"));
        assert_eq!(print(&[1], LOWER_INCLUSIVE | UPPER_INFINITE).as_deref(), Some("[1,)"));
        assert_eq!(print(&[5], LOWER_INFINITE).as_deref(), Some("(,5)"));
        assert_eq!(print(&[], LOWER_INFINITE | UPPER_INFINITE).as_deref(), Some("(,)"));
        assert_eq!(print(&[], EMPTY).as_deref(), Some("empty"));
        assert_eq!(print(&[1], LOWER_INCLUSIVE), None);
        assert_eq!(range(&[], &int4(), &mut number), None);
    }

    #[test]
    fn bounds_are_quoted_if_they_would_be_read_otherwise() {
        let bytes = [&[0; 4][..], &[7, b'a', b'"', 3, LOWER_INCLUSIVE]].concat();
        assert_eq!(range(&bytes, &text_type(), &mut text).as_deref(), Some(r#"["a""","")"#));
        let bytes = [&[0; 4][..], &[9, b'[', b'a', b']', 5, b'b', 0]].concat();
        assert_eq!(range(&bytes, &text_type(), &mut text).as_deref(), Some(r#"("[a]",b)"#));
    }

    #[test]
    fn multiranges() {
        let ranges = |count: i32, offsets: &[i32], flags: &[u8], bounds: &[i32]| {
            let mut bytes = [numbers(&[4451, count]), numbers(offsets), flags.to_vec()].concat();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(numbers(bounds));
            multirange(&bytes, &int4(), &mut number)
        };
        assert_eq!(ranges(0, &[], &[], &[]).as_deref(), Some("{}"));
        assert_eq!(ranges(1, &[], &[LOWER_INCLUSIVE], &[1, 5]).as_deref(), Some("{[1,5)}"));
        let flags = [LOWER_INFINITE, LOWER_INCLUSIVE, LOWER_INCLUSIVE | UPPER_INFINITE];
        assert_eq!(ranges(3, &[4, 8], &flags, &[1, 3, 5, 9]).as_deref(), Some("{(,1),[3,5),[9,)}"));
        assert_eq!(ranges(3, &[4, 8], &flags, &[1, 3, 5]), None);
        assert_eq!(ranges(-1, &[], &[], &[]), None);
    }
}
