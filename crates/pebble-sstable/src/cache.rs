//! The block cache: blocks that could not be read in place, whole and verified, within a bound of bytes.
//!
//! Sharded CLOCK: a hit sets a flag under the lock of one shard; an insertion moves the shard's hand over its
//! ring, takes flags away, and evicts what has none (Corbató, "A paging experiment with the Multics system",
//! 1969). A block that is evicted while somebody reads it lives on until the reader lets go, and is then no
//! longer counted here.
//!
//! Threading: shared by any number of tables and threads; one mutex per shard, held for a lookup or an
//! insertion.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::block::Block;
use crate::sync::{Mutex, MutexGuard, lock};

/// Shards of a large cache: with two to sixteen threads they rarely meet.
const SHARDS_MAX: usize = 16;
/// A shard is worth having from this many bytes on; less, and large blocks would find no room in it.
const SHARD_LEN_MIN: usize = 1 << 20;
/// What an entry costs beside its block: the map's and the ring's share, and the count of the owner.
const ENTRY_LEN: usize = 128;

/// Which table (a number that the cache gave out) and which of its blocks.
type Key = (u64, u32);

/// Blocks that tables share, bounded in bytes. See [`TableReadOptions`](crate::TableReadOptions).
#[derive(Debug)]
pub struct BlockCache {
    shards: Box<[Mutex<Shard>]>,
    capacity: AtomicUsize,
    next_table: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Key, usize>,
    ring: Vec<Entry>,
    hand: usize,
    used: usize,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    block: Block,
    touched: bool,
}

impl Entry {
    fn cost(&self) -> usize {
        cost(&self.block)
    }
}

fn cost(block: &Block) -> usize {
    block.len() + ENTRY_LEN
}

impl BlockCache {
    /// A cache that holds at most `capacity` bytes, bookkeeping included. A block that is larger than a shard
    /// (a sixteenth of the capacity, if that is a mebibyte or more) is not kept.
    pub fn new(capacity: usize) -> Self {
        let shards = (capacity / SHARD_LEN_MIN).clamp(1, SHARDS_MAX);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            capacity: AtomicUsize::new(capacity),
            next_table: AtomicU64::new(0),
        }
    }

    /// Most bytes that it will hold.
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Makes it hold at most `capacity` bytes from now on, and evicts what is over. It keeps the shards that it was
    /// made with. Cost: nothing to grow; to shrink, the evictions, under the lock of one shard at a time.
    pub fn resize(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
        let room = self.room();
        self.shards.iter().for_each(|shard| lock(shard).shrink(room));
    }

    /// Most bytes of a shard.
    fn room(&self) -> usize {
        self.capacity() / self.shards.len()
    }

    /// Bytes that it holds now.
    pub fn used(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).used).sum()
    }

    /// A number for a table, so that two tables of equal number in one cache never see each other's blocks.
    pub(crate) fn register(&self) -> u64 {
        self.next_table.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, key: Key) -> Option<MutexGuard<'_, Shard>> {
        // Fibonacci hashing: neighbouring blocks go to different shards.
        let spread = (key.0.rotate_left(32) ^ u64::from(key.1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let index = usize::try_from(spread).unwrap_or_default() % self.shards.len();
        self.shards.get(index).map(lock)
    }

    pub(crate) fn get(&self, table: u64, block: u32) -> Option<Block> {
        let mut shard = self.shard((table, block))?;
        let place = *shard.places.get(&(table, block))?;
        let entry = shard.ring.get_mut(place)?;
        entry.touched = true;
        Some(entry.block.clone())
    }

    pub(crate) fn insert(&self, table: u64, number: u32, block: &Block) {
        let cost = cost(block);
        let Some(mut shard) = self.shard((table, number)) else { return };
        // Asked under the lock: a cache that shrinks comes to this shard after that.
        let Some(rest) = self.room().checked_sub(cost) else { return };
        if shard.places.contains_key(&(table, number)) {
            return;
        }
        shard.shrink(rest);
        let place = shard.ring.len();
        shard.places.insert((table, number), place);
        // Untouched at first: a block that is read once in a scan is the first to go.
        shard.ring.push(Entry { key: (table, number), block: block.clone(), touched: false });
        shard.used += cost;
    }

    /// Lets go of blocks of a table, when nobody will ask for them again. Cost: a lookup each.
    pub(crate) fn forget(&self, table: u64, blocks: impl Iterator<Item = u32>) {
        for number in blocks {
            let Some(mut shard) = self.shard((table, number)) else { return };
            if let Some(place) = shard.places.get(&(table, number)).copied() {
                shard.remove(place);
            }
        }
    }
}

