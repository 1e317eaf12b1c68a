//! Relation map files: which file belongs to a catalog that cannot be looked up in `pg_class`.
//!
//! ```text
//! i32 magic 0x592717, i32 count, then for each: u32 OID of the catalog, u32 number of its file
//! ```
//!
//! Source: `RelMapFile` (relmapper.c). The checksum at the end is not looked at: what is read with it is checked by itself.

use std::collections::BTreeMap;

use crate::lost::bytes::u32_at;

const MAGIC: u32 = 0x0059_2717;
const MOST: usize = 64;

/// The numbers of the files of catalogs, by the OIDs of the catalogs. Empty if this is not such a file.
pub(in crate::lost) fn parse(bytes: &[u8]) -> BTreeMap<u32, u32> {
    let word = |at: usize| u32_at(bytes, at);
    if word(0) != Some(MAGIC) {
        return BTreeMap::new();
    }
    let count = (word(4).unwrap_or(0) as usize).min(MOST);
    let entry = |index: usize| Some((word(8 + 8 * index)?, word(12 + 8 * index)?));
    (0..count).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_pairs() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let map = words(&[MAGIC, 2, 1259, 16385, 1249, 1249, 7, 7]);
        assert_eq!(parse(&map), BTreeMap::from([(1259, 16385), (1249, 1249)]));
        assert_eq!(parse(&map[..20]), BTreeMap::from([(1259, 16385)]));
        assert_eq!(parse(&words(&[1, 2, 1259, 16385])), BTreeMap::new());
        assert_eq!(parse(&words(&[MAGIC, u32::MAX, 1259, 16385])).len(), 1);
    }
}
