//! A sorted run: many cursors side by side, read as one, opened when they are reached.
//!
//! ```text
//!   Source   [a … f] [g … m] [n … z]      bounds known, nothing opened
//!                       │
//!   Concat          open(1)               one child open at a time
//! ```
//!
//! Threading: as every [`Cursor`].

use pebble_format::{InternalKey, PinnedRecord, RecordRef, Result};

use crate::sticky::Sticky;
use crate::{Cursor, Direction, Stretch, WholeBlock};

/// The children of a [`Concat`], in ascending order and without overlap.
pub trait Source {
    /// What a child is read with.
    type Cursor: Cursor;

    /// Number of children.
    fn len(&self) -> usize;

    /// Whether there is no child.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A lower bound of child `index`; best its first key. `index` is below [`Source::len`], here and below.
    fn first_key(&self, index: usize) -> InternalKey<'_>;

    /// An upper bound of child `index`, below the next child's lower bound; best its last key.
    fn last_key(&self, index: usize) -> InternalKey<'_>;

    /// Asks for what a seek to `target` in child `index` will read. A hint.
    fn prefetch(&self, _index: usize, _target: InternalKey<'_>) {}

    /// Opens child `index`, at no position.
    fn open(&self, index: usize) -> Result<Self::Cursor>;
}

/// A cursor over the children of a [`Source`] in order.
///
/// Cost: a step is the child's step; a seek is a binary search over the bounds, then the child's seek. The child
/// last read stays open, so that seeks close to each other open nothing.
#[derive(Debug)]
pub struct Concat<S: Source> {
    source: S,
    child: Option<(usize, S::Cursor)>,
    /// Whether the child stands on a record, which is then the record of the whole.
    positioned: bool,
    sticky: Sticky,
}

impl<S: Source> Concat<S> {
    /// A cursor at no position. Opens nothing.
    pub fn new(source: S) -> Self {
        Self { source, child: None, positioned: false, sticky: Sticky::default() }
    }

    /// The children.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Moves within child `index` and, while that finds nothing, on to the first record of its successors.
    fn enter_forward(
        &mut self,
        index: usize,
        movement: impl FnOnce(&mut S::Cursor) -> Result<()>,
    ) -> Result<()> {
        self.positioned = false;
        if index < self.source.len() {
            self.enter(index, movement)?;
            self.settle_forward(index)?;
        }
        Ok(())
    }

    /// As [`Concat::enter_forward`], on to the last record of the predecessors.
    fn enter_backward(
        &mut self,
        index: Option<usize>,
        movement: impl FnOnce(&mut S::Cursor) -> Result<()>,
    ) -> Result<()> {
        self.positioned = false;
        if let Some(index) = index {
            self.enter(index, movement)?;
            self.settle_backward(index)?;
        }
        Ok(())
    }

    fn enter(&mut self, index: usize, movement: impl FnOnce(&mut S::Cursor) -> Result<()>) -> Result<()> {
        match &mut self.child {
            Some((open, child)) if *open == index => movement(child)?,
            _ => {
                let mut child = self.source.open(index)?;
                movement(&mut child)?;
                self.child = Some((index, child));
            }
        }
        self.positioned = self.child.as_ref().is_some_and(|(_, child)| child.is_positioned());
        Ok(())
    }

    fn settle_forward(&mut self, from: usize) -> Result<()> {
        for index in from + 1..self.source.len() {
            if self.positioned {
                break;
            }
            self.enter(index, S::Cursor::first)?;
        }
        Ok(())
    }

    fn settle_backward(&mut self, from: usize) -> Result<()> {
        for index in (0..from).rev() {
            if self.positioned {
                break;
            }
            self.enter(index, S::Cursor::last)?;
        }
        Ok(())
    }

    #[inline]
    fn step(
        &mut self,
        movement: impl FnOnce(&mut S::Cursor) -> Result<()>,
        settle: impl FnOnce(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        let Some((index, child)) = self.child.as_mut().filter(|_| self.positioned) else { return Ok(()) };
        movement(child)?;
        if !child.is_positioned() {
            let index = *index;
            self.positioned = false;
            settle(self, index)?;
        }
        Ok(())
    }

    /// The child that holds the first record at or after `target`, if any does.
    fn child_for(&self, target: InternalKey<'_>) -> usize {
        self.partition(|source, index| source.last_key(index) < target)
    }

    /// The number of children for which `before` holds, which is true for a front part of them.
    fn partition(&self, before: impl Fn(&S, usize) -> bool) -> usize {
        let (mut low, mut high) = (0, self.source.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(&self.source, middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl<S: Source> Cursor for Concat<S> {
    fn first(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.enter_forward(0, S::Cursor::first);
        self.sticky.keep(done)
    }

    fn last(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.enter_backward(self.source.len().checked_sub(1), S::Cursor::last);
        self.sticky.keep(done)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.sticky.check()?;
        let index = self.child_for(target);
        let done = self.enter_forward(index, |child| child.seek(target));
        self.sticky.keep(done)
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.sticky.check()?;
        let count = self.partition(|source, index| source.first_key(index) < target);
        let done = self.enter_backward(count.checked_sub(1), |child| child.seek_before(target));
        self.sticky.keep(done)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.step(S::Cursor::next, Self::settle_forward);
        self.sticky.keep(done)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.step(S::Cursor::prev, Self::settle_backward);
        self.sticky.keep(done)
    }

    #[inline]
    fn record(&self) -> Option<RecordRef<'_>> {
        let (_, child) = self.child.as_ref().filter(|_| self.positioned && !self.sticky.failed())?;
        child.record()
    }

    #[inline]
    fn is_positioned(&self) -> bool {
        self.positioned && !self.sticky.failed()
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        let (_, child) = self.child.as_ref().filter(|_| self.positioned && !self.sticky.failed())?;
        child.pinned()
    }

    #[inline]
    fn block(&self) -> Option<WholeBlock<'_>> {
        let (index, child) = self.child.as_ref().filter(|_| self.positioned && !self.sticky.failed())?;
        let block = child.block()?;
        let following = (index + 1 < self.source.len()).then(|| self.source.first_key(index + 1));
        let parted = following.is_some_and(|first| first.same_key(&block.last.internal_key()));
        (!parted).then_some(block)
    }

    #[inline]
    fn block_last(&self) -> Option<RecordRef<'_>> {
        let (_, child) = self.child.as_ref().filter(|_| self.positioned && !self.sticky.failed())?;
        child.block_last()
    }

    fn skip_block(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.step(S::Cursor::skip_block, Self::settle_forward);
        self.sticky.keep(done)
    }

    fn prefetch(&self, target: InternalKey<'_>) {
        let index = self.child_for(target);
        if index < self.source.len() {
            self.source.prefetch(index, target);
        }
    }

    fn stretch(&self, direction: Direction) -> Option<Stretch> {
        let (_, child) = self.child.as_ref().filter(|_| self.positioned && !self.sticky.failed())?;
        child.stretch(direction)
    }

    fn pass(&mut self, records: u16, direction: Direction) -> Result<()> {
        self.sticky.check()?;
        let Some((_, child)) = self.child.as_mut().filter(|_| self.positioned) else { return Ok(()) };
        let done = child.pass(records, direction);
        self.sticky.keep(done)
    }
}
