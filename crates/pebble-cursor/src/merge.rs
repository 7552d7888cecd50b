//! Many sorted cursors read as one: a loser tree on cached key heads.
//!
//! ```text
//!               winner            a node holds the loser of the match below it, so after a step
//!                 │               the winner's leaf replays one path: log2(k) comparisons,
//!               [loser]           each of two u64 that lie in the tree itself
//!              ╱       ╲
//!         [loser]     [loser]     equal heads are settled by the whole keys, lent by the children
//!          ╱   ╲       ╱   ╲
//!         c0   c1     c2   c3
//! ```
//!
//! Source: Knuth, "The Art of Computer Programming", volume 3, 5.4.1 (tree of losers). Threading: as every
//! [`Cursor`].

use std::cmp::Ordering;
use std::hint::select_unpredictable;

use pebble_format::{HeadPrefix, InternalKey, PinnedRecord, RecordRef, Result};

use crate::sticky::Sticky;
use crate::{Cursor, Direction, Layers, Stretch, WholeBlock};

/// A child in the tournament.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Rank of the child's record in the direction of travel: smaller is sooner. An exhausted child has `u64::MAX`,
    /// which a record may have too; then the records decide.
    head: u64,
    child: usize,
}

/// A cursor over the union of its children.
///
/// No two children hold the same internal key: sequence numbers are unique, so this costs a user nothing. If two do,
/// both records come, and a change of direction between them may miss or repeat one.
///
/// Cost: a step is the step of one child plus log2(k) comparisons; a change of direction steps every child once; a
/// seek seeks all children. Nothing is allocated after [`Merge::new`], no key is copied.
#[derive(Debug)]
pub struct Merge<C: Cursor> {
    children: Vec<C>,
    prefix: HeadPrefix,
    /// `tree[0]` is the winner, `tree[n]` the loser of the match at node `n`; leaf `i` is node `children.len() + i`.
    tree: Vec<Entry>,
    direction: Direction,
    /// Whether the winner stands on a record, which is then the record of the whole.
    positioned: bool,
    sticky: Sticky,
}

impl<C: Cursor> Merge<C> {
    /// A merge at no position, for keys of any kind.
    pub fn new(children: Vec<C>) -> Self {
        Self::with_prefix(children, HeadPrefix::none())
    }

    /// A merge whose keys mostly share `prefix`: eight bytes behind it then decide nearly every comparison. A prefix
    /// that does not fit costs time, never correctness.
    pub fn with_prefix(children: Vec<C>, prefix: HeadPrefix) -> Self {
        let tree = (0..children.len()).map(|child| Entry { head: u64::MAX, child }).collect();
        Self {
            children,
            prefix,
            tree,
            direction: Direction::Forward,
            positioned: false,
            sticky: Sticky::default(),
        }
    }

    /// Moves every child and begins a new tournament.
    fn restart(
        &mut self,
        direction: Direction,
        mut movement: impl FnMut(&mut C) -> Result<()>,
    ) -> Result<()> {
        self.positioned = false;
        self.direction = direction;
        for child in &mut self.children {
            movement(child)?;
        }
        self.play();
        Ok(())
    }

    /// Plays all matches, from the leaves to the winner. O(k).
    fn play(&mut self) {
        let leaves = self.children.len();
        let Some(winner) = (leaves > 0).then(|| self.winner_below(1)) else { return };
        if let Some(top) = self.tree.first_mut() {
            *top = winner;
        }
        self.positioned = self.children.get(winner.child).is_some_and(C::is_positioned);
    }

    /// The winner among the leaves below `node`, with the losers recorded. Depth log2(k) + 1.
    fn winner_below(&mut self, node: usize) -> Entry {
        let leaves = self.children.len();
        if node >= leaves {
            return self.entry(node - leaves);
        }
        let (left, right) = (self.winner_below(2 * node), self.winner_below(2 * node + 1));
        let (winner, loser) = if self.sooner(&right, &left) { (right, left) } else { (left, right) };
        if let Some(slot) = self.tree.get_mut(node) {
            *slot = loser;
        }
        winner
    }

