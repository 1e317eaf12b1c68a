//! Decompression of full-page images and of values that are stored out of line or compressed in a row.
//!
//! `pglz` is PostgreSQL's own method (`pg_lzcompress.c`): control bytes, each followed by eight items. A bit that is not set is
//! one literal byte. A bit that is set is a copy of earlier output, in two or three bytes:
//!
//! ```text
//! byte 0: high half of the distance (4 bits), length - 3 (4 bits)
//! byte 1: low half of the distance
//! byte 2: only if the length is 18: what is added to it
//! ```

use std::io::Read;

/// The shortest copy in a `pglz` stream.
const SHORTEST_COPY: usize = 3;
/// A copy of this length has a third byte.
const LONG_COPY: usize = 18;

/// Decompresses `pglz`. `None` if the input does not have exactly `raw_size` bytes in it.
pub fn decompress_pglz(input: &[u8], raw_size: usize) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(raw_size.min(input.len().saturating_mul(100)));
    let mut rest = input.iter().copied();
    while output.len() < raw_size {
        let control = rest.next()?;
        for bit in 0..8 {
            if output.len() >= raw_size {
                break;
            }
            if control >> bit & 1 == 0 {
                output.push(rest.next()?);
            } else {
                let (high, low) = (rest.next()?, rest.next()?);
                let distance = usize::from(high & 0xF0) << 4 | usize::from(low);
                let mut length = usize::from(high & 0x0F) + SHORTEST_COPY;
                if length == LONG_COPY {
                    length += usize::from(rest.next()?);
                }
                let length = length.min(raw_size - output.len());
                copy_earlier(&mut output, distance, length)?;
            }
        }
    }
    Some(output)
}

/// Appends `length` bytes of what was written `distance` bytes ago; the two may overlap.
fn copy_earlier(output: &mut Vec<u8>, distance: usize, length: usize) -> Option<()> {
    let from = output.len().checked_sub(distance).filter(|_| distance > 0)?;
    for at in from..from + length {
        output.push(*output.get(at)?);
    }
    Some(())
}

/// Decompresses a block of LZ4. `None` if it is damaged or does not have `raw_size` bytes in it.
pub fn decompress_lz4(input: &[u8], raw_size: usize) -> Option<Vec<u8>> {
    // No input of LZ4 becomes more than 255 times as long.
    if raw_size > input.len().saturating_mul(255) {
        return None;
    }
    let output = lz4_flex::block::decompress(input, raw_size).ok()?;
    (output.len() == raw_size).then_some(output)
}

/// Decompresses a frame of Zstandard. `None` if it is damaged or does not have `raw_size` bytes in it.
pub(crate) fn decompress_zstd(input: &[u8], raw_size: usize) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    let decoder = ruzstd::decoding::StreamingDecoder::new(input).ok()?;
    decoder.take(raw_size as u64 + 1).read_to_end(&mut output).ok()?;
    (output.len() == raw_size).then_some(output)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_and_copies() {
        // Three literals, then a copy of nine bytes from three bytes ago.
        let input = [0b0000_1000, b'a', b'b', b'c', 9 - 3, 3];
        assert_eq!(decompress_pglz(&input, 12).as_deref(), Some(b"abcabcabcabc".as_slice()));
        // A copy of 18 + 2 bytes.
        let input = [0b0000_0010, b'x', 0x0F, 1, 2];
        assert_eq!(decompress_pglz(&input, 21), Some(vec![b'x'; 21]));
        // A distance of 0x123 bytes reaches beyond the start.
        assert_eq!(decompress_pglz(&[0b0000_0010, b'x', 0x10, 0x23], 4), None);
        assert_eq!(decompress_pglz(&[0b0000_0010, b'x', 0x00, 0], 4), None);
        assert_eq!(decompress_pglz(&[0], 1), None);
        assert_eq!(decompress_pglz(&[], 0), Some(Vec::new()));
    }

    #[test]
    fn lz4_and_zstandard() {
        let text = b"one row, one row, one row, one row, one row".repeat(30);
        let compressed = lz4_flex::block::compress(&text);
        assert!(compressed.len() < text.len() / 4);
        assert_eq!(decompress_lz4(&compressed, text.len()).as_deref(), Some(text.as_slice()));
        assert_eq!(decompress_lz4(&compressed, text.len() - 1), None);
        assert_eq!(decompress_lz4(&compressed, usize::MAX), None);
        let compressed =
            ruzstd::encoding::compress_to_vec(text.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(decompress_zstd(&compressed, text.len()).as_deref(), Some(text.as_slice()));
        assert_eq!(decompress_zstd(&compressed, text.len() - 1), None);
        assert_eq!(decompress_zstd(&compressed[..compressed.len() / 2], text.len()), None);
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(input in proptest::collection::vec(any::<u8>(), 0..200), size in 0usize..9000) {
            for output in [decompress_pglz(&input, size), decompress_lz4(&input, size), decompress_zstd(&input, size)] {
                prop_assert!(output.is_none_or(|output| output.len() == size));
            }
        }
    }
}
