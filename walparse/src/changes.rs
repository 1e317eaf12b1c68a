//! The blocks that the records of a range of WAL refer to, and which of them replay rebuilds.
//!
//! Invariant: a block counts as rebuilt only if the *first* record that refers to it rebuilds it. Then replay of the range
//! never reads its previous contents. Adjacent ranges can be joined.

use crate::changed_rows::ChangedRows;
use crate::file_changes::FileChanges;
use crate::lsn::BlockNumber;
use crate::page_map::PageMap;
use crate::relation::Relation;
use crate::transactions::Transactions;

/// The size of the cache of blocks that are in the map already. Most records refer to a block that a recent record has
/// referred to.
const RECENT: usize = 1 << RECENT_BITS;

/// 64 kB for each segment being read, which fit into the processor's cache.
const RECENT_BITS: u32 = 12;

/// A relation and a block, as one number.
type Key = u128;

/// No block: the block number in this key is `InvalidBlockNumber`.
const NO_BLOCK: Key = Key::MAX;

/// The changes of a range of WAL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    named: PageMap,
    /// A subset of `named`.
    rebuilt: PageMap,
    /// Replay copies relation files in this range. Blocks that are first referred to later may be copied before they are
    /// rebuilt, so they do not count as rebuilt.
    proves_no_more: bool,
    /// What the records say about files besides.
    pub(crate) files: FileChanges,
    /// What transactions did.
    pub(crate) transactions: Transactions,
    /// The rows that they changed, if asked for.
    pub(crate) rows: ChangedRows,
    /// A cache of blocks in `named`, indexed by hash. Allocated for the first block.
    recent: Vec<Key>,
}

impl Changes {
    /// Adds a block that the next record refers to. `is_rebuilt`: replay of that record rebuilds the block.
    #[inline]
    pub(crate) fn insert(&mut self, relation: Relation, block: BlockNumber, is_rebuilt: bool) {
        if self.recent.is_empty() {
            self.recent = vec![NO_BLOCK; RECENT];
        }
        let key = key(relation, block);
        let place = &mut self.recent[hash(key)];
        if *place == key && key != NO_BLOCK {
            return;
        }
        *place = key;
        if self.named.insert(relation, block) && is_rebuilt && !self.proves_no_more {
            self.rebuilt.insert(relation, block);
        }
    }

    /// Blocks added from here on do not count as rebuilt.
    pub(crate) fn prove_no_more(&mut self) {
        self.proves_no_more = true;
    }

    /// No block counts as rebuilt, not even those added so far.
    pub(crate) fn forget_proofs(&mut self) {
        self.rebuilt.clear();
        self.proves_no_more = true;
    }

    /// Adds the changes of the range that follows.
    pub(crate) fn append(&mut self, mut later: Changes) {
        if !self.proves_no_more {
            later.rebuilt.subtract(&self.named);
            self.rebuilt.merge(later.rebuilt);
        }
        self.named.merge(later.named);
        self.files.append(later.files);
        self.transactions.append(later.transactions);
        self.rows.append(later.rows);
        self.proves_no_more |= later.proves_no_more;
    }

    /// Adds the changes of the range before.
    pub(crate) fn prepend(&mut self, mut earlier: Changes) {
        std::mem::swap(self, &mut earlier);
        self.append(earlier);
    }

    /// All blocks, those of them that are rebuilt, the changes of files, and the transactions.
    pub(crate) fn into_parts(self) -> (PageMap, PageMap, FileChanges, Transactions) {
        (self.named, self.rebuilt, self.files, self.transactions)
    }
}

fn key(relation: Relation, block: BlockNumber) -> Key {
    let [high, low] = [[relation.tablespace, relation.database], [relation.number, block.0]]
        .map(|[high, low]| u64::from(high) << 32 | u64::from(low));
    Key::from(high) << 64 | Key::from(low)
}

/// Hashes the relation number and the block.
fn hash(key: Key) -> usize {
    ((key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - RECENT_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };

    /// A record that refers to a block of a relation and may rebuild it; `None` is a record that copies files.
    type Step = Option<(u32, u32, bool)>;

    fn changes(steps: &[Step]) -> Changes {
        let mut changes = Changes::default();
        for step in steps {
            match *step {
                None => changes.prove_no_more(),
                Some((number, block, is_rebuilt)) => {
                    changes.insert(Relation { number, ..TABLE }, BlockNumber(block), is_rebuilt);
                }
            }
        }
        changes
    }

    /// Their blocks have the same place in the cache.
    #[test]
    fn relations_with_the_same_number_are_distinguished() {
        let other_database = Relation { database: 6, ..TABLE };
        let other_tablespace = Relation { tablespace: 1664, ..TABLE };
        let relations = [TABLE, other_database, other_tablespace];
        let mut changes = Changes::default();
        for relation in relations.into_iter().cycle().take(9) {
            changes.insert(relation, BlockNumber(7), true);
        }
        // The key of no block, at an unused place in the cache.
        let last = Relation { tablespace: u32::MAX, database: u32::MAX, number: u32::MAX };
        changes.insert(last, BlockNumber(u32::MAX), false);
        let (named, rebuilt, ..) = changes.into_parts();
        assert_eq!((named.len(), rebuilt.len()), (4, 3));
        assert!(relations.iter().all(|relation| rebuilt.contains(*relation, BlockNumber(7))));
    }

    proptest! {
        /// However a range is divided, its parts joined are equal to the whole.
        #[test]
        fn joined_parts_are_equal_to_the_whole(
            steps in prop::collection::vec(
                prop_oneof![30 => (1u32..3, 0u32..40, any::<bool>()).prop_map(Some), 1 => Just(None)], 0..120
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            is_upwards: bool,
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(steps.len() + 1)).collect();
            cuts.extend([0, steps.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|pair| changes(&steps[pair[0]..pair[1]]));
            let joined = if is_upwards {
                parts.fold(Changes::default(), |mut all, part| { all.append(part); all })
            } else {
                parts.rev().fold(Changes::default(), |mut all, part| { all.prepend(part); all })
            };
            let (named, rebuilt, ..) = joined.into_parts();
            let mut first = std::collections::BTreeMap::new();
            let mut copied = false;
            for step in &steps {
                match *step {
                    None => copied = true,
                    Some((number, block, is_rebuilt)) => _ = first.entry((number, block)).or_insert(is_rebuilt && !copied),
                }
            }
            let (mut all, mut expected) = (PageMap::new(), PageMap::new());
            for ((number, block), is_rebuilt) in first {
                let relation = Relation { number, ..TABLE };
                all.insert(relation, BlockNumber(block));
                if is_rebuilt {
                    expected.insert(relation, BlockNumber(block));
                }
            }
            prop_assert_eq!(named, all);
            prop_assert_eq!(rebuilt, expected);
        }
    }
}