    #[inline]
    fn entry(&self, child: usize) -> Entry {
        let head = match self.children.get(child).and_then(Cursor::record) {
            None => u64::MAX,
            Some(record) => {
                let head = self.prefix.head(record.keyspace(), record.key());
                if self.direction == Direction::Forward { head } else { !head }
            }
        };
        Entry { head, child }
    }

    /// Whether `a` comes before `b` in the direction of travel.
    #[inline]
    fn sooner(&self, a: &Entry, b: &Entry) -> bool {
        if a.head != b.head { a.head < b.head } else { self.sooner_in_full(a.child, b.child) }
    }

    #[cold]
    fn sooner_in_full(&self, a: usize, b: usize) -> bool {
        let record = |child: usize| self.children.get(child).and_then(Cursor::record);
        let order = match (record(a), record(b)) {
            (Some(a), Some(b)) if self.direction == Direction::Forward => {
                a.internal_key().cmp(&b.internal_key())
            }
            (Some(a), Some(b)) => b.internal_key().cmp(&a.internal_key()),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        order.then_with(|| a.cmp(&b)) == Ordering::Less
    }

    /// Lets the child that moved, the winner so far, play its path again. Who wins a match is what nobody can
    /// foretell, so both players are selected without a branch; a wrong guess would cost more than all else of the
    /// match.
    #[inline]
    fn replay(&mut self, child: usize) {
        let mut winner = self.entry(child);
        let mut node = (self.children.len() + child) / 2;
        while node > 0 {
            let Some(loser) = self.tree.get(node).copied() else { return };
            let sooner = if loser.head == winner.head {
                self.sooner_in_full(loser.child, winner.child)
            } else {
                loser.head < winner.head
            };
            if let Some(slot) = self.tree.get_mut(node) {
                *slot = select_unpredictable(sooner, winner, loser);
            }
            winner = select_unpredictable(sooner, loser, winner);
            node /= 2;
        }
        if let Some(top) = self.tree.first_mut() {
            *top = winner;
        }
        // The winner has the largest rank only at the end, or at a record with an extreme key.
        if winner.head == u64::MAX {
            self.positioned = self.children.get(winner.child).is_some_and(C::is_positioned);
        }
    }

    #[inline]
    fn step(&mut self, direction: Direction, movement: impl FnOnce(&mut C) -> Result<()>) -> Result<()> {
        let Some(winner) = self.tree.first().filter(|_| self.positioned).map(|entry| entry.child) else {
            return Ok(());
        };
        if self.direction != direction {
            return self.turn(winner, direction);
        }
        if let Some(child) = self.children.get_mut(winner) {
            movement(child)?;
        }
        self.replay(winner);
        Ok(())
    }

    /// Changes the direction. Every other child stands on its nearest record behind the current one, or on none
    /// because it has no record there; one step brings it to its nearest record ahead.
    #[cold]
    fn turn(&mut self, winner: usize, direction: Direction) -> Result<()> {
        self.positioned = false;
        self.direction = direction;
        for (index, child) in self.children.iter_mut().enumerate() {
            let beyond = index != winner && child.record().is_none();
            match (direction, beyond) {
                (Direction::Forward, false) => child.next()?,
                (Direction::Forward, true) => child.first()?,
                (Direction::Backward, false) => child.prev()?,
                (Direction::Backward, true) => child.last()?,
            }
        }
        self.play();
        Ok(())
    }

    /// Moves those of the children from `newest` on that stand before the goal, in the direction of travel.
    fn skip(
        &mut self,
        direction: Direction,
        newest: usize,
        behind: impl Fn(&C) -> bool,
        mut movement: impl FnMut(&mut C) -> Result<()>,
    ) -> Result<()> {
        if self.direction != direction || !self.positioned {
            return Ok(());
        }
        let children = self.children.get_mut(newest..).unwrap_or_default();
        let mut moved = false;
        for child in children.iter_mut().filter(|child| behind(child)) {
            moved = true;
            if let Err(error) = movement(child) {
                self.positioned = false;
                return Err(error);
            }
        }
        if moved {
            self.play();
        }
        Ok(())
    }

    #[inline]
    fn winner(&self) -> Option<&C> {
        let top = self.tree.first().filter(|_| self.positioned && !self.sticky.failed())?;
        self.children.get(top.child)
    }

    /// Whether every other child's user key is behind this one of the winner; forward only.
    #[inline(never)]
    fn is_alone_up_to(&self, last: InternalKey<'_>) -> bool {
        let mut others = self.next_best();
        self.direction == Direction::Forward
            && others.all(|other| last.cmp_user(&other.internal_key()).is_lt())
    }

    /// The records of which one comes next if the winner's child is left out: those that lost to the winner itself.
    /// log2(k) of them.
    fn next_best(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let leaf = self.tree.first().map_or(0, |winner| self.children.len() + winner.child);
        let path = std::iter::successors(Some(leaf / 2), |node| Some(node / 2)).take_while(|node| *node > 0);
        path.filter_map(|node| self.children.get(self.tree.get(node)?.child)?.record())
    }
}

/// The layers are the children, newest first.
impl<C: Cursor> Layers for Merge<C> {
    fn skip_forward(&mut self, newest: usize, target: InternalKey<'_>) -> Result<()> {
        self.sticky.check()?;
        let behind = |child: &C| child.record().is_some_and(|record| record.internal_key() < target);
        let done = self.skip(Direction::Forward, newest, behind, |child| child.seek(target));
        self.sticky.keep(done)
    }

