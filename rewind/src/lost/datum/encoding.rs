//! Text in the encoding of its database, converted to UTF-8.

use encoding_rs as web;

/// The encoding of a database. What is not known of it is not guessed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Encoding {
    /// UTF-8, or SQL_ASCII, where bytes mean what the client says: UTF-8 is taken for what it is.
    Utf8,
    /// ISO 8859-1: the bytes are the code points.
    Latin1,
    /// ISO 8859-9: as ISO 8859-1, but for six letters.
    Latin5,
    /// By the tables of the web, in which some single bytes that have no meaning are control characters.
    Table(&'static web::Encoding),
    /// One that there is no table of.
    Unknown,
}

/// What ISO 8859-9 has in the place of the Icelandic letters of ISO 8859-1.
const TURKISH: [(char, char); 6] = [
    ('\u{d0}', '\u{11e}'),
    ('\u{dd}', '\u{130}'),
    ('\u{de}', '\u{15e}'),
    ('\u{f0}', '\u{11f}'),
    ('\u{fd}', '\u{131}'),
    ('\u{fe}', '\u{15f}'),
];

impl Encoding {
    /// The encoding that PostgreSQL gives this name (`encnames.c`).
    pub(super) fn named(name: &str) -> Encoding {
        Encoding::Table(match name {
            "UTF8" | "SQL_ASCII" => return Encoding::Utf8,
            "LATIN1" => return Encoding::Latin1,
            "LATIN5" => return Encoding::Latin5,
            "EUC_CN" | "GBK" => web::GBK,
            "GB18030" => web::GB18030,
            "BIG5" => web::BIG5,
            "EUC_JP" => web::EUC_JP,
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
            "KOI8U" => web::KOI8_U,
            // EUC_TW, EUC_JIS_2004, SHIFT_JIS_2004, JOHAB, MULE_INTERNAL.
            _ => return Encoding::Unknown,
        })
    }

    /// The text of these bytes. `None` if they are none in this encoding. No text of a server has a NUL.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<String> {
        if bytes.contains(&0) {
            return None;
        }
        if !matches!(self, Encoding::Utf8) && bytes.is_ascii() {
            return String::from_utf8(bytes.to_vec()).ok();
        }
        match self {
            Encoding::Utf8 => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Encoding::Latin1 => Some(bytes.iter().copied().map(char::from).collect()),
            Encoding::Latin5 => Some(bytes.iter().copied().map(turkish).collect()),
            Encoding::Table(table) => table
                .decode_without_bom_handling_and_without_replacement(bytes)
                .map(std::borrow::Cow::into_owned),
            Encoding::Unknown => None,
        }
    }
}

fn turkish(byte: u8) -> char {
    let latin = char::from(byte);
    TURKISH.iter().find(|(icelandic, _)| *icelandic == latin).map_or(latin, |(_, turkish)| *turkish)
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
            ("BIG5", b"\xa4\xa4\xa4\xe5", "中文"),
        ] {
            assert_eq!(decode(encoding, bytes).as_deref(), Some(text), "{encoding}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_no_text() {
        assert_eq!(decode("EUC_CN", b"\xd6"), None);
        assert_eq!(decode("JOHAB", b"\xd6\xd0"), None);
        assert_eq!(decode("JOHAB", b"plain").as_deref(), Some("plain"));
    }
}
