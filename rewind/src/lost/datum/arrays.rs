//! Arrays as text (`array.h`, `array_out` in `arrayfuncs.c`).
//!
//! ```text
//! i32 number of dimensions, i32 offset of the elements, u32 type of the elements
//! i32 size of each dimension, i32 lower bound of each
//! a bit for each element, 0 for NULL, if the offset is not zero
//! the elements, each aligned
//! ```
//!
//! The offset counts the 4 bytes of the length, which are not here. Without a bitmap the elements start at a multiple of 8.

use super::fetch::{Datum, fetch};
use crate::lost::bytes::{aligned, count_at, i32_at, u32_at};
use crate::lost::types::Type;

/// The bytes of the header that are not here.
const LENGTH: usize = 4;
const MOST_DIMENSIONS: usize = 6;

/// The OID of the elements' type.
pub(super) fn element_type(bytes: &[u8]) -> Option<u32> {
    u32_at(bytes, 8)
}

/// An array of elements of this type, with what prints one of them.
pub(super) fn array(
    bytes: &[u8],
    element: &Type,
    print: &mut dyn FnMut(&Datum<'_>) -> Option<String>,
) -> Option<String> {
    let shape = Shape::read(bytes)?;
    let count = shape.count(bytes.len())?;
    if count == 0 {
        return Some("{}".to_owned());
    }
    let delimiter = char::from(element.delimiter);
    let mut text = shape.bounds();
    let mut at = 0;
    for index in 0..count {
        if index > 0 {
            text.push(delimiter);
        }
        text.push_str(&"{".repeat(shape.braces(index)));
        if shape.is_null(index)? {
            text.push_str("NULL");
        } else {
            let (value, end) =
                fetch(shape.elements, aligned(at, element.align)?, element.length, element.align)?;
            quote(&print(&value)?, delimiter, &mut text);
            at = end;
        }
        text.push_str(&"}".repeat(shape.braces(index + 1)));
    }
    Some(text)
}

struct Shape<'a> {
    /// The size and the lower bound of each dimension.
    dimensions: Vec<(usize, i32)>,
    nulls: Option<&'a [u8]>,
    elements: &'a [u8],
}

