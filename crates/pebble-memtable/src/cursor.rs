//! A cursor over a memtable.
//!
//! ```text
//!   leaf + its order, as found ──► at the end: the sibling under the same parent, if that has not changed,
//!                                  else a new descent for what comes after (before) the current key
//! ```
//!
//! It sees every record whose insert happened before its last absolute move ([`Cursor::seek`] and its kin), and may
//! or may not see later ones; sequence numbers decide what a reader may use. Each record comes once and in order.
//!
//! The sibling is sound because a parent in the same state still covers the same ranges, and each child it names
//! holds at least what its range held when the cursor came there (`tree.rs`). The leaf left may be one that was
//! replaced, and then reach beyond its range: so the new leaf is entered at the searched key, not at its edge.
//!
//! Threading: a cursor belongs to one thread at a time, and may be sent to another.

use std::sync::Arc;

use pebble_cursor::{Cursor, Direction};
use pebble_format::{InternalKey, PinnedRecord, RecordRef, Result, Trailer};

use crate::memtable::Memtable;
use crate::node::Order;
use crate::tree::{Branch, Spot, Target};

/// A position in a [`Memtable`]. It never fails.
pub struct MemtableCursor {
    memtable: Arc<Memtable>,
    at: Option<Place>,
}

/// A record in a leaf.
#[derive(Clone, Copy)]
struct Place {
    leaf: u32,
    order: Order,
    branch: Option<Branch>,
    rank: usize,
    position: u32,
}

impl MemtableCursor {
    pub(crate) fn new(memtable: Arc<Memtable>) -> Self {
        Self { memtable, at: None }
    }

    /// The place of the record with `rank` others before it in the leaf, if there is one.
    #[inline]
    fn place(&self, leaf: u32, order: Order, branch: Option<Branch>, rank: usize) -> Option<Place> {
        (rank < order.len()).then(|| {
            let position = self.memtable.tree.leaves.get(leaf).position(order, rank);
            Place { leaf, order, branch, rank, position }
        })
    }

    /// The record it stands on, and its position.
    pub(crate) fn record_and_position(&self) -> Option<(RecordRef<'_>, u32)> {
        self.at.map(|place| (self.memtable.tree.windows.record(place.position), place.position))
    }

    fn in_spot(&self, spot: Spot, rank: usize) -> Option<Place> {
        self.place(spot.leaf, spot.order, spot.branch, rank)
    }

    /// The first record at or after `target`. A leaf without one ends at the fence, which is the record then.
    fn at_or_after(&self, target: &Target<'_>) -> Option<Place> {
        let tree = &self.memtable.tree;
        let spot = tree.leaf_of(target);
        let rank = tree.rank(spot.leaf, spot.order, target);
        self.in_spot(spot, rank).or_else(|| {
            let fence = tree.target_at(spot.fence?);
            let spot = tree.leaf_of(&fence);
            self.in_spot(spot, tree.rank(spot.leaf, spot.order, &fence))
        })
    }

    /// The last record before `target`.
    fn before(&self, target: &Target<'_>) -> Option<Place> {
        let tree = &self.memtable.tree;
        let spot = tree.leaf_before(target);
        let rank = tree.rank(spot.leaf, spot.order, target);
        self.in_spot(spot, rank.checked_sub(1)?)
    }

    /// The first record behind `place`, which is the last of its leaf.
    fn leaf_after(&self, place: Place) -> Option<Place> {
        let tree = &self.memtable.tree;
        let target = tree.target(just_after(tree.windows.record(place.position).internal_key()));
        let beside = || {
            let (branch, leaf) = self.beside(place, Direction::Forward)?;
            let order = tree.leaves.get(leaf).order();
            self.place(leaf, order, Some(branch), tree.rank_from(leaf, order, &target))
        };
        self.entered(beside().or_else(|| self.at_or_after(&target)), Direction::Forward)
    }

