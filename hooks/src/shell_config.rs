//! Files of `NAME=value` lines in shell syntax, such as `HAmodule.conf`.
//!
//! ```text
//! file   = { line }
//! line   = [ "export" ] NAME "=" ( word | "(" { word } ")" ) [ comment ]
//! word   = { plain | 'literal' | "text with $NAME and \escapes" | $NAME | ${NAME} }
//! ```
//!
//! An array may extend over several lines. Nothing is executed: a command substitution is an error. `#` starts a comment
//! wherever it is not quoted, as in the scripts that read such files.
//!
//! ```
//! use kbrecover_hooks::shell_config::parse;
//!
//! let values = parse("KB_PATH=$HOME/db # programs\nALL_NODE_NAME=(node1 node2)", &|name| {
//!     (name == "HOME").then(|| "/home/kingbase".to_owned())
//! })?;
//! assert_eq!(values["KB_PATH"].words(), ["/home/kingbase/db"]);
//! assert_eq!(values["ALL_NODE_NAME"].words(), ["node1", "node2"]);
//! # Ok::<(), kbrecover_hooks::shell_config::ShellConfigError>(())
//! ```

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::CharIndices;

/// The value of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Value {
    /// A single word.
    Word(String),
    /// An array of words.
    Array(Vec<String>),
}

impl Value {
    /// The single word, or the words of the array.
    pub fn words(&self) -> &[String] {
        match self {
            Value::Word(word) => std::slice::from_ref(word),
            Value::Array(words) => words,
        }
    }
}

/// Why a text cannot be parsed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[error("line {line}: {problem}")]
pub struct ShellConfigError {
    /// The line number, counted from 1.
    pub line: usize,
    /// The problem in that line.
    pub problem: &'static str,
}