impl<'a> Shape<'a> {
    fn read(bytes: &'a [u8]) -> Option<Shape<'a>> {
        let (count, offset) = (count_at(bytes, 0)?, count_at(bytes, 4)?);
        if count > MOST_DIMENSIONS {
            return None;
        }
        let dimension =
            |index| Some((count_at(bytes, 12 + 4 * index)?, i32_at(bytes, 12 + 4 * (count + index))?));
        let dimensions = (0..count).map(dimension).collect::<Option<_>>()?;
        let header = 12 + 8 * count;
        let start = match offset {
            0 => aligned(header + LENGTH, b'd')?,
            offset => offset,
        };
        let start = start.checked_sub(LENGTH)?;
        let nulls = if offset == 0 { None } else { Some(bytes.get(header..start)?) };
        // Of an array without elements nothing follows the header.
        Some(Shape { dimensions, nulls, elements: bytes.get(start..).unwrap_or_default() })
    }

    /// The number of elements. Of `length` bytes there cannot be more: a NULL takes one bit.
    fn count(&self, length: usize) -> Option<usize> {
        let sizes = self.dimensions.iter().map(|(size, _)| *size);
        let count = sizes.clone().try_fold(1, usize::checked_mul)?;
        let count = if self.dimensions.is_empty() { 0 } else { count };
        (count <= length.saturating_mul(8)).then_some(count)
    }

    fn is_null(&self, index: usize) -> Option<bool> {
        match self.nulls {
            Some(bitmap) => Some(bitmap.get(index / 8)? >> (index % 8) & 1 == 0),
            None => Some(false),
        }
    }

    /// The bounds are printed if one of the lower ones is not 1.
    fn bounds(&self) -> String {
        if self.dimensions.iter().all(|(_, lower)| *lower == 1) {
            return String::new();
        }
        let bounds = self.dimensions.iter().map(|(size, lower)| {
            let lower = i64::from(*lower);
            format!("[{lower}:{}]", lower + *size as i64 - 1)
        });
        bounds.collect::<String>() + "="
    }

    /// How many braces open before an element, or close behind the one before it.
    fn braces(&self, index: usize) -> usize {
        let sizes = self.dimensions.iter().rev().scan(1, |product: &mut usize, (size, _)| {
            *product = product.checked_mul(*size)?;
            Some(*product)
        });
        sizes.take_while(|size| *size != 0 && index.is_multiple_of(*size)).count()
    }
}

fn quote(value: &str, delimiter: char, text: &mut String) {
    let is_special = |c: char| matches!(c, '"' | '\\' | '{' | '}') || c == delimiter || is_space(c);
    if !value.is_empty() && !value.eq_ignore_ascii_case("NULL") && !value.contains(is_special) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_type() -> Type {
        Type { oid: 25, length: -1, align: b'i', delimiter: b',', ..Type::default() }
    }

    fn print(bytes: &[u8], element: &Type) -> Option<String> {
        array(bytes, element, &mut |value| match value {
            Datum::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        })
    }

    /// An array with this header.
    fn stored(header: &[i32], bitmap: &[u8], elements: &[&str]) -> Vec<u8> {
        let mut bytes: Vec<u8> = header.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend(bitmap);
        // The offset of elements is that in the value with its length.
        bytes.resize((bytes.len() + LENGTH).next_multiple_of(8) - LENGTH, 0);
        for element in elements {
            bytes.resize((bytes.len() + LENGTH).next_multiple_of(4) - LENGTH, 0);
            bytes.extend((4 * (element.len() as u32 + 4)).to_le_bytes());
            bytes.extend(element.bytes());
        }
        bytes
    }

    #[test]
    fn elements_are_quoted_if_they_would_be_read_otherwise() {
        let elements = ["a", "", "null", "a b", "x,y", "x;y", "\"\\", "{}", "ä"];
        let bytes = stored(&[1, 0, 25, 9, 1], &[], &elements);
        let text = r#"{a,"","null","a b","x,y",x;y,"\"\\","{}",ä}"#;
        assert_eq!(print(&bytes, &text_type()).as_deref(), Some(text));
        assert_eq!(element_type(&bytes), Some(25));
        for length in 0..bytes.len() {
            assert_eq!(print(&bytes[..length], &text_type()), None);
        }
        let boxes = Type { delimiter: b';', ..text_type() };
        let text = r#"{a;"";"null";"a b";x,y;"x;y";"\"\\";"{}";ä}"#;
        assert_eq!(print(&bytes, &boxes).as_deref(), Some(text));
    }

    #[test]
    fn dimensions_have_braces_and_bounds() {
        let elements = ["a", "b", "c", "d", "e", "f"];
        let print = |header: &[i32]| print(&stored(header, &[], &elements), &text_type());
        assert_eq!(print(&[2, 0, 25, 2, 3, 1, 1]).as_deref(), Some("{{a,b,c},{d,e,f}}"));
        assert_eq!(print(&[3, 0, 25, 3, 1, 2, 1, 1, 1]).as_deref(), Some("{{{a,b}},{{c,d}},{{e,f}}}"));
        assert_eq!(print(&[1, 0, 25, 2, -1]).as_deref(), Some("[-1:0]={a,b}"));
        assert_eq!(print(&[2, 0, 25, 1, 2, 1, 5]).as_deref(), Some("[1:1][5:6]={{a,b}}"));
        assert_eq!(print(&[0, 0, 25]).as_deref(), Some("{}"));
        assert_eq!(print(&[7, 0, 25, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), None);
        assert_eq!(print(&[2, 0, 25, i32::MAX, i32::MAX, 1, 1]), None);
        assert_eq!(print(&[1, 0, 25, -1, 1]), None);
    }

    #[test]
    fn nulls_are_in_a_bitmap() {
        let bytes = stored(&[1, 32, 25, 3, 1], &[0b101], &["a", "NULL"]);
        assert_eq!(print(&bytes, &text_type()).as_deref(), Some(r#"{a,NULL,"NULL"}"#));
        let empty = [0i32, 0, 25].map(i32::to_le_bytes).concat();
        assert_eq!(print(&empty, &text_type()).as_deref(), Some("{}"));
    }
}
