//! CRC-32C, as records carry it.
//!
//! Most records have about a hundred bytes. For spans that short the `crc32c` crate's preparations cost
//! more than its work, so on x86-64 they go through the processor's instruction directly.

#![expect(unsafe_code)]

use byteorder::{ByteOrder, LittleEndian};

/// From this length on the `crc32c` crate is faster.
#[cfg(target_arch = "x86_64")]
const LONG: usize = 512;

/// The CRC-32C of what has the checksum `crc` so far and goes on with `bytes`; 0 is that of nothing.
#[inline]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() < LONG && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has SSE 4.2, which is all that the function asks for.
        return unsafe { short(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

/// The same for a span that is short.
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

/// Whether the checksum of a whole record is right: over all behind the header, then over the header before
/// it (`xl_crc` is the last of its 24 bytes).
#[inline]
pub(crate) fn is_right(record: &[u8]) -> bool {
    let Some((header, body)) = record.split_first_chunk::<24>() else { return false };
    #[cfg(target_arch = "x86_64")]
    if body.len() < LONG && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has SSE 4.2, which is all that the function asks for.
        return unsafe { is_right_short(header, body) };
    }
    let crc = crc32c_append(crc32c_append(0, body), &header[..20]);
    crc == LittleEndian::read_u32(&header[20..])
}

/// The same for a record that is short: asked for once instead of for each part.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn is_right_short(header: &[u8; 24], body: &[u8]) -> bool {
    short(short(0, body), &header[..20]) == LittleEndian::read_u32(&header[20..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_known_value() {
        assert_eq!(crc32c_append(0, b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_append(0, b""), 0);
    }

    proptest! {
        #[test]
        fn every_span_has_the_checksum_of_the_crate(
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
