//! Rust source as far as imports go: tokens, modules, `use` trees and paths. What is compiled for tests only is left out.

use std::collections::BTreeSet;

/// What a file says that matters here. A module path is counted from the crate's root.
#[derive(Default)]
pub struct Parsed {
    /// The modules inside of the file, with the names defined in each; the first is the file's own.
    pub modules: Vec<Module>,
    /// Names of files that are modules for tests only: `#[cfg(test)] mod name;`.
    pub test_modules: Vec<Vec<String>>,
}

/// One module: the file's own, or one in braces.
#[derive(Default)]
pub struct Module {
    pub path: Vec<String>,
    pub defined: BTreeSet<String>,
    pub uses: Vec<Use>,
    /// Paths in the code, as they stand there.
    pub paths: Vec<Vec<String>>,
    /// All names in the code, outside of `use`.
    pub names: BTreeSet<String>,
}

/// One name of a `use`: `use a::b as c` binds c to a::b; with a star there is no name.
pub struct Use {
    pub path: Vec<String>,
    pub name: Option<String>,
    /// `pub use` and `pub(...) use`.
    pub is_public: bool,
}

/// Reads a file whose own module has this path.
pub fn parse(text: &str, path: &[String]) -> Parsed {
    let mut parser = Parser { tokens: tokens(text), at: 0, parsed: Parsed::default() };
    parser.module(path.to_vec());
    parser.parsed
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
    parsed: Parsed,
}

impl Parser {
    fn token(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", String::as_str)
    }

    /// Reads to the brace that ends the module, or to the end of the file.
    fn module(&mut self, path: Vec<String>) {
        let mut module = Module { path, ..Module::default() };
        let (index, mut depth) = (self.parsed.modules.len(), 0);
        self.parsed.modules.push(Module::default());
        while self.at < self.tokens.len() {
            if self.is_for_tests() {
                self.skip_item(&module.path);
                continue;
            }
            match self.token(0) {
                "{" => depth += 1,
                "}" if depth == 0 => break,
                "}" => depth -= 1,
                "use" => {
                    let is_public = self.at > 0 && ["pub", ")"].contains(&self.tokens[self.at - 1].as_str());
                    self.at += 1;
                    let before = module.uses.len();
                    self.use_tree(Vec::new(), &mut module.uses);
                    module.uses[before..].iter_mut().for_each(|import| import.is_public = is_public);
                    continue;
                }
                "mod" if is_name(self.token(1)) && self.token(2) == "{" => {
                    let inner = [&module.path[..], &[self.token(1).to_owned()]].concat();
                    self.at += 3;
                    self.module(inner);
                }
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" if depth == 0 => {
                    module.defined.insert(self.token(1).to_owned());
                }
                "macro_rules" => {
                    module.defined.insert(self.token(2).to_owned());
                }
                token if is_name(token) && self.token(1) == "::" => {
                    module.names.insert(token.to_owned());
                    module.paths.push(self.path());
                    continue;
                }
                token if is_name(token) => {
                    module.names.insert(token.to_owned());
                }
                _ => {}
            }
            self.at += 1;
        }
        self.parsed.modules[index] = module;
    }

    /// `a::b::c`, from here; it stops before `<` and the like.
    fn path(&mut self) -> Vec<String> {
        let mut path = vec![self.token(0).to_owned()];
        while self.token(1) == "::" && is_name(self.token(2)) {
            self.at += 2;
            path.push(self.token(0).to_owned());
        }
        self.at += 1;
        // The rest of a path after `::<T>` is none of a module's.
        while self.token(0) == "::" {
            self.at += 1;
        }
        path
    }

    /// One tree of a `use`, and the sign that ends it.
    fn use_tree(&mut self, mut prefix: Vec<String>, uses: &mut Vec<Use>) {
        loop {
            let token = self.token(0).to_owned();
            self.at += 1;
            match token.as_str() {
                "::" => {}
                "*" => uses.push(Use { path: prefix.clone(), name: None, is_public: false }),
                "{" => {
                    while self.token(0) != "}" && self.at < self.tokens.len() {
                        self.use_tree(prefix.clone(), uses);
                    }
                    self.at += 1;
                    if self.token(0) == ";" || self.token(0) == "," {
                        self.at += 1;
                    }
                    return;
                }
                "," | ";" | "" => return,
                "}" => {
                    self.at -= 1;
                    return;
                }
                "as" => {
                    let name = self.token(0).to_owned();
                    self.at += 1;
                    uses.last_mut().expect("a name before `as`").name = Some(name);
                }
                name => {
                    if name != "self" || prefix.is_empty() {
                        prefix.push(name.to_owned());
                    }
                    if self.token(0) != "::" {
                        let name = prefix.last().cloned();
                        uses.push(Use { path: prefix.clone(), name, is_public: false });
                    }
                }
            }
        }
    }

    /// Here stands `#[cfg(test)]`, or `#[cfg(all(test, ...))]`.
    fn is_for_tests(&self) -> bool {
        let starts =
            |words: &[&str]| words.iter().enumerate().all(|(ahead, word)| self.token(ahead) == *word);
        starts(&["#", "[", "cfg", "(", "test", ")", "]"])
            || starts(&["#", "[", "cfg", "(", "all", "(", "test", ","])
    }

    /// Passes over the attributes and the item behind them.
    fn skip_item(&mut self, path: &[String]) {
        while self.token(0) == "#" {
            self.skip_to_close();
        }
        while self.at < self.tokens.len() {
            match self.token(0) {
                "mod" if self.token(2) == ";" => {
                    self.parsed.test_modules.push([path, &[self.token(1).to_owned()]].concat());
                }
                "{" => return self.skip_to_close(),
                "(" | "[" => {
                    self.skip_to_close();
                    continue;
                }
                ";" => {
                    self.at += 1;
                    return;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// From before or at an opening bracket to behind the one that closes it.
    fn skip_to_close(&mut self) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match self.token(0) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 && matches!(self.tokens[self.at - 1].as_str(), ")" | "]" | "}") {
                return;
            }
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Names, `::`, and single characters; comments and literals are left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if let Some(length) = literal_or_comment(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            if !first.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// How long the comment, string or character is that begins here, if one does.
fn literal_or_comment(rest: &str) -> Option<usize> {
    let to = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return Some(to("\n", 2));
    }
    if rest.starts_with("/*") {
        return Some(to("*/", 2));
    }
    let raw = rest.strip_prefix('b').or(rest.strip_prefix('c')).unwrap_or(rest);
    if let Some(raw) = raw.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let begin = rest.len() - raw.len() + hashes + 1;
            return Some(to(&format!("\"{}", "#".repeat(hashes)), begin));
        }
    }
    for quote in ['"', '\''] {
        let Some(inside) = raw.strip_prefix(quote) else { continue };
        // A lifetime is not closed: 'a, but 'a' and '\n'.
        let mut signs = inside.chars();
        if quote == '\'' && signs.next() != Some('\\') && signs.next() != Some('\'') {
            return None;
        }
        let mut is_escaped = false;
        let end = inside.char_indices().find(|(_, sign)| {
            let is_end = *sign == quote && !is_escaped;
            is_escaped = *sign == '\\' && !is_escaped;
            is_end
        });
        return Some(rest.len() - inside.len() + end.map_or(inside.len(), |(at, _)| at + 1));
    }
    None
}