impl Shard {
    /// Evicts until it holds at most `room` bytes.
    fn shrink(&mut self, room: usize) {
        while self.used > room {
            self.evict();
        }
    }

    /// Evicts one entry. Ends within two rounds: the first takes every flag away.
    fn evict(&mut self) {
        loop {
            if self.hand >= self.ring.len() {
                self.hand = 0;
            }
            match self.ring.get_mut(self.hand) {
                Some(entry) if entry.touched => entry.touched = false,
                Some(_) => return self.remove(self.hand),
                None => {
                    self.used = 0;
                    return;
                }
            }
            self.hand += 1;
        }
    }

    /// The last entry of the ring takes the place of the removed one.
    fn remove(&mut self, place: usize) {
        let gone = self.ring.swap_remove(place);
        self.places.remove(&gone.key);
        self.used -= gone.cost();
        if let Some(moved) = self.ring.get(place) {
            self.places.insert(moved.key, place);
        }
    }
}

/// A shard is consistent between any two statements that could panic, so a poisoned lock is as good as any.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockBuilder;
    use pebble_format::{KeyspaceId, Kind, Pinned, RecordRef, Seqno, Trailer, record};

    fn block(value_len: usize) -> Block {
        let mut bytes = vec![0; record::encoded_len(1, value_len)];
        let trailer = Trailer::new(Seqno(1), Kind::Put);
        record::encode(&mut bytes, KeyspaceId(0), b"k", trailer, &vec![7; value_len]).unwrap();
        let mut builder = BlockBuilder::default();
        builder.push(RecordRef::parse(&bytes).unwrap());
        Block::open(Pinned::copy(builder.close().unwrap()), 1).unwrap()
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let cache = BlockCache::new(64 << 10);
        let hot = block(1_000);
        cache.insert(9, 0, &hot);
        for number in 0..1_000 {
            assert!(cache.get(9, 0).is_some(), "{number}");
            cache.insert(1, number, &block(1_000));
            assert!(cache.used() <= cache.capacity());
        }
        assert!(cache.used() > cache.capacity() / 2);
        cache.insert(2, 0, &block(64 << 10));
        assert!(cache.get(2, 0).is_none());
        cache.forget(1, 0..1_000);
        assert_eq!(cache.used(), cost(&hot));
        cache.forget(9, 0..1);
        assert_eq!(cache.used(), 0);
    }

    #[test]
    fn many_shards_add_up_to_one_bound() {
        let cache = BlockCache::new(4 << 20);
        assert_eq!(cache.shards.len(), 4);
        for number in 0..4_000 {
            cache.insert(u64::from(number % 3), number, &block(4_000));
        }
        assert!(cache.used() <= cache.capacity());
        assert!(cache.used() > cache.capacity() * 9 / 10);
    }

    #[test]
    fn it_grows_and_shrinks() {
        let cache = BlockCache::new(1 << 20);
        let fill = || (0..4_000).for_each(|number| cache.insert(1, number, &block(4_000)));
        for capacity in [4 << 20, 1 << 20, 8 << 20, 100, 0, 2 << 20] {
            cache.resize(capacity);
            assert!(cache.used() <= capacity);
            fill();
            assert!(cache.used() <= capacity && cache.capacity() == capacity);
            assert!(cache.used() >= capacity * 9 / 10 || capacity < 4_000);
        }
    }

    #[test]
    fn a_cache_of_nothing_keeps_nothing() {
        let cache = BlockCache::new(0);
        cache.insert(0, 0, &block(1));
        assert!(cache.get(0, 0).is_none());
    }
}
