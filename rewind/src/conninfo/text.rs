//! A connection string as it stands: taken apart, pointed elsewhere and put together again, without being completed.

use std::fmt;

use super::error::ConninfoError;
use super::options::Values;
use super::syntax;
use super::written::quoted;

/// The options of a connection string, and nothing from a service, the environment or a file.
///
/// Passwords do not show in `Debug`.
#[derive(Clone)]
pub struct ConninfoText(Values);

impl ConninfoText {
    /// No options.
    pub fn new() -> ConninfoText {
        ConninfoText(Values::new())
    }

    /// Takes a string in either notation apart.
    ///
    /// # Errors
    /// What libpq refuses, in its words. What the values mean is not looked at.
    pub fn parse(text: &str) -> Result<ConninfoText, ConninfoError> {
        syntax::parse(text).map(|(values, _)| ConninfoText(values))
    }

    /// The value of an option; an empty one is none.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword)
    }

    /// Where the server is: its name, or its address if only that is given.
    pub fn host(&self) -> Option<&str> {
        self.get("host").or(self.get("hostaddr"))
    }

    /// Sets one of libpq's options.
    ///
    /// # Panics
    /// In a debug build, if libpq has no such option.
    pub fn set(&mut self, keyword: &'static str, value: impl Into<String>) {
        let is_known = self.0.set(keyword, value.into());
        debug_assert!(is_known, "no option {keyword}");
    }

    /// Removes an option.
    pub fn remove(&mut self, keyword: &str) {
        self.0.remove(keyword);
    }

    /// Takes over all options that `other` has.
    pub fn merge(&mut self, other: &ConninfoText) {
        for (option, value, _) in other.0.all() {
            let _known = self.0.set(option.keyword, value.to_owned());
        }
    }

    /// The string.
    pub fn text(&self) -> String {
        let pairs = self.0.all().map(|(option, value, _)| format!("{}={}", option.keyword, quoted(value)));
        pairs.collect::<Vec<_>>().join(" ")
    }
}

impl Default for ConninfoText {
    fn default() -> ConninfoText {
        ConninfoText::new()
    }
}

impl fmt::Debug for ConninfoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.all().filter(|(option, ..)| !option.secret);
        f.debug_map().entries(shown.map(|(option, value, _)| (option.keyword, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_pointed_to_another_host() {
        let mut text = ConninfoText::parse(
            "port=54321 host = '192.168.1.101' hostaddr=192.168.1.101 user=SYSTEM password='M T' application_name='node 1' \
             options='-c a=\\'b\\''",
        )
        .unwrap();
        text.set("host", "fe80::2%eth0");
        text.remove("hostaddr");
        assert_eq!(
            text.text(),
            "user=SYSTEM password='M T' host='fe80::2%eth0' port=54321 options='-c a=\\'b\\'' application_name='node 1'"
        );
        assert_eq!(ConninfoText::parse(&text.text()).unwrap().text(), text.text());
        assert!(!format!("{text:?}").contains("M T"), "{text:?}");
        let mut other = ConninfoText::parse("postgresql://u:p@h:1/d").unwrap();
        other.merge(&ConninfoText::parse("host=h2 sslmode=require").unwrap());
        assert_eq!(other.text(), "user=u password=p dbname=d host=h2 port=1 sslmode=require");
    }
}
