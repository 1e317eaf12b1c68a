//! What records changed, in their order: which blocks they name, and which of these replay makes anew.
//!
//! It keeps one invariant: a block is rebuilt only if the *first* record that names it rebuilds it, so that
//! replay of the whole stretch never looks at what stood there before. Stretches are joined in their order.

use crate::lsn::BlockNumber;
use crate::page_map::PageMap;
use crate::relation::Relation;

/// Blocks remembered to be in the map already: most records name one that another has named not long ago.
const RECENT: usize = 1 << RECENT_BITS;

/// 64 kB for each segment at work: those of the one being read stay in the processor's cache.
const RECENT_BITS: u32 = 12;

/// Relation and block in one number.
type Key = u128;

/// The key of no block: its number would be `InvalidBlockNumber`.
const NO_BLOCK: Key = Key::MAX;

/// The changes of a stretch of WAL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    named: PageMap,
    /// A subset of these.
    rebuilt: PageMap,
    /// Files were copied as they stood: what is named only later could have been copied before replay
    /// rebuilds it.
    proves_no_more: bool,
    /// Some of the blocks named, each at the place its hash says. Empty until the first.
    recent: Vec<Key>,
}

impl Changes {
    /// Adds a block that the next record names; `is_rebuilt` says that replay of that record rebuilds it.
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

    /// From here on no block counts as rebuilt.
    pub(crate) fn prove_no_more(&mut self) {
        self.proves_no_more = true;
    }

    /// Not even those so far.
    pub(crate) fn forget_proofs(&mut self) {
        self.rebuilt.clear();
        self.proves_no_more = true;
    }

    /// Adds the changes of the stretch that follows.
    pub(crate) fn go_on_with(&mut self, mut later: Changes) {
        if !self.proves_no_more {
            later.rebuilt.subtract(&self.named);
            self.rebuilt.merge(later.rebuilt);
        }
        self.named.merge(later.named);
        self.proves_no_more |= later.proves_no_more;
    }

    /// Adds the changes of the stretch before.
    pub(crate) fn go_behind(&mut self, mut earlier: Changes) {
        std::mem::swap(self, &mut earlier);
        self.go_on_with(earlier);
    }

    /// All blocks named, and those among them that are rebuilt.
    pub(crate) fn into_maps(self) -> (PageMap, PageMap) {
        (self.named, self.rebuilt)
    }
}

fn key(relation: Relation, block: BlockNumber) -> Key {
    let [high, low] = [[relation.tablespace, relation.database], [relation.number, block.0]]
        .map(|[high, low]| u64::from(high) << 32 | u64::from(low));
    Key::from(high) << 64 | Key::from(low)
}

/// By relation number and block.
fn hash(key: Key) -> usize {
    ((key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - RECENT_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };

    /// Blocks of two relations, each named by a record that rebuilds it or not; `None` copies files.
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

    /// Their blocks have the same place among those remembered.
    #[test]
    fn relations_with_the_same_number_are_told_apart() {
        let other_database = Relation { database: 6, ..TABLE };
        let other_tablespace = Relation { tablespace: 1664, ..TABLE };
        let relations = [TABLE, other_database, other_tablespace];
        let mut changes = Changes::default();
        for relation in relations.into_iter().cycle().take(9) {
            changes.insert(relation, BlockNumber(7), true);
        }
        // The number of no block, in the place of one that was never used.
        let last = Relation { tablespace: u32::MAX, database: u32::MAX, number: u32::MAX };
        changes.insert(last, BlockNumber(u32::MAX), false);
        let (named, rebuilt) = changes.into_maps();
        assert_eq!((named.len(), rebuilt.len()), (4, 3));
        assert!(relations.iter().all(|relation| rebuilt.contains(*relation, BlockNumber(7))));
    }

    proptest! {
        /// However a stretch is cut, its parts together say what it says.
        #[test]
        fn joined_parts_are_the_whole(
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
                parts.fold(Changes::default(), |mut all, part| { all.go_on_with(part); all })
            } else {
                parts.rev().fold(Changes::default(), |mut all, part| { all.go_behind(part); all })
            };
            let (named, rebuilt) = joined.into_maps();
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
