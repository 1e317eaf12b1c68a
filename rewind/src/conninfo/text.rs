//! Editing a connection string: parsing it, changing options, and writing it again, without completing it.

use std::fmt;

use super::error::ConninfoError;
use super::options::Values;
use super::syntax;
use super::written::quoted;

/// The options of a connection string, without those of a service, the environment or a file.
///
/// `Debug` does not show passwords.
///
/// ```
/// use kbrecover_rewind::conninfo::ConninfoText;
///
/// let mut text = ConninfoText::parse("host=node1 user=repmgr")?;
/// text.set("host", "node2");
/// assert_eq!(text.text(), "user=repmgr host=node2");
/// # Ok::<(), kbrecover_rewind::conninfo::ConninfoError>(())
/// ```
#[derive(Clone)]
pub struct ConninfoText(Values);

impl ConninfoText {
    /// No options.
    pub fn new() -> ConninfoText {
        ConninfoText(Values::new())
    }

    /// Parses a string in either notation.
    ///
    /// # Errors
    /// A syntax error or an unknown option, with libpq's message. Values are not checked.
    pub fn parse(text: &str) -> Result<ConninfoText, ConninfoError> {
        syntax::parse(text).map(|(values, _)| ConninfoText(values))
    }

    /// The value of an option; `None` if it is not set or empty.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword)
    }

    /// The host: `host`, or `hostaddr` if only that is given.
    pub fn host(&self) -> Option<&str> {
        self.get("host").or(self.get("hostaddr"))
    }

    /// Sets one of libpq's options.
    ///
    /// # Panics
    /// In a debug build, if libpq does not have this option.
    pub fn set(&mut self, keyword: &'static str, value: impl Into<String>) {
        let is_known = self.0.set(keyword, value.into());
        debug_assert!(is_known, "no option {keyword}");
    }

    /// Removes an option.
    pub fn remove(&mut self, keyword: &str) {
        self.0.remove(keyword);
    }

    /// Sets all options that are set in `other`.
    pub fn merge(&mut self, other: &ConninfoText) {
        for (option, value, _) in other.0.all() {
            let _known = self.0.set(option.keyword, value.to_owned());
        }
    }

    /// The connection string, in `keyword=value` notation.
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
