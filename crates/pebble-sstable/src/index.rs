//! The point index: from a hash to the places where its key may lie, in one cache line.
//!
//! ```text
//!   hash ── upper 32 bits ──► bucket        64 B: 16 slots
//!        └─ low 9 bits ─────► fingerprint   = slot >> 23      slot & (2^23 - 1) = location + 1
//! ```
//!
//! Filled to 80 %: about one key in twenty overflows to the next bucket, and one absent key in forty costs a
//! look at a record.

use pebble_format::hash::reduce;
use pebble_format::table::{BUCKET_SLOTS, Bucket, location, slot};

/// Buckets for this many keys at 80 % load.
fn bucket_count(keys: usize) -> usize {
    (keys * 5).div_ceil(BUCKET_SLOTS * 4).max(1)
}

/// How many buckets behind its own a key may lie. Of a million keys that nobody chose for their hashes none comes to a
/// third of it. With more, somebody makes each key pass over all those before it, here and in every search.
const MOVED_MAX: usize = 64;

/// Places every key. `None` when a location does not fit its slot, or the hashes crowd in few buckets.
///
/// Cost: about 4 ns a key. How full each bucket is stands in a list of its own, a sixty-fourth of the index and so
/// always at hand: a bucket is only written to, and nobody waits for its line.
pub(crate) fn build(hashes: &[u64], locations: &[u32]) -> Option<Vec<Bucket>> {
    let mut buckets = vec![Bucket::default(); bucket_count(hashes.len())];
    let mut filled = vec![0_u8; buckets.len()];
    let count = u32::try_from(buckets.len()).ok()?;
    for (hash, location) in hashes.iter().zip(locations) {
        let slot = slot(*hash, *location)?;
        let mut at = reduce(*hash, count) as usize;
        let mut moved = 0;
        loop {
            let (bucket, used) = (buckets.get_mut(at)?, filled.get_mut(at)?);
            if let Some(free) = bucket.slots.get_mut(usize::from(*used)) {
                free.set(slot);
                *used += 1;
                break;
            }
            if moved == MOVED_MAX {
                return None;
            }
            moved += 1;
            at = if at + 1 == count as usize { 0 } else { at + 1 };
        }
    }
    Some(buckets)
}

/// The locations that carry a hash's fingerprint, in the order of the search. Looks at no more than every
/// bucket once.
pub(crate) struct Candidates<'a> {
    buckets: &'a [Bucket],
    hash: u64,
    at: usize,
    /// Buckets not looked at yet.
    left: usize,
    hits: u32,
}

impl<'a> Candidates<'a> {
    #[inline]
    pub(crate) fn new(buckets: &'a [Bucket], hash: u64) -> Self {
        let at = home(buckets, hash);
        Self { buckets, hash, at: at.wrapping_sub(1), left: buckets.len(), hits: 0 }
    }
}

/// The number of the bucket where the search for a hash begins.
#[inline]
pub(crate) fn home(buckets: &[Bucket], hash: u64) -> usize {
    reduce(hash, u32::try_from(buckets.len()).unwrap_or(u32::MAX)) as usize
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        loop {
            if self.hits != 0 {
                let index = self.hits.trailing_zeros() as usize;
                self.hits &= self.hits - 1;
                let slot = self.buckets.get(self.at)?.slots.get(index)?.get();
                if let Some(location) = location(slot) {
                    return Some(location);
                }
                continue;
            }
            if self.left == 0 {
                return None;
            }
            self.left -= 1;
            self.at = self.at.wrapping_add(1);
            if self.at == self.buckets.len() {
                self.at = 0;
            }
            let (hits, empty) = self.buckets.get(self.at)?.probe(self.hash);
            self.hits = hits;
            if empty {
                self.left = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_however_the_buckets_overflow() {
        // Hashes that fall into few buckets, and at the very end, so that the search runs around.
        for crowd in [0_u64, 1 << 63, u64::MAX << 32] {
            let hashes: Vec<u64> = (0..300).map(|n| crowd | (n % 7)).collect();
            let locations: Vec<u32> = (0..300).map(|n| n * 3).collect();
            let buckets = build(&hashes, &locations).unwrap();
            for (hash, location) in hashes.iter().zip(&locations) {
                assert!(Candidates::new(&buckets, *hash).any(|found| found == *location));
            }
            assert_eq!(Candidates::new(&buckets, crowd | 8).count(), 0);
        }
    }

    #[test]
    fn a_search_ends_in_an_index_without_empty_slots() {
        let mut bucket = Bucket::default();
        bucket.slots.iter_mut().for_each(|to| to.set(slot(1, 9).unwrap()));
        let buckets = vec![bucket; 3];
        assert_eq!(Candidates::new(&buckets, 1).count(), 48);
        assert_eq!(Candidates::new(&buckets, 2).count(), 0);
        assert_eq!(Candidates::new(&[], 2).count(), 0);
    }

    /// Hashes as those of keys are: splitmix64 (Vigna 2015).
    fn honest(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|n| {
            let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }

    #[test]
    fn honest_hashes_lie_near_their_own_bucket_and_a_crowd_gives_no_index() {
        let hashes: Vec<u64> = honest(1_000_000).collect();
        let locations: Vec<u32> = (0..1_000_000).collect();
        let buckets = build(&hashes, &locations).unwrap();
        let furthest = hashes.iter().zip(&locations).map(|(hash, location)| {
            let mut candidates = Candidates::new(&buckets, *hash);
            assert!(candidates.any(|found| found == *location));
            (candidates.at + buckets.len() - home(&buckets, *hash)) % buckets.len()
        });
        let furthest = furthest.max().unwrap();
        assert!(furthest < MOVED_MAX / 3, "{furthest}");

        let crowd: Vec<u64> = honest(100_000).map(|hash| hash & 0xffff_ffff).collect();
        assert!(build(&crowd, &locations).is_none());
    }

    #[test]
    fn a_location_that_does_not_fit_gives_no_index() {
        assert!(build(&[1], &[u32::MAX]).is_none());
    }
}
