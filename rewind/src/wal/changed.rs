//! The blocks that may differ, and which of them need not be copied.
//!
//! Replay restores some of these blocks completely, whatever is on disk: from full-page images, or by initializing the
//! page. Such a block is one of which the first record since the start of replay does that, so that replay never reads what
//! stands there.
//!
//! - Replay from the last common checkpoint: by the common WAL, which the target has. This is proven only for a replay that
//!   starts at the same position and whose common WAL does not end earlier. Another source may require another replay;
//!   then these blocks are copied like all others.
//! - Replay from the source's newest checkpoint: by the source's WAL from there to its end at the time of the survey. All of
//!   it is replayed, since the node is consistent only at the minRecoveryPoint, which is the end of that WAL at the end of
//!   the copy. Another source may have other WAL after the same checkpoint. So these blocks are not noted in the journal,
//!   and a run that resumes copies them unless its own source's WAL proves the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use walparse::{BlockNumber, ControlFile, DatabaseDir, Lsn, PageMap, RelSegment, Relation, RelationBlocks};

use crate::datadir::inventory::{EntryKind, Inventory};

use crate::options::RebuiltBlocks;

/// Blocks of main forks, by relation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChangedBlocks {
    /// All blocks that the WAL references.
    pub(crate) named: PageMap,
    /// Those of them that replay restores.
    pub(crate) rebuilt: PageMap,
    /// The position at which that replay starts.
    pub(crate) since: Lsn,
    /// The position up to which its WAL is known to be common.
    pub(crate) fork: Lsn,
}

/// Blocks that replay restores by the source's own WAL.
#[derive(Clone, Debug, Default)]
pub(crate) struct BySource {
    pub(crate) blocks: PageMap,
    /// How far that WAL must be replayed for it.
    pub(crate) until: Lsn,
}

impl ChangedBlocks {
    /// The blocks to copy if replay starts at `start` and WAL is common up to `fork`, and the number of blocks that are
    /// not copied because replay restores them. Replay from `start` restores `by_source`, too.
    pub(crate) fn to_copy(
        &self,
        (start, fork): (Lsn, Lsn),
        by_source: &PageMap,
        choice: RebuiltBlocks,
    ) -> (PageMap, u64) {
        let mut blocks = self.named.clone();
        if choice == RebuiltBlocks::Leave {
            if start == self.since && fork >= self.fork {
                blocks.subtract(&self.rebuilt);
            }
            blocks.subtract(by_source);
        }
        let left = self.named.len() - blocks.len();
        (blocks, left)
    }
}

/// Relation files about which records do not say everything: all their blocks may differ.
#[derive(Clone, Debug, Default)]
pub(crate) struct WholeFiles {
    /// Relations of which a file was created. Both sides may have used the same file number, and no record refers to
    /// pages that are still empty.
    pub(crate) relations: BTreeSet<Relation>,
    /// Database directories that were copied as files.
    pub(crate) directories: Vec<DatabaseDir>,
    /// Relations that were truncated, with the number of blocks that remained. No record refers to
    /// pages that were added again and are still empty.
    pub(crate) truncated: BTreeMap<Relation, BlockNumber>,
}

impl WholeFiles {
    /// The first block of a relation from which on all may differ.
    pub(crate) fn first_block(&self, relation: Relation) -> Option<u32> {
        let directory = DatabaseDir { tablespace: relation.tablespace, database: relation.database };
        if self.relations.contains(&relation) || self.directories.contains(&directory) {
            return Some(0);
        }
        self.truncated.get(&relation).map(|blocks| blocks.0)
    }
}

impl ChangedBlocks {
    /// Adds every block of `whole` that the target's files have. `files` are the target's as they were before any
    /// rewind, `control` its control file.
    pub(crate) fn add_whole_files(&mut self, whole: &WholeFiles, files: &Inventory, control: &ControlFile) {
        for (file, blocks) in relation_files(files, control) {
            let Some(from) = whole.first_block(file.relation) else { continue };
            let mut all = RelationBlocks::new();
            all.insert_range(blocks.start.max(from)..blocks.end);
            self.named.insert_all(file.relation, all);
        }
    }

    /// The bytes of the blocks of `more` that the target's files have and that are not in this map.
    pub(crate) fn bytes_missing(&self, more: &PageMap, files: &Inventory, control: &ControlFile) -> u64 {
        let mut missing = 0;
        for (file, blocks) in relation_files(files, control) {
            let Some(more) = more.blocks(file.relation) else { continue };
            let named = self.named.blocks(file.relation);
            let is_named = |block| named.is_some_and(|named| named.contains(block));
            missing += more.range(blocks).filter(|block| !is_named(*block)).count() as u64;
        }
        missing * u64::from(control.block_size())
    }
}

/// The relation files among `files`, with the numbers of their blocks. `control` is their cluster's control file.
pub(crate) fn relation_files<'a>(
    files: &'a Inventory,
    control: &'a ControlFile,
) -> impl Iterator<Item = (RelSegment, Range<u32>)> + 'a {
    let (block_size, per_segment) = (u64::from(control.block_size()), control.relation_segment_blocks());
    files.entries().iter().filter_map(move |(path, kind)| {
        let EntryKind::File { size } = kind else { return None };
        let file = RelSegment::parse(path.as_str()?, control.version())?;
        let first = file.segment.saturating_mul(per_segment);
        let blocks = size.div_ceil(block_size).min(u64::from(per_segment)) as u32;
        Some((file, first..first.saturating_add(blocks)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebuilt_blocks_are_left_out_only_for_the_proven_replay() {
        let table = Relation { tablespace: 1663, database: 5, number: 16384 };
        let mut changed = ChangedBlocks { since: Lsn(100), fork: Lsn(200), ..ChangedBlocks::default() };
        (0..10).for_each(|block| _ = changed.named.insert(table, BlockNumber(block)));
        (2..5).for_each(|block| _ = changed.rebuilt.insert(table, BlockNumber(block)));
        let copied = |start, fork, choice| {
            let (blocks, left) = changed.to_copy((Lsn(start), Lsn(fork)), &PageMap::new(), choice);
            assert_eq!(blocks.len() + left, 10);
            blocks.len()
        };
        assert_eq!(copied(100, 200, RebuiltBlocks::Leave), 7);
        assert_eq!(copied(100, 200, RebuiltBlocks::Copy), 10);
        // Replay that starts earlier may read such a block before restoring it; one that starts later may not restore
        // it at all.
        assert_eq!((copied(99, 200, RebuiltBlocks::Leave), copied(101, 200, RebuiltBlocks::Leave)), (10, 10));
        // The record that restores a block may be beyond an earlier fork.
        assert_eq!((copied(100, 199, RebuiltBlocks::Leave), copied(100, 201, RebuiltBlocks::Leave)), (10, 7));
        // The source's own WAL restores three others, and one that need not be copied anyway.
        let mut by_source = PageMap::new();
        (7..=10).for_each(|block| _ = by_source.insert(table, BlockNumber(block)));
        let (later, all) = ((Lsn(300), Lsn(200)), RebuiltBlocks::Copy);
        let (blocks, left) = changed.to_copy(later, &by_source, RebuiltBlocks::Leave);
        assert_eq!((blocks.len(), left), (7, 3));
        assert_eq!(changed.to_copy(later, &by_source, all).1, 0);
    }
}
