//! Leaves and inner nodes: write-once slots in arrival order, and one word that says which are filled and how they
//! sort.
//!
//! ```text
//!   order u64:   nibble 15 … 2   1    0          slots 1..=len are filled, in that order of time;
//!                slot of rank …  #2   #1  len     nibble r is the slot of the r-th smallest
//!
//!   leaf  192 B  ┌ order │ 15 heads ──────────────────┐┌ skip    │ 15 positions ─┐
//!   inner 256 B  ┌ order │ 15 heads ──────────────────┐┌ child 0 │ 15 children ──┐┌ skip │ 15 separators ┐
//! ```
//!
//! An inner node has `len + 1` children. Child 0 has no separator; child `r` holds the keys from separator `r` on. A
//! separator is the position of a record: its head decides nearly always, and the record itself when heads are equal.
//!
//! What of a key its head is, the node's *skip* says (`heads.rs`).
//!
//! Threading: one writer, any number of readers. A slot is written before the order that names it is stored with
//! `Release`; a reader loads the order with `Acquire` and looks only at slots that it names. A slot never changes
//! after that, except a child, which is replaced (see the crate's `tree` module). The skip is set before anybody else
//! sees the node; it is std's atomic in the models too, for a schedule around it shows nothing.

use std::cmp::Ordering as Compare;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicU32 as PlainU32;

use pebble_format::prefetch::prefetch;

use crate::heads::Skip;
use crate::sync::{AtomicU32, AtomicU64, FAN, Ordering};

/// Which slots are filled, and how they sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order(u64);

impl Order {
    /// Filled slots.
    #[inline]
    pub fn len(self) -> usize {
        (self.0 & 15) as usize
    }

    /// Whether no slot is free.
    #[inline]
    pub fn is_full(self) -> bool {
        self.len() == FAN
    }

    /// The slot of the `nth` smallest, from 1 to `len`; slot 0 for 0 and for `len + 1`.
    #[inline]
    fn slot(self, nth: usize) -> usize {
        // Behind the last rank of a full node the shift wraps to zero, and the lowest nibble is masked out.
        (self.0 & !15).wrapping_shr(4 * nth as u32) as usize & FAN
    }

    /// The order after the next free slot was filled with what sorts behind `rank` others, and that slot. Not for a
    /// full node.
    #[inline]
    fn with(self, rank: usize) -> (Self, usize) {
        let slot = self.len() + 1;
        let low = (1 << (4 * (rank + 1))) - 1;
        let shifted = (self.0 & !low) << 4 | (slot as u64) << (4 * (rank + 1)) | (self.0 & low);
        (Self(shifted + 1), slot)
    }
}

/// How many of the slots that `order` names have a smaller head.
///
/// Three at a quarter's distance are looked at, then the three of one quarter: two rounds of loads that do not wait
/// for each other, and no branch.
#[inline(always)]
fn smaller_heads(heads: &[AtomicU64; FAN + 1], order: Order, head: u64) -> usize {
    let is_smaller = |nth: usize| {
        // Slot 0 stands behind the last one.
        let slot = order.slot(nth);
        usize::from(slot != 0) & usize::from(heads[slot].load(Ordering::Relaxed) < head)
    };
    let before = 4 * (is_smaller(4) + is_smaller(8) + is_smaller(12));
    before + is_smaller(before + 1) + is_smaller(before + 2) + is_smaller(before + 3)
}

/// The number of slots, in order, for which `side` of their reference is `Less`, given that smaller heads are; and
/// whether the next one is `Equal`. Only slots with an equal head are asked: the first one, where the newest version
/// of a key is, and then by halves.
#[inline]
fn rank(
    (heads, refs): (&[AtomicU64; FAN + 1], &[AtomicU32; FAN]),
    order: Order,
    head: u64,
    mut side: impl FnMut(u32) -> Compare,
) -> (usize, bool) {
    let mut low = smaller_heads(heads, order, head);
    // Both sides are evaluated: a branch on whether there is a next slot is often mispredicted.
    let is_tied = |rank: usize| {
        let next = heads[order.slot(rank + 1)].load(Ordering::Relaxed);
        (rank < order.len()) & (next == head)
    };
    if !is_tied(low) {
        return (low, false);
    }
    let mut ask = |rank: usize| side(refs[order.slot(rank + 1) - 1].load(Ordering::Relaxed));
    match ask(low) {
        Compare::Less => low += 1,
        found => return (low, found == Compare::Equal),
    }
    let mut high = low;
    while is_tied(high) {
        high += 1;
    }
    while low < high {
        let middle = low.midpoint(high);
        match ask(middle) {
            Compare::Less => low = middle + 1,
            Compare::Equal => return (middle, true),
            Compare::Greater => high = middle,
        }
    }
    (low, false)
}

