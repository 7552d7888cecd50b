//! Keys and values that anyone can make again from a number, so that what an engine gives back can be checked.

use clap::ValueEnum;

use crate::Result;

/// Bytes of noise that values are cut from: more than the window of LZ4, and few enough to stay in the second cache
/// beside what an engine keeps there. A miss for each value would be counted as every engine's own.
const NOISE_LEN: usize = 128 << 10;

/// What the values hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Content {
    /// Noise, which no compression makes shorter.
    Random,
    /// Noise in the first half, one byte repeated in the second.
    Half,
}

/// What the keys look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Hashes: ascending ids are keys in random order.
    Hashed,
    /// Ascending ids are ascending keys.
    Ascending,
    /// A hash behind one of [`PREFIXES`] prefixes of [`PREFIX_LEN`] bytes.
    Prefixed,
}

/// Bytes that keys of [`Keys::Prefixed`] share with others.
pub const PREFIX_LEN: usize = 40;
const PREFIXES: u64 = 256;

/// A bijection of the numbers whose outputs look random (the finalizer of splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The record `id`: its key never changes, its value has versions.
pub struct Records {
    keys: Keys,
    key_len: usize,
    value_len: usize,
    content: Content,
    noise: Vec<u8>,
}

impl Records {
    /// Records with hashed keys and values of these lengths. Errors: see [`Records::shaped`].
    pub fn new(key_len: usize, value_len: usize, content: Content) -> Result<Self> {
        Self::shaped(Keys::Hashed, key_len, value_len, content)
    }

    /// Records with keys and values of these lengths. Errors: a key below 8 bytes (behind its prefix), or a value
    /// below 12 bytes other than 8.
    pub fn shaped(keys: Keys, key_len: usize, value_len: usize, content: Content) -> Result<Self> {
        let prefix_len = if keys == Keys::Prefixed { PREFIX_LEN } else { 0 };
        if key_len < prefix_len + 8 || (value_len < 12 && value_len != 8) {
            return Err("a key has at least 8 bytes behind its prefix, and a value 8 or at least 12".into());
        }
        let words = (0..(NOISE_LEN + value_len).div_ceil(8) as u64).flat_map(|word| mix(word).to_le_bytes());
        Ok(Self { keys, key_len, value_len, content, noise: words.collect() })
    }

    /// Bytes of user data in one record.
    pub fn len(&self) -> u64 {
        (self.key_len + self.value_len) as u64
    }

    /// Makes `key` the key of `id`; no two are equal.
    pub fn key(&self, id: u64, key: &mut Vec<u8>) {
        key.clear();
        let mut word = mix(id);
        match self.keys {
            Keys::Hashed => {}
            Keys::Ascending => key.extend_from_slice(&id.to_be_bytes()),
            Keys::Prefixed => {
                let mut part = mix(id % PREFIXES);
                while key.len() < PREFIX_LEN {
                    key.extend_from_slice(&part.to_be_bytes());
                    part = mix(part);
                }
            }
        }
        while key.len() < self.key_len {
            let room = (self.key_len - key.len()).min(8);
            key.extend_from_slice(&word.to_be_bytes()[..room]);
            word = mix(word);
        }
    }

    /// Makes `value` the value of `id` at `version`: both numbers, then bytes that depend on both. One of 8 bytes
    /// has room for the numbers only, up to 2^40 and 2^24.
    pub fn value(&self, id: u64, version: u32, value: &mut Vec<u8>) {
        value.clear();
        if self.value_len == 8 {
            value.extend_from_slice(&(id | u64::from(version) << 40).to_le_bytes());
            return;
        }
        value.extend_from_slice(&id.to_le_bytes());
        value.extend_from_slice(&version.to_le_bytes());
        value.extend_from_slice(self.noise_of(id, version));
        value.resize(self.value_len, 0);
    }

    fn noise_of(&self, id: u64, version: u32) -> &[u8] {
        // In range of a usize: the remainder is below NOISE_LEN.
        let from = (mix(id ^ u64::from(version).rotate_left(40)) % NOISE_LEN as u64) as usize;
        let noise = match self.content {
            Content::Random => self.value_len - 12,
            Content::Half => (self.value_len / 2).saturating_sub(12),
        };
        &self.noise[from..from + noise]
    }

    /// The record and the version that a value names; `None` of a wrong length.
    pub fn names(&self, value: &[u8]) -> Option<(u64, u32)> {
        if value.len() != self.value_len {
            return None;
        }
        let id = u64::from_le_bytes(*value.first_chunk()?);
        if self.value_len == 8 {
            // The upper 24 bits fit.
            return Some((id & ((1 << 40) - 1), (id >> 40) as u32));
        }
        Some((id, u32::from_le_bytes(*value[8..].first_chunk()?)))
    }

    /// Whether `value` is of the record `id`, of whatever version: its length, its numbers, and its last bytes of
    /// noise, so that all of it is likely there; `whole` looks at every byte.
    pub fn is_of(&self, id: u64, value: &[u8], whole: bool) -> bool {
        let Some((named, version)) = self.names(value) else { return false };
        if named != id || self.value_len == 8 {
            return named == id;
        }
        let noise = self.noise_of(id, version);
        let found = &value[12..12 + noise.len()];
        if whole {
            return found == noise && value[12 + noise.len()..].iter().all(|byte| *byte == 0);
        }
        let last = noise.len().saturating_sub(8);
        found[last..] == noise[last..]
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
        assert!(Records::shaped(Keys::Prefixed, 47, 100, Content::Random).is_err());
    }

    #[test]
    fn a_value_is_known_by_its_bytes() {
        for (content, value_len) in [(Content::Random, 100), (Content::Half, 100), (Content::Random, 8)] {
            let records = Records::new(16, value_len, content).unwrap();
            let mut value = Vec::new();
            records.value(77, 3, &mut value);
            assert_eq!(records.names(&value), Some((77, 3)));
            assert!(records.is_of(77, &value, true) && records.is_of(77, &value, false));
            assert!(!records.is_of(78, &value, false) && !records.is_of(77, &value[1..], false));
            for at in 0..if value_len == 8 { 5 } else { value_len } {
                value[at] ^= 1;
                assert!(!records.is_of(77, &value, true), "{value_len} {at}");
                value[at] ^= 1;
            }
        }
    }

    #[test]
    fn keys_have_their_shape() {
        let key = |records: &Records, id| {
            let mut key = Vec::new();
            records.key(id, &mut key);
            key
        };
        let ascending = Records::shaped(Keys::Ascending, 16, 100, Content::Random).unwrap();
        assert!((0..1000).all(|id| key(&ascending, id) < key(&ascending, id + 1)));
        let prefixed = Records::shaped(Keys::Prefixed, 56, 100, Content::Random).unwrap();
        let keys: HashSet<_> = (0..1000).map(|id| key(&prefixed, id)).collect();
        let prefixes: HashSet<_> = keys.iter().map(|key| key[..PREFIX_LEN].to_vec()).collect();
        assert_eq!((keys.len(), prefixes.len()), (1000, PREFIXES as usize));
    }

    #[test]
    fn random_numbers_reach_every_place() {
        let mut random = Random::new(1);
        let mut counts = [0_u32; 10];
        (0..10_000).for_each(|_| counts[random.below(10) as usize] += 1);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
