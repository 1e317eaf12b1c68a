//! Free space: how much a rewind adds to each file system, and whether there is room.
//!
//! The space of files that will be removed does not count as free, because they are removed last.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::EntryKind;
use crate::outcome::SpaceNeed;
use crate::plan::Planned;
use crate::target::TargetError;

/// What is done when the system does not tell how much is free.
pub(super) const READ_FREE_SPACE: &str = "read free space of";

/// Bytes added to the need of each file system, along with one hundredth of it: the source goes on writing, and file
/// systems need some space for themselves.
const MARGIN: u64 = 8 << 20;

/// Bytes that file systems usually allocate at a time.
const BLOCK: u64 = 4096;

/// The space that the plan needs on every file system it writes to. `journal` is the size of the journal in bytes.
/// `saved` is the directory in which discarded data is saved, and the bytes needed there.
///
/// # Errors
/// The file system of a directory, or its free space, could not be determined.
pub(crate) fn needs(
    root: &Path,
    planned: &Planned<'_>,
    journal: u64,
    saved: Option<(&Path, u64)>,
) -> Result<Vec<SpaceNeed>, TargetError> {
    let mut needs = Needs { root, planned, directories: BTreeMap::new(), bytes: BTreeMap::new() };
    // Journal and label are replaced by renaming, so old and new ones exist at once.
    needs.add(None, 2 * (journal + BLOCK))?;
    let plan = &planned.plan;
    for (path, kind) in &plan.create {
        needs.add(path.parent().as_ref(), BLOCK)?;
        if matches!(kind, EntryKind::Symlink { .. }) {
            needs.add(Some(path), BLOCK)?;
        }
    }
    for (path, size) in &plan.copy {
        needs.grows(path, *size)?;
    }
    for patch in &plan.patch {
        needs.grows(&patch.path, patch.size)?;
    }
    for tail in &plan.copy_tail {
        needs.grows(&tail.path, tail.to)?;
    }
    let geometry = planned.facts.clusters.target.geometry();
    let wal_dir = geometry.version.wal_dir();
    let copied = plan.wal.copy.iter().map(|file| (&file.name, file.full_length));
    let elsewhere = plan.wal.elsewhere.iter().map(|name| (name, geometry.segment_size.bytes()));
    for (name, length) in copied.chain(elsewhere) {
        if let Ok(path) = DataPath::parse(format!("{wal_dir}/{name}")) {
            needs.grows(&path, length)?;
        }
    }
    if let Some((directory, bytes)) = saved {
        let (place, device) = existing(directory.to_owned())?;
        needs.bytes.entry(device).or_insert((place, 0)).1 += bytes;
    }
    needs.result()
}

/// The file systems that lack space.
pub(crate) fn shortages(needs: &[SpaceNeed]) -> Vec<SpaceNeed> {
    needs.iter().filter(|need| need.needed > need.available).cloned().collect()
}

struct Needs<'a> {
    root: &'a Path,
    planned: &'a Planned<'a>,
    /// The device number of the file system that a directory is on.
    directories: BTreeMap<Option<DataPath>, u64>,
    /// By device number: the first directory found on the file system, and the bytes added to it.
    bytes: BTreeMap<u64, (PathBuf, u64)>,
}

impl Needs<'_> {
    /// Counts the growth of a file to `length` bytes; the space that it occupies now is deducted.
    fn grows(&mut self, path: &DataPath, length: u64) -> Result<(), TargetError> {
        let occupied = path.below(self.root).symlink_metadata().map_or(0, |metadata| metadata.blocks() * 512);
        let growth = length.next_multiple_of(BLOCK).saturating_sub(occupied);
        self.add(path.parent().as_ref(), growth)
    }

    /// Counts bytes added below a directory (`None`: the data directory).
    fn add(&mut self, directory: Option<&DataPath>, bytes: u64) -> Result<(), TargetError> {
        let key = directory.cloned();
        let device = match self.directories.get(&key) {
            Some(device) => *device,
            None => {
                let (place, device) = self.place(directory)?;
                self.bytes.entry(device).or_insert((place, 0));
                self.directories.insert(key, device);
                device
            }
        };
        if let Some((_, sum)) = self.bytes.get_mut(&device) {
            *sum += bytes;
        }
        Ok(())
    }

    /// The nearest directory above that exists, and its device number.
    fn place(&self, directory: Option<&DataPath>) -> Result<(PathBuf, u64), TargetError> {
        existing(self.target_of_new_link(directory).unwrap_or_else(|| {
            directory.map_or_else(|| self.root.to_owned(), |directory| directory.below(self.root))
        }))
    }

    /// The directory of a new tablespace, if `directory` lies below a link that the plan creates.
    fn target_of_new_link(&self, directory: Option<&DataPath>) -> Option<PathBuf> {
        let mut at = directory.cloned();
        while let Some(path) = at {
            if let Some(EntryKind::Symlink { target }) = self.planned.plan.new_entry(&path) {
                return Some(target.clone());
            }
            at = path.parent();
        }
        None
    }

    /// Adds the margin, and reads the free space of every file system.
    fn result(self) -> Result<Vec<SpaceNeed>, TargetError> {
        let need = |(directory, bytes): (PathBuf, u64)| {
            let found = rustix::fs::statvfs(&directory).map_err(|error| TargetError {
                action: READ_FREE_SPACE,
                path: directory.clone(),
                source: error.into(),
            })?;
            let available = found.f_bavail.saturating_mul(found.f_frsize);
            Ok(SpaceNeed { directory, needed: bytes + bytes / 100 + MARGIN, available })
        };
        self.bytes.into_values().map(need).collect()
    }
}

/// The nearest directory at or above `place` that exists, and its device number.
fn existing(mut place: PathBuf) -> Result<(PathBuf, u64), TargetError> {
    loop {
        match place.metadata() {
            Ok(metadata) => return Ok((place, metadata.dev())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && place.pop() => {}
            Err(source) => return Err(TargetError { action: "find file system of", path: place, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortages_are_needs_above_the_free_space() {
        let need = |needed, available| SpaceNeed { directory: "/d".into(), needed, available };
        assert_eq!(shortages(&[need(5, 5), need(6, 5), need(0, 0)]), [need(6, 5)]);
    }
}