/// One record in a leaf, or one separator: its head and where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Head of the record's key.
    pub head: u64,
    /// Position of the record.
    pub position: u32,
}

/// A leaf: up to [`FAN`] records.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Leaf {
    /// The order, then the heads of slots 1 to [`FAN`].
    words: [AtomicU64; FAN + 1],
    skip: PlainU32,
    /// Positions of slots 1 to [`FAN`].
    positions: [AtomicU32; FAN],
}

impl Leaf {
    /// The order now. What it names can be read.
    #[inline]
    pub fn order(&self) -> Order {
        Order(self.words[0].load(Ordering::Acquire))
    }

    /// What its heads are made of.
    #[inline]
    pub fn skip(&self) -> Skip {
        Skip::of_word(self.skip.load(Ordering::Relaxed))
    }

    /// How many of the records that `order` names come before the searched key, and whether the next one is that key.
    /// `side` says where the record at a position lies from the searched key, whose head is `head`.
    #[inline]
    pub fn rank(&self, order: Order, head: u64, side: impl FnMut(u32) -> Compare) -> (usize, bool) {
        prefetch(&self.words[FAN.div_ceil(2)]);
        prefetch(&self.positions[0]);
        rank((&self.words, &self.positions), order, head, side)
    }

    /// Position of the record with `rank` others before it. The order must name it.
    #[inline]
    pub fn position(&self, order: Order, rank: usize) -> u32 {
        self.positions[order.slot(rank + 1) - 1].load(Ordering::Relaxed)
    }

    /// Asks for all of the leaf. A hint.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(&self.words[0]);
        prefetch(&self.words[FAN.div_ceil(2)]);
        prefetch(&self.positions[0]);
    }

    /// The record with `rank` others before it. The order must name it.
    #[inline]
    pub fn entry(&self, order: Order, rank: usize) -> Entry {
        let head = self.words[order.slot(rank + 1)].load(Ordering::Relaxed);
        Entry { head, position: self.position(order, rank) }
    }

    /// Adds a record behind `rank` others. Writer only; the leaf must not be full.
    #[inline]
    pub fn insert(&self, rank: usize, entry: Entry) {
        let (order, slot) = self.order().with(rank);
        self.words[slot].store(entry.head, Ordering::Relaxed);
        self.positions[slot - 1].store(entry.position, Ordering::Relaxed);
        self.words[0].store(order.0, Ordering::Release);
    }

    /// The records of a full leaf and one more behind `rank` of them, in order. Writer only.
    pub fn with(&self, rank: usize, entry: Entry) -> [Entry; FAN + 1] {
        let order = self.order();
        std::array::from_fn(|at| match at.cmp(&rank) {
            Compare::Less => self.entry(order, at),
            Compare::Equal => entry,
            Compare::Greater => self.entry(order, at - 1),
        })
    }

    /// Fills a leaf that nobody else has seen with entries whose heads are of that skip.
    pub fn fill(&self, skip: Skip, entries: &[Entry]) {
        self.skip.store(skip.word(), Ordering::Relaxed);
        for (rank, entry) in entries.iter().enumerate() {
            self.insert(rank, *entry);
        }
    }
}

/// An inner node: up to [`FAN`] separators between children.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Inner {
    /// The order, then the heads of the separators in slots 1 to [`FAN`].
    words: [AtomicU64; FAN + 1],
    /// Handles; slot 0 is child 0.
    children: [AtomicU32; FAN + 1],
    skip: PlainU32,
    /// Positions of the separators in slots 1 to [`FAN`].
    separators: [AtomicU32; FAN],
}

impl Inner {
    /// The order now. What it names can be read.
    #[inline]
    pub fn order(&self) -> Order {
        Order(self.words[0].load(Ordering::Acquire))
    }

    /// What its heads are made of.
    #[inline]
    pub fn skip(&self) -> Skip {
        Skip::of_word(self.skip.load(Ordering::Relaxed))
    }

    /// How many of the separators that `order` names come before the searched key, and whether the next one is that
    /// key.
    #[inline]
    pub fn rank(&self, order: Order, head: u64, side: impl FnMut(u32) -> Compare) -> (usize, bool) {
        prefetch(&self.words[FAN.div_ceil(2)]);
        prefetch(&self.children[0]);
        rank((&self.words, &self.separators), order, head, side)
    }

    /// Handle of child `nth`, from 0 to `order.len()`.
    #[inline]
    pub fn child(&self, order: Order, nth: usize) -> u32 {
        self.children[order.slot(nth)].load(Ordering::Acquire)
    }

