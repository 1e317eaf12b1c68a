//! Text in the encoding of its database, converted to UTF-8.

use encoding_rs as web;

/// The encoding of a database. What is not known of it is not guessed: text that is read here must be the same bytes again
/// when a server reads it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Encoding {
    /// UTF-8, or SQL_ASCII, where bytes mean what the client says: UTF-8 is taken for what it is.
    Utf8,
    /// The bytes are the code points, but for these.
    Latin(Differences),
    /// By a table of the web, where PostgreSQL's differs in these characters.
    Web(&'static web::Encoding, Differences),
    /// One that there is no table of.
    Unknown,
}

/// Characters, and what PostgreSQL has in their place.
type Differences = &'static [(char, char)];

/// ISO 8859-9 is ISO 8859-1 without the Icelandic letters.
const LATIN5: Differences = &[
    ('\u{d0}', '\u{11e}'),
    ('\u{dd}', '\u{130}'),
    ('\u{de}', '\u{15e}'),
    ('\u{f0}', '\u{11f}'),
    ('\u{fd}', '\u{131}'),
    ('\u{fe}', '\u{15f}'),
];
const EUC_CN: Differences = &[('\u{b7}', '\u{30fb}'), ('\u{2014}', '\u{2015}')];
const EUC_JP: Differences = &[('\u{a6}', '\u{ffe4}')];
const KOI8U: Differences = &[('\u{45e}', '\u{255d}'), ('\u{40e}', '\u{256c}')];

/// What GB 18030 has meant by some codes since 2005; servers before 19 know them as characters for private use.
const NEWER_CHINESE: [std::ops::RangeInclusive<char>; 3] =
    ['\u{1e3f}'..='\u{1e3f}', '\u{9fb4}'..='\u{9fbb}', '\u{fe10}'..='\u{fe19}'];

impl Encoding {
    /// The encoding that PostgreSQL gives this name (`encnames.c`).
    pub(super) fn named(name: &str) -> Encoding {
        let table = match name {
            "UTF8" | "SQL_ASCII" => return Encoding::Utf8,
            "LATIN1" => return Encoding::Latin(&[]),
            "LATIN5" => return Encoding::Latin(LATIN5),
            "EUC_CN" => return Encoding::Web(web::GBK, EUC_CN),
            "EUC_JP" => return Encoding::Web(web::EUC_JP, EUC_JP),
            "KOI8U" => return Encoding::Web(web::KOI8_U, KOI8U),
            "GBK" => web::GBK,
            "GB18030" => web::GB18030,
            "SJIS" => web::SHIFT_JIS,
            "EUC_KR" | "UHC" => web::EUC_KR,
            "LATIN2" => web::ISO_8859_2,
            "LATIN3" => web::ISO_8859_3,
            "LATIN4" => web::ISO_8859_4,
            "LATIN6" => web::ISO_8859_10,
            "LATIN7" => web::ISO_8859_13,
            "LATIN8" => web::ISO_8859_14,
            "LATIN9" => web::ISO_8859_15,
            "LATIN10" => web::ISO_8859_16,
            "ISO_8859_5" => web::ISO_8859_5,
            "ISO_8859_6" => web::ISO_8859_6,
            "ISO_8859_7" => web::ISO_8859_7,
            "ISO_8859_8" => web::ISO_8859_8,
            "WIN866" => web::IBM866,
            "WIN874" => web::WINDOWS_874,
            "WIN1250" => web::WINDOWS_1250,
            "WIN1251" => web::WINDOWS_1251,
            "WIN1252" => web::WINDOWS_1252,
            "WIN1253" => web::WINDOWS_1253,
            "WIN1254" => web::WINDOWS_1254,
            "WIN1255" => web::WINDOWS_1255,
            "WIN1256" => web::WINDOWS_1256,
            "WIN1257" => web::WINDOWS_1257,
            "WIN1258" => web::WINDOWS_1258,
            "KOI8R" => web::KOI8_R,
            // There are no tables of EUC_TW, EUC_JIS_2004, SHIFT_JIS_2004, JOHAB and MULE_INTERNAL. That of BIG5 differs in
            // hundreds of characters.
            _ => return Encoding::Unknown,
        };
        Encoding::Web(table, &[])
    }

    /// The text of these bytes. `None` if they are none in this encoding. No text of a server has a NUL.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<String> {
        if bytes.contains(&0) {
            return None;
        }
        if bytes.is_ascii() {
            return String::from_utf8(bytes.to_vec()).ok();
        }
        match self {
            Encoding::Utf8 => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Encoding::Latin(differences) => {
                Some(bytes.iter().map(|byte| replaced(char::from(*byte), differences)).collect())
            }
            Encoding::Web(table, differences) => {
                let text = by_table(table, bytes)?;
                Some(text.chars().map(|c| replaced(c, differences)).collect())
            }
            Encoding::Unknown => None,
        }
    }
}

