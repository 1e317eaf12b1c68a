//! The page around the data of `report.html`, and the blocks that the data is in.

use openssl::base64::encode_block;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::output::Output;
use crate::lost::model::SinkError;

const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");
const SCRIPTS: [&str; 3] =
    [include_str!("report_words.js"), include_str!("report_data.js"), include_str!("report.js")];

/// What stands before the data, and after it. A browser runs only the script with this hash, should anything else ever
/// get into the page.
pub(crate) fn page() -> (String, String) {
    let script = SCRIPTS.concat();
    let hash = encode_block(&Sha256::digest(script.as_bytes()));
    let page = TEMPLATE.replace("{{hash}}", &hash).replace("{{style}}", STYLE).replace("{{script}}", &script);
    let (start, end) = page.split_once("{{data}}\n").unwrap_or((&page, ""));
    (start.to_owned(), end.to_owned())
}

/// Writes a block of data.
pub(crate) fn put_script(out: &mut Output, attributes: &str, text: &[u8]) -> Result<(), SinkError> {
    out.put(format!("<script type=\"application/json\" {attributes}>\n").as_bytes())?;
    out.put(text)?;
    out.put(b"</script>\n")
}

/// JSON without `<`, which ends a script or begins a comment in it.
pub(crate) fn put_json(text: &mut Vec<u8>, value: &impl Serialize) {
    let start = text.len();
    if serde_json::to_writer(&mut *text, value).is_err() {
        // Cannot happen: all keys are strings, and a vector takes all bytes.
        text.truncate(start);
    }
    if text[start..].contains(&b'<') {
        let json = text.split_off(start);
        for part in json.split_inclusive(|byte| *byte == b'<') {
            match part.split_last() {
                Some((b'<', before)) => {
                    text.extend_from_slice(before);
                    text.extend_from_slice(b"\\u003c");
                }
                _ => text.extend_from_slice(part),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_can_stand_in_a_page_and_write_no_html() {
        for script in SCRIPTS {
            for bad in [
                "</script",
                "<!--",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!script.contains(bad), "{bad}");
            }
        }
        let (start, end) = page();
        assert!(start.contains("script-src 'sha256-") && !start.contains("{{") && end.ends_with("</html>\n"));
    }

    #[test]
    fn data_ends_no_script() {
        let mut text = b"before <".to_vec();
        put_json(&mut text, &["</script>", "<!--", "a<"]);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, r#"before <["\u003c/script>","\u003c!--","a\u003c"]"#);
        let back: Vec<String> = serde_json::from_str(&text["before <".len()..]).unwrap();
        assert_eq!(back, ["</script>", "<!--", "a<"]);
    }
}
