//! Hides passwords in text that repeats the command line.
//!
//! A connection string that was not quoted properly arrives as several arguments, one of which is the
//! password. So passwords are found by their spelling, not by the option that they belong to.

/// The text with asterisks in place of passwords: the value of each keyword that ends in `password`, and
/// the password of a URI.
pub(crate) fn without_password(text: &str) -> String {
    const HIDDEN: &str = "********";
    let mut text = text.to_owned();
    let mut from = 0;
    while let Some(at) = text[from..].to_ascii_lowercase().find("password") {
        let start = from + at + "password".len();
        let value = text[start..].trim_start_matches(is_space_or('='));
        from = start;
        if value.len() < text.len() - start {
            let begin = text.len() - value.len();
            let end = begin + value_length(value);
            text.replace_range(begin..end, HIDDEN);
            from = begin + HIDDEN.len();
        }
    }
    // scheme://user:password@host
    if let Some(authority) = text.find("://").map(|at| at + 3)
        && let Some(host) = text[authority..].rfind('@').map(|at| authority + at)
        && let Some(colon) = text[authority..host].find(':').map(|at| authority + at)
    {
        text.replace_range(colon + 1..host, HIDDEN);
    }
    text
}

/// Matches the white space of connection strings, and `other`.
fn is_space_or(other: char) -> impl Fn(char) -> bool {
    move |character| character == other || character.is_ascii_whitespace() || character == '\x0b'
}

/// The length of the value at the beginning of `text`: a quoted string, or everything up to white space
/// or the end of a URI parameter. A backslash escapes the next character.
fn value_length(text: &str) -> usize {
    let quoted = text.starts_with('\'');
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '\'' if quoted => return at + 1,
            '&' | '"' if !quoted => return at,
            _ if !quoted && is_space_or('&')(character) => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_connection_strings_are_hidden() {
        for (text, hidden) in [
            ("x 'sslPassword = s3cret' y", "x 'sslPassword = ******** y"),
            ("password='s3 \\' cret' y", "password=******** y"),
            (r"password=s3\ cret\'s y", "password=******** y"),
            ("password='s3 cret", "password=********"),
            ("postgres://u:s3cret@h:1/db", "postgres://u:********@h:1/db"),
            ("postgres://h/db?password=s3cret&x=1", "postgres://h/db?password=********&x=1"),
            ("password\t=\ns3cret\ty", "password\t=\n********\ty"),
            ("password\x0b= s3cret", "password\x0b= ********"),
            ("passwords are not shown", "passwords are not shown"),
            ("password", "password"),
            ("a://b@c", "a://b@c"),
            ("é", "é"),
        ] {
            assert_eq!(without_password(text), hidden);
        }
    }
}
