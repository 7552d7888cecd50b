//! CRC-32C (Castagnoli), the checksum of every file.
//!
//! Log frames are short, and there the general routine spends most of its time on setting up three streams. So up to
//! 1 KiB goes through the processor's own instruction, eight bytes a step; longer ones through the `crc32c`
//! crate. Both give the same number.

/// Up to this many bytes one stream of the instruction is faster than three.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 1024;

/// Continues the checksum `seed` (0 to begin) over `bytes`. Cost: about 0.1 ns a byte.
#[inline]
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has SSE 4.2, which is all that the function asks for.
        return unsafe { short(seed, bytes) };
    }
    crc32c::crc32c_append(seed, bytes)
}

/// The checksum of three words and a half one, each in its little-endian bytes, and of `bytes` behind them.
///
/// The front comes as values because it is what a caller has just made. As a slice it would have to be stored first,
/// and a load of eight bytes that were stored in two pieces waits until everything stored before has reached the
/// cache: for the header of a log frame, which follows its payload, that is more than all the rest.
#[inline]
pub fn crc32c_of_words(words: [u64; 3], half: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT && std::arch::is_x86_feature_detected!("sse4.2") {
        let [a, b, c] = words;
        // SAFETY: the processor has SSE 4.2, which is all that the function asks for.
        return unsafe { short_of_words(a, b, c, half, bytes) };
    }
    of_words(words, half, bytes)
}

/// [`crc32c_of_words`] where the front is not what takes the time; apart, so that the other case stays short enough to
/// be inlined.
#[inline(never)]
fn of_words(words: [u64; 3], half: u32, bytes: &[u8]) -> u32 {
    let front = words.iter().fold(0, |crc, word| crc32c(crc, &word.to_le_bytes()));
    crc32c(crc32c(front, &half.to_le_bytes()), bytes)
}

/// As [`short`], behind words that stay in registers: hence no array of them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short_of_words(a: u64, b: u64, c: u64, half: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u32, _mm_crc32_u64};
    let wide = _mm_crc32_u64(_mm_crc32_u64(_mm_crc32_u64(u64::from(u32::MAX), a), b), c);
    // The instruction leaves the upper half zero; nothing is lost.
    let front = _mm_crc32_u32((wide & u64::from(u32::MAX)) as u32, half);
    short(!front, bytes)
}

/// One stream of the CRC instruction. Safe code inside; calling it is unsafe only where SSE 4.2 may be missing.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
#[inline]
fn short(seed: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let wide = words.iter().fold(u64::from(!seed), |crc, word| _mm_crc32_u64(crc, u64::from_le_bytes(*word)));
    let (words, rest) = rest.as_chunks::<4>();
    // The instruction leaves the upper half zero; nothing is lost.
    let narrow = (wide & u64::from(u32::MAX)) as u32;
    let narrow = words.iter().fold(narrow, |crc, word| _mm_crc32_u32(crc, u32::from_le_bytes(*word)));
    !rest.iter().fold(narrow, |crc, byte| _mm_crc32_u8(crc, *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, from the polynomial.
    fn naive(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn it_is_the_castagnoli_checksum() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(0, b""), 0);
    }

    #[test]
    fn every_length_and_split_agrees_with_the_polynomial() {
        let bytes: Vec<u8> = (0..3_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for len in (0..80).chain([1_023, 1_024, 1_025, 3_000]) {
            let expected = naive(&bytes[..len]);
            assert_eq!(crc32c(0, &bytes[..len]), expected, "{len}");
            let (a, b) = bytes[..len].split_at(len / 3);
            assert_eq!(crc32c(crc32c(0, a), b), expected, "{len} in two");
        }
    }

    #[test]
    fn words_count_as_their_bytes() {
        let bytes: Vec<u8> = (0..3_028_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let words = [word(0), word(8), word(16)];
        let half = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
        for len in (0..300).chain([1_023, 1_024, 1_025, 3_000]) {
            let expected = naive(&bytes[..28 + len]);
            assert_eq!(crc32c_of_words(words, half, &bytes[28..28 + len]), expected, "{len}");
            assert_eq!(of_words(words, half, &bytes[28..28 + len]), expected, "{len}, the long way");
        }
    }
}
