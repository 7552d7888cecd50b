//! The tree, and how a reader finds its way through it while the writer changes it.
//!
//! ```text
//!      root word: height | handle
//!                  │
//!                inner ── s1 ── s2 ──         child r holds what is ≥ separator r and < separator r + 1
//!               ╱       │      │
//!             leaf    leaf   leaf             all leaves at one depth
//! ```
//!
//! # The writer's steps
//!
//! *Insert.* A free slot is written, then the leaf's order is stored with `Release`.
//!
//! *Split of a full node `L`*, child `c` of a parent `P` with room (a full ancestor is split first, from the top
//! down):
//!
//! ```text
//!   0   P [.. c→L ..]                      L whole
//!   1   P [.. c→L ..]     lo   hi          two new nodes hold what L holds, and the new record; nobody sees them
//!   2   P [.. c→L  s→hi]                   P's order stored, Release: what is ≥ s is found in hi, the rest still in L
//!   3   P [.. c→lo s→hi]                   child c stored, Release. L is replaced: never changed or freed
//! ```
//!
//! `lo` or `hi` may be `L` itself (a run of ascending or descending keys: the full node stays and one record gets a
//! node of its own). Then `L` is exactly that half already, stays in place and may get more. *Split of the root*: a new
//! root with the old one as its only child is stored first (Release).
//!
//! # The reader's rule
//!
//! In an inner node: load the order (Acquire), choose the child by the separators that it names, load the child
//! (Acquire), **load the order again; if it differs, choose again.** In a leaf: load the order once, and look at
//! what it names.
//!
//! # Why nothing is missed
//!
//! Claim: a reader finds every record whose insert happened before its descent began (which a sequence number
//! published with `Release` after the insert and loaded with `Acquire` before the descent gives).
//!
//! 1. *A pair of order and child is one state of `P` between two splits, or state 2.* The danger is an order of
//!    state 0 with a child of state 3: `lo` without the separator that says that the rest is in `hi`. Who loads `lo`
//!    synchronizes with the store of step 3, so the second load of the order sees step 2 or later. An order never
//!    returns to an earlier value, because its count only grows; so the comparison fails and the reader chooses
//!    again. In every other pair the child holds all that the chosen range held when the order was stored: `L` in
//!    state 2 holds more than its range, which is harmless.
//! 2. *A node that was replaced is only met by a reader that may miss what came later.* A replaced `L` gets nothing
//!    after step 1. Who reaches it loaded `c→L`; had a later insert happened before its descent, so had step 3, and
//!    by coherence the load would have given `lo` or newer. The same holds for a replaced inner node, and for the
//!    old root: what is inserted below it after its replacement did not happen before a descent that met it.
//! 3. *A node still in place shows all.* The order of a leaf in place is loaded after the descent began, so by
//!    coherence it is at least as new as the last insert that happened before.
//! 4. *Retries end*, since each needs a split of a child of that node, of which a node sees at most as many as it has
//!    slots.
//!
//! A separator's record lies in the subtree behind it from the moment the separator is seen, is never removed, and
//! nothing below it in key order ever enters there. So the first record of a subtree is its separator, forever: a
//! search that finds a leaf exhausted knows the next record without visiting it (the *fence*), and a search for what
//! comes before a key needs no neighbour.
//!
//! Threading: [`Tree`] is shared; its methods read. Only `finger.rs` changes it.

use std::cmp::Ordering as Compare;

use pebble_format::{HeadPrefix, InternalKey};

use crate::arena::Arena;
use crate::heads::Skip;
use crate::node::{Inner, Leaf, Order};
use crate::sync::{AtomicU64, Ordering};
use crate::windows::Windows;

/// The shared part of a memtable's index.
pub struct Tree {
    pub(crate) prefix: HeadPrefix,
    pub(crate) windows: Windows,
    pub(crate) leaves: Arena<Leaf>,
    pub(crate) inners: Arena<Inner>,
    /// Height (inner levels above the leaves) in the high half, handle in the low half.
    pub(crate) root: AtomicU64,
}

/// The root: how many inner levels, and the handle of the topmost node.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    pub(crate) height: u32,
    pub(crate) handle: u32,
}

impl Root {
    /// The word that says so.
    pub fn word(self) -> u64 {
        u64::from(self.height) << 32 | u64::from(self.handle)
    }
}

/// A key that is searched, with its head by the memtable's prefix.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub(crate) head: u64,
    pub(crate) key: InternalKey<'a>,
}

impl Target<'_> {
    /// Its head in a node with that skip whose range it lies in, or is the upper end of.
    #[inline]
    pub fn head_in(&self, skip: Skip) -> u64 {
        skip.head(self.head, &self.key)
    }
}

/// A child of an inner node, as one state of that node had it.
#[derive(Clone, Copy)]
pub struct Branch {
    pub(crate) inner: u32,
    pub(crate) order: Order,
    pub(crate) nth: usize,
}

/// Where a descent ended.
#[derive(Clone, Copy)]
pub struct Spot {
    pub(crate) leaf: u32,
    pub(crate) order: Order,
    /// The leaf's place in its parent; `None` when the leaf is the root.
    pub(crate) branch: Option<Branch>,
    /// The position of the first record behind the leaf's range; `None` at the right end.
    pub(crate) fence: Option<u32>,
}

