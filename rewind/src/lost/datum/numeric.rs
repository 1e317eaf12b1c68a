//! `numeric` as text (`numeric.c`).
//!
//! ```text
//! u16 header: 10 sign(1) scale(6) weight(7)      short form
//!             0 sign(1) scale(14), i16 weight    long form
//!             11xx                               not a number, infinities
//! i16 digits in base 10000, without zeros at the ends; the weight is the power of the first one
//! ```

use std::fmt::Write;

use crate::lost::bytes::{i16_at, u16_at};

const FORM: u16 = 0xc000;
const SHORT: u16 = 0x8000;
const SPECIAL: u16 = 0xc000;
const NEGATIVE: u16 = 0x4000;
const SHORT_NEGATIVE: u16 = 0x2000;
/// The decimal digits in one digit of base 10000.
const DECIMALS: usize = 4;

/// What the header says.
struct Header {
    is_negative: bool,
    /// How many decimals are shown.
    scale: usize,
    /// The power of 10000 of the first digit.
    weight: i32,
    /// Where the digits start.
    length: usize,
}

pub(super) fn numeric(bytes: &[u8]) -> Option<String> {
    let first = u16_at(bytes, 0)?;
    if first & FORM == SPECIAL {
        return special(first);
    }
    let header = Header::read(first, bytes)?;
    let stored = bytes.get(header.length..)?;
    if !stored.len().is_multiple_of(2) {
        return None;
    }
    let digits: Vec<i16> = stored
        .chunks_exact(2)
        .map(|pair| i16_at(pair, 0).filter(|digit| (0..10_000).contains(digit)))
        .collect::<Option<_>>()?;
    Some(print(&header, &digits))
}

impl Header {
    fn read(first: u16, bytes: &[u8]) -> Option<Header> {
        if first & FORM == SHORT {
            // The weight has a sign: shifting it up and back extends that.
            let weight = ((first as i16) << 9) >> 9;
            let scale = usize::from(first >> 7 & 0x3f);
            let is_negative = first & SHORT_NEGATIVE != 0;
            return Some(Header { is_negative, scale, weight: weight.into(), length: 2 });
        }
        let weight = i16_at(bytes, 2)?.into();
        Some(Header {
            is_negative: first & FORM == NEGATIVE,
            scale: usize::from(first & !FORM),
            weight,
            length: 4,
        })
    }
}

/// Infinities exist from 14 on.
fn special(header: u16) -> Option<String> {
    let name = match header & 0xf000 {
        0xc000 => "NaN",
        0xd000 => "Infinity",
        0xf000 => "-Infinity",
        _ => return None,
    };
    Some(name.to_owned())
}

fn print(header: &Header, digits: &[i16]) -> String {
    // The digit with this power of 10000.
    let digit = |power: i32| {
        let index = usize::try_from(header.weight - power).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::from(if header.is_negative { "-" } else { "" });
    let _ = write!(text, "{}", digit(header.weight.max(0)));
    for power in (0..header.weight).rev() {
        let _ = write!(text, "{:04}", digit(power));
    }
    if header.scale > 0 {
        text.push('.');
        let end = text.len() + header.scale;
        for power in 1..=header.scale.div_ceil(DECIMALS) as i32 {
            let _ = write!(text, "{:04}", digit(-power));
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(numbers: &[i32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| (*number as u16).to_le_bytes()).collect()
    }

    fn short(is_negative: bool, scale: i32, weight: i32) -> i32 {
        0x8000 | i32::from(is_negative) << 13 | scale << 7 | weight & 0x7f
    }

    #[test]
    fn the_short_form() {
        for (numbers, text) in [
            (&[short(false, 0, 0)][..], "0"),
            (&[short(false, 2, 0)], "0.00"),
            (&[short(false, 0, 0), 1], "1"),
            (&[short(true, 2, 0), 12, 5000], "-12.50"),
            (&[short(false, 3, 1), 12, 34, 5670], "120034.567"),
            (&[short(false, 0, 2), 1], "100000000"),
            (&[short(false, 5, -1), 1], "0.00010"),
            (&[short(true, 8, -2), 1234], "-0.00001234"),
            (&[short(false, 1, 0), 7, 1000], "7.1"),
        ] {
            assert_eq!(numeric(&stored(numbers)).as_deref(), Some(text));
        }
    }

    #[test]
    fn the_long_form() {
        let whole = numeric(&stored(&[0, 300, 1])).unwrap();
        assert_eq!(whole, format!("1{}", "0".repeat(1200)));
        let small = numeric(&stored(&[0x4000 | 400, -100, 9])).unwrap();
        assert_eq!(small, format!("-0.{}9", "0".repeat(399)));
    }

    #[test]
    fn what_is_no_number() {
        for (header, text) in [(0xc000, "NaN"), (0xd000, "Infinity"), (0xf000, "-Infinity")] {
            assert_eq!(numeric(&stored(&[header])).as_deref(), Some(text));
        }
        for damaged in
            [&stored(&[0])[..], &[], &[1], &stored(&[short(false, 0, 0), 10_000])[..], &[0, 0x80, 1]]
        {
            assert_eq!(numeric(damaged), None, "{damaged:?}");
        }
    }
}
