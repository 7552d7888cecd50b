//! The hash of a key, on which the tables' point index and filters stand. It is part of the format: never change it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key::KeyspaceId;

/// XXH3-64 of the user key, seeded with the keyspace. Cost: 3 to 5 ns for short keys.
#[inline]
pub fn key_hash(keyspace: KeyspaceId, user_key: &[u8]) -> u64 {
    xxh3_64_with_seed(user_key, u64::from(keyspace.0))
}

/// A number below `n` from the upper half of a hash, without division (Lemire, "Fast random integer generation in an
/// interval", 2019).
#[inline]
pub fn reduce(hash: u64, n: u32) -> u32 {
    // The product of two 32-bit numbers, shifted by 32, fits 32 bits.
    (((hash >> 32) * u64::from(n)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_frozen() {
        assert_eq!(key_hash(KeyspaceId(0), b""), 0x2d06_8005_38d3_94c2);
        assert_ne!(key_hash(KeyspaceId(0), b"key"), key_hash(KeyspaceId(1), b"key"));
        assert_ne!(key_hash(KeyspaceId(0), b"key"), key_hash(KeyspaceId(0), b"kez"));
    }

    #[test]
    fn reduce_stays_below_and_reaches_both_ends() {
        assert_eq!(reduce(0, 7), 0);
        assert_eq!(reduce(u64::MAX, 7), 6);
        assert_eq!(reduce(u64::MAX, u32::MAX), u32::MAX - 1);
    }
}
