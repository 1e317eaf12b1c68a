//! `primary_conninfo` as text: taken apart into its words and put together again, to point it elsewhere.
//!
//! Only the keyword form, which is what configuration files hold; values are passed on as they are.

use std::fmt;

/// The keywords and values in their order. Passwords do not show in `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConninfoText(Vec<(String, String)>);

impl fmt::Debug for ConninfoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl ConninfoText {
    /// Takes a string apart; `None` if it is not in the keyword form.
    pub fn parse(text: &str) -> Option<ConninfoText> {
        let mut pairs = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (keyword, behind) = rest.split_once('=')?;
            let keyword = keyword.trim();
            if keyword.is_empty() || keyword.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                return None;
            }
            let (value, left) = value(behind.trim_start())?;
            pairs.push((keyword.to_owned(), value));
            rest = left.trim_start();
        }
        Some(ConninfoText(pairs))
    }

    /// The value of a keyword.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == keyword).map(|(_, value)| value.as_str())
    }

    /// The keywords and values in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(keyword, value)| (keyword.as_str(), value.as_str()))
    }

    /// Sets a keyword, in its place if it is there.
    pub fn set(&mut self, keyword: &str, value: &str) {
        match self.0.iter_mut().find(|(name, _)| name == keyword) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((keyword.to_owned(), value.to_owned())),
        }
    }

    /// Removes a keyword.
    pub fn remove(&mut self, keyword: &str) {
        self.0.retain(|(name, _)| name != keyword);
    }

    /// The same without passwords, for messages.
    pub fn shown(&self) -> String {
        let mut shown = self.clone();
        shown.0.retain(|(name, _)| !name.contains("password"));
        shown.text()
    }

    /// The string.
    pub fn text(&self) -> String {
        let pair = |(keyword, value): &(String, String)| format!("{keyword}={}", quoted(value));
        self.0.iter().map(pair).collect::<Vec<_>>().join(" ")
    }
}

/// The value at the start of `text`, and what is behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '\'' if is_quoted => return Some((value, &text[at + 1..])),
            c if c.is_whitespace() && !is_quoted => return Some((value, &text[at..])),
            c => value.push(c),
        }
    }
    (!is_quoted).then_some((value, ""))
}

fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.:/-=+@,".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_pointed_to_another_host() {
        let mut text = ConninfoText::parse(
            "port=54321 host = '192.168.1.101' user=SYSTEM password=MTIz== application_name='node 1' options='-c a=\\'b\\''",
        )
        .unwrap();
        text.set("host", "fe80::2%eth0");
        text.remove("hostaddr");
        assert_eq!(
            text.text(),
            "port=54321 host='fe80::2%eth0' user=SYSTEM password=MTIz== application_name='node 1' options='-c a=\\'b\\''"
        );
        assert_eq!(ConninfoText::parse(&text.text()), Some(text.clone()));
        assert!(!format!("{text:?}").contains("MTIz"), "{text:?}");
    }

    #[test]
    fn other_forms_are_not_understood() {
        for text in ["postgresql://h/d", "host", "host='x", "=x", "a\\"] {
            assert_eq!(ConninfoText::parse(text), None, "{text}");
        }
        assert_eq!(ConninfoText::parse(" "), Some(ConninfoText::default()));
    }
}
