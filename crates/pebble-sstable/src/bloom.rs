//! A blocked bloom filter: all bits of a key lie in one cache line, so a probe is one miss.
//!
//! Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007). Line by the hash's
//! upper half; each bit by the top nine bits of its lower half, which is multiplied on between bits.

use pebble_format::hash::reduce;

const LINE: usize = 64;

/// The golden ratio in 32 bits, odd: multiplying by it is a bijection that stirs the top bits.
const STEP: u32 = 0x9e37_79b9;

/// Bits that a key sets. Fewer than the `0.69 × bits` of a plain filter, because crowded lines saturate
/// first.
pub(crate) fn probes(bits_per_key: u8) -> u8 {
    (bits_per_key.saturating_mul(3) / 5).clamp(1, 16)
}

/// Byte and bit of each probe within the line.
#[inline]
fn bits(hash: u64, probes: u8) -> impl Iterator<Item = (usize, u8)> {
    let [a, b, c, d, ..] = hash.to_le_bytes();
    let mut stirred = u32::from_le_bytes([a, b, c, d]);
    (0..probes).map(move |_| {
        let bit = stirred >> 23;
        stirred = stirred.wrapping_mul(STEP);
        ((bit >> 3) as usize, 1 << (bit & 7))
    })
}

#[inline]
fn lines(filter: &[u8]) -> u32 {
    u32::try_from(filter.len() / LINE).unwrap_or(u32::MAX)
}

/// A filter over the keys with these hashes.
pub(crate) fn build(hashes: &[u64], bits_per_key: u8) -> Vec<u8> {
    let lines_wanted = (hashes.len() * usize::from(bits_per_key)).div_ceil(LINE * 8).max(1);
    let mut filter = vec![0; lines_wanted * LINE];
    let (lines, probes) = (lines(&filter), probes(bits_per_key));
    for hash in hashes {
        let at = reduce(*hash, lines) as usize * LINE;
        let Some(line) = filter.get_mut(at..at + LINE) else { continue };
        for (byte, bit) in bits(*hash, probes) {
            line[byte] |= bit;
        }
    }
    filter
}

/// The line that a probe for this hash reads.
#[inline]
pub(crate) fn line(filter: &[u8], hash: u64) -> &[u8] {
    let at = reduce(hash, lines(filter)) as usize * LINE;
    filter.get(at..at + LINE).unwrap_or_default()
}

/// Whether a key with this hash may be there; `false` is certain.
#[inline]
pub(crate) fn may_contain(filter: &[u8], hash: u64, probes: u8) -> bool {
    let line = line(filter, hash);
    bits(hash, probes).all(|(byte, bit)| line.get(byte).is_some_and(|found| found & bit != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pebble_format::KeyspaceId;
    use pebble_format::hash::key_hash;

    #[test]
    fn every_key_passes_and_few_others_do() {
        let hash = |n: u32| key_hash(KeyspaceId(1), &n.to_be_bytes());
        let hashes: Vec<u64> = (0..20_000).map(hash).collect();
        let filter = build(&hashes, 10);
        assert_eq!(filter.len(), (20_000_usize * 10).div_ceil(512) * 64);
        assert!(hashes.iter().all(|hash| may_contain(&filter, *hash, probes(10))));
        let passed = (20_000..60_000).filter(|n| may_contain(&filter, hash(*n), probes(10))).count();
        assert!(passed < 600, "{passed} of 40,000 absent keys pass");
    }
}
