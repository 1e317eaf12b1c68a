//! The list of the files in a data directory.

use std::path::PathBuf;

use crate::datadir::data_path::DataPath;

/// The kind of a directory entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
    },
    /// A directory, or the WAL directory as a symbolic link to one.
    Directory,
    /// A symbolic link: a tablespace below `pg_tblspc`.
    Symlink {
        /// The link's target.
        target: PathBuf,
    },
    /// Anything else: another link, a socket, a pipe, a device.
    Other,
}

/// The entries of a data directory, each path once, in byte order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    entries: Vec<(DataPath, EntryKind)>,
}

impl Inventory {
    /// Builds an inventory from entries in any order.
    ///
    /// # Errors
    /// The first path, in byte order, that occurs twice.
    pub fn new(mut entries: Vec<(DataPath, EntryKind)>) -> Result<Inventory, DataPath> {
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        match entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(pair[0].0.clone()),
            None => Ok(Inventory { entries }),
        }
    }

    /// All entries, in byte order of their paths.
    pub fn entries(&self) -> &[(DataPath, EntryKind)] {
        &self.entries
    }

    /// The kind of the entry at `path`; `None` if there is none.
    pub fn get(&self, path: &DataPath) -> Option<&EntryKind> {
        let at = self.entries.binary_search_by(|entry| entry.0.cmp(path)).ok()?;
        Some(&self.entries[at].1)
    }

    /// The sum of the sizes of all regular files, in bytes.
    pub fn file_bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|(_, kind)| match kind {
            EntryKind::File { size } => *size,
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }
}
