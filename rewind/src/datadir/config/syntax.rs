//! The grammar of the server's configuration files (guc-file.l), which is also that of `recovery.conf`:
//!
//! ```text
//! file  = { line "\n" }
//! line  = [ name [ "=" ] value ] [ "#" comment ]
//! name  = id [ "." id ]
//! value = id | unquoted | number | "'" { char | "''" | "\" char } "'"
//! ```
//!
//! A line that the server rejects is rejected here, too.

use std::ops::ControlFlow;

/// One `name = value` line of a configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Setting {
    /// The name in lower case, because the server ignores case in names.
    pub name: String,
    /// The value without quotes and escapes. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub value: String,
    /// The line number, counted from 1.
    pub line: usize,
}

/// A line of a configuration file that the server would reject.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyntaxError {
    /// An unexpected token.
    #[error("syntax error in line {line}, near token \"{token}\"")]
    Token {
        /// The line number, counted from 1.
        line: usize,
        /// The token.
        token: String,
    },
    /// The line ends before the value.
    #[error("syntax error in line {line}, near end of line")]
    EndOfLine {
        /// The line number, counted from 1.
        line: usize,
    },
}

/// Parses the text of a configuration file. Includes are not followed; they are returned like other settings.
///
/// # Errors
/// The first line that does not follow the grammar.
///
/// ```
/// use kbrecover_rewind::config::parse;
///
/// let settings = parse(b"# local settings\nRestore_Command = 'cp \"/archive/%f\" \"%p\"'\n")?;
/// assert_eq!(settings[0].name, "restore_command");
/// assert_eq!(settings[0].value, r#"cp "/archive/%f" "%p""#);
/// assert_eq!(settings[0].line, 2);
/// # Ok::<(), kbrecover_rewind::config::SyntaxError>(())
/// ```
pub fn parse(text: &[u8]) -> Result<Vec<Setting>, SyntaxError> {
    let mut settings = Vec::new();
    for (index, text) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = index + 1;
        match parse_line(text) {
            Ok(None) => {}
            Ok(Some((name, value))) => settings.push(Setting { name, value, line }),
            Err(Some(token)) => return Err(SyntaxError::Token { line, token }),
            Err(None) => return Err(SyntaxError::EndOfLine { line }),
        }
    }
    Ok(settings)
}

/// The name and the value in a line; `None` for an empty line. The error is the unexpected token, or `None` at the end of
/// the line.
fn parse_line(line: &[u8]) -> Result<Option<(String, String)>, Option<String>> {
    let mut tokens = Tokens { rest: line };
    let Some(name) = tokens.next() else { return Ok(None) };
    if !matches!(name.kind, Kind::Id | Kind::QualifiedId) {
        return Err(Some(lossy(name.text)));
    }
    let mut value = tokens.next().ok_or(None)?;
    if value.kind == Kind::Equals {
        value = tokens.next().ok_or(None)?;
    }
    let text = match value.kind {
        Kind::Quoted => unquote(value.text),
        Kind::Id | Kind::Unquoted | Kind::Number => lossy(value.text),
        // The server accepts a qualified name as a name, but not as an unquoted value.
        Kind::QualifiedId | Kind::Equals | Kind::Other => return Err(Some(lossy(value.text))),
    };
    match tokens.next() {
        None => Ok(Some((lossy(name.text).to_ascii_lowercase(), text))),
        Some(extra) => Err(Some(lossy(extra.text))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Id,
    QualifiedId,
    Unquoted,
    Number,
    Quoted,
    Equals,
    Other,
}

struct Token<'a> {
    kind: Kind,
    text: &'a [u8],
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// The next token; `None` at the end of the line or at a comment.
    fn next(&mut self) -> Option<Token<'a>> {
        self.rest = self.rest.trim_ascii_start();
        let (kind, length) = match *self.rest.first()? {
            b'#' => return None,
            b'=' => (Kind::Equals, 1),
            b'\'' => quoted_length(self.rest).map_or((Kind::Other, 1), |length| (Kind::Quoted, length)),
            first if is_letter(first) => word(self.rest),
            _ => number_length(self.rest).map_or((Kind::Other, 1), |length| (Kind::Number, length)),
        };
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(Token { kind, text })
    }
}

