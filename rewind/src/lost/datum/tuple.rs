//! The columns of a row (`htup_details.h`, `heaptuple.c`).

use std::borrow::Cow;

use super::fetch::{Datum, fetch};
use crate::lost::types::Attribute;

/// The bits of `t_infomask2` that count the columns.
const COLUMNS: u16 = 0x07ff;
/// The bit of `t_infomask` for rows with a bitmap of NULLs.
const HAS_NULLS: u16 = 0x0001;
/// The bytes of the header before the bitmap.
const FIXED_HEADER: usize = 23;

/// A row as it is stored, without the fields of its header that do not matter for its columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tuple<'a> {
    /// `t_infomask2`
    pub(crate) infomask2: u16,
    /// `t_infomask`
    pub(crate) infomask: u16,
    /// `t_hoff`: where the columns start.
    pub(crate) header_length: u8,
    /// What follows the first 23 bytes: the bitmap of NULLs, padding, up to 11 perhaps an OID, then the columns.
    pub(crate) body: &'a [u8],
}

impl Tuple<'_> {
    /// How many columns are stored.
    pub(crate) fn columns(&self) -> usize {
        usize::from(self.infomask2 & COLUMNS)
    }
}

/// The values of a row: one for each column, in the order of their numbers, dropped ones among them. `attributes` are all the
/// columns, numbered from 1 without gaps; behind a gap all values are missing.
pub(crate) fn deform<'a>(tuple: &Tuple<'a>, attributes: &[Attribute]) -> Vec<Datum<'a>> {
    let stored = tuple.columns();
    let has_nulls = tuple.infomask & HAS_NULLS != 0;
    let header = usize::from(tuple.header_length).checked_sub(FIXED_HEADER);
    let parts = header.and_then(|length| tuple.body.split_at_checked(length));
    let (bitmap, data) = parts.unwrap_or_default();
    // Where the next value starts, as long as that is known.
    let mut next = parts.is_some().then_some(0);
    let value = |(index, attribute): (usize, &Attribute)| {
        if usize::try_from(attribute.number) != Ok(index + 1) {
            next = None;
            return Datum::Missing;
        }
        if index >= stored {
            return absent(attribute);
        }
        if has_nulls {
            match bitmap.get(index / 8) {
                Some(byte) if byte >> (index % 8) & 1 == 0 => return Datum::Null,
                Some(_) => {}
                None => next = None,
            }
        }
        let fetched = next.and_then(|at| fetch(data, at, attribute.length, attribute.align));
        next = fetched.as_ref().map(|(_, end)| *end);
        fetched.map_or(Datum::Missing, |(datum, _)| datum)
    };
    attributes.iter().enumerate().map(value).collect()
}

/// The value of a column that was added after the row was written.
fn absent<'a>(attribute: &Attribute) -> Datum<'a> {
    let Some(missing) = &attribute.missing else { return Datum::Null };
    match fetch(missing, 0, attribute.length, attribute.align) {
        Some((Datum::Bytes(bytes), _)) => Datum::Bytes(Cow::Owned(bytes.into_owned())),
        _ => Datum::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(number: i16, length: i16, align: u8) -> Attribute {
        Attribute { number, length, align, ..Attribute::default() }
    }

    fn bytes(value: &[u8]) -> Datum<'_> {
        Datum::Bytes(Cow::Borrowed(value))
    }

    /// smallint, text, bigint, text.
    fn columns() -> Vec<Attribute> {
        vec![attribute(1, 2, b's'), attribute(2, -1, b'i'), attribute(3, 8, b'd'), attribute(4, -1, b'i')]
    }

    /// 5, `ab`, NULL, `c`, with a header of 24 bytes.
    const ROW: [u8; 8] = [0b1011, 5, 0, 7, b'a', b'b', 5, b'c'];

    fn row(infomask2: u16, body: &[u8]) -> Tuple<'_> {
        Tuple { infomask2, infomask: HAS_NULLS, header_length: 24, body }
    }

    #[test]
    fn columns_follow_one_another_without_those_that_are_null() {
        let expected = vec![bytes(&[5, 0]), bytes(b"ab"), Datum::Null, bytes(b"c")];
        assert_eq!(deform(&row(4, &ROW), &columns()), expected);
        // Other bits beside the number of columns.
        assert_eq!(deform(&row(4 | 0xc000, &ROW), &columns()), expected);
    }

    #[test]
    fn without_a_bitmap_all_columns_are_there() {
        let body = [0, 5, 0, 7, b'a', b'b', 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 3];
        let tuple = Tuple { infomask: 0x0900, ..row(4, &body) };
        let expected = vec![bytes(&[5, 0]), bytes(b"ab"), bytes(&[1, 2, 3, 4, 5, 6, 7, 8]), bytes(b"")];
        assert_eq!(deform(&tuple, &columns()), expected);
    }

    #[test]
    fn columns_that_are_newer_than_the_row_have_their_default_or_are_null() {
        let mut columns = columns();
        columns.push(Attribute { missing: Some(vec![24, 0, 0, 0, b'x', b'y']), ..attribute(5, -1, b'i') });
        columns.push(Attribute { missing: Some(vec![1, 0]), ..attribute(6, 4, b'i') });
        columns.push(attribute(7, 4, b'i'));
        let values = deform(&row(4, &ROW), &columns);
        assert_eq!(values[4..], [bytes(b"xy"), Datum::Missing, Datum::Null]);
    }

    #[test]
    fn of_a_damaged_row_the_rest_is_missing() {
        for length in 0..ROW.len() {
            let values = deform(&row(4, &ROW[..length]), &columns());
            let known = [length >= 3, length >= 6, length >= 1, false];
            assert_eq!(values.iter().map(|value| *value != Datum::Missing).collect::<Vec<_>>(), known);
        }
        // Lengths of the header that cannot be.
        for header_length in [0, 22, 255] {
            let tuple = Tuple { header_length, ..row(4, &ROW) };
            assert_eq!(deform(&tuple, &columns()), vec![Datum::Missing; 4]);
        }
        // A bitmap that does not fit in front of the columns.
        let many: Vec<Attribute> = (1..=9).map(|number| attribute(number, 1, b'c')).collect();
        assert_eq!(deform(&row(9, &[0, 1, 2]), &many)[7..], [Datum::Null, Datum::Missing]);
    }

    #[test]
    fn behind_a_column_that_is_not_known_nothing_is() {
        let mut columns = columns();
        columns.remove(1);
        assert_eq!(deform(&row(4, &ROW), &columns)[1..], vec![Datum::Missing; 2]);
    }
}
