//! Nodes that never move and are never freed before their arena.
//!
//! ```text
//!   handle u32 = chunk (7 bits) | index (25 bits)
//!
//!   chunks: [ ──► 32 nodes ][ ──► 32 ][ ──► 32 ][ ──► 32 ][ ──► 40 ] …   each a quarter of all before it
//! ```
//!
//! Threading: one thread allocates, with the arena's [`Bump`], which it owns; any thread reads. A chunk is there
//! before the first handle into it exists, so whoever got a handle finds its node.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use pebble_format::{Error, Result};

use crate::sync::FIRST_CHUNK;

const INDEX_BITS: u32 = 25;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const CHUNKS: usize = 1 << (32 - INDEX_BITS);

/// See the [module](self).
pub struct Arena<T> {
    chunks: Box<[OnceLock<Box<[T]>>; CHUNKS]>,
    bytes: AtomicUsize,
}

/// Where the next node of an arena lies: the right to allocate, held by the one writer.
#[derive(Default)]
pub struct Bump {
    /// Chunks in use; the last one is being filled.
    chunks: u32,
    /// Nodes handed out of the last chunk.
    used: u32,
    /// Nodes in the last chunk.
    len: u32,
    /// Nodes in all chunks.
    total: usize,
}

impl<T: Default> Arena<T> {
    /// An empty arena and the right to allocate in it.
    pub fn new() -> (Self, Bump) {
        let chunks = Box::new(std::array::from_fn(|_| OnceLock::new()));
        let bytes = AtomicUsize::new(size_of::<OnceLock<Box<[T]>>>() * CHUNKS);
        (Self { chunks, bytes }, Bump::default())
    }

    /// Makes sure that the next `count` allocations succeed, so that a change of several nodes fails before it
    /// begins. Cost: at most one allocation.
    ///
    /// Errors: `InvalidArgument` when the handles are used up.
    pub fn reserve(&self, bump: &mut Bump, count: u32) -> Result<()> {
        if bump.len - bump.used >= count {
            return Ok(());
        }
        let full = || Error::invalid("the memtable has no room for another node: seal it");
        let len = u32::try_from(bump.total / 4).unwrap_or(INDEX_MASK);
        let len = len.max(u32::try_from(FIRST_CHUNK).unwrap_or(INDEX_MASK)).max(count).min(INDEX_MASK);
        let slot = self.chunks.get(bump.chunks as usize).ok_or_else(full)?;
        slot.set((0..len).map(|_| T::default()).collect()).map_err(|_| full())?;
        *bump = Bump { chunks: bump.chunks + 1, used: 0, len, total: bump.total + len as usize };
        self.bytes.store(self.bytes() + len as usize * size_of::<T>(), Ordering::Relaxed);
        Ok(())
    }

    /// A node that no one else has seen. It has to be reserved.
    pub fn alloc(&self, bump: &mut Bump) -> u32 {
        assert!(bump.used < bump.len, "a node is reserved before it is taken");
        let handle = (bump.chunks - 1) << INDEX_BITS | bump.used;
        bump.used += 1;
        handle
    }

    /// The node behind a handle of this arena.
    #[inline]
    pub fn get(&self, handle: u32) -> &T {
        let chunk = &self.chunks[(handle >> INDEX_BITS) as usize];
        let node = chunk.get().and_then(|nodes| nodes.get((handle & INDEX_MASK) as usize));
        match node {
            Some(node) => node,
            None => unreachable!("a handle comes from `alloc`, after its chunk"),
        }
    }

    /// Bytes that the arena holds.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_distinct_and_stay_where_they_are() {
        let (arena, mut bump) = Arena::<AtomicUsize>::new();
        let mut handles = Vec::new();
        for value in 0..10_000 {
            arena.reserve(&mut bump, 3).unwrap();
            let handle = arena.alloc(&mut bump);
            arena.get(handle).store(value, Ordering::Relaxed);
            handles.push((handle, arena.get(handle) as *const _));
        }
        for (value, (handle, address)) in handles.into_iter().enumerate() {
            assert_eq!(arena.get(handle).load(Ordering::Relaxed), value);
            assert!(std::ptr::eq(arena.get(handle), address));
        }
        assert!(arena.bytes() < 10_000 * 8 * 2);
    }

    #[test]
    #[should_panic(expected = "reserved")]
    fn a_node_that_is_not_reserved_is_a_fault() {
        let (arena, mut bump) = Arena::<AtomicUsize>::new();
        arena.alloc(&mut bump);
    }
}
