//! Pages of relations: their checksum, by which a server recognizes a damaged block.
//!
//! The checksum is that of PostgreSQL's `checksum_impl.h`, which other programs are invited to compute: FNV-1a on words of
//! four bytes, in 32 columns at once, each with a start value of its own. Since 9.3 there has been no other. The page header
//! begins with `pd_lsn` (8 bytes, high half first) and `pd_checksum` (2 bytes).

use byteorder::{ByteOrder, LittleEndian};

use crate::lsn::{BlockNumber, Lsn};

/// The number of sums that are computed side by side.
const COLUMNS: usize = 32;

/// Bytes that are added to the sums at a time: a word for each of them.
const ROW: usize = 4 * COLUMNS;

/// The prime of FNV-1a with 32 bits.
const PRIME: u32 = 16_777_619;

/// What each sum begins with. The values are arbitrary, but part of the format.
const START: [u32; COLUMNS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// A page whose checksum is not the one in its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongChecksum {
    /// The checksum of what the page contains.
    pub calculated: u16,
    /// The one in its header.
    pub stored: u16,
    /// `pd_lsn`: the end of the last record that changed the page, unless that is what is damaged.
    pub lsn: Lsn,
}

/// Checks a page of a relation with data checksums. `block` is its number in the relation, and the page is complete: 1 to
/// 32 kB, by the block size of the cluster.
///
/// A page of zeros is right: it has been added to the relation and not been used yet.
///
/// # Errors
/// The checksum is wrong. A server would refuse to read this block.
///
/// ```
/// use walparse::{BlockNumber, check_page};
///
/// let mut page = vec![0; 8192];
/// assert_eq!(check_page(&page, BlockNumber(7)), Ok(()));
/// page[100] = 1;
/// let wrong = check_page(&page, BlockNumber(7)).unwrap_err();
/// page[8..10].copy_from_slice(&wrong.calculated.to_le_bytes());
/// assert_eq!(check_page(&page, BlockNumber(7)), Ok(()));
/// ```
pub fn check_page(page: &[u8], block: BlockNumber) -> Result<(), WrongChecksum> {
    let Some(header) = page.first_chunk::<10>() else { return Ok(()) };
    let stored = LittleEndian::read_u16(&header[8..]);
    let calculated = checksum(page, block);
    if calculated == stored || page.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let (high, low) = (LittleEndian::read_u32(header), LittleEndian::read_u32(&header[4..]));
    Err(WrongChecksum { calculated, stored, lsn: Lsn(u64::from(high) << 32 | u64::from(low)) })
}

/// The checksum that the page of this block should have.
fn checksum(page: &[u8], block: BlockNumber) -> u16 {
    let mut sums = START;
    let (rows, _) = page.as_chunks::<ROW>();
    if let Some((first, rows)) = rows.split_first() {
        // The field of the checksum counts as zero.
        let mut first = *first;
        first[8..10].fill(0);
        add(&mut sums, &first);
        rows.iter().for_each(|row| add(&mut sums, row));
    }
    add(&mut sums, &[0; ROW]);
    add(&mut sums, &[0; ROW]);
    let sum = sums.iter().fold(block.0, |folded, sum| folded ^ sum);
    // Never zero, and less than 65536.
    (sum % 65_535 + 1) as u16
}

/// Adds a word to each sum. The columns do not depend on each other, so that the compiler computes several at once.
#[inline]
fn add(sums: &mut [u32; COLUMNS], row: &[u8; ROW]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that no two words of are alike.
    fn page(length: usize) -> Vec<u8> {
        (0..length as u32 / 4).flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect()
    }

    fn sealed(mut page: Vec<u8>, block: BlockNumber) -> Vec<u8> {
        let sum = checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn every_changed_byte_and_another_block_number_are_noticed() {
        for length in [1024, 8192, 32_768] {
            let mut page = sealed(page(length), BlockNumber(131_072));
            assert_eq!(check_page(&page, BlockNumber(131_072)), Ok(()));
            assert!(check_page(&page, BlockNumber(131_073)).is_err());
            for at in (0..10).chain((10..length).step_by(97)).chain([length - 1]) {
                page[at] ^= 0x10;
                assert!(check_page(&page, BlockNumber(131_072)).is_err(), "byte {at} of {length}");
                page[at] ^= 0x10;
            }
        }
    }

    /// One column after the other, as the description has it, and in no way that a compiler could make fast.
    #[test]
    fn it_is_the_sum_of_the_description() {
        let page = page(8192);
        let word = |row: usize, column: usize| {
            let at = row * ROW + column * 4;
            let word = LittleEndian::read_u32(&page[at..at + 4]);
            if (row, column) == (0, 2) { word & 0xFFFF_0000 } else { word }
        };
        let mut folded = 12_345;
        for (column, start) in START.into_iter().enumerate() {
            let mut hash = u64::from(start);
            for value in (0..64).map(|row| word(row, column)).chain([0, 0]) {
                let mixed = hash ^ u64::from(value);
                hash = ((mixed * u64::from(PRIME)) & 0xFFFF_FFFF) ^ (mixed >> 17);
            }
            folded ^= hash as u32;
        }
        assert_eq!(u32::from(checksum(&page, BlockNumber(12_345))), folded % 65_535 + 1);
    }

    #[test]
    fn an_error_tells_the_position_of_the_last_change() {
        let mut page = sealed(page(8192), BlockNumber(0));
        page[..8].copy_from_slice(&[0x6B, 1, 0, 0, 0x48, 0xD8, 0x74, 3]);
        let wrong = check_page(&page, BlockNumber(0)).unwrap_err();
        assert_eq!(wrong.lsn.to_string(), "16B/374D848");
        assert_eq!(wrong.stored, LittleEndian::read_u16(&page[8..10]));
    }

    #[test]
    fn what_is_shorter_than_a_page_does_no_harm() {
        for length in 0..ROW + 20 {
            let _ = check_page(&page(1024)[..length], BlockNumber(1));
        }
    }
}
