//! Links in the documents: each leads to a file that is there, and to a heading of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// All documents: at the top, in `docs/`, and the page of each crate.
pub fn documents(repository: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest = vec![repository.to_owned(), repository.join("docs")];
    rest.extend(super::CRATES.iter().map(|name| repository.join(name)));
    while let Some(directory) = rest.pop() {
        for entry in fs::read_dir(&directory).expect("list a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && directory.starts_with(repository.join("docs")) {
                rest.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The links of a document that lead nowhere.
pub fn broken_links(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).expect("read a document");
    let directory = document.parent().expect("a directory");
    let is_broken = |link: &&str| {
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let to = if file.is_empty() { document.to_owned() } else { plain(&directory.join(file)) };
        if !to.exists() {
            return true;
        }
        !heading.is_empty() && !headings(&fs::read_to_string(to).unwrap_or_default()).contains(heading)
    };
    links(&text).into_iter().filter(is_broken).map(str::to_owned).collect()
}

/// The links of a document that lead out of `directory`, of which a site is made.
pub fn links_out_of(directory: &Path, document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).expect("read a document");
    let here = document.parent().expect("a directory");
    let is_outside = |link: &&str| !plain(&here.join(link)).starts_with(directory);
    links(&text).into_iter().filter(is_outside).map(str::to_owned).collect()
}

/// The links within the repository, in Markdown's form `[text](link)`.
fn links(text: &str) -> Vec<&str> {
    let ends = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    let links = ends.filter_map(|rest| rest.split_once(')').map(|(link, _)| link));
    links.filter(|link| !link.contains("://") && !link.contains([' ', '\n'])).collect()
}

/// The anchors of the headings, as forges make them.
fn headings(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    lines.map(anchor).collect()
}

/// Without `..`.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part)
        }
    }
    plain
}

/// What is wrong with the code blocks of a document whose blocks are to be copied: a block without fence or language, and a line
/// that is no command among commands.
pub fn uncopyable_blocks(text: &str) -> Vec<String> {
    const PROGRAMS: [&str; 4] = ["bash ", "cargo ", "export ", "kbrecover "];
    let (mut wrong, mut language, mut continues, mut before) = (Vec::new(), None, false, "");
    for line in text.lines() {
        match (language, line.strip_prefix("```")) {
            (None, Some(name)) => {
                if !["sh", "text"].contains(&name) {
                    wrong.push(format!("a block is neither sh nor text: {line}"));
                }
                language = Some(name);
            }
            (Some(_), Some(_)) => language = None,
            (None, None) if line.starts_with("    ") && before.is_empty() => {
                wrong.push(format!("a block without fence: {line}"));
            }
            (Some("sh"), None) => {
                if !continues && !PROGRAMS.iter().any(|program| line.starts_with(program)) {
                    wrong.push(format!("no command: {line}"));
                }
                continues = line.ends_with('\\');
            }
            _ => {}
        }
        before = line;
    }
    wrong
}

/// The pages that a list of contents leads to, by their paths beside it.
pub fn pages_of(contents: &str) -> BTreeSet<String> {
    links(contents).into_iter().map(str::to_owned).collect()
}
