//! The blocks that the target's WAL names, and which of them need not be copied.
//!
//! Replay of the common WAL makes some of them anew without looking at what stands on disk. That holds only
//! for the replay it was proven for: one that starts at the same place, and whose common WAL does not end
//! earlier. Another source may ask for another one; then they are copied like all others.

use walparse::{Lsn, PageMap};

use crate::options::RebuiltBlocks;

/// Blocks of main forks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChangedBlocks {
    /// All that were named.
    pub(crate) named: PageMap,
    /// Those among them that replay makes anew.
    pub(crate) rebuilt: PageMap,
    /// Where that replay starts.
    pub(crate) since: Lsn,
    /// Up to where its WAL is known to be common.
    pub(crate) fork: Lsn,
}

impl ChangedBlocks {
    /// The blocks to copy if replay starts at `start` and WAL is common up to `fork`, and the number of those
    /// that are left to replay.
    pub(crate) fn to_copy(&self, start: Lsn, fork: Lsn, choice: RebuiltBlocks) -> (PageMap, u64) {
        let mut blocks = self.named.clone();
        let holds = start == self.since && fork >= self.fork;
        if choice == RebuiltBlocks::Copy || !holds {
            return (blocks, 0);
        }
        blocks.subtract(&self.rebuilt);
        (blocks, self.rebuilt.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walparse::{BlockNumber, Relation};

    #[test]
    fn a_proof_holds_for_its_own_replay_only() {
        let table = Relation { tablespace: 1663, database: 5, number: 16384 };
        let mut changed = ChangedBlocks { since: Lsn(100), fork: Lsn(200), ..ChangedBlocks::default() };
        (0..10).for_each(|block| _ = changed.named.insert(table, BlockNumber(block)));
        (2..5).for_each(|block| _ = changed.rebuilt.insert(table, BlockNumber(block)));
        let copied = |start, fork, choice| {
            let (blocks, left) = changed.to_copy(Lsn(start), Lsn(fork), choice);
            assert_eq!(blocks.len() + left, 10);
            blocks.len()
        };
        assert_eq!(copied(100, 200, RebuiltBlocks::Leave), 7);
        assert_eq!(copied(100, 200, RebuiltBlocks::Copy), 10);
        // Replay that starts earlier reads such a block before it is made anew; one that starts later may
        // not make it anew at all.
        assert_eq!((copied(99, 200, RebuiltBlocks::Leave), copied(101, 200, RebuiltBlocks::Leave)), (10, 10));
        // What makes it anew may lie behind an earlier fork.
        assert_eq!((copied(100, 199, RebuiltBlocks::Leave), copied(100, 201, RebuiltBlocks::Leave)), (10, 7));
    }
}
