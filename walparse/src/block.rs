//! Blocks of relations: their header, and what it means that two copies of one block differ.
//!
//! ```text
//!  0 u32 u32  pd_lsn: high half, low half        16 u16  pd_special
//!  8 u16      pd_checksum                        18 u16  page size and layout version
//! 10 u16      pd_flags                           20 u32  pd_prune_xid
//! 12 u16      pd_lower                           24      line pointers: offset (15 bits), flags (2), length (15)
//! 14 u16      pd_upper
//! ```
//!
//! What a server changes in a block without a WAL record is what its own check `wal_consistency_checking` ignores (`bufmask.c`
//! and the mask function of each access method): hint bits, index entries that a scan marked as dead, unused space. So are the
//! values of a sequence, which are logged in advance, and the meta block of an SP-GiST index. Which
//! access method made a block is told by the size of its special space and the number at the end of it.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use crate::lsn::Lsn;

const LSN: Range<usize> = 0..8;
const LSN_AND_CHECKSUM: Range<usize> = 0..10;
const FLAGS: Range<usize> = 10..12;
const LOWER: Range<usize> = 12..14;
const UPPER: Range<usize> = 14..16;
const SPECIAL: Range<usize> = 16..18;
const PRUNE_XID: Range<usize> = 20..24;
const HEADER: usize = 24;

/// `GistBuildLSN`: blocks that were written by a sorted build of a GiST index have it on the server that built the index, and
/// the LSN of the record on its standbys.
const GIST_BUILD_LSN: Lsn = Lsn(1);

/// What it means that two copies of a block differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockDifference {
    /// They do not differ.
    None,
    /// They differ only in what a server changes without WAL.
    NotLogged,
    /// Only their LSNs differ, and hint bits or unused space. With `full_page_writes` off a hint bit is logged by a record without an image
    /// (`XLOG_FPI_FOR_HINT`): a primary sets the LSN of the block, a standby leaves the block alone. But two histories can also
    /// have made the same change in different records.
    Lsn,
    /// Their contents differ.
    Contents,
}

/// The LSN of a block (`pd_lsn`): the end of the last record that changed it. Invalid for a block that has never been used;
/// `None` if `block` is shorter than a header.
pub fn block_lsn(block: &[u8]) -> Option<Lsn> {
    let lsn = block.get(..HEADER)?.get(LSN)?;
    Some(Lsn(
        u64::from(LittleEndian::read_u32(&lsn[..4])) << 32 | u64::from(LittleEndian::read_u32(&lsn[4..]))
    ))
}

/// Whether a block has never been used: it consists of zeros or, as versions up to 11 leave them, of a header without an LSN.
pub fn is_unused_block(block: &[u8]) -> bool {
    if block.iter().all(|byte| *byte == 0) {
        return true;
    }
    let is_empty =
        Parts::of(block).is_some_and(|parts| parts.lower == HEADER && parts.upper == parts.special);
    is_empty && block_lsn(block) == Some(Lsn::INVALID)
}

/// Compares two copies of a block of a main fork.
///
/// Tuples of which one copy says that a transaction has committed, and the other that it has not, differ in contents.
pub fn block_difference(ours: &[u8], theirs: &[u8]) -> BlockDifference {
    if ours == theirs {
        return BlockDifference::None;
    }
    if ours.len() != theirs.len() {
        return BlockDifference::Contents;
    }
    let (mask, difference): (fn(&[u8]) -> Option<Vec<u8>>, _) = match have_same_lsn(ours, theirs) {
        true => (masked, BlockDifference::NotLogged),
        // Records lie between the two, and so all that records change counts.
        false => (without_hints, BlockDifference::Lsn),
    };
    let masked_ours = mask(ours);
    let is_alike = masked_ours.is_some() && masked_ours == mask(theirs) && !contradict(ours, theirs);
    if is_alike { difference } else { BlockDifference::Contents }
}

fn have_same_lsn(ours: &[u8], theirs: &[u8]) -> bool {
    match (block_lsn(ours), block_lsn(theirs)) {
        (Some(ours), Some(theirs)) => ours == theirs || ours == GIST_BUILD_LSN || theirs == GIST_BUILD_LSN,
        _ => false,
    }
}

/// The access method that made a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Heap,
    Sequence,
    BTree,
    Hash,
    Gist,
    Gin,
    SpGist,
    Brin,
    Other,
}

