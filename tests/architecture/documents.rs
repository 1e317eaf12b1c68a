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
fn plain(path: &Path) -> PathBuf {
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
