//! Who imports whom: the files of one crate and, for each, which files it uses and by which names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use super::source::{Module, Use, parse};

/// File to file, with the names that are used. A file is named by its path below the sources.
pub type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The files of a crate by their paths below `src`.
pub type Files = BTreeMap<String, String>;

/// Reads all Rust files below a directory.
pub fn read_files(source: &Path) -> Files {
    let (mut files, mut pending) = (Files::new(), vec![source.to_path_buf()]);
    while let Some(directory) = pending.pop() {
        let list = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        for path in list.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(source).expect("below the sources");
                let text = std::fs::read_to_string(&path).expect("a source file");
                files.insert(name.to_str().expect("a UTF-8 name").to_owned(), text);
            }
        }
    }
    files
}

/// All imports between the files of a crate.
pub fn imports(files: &Files) -> Imports {
    let house = House::new(files);
    let mut imports = Imports::new();
    for (path, (file, module)) in &house.modules {
        // What is only passed on, by `pub use`, is an import of those who take it from there.
        let is_used = |import: &&Use| {
            !import.is_public || import.name.as_ref().is_some_and(|name| module.names.contains(name))
        };
        let by_use = module.uses.iter().filter(is_used).map(|import| (&import.path, import.name.is_none()));
        for (used, is_glob) in by_use.chain(module.paths.iter().map(|path| (path, false))) {
            let found = match house.resolve(path, used, 0) {
                Some(Found::Item(other, name)) => (other, name),
                // A module is only named here; what is used of it stands elsewhere in the file, unless it is all.
                Some(Found::Module(other)) if is_glob => (house.file_of(&other), "*".into()),
                _ => continue,
            };
            if found.0 != *file {
                imports.entry(file.clone()).or_default().entry(found.0).or_default().insert(found.1);
            }
        }
    }
    imports
}

/// The shortest circle through each file that is in one, as lines `file -> file (names)`; each once.
pub fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let (mut found, mut known) = (Vec::new(), BTreeSet::new());
    for circle in imports.keys().filter_map(|start| shortest_circle(imports, start)) {
        if known.insert(circle.iter().copied().collect::<BTreeSet<_>>()) {
            let next = circle.iter().skip(1).chain([&circle[0]]);
            found.push(circle.iter().zip(next).map(|(from, to)| arrow(imports, from, to)).collect());
        }
    }
    found
}

/// `from -> to (names)`.
pub fn arrow(imports: &Imports, from: &str, to: &str) -> String {
    let names: Vec<&str> = imports[from][to].iter().map(String::as_str).collect();
    format!("{from} -> {to} ({})", names.join(", "))
}

/// The files on the shortest way from a file back to it.
fn shortest_circle<'a>(imports: &'a Imports, start: &'a str) -> Option<Vec<&'a str>> {
    let (mut came_from, mut pending) = (BTreeMap::<&str, &str>::new(), VecDeque::from([start]));
    while let Some(file) = pending.pop_front() {
        for next in imports.get(file).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut circle = vec![file];
                while let Some(&before) = came_from.get(circle[circle.len() - 1]) {
                    circle.push(before);
                }
                circle.reverse();
                return Some(circle);
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, file);
                pending.push_back(next);
            }
        }
    }
    None
}

enum Found {
    Module(Vec<String>),
    /// The file that defines it, and its name.
    Item(String, String),
}

/// The modules of a crate by their paths, each with its file.
struct House {
    modules: BTreeMap<Vec<String>, (String, Module)>,
}

impl House {
    fn new(files: &Files) -> House {
        let parsed = files.iter().map(|(file, text)| (file, parse(text, &module_of(file))));
        let parsed: Vec<_> = parsed.collect();
        let for_tests: Vec<_> = parsed.iter().flat_map(|(_, parsed)| parsed.test_modules.clone()).collect();
        let mut modules = BTreeMap::new();
        for (file, parsed) in parsed {
            for module in parsed.modules {
                if !for_tests.iter().any(|path| module.path.starts_with(path)) {
                    modules.insert(module.path.clone(), (file.clone(), module));
                }
            }
        }
        House { modules }
    }

    fn file_of(&self, module: &[String]) -> String {
        self.modules[module].0.clone()
    }

    /// Follows a path as it stands in a module. None if it leads out of the crate.
    fn resolve(&self, at: &[String], path: &[String], depth: u32) -> Option<Found> {
        let mut module = at.to_vec();
        let mut names = path.iter().peekable();
        while let Some(name) = names.next_if(|name| ["crate", "self", "super"].contains(&name.as_str())) {
            match name.as_str() {
                "crate" => module.clear(),
                "super" => drop(module.pop()),
                _ => {}
            }
        }
        let is_relative = names.len() == path.len();
        if is_relative && !self.knows(&module, &path[0]) {
            return None;
        }
        while let Some(name) = names.next() {
            let child = [&module[..], std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            // A re-export leads to the file where it is defined.
            if depth < 10
                && let Some(import) = self.binding(&module, name)
            {
                let rest: Vec<String> = names.cloned().collect();
                return self.resolve(&module, &[import, &rest[..]].concat(), depth + 1);
            }
            let file = self.defining_file(&module, name, depth).unwrap_or_else(|| self.file_of(&module));
            return Some(Found::Item(file, name.clone()));
        }
        Some(Found::Module(module))
    }

    /// Whether a path may begin with this name in a module: one of its modules, or something that it imports.
    fn knows(&self, module: &[String], name: &String) -> bool {
        self.modules.contains_key(&[module, std::slice::from_ref(name)].concat())
            || self.binding(module, name).is_some()
    }

    /// What a name is bound to by a `use`, unless it binds a name to itself.
    fn binding(&self, module: &[String], name: &String) -> Option<&[String]> {
        let uses = &self.modules.get(module)?.1.uses;
        let import = uses.iter().find(|import| import.name.as_ref() == Some(name))?;
        (import.path[..] != [name.clone()]).then_some(&import.path)
    }

    /// Looks for a name in the module itself, then through the stars of its `use`.
    fn defining_file(&self, module: &[String], name: &String, depth: u32) -> Option<String> {
        let (file, content) = self.modules.get(module)?;
        if content.defined.contains(name) || depth >= 10 {
            return content.defined.contains(name).then(|| file.clone());
        }
        let stars = content.uses.iter().filter(|import| import.name.is_none());
        stars.into_iter().find_map(|star| match self.resolve(module, &star.path, depth + 1) {
            Some(Found::Module(other)) if other != module => self.defining_file(&other, name, depth + 1),
            _ => None,
        })
    }
}

/// `a/b.rs` and `a/b/mod.rs` are the module a::b; `lib.rs` and `main.rs` are the root.
fn module_of(file: &str) -> Vec<String> {
    let mut path: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let last = path.last().map(String::as_str);
    if last == Some("mod") || path == ["lib"] || path == ["main"] {
        path.pop();
    }
    path
}
