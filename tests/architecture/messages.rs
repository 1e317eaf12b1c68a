//! Every error message has an entry in `docs/reference/messages.md`, and every entry is that of a message.

use std::collections::BTreeSet;

use super::imports::Files;

/// The headings of the entries: ``### `text` ``.
pub fn entries(page: &str) -> Vec<String> {
    page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).map(str::to_owned).collect()
}

/// The texts in `#[error("...")]`, as the page writes them: `…` in the place of each placeholder. Errors of tests and texts
/// that are all placeholder are left out.
pub fn messages(files: &Files) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in files.values() {
        let program = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let attributes = program.split("#[error(").skip(1).map(str::trim_start);
        for attribute in attributes.filter(|attribute| !attribute.starts_with("transparent")) {
            let shown: String = attribute.chars().take(60).collect();
            let literal = attribute.strip_prefix('"').unwrap_or_else(|| panic!("no text in #[error({shown}"));
            found.insert(as_written(literal));
        }
    }
    found.retain(|message| message.chars().any(char::is_alphabetic));
    found
}

/// A string literal from behind its opening quote to the closing one, with `…` in the place of placeholders.
fn as_written(literal: &str) -> String {
    let (mut text, mut depth, mut characters) = (String::new(), 0, literal.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => match characters.next() {
                // The line goes on after the spaces.
                Some('\n') => while characters.next_if(|next| next.is_whitespace()).is_some() {},
                Some(escaped) if depth == 0 => text.push(escaped),
                _ => {}
            },
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                // Two placeholders in a row are one.
                if !text.ends_with('…') {
                    text.push('…');
                }
            }
            _ if depth == 0 => text.push(character),
            _ => {}
        }
    }
    text
}
