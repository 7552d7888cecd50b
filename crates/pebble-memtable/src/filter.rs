//! Which keys a memtable surely does not hold: a blocked Bloom filter beside the tree.
//!
//! ```text
//!   hash of the key ─► one word ─► three of its bits        one cache line, where a descent waits for four
//! ```
//!
//! It is a fixed size from the beginning. With more keys than it was made for it errs more often, and that is all.
//!
//! Threading: one writer, which sets a key's bits before its record is published; any number of readers. Whoever may
//! use a record has synchronized with its publication, so he sees its bits: relaxed order is enough. The atomics are
//! std's in the models too: a schedule between two of them shows nothing that one around both does not.
//!
//! Source: Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007).

use std::sync::atomic::{AtomicU64, Ordering};

use pebble_format::prefetch::prefetch;

/// Keys to a word. Three bits of 64 each: one key in twenty-five that is not there seems to be.
const KEYS: usize = 8;

/// See the [module](self).
#[derive(Debug)]
pub struct Filter {
    words: Box<[AtomicU64]>,
}

impl Filter {
    /// A filter for about so many keys; for none, one that never excludes any.
    pub fn new(keys: usize) -> Self {
        let words = if keys == 0 { 0 } else { keys.div_ceil(KEYS).next_power_of_two() };
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The keys that it has room for.
    pub fn keys(&self) -> usize {
        self.words.len() * KEYS
    }

    /// Whether there is a filter at all.
    #[inline]
    pub fn is_there(&self) -> bool {
        !self.words.is_empty()
    }

    #[inline]
    fn word(&self, hash: u64) -> Option<&AtomicU64> {
        // The words are a power of two, or none, and then there is no last one.
        let last = self.words.len().checked_sub(1)?;
        self.words.get((hash >> 32) as usize & last)
    }

    /// Asks for what [`Filter::add`] will change. A hint.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.word(hash).into_iter().for_each(prefetch);
    }

    /// Adds a key. One writer only.
    #[inline]
    pub fn add(&self, hash: u64) {
        if let Some(word) = self.word(hash) {
            word.store(word.load(Ordering::Relaxed) | bits(hash), Ordering::Relaxed);
        }
    }

    /// Whether the key may have been added.
    #[inline]
    pub fn may_hold(&self, hash: u64) -> bool {
        self.word(hash).is_none_or(|word| word.load(Ordering::Relaxed) & bits(hash) == bits(hash))
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }
}

/// Three bits, from a part of the hash that does not choose the word.
#[inline]
fn bits(hash: u64) -> u64 {
    1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use pebble_format::KeyspaceId;
    use pebble_format::hash::key_hash;

    use super::*;

    fn hash(key: u32) -> u64 {
        key_hash(KeyspaceId(1), &key.to_le_bytes())
    }

    #[test]
    fn a_key_that_was_added_is_never_excluded_and_few_others_are_not() {
        for keys in [1, 100, 10_000, 100_000] {
            let filter = Filter::new(keys as usize);
            (0..keys).for_each(|key| filter.add(hash(key)));
            assert!((0..keys).all(|key| filter.may_hold(hash(key))));
            let wrong = (keys..keys + 100_000).filter(|key| filter.may_hold(hash(*key))).count();
            assert!(wrong < 8_000, "{wrong} of 100000 beside {keys}");
            assert!(filter.bytes() <= (keys as usize).div_ceil(KEYS) * 16);
        }
    }

    #[test]
    fn more_keys_than_expected_only_make_it_err_and_none_expected_exclude_nothing() {
        let small = Filter::new(16);
        (0..10_000).for_each(|key| small.add(hash(key)));
        assert!((0..20_000).all(|key| small.may_hold(hash(key))));
        let none = Filter::new(0);
        none.add(hash(1));
        assert!(!none.is_there() && none.bytes() == 0 && none.may_hold(hash(2)));
        assert!(!Filter::new(1).may_hold(hash(2)));
    }
}
