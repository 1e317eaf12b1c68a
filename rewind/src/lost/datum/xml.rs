//! `xml` as text. It is stored as it was given. Of its declaration the server omits the encoding, which need not be that of
//! the text any more, and all of it if it says no more than what holds without one (`xml_out_internal` and `parse_xml_decl`
//! in `xml.c`).

use super::encoding::Encoding;

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

pub(super) fn xml(bytes: &[u8], encoding: Encoding) -> Option<String> {
    let text = encoding.decode(bytes)?;
    let Some((declaration, rest)) = declaration(&text) else { return Some(text) };
    Some(match declaration.text() {
        Some(declaration) => declaration + rest,
        // The first line is not left empty.
        None => rest.strip_prefix('\n').unwrap_or(rest).to_owned(),
    })
}

#[derive(Default)]
struct Declaration<'a> {
    version: Option<&'a str>,
    standalone: Option<&'a str>,
}

impl Declaration<'_> {
    fn text(&self) -> Option<String> {
        let version = self.version.unwrap_or("1.0");
        if version == "1.0" && self.standalone.is_none() {
            return None;
        }
        let standalone =
            self.standalone.map(|answer| format!(" standalone=\"{answer}\"")).unwrap_or_default();
        Some(format!("<?xml version=\"{version}\"{standalone}?>"))
    }
}

/// The declaration at the beginning, which may be absent, and what follows it. `None` if it is not a proper one: then all of
/// the text stays as it is.
fn declaration(text: &str) -> Option<(Declaration<'_>, &str)> {
    let Some(rest) = text.strip_prefix("<?xml") else { return Some((Declaration::default(), text)) };
    let (version, rest) = attribute(rest, "version")?;
    let (_, rest) = attribute(rest, "encoding")?;
    let (standalone, rest) = attribute(rest, "standalone")?;
    let rest = rest.trim_start_matches(BLANKS).strip_prefix("?>")?;
    let is_proper = version.is_some()
        && standalone.is_none_or(|answer| matches!(answer, "yes" | "no"))
        && text.strip_suffix(rest)?.is_ascii();
    is_proper.then_some((Declaration { version, standalone }, rest))
}

/// The value of an attribute, if it is the next one, and what follows it.
fn attribute<'a>(text: &'a str, name: &str) -> Option<(Option<&'a str>, &'a str)> {
    let trimmed = text.trim_start_matches(BLANKS);
    let Some(after) = trimmed.strip_prefix(name) else { return Some((None, text)) };
    if trimmed.len() == text.len() {
        return None;
    }
    let quoted = after.trim_start_matches(BLANKS).strip_prefix('=')?.trim_start_matches(BLANKS);
    let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (value, rest) = quoted.strip_prefix(quote)?.split_once(quote)?;
    Some((Some(value), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_say_what_is_not_the_default() {
        for (stored, text) in [
            ("<a/>", "<a/>"),
            ("\n<a/>", "<a/>"),
            ("text", "text"),
            ("", ""),
            ("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\n<a/>", "\n<a/>"),
            ("<?xml version='1.0'?><a/>", "<a/>"),
            ("<?xml version='1.1' encoding='LATIN1'?>\n<a/>", "<?xml version=\"1.1\"?>\n<a/>"),
            (
                "<?xml version = \"1.0\" standalone='yes' ?><ä/>",
                "<?xml version=\"1.0\" standalone=\"yes\"?><ä/>",
            ),
        ] {
            assert_eq!(xml(stored.as_bytes(), Encoding::Utf8).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_declaration_stays() {
        for stored in [
            "<?xml-stylesheet href='x'?><a/>",
            "<?xml encoding='UTF-8'?>\n<a/>",
            "<?xml version='1.0' standalone='maybe'?>\n<a/>",
            "<?xml version='1.0\n<a/>",
            "<?xml version='1.0'\n<a/>",
            "<?xml version='1.0'encoding='UTF-8'?>\n<a/>",
            "<?xml version='é'?>\n<a/>",
            "<?xml",
        ] {
            assert_eq!(xml(stored.as_bytes(), Encoding::Utf8).as_deref(), Some(stored));
        }
    }
}