fn replaced(c: char, differences: Differences) -> char {
    differences.iter().find(|(from, _)| *from == c).map_or(c, |(_, to)| *to)
}

/// Codes without a meaning are control characters or characters for private use in these tables, and a server refuses them.
/// Only the encodings of ISO 8859 have control characters above ASCII.
fn by_table(table: &'static web::Encoding, bytes: &[u8]) -> Option<String> {
    if table == web::EUC_JP && has_second_codes(bytes) {
        return None;
    }
    let text = table.decode_without_bom_handling_and_without_replacement(bytes)?.into_owned();
    let is_iso = table.name().starts_with("ISO-8859");
    let has_no_meaning =
        |c: char| matches!(c, '\u{e000}'..='\u{f8ff}') || !is_iso && matches!(c, '\u{80}'..='\u{9f}');
    if text.contains(has_no_meaning) {
        return None;
    }
    if table == web::GBK || table == web::GB18030 {
        // Some characters have two codes.
        let (again, _, _) = web::GB18030.encode(&text);
        let is_newer = |c: char| NEWER_CHINESE.iter().any(|range| range.contains(&c));
        if *again != *bytes || text.contains(is_newer) {
            return None;
        }
    }
    Some(text)
}

/// Whether there is a code of EUC-JP that means a character of another code, which a server would write instead.
fn has_second_codes(mut rest: &[u8]) -> bool {
    while let Some(first) = rest.first() {
        let length = match first {
            0x8f => 3,
            0x80.. => 2,
            _ => 1,
        };
        if matches!(rest, [0xf9..=0xff, ..] | [0x8f, 0xa2, 0xb7, ..]) {
            return true;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoding: &str, bytes: &[u8]) -> Option<String> {
        Encoding::named(encoding).decode(bytes)
    }

    #[test]
    fn utf8_is_taken_if_it_is_valid() {
        for encoding in ["UTF8", "SQL_ASCII"] {
            assert_eq!(decode(encoding, "äöü €".as_bytes()).as_deref(), Some("äöü €"));
            assert_eq!(decode(encoding, b"a\xe4"), None);
            assert_eq!(decode(encoding, b"a\0b"), None);
        }
    }

    #[test]
    fn other_encodings_are_converted() {
        for (encoding, bytes, text) in [
            ("LATIN1", &b"\x80\xe4\xfe"[..], "\u{80}äþ"),
            ("LATIN5", b"\x80\xe4\xfe\xdd", "\u{80}äşİ"),
            ("LATIN9", b"\xa4", "€"),
            ("WIN1252", b"\x80", "€"),
            ("WIN1251", b"\xcf\xf0", "Пр"),
            ("KOI8R", b"\xf0\xf2", "ПР"),
            ("EUC_CN", b"\xd6\xd0\xce\xc4", "中文"),
            ("GBK", b"\xd6\xd0\x81\x40", "中丂"),
            ("GB18030", b"\x95\x32\x82\x36", "𠀀"),
            ("EUC_JP", b"\xc6\xfc\xcb\xdc", "日本"),
            ("SJIS", b"\x93\xfa\x96\x7b", "日本"),
            ("EUC_KR", b"\xc7\xd1\xb1\xdb", "한글"),
        ] {
            assert_eq!(decode(encoding, bytes).as_deref(), Some(text), "{encoding}");
        }
    }

    /// As the server's `convert_from` has it.
    #[test]
    fn where_tables_differ_the_servers_counts() {
        assert_eq!(decode("EUC_CN", b"\xa1\xa4\xa1\xaa").as_deref(), Some("・―"));
        assert_eq!(decode("GBK", b"\xa1\xa4\xa1\xaa").as_deref(), Some("·—"));
        assert_eq!(decode("EUC_JP", b"\x8f\xa2\xc3").as_deref(), Some("￤"));
        assert_eq!(decode("KOI8U", b"\xae\xbe").as_deref(), Some("╝╬"));
    }

    #[test]
    fn what_cannot_be_decoded_is_no_text() {
        assert_eq!(decode("EUC_CN", b"\xd6"), None);
        assert_eq!(decode("GB18030", b"\xa3\xa0"), None);
        assert_eq!(decode("EUC_JP", b"\xc6\xfc\xf9\xa1"), None);
        assert_eq!(decode("GBK", b"\x80"), None);
        assert_eq!(decode("GBK", b"\xaa\xa1"), None);
        assert_eq!(decode("WIN1252", b"\x81"), None);
        assert_eq!(decode("JOHAB", b"\xd6\xd0"), None);
        assert_eq!(decode("JOHAB", b"plain").as_deref(), Some("plain"));
    }
}
