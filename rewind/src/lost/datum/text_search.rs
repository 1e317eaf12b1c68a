//! `tsvector` and `tsquery` as text (`ts_type.h`, `tsvector.c`, `tsquery.c`).

use std::fmt::Write;

use super::encoding::Encoding;
use crate::lost::bytes::{bytes_at, count_at, i16_at, most_text, u16_at, u32_at};

/// The weight D of a position, the lowest one, is not printed.
const WEIGHTS: [&str; 4] = ["", "C", "B", "A"];

/// i32 number of lexemes, for each u32 (from the lowest bit on: has it positions, 11 bits of length, 20 bits of offset), then
/// the lexemes. Behind a lexeme, aligned to 2: u16 number of positions, u16 for each (14 bits of position, 2 bits of weight).
pub(super) fn tsvector(bytes: &[u8], encoding: Encoding) -> Option<String> {
    let count = count_at(bytes, 0)?.checked_mul(4)?;
    let (entries, stored) = bytes.get(4..)?.split_at_checked(count)?;
    let mut text = String::new();
    for entry in entries.chunks_exact(4) {
        let entry = u32_at(entry, 0)?;
        let (length, offset) = ((entry >> 1 & 0x7ff) as usize, (entry >> 12) as usize);
        let end = offset + length;
        if !text.is_empty() {
            text.push(' ');
        }
        quote(stored.get(offset..end)?, encoding, &mut text)?;
        if entry & 1 == 1 {
            positions(stored.get(end.next_multiple_of(2)..)?, &mut text)?;
        }
        // Offsets of damaged values may all lead to the same long list.
        if text.len() > most_text(bytes.len()) {
            return None;
        }
    }
    Some(text)
}

fn positions(stored: &[u8], text: &mut String) -> Option<()> {
    let count = usize::from(u16_at(stored, 0)?);
    for (index, pair) in stored.get(2..)?.get(..2 * count)?.chunks_exact(2).enumerate() {
        let position = u16_at(pair, 0)?;
        let separator = if index == 0 { ':' } else { ',' };
        let weight = WEIGHTS.get(usize::from(position >> 14)).copied().unwrap_or_default();
        write!(text, "{separator}{}{weight}", position & 0x3fff).ok()?;
    }
    Some(())
}

fn quote(lexeme: &[u8], encoding: Encoding, text: &mut String) -> Option<()> {
    text.push('\'');
    for c in encoding.decode(lexeme)?.chars() {
        if matches!(c, '\'' | '\\') {
            text.push(c);
        }
        text.push(c);
    }
    text.push('\'');
    Some(())
}

/// The bytes of an item of a query.
const ITEM: usize = 12;
/// The types of items.
const OPERAND: u8 = 1;
const OPERATOR: u8 = 2;
/// Operators.
const NOT: u8 = 1;
const AND: u8 = 2;
const OR: u8 = 3;
const PHRASE: u8 = 4;
/// How tightly `!` binds: more than all others.
const TIGHTEST: u8 = 4;

/// i32 number of items, the items, then their lexemes, each with a NUL behind it. An operator stands before its operands, of
/// which the right one is the first.
pub(super) fn tsquery(bytes: &[u8], encoding: Encoding) -> Option<String> {
    let count = count_at(bytes, 0)?;
    let (items, lexemes) = bytes.get(4..)?.split_at_checked(count.checked_mul(ITEM)?)?;
    let whole = Todo::Item(Place { index: 0, outer: 0, is_right_of_phrase: false });
    let todo = if count > 0 { vec![whole] } else { Vec::new() };
    let mut query = Query { items, lexemes, encoding, text: String::new(), todo };
    // Each item belongs to one operator: damage that makes it belong to several is found by counting.
    let mut unprinted = count;
    while let Some(next) = query.todo.pop() {
        match next {
            Todo::Text(part) => query.text.push_str(part),
            Todo::Distance(distance) => write!(query.text, " <{distance}> ").ok()?,
            Todo::Item(place) => {
                unprinted = unprinted.checked_sub(1)?;
                query.item(place)?;
            }
        }
        if query.text.len() > most_text(bytes.len()) {
            return None;
        }
    }
    Some(query.text)
}

