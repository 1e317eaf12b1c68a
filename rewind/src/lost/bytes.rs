//! Numbers in the bytes of a value: little-endian, every length checked.

/// Bytes at an offset.
pub(in crate::lost) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(in crate::lost) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

pub(in crate::lost) fn i16_at(bytes: &[u8], at: usize) -> Option<i16> {
    bytes_at(bytes, at).map(i16::from_le_bytes)
}

pub(in crate::lost) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

pub(in crate::lost) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes_at(bytes, at).map(i32::from_le_bytes)
}

pub(in crate::lost) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

pub(in crate::lost) fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    bytes_at(bytes, at).map(i64::from_le_bytes)
}

/// A number that counts something: `None` if it is negative.
pub(in crate::lost) fn count_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(i32_at(bytes, at)?).ok()
}

/// An offset rounded up to an alignment as `pg_type.typalign` says it.
pub(in crate::lost) fn aligned(at: usize, align: u8) -> Option<usize> {
    let size = match align {
        b'c' => 1,
        b's' => 2,
        b'i' => 4,
        b'd' => 8,
        _ => return None,
    };
    at.checked_next_multiple_of(size)
}

/// The longest text that is made of a value of this many bytes. No intact value comes near it, but damaged numbers and
/// offsets may ask for more.
pub(in crate::lost) fn most_text(bytes: usize) -> usize {
    bytes.saturating_mul(64).saturating_add(16 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian_and_never_beyond_the_end() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 0xff];
        assert_eq!(u16_at(&bytes, 6), Some(0xff07));
        assert_eq!(i16_at(&bytes, 6), Some(-249));
        assert_eq!(u32_at(&bytes, 0), Some(0x0403_0201));
        assert_eq!(count_at(&bytes, 4), None);
        assert_eq!(i64_at(&bytes, 0), Some(-0x00f8_f9fa_fbfc_fdff));
        assert_eq!(u64_at(&bytes, 1), None);
        assert_eq!(i32_at(&bytes, usize::MAX), None);
    }

    #[test]
    fn alignment_rounds_up() {
        assert_eq!([b'c', b's', b'i', b'd'].map(|align| aligned(5, align)), [5, 6, 8, 8].map(Some));
        assert_eq!(aligned(8, b'd'), Some(8));
        assert_eq!(aligned(5, b'x'), None);
        assert_eq!(aligned(usize::MAX, b'd'), None);
    }
}