/// The parts of a block, as its header gives them: they lie within the block, one after the other.
struct Parts {
    kind: Kind,
    lower: usize,
    upper: usize,
    special: usize,
}

impl Parts {
    /// The parts of a block; `None` if its header is not valid.
    fn of(block: &[u8]) -> Option<Parts> {
        let header = block.get(..HEADER)?;
        let number = |at: Range<usize>| usize::from(LittleEndian::read_u16(&header[at]));
        let (lower, upper, special) = (number(LOWER), number(UPPER), number(SPECIAL));
        let is_valid = HEADER <= lower && lower <= upper && upper <= special && special <= block.len();
        is_valid.then(|| Parts { kind: kind(&block[special..]), lower, upper, special })
    }

    /// The line pointers, as offsets in the block.
    fn line_pointers(&self) -> impl Iterator<Item = usize> + use<> {
        (HEADER..self.lower.saturating_sub(3)).step_by(4)
    }
}

/// The access method, by the special space of one of its blocks.
fn kind(special: &[u8]) -> Kind {
    let last = |special: &[u8]| LittleEndian::read_u16(&special[special.len() - 2..]);
    match special.len() {
        0 => Kind::Heap,
        8 if special[..8] == [0x17, 0x17, 0, 0, 0, 0, 0, 0] => Kind::Sequence,
        8 => match last(special) {
            0xFF82 => Kind::SpGist,
            0xF091..=0xF093 => Kind::Brin,
            0xFF83.. => Kind::Other,
            _ => Kind::Gin,
        },
        16 => match last(special) {
            0xFF80 => Kind::Hash,
            0xFF81 => Kind::Gist,
            ..=0xFF7F => Kind::BTree,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

/// A block without what changes without WAL; `None` if its header is not valid.
fn masked(block: &[u8]) -> Option<Vec<u8>> {
    let parts = Parts::of(block)?;
    let mut masked = block.to_vec();
    masked[LSN_AND_CHECKSUM].fill(0);
    // PD_HAS_FREE_LINES, PD_PAGE_FULL, PD_ALL_VISIBLE.
    clear_bits(&mut masked[FLAGS], 0x0007);
    masked[PRUNE_XID].fill(0);
    // Meta blocks of some access methods store data behind the header without moving pd_lower.
    if parts.lower > HEADER || matches!(parts.kind, Kind::Heap | Kind::Sequence) {
        masked[parts.lower..parts.upper].fill(0);
    }
    let (front, special) = masked.split_at_mut(parts.special);
    match parts.kind {
        Kind::Heap => mask_heap(front, &parts),
        Kind::BTree => mask_btree(front, special, &parts),
        Kind::Hash => mask_hash(front, special, &parts),
        Kind::Gist => mask_gist(front, special, &parts),
        // GIN_DELETED.
        Kind::Gin if LittleEndian::read_u16(&special[6..8]) & 0x0004 != 0 => front[HEADER..].fill(0),
        // BRIN_EVACUATE_PAGE.
        Kind::Brin => clear_bits(&mut special[4..6], 0x0001),
        // SPGIST_META: which blocks have been used last, behind the magic number.
        Kind::SpGist if LittleEndian::read_u16(&special[..2]) & 0x0001 != 0 => {
            front[LOWER].fill(0);
            front[HEADER + 4..].fill(0);
        }
        Kind::Sequence => mask_sequence(front, &parts),
        Kind::Gin | Kind::SpGist | Kind::Other => {}
    }
    Some(masked)
}

/// A block without its LSN and what a server changes when it sets hint bits; `None` if its header is not valid.
fn without_hints(block: &[u8]) -> Option<Vec<u8>> {
    let parts = Parts::of(block)?;
    let mut masked = block.to_vec();
    masked[LSN_AND_CHECKSUM].fill(0);
    // PD_HAS_FREE_LINES, PD_PAGE_FULL.
    clear_bits(&mut masked[FLAGS], 0x0003);
    masked[PRUNE_XID].fill(0);
    if parts.lower > HEADER || parts.kind == Kind::Heap {
        masked[parts.lower..parts.upper].fill(0);
    }
    let (front, special) = masked.split_at_mut(parts.special);
    let flags = |special: &[u8]| LittleEndian::read_u16(&special[12..14]);
    match parts.kind {
        Kind::Heap => clear_hints(front, &parts),
        // BTP_LEAF and not BTP_DELETED; BTP_HAS_GARBAGE.
        Kind::BTree if flags(special) & 0x0005 == 0x0001 => {
            mask_line_pointers(front, &parts);
            clear_bits(&mut special[12..14], 0x0040);
        }
        // LH_OVERFLOW_PAGE, LH_BUCKET_PAGE; LH_PAGE_HAS_DEAD_TUPLES.
        Kind::Hash if matches!(flags(special) & 0x000F, 1 | 2) => {
            mask_line_pointers(front, &parts);
            clear_bits(&mut special[12..14], 0x0080);
        }
        // F_LEAF and not F_DELETED; F_HAS_GARBAGE.
        Kind::Gist if flags(special) & 0x0003 == 0x0001 => {
            mask_line_pointers(front, &parts);
            clear_bits(&mut special[12..14], 0x0010);
        }
        _ => {}
    }
    Some(masked)
}

/// Clears the hint bits of the tuples of a heap block, and what only the server has that wrote them: commands, padding.
fn clear_hints(front: &mut [u8], parts: &Parts) {
    for (_, place) in tuples(front, parts) {
        let padded = place.end.next_multiple_of(8).min(front.len());
        front[place.end..padded].fill(0);
        let tuple = &mut front[place];
        let infomask = LittleEndian::read_u16(&tuple[INFOMASK]);
        let xmin = if infomask & XMIN_FROZEN == XMIN_FROZEN { 0 } else { XMIN_FROZEN };
        clear_bits(&mut tuple[INFOMASK], xmin | XMAX_COMMITTED | XMAX_INVALID | COMBO_COMMAND);
        tuple[COMMAND].fill(0);
    }
}

fn clear_bits(field: &mut [u8], bits: u16) {
    let value = LittleEndian::read_u16(field);
    LittleEndian::write_u16(field, value & !bits);
}

/// Clears the flags of used line pointers: an index scan marks those of dead entries.
fn mask_line_pointers(front: &mut [u8], parts: &Parts) {
    for at in parts.line_pointers() {
        let pointer = LittleEndian::read_u32(&front[at..at + 4]);
        if pointer >> 15 & 3 != 0 {
            LittleEndian::write_u32(&mut front[at..at + 4], pointer & !(3 << 15));
        }
    }
}

fn mask_btree(front: &mut [u8], special: &mut [u8], parts: &Parts) {
    let flags = LittleEndian::read_u16(&special[12..14]);
    // BTP_DELETED, BTP_LEAF.
    if flags & 0x0004 != 0 {
        front[HEADER..].fill(0);
    } else if flags & 0x0001 != 0 {
        mask_line_pointers(front, parts);
    }
    // BTP_SPLIT_END, BTP_HAS_GARBAGE; btpo_cycleid.
    clear_bits(&mut special[12..14], 0x0060);
    special[14..16].fill(0);
}

fn mask_hash(front: &mut [u8], special: &mut [u8], parts: &Parts) {
    match LittleEndian::read_u16(&special[12..14]) & 0x000F {
        0 => front[HEADER..].fill(0),
        // LH_OVERFLOW_PAGE, LH_BUCKET_PAGE.
        1 | 2 => mask_line_pointers(front, parts),
        _ => {}
    }
    // LH_PAGE_HAS_DEAD_TUPLES.
    clear_bits(&mut special[12..14], 0x0080);
}

fn mask_gist(front: &mut [u8], special: &mut [u8], parts: &Parts) {
    special[..8].fill(0);
    let flags = LittleEndian::read_u16(&special[12..14]);
    // F_LEAF; F_DELETED.
    if flags & 0x0001 != 0 {
        mask_line_pointers(front, parts);
    }
    if flags & 0x0002 != 0 {
        front[HEADER..].fill(0);
    }
    // F_FOLLOW_RIGHT, F_HAS_GARBAGE.
    clear_bits(&mut special[12..14], 0x0018);
}

/// The rows of a heap block, dead ones among them: the number in the block, and the place of the tuple. Empty if the block is
/// not one of a table or a sequence.
pub fn heap_rows(block: &[u8]) -> Vec<(u16, Range<usize>)> {
    match Parts::of(block) {
        Some(parts) if matches!(parts.kind, Kind::Heap | Kind::Sequence) => tuples(block, &parts),
        _ => Vec::new(),
    }
}

/// The number of a tuple in its block, from 1, and its place.
type Tuple = (u16, Range<usize>);

/// The tuples of a heap block.
fn tuples(block: &[u8], parts: &Parts) -> Vec<Tuple> {
    let tuple = |(number, at): (u16, usize)| {
        let pointer = LittleEndian::read_u32(block.get(at..at + 4)?);
        let (offset, length) = ((pointer & 0x7FFF) as usize, (pointer >> 17) as usize);
        // LP_NORMAL.
        let is_tuple = pointer >> 15 & 3 == 1 && offset >= parts.upper && length >= TUPLE_HEADER;
        (is_tuple && offset + length <= parts.special).then_some((number, offset..offset + length))
    };
    (1..).zip(parts.line_pointers()).filter_map(tuple).collect()
}

/// Up to `t_infomask` and `t_hoff`.
const TUPLE_HEADER: usize = 23;
/// `t_cid`, in a heap tuple.
const COMMAND: Range<usize> = 8..12;
/// `t_ctid`.
const CTID: Range<usize> = 12..18;
const INFOMASK: Range<usize> = 20..22;
/// `t_hoff`.
const HEADER_LENGTH: usize = 22;

const XMIN_COMMITTED: u16 = 0x0100;
const XMIN_INVALID: u16 = 0x0200;
const XMIN_FROZEN: u16 = XMIN_COMMITTED | XMIN_INVALID;
const XMAX_COMMITTED: u16 = 0x0400;
const XMAX_INVALID: u16 = 0x0800;
/// All bits about transactions.
const TRANSACTIONS: u16 = 0xFFF0;
/// `HEAP_COMBOCID`.
const COMBO_COMMAND: u16 = 0x0020;
/// `SpecTokenOffsetNumber`, in `t_ctid` of a speculative insertion.
const SPECULATIVE: u16 = 0xFFFE;

fn mask_heap(front: &mut [u8], parts: &Parts) {
    for (number, place) in tuples(front, parts) {
        let end = place.end;
        let tuple = &mut front[place];
        let infomask = LittleEndian::read_u16(&tuple[INFOMASK]);
        let hints =
            if infomask & XMIN_FROZEN == XMIN_FROZEN { XMAX_COMMITTED | XMAX_INVALID } else { TRANSACTIONS };
        clear_bits(&mut tuple[INFOMASK], hints);
        tuple[COMMAND].fill(0);
        // Replay writes the tuple's own position in place of the token.
        if [SPECULATIVE, number].contains(&LittleEndian::read_u16(&tuple[CTID][4..])) {
            tuple[CTID].fill(0);
        }
        // Padding up to the next multiple of 8, which lies before the special space.
        let padded = end.next_multiple_of(8).min(front.len());
        front[end..padded].fill(0);
    }
}

/// Clears the values of a sequence. They are logged as they will be some values later, and the block keeps the LSN of that.
fn mask_sequence(front: &mut [u8], parts: &Parts) {
    for (_, place) in tuples(front, parts) {
        let tuple = &mut front[place];
        let data = usize::from(tuple[HEADER_LENGTH]).min(tuple.len());
        tuple[data..].fill(0);
    }
}

/// Whether two heap blocks with the same line pointers have a tuple of which one says that a transaction has committed, and
/// the other that it has not.
fn contradict(ours: &[u8], theirs: &[u8]) -> bool {
    let Some(parts) = Parts::of(ours).filter(|parts| parts.kind == Kind::Heap) else { return false };
    tuples(ours, &parts).into_iter().any(|(_, place)| {
        let infomask =
            |block: &[u8]| block.get(place.clone()).map(|tuple| LittleEndian::read_u16(&tuple[INFOMASK]));
        let (Some(ours), Some(theirs)) = (infomask(ours), infomask(theirs)) else { return true };
        let contradict = |committed: u16, invalid: u16| {
            let (ours, theirs) = (ours & (committed | invalid), theirs & (committed | invalid));
            (ours == invalid && theirs & committed != 0) || (theirs == invalid && ours & committed != 0)
        };
        contradict(XMIN_COMMITTED, XMIN_INVALID) || contradict(XMAX_COMMITTED, XMAX_INVALID)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8192;
    const TUPLE: usize = 8128;
    const NO_SPECIAL: &[u8] = &[];

    /// A block with one line pointer to a tuple or index entry of 30 bytes.
    fn block(special: &[u8]) -> Vec<u8> {
        let mut block = vec![0; SIZE];
        LittleEndian::write_u32(&mut block[4..8], 0x0200_0000);
        LittleEndian::write_u16(&mut block[LOWER], 28);
        LittleEndian::write_u16(&mut block[UPPER], TUPLE as u16);
        LittleEndian::write_u16(&mut block[SPECIAL], (SIZE - special.len()) as u16);
        LittleEndian::write_u32(&mut block[24..28], TUPLE as u32 | 1 << 15 | 30 << 17);
        block[SIZE - special.len()..].copy_from_slice(special);
        block
    }

    fn changed(block: &[u8], at: usize, value: u8) -> Vec<u8> {
        let mut changed = block.to_vec();
        changed[at] = value;
        changed
    }

    #[track_caller]
    fn assert_difference(ours: &[u8], theirs: &[u8], expected: BlockDifference) {
        assert_eq!(block_difference(ours, theirs), expected);
        assert_eq!(block_difference(theirs, ours), expected);
    }

    #[test]
    fn the_lsn_has_two_halves() {
        let mut block = block(NO_SPECIAL);
        LittleEndian::write_u32(&mut block[0..4], 7);
        assert_eq!(block_lsn(&block), Some(Lsn(0x7_0200_0000)));
        assert_eq!(block_lsn(&block[..23]), None);
    }

    #[test]
    fn hint_bits_of_a_heap_are_not_logged_and_its_data_is() {
        let block = block(NO_SPECIAL);
        assert_difference(&block, &block, BlockDifference::None);
        // xmin committed, xmax invalid; checksum; PD_PAGE_FULL; prune xid; unused space; command; padding.
        for at in [TUPLE + 21, 8, 10, 20, 4000, TUPLE + 9, TUPLE + 30] {
            assert_difference(&block, &changed(&block, at, 1), BlockDifference::NotLogged);
        }
        // Number of attributes; data; layout version; another line pointer; a relation flag (HEAP_HASNULL).
        for at in [TUPLE + 18, TUPLE + 25, 18, 24, TUPLE + 20] {
            assert_difference(&block, &changed(&block, at, 1), BlockDifference::Contents);
        }
    }

    #[test]
    fn the_lsn_alone_is_told_apart() {
        let block = block(NO_SPECIAL);
        let other = changed(&block, 7, 1);
        assert_difference(&block, &other, BlockDifference::Lsn);
        assert_difference(&block, &changed(&other, TUPLE + 21, 1), BlockDifference::Lsn);
        assert_difference(&block, &changed(&other, TUPLE + 25, 1), BlockDifference::Contents);
        // A row that was locked and is deleted by the same transaction differs in HEAP_XMAX_LOCK_ONLY.
        let deleted = changed(&block, TUPLE + 20, 0x80);
        assert_difference(&block, &deleted, BlockDifference::NotLogged);
        assert_difference(&other, &deleted, BlockDifference::Contents);
        // Between two values of a sequence that were logged, numbers have been given away.
        let mut sequence = self::block(&[0x17, 0x17, 0, 0, 0, 0, 0, 0]);
        sequence[TUPLE + 22] = 24;
        let later = changed(&changed(&sequence, 7, 1), TUPLE + 24, 5);
        assert_difference(&sequence, &later, BlockDifference::Contents);
        // F_FOLLOW_RIGHT of a GiST leaf, F_HAS_GARBAGE.
        let gist = self::block(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x81, 0xFF]);
        let split = changed(&changed(&gist, 7, 1), SIZE - 4, 9);
        assert_difference(&gist, &split, BlockDifference::Contents);
        let garbage = changed(&changed(&gist, 7, 1), SIZE - 4, 0x11);
        assert_difference(&gist, &garbage, BlockDifference::Lsn);
    }

    #[test]
    fn hint_bits_that_contradict_each_other_are_a_difference() {
        let block = block(NO_SPECIAL);
        let (committed, aborted) = (changed(&block, TUPLE + 21, 1), changed(&block, TUPLE + 21, 2));
        assert_difference(&committed, &aborted, BlockDifference::Contents);
        assert_difference(&block, &aborted, BlockDifference::NotLogged);
        let (deleted, kept) = (changed(&block, TUPLE + 21, 4), changed(&block, TUPLE + 21, 8));
        assert_difference(&deleted, &kept, BlockDifference::Contents);
        // Frozen is more than a hint.
        assert_difference(&committed, &changed(&block, TUPLE + 21, 3), BlockDifference::Contents);
    }

    #[test]
    fn index_entries_marked_as_dead_are_not_logged() {
        let mut leaf = [0; 16];
        leaf[12] = 1;
        let mut bucket = [0; 16];
        (bucket[12], bucket[14], bucket[15]) = (2, 0x80, 0xFF);
        let mut gist = [0; 16];
        (gist[12], gist[14], gist[15]) = (1, 0x81, 0xFF);
        for special in [leaf, bucket, gist] {
            let block = block(&special);
            // The flag of the line pointer changes from LP_NORMAL to LP_DEAD.
            let dead = changed(&changed(&block, 25, block[25] | 0x80), 26, block[26] | 1);
            assert_difference(&block, &dead, BlockDifference::NotLogged);
            assert_difference(&block, &changed(&block, TUPLE + 3, 1), BlockDifference::Contents);
            assert_difference(&block, &changed(&block, SIZE - 8, 9), BlockDifference::Contents);
        }
        // Entries of inner blocks are not marked.
        let inner = block(&[0; 16]);
        let dead = changed(&changed(&inner, 25, inner[25] | 0x80), 26, inner[26] | 1);
        assert_difference(&inner, &dead, BlockDifference::Contents);
    }

    #[test]
    fn the_blocks_that_an_sp_gist_index_has_used_last_are_not_logged() {
        let meta = block(&[1, 0, 0, 0, 0, 0, 0x82, 0xFF]);
        assert_difference(&meta, &changed(&meta, 30, 1), BlockDifference::NotLogged);
        assert_difference(&meta, &changed(&meta, 25, 1), BlockDifference::Contents);
        let leaf = block(&[4, 0, 0, 0, 0, 0, 0x82, 0xFF]);
        assert_difference(&leaf, &changed(&leaf, TUPLE + 3, 1), BlockDifference::Contents);
    }

    #[test]
    fn the_values_of_a_sequence_are_logged_in_advance() {
        let mut sequence = block(&[0x17, 0x17, 0, 0, 0, 0, 0, 0]);
        sequence[TUPLE + 22] = 24;
        assert_difference(&sequence, &changed(&sequence, TUPLE + 24, 5), BlockDifference::NotLogged);
        assert_difference(&sequence, &changed(&sequence, TUPLE + 18, 5), BlockDifference::Contents);
    }

    #[test]
    fn a_block_with_an_empty_header_is_unused() {
        let mut block = vec![0; SIZE];
        assert!(is_unused_block(&block) && is_unused_block(&[]));
        LittleEndian::write_u16(&mut block[LOWER], 24);
        LittleEndian::write_u16(&mut block[UPPER], SIZE as u16);
        LittleEndian::write_u16(&mut block[SPECIAL], SIZE as u16);
        assert!(is_unused_block(&block));
        assert!(
            !is_unused_block(&changed(&block, 4, 1)) && !is_unused_block(&changed(&block, LOWER.start, 28))
        );
    }

    #[test]
    fn a_sorted_build_of_a_gist_index_gives_a_block_no_lsn_of_its_own() {
        let mut special = [0; 16];
        (special[12], special[14], special[15]) = (1, 0x81, 0xFF);
        let block = block(&special);
        let mut built = block.clone();
        built[..8].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        assert_difference(&block, &built, BlockDifference::NotLogged);
    }

    #[test]
    fn a_new_block_differs_from_a_used_one_and_garbage_is_compared_whole() {
        let (new, used) = (vec![0; SIZE], block(NO_SPECIAL));
        assert_difference(&new, &used, BlockDifference::Contents);
        assert_difference(&new, &new[..100], BlockDifference::Contents);
        // pd_lower beyond pd_upper.
        let broken = changed(&used, 13, 0xFF);
        assert_difference(&broken, &changed(&broken, 4000, 1), BlockDifference::Contents);
    }

    #[test]
    fn no_block_makes_it_panic() {
        // A line pointer to anywhere, in a block of any kind.
        for kind in [&[][..], &[0; 8], &[0xFF; 16], &[4; 8], &[7; 16], &[1; 32]] {
            for pointer in
                [u32::MAX, 0x7FFF | 1 << 15 | 0x7FFF << 17, 1 << 15 | 23 << 17, 8190 | 1 << 15 | 40 << 17]
            {
                let mut block = block(kind);
                LittleEndian::write_u32(&mut block[24..28], pointer);
                for lower in [0, 24, 27, 28, 8000, 9000, 65535_u16] {
                    LittleEndian::write_u16(&mut block[LOWER], lower);
                    let other = changed(&block, 8191, 0x55);
                    block_difference(&block, &other);
                }
            }
        }
    }
}