/// A query of which a part is printed. Without recursion: an intact one may be nested deeply.
struct Query<'a> {
    items: &'a [u8],
    lexemes: &'a [u8],
    encoding: Encoding,
    text: String,
    /// What follows, the next one last.
    todo: Vec<Todo>,
}

enum Todo {
    Item(Place),
    Text(&'static str),
    Distance(i16),
}

/// An item and what is around it.
struct Place {
    index: usize,
    /// How tightly the operator around it binds.
    outer: u8,
    /// That is `<->`, and it is its right operand.
    is_right_of_phrase: bool,
}

impl Query<'_> {
    fn item(&mut self, place: Place) -> Option<()> {
        let item = self.items.get(place.index.checked_mul(ITEM)?..)?;
        match bytes_at(item, 0)? {
            [OPERAND, weights, is_prefix] => {
                let number = u32_at(item, 8)?;
                let (length, offset) = ((number & 0xfff) as usize, (number >> 12) as usize);
                quote(self.lexemes.get(offset..offset + length)?, self.encoding, &mut self.text)?;
                self.marks(weights, is_prefix != 0);
            }
            [OPERATOR, NOT, _] => {
                self.text.push('!');
                let operand = Place { index: place.index + 1, outer: TIGHTEST, is_right_of_phrase: false };
                self.todo.push(Todo::Item(operand));
            }
            [OPERATOR, operator, _] => self.operation(operator, i16_at(item, 2)?, u32_at(item, 4)?, place)?,
            _ => return None,
        }
        Some(())
    }

    /// Behind an operand: whether it is a prefix, and the weights that it is looked for with.
    fn marks(&mut self, weights: u8, is_prefix: bool) {
        if weights != 0 || is_prefix {
            self.text.push(':');
        }
        if is_prefix {
            self.text.push('*');
        }
        let of_bit = [(8, 'A'), (4, 'B'), (2, 'C'), (1, 'D')];
        self.text.extend(of_bit.iter().filter(|(bit, _)| weights & bit != 0).map(|(_, name)| name));
    }

