//! Sets of changed blocks.
//!
//! The main fork of each relation has a compressed bitmap, which takes at most 8 kB for 65,536 consecutive blocks (half a
//! gigabyte of data), 2 bytes for an isolated block, and about 100 bytes for the relation. Ten million changed blocks
//! take at most 20 MB.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use crate::lsn::BlockNumber;
use crate::relation::{RelSegment, Relation};

/// A set of blocks of the main forks of relations.
///
/// ```
/// use walparse::{BlockNumber, PageMap, RelSegment, Relation};
///
/// let table = Relation { tablespace: 1663, database: 5, number: 16384 };
/// let mut changed = PageMap::new();
/// for block in [7, 131_075, 7] {
///     changed.insert(table, BlockNumber(block));
/// }
/// assert_eq!(changed.len(), 2);
/// // The blocks in the relation's second file, `16384.1`.
/// let file = RelSegment { relation: table, segment: 1 };
/// assert_eq!(changed.blocks_in(file, 131_072).collect::<Vec<_>>(), [BlockNumber(131_075)]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct PageMap {
    relations: Vec<(Relation, RoaringBitmap)>,
    places: HashMap<Relation, usize>,
    /// The index of the relation last used: consecutive records often refer to the same relation.
    last: usize,
}

/// The blocks of one relation, numbered across all its segment files.
pub type RelationBlocks = RoaringBitmap;

impl PageMap {
    /// An empty map.
    pub fn new() -> PageMap {
        PageMap::default()
    }

    /// Adds a block. Returns whether it was not in the map before.
    pub fn insert(&mut self, relation: Relation, block: BlockNumber) -> bool {
        if self.relations.get(self.last).is_none_or(|(last, _)| *last != relation) {
            self.last = self.place_of(relation);
        }
        self.relations[self.last].1.insert(block.0)
    }

    /// Adds blocks of one relation.
    pub fn insert_all(&mut self, relation: Relation, blocks: RelationBlocks) {
        let place = self.place_of(relation);
        self.relations[place].1 |= blocks;
    }

    /// Adds everything in `other`.
    pub fn merge(&mut self, other: PageMap) {
        for (relation, blocks) in other.relations {
            let place = self.place_of(relation);
            self.relations[place].1 |= blocks;
        }
    }

    /// Removes everything in `other`.
    pub fn subtract(&mut self, other: &PageMap) {
        for (relation, blocks) in &mut self.relations {
            if let Some(others) = other.blocks(*relation) {
                *blocks -= others;
            }
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = PageMap::default();
    }

    /// Whether `block` is in the map.
    pub fn contains(&self, relation: Relation, block: BlockNumber) -> bool {
        self.blocks(relation).is_some_and(|blocks| blocks.contains(block.0))
    }

    /// The blocks of one relation.
    pub fn blocks(&self, relation: Relation) -> Option<&RelationBlocks> {
        self.places.get(&relation).map(|&place| &self.relations[place].1)
    }

    /// The blocks in one segment file, numbered across all files of the relation. `blocks_per_segment` is `relseg_size`
    /// of the control file.
    pub fn blocks_in(
        &self,
        file: RelSegment,
        blocks_per_segment: u32,
    ) -> impl Iterator<Item = BlockNumber> + '_ {
        let first = u64::from(file.segment) * u64::from(blocks_per_segment);
        let end = first + u64::from(blocks_per_segment);
        let range =
            (first <= u64::from(u32::MAX)).then(|| first as u32..=(end - 1).min(u64::from(u32::MAX)) as u32);
        let blocks = self.blocks(file.relation).zip(range).map(|(blocks, range)| blocks.range(range));
        blocks.into_iter().flatten().map(BlockNumber)
    }

    /// All relations with their blocks, in order.
    pub fn relations(&self) -> Vec<(Relation, &RelationBlocks)> {
        let blocks = self.relations.iter().filter(|(_, blocks)| !blocks.is_empty());
        let mut all: Vec<_> = blocks.map(|(relation, blocks)| (*relation, blocks)).collect();
        all.sort_unstable_by_key(|(relation, _)| *relation);
        all
    }

    /// The number of blocks.
    pub fn len(&self) -> u64 {
        self.relations.iter().map(|(_, blocks)| blocks.len()).sum()
    }

    /// Whether no block is in the map.
    pub fn is_empty(&self) -> bool {
        self.relations.iter().all(|(_, blocks)| blocks.is_empty())
    }

    fn place_of(&mut self, relation: Relation) -> usize {
        *self.places.entry(relation).or_insert_with(|| {
            self.relations.push((relation, RoaringBitmap::new()));
            self.relations.len() - 1
        })
    }
}

impl PartialEq for PageMap {
    fn eq(&self, other: &PageMap) -> bool {
        self.relations() == other.relations()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };
    const INDEX: Relation = Relation { tablespace: 1663, database: 5, number: 16390 };

    #[test]
    fn merging_is_a_union_in_any_order() {
        let (mut left, mut right) = (PageMap::new(), PageMap::new());
        left.insert(TABLE, BlockNumber(3));
        left.insert(INDEX, BlockNumber(1));
        right.insert(INDEX, BlockNumber(1));
        right.insert(TABLE, BlockNumber(9));
        let (mut one, mut other) = (left.clone(), right.clone());
        one.merge(right);
        other.merge(left);
        assert_eq!(one, other);
        assert_eq!(one.len(), 3);
        assert!(one.contains(TABLE, BlockNumber(9)) && !one.contains(INDEX, BlockNumber(9)));
    }

    #[test]
    fn blocks_are_divided_into_segment_files() {
        let mut map = PageMap::new();
        for block in [0, 131_071, 131_072, 262_143, u32::MAX - 1] {
            map.insert(TABLE, BlockNumber(block));
        }
        let in_file = |segment| -> Vec<u32> {
            map.blocks_in(RelSegment { relation: TABLE, segment }, 131_072).map(|block| block.0).collect()
        };
        assert_eq!(in_file(0), [0, 131_071]);
        assert_eq!(in_file(1), [131_072, 262_143]);
        assert_eq!(in_file(32_767), [u32::MAX - 1]);
        assert_eq!(in_file(2), [0u32; 0]);
        assert_eq!(in_file(u32::MAX), [0u32; 0]);
    }
}