    fn skip_backward(&mut self, newest: usize, target: InternalKey<'_>) -> Result<()> {
        self.sticky.check()?;
        let behind = |child: &C| child.record().is_some_and(|record| record.internal_key() >= target);
        let done = self.skip(Direction::Backward, newest, behind, |child| child.seek_before(target));
        self.sticky.keep(done)
    }
}

impl<C: Cursor> Cursor for Merge<C> {
    fn first(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.restart(Direction::Forward, C::first);
        self.sticky.keep(done)
    }

    fn last(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.restart(Direction::Backward, C::last);
        self.sticky.keep(done)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.sticky.check()?;
        if self.children.len() > 1 {
            self.children.iter().for_each(|child| child.prefetch(target));
        }
        let done = self.restart(Direction::Forward, |child| child.seek(target));
        self.sticky.keep(done)
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.sticky.check()?;
        let done = self.restart(Direction::Backward, |child| child.seek_before(target));
        self.sticky.keep(done)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.step(Direction::Forward, C::next);
        self.sticky.keep(done)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.step(Direction::Backward, C::prev);
        self.sticky.keep(done)
    }

    #[inline]
    fn record(&self) -> Option<RecordRef<'_>> {
        self.winner()?.record()
    }

    #[inline]
    fn is_positioned(&self) -> bool {
        self.positioned && !self.sticky.failed()
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.winner()?.pinned()
    }

    fn block(&self) -> Option<WholeBlock<'_>> {
        self.block_last()?;
        self.winner()?.block()
    }

    /// The winner's, if it ends before every other child's record; forward only. Most blocks of inputs that overlap
    /// go too far, so their other records are not looked at.
    #[inline]
    fn block_last(&self) -> Option<RecordRef<'_>> {
        let found = self.winner()?.block_last()?;
        self.is_alone_up_to(found.internal_key()).then_some(found)
    }

    fn skip_block(&mut self) -> Result<()> {
        self.sticky.check()?;
        let done = self.step(Direction::Forward, C::skip_block);
        self.sticky.keep(done)
    }

    /// The winner's, up to where another child's record comes in.
    fn stretch(&self, direction: Direction) -> Option<Stretch> {
        let winner = self.winner().filter(|_| self.direction == direction)?;
        let mut stretch = winner.stretch(direction)?;
        for other in self.next_best() {
            let other = other.internal_key();
            match direction {
                Direction::Forward => stretch.keep_while(|key| key.cmp_user(&other).is_lt()),
                Direction::Backward => stretch.keep_while(|key| key.cmp_user(&other).is_gt()),
            }
        }
        Some(stretch)
    }

    fn pass(&mut self, records: u16, direction: Direction) -> Result<()> {
        self.sticky.check()?;
        if records == 0 {
            return Ok(());
        }
        let done = self.step(direction, |child| child.pass(records, direction));
        self.sticky.keep(done)
    }
}