    fn operation(&mut self, operator: u8, distance: i16, left: u32, place: Place) -> Option<()> {
        let (outer, sign) = match operator {
            OR => (1, Todo::Text(" | ")),
            AND => (2, Todo::Text(" & ")),
            PHRASE if distance == 1 => (3, Todo::Text(" <-> ")),
            PHRASE => (3, Todo::Distance(distance)),
            _ => return None,
        };
        let is_phrase = operator == PHRASE;
        if outer < place.outer || is_phrase && place.is_right_of_phrase {
            self.text.push_str("( ");
            self.todo.push(Todo::Text(" )"));
        }
        let left = place.index.checked_add(usize::try_from(left).ok()?)?;
        self.todo.extend([
            Todo::Item(Place { index: place.index + 1, outer, is_right_of_phrase: is_phrase }),
            sign,
            Todo::Item(Place { index: left, outer, is_right_of_phrase: false }),
        ]);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lexemes with their positions; each of these is a position and a weight.
    fn vector(lexemes: &[(&str, &[(u16, u16)])]) -> Vec<u8> {
        let (mut entries, mut stored) = (Vec::new(), Vec::new());
        for (lexeme, positions) in lexemes {
            let (offset, has_positions) = (stored.len() as u32, u32::from(!positions.is_empty()));
            entries.extend((has_positions | (lexeme.len() as u32) << 1 | offset << 12).to_le_bytes());
            stored.extend(lexeme.bytes());
            if !positions.is_empty() {
                stored.resize(stored.len().next_multiple_of(2), 0);
                stored.extend((positions.len() as u16).to_le_bytes());
                let numbers = positions.iter().map(|(position, weight)| position | weight << 14);
                stored.extend(numbers.flat_map(u16::to_le_bytes));
            }
        }
        [(lexemes.len() as u32).to_le_bytes().to_vec(), entries, stored].concat()
    }

    #[test]
    fn vectors_have_positions_and_weights() {
        let bytes = vector(&[("a", &[(1, 0), (3, 3)]), ("b'\\", &[]), ("çd", &[(16383, 1)])]);
        let text = r"'a':1,3A 'b''\\' 'çd':16383C";
        assert_eq!(tsvector(&bytes, Encoding::Utf8).as_deref(), Some(text));
        assert_eq!(tsvector(&[0; 4], Encoding::Utf8).as_deref(), Some(""));
        for length in 0..bytes.len() {
            assert_eq!(tsvector(&bytes[..length], Encoding::Utf8), None, "{length}");
        }
    }

    #[test]
    fn of_offsets_that_all_lead_to_one_list_the_text_is_limited() {
        let entries = [1, 0, 0, 0].repeat(1000);
        let bytes = [1000u32.to_le_bytes().to_vec(), entries, vec![0xff; 2 + 2 * 0xffff]].concat();
        assert_eq!(tsvector(&bytes, Encoding::Utf8), None);
    }

    fn operand(weights: u8, is_prefix: u8, length: u32, offset: u32) -> Vec<u8> {
        let number = (length | offset << 12).to_le_bytes();
        [&[OPERAND, weights, is_prefix, 0, 0, 0, 0, 0], &number[..]].concat()
    }

    fn operator(operator: u8, distance: u8, left: u8) -> Vec<u8> {
        vec![OPERATOR, operator, distance, 0, left, 0, 0, 0, 0, 0, 0, 0]
    }

    fn query(items: &[Vec<u8>], lexemes: &[u8]) -> Option<String> {
        let bytes = [&(items.len() as u32).to_le_bytes(), &items.concat()[..], lexemes].concat();
        tsquery(&bytes, Encoding::Utf8)
    }

    #[test]
    fn queries_have_brackets_where_they_need_them() {
        let [a, b, c] = [0, 2, 4].map(|offset| operand(0, 0, 1, offset));
        let not = operator(NOT, 0, 0);
        let and = |left| operator(AND, 0, left);
        let or = |left| operator(OR, 0, left);
        let phrase = |distance, left| operator(PHRASE, distance, left);
        for (items, text) in [
            (vec![], ""),
            (vec![&a], "'a'"),
            (vec![&and(2), &b, &a], "'a' & 'b'"),
            (vec![&and(4), &or(2), &c, &b, &a], "'a' & ( 'b' | 'c' )"),
            (vec![&or(2), &c, &and(2), &b, &a], "'a' & 'b' | 'c'"),
            (vec![&not, &and(2), &b, &not, &a], "!( !'a' & 'b' )"),
            (vec![&phrase(1, 4), &phrase(1, 2), &c, &b, &a], "'a' <-> ( 'b' <-> 'c' )"),
            (vec![&phrase(1, 2), &c, &phrase(7, 2), &b, &a], "'a' <7> 'b' <-> 'c'"),
        ] {
            let items: Vec<Vec<u8>> = items.into_iter().cloned().collect();
            assert_eq!(query(&items, b"a\0b\0c\0").as_deref(), Some(text));
        }
    }

    #[test]
    fn operands_have_weights_and_may_be_prefixes() {
        assert_eq!(query(&[operand(0b1011, 1, 2, 0)], b"a'\0").as_deref(), Some("'a''':*ACD"));
        assert_eq!(query(&[operand(0, 1, 1, 0)], b"a\0").as_deref(), Some("'a':*"));
    }

    #[test]
    fn damage_is_no_text() {
        let a = operand(0, 0, 1, 0);
        assert_eq!(query(&[operator(AND, 0, 1), a.clone()], b"a\0"), None);
        assert_eq!(query(&[operator(NOT, 0, 0)], b""), None);
        assert_eq!(query(&[operator(9, 0, 1), a.clone()], b"a\0"), None);
        assert_eq!(query(&[operand(0, 0, 9, 0)], b"a\0"), None);
        // Both operands of each operator are the next item: the text would be endless.
        let mut many = vec![operator(AND, 0, 1); 100];
        many.push(a);
        assert_eq!(query(&many, b"a\0"), None);
    }
}
