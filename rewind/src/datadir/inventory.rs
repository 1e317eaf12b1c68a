//! What is in a data directory: the listing that both sides give.

use std::path::PathBuf;

use crate::datadir::data_path::DataPath;

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A regular file of this many bytes.
    File {
        /// Its length.
        size: u64,
    },
    /// A directory; also the WAL directory when it is a symbolic link to one.
    Directory,
    /// A symbolic link: a tablespace below `pg_tblspc`.
    Symlink {
        /// What it points to.
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
    /// Sorts the entries.
    ///
    /// # Errors
    /// The first path that occurs twice.
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

    /// What stands at `path`, if anything.
    pub fn get(&self, path: &DataPath) -> Option<&EntryKind> {
        let at = self.entries.binary_search_by(|entry| entry.0.cmp(path)).ok()?;
        Some(&self.entries[at].1)
    }

    /// The sum of the sizes of all files.
    pub fn file_bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|(_, kind)| match kind {
            EntryKind::File { size } => *size,
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }
}
