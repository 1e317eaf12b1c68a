//! Free space: what a rewind will add to each file system, and whether it fits.
//!
//! What will be removed does not count as free: it goes last.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::EntryKind;
use crate::outcome::SpaceNeed;
use crate::plan::Planned;
use crate::target::TargetError;

/// Added to what is needed on each file system: the source goes on writing, and file systems need a little
/// for themselves. Besides, one hundredth of the need.
const MARGIN: u64 = 8 << 20;

/// What is allocated in: the usual block of a file system.
const BLOCK: u64 = 4096;

/// What the plan needs on every file system it writes to; the journal has so many bytes.
/// `beside` says what is written outside of it besides.
pub(crate) fn needs(
    root: &Path,
    planned: &Planned<'_>,
    journal: u64,
    beside: Option<(&Path, u64)>,
) -> Result<Vec<SpaceNeed>, TargetError> {
    let mut needs = Needs { root, planned, directories: BTreeMap::new(), bytes: BTreeMap::new() };
    // Beside the journal its predecessor and the label may be there for a moment.
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
    if let Some((directory, bytes)) = beside {
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
    /// The file system a directory is on.
    directories: BTreeMap<Option<DataPath>, u64>,
    /// What is added to each, and the first directory found on it.
    bytes: BTreeMap<u64, (PathBuf, u64)>,
}

impl Needs<'_> {
    /// A file will have this length; what it occupies now counts.
    fn grows(&mut self, path: &DataPath, length: u64) -> Result<(), TargetError> {
        let occupied = path.below(self.root).symlink_metadata().map_or(0, |metadata| metadata.blocks() * 512);
        let growth = length.next_multiple_of(BLOCK).saturating_sub(occupied);
        self.add(path.parent().as_ref(), growth)
    }

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

    /// The nearest directory that is there already, and its file system.
    fn place(&self, directory: Option<&DataPath>) -> Result<(PathBuf, u64), TargetError> {
        existing(self.target_of_new_link(directory).unwrap_or_else(|| {
            directory.map_or_else(|| self.root.to_owned(), |directory| directory.below(self.root))
        }))
    }

    /// Where a tablespace link leads that is still to be made, for what lies in it.
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

    fn result(self) -> Result<Vec<SpaceNeed>, TargetError> {
        let need = |(directory, bytes): (PathBuf, u64)| {
            let found = rustix::fs::statvfs(&directory).map_err(|error| TargetError {
                action: "read free space of",
                path: directory.clone(),
                source: error.into(),
            })?;
            let available = found.f_bavail.saturating_mul(found.f_frsize);
            Ok(SpaceNeed { directory, needed: bytes + bytes / 100 + MARGIN, available })
        };
        self.bytes.into_values().map(need).collect()
    }
}

/// The nearest directory that is there already, and its file system.
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
    fn only_those_that_lack_space() {
        let need = |needed, available| SpaceNeed { directory: "/d".into(), needed, available };
        assert_eq!(shortages(&[need(5, 5), need(6, 5), need(0, 0)]), [need(6, 5)]);
    }
}
