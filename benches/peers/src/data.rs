//! Keys and values that anyone can make again from a number, so that what an engine gives back can be checked.

use clap::ValueEnum;

use crate::Result;

/// Bytes of noise that values are cut from: more than any window of LZ4, and still in the second cache.
const NOISE_LEN: usize = 1 << 20;

/// What the values hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Content {
    /// Noise, which no compression makes shorter.
    Random,
    /// Noise in the first half, one byte repeated in the second.
    Half,
}

/// A bijection of the numbers whose outputs look random (the finalizer of splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The record `id`: its key never changes, its value has versions.
pub struct Records {
    key_len: usize,
    value_len: usize,
    content: Content,
    noise: Vec<u8>,
}

impl Records {
    /// Records with keys and values of these lengths. Errors: a key below 8 bytes or a value below 12.
    pub fn new(key_len: usize, value_len: usize, content: Content) -> Result<Self> {
        if key_len < 8 || value_len < 12 {
            return Err("a key has at least 8 bytes and a value at least 12".into());
        }
        let words = (0..(NOISE_LEN + value_len).div_ceil(8) as u64).flat_map(|word| mix(word).to_le_bytes());
        Ok(Self { key_len, value_len, content, noise: words.collect() })
    }

    /// Bytes of user data in one record.
    pub fn len(&self) -> u64 {
        (self.key_len + self.value_len) as u64
    }

    /// Makes `key` the key of `id`: a hash, so that ascending ids are keys in random order and no two are equal,
    /// then as much of a second one as there is room for.
    pub fn key(&self, id: u64, key: &mut Vec<u8>) {
        key.clear();
        let mut word = mix(id);
        while key.len() < self.key_len {
            let room = (self.key_len - key.len()).min(8);
            key.extend_from_slice(&word.to_be_bytes()[..room]);
            word = mix(word);
        }
    }

    /// Makes `value` the value of `id` at `version`: both numbers, then bytes that depend on both.
    pub fn value(&self, id: u64, version: u32, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(&id.to_le_bytes());
        value.extend_from_slice(&version.to_le_bytes());
        // In range of a usize: the remainder is below NOISE_LEN.
        let from = (mix(id ^ u64::from(version) << 40) % NOISE_LEN as u64) as usize;
        let noise = match self.content {
            Content::Random => self.value_len - value.len(),
            Content::Half => (self.value_len / 2).saturating_sub(value.len()),
        };
        value.extend_from_slice(&self.noise[from..from + noise]);
        value.resize(self.value_len, 0);
    }
}

/// A sequence of random numbers (xorshift64*), the same in every run.
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed) | 1)
    }

    /// A number below `end`, which is not zero. Even enough: `end` is far below 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_differ_and_have_their_length() {
        for key_len in [8, 13, 16, 40] {
            let records = Records::new(key_len, 100, Content::Random).unwrap();
            let mut keys = HashSet::new();
            let mut key = Vec::new();
            for id in 0..10_000 {
                records.key(id, &mut key);
                assert_eq!(key.len(), key_len);
                assert!(keys.insert(key.clone()), "{id}");
            }
        }
    }

    #[test]
    fn values_depend_on_record_and_version() {
        for content in [Content::Random, Content::Half] {
            for value_len in [12, 20, 100, 1000] {
                let records = Records::new(16, value_len, content).unwrap();
                let mut values = HashSet::new();
                let mut value = Vec::new();
                for (id, version) in (0..100).flat_map(|id| (0..100).map(move |version| (id, version))) {
                    records.value(id, version, &mut value);
                    assert_eq!(value.len(), value_len);
                    assert!(values.insert(value.clone()), "{id} {version}");
                }
            }
        }
        assert!(Records::new(7, 100, Content::Random).is_err());
        assert!(Records::new(8, 11, Content::Random).is_err());
    }

    #[test]
    fn random_numbers_reach_every_place() {
        let mut random = Random::new(1);
        let mut counts = [0_u32; 10];
        (0..10_000).for_each(|_| counts[random.below(10) as usize] += 1);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