/// The kind and the length of the word at the start of `text`.
fn word(text: &[u8]) -> (Kind, usize) {
    let length = count(text, |byte| is_letter_or_digit(byte) || b"-._:/".contains(&byte));
    let is_id = |part: &[u8]| {
        part.first().is_some_and(|&byte| is_letter(byte)) && part.iter().all(|&byte| is_letter_or_digit(byte))
    };
    let mut parts = text[..length].split(|&byte| byte == b'.');
    let kind = match (parts.next(), parts.next(), parts.next()) {
        (Some(id), None, _) if is_id(id) => Kind::Id,
        (Some(a), Some(b), None) if is_id(a) && is_id(b) => Kind::QualifiedId,
        _ => Kind::Unquoted,
    };
    (kind, length)
}

/// The length of an integer, which may have a unit, or of a real number, which may not; `None` if there is no number.
fn number_length(text: &[u8]) -> Option<usize> {
    let sign = usize::from(matches!(text[0], b'+' | b'-'));
    let body = &text[sign..];
    let digits = count(body, |byte| byte.is_ascii_digit());
    if body.get(digits) == Some(&b'.') {
        let mut end = digits + 1;
        end += count(&body[end..], |byte| byte.is_ascii_digit());
        if matches!(body.get(end), Some(b'e' | b'E')) {
            let exponent = end + 1 + usize::from(matches!(body.get(end + 1), Some(b'+' | b'-')));
            let exponent_digits = count(body.get(exponent..)?, |byte| byte.is_ascii_digit());
            end = if exponent_digits > 0 { exponent + exponent_digits } else { end };
        }
        return Some(sign + end);
    }
    if digits == 0 {
        return None;
    }
    let hex = if body.starts_with(b"0x") { count(&body[2..], |byte| byte.is_ascii_hexdigit()) } else { 0 };
    let number = if hex > 0 { 2 + hex } else { digits };
    Some(sign + number + count(&body[number..], |byte| byte.is_ascii_alphabetic()))
}

/// The length of a quoted string including its quotes; `None` if it is not terminated in this line.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (b'\\', Some(_)) => at += 2,
            (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The value of a quoted string.
fn unquote(quoted: &[u8]) -> String {
    let mut value = Vec::with_capacity(quoted.len());
    let mut rest = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'\'' => {
                rest = rest.get(1..).unwrap_or_default();
                value.push(b'\'');
            }
            b'\\' => {
                let (byte, used) = escape(rest);
                rest = rest.get(used..).unwrap_or_default();
                value.push(byte);
            }
            &other => value.push(other),
        }
    }
    // The server stores the value as a C string, which ends at the first NUL.
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    lossy(&value[..end])
}

/// The byte that an escape sequence stands for, and the length of the sequence. `text` is what follows the backslash.
fn escape(text: &[u8]) -> (u8, usize) {
    match text.first() {
        Some(b'b') => (8, 1),
        Some(b'f') => (12, 1),
        Some(b'n') => (b'\n', 1),
        Some(b'r') => (b'\r', 1),
        Some(b't') => (b'\t', 1),
        Some(b'0'..=b'7') => {
            let octal = text.iter().take(3).try_fold((0u8, 0), |(value, used), &digit| match digit {
                b'0'..=b'7' => ControlFlow::Continue((value << 3 | (digit - b'0'), used + 1)),
                _ => ControlFlow::Break((value, used)),
            });
            match octal {
                ControlFlow::Continue(byte) | ControlFlow::Break(byte) => byte,
            }
        }
        Some(&other) => (other, 1),
        None => (b'\\', 0),
    }
}

fn count(text: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|&&byte| belongs(byte)).count()
}

