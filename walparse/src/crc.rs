//! CRC-32C, the checksum of records.
//!
//! Most records have about a hundred bytes. For such short inputs the setup of the `crc32c` crate takes longer than its
//! computation, so on x86-64 they are processed with the CRC32 instruction directly.

#![expect(unsafe_code)]

use byteorder::{ByteOrder, LittleEndian};

/// The length from which the `crc32c` crate is faster.
#[cfg(target_arch = "x86_64")]
const LONG: usize = 512;

/// Extends the CRC-32C `crc` of some bytes by `bytes` that follow them. The CRC-32C of no bytes is 0.
///
/// ```
/// use walparse::crc32c_append;
///
/// assert_eq!(crc32c_append(0, b"123456789"), 0xE306_9283);
/// assert_eq!(crc32c_append(crc32c_append(0, b"1234"), b"56789"), 0xE306_9283);
/// ```
#[inline]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() < LONG && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor supports SSE 4.2, the only requirement of the function.
        return unsafe { short(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

/// [`crc32c_append`] for short inputs.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse4.2")]
fn short(crc: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let mut crc = u64::from(!crc);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        crc = _mm_crc32_u64(crc, u64::from_le_bytes(*word));
    }
    let mut crc = crc as u32;
    let mut rest = rest;
    if let Some((four, after)) = rest.split_first_chunk::<4>() {
        (crc, rest) = (_mm_crc32_u32(crc, u32::from_le_bytes(*four)), after);
    }
    for byte in rest {
        crc = _mm_crc32_u8(crc, *byte);
    }
    !crc
}

/// Whether the checksum of a complete record matches. It covers the bytes after the header, followed by the header up
/// to `xl_crc`, its last field.
#[inline]
pub(crate) fn is_valid(record: &[u8]) -> bool {
    let Some((header, body)) = record.split_first_chunk::<24>() else { return false };
    #[cfg(target_arch = "x86_64")]
    if body.len() < LONG && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor supports SSE 4.2, the only requirement of the function.
        return unsafe { is_valid_short(header, body) };
    }
    let crc = crc32c_append(crc32c_append(0, body), &header[..20]);
    crc == LittleEndian::read_u32(&header[20..])
}

/// [`is_valid`] for short records: detects the processor's features once instead of for each part.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn is_valid_short(header: &[u8; 24], body: &[u8]) -> bool {
    short(short(0, body), &header[..20]) == LittleEndian::read_u32(&header[20..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_of_crc32c() {
        assert_eq!(crc32c_append(0, b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_append(0, b""), 0);
    }

    proptest! {
        #[test]
        fn every_input_has_the_checksum_of_the_crate(
            crc: u32,
            bytes in prop::collection::vec(any::<u8>(), 0..1200),
            cut in any::<prop::sample::Index>(),
        ) {
            let (front, back) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(crc32c_append(crc, front), crc32c::crc32c_append(crc, front));
            prop_assert_eq!(crc32c_append(crc32c_append(crc, front), back), crc32c::crc32c_append(crc, &bytes));
        }
    }
}
