//! Files of `NAME=value` lines that a shell would read, such as `HAmodule.conf`.
//!
//! ```text
//! file   = { line }
//! line   = [ "export" ] NAME "=" ( word | "(" { word } ")" ) [ comment ]
//! word   = { plain | 'literal' | "text with $NAME and \escapes" | $NAME | ${NAME} }
//! ```
//!
//! An array may go over several lines. Nothing is executed: a command substitution is an error, not a
//! call. `#` starts a comment wherever it is not quoted, as the scripts that read such files have it.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::CharIndices;

/// What a name is set to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// One word.
    Word(String),
    /// A list of words.
    Array(Vec<String>),
}

impl Value {
    /// Its words: one, or those of the list.
    pub fn words(&self) -> &[String] {
        match self {
            Value::Word(word) => std::slice::from_ref(word),
            Value::Array(words) => words,
        }
    }
}

/// Why a file cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ShellConfigError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: &'static str,
}

/// Reads the text of a file. `outside` knows the names that it uses but does not set: the environment.
///
/// # Errors
/// The first line that is no assignment, does not end its quotes, or would run a program.
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
    /// Reads one assignment; false at the end of the text.
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
        // In a comment of another encoding it does no harm; here it would be the path of something else.
        if value.words().iter().any(|word| word.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(self.error("the value is not UTF-8"));
        }
        self.values.insert(name, value);
        self.skip_spaces();
        match self.rest.peek() {
            None | Some((_, '\n' | '#' | ';')) => Ok(true),
            Some(_) => Err(self.error("unexpected text behind the value")),
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
                None => return Err(self.error("array is not closed")),
            }
        }
    }

    /// A word; `None` if there is nothing of one.
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
                '`' => return Err(self.error("commands are not run (`...`)")),
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
                None => return Err(self.error("quote is not closed")),
            }
        }
    }

    fn quoted(&mut self, word: &mut String) -> Result<(), ShellConfigError> {
        loop {
            match self.rest.next() {
                Some((_, '"')) => return Ok(()),
                Some((_, '$')) => self.variable(word)?,
                Some((_, '`')) => return Err(self.error("commands are not run (`...`)")),
                Some((_, '\\')) => match self.rest.next() {
                    Some((_, '\n')) => {}
                    Some((_, c @ ('"' | '\\' | '$' | '`'))) => word.push(c),
                    Some((_, c)) => word.extend(['\\', c]),
                    None => return Err(self.error("quote is not closed")),
                },
                Some((_, c)) => word.push(c),
                None => return Err(self.error("quote is not closed")),
            }
        }
    }

    /// What stands behind a `$`.
    fn variable(&mut self, word: &mut String) -> Result<(), ShellConfigError> {
        if self.rest.next_if(|(_, c)| *c == '(').is_some() {
            return Err(self.error("commands are not run ($(...))"));
        }
        let braced = self.rest.next_if(|(_, c)| *c == '{').is_some();
        let name = self.name();
        if braced && (name.is_empty() || self.rest.next_if(|(_, c)| *c == '}').is_none()) {
            return Err(self.error("only ${NAME} is understood"));
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

    /// White space, line ends and comments.
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
    fn a_file_as_the_installer_writes_it() {
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
    fn what_is_no_assignment_names_its_line() {
        for (text, line, problem) in [
            ("A=1\nif true\n", 2, "expected NAME=value"),
            ("A=1 B=2", 1, "unexpected text behind the value"),
            ("A=(1 # \u{FFFD}\n2)\nB=(3 '/\u{FFFD}') # x\n", 3, "the value is not UTF-8"),
            ("A=\"\u{FFFD}\"\n", 1, "the value is not UTF-8"),
            ("A='x\n", 2, "quote is not closed"),
            ("A=1\n\nB=\"x", 3, "quote is not closed"),
            ("A=(1 2", 1, "array is not closed"),
            ("A=$(rm -rf /)", 1, "commands are not run ($(...))"),
            ("A=\"`id`\"", 1, "commands are not run (`...`)"),
            ("A=${B:-x}", 1, "only ${NAME} is understood"),
            ("A=1 | cat", 1, "unexpected text behind the value"),
            ("A=x|cat", 1, "unexpected shell operator"),
            ("9A=1", 1, "expected NAME=value"),
        ] {
            assert_eq!(read(text), Err(ShellConfigError { line, problem }), "{text}");
        }
    }
}