/// Any byte with the high bit set counts as a letter, so that names may be in any encoding.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_letter_or_digit(byte: u8) -> bool {
    is_letter(byte) || byte.is_ascii_digit()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each value was compared with the output of `postgres -C restore_command` of version 15.
    #[test]
    fn values_are_those_the_server_reads() {
        for (text, value) in [
            ("restore_command = x", "x"),
            ("restore_command x", "x"),
            ("restore_command=x#y", "x"),
            ("  restore_command\t=\tx  # y", "x"),
            ("Restore_Command=x\r", "x"),
            ("restore_command = a.b.c", "a.b.c"),
            ("restore_command a-b/c:d", "a-b/c:d"),
            (r"restore_command = 'x\'y''z\101\n.'#c", "x'y'zA\n."),
            (r"restore_command='\9\18\x41'", "9\u{1}8x41"),
            (r"restore_command='a\0b'", "a"),
            (r"restore_command='\b\f\r\t\\\377'", "\u{8}\u{c}\r\t\\\u{fffd}"),
            ("restore_command=''", ""),
            ("restore_command=''''", "'"),
            ("restore_command = '#'", "#"),
            ("restore_command='cp /a/%f \"%p\"'", "cp /a/%f \"%p\""),
            ("restore_command = +0x1FkB", "+0x1FkB"),
            ("restore_command = -.5e-3", "-.5e-3"),
            ("restore_command=2k", "2k"),
            ("restore_command=é", "é"),
        ] {
            let settings = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
            let [setting] = settings.as_slice() else { panic!("{text}: {settings:?}") };
            assert_eq!((setting.name.as_str(), setting.value.as_str()), ("restore_command", value), "{text}");
        }
    }

    #[test]
    fn lines_that_the_server_rejects_are_rejected() {
        for (text, token) in [
            ("restore_command = a.b", Some("a.b")),
            ("restore_command = 1e5", Some("5")),
            ("work_mem=1.5GB", Some("GB")),
            ("restore_command='a' b", Some("b")),
            ("restore_command='a'b", Some("b")),
            ("a.b.c=1", Some("a.b.c")),
            ("a-b=1", Some("a-b")),
            ("'a'=1", Some("'a'")),
            ("1=1", Some("1")),
            ("restore_command='a", Some("'")),
            (r"restore_command='a\'", Some("'")),
            ("restore_command==x", Some("=")),
            ("=x", Some("=")),
            ("restore_command=x;", Some(";")),
            ("restore_command=12.3.4", Some(".4")),
            ("restore_command=5-3", Some("-3")),
            ("restore_command=-", Some("-")),
            ("restore_command=1.5e+", Some("e")),
            ("restore_command", None),
            ("restore_command = # x", None),
        ] {
            let expected = match token {
                Some(token) => SyntaxError::Token { line: 2, token: token.to_owned() },
                None => SyntaxError::EndOfLine { line: 2 },
            };
            assert_eq!(parse(format!("#\n{text}\n").as_bytes()), Err(expected), "{text}");
        }
    }

    #[test]
    fn lines_are_counted_and_empty_ones_skipped() {
        let settings = parse(b"\n# only a comment\na = 1\n\n  \t\nmy_ext.b 'two'").unwrap();
        let found: Vec<_> = settings.iter().map(|s| (s.name.as_str(), s.value.as_str(), s.line)).collect();
        assert_eq!(found, [("a", "1", 3), ("my_ext.b", "two", 6)]);
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn no_short_line_panics() {
        let alphabet = b"a1'\\=.-#e0x ";
        let mut lines = vec![vec![]];
        for _ in 0..4 {
            lines = lines
                .iter()
                .flat_map(|line: &Vec<u8>| {
                    alphabet.iter().map(move |&byte| [line.as_slice(), &[byte]].concat())
                })
                .collect();
            for line in &lines {
                let _ = parse(line);
                let _ = parse(&[b"a=".as_slice(), line].concat());
            }
        }
    }
}
