//! The writer's way down to a leaf: found early, used later.
//!
//! ```text
//!   approach ─► way: inner handles, root first ─► leaf, asked for
//!     …         the record is laid out, others are inserted
//!   insert   ─► no split since? then that is the leaf ─► its slot
//! ```
//!
//! The first look at a leaf waits for memory, longer than all else that an insert does. So the way is found before it
//! is needed, and the leaf is on its way too while the writer does other work. A way holds until the tree's next
//! split; inserts without one change no range.
//!
//! Threading: values, of the one writer.

use std::sync::atomic::{AtomicU64, Ordering};

use pebble_format::{Error, Result};

/// Inner nodes above a leaf at most. A node splits when it is full and leaves each half seven children to come before
/// that is full again, so 2^32 records need no more.
const HEIGHT_MAX: usize = 12;

/// Splits of a tree are counted from a multiple of this on, another one for each tree.
const SPLITS_MAX: u64 = 1 << 32;

/// Which state of which tree: no two trees of a process have one in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

impl Stamp {
    /// The first one of a new tree.
    pub fn first() -> Self {
        static TREES: AtomicU64 = AtomicU64::new(0);
        Self(TREES.fetch_add(SPLITS_MAX, Ordering::Relaxed))
    }

    /// Whether both are of one tree.
    #[inline]
    pub fn is_of_tree(self, other: Self) -> bool {
        self.0 / SPLITS_MAX == other.0 / SPLITS_MAX
    }

    /// After a split.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// See the [module](self).
#[derive(Clone, Copy)]
pub struct Way {
    pub stamp: Stamp,
    pub leaf: u32,
    height: u32,
    inners: [u32; HEIGHT_MAX],
}

impl Way {
    /// The way to a leaf that is the root.
    pub fn to_root(stamp: Stamp, leaf: u32) -> Self {
        Self { stamp, leaf, height: 0, inners: [0; HEIGHT_MAX] }
    }

    /// Handles of the inner nodes, the root first.
    #[inline]
    pub fn inners(&self) -> &[u32] {
        &self.inners[..self.height as usize]
    }

    /// Another node at a level.
    pub fn put(&mut self, level: usize, inner: u32) {
        self.inners[level] = inner;
    }

    /// Adds a node below the others.
    #[inline]
    pub fn push(&mut self, inner: u32) {
        self.inners[self.height as usize] = inner;
        self.height += 1;
    }

    /// Errors, if there is no room for a root above all others.
    pub fn check_room(&self) -> Result<()> {
        match self.height as usize {
            HEIGHT_MAX => Err(Error::invalid("the memtable can grow no higher: seal it")),
            _ => Ok(()),
        }
    }

    /// Adds a root above all others. There must be room.
    pub fn put_root(&mut self, root: u32) {
        self.inners.copy_within(..HEIGHT_MAX - 1, 1);
        self.inners[0] = root;
        self.height += 1;
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_way_grows_at_both_ends_and_is_of_one_state_of_one_tree() {
        let (stamp, other) = (Stamp::first(), Stamp::first());
        let mut way = Way::to_root(stamp, 7);
        assert!(stamp.next() != stamp && stamp.next().is_of_tree(stamp) && !stamp.is_of_tree(other));
        way.push(2);
        way.push(3);
        way.put_root(1);
        way.put(2, 4);
        assert_eq!((way.inners(), way.leaf), (&[1, 2, 4][..], 7));
        while way.check_room().is_ok() {
            way.put_root(0);
        }
        assert_eq!(way.inners().len(), HEIGHT_MAX);
    }
}
