//! The value of a column as the server prints it, by its type.

use std::cell::Cell;

use super::arrays::{array, element_type};
use super::built_in::{Form, form};
use super::composite::composite;
use super::encoding::Encoding;
use super::fetch::Datum;
use super::ranges::{multirange, range};
use crate::lost::bytes::{most_text, u32_at};
use crate::lost::model::LostValue;
use crate::lost::types::{Attribute, Type, Types};

/// How deeply types may be nested. No type contains itself, but damaged catalogs may say so.
const DEEPEST: usize = 32;

/// A value as the server prints it. Bytes if its type is not known here, if they are no value of it, or no text in the
/// database's encoding. A value that is stored outside of the row is unknown: give the value of its chunks. No output
/// function looks at the type modifier.
pub(crate) fn text(datum: &Datum<'_>, type_oid: u32, _type_modifier: i32, types: &dyn Types) -> LostValue {
    let bytes = match datum {
        Datum::Null => return LostValue::Null,
        Datum::Missing | Datum::External(_) => return LostValue::Unknown,
        Datum::Bytes(bytes) => bytes,
    };
    let encoding = Encoding::named(types.encoding());
    let printer = Printer { types, encoding, unused: Cell::new(most_text(bytes.len())) };
    match printer.value(bytes, type_oid, 0) {
        Some(text) => LostValue::Text(text),
        None => LostValue::Bytes(bytes.to_vec()),
    }
}

struct Printer<'t> {
    types: &'t dyn Types,
    encoding: Encoding,
    /// How much text may be made still. Each level of quoting may double it.
    unused: Cell<usize>,
}

