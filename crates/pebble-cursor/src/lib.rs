//! The read algebra: one cursor contract, and the few ways in which cursors combine.
//!
//! ```text
//!   memtable cursor   table cursor   table cursor …        implement Cursor
//!          │               └── Concat ──┘                  a run: tables side by side
//!          └─────── Merge ───────┘                         all runs: a loser tree on key heads
//!                     │
//!                  Visible ◄── Veil: range deletes         what a reader at one seqno sees
//! ```
//!
//! # The contract of a cursor
//!
//! - **C1 order.** A cursor walks records in the order of [`InternalKey`], each once.
//! - **C2 position.** It stands on a record or on none; [`Cursor::record`] is `None` when it is new, exhausted or
//!   failed.
//! - **C3 seeks** are absolute: they do not depend on where the cursor stood, and revive an exhausted cursor.
//! - **C4 steps** from no position stay there, without error.
//! - **C5 errors stick.** After an `Err` every call gives that same error, and `record` gives `None`: a cursor that
//!   failed never goes on behind a gap.
//! - **C6 lending.** A record lives until the cursor moves; nothing is copied.
//! - **C7 blocks.** A block that is lent, or a stretch, holds the very records that steps would give next, the one
//!   under the cursor first.
//!
//! Threading: a cursor belongs to one thread at a time. No I/O and no unsafe code stand in this crate.

#![forbid(unsafe_code)]

mod block;
mod concat;
mod merge;
mod ranges;
mod sticky;
mod stretch;
mod veil;
mod visible;

pub use block::WholeBlock;
pub use concat::{Concat, Source};
pub use merge::Merge;
pub use ranges::{RangeDelete, RangeDeletes, cmp_ends, ends_behind};
pub use stretch::{Direction, Stretch};
pub use veil::Veil;
pub use visible::{Hole, Visible};

use pebble_format::{InternalKey, PinnedRecord, RecordRef, Result};

/// A position in an ordered sequence of records. See the [crate] for the contract, C1 to C7.
pub trait Cursor {
    /// Moves to the first record.
    fn first(&mut self) -> Result<()>;

    /// Moves to the last record.
    fn last(&mut self) -> Result<()>;

    /// Moves to the first record at or after `target`.
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()>;

    /// Moves to the last record before `target`.
    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()>;

    /// Moves to the next record.
    fn next(&mut self) -> Result<()>;

    /// Moves to the previous record.
    fn prev(&mut self) -> Result<()>;

    /// The record under the cursor.
    fn record(&self) -> Option<RecordRef<'_>>;

    /// Whether the cursor stands on a record, for who does not want to look at it.
    #[inline]
    fn is_positioned(&self) -> bool {
        self.record().is_some()
    }

    /// The record under the cursor, pinned where it lies: it outlives the cursor. Cost: a reference count.
    fn pinned(&self) -> Option<PinnedRecord>;

    /// The block that the record under the cursor begins, if the cursor stands on a block's first record and its
    /// records would come next, one after another, with nothing between them: to be moved in one piece instead.
    /// `None` says nothing but that they are to be taken one by one.
    ///
    /// Cost: a few cycles where there is none; else at most a look at every record of the block.
    #[inline]
    fn block(&self) -> Option<WholeBlock<'_>> {
        None
    }

    /// The last record of the block that [`Cursor::block`] would lend, or `None` where it lends none; it may lend
    /// none all the same. For who needs none that goes so far. Cost: a look at that record.
    #[inline]
    fn block_last(&self) -> Option<RecordRef<'_>> {
        self.block().map(|block| block.last)
    }

    /// Moves to the first record behind the block that [`Cursor::block`] lends. Where it lends none this is
    /// [`Cursor::next`], or passes over the rest of a block unseen.
    fn skip_block(&mut self) -> Result<()> {
        self.next()
    }

    /// Asks for what a seek to `target` will read first, so that several cursors' misses are served together. A hint.
    fn prefetch(&self, _target: InternalKey<'_>) {}

    /// The record under the cursor and those that steps in this direction would give next, as far as they lie in one
    /// block, delete nothing, and are of a user key each. `None` says nothing but that they are to be taken one by one.
    ///
    /// Cost: a reference count, and for a merge a search for where another child comes in between.
    fn stretch(&self, _direction: Direction) -> Option<Stretch> {
        None
    }

    /// As many steps in this direction, over records that a stretch has lent and to one of them.
    fn pass(&mut self, records: u16, direction: Direction) -> Result<()> {
        (0..records).try_for_each(|_| match direction {
            Direction::Forward => self.next(),
            Direction::Backward => self.prev(),
        })
    }
}

/// A cursor over layers, numbered from the newest on, of which the older can be moved ahead of the newer ones: what a
/// range delete in one layer hides in all older ones is jumped, whatever its size.
pub trait Layers: Cursor {
    /// On the way forward: moves the layers from `newest` on that stand before `target` to their first record at or
    /// after it. Does nothing on the way backward.
    fn skip_forward(&mut self, newest: usize, target: InternalKey<'_>) -> Result<()>;

    /// On the way backward: moves the layers from `newest` on that stand at or after `target` to their last record
    /// before it. Does nothing on the way forward.
    fn skip_backward(&mut self, newest: usize, target: InternalKey<'_>) -> Result<()>;
}

impl<C: Cursor + ?Sized> Cursor for Box<C> {
    fn first(&mut self) -> Result<()> {
        (**self).first()
    }

    fn last(&mut self) -> Result<()> {
        (**self).last()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        (**self).seek(target)
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        (**self).seek_before(target)
    }

    fn next(&mut self) -> Result<()> {
        (**self).next()
    }

    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        (**self).record()
    }

    fn is_positioned(&self) -> bool {
        (**self).is_positioned()
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        (**self).pinned()
    }

    fn block(&self) -> Option<WholeBlock<'_>> {
        (**self).block()
    }

    fn block_last(&self) -> Option<RecordRef<'_>> {
        (**self).block_last()
    }

    fn skip_block(&mut self) -> Result<()> {
        (**self).skip_block()
    }

    fn prefetch(&self, target: InternalKey<'_>) {
        (**self).prefetch(target);
    }

    fn stretch(&self, direction: Direction) -> Option<Stretch> {
        (**self).stretch(direction)
    }

    fn pass(&mut self, records: u16, direction: Direction) -> Result<()> {
        (**self).pass(records, direction)
    }
}