impl Tree {
    /// A key ready to be searched.
    #[inline]
    pub fn target<'a>(&self, key: InternalKey<'a>) -> Target<'a> {
        Target { head: self.prefix.head(key.keyspace, key.user_key), key }
    }

    /// The record at a position as a key that is searched.
    #[inline]
    pub fn target_at(&self, position: u32) -> Target<'_> {
        self.target(self.windows.record(position).internal_key())
    }

    /// How the record at a position compares with the searched key.
    #[inline]
    pub fn side(&self, position: u32, target: &Target<'_>) -> Compare {
        self.windows.record(position).internal_key().cmp(&target.key)
    }

    /// The root now.
    #[inline]
    pub fn root(&self) -> Root {
        let word = self.root.load(Ordering::Acquire);
        Root { height: (word >> 32) as u32, handle: word as u32 }
    }

    /// Goes down to a leaf; `choose` says which child of a node, in the state of that order.
    #[inline]
    fn descend(&self, choose: impl Fn(&Inner, Order) -> usize) -> Spot {
        let Root { height, mut handle } = self.root();
        let (mut branch, mut fence) = (None, None);
        for _ in 0..height {
            let inner = self.inners.get(handle);
            let (order, nth, child) = settled_child(inner, &choose);
            if nth < order.len() {
                fence = Some(inner.separator(order, nth + 1).position);
            }
            branch = Some(Branch { inner: handle, order, nth });
            handle = child;
        }
        Spot { leaf: handle, order: self.leaves.get(handle).order(), branch, fence }
    }

    /// The leaf whose range holds `target`.
    #[inline]
    pub fn leaf_of(&self, target: &Target<'_>) -> Spot {
        self.descend(|inner, order| {
            let head = target.head_in(inner.skip());
            let (rank, found) = inner.rank(order, head, |position| self.side(position, target));
            rank + usize::from(found)
        })
    }

    /// The leaf whose range ends at or holds `target`, and begins before it: what comes right before `target` is
    /// there.
    #[inline]
    pub fn leaf_before(&self, target: &Target<'_>) -> Spot {
        self.descend(|inner, order| {
            let head = target.head_in(inner.skip());
            inner.rank(order, head, |position| self.side(position, target)).0
        })
    }

    /// The leftmost leaf.
    pub fn first_leaf(&self) -> Spot {
        self.descend(|_, _| 0)
    }

    /// The rightmost leaf.
    pub fn last_leaf(&self) -> Spot {
        self.descend(|_, order| order.len())
    }

    /// How many records of the leaf, as the spot's order has it, come before `target`, which lies in the leaf's range
    /// or is its upper end.
    #[inline]
    pub fn rank(&self, leaf: u32, order: Order, target: &Target<'_>) -> usize {
        let leaf = self.leaves.get(leaf);
        leaf.rank(order, target.head_in(leaf.skip()), |position| self.side(position, target)).0
    }

    /// As [`Tree::rank`], for a `target` that may also lie before the leaf's range: then it does not share what its
    /// heads skip. The first record, where the range begins, tells.
    pub fn rank_from(&self, leaf: u32, order: Order, target: &Target<'_>) -> usize {
        let first = self.leaves.get(leaf).position(order, 0);
        if self.side(first, target) == Compare::Less { self.rank(leaf, order, target) } else { 0 }
    }

    /// Position of the first record at or after `target`, if it may be of the same user key: in a leaf equal keys have
    /// equal heads, so one with another head need not be read. Cost: one descent.
    #[inline]
    pub fn candidate(&self, target: &Target<'_>) -> Option<u32> {
        let spot = self.leaf_of(target);
        let leaf = self.leaves.get(spot.leaf);
        let head = target.head_in(leaf.skip());
        let (rank, _) = leaf.rank(spot.order, head, |position| self.side(position, target));
        if rank == spot.order.len() {
            return spot.fence;
        }
        let found = leaf.entry(spot.order, rank);
        (found.head == head).then_some(found.position)
    }

    /// Asks for the leaf whose range holds `target`. A hint.
    #[inline]
    pub fn prefetch(&self, target: &Target<'_>) {
        self.leaves.get(self.leaf_of(target).leaf).prefetch();
    }

    /// The leaf beside a branch's, if the node is still in the state of that branch.
    pub fn sibling(&self, branch: Branch, nth: usize) -> Option<(Branch, u32)> {
        let inner = self.inners.get(branch.inner);
        let child = inner.child(branch.order, nth);
        (inner.order() == branch.order).then_some((Branch { nth, ..branch }, child))
    }
}

/// A child that belongs to the order it was chosen by: the reader's rule.
#[inline]
fn settled_child(inner: &Inner, choose: impl Fn(&Inner, Order) -> usize) -> (Order, usize, u32) {
    let mut order = inner.order();
    loop {
        let nth = choose(inner, order);
        let child = inner.child(order, nth);
        let now = inner.order();
        if now == order {
            return (order, nth, child);
        }
        order = now;
    }
}