impl Printer<'_> {
    fn value(&self, bytes: &[u8], type_oid: u32, depth: usize) -> Option<String> {
        if depth > DEEPEST {
            return None;
        }
        let text = match form(type_oid) {
            Some(Form::Plain(print)) => print(bytes),
            Some(Form::ByVersion(print)) => print(bytes, self.types.server_version_num()),
            Some(Form::Encoded(print)) => print(bytes, self.encoding),
            None => self.by_kind(bytes, self.types.get(type_oid)?, depth),
        }?;
        self.unused.set(self.unused.get().checked_sub(text.len())?);
        Some(text)
    }

    fn by_kind(&self, bytes: &[u8], of: &Type, depth: usize) -> Option<String> {
        match of.kind {
            b'd' => self.value(bytes, of.base, depth + 1),
            b'e' => self.types.enum_label(u32_at(bytes, 0)?).map(str::to_owned),
            b'c' => {
                let columns = self.types.columns(of.relation)?;
                composite(bytes, columns, &mut |value, column: &Attribute| {
                    self.inner(value, column.type_oid, depth)
                })
            }
            b'r' | b'm' => {
                let subtype = self.types.get(self.types.range_subtype(of.oid)?)?;
                let print = if of.kind == b'r' { range } else { multirange };
                print(bytes, subtype, &mut |value| self.inner(value, subtype.oid, depth))
            }
            b'b' if of.length == -1 && of.element != 0 => {
                let element = self.types.get(element_type(bytes)?)?;
                array(bytes, element, &mut |value| self.inner(value, element.oid, depth))
            }
            _ => None,
        }
    }

    /// A value inside of another.
    fn inner(&self, value: &Datum<'_>, type_oid: u32, depth: usize) -> Option<String> {
        match value {
            Datum::Bytes(bytes) => self.value(bytes, type_oid, depth + 1),
            Datum::Null | Datum::External(_) | Datum::Missing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const INT4: u32 = 23;
    const TEXT: u32 = 25;
    const INT4_ARRAY: u32 = 1007;
    const INT4_RANGE: u32 = 3904;
    const INT4_MULTIRANGE: u32 = 4451;
    const DOMAIN: u32 = 20_000;
    const ENUM: u32 = 20_001;
    const COMPOSITE: u32 = 20_002;
    const COMPOSITE_ARRAY: u32 = 20_003;
    const ENDLESS: u32 = 20_004;
    const EXTENSION: u32 = 20_005;
    const RELATION: u32 = 30_000;
    const ENDLESS_RELATION: u32 = 30_001;

    struct Catalog {
        types: Vec<Type>,
        columns: Vec<Attribute>,
        endless: Vec<Attribute>,
    }

    fn of(oid: u32, kind: u8, length: i16) -> Type {
        Type { oid, kind, length, align: b'i', delimiter: b',', ..Type::default() }
    }

    fn catalog() -> Catalog {
        let column = |number, type_oid, length| Attribute {
            number,
            type_oid,
            length,
            align: b'i',
            ..Attribute::default()
        };
        Catalog {
            types: vec![
                of(INT4, b'b', 4),
                of(TEXT, b'b', -1),
                Type { element: INT4, ..of(INT4_ARRAY, b'b', -1) },
                of(INT4_RANGE, b'r', -1),
                of(INT4_MULTIRANGE, b'm', -1),
                Type { base: INT4_ARRAY, ..of(DOMAIN, b'd', -1) },
                of(ENUM, b'e', 4),
                Type { relation: RELATION, align: b'd', ..of(COMPOSITE, b'c', -1) },
                Type { element: COMPOSITE, align: b'd', ..of(COMPOSITE_ARRAY, b'b', -1) },
                Type { relation: ENDLESS_RELATION, ..of(ENDLESS, b'c', -1) },
                of(EXTENSION, b'b', -1),
            ],
            columns: vec![column(1, ENUM, 4), column(2, TEXT, -1)],
            endless: vec![column(1, ENDLESS, -1)],
        }
    }

    impl Types for Catalog {
        fn get(&self, oid: u32) -> Option<&Type> {
            self.types.iter().find(|found| found.oid == oid)
        }

        fn enum_label(&self, oid: u32) -> Option<&str> {
            (oid == 7).then_some("seven")
        }

        fn range_subtype(&self, oid: u32) -> Option<u32> {
            matches!(oid, INT4_RANGE | INT4_MULTIRANGE).then_some(INT4)
        }

        fn columns(&self, relation: u32) -> Option<&[Attribute]> {
            match relation {
                RELATION => Some(&self.columns),
                ENDLESS_RELATION => Some(&self.endless),
                _ => None,
            }
        }

        fn encoding(&self) -> &str {
            "LATIN1"
        }

        fn server_version_num(&self) -> u32 {
            150_000
        }
    }

    fn print(type_oid: u32, bytes: &[u8]) -> LostValue {
        text(&Datum::Bytes(Cow::Borrowed(bytes)), type_oid, -1, &catalog())
    }

    fn is(text: &str) -> LostValue {
        LostValue::Text(text.to_owned())
    }

    fn numbers(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// A row of one byte of bitmap, with the header of a varlena.
    fn row(columns: u16, values: &[u8]) -> Vec<u8> {
        let header = [&[0; 14][..], &columns.to_le_bytes(), &[1, 0, 24, 0xff], values].concat();
        [((header.len() as u32 + 4) << 2).to_le_bytes().to_vec(), header].concat()
    }

    #[test]
    fn what_has_no_bytes() {
        assert_eq!(text(&Datum::Null, TEXT, -1, &catalog()), LostValue::Null);
        assert_eq!(text(&Datum::Missing, TEXT, -1, &catalog()), LostValue::Unknown);
    }

    #[test]
    fn types_of_all_kinds() {
        assert_eq!(print(INT4, &numbers(&[5])), is("5"));
        assert_eq!(print(TEXT, b"\xe4"), is("ä"));
        let array = numbers(&[1, 0, INT4, 2, 1, 5, 6]);
        assert_eq!(print(INT4_ARRAY, &array), is("{5,6}"));
        assert_eq!(print(DOMAIN, &array), is("{5,6}"));
        assert_eq!(print(ENUM, &numbers(&[7])), is("seven"));
        assert_eq!(print(INT4_RANGE, &[&numbers(&[INT4_RANGE, 1, 5])[..], &[2]].concat()), is("[1,5)"));
        let ranges = [&numbers(&[INT4_MULTIRANGE, 1])[..], &[2, 0, 0, 0], &numbers(&[1, 5])].concat();
        assert_eq!(print(INT4_MULTIRANGE, &ranges), is("{[1,5)}"));
        let composite = row(2, &[7, 0, 0, 0, 7, b'a', b'"']);
        assert_eq!(print(COMPOSITE, &composite[4..]), is(r#"(seven,"a""")"#));
        let array = [numbers(&[1, 0, COMPOSITE, 1, 1]), composite].concat();
        assert_eq!(print(COMPOSITE_ARRAY, &array), is(r#"{"(seven,\"a\"\"\")"}"#));
    }

    #[test]
    fn what_is_not_understood_stays_bytes() {
        let bytes =
            |type_oid, bytes: &[u8]| assert_eq!(print(type_oid, bytes), LostValue::Bytes(bytes.to_vec()));
        bytes(EXTENSION, b"abc");
        bytes(99_999, b"abc");
        bytes(INT4, b"abc");
        bytes(TEXT, b"a\0");
        bytes(ENUM, &numbers(&[8]));
        bytes(INT4_ARRAY, &numbers(&[1, 0, 99_999, 1, 1, 5]));
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let mut value = row(0, &[]);
        for _ in 0..40 {
            value = row(1, &value);
        }
        assert!(matches!(print(ENDLESS, &value[4..]), LostValue::Bytes(_)));
    }
}
