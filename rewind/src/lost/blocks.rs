//! Blocks of the target's relation files, as they are on disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use walparse::{ControlFile, RelSegment, Relation};

/// Reads blocks of a data directory.
pub(super) struct DiskBlocks<'a> {
    root: &'a Path,
    control: &'a ControlFile,
}

impl<'a> DiskBlocks<'a> {
    pub(super) fn new(root: &'a Path, control: &'a ControlFile) -> DiskBlocks<'a> {
        DiskBlocks { root, control }
    }

    /// A block; `None` if there is none, or it cannot be read: then its rows are not known.
    pub(super) fn read(&self, relation: Relation, block: u32) -> Option<Vec<u8>> {
        let in_file = self.control.relation_segment_blocks().max(1);
        let file = File::open(self.path(relation, block / in_file)).ok()?;
        let mut page = vec![0; self.control.block_size() as usize];
        let offset = u64::from(block % in_file) * u64::from(self.control.block_size());
        file.read_exact_at(&mut page, offset).ok()?;
        Some(page)
    }

    /// The number of blocks of a relation.
    pub(super) fn count(&self, relation: Relation) -> u32 {
        let in_file = self.control.relation_segment_blocks().max(1);
        let mut count = 0u32;
        for segment in 0.. {
            let Ok(metadata) = self.path(relation, segment).metadata() else { break };
            let here = metadata.len() / u64::from(self.control.block_size());
            count = count.saturating_add(u32::try_from(here).unwrap_or(u32::MAX));
            if here < u64::from(in_file) {
                break;
            }
        }
        count
    }

    fn path(&self, relation: Relation, segment: u32) -> PathBuf {
        self.root.join(RelSegment { relation, segment }.path(self.control.version()))
    }
}
