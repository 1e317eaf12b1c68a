//! Every byte of a directory tree, to prove that nothing was touched.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a directory held at one moment; links are noted, not followed, except `pg_wal` and tablespaces.
#[derive(PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, size: u64, hash: Option<u64> },
    Link { target: PathBuf },
    Other,
}

impl Tree {
    /// Reads the whole tree; a directory that does not exist is an empty tree.
    pub fn of(root: &Path) -> Tree {
        let mut entries = BTreeMap::new();
        let mut pending = vec![root.to_path_buf()];
        while let Some(path) = pending.pop() {
            let Ok(metadata) = std::fs::symlink_metadata(&path) else {
                assert_eq!(path, root, "{} vanished", path.display());
                continue;
            };
            let name = path.strip_prefix(root).expect("below the root").to_path_buf();
            let mode = metadata.permissions().mode() & 0o7777;
            let followed =
                metadata.is_symlink() && (name == Path::new("pg_wal") || name.starts_with("pg_tblspc"));
            if metadata.is_dir() || followed {
                match std::fs::read_dir(&path) {
                    Ok(list) => pending.extend(list.map(|entry| entry.expect("an entry").path())),
                    Err(error) => assert_closed(&path, &error),
                }
            }
            let entry = if metadata.is_symlink() {
                Entry::Link { target: std::fs::read_link(&path).expect("read a link") }
            } else if metadata.is_dir() {
                Entry::Directory { mode }
            } else if metadata.is_file() {
                Entry::File { mode, size: metadata.len(), hash: hash_of(&path) }
            } else {
                Entry::Other
            };
            entries.insert(name, entry);
        }
        Tree { entries }
    }

    /// All paths, below the root.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    /// Every path that is not the same in both: whether it is in this tree, and in the other.
    pub fn differences<'a>(&'a self, other: &'a Tree) -> impl Iterator<Item = (&'a Path, bool, bool)> {
        let paths: BTreeSet<_> = self.entries.keys().chain(other.entries.keys()).collect();
        let pairs = paths.into_iter().map(|path| (path, self.entries.get(path), other.entries.get(path)));
        pairs
            .filter(|(_, ours, theirs)| ours != theirs)
            .map(|(path, ours, theirs)| (path.as_path(), ours.is_some(), theirs.is_some()))
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Panics, naming every difference, unless the directory still is what it was.
    pub fn assert_unchanged(&self, root: &Path, context: &str) {
        let now = Tree::of(root);
        let names: BTreeSet<_> = self.entries.keys().chain(now.entries.keys()).collect();
        let differences: Vec<String> = names
            .into_iter()
            .filter(|name| self.entries.get(*name) != now.entries.get(*name))
            .map(|name| format!("{name:?}: {:?} became {:?}", self.entries.get(name), now.entries.get(name)))
            .collect();
        assert!(
            differences.is_empty(),
            "{} was changed:\n{}\n{context}",
            root.display(),
            differences.join("\n")
        );
    }
}

/// Not a cryptographic hash: the adversary is a stray write, and speed counts in unoptimised tests. None if a scenario
/// has closed the file to everybody.
fn hash_of(path: &Path) -> Option<u64> {
    let content = std::fs::read(path).inspect_err(|error| assert_closed(path, error)).ok()?;
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(&content);
    Some(hasher.finish())
}

fn assert_closed(path: &Path, error: &std::io::Error) {
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "read {}: {error}", path.display());
}
