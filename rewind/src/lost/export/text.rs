//! Small texts that several exports need.

use std::fmt::Write;

use jiff::Timestamp;

/// A time as ISO 8601 in UTC, with microseconds: `2026-11-29T16:53:48.123456Z`.
pub(crate) fn iso(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The same text on one line and without anything that a terminal acts on: control characters, and characters that
/// change the direction of writing, are written as `\u{a}`.
pub(crate) fn one_line(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts(c) {
            let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line
}

/// Bytes as PostgreSQL prints a `bytea`: `\x` and two digits for each.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// A number with its noun: `1 row`, `2 rows`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_whatever_they_are() {
        let text = |microseconds| iso(Timestamp::from_microsecond(microseconds).unwrap());
        assert_eq!(text(1_796_000_000_123_456), "2026-11-30T00:53:20.123456Z");
        assert_eq!(text(1_796_000_000_000_000), "2026-11-30T00:53:20.000000Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_name_cannot_act_on_a_terminal() {
        assert_eq!(one_line("café 表"), "café 表");
        assert_eq!(one_line("a\n\u{1b}[2J\u{202e}b"), "a\\u{a}\\u{1b}[2J\\u{202e}b");
    }

    #[test]
    fn bytes_are_printed_as_the_server_does() {
        assert_eq!(hex(&[0, 0x7f, 0xff]), "\\x007fff");
        assert_eq!(hex(&[]), "\\x");
        assert_eq!((counted(1, "row"), counted(0, "row")), ("1 row".into(), "0 rows".into()));
    }
}