/// Parses the text of a file. `outside` returns the value of a name that the text uses but does not set: an environment
/// variable.
///
/// # Errors
/// A line is not an assignment, has an unterminated quote or array, or would run a command.
pub fn parse(
    text: &str,
    outside: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, Value>, ShellConfigError> {
    let mut reader = Reader { text, rest: text.char_indices().peekable(), values: BTreeMap::new(), outside };
    while reader.line()? {}
    Ok(reader.values)
}

struct Reader<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    values: BTreeMap<String, Value>,
    outside: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    /// Reads one assignment. Returns `false` at the end of the text.
    fn line(&mut self) -> Result<bool, ShellConfigError> {
        self.skip_blank();
        if self.rest.peek().is_none() {
            return Ok(false);
        }
        let mut name = self.name();
        if name == "export" {
            self.skip_spaces();
            name = self.name();
        }
        if name.is_empty() || self.rest.next_if(|(_, c)| *c == '=').is_none() {
            return Err(self.error("expected NAME=value"));
        }
        let value = match self.rest.next_if(|(_, c)| *c == '(') {
            Some(_) => Value::Array(self.array()?),
            None => Value::Word(self.word()?.unwrap_or_default()),
        };
        // Accepted in comments, but a value with replaced characters would be a different path or name.
        if value.words().iter().any(|word| word.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(self.error("the value is not UTF-8"));
        }
        self.values.insert(name, value);
        self.skip_spaces();
        match self.rest.peek() {
            None | Some((_, '\n' | '#' | ';')) => Ok(true),
            Some(_) => Err(self.error("unexpected text after the value")),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some((_, c)) = self.rest.next_if(|(_, c)| {
            *c == '_' || c.is_ascii_alphanumeric() && (!name.is_empty() || !c.is_ascii_digit())
        }) {
            name.push(c);
        }
        name
    }

    fn array(&mut self) -> Result<Vec<String>, ShellConfigError> {
        let mut words = Vec::new();
        loop {
            self.skip_blank();
            if self.rest.next_if(|(_, c)| *c == ')').is_some() {
                return Ok(words);
            }
            match self.word()? {
                Some(word) => words.push(word),
                None => return Err(self.error("unterminated array")),
            }
        }
    }

    /// A word; `None` if there is none at this position.
    fn word(&mut self) -> Result<Option<String>, ShellConfigError> {
        let mut word = None;
        while let Some(&(_, c)) = self.rest.peek() {
            if c.is_whitespace() || matches!(c, '#' | ')' | ';') {
                break;
            }
            self.rest.next();
            let word = word.get_or_insert_with(String::new);
            match c {
                '\'' => self.literal(word)?,
                '"' => self.quoted(word)?,
                '$' => self.variable(word)?,
                '\\' => word.extend(self.rest.next().map(|(_, c)| c).filter(|c| *c != '\n')),
                '`' => return Err(self.error("command substitution is not supported (`...`)")),
                '(' | '&' | '|' | '<' | '>' => return Err(self.error("unexpected shell operator")),
                plain => word.push(plain),
            }
        }
        Ok(word)
    }

    fn literal(&mut self, word: &mut String) -> Result<(), ShellConfigError> {
        loop {
            match self.rest.next() {
                Some((_, '\'')) => return Ok(()),
                Some((_, c)) => word.push(c),
                None => return Err(self.error("unterminated quoted string")),
            }
        }
    }

    fn quoted(&mut self, word: &mut String) -> Result<(), ShellConfigError> {
        loop {
            match self.rest.next() {
                Some((_, '"')) => return Ok(()),
                Some((_, '$')) => self.variable(word)?,
                Some((_, '`')) => return Err(self.error("command substitution is not supported (`...`)")),
                Some((_, '\\')) => match self.rest.next() {
                    Some((_, '\n')) => {}
                    Some((_, c @ ('"' | '\\' | '$' | '`'))) => word.push(c),
                    Some((_, c)) => word.extend(['\\', c]),
                    None => return Err(self.error("unterminated quoted string")),
                },
                Some((_, c)) => word.push(c),
                None => return Err(self.error("unterminated quoted string")),
            }
        }
    }

    /// The rest of a variable after its `$`.
    fn variable(&mut self, word: &mut String) -> Result<(), ShellConfigError> {
        if self.rest.next_if(|(_, c)| *c == '(').is_some() {
            return Err(self.error("command substitution is not supported ($(...))"));
        }
        let braced = self.rest.next_if(|(_, c)| *c == '{').is_some();
        let name = self.name();
        if braced && (name.is_empty() || self.rest.next_if(|(_, c)| *c == '}').is_none()) {
            return Err(self.error("only ${NAME} is supported"));
        }
        if name.is_empty() {
            word.push('$');
            return Ok(());
        }
        match self.values.get(&name) {
            Some(Value::Word(value)) => word.push_str(value),
            Some(Value::Array(values)) => word.extend(values.first().map(String::as_str)),
            None => word.extend((self.outside)(&name)),
        }
        Ok(())
    }

    /// Skips white space, newlines and comments.
    fn skip_blank(&mut self) {
        loop {
            while self.rest.next_if(|(_, c)| c.is_whitespace() || *c == ';').is_some() {}
            if self.rest.next_if(|(_, c)| *c == '#').is_none() {
                return;
            }
            while self.rest.next_if(|(_, c)| *c != '\n').is_some() {}
        }
    }

    fn skip_spaces(&mut self) {
        while self.rest.next_if(|(_, c)| c.is_whitespace() && *c != '\n').is_some() {}
    }

    fn error(&mut self, problem: &'static str) -> ShellConfigError {
        let at = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        ShellConfigError { line: self.text[..at].matches('\n').count() + 1, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, Value>, ShellConfigError> {
        parse(text, &|name| (name == "HOME").then(|| "/home/kingbase".to_owned()))
    }

    fn word(text: &str) -> Value {
        Value::Word(text.to_owned())
    }

    #[test]
    fn the_file_of_the_installer_is_parsed() {
        let values = read(
            "#the ip of the gateway, comma list\n\
             KB_GATEWAY_IP=\"192.168.1.1,192.168.1.2\"   # any of them\n\
             KB_PATH=$HOME/db\n\
             KB_LD_PATH=\"${KB_PATH}/lib\"\n\
             KB_PASS=\"S2luZ2Jhc2VoYTExMA==\"\n\
             export PING_TIMES=3\n\
             EMPTY=\n\
             KB_ALL_IP=(192.168.1.101 \"192.168.1.102\"\n  # the third\n  '192.168.1.103')\n\
             ODD='a # b'\"c\\\"d\"e\\ f\n",
        )
        .unwrap();
        assert_eq!(values["KB_GATEWAY_IP"], word("192.168.1.1,192.168.1.2"));
        assert_eq!(values["KB_LD_PATH"], word("/home/kingbase/db/lib"));
        assert_eq!(values["KB_PASS"], word("S2luZ2Jhc2VoYTExMA=="));
        assert_eq!((&values["PING_TIMES"], &values["EMPTY"]), (&word("3"), &word("")));
        let nodes = ["192.168.1.101", "192.168.1.102", "192.168.1.103"].map(str::to_owned);
        assert_eq!(values["KB_ALL_IP"], Value::Array(nodes.to_vec()));
        assert_eq!(values["ODD"], word("a # bc\"de f"));
    }

    #[test]
    fn errors_have_the_line_number() {
        for (text, line, problem) in [
            ("A=1\nif true\n", 2, "expected NAME=value"),
            ("A=1 B=2", 1, "unexpected text after the value"),
            ("A=(1 # \u{FFFD}\n2)\nB=(3 '/\u{FFFD}') # x\n", 3, "the value is not UTF-8"),
            ("A=\"\u{FFFD}\"\n", 1, "the value is not UTF-8"),
            ("A='x\n", 2, "unterminated quoted string"),
            ("A=1\n\nB=\"x", 3, "unterminated quoted string"),
            ("A=(1 2", 1, "unterminated array"),
            ("A=$(rm -rf /)", 1, "command substitution is not supported ($(...))"),
            ("A=\"`id`\"", 1, "command substitution is not supported (`...`)"),
            ("A=${B:-x}", 1, "only ${NAME} is supported"),
            ("A=1 | cat", 1, "unexpected text after the value"),
            ("A=x|cat", 1, "unexpected shell operator"),
            ("9A=1", 1, "expected NAME=value"),
        ] {
            assert_eq!(read(text), Err(ShellConfigError { line, problem }), "{text}");
        }
    }
}