    /// The separator before child `nth`, from 1 to `order.len()`.
    #[inline]
    pub fn separator(&self, order: Order, nth: usize) -> Entry {
        let slot = order.slot(nth);
        let head = self.words[slot].load(Ordering::Relaxed);
        Entry { head, position: self.separators[slot - 1].load(Ordering::Relaxed) }
    }

    /// Makes `child` the only child of a node that nobody else has seen.
    pub fn begin(&self, child: u32) {
        self.children[0].store(child, Ordering::Relaxed);
    }

    /// Adds a separator, and the child behind it, after child `nth`. Writer only; the node must not be full.
    pub fn insert(&self, nth: usize, separator: Entry, child: u32) {
        let (order, slot) = self.order().with(nth);
        self.words[slot].store(separator.head, Ordering::Relaxed);
        self.separators[slot - 1].store(separator.position, Ordering::Relaxed);
        self.children[slot].store(child, Ordering::Relaxed);
        self.words[0].store(order.0, Ordering::Release);
    }

    /// Puts another node in the place of child `nth`. Writer only.
    pub fn replace(&self, nth: usize, child: u32) {
        self.children[self.order().slot(nth)].store(child, Ordering::Release);
    }

    /// The separators before the children `nths` of a full node. Writer only.
    pub fn separators(&self, nths: RangeInclusive<usize>) -> impl Iterator<Item = Entry> {
        let order = self.order();
        nths.map(move |nth| self.separator(order, nth))
    }

    /// Fills a node that nobody else has seen with the children of a full one from `first` on, and `separators`, whose
    /// heads are of that skip, between them.
    pub fn fill(&self, from: &Inner, first: usize, skip: Skip, separators: &[Entry]) {
        self.skip.store(skip.word(), Ordering::Relaxed);
        let order = from.order();
        self.begin(from.child(order, first));
        for (nth, separator) in separators.iter().enumerate() {
            self.insert(nth, *separator, from.child(order, first + nth + 1));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_whole_cache_lines() {
        assert_eq!((size_of::<Leaf>(), align_of::<Leaf>()), (192, 64));
        assert_eq!((size_of::<Inner>(), align_of::<Inner>()), (256, 64));
    }

    #[test]
    fn a_leaf_sorts_what_arrives_in_any_order() {
        let heads: Vec<u64> = (0..15).map(|n| (n * 7 % 15) * 10 + 5).collect();
        let leaf = Leaf::default();
        for (n, head) in heads.iter().enumerate() {
            let (rank, found) = leaf.rank(leaf.order(), *head, |_| unreachable!("no head is equal"));
            assert_eq!((rank, found), (heads[..n].iter().filter(|other| *other < head).count(), false));
            leaf.insert(rank, Entry { head: *head, position: u32::try_from(n).unwrap() });
        }
        let order = leaf.order();
        assert!(order.is_full());
        let seen: Vec<u64> = (0..15).map(|rank| leaf.entry(order, rank).head).collect();
        assert_eq!(seen, (0..15).map(|n| n * 10 + 5).collect::<Vec<_>>());
        let more = leaf.with(3, Entry { head: 30, position: 99 });
        assert_eq!(more.map(|entry| entry.head)[2..5], [25, 30, 35]);
    }

    #[test]
    fn a_slot_that_the_order_does_not_name_is_not_counted() {
        let leaf = Leaf::default();
        leaf.fill(Skip::NONE, &[20, 40].map(|head| Entry { head, position: 0 }));
        let before = leaf.order();
        leaf.insert(0, Entry { head: 10, position: 0 });
        leaf.insert(2, Entry { head: 30, position: 0 });
        for (head, rank) in [(15, 0), (25, 1), (35, 1), (45, 2)] {
            assert_eq!(leaf.rank(before, head, |_| unreachable!("no head is equal")), (rank, false));
        }
    }

    #[test]
    fn equal_heads_are_told_apart_by_their_records() {
        let leaf = Leaf::default();
        let heads = [0, 7, 7, 7, 7, 7, u64::MAX];
        leaf.fill(Skip::NONE, &heads.map(|head| Entry { head, position: 0 }));
        for (rank, slot) in leaf.positions.iter().enumerate() {
            slot.store(u32::try_from(rank).unwrap() * 2, Ordering::Relaxed);
        }
        let order = leaf.order();
        for searched in 1..=11_u32 {
            let (rank, found) = leaf.rank(order, 7, |position| position.cmp(&searched));
            assert_eq!(rank, searched.div_ceil(2).clamp(1, 6) as usize, "{searched}");
            assert_eq!(found, searched % 2 == 0, "{searched}");
        }
        assert_eq!(leaf.rank(order, u64::MAX, |_| Compare::Greater), (6, false));
        assert_eq!(leaf.rank(order, 0, |_| Compare::Less), (1, false));
    }
}
