//! Values of composite types as text (`htup_details.h`, `record_out` in `rowtypes.c`). They are stored as rows are; where a row
//! has its transactions, they have the type modifier and the type.

use super::fetch::Datum;
use super::tuple::{Tuple, deform};
use crate::lost::bytes::{bytes_at, u16_at};
use crate::lost::types::Attribute;

/// Where the fields of the row's header are, without the 4 bytes of the length, which are not here.
const INFOMASK2: usize = 14;
const INFOMASK: usize = 16;
const HEADER_LENGTH: usize = 18;
const BODY: usize = 19;

/// A row with these columns, with what prints the value of one of them.
pub(super) fn composite(
    bytes: &[u8],
    columns: &[Attribute],
    print: &mut dyn FnMut(&Datum<'_>, &Attribute) -> Option<String>,
) -> Option<String> {
    let [header_length] = bytes_at(bytes, HEADER_LENGTH)?;
    let tuple = Tuple {
        infomask2: u16_at(bytes, INFOMASK2)?,
        infomask: u16_at(bytes, INFOMASK)?,
        header_length,
        body: bytes.get(BODY..)?,
    };
    let mut text = String::from("(");
    let values = deform(&tuple, columns);
    let columns = values.iter().zip(columns).filter(|(_, column)| !column.is_dropped);
    for (index, (value, column)) in columns.enumerate() {
        if index > 0 {
            text.push(',');
        }
        if *value != Datum::Null {
            quote(&print(value, column)?, "(),", &mut text);
        }
    }
    text.push(')');
    Some(text)
}

/// Appends a part of a row or of a range. It is quoted if it is empty or has one of these characters, a quote, a backslash or
/// space in it; quotes and backslashes are doubled.
pub(super) fn quote(value: &str, special: &str, text: &mut String) {
    let is_space = |c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}');
    let is_special = |c: char| matches!(c, '"' | '\\') || special.contains(c) || is_space(c);
    let mark = if value.is_empty() || value.contains(is_special) { "\"" } else { "" };
    text.push_str(mark);
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            text.push(c);
        }
        text.push(c);
    }
    text.push_str(mark);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Attribute> {
        let text = |number| Attribute { number, length: -1, align: b'i', ..Attribute::default() };
        (1..=4).map(text).collect()
    }

    fn print(bytes: &[u8], columns: &[Attribute]) -> Option<String> {
        composite(bytes, columns, &mut |value, _| match value {
            Datum::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        })
    }

    /// With a bitmap and short headers.
    fn stored(bitmap: u8, values: &[&str]) -> Vec<u8> {
        let header = [&[0; INFOMASK2][..], &[4, 0, 1, 0, 24, bitmap]].concat();
        let values = values.iter().flat_map(|value| {
            let header = (value.len() as u8 + 1) << 1 | 1;
            [header].into_iter().chain(value.bytes())
        });
        header.into_iter().chain(values).collect()
    }

    #[test]
    fn null_is_nothing_and_empty_is_quoted() {
        assert_eq!(print(&stored(0b1101, &["a", "", "ä"]), &columns()).as_deref(), Some(r#"(a,,"",ä)"#));
        assert_eq!(print(&stored(0, &[]), &columns()).as_deref(), Some("(,,,)"));
        let bytes = stored(0b1111, &["a b", "x,y", "\"\\", "(z)"]);
        assert_eq!(print(&bytes, &columns()).as_deref(), Some(r#"("a b","x,y","""\\","(z)")"#));
        for length in 0..bytes.len() {
            assert_eq!(print(&bytes[..length], &columns()), None);
        }
    }

    #[test]
    fn dropped_columns_are_not_there() {
        let mut columns = columns();
        columns[1].is_dropped = true;
        assert_eq!(print(&stored(0b1111, &["a", "b", "c", "d"]), &columns).as_deref(), Some("(a,c,d)"));
    }
}