    /// The last record before `place`, which is the first of its leaf.
    fn leaf_before(&self, place: Place) -> Option<Place> {
        let tree = &self.memtable.tree;
        let target = tree.target_at(place.position);
        let beside = || {
            let (branch, leaf) = self.beside(place, Direction::Backward)?;
            let order = tree.leaves.get(leaf).order();
            self.place(leaf, order, Some(branch), tree.rank(leaf, order, &target).checked_sub(1)?)
        };
        self.entered(beside().or_else(|| self.before(&target)), Direction::Backward)
    }

    /// Asks for the records of a leaf that a walk has come to, and for the leaf that it will come to next: it is
    /// likely to go on.
    fn entered(&self, place: Option<Place>, direction: Direction) -> Option<Place> {
        if let Some(place) = place {
            self.ask_for_records(place.leaf, place.order);
            if let Some((_, leaf)) = self.beside(place, direction) {
                self.memtable.tree.leaves.get(leaf).prefetch();
            }
        }
        place
    }

    /// In the middle of a leaf, asks for the records of the next one, which has arrived by now: so they do when the
    /// walk needs them.
    #[inline]
    fn look_ahead(&self, place: Place, direction: Direction) {
        if place.rank == place.order.len() / 2
            && let Some((_, leaf)) = self.beside(place, direction)
        {
            self.ask_for_records(leaf, self.memtable.tree.leaves.get(leaf).order());
        }
    }

    /// The leaf that a walk comes to behind this one, if the same parent tells.
    fn beside(&self, place: Place, direction: Direction) -> Option<(Branch, u32)> {
        let branch = place.branch?;
        let nth = match direction {
            Direction::Forward => Some(branch.nth + 1).filter(|nth| *nth <= branch.order.len()),
            Direction::Backward => branch.nth.checked_sub(1),
        };
        self.memtable.tree.sibling(branch, nth?)
    }

    fn ask_for_records(&self, leaf: u32, order: Order) {
        let tree = &self.memtable.tree;
        let leaf = tree.leaves.get(leaf);
        (0..order.len()).for_each(|rank| tree.windows.prefetch(leaf.position(order, rank)));
    }
}

/// The key that comes right after `key` in order: nothing lies between them. A record's trailer is never zero.
fn just_after(key: InternalKey<'_>) -> InternalKey<'_> {
    InternalKey { trailer: Trailer(key.trailer.0.saturating_sub(1)), ..key }
}

impl Cursor for MemtableCursor {
    fn first(&mut self) -> Result<()> {
        self.at = self.in_spot(self.memtable.tree.first_leaf(), 0);
        Ok(())
    }

    fn last(&mut self) -> Result<()> {
        let spot = self.memtable.tree.last_leaf();
        self.at = spot.order.len().checked_sub(1).and_then(|rank| self.in_spot(spot, rank));
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.at = self.at_or_after(&self.memtable.tree.target(target));
        Ok(())
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.at = self.before(&self.memtable.tree.target(target));
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if let Some(place) = self.at {
            self.look_ahead(place, Direction::Forward);
            let inside = self.place(place.leaf, place.order, place.branch, place.rank + 1);
            self.at = inside.or_else(|| self.leaf_after(place));
        }
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if let Some(place) = self.at {
            self.look_ahead(place, Direction::Backward);
            let inside = place.rank.checked_sub(1);
            let inside = inside.and_then(|rank| self.place(place.leaf, place.order, place.branch, rank));
            self.at = inside.or_else(|| self.leaf_before(place));
        }
        Ok(())
    }

    #[inline]
    fn record(&self) -> Option<RecordRef<'_>> {
        self.at.map(|place| self.memtable.tree.windows.record(place.position))
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.at.map(|place| self.memtable.pin(place.position))
    }
}

impl std::fmt::Debug for MemtableCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemtableCursor").field("at", &self.record()).finish_non_exhaustive()
    }
}
