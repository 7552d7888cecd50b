//! Iteration: what a reader at one sequence number sees of one keyspace, from both ends.
//!
//! ```text
//!   Iter ─► front: Visible ─► Merge ─► [ memtable │ sealed … │ Concat of a run's tables … ]
//!        └► back:  Visible ─► Merge ─► [ the same children, cursors of their own ]
//! ```
//!
//! Each end has its own cursors, made when that end is first used; they meet by comparing keys. What is left lies
//! between them: what one has given or passed the other never gives.
//!
//! Threading: an iterator belongs to one thread at a time. It holds one picture of the tree, so what it gives does
//! not change, and the memtables and tables of that picture live as long as it does.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use pebble_compaction::KeyRange;
use pebble_cursor::{
    Concat, Cursor, Direction, Hole, Merge, Stretch, Veil, Visible, WholeBlock, ends_behind,
};
use pebble_format::{HeadPrefix, InternalKey, KeyspaceId, PinnedRecord, RecordRef, Seqno, Trailer};
use pebble_memtable::MemtableCursor;
use pebble_sstable::TableRun;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::state::{ReadState, RunTables};

/// One sorted source of records.
pub(crate) enum Child {
    Memtable(MemtableCursor),
    Run(Box<Concat<TableRun>>),
}

impl Child {
    pub(crate) fn run(tables: &RunTables) -> Self {
        Self::Run(Box::new(Concat::new(TableRun(Arc::clone(tables)))))
    }
}

macro_rules! each {
    ($child:expr, $cursor:ident => $call:expr) => {
        match $child {
            Child::Memtable($cursor) => $call,
            Child::Run($cursor) => $call,
        }
    };
}

impl Cursor for Child {
    fn first(&mut self) -> pebble_format::Result<()> {
        each!(self, cursor => cursor.first())
    }

    fn last(&mut self) -> pebble_format::Result<()> {
        each!(self, cursor => cursor.last())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> pebble_format::Result<()> {
        each!(self, cursor => cursor.seek(target))
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> pebble_format::Result<()> {
        each!(self, cursor => cursor.seek_before(target))
    }

    #[inline]
    fn next(&mut self) -> pebble_format::Result<()> {
        each!(self, cursor => cursor.next())
    }

    #[inline]
    fn prev(&mut self) -> pebble_format::Result<()> {
        each!(self, cursor => cursor.prev())
    }

    #[inline]
    fn record(&self) -> Option<RecordRef<'_>> {
        each!(self, cursor => cursor.record())
    }

    #[inline]
    fn is_positioned(&self) -> bool {
        each!(self, cursor => cursor.is_positioned())
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        each!(self, cursor => cursor.pinned())
    }

    #[inline]
    fn block(&self) -> Option<WholeBlock<'_>> {
        each!(self, cursor => cursor.block())
    }

    #[inline]
    fn block_last(&self) -> Option<RecordRef<'_>> {
        each!(self, cursor => cursor.block_last())
    }

    fn skip_block(&mut self) -> pebble_format::Result<()> {
        each!(self, cursor => cursor.skip_block())
    }

    fn prefetch(&self, target: InternalKey<'_>) {
        each!(self, cursor => cursor.prefetch(target));
    }

    fn stretch(&self, direction: Direction) -> Option<Stretch> {
        each!(self, cursor => cursor.stretch(direction))
    }

    fn pass(&mut self, records: u16, direction: Direction) -> pebble_format::Result<()> {
        each!(self, cursor => cursor.pass(records, direction))
    }
}

/// A lower and an upper bound of user keys, owned.
pub type Bounds = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);

/// The entries of one keyspace within bounds, in order, from both ends. See the file's head.
///
/// After an error it gives that error and nothing else: never an entry from behind a gap.
pub struct Iter {
    state: Arc<ReadState>,
    core: Weak<Core>,
    keyspace: KeyspaceId,
    bounds: Bounds,
    seqno: Seqno,
    front: Option<End>,
    back: Option<End>,
    /// The record whose value lies apart that was lent last.
    lent: Option<PinnedRecord>,
    phase: Phase,
}

/// One end: where it stands, and whether that entry was given out.
struct End {
    view: Visible<Merge<Child>>,
    /// Where the end stands instead, if it has one: entries behind the view's that need no look at the view.
    stretch: Option<Stretch>,
    /// Steps until the view is asked for a stretch, and how many it is left alone after a short one.
    patience: u32,
    backoff: u32,
    /// The patience that a seek begins with.
    patience_first: u32,
    /// The end has yet to give its entry: a seek moved it there, or the other end was first.
    pending: bool,
}

/// With several runs a stretch costs a look at its far end, which whoever takes fewer entries than this has no use for.
const STRETCH_AFTER: u32 = 4;
/// A stretch of fewer records costs more than it saves.
const STRETCH_MIN: usize = 4;
/// After a short stretch the view is left alone for so many steps, and twice as many after each one more.
const BACKOFF_MIN: u32 = 8;
const BACKOFF_MAX: u32 = 256;

impl End {
    /// Moves by one entry, without a look at anything but the stretch; says whether that could be.
    #[inline]
    fn glide(&mut self) -> bool {
        self.stretch.as_mut().is_some_and(Stretch::step)
    }

    /// The entry under the end.
    #[inline]
    fn record(&self) -> Option<RecordRef<'_>> {
        match &self.stretch {
            Some(stretch) if stretch.taken() > 0 => stretch.record(),
            _ => self.view.record(),
        }
    }

    #[inline]
    fn pinned(&self) -> Option<PinnedRecord> {
        match &self.stretch {
            Some(stretch) if stretch.taken() > 0 => stretch.pinned(),
            _ => self.view.pinned(),
        }
    }

    /// Lets the view stand where the end does.
    fn leave_stretch(&mut self) -> pebble_format::Result<()> {
        self.stretch.take().map_or(Ok(()), |stretch| self.view.pass(&stretch))
    }

    /// Asks the view for a stretch, now and then where there was none.
    fn try_stretch(&mut self) {
        if self.patience > 0 {
            self.patience -= 1;
            return;
        }
        self.stretch = self.view.stretch().filter(|stretch| stretch.len() >= STRETCH_MIN);
        if self.stretch.is_some() {
            self.backoff = BACKOFF_MIN;
        } else {
            self.patience = self.backoff;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Front => Self::Back,
            Self::Back => Self::Front,
        }
    }
}

enum Phase {
    Open,
    Exhausted,
    Failed(Error),
}

impl Iter {
    pub(crate) fn new(
        state: Arc<ReadState>,
        core: Weak<Core>,
        keyspace: KeyspaceId,
        bounds: Bounds,
        seqno: Seqno,
    ) -> Self {
        Self { state, core, keyspace, bounds, seqno, front: None, back: None, lent: None, phase: Phase::Open }
    }

    /// An end at no position.
    fn new_end(&self) -> End {
        let (tree, mut children, mut veils) = (&self.state.tree, Vec::new(), Vec::new());
        for memtable in self.state.memtables().filter(|memtable| !memtable.is_empty()) {
            let layer = children.len();
            veils.extend(memtable.range_deletes().map(|deletes| Veil { deletes, layer, whole: false }));
            veils.extend(memtable.dead_ranges().map(|deletes| Veil { deletes, layer, whole: true }));
            children.push(Child::Memtable(memtable.cursor()));
        }
        let first_run = children.len();
        children.extend(tree.runs.iter().map(Child::run));
        let of_runs = tree.range_deletes.iter();
        veils.extend(of_runs.map(|(run, deletes)| Veil {
            deletes: Arc::clone(deletes),
            layer: first_run + run,
            whole: false,
        }));
        let patience = if children.len() > 1 { STRETCH_AFTER } else { 0 };
        let merge = Merge::with_prefix(children, self.prefix());
        let (lo, hi) = self.bounds.clone();
        let view = Visible::new(merge, self.keyspace, lo, hi, self.seqno).below(veils);
        End { view, stretch: None, patience, backoff: BACKOFF_MIN, patience_first: patience, pending: false }
    }

    /// What all keys within the bounds share.
    fn prefix(&self) -> HeadPrefix {
        match &self.bounds {
            (Bound::Included(lo) | Bound::Excluded(lo), Bound::Included(hi) | Bound::Excluded(hi)) => {
                let key =
                    |user_key| InternalKey { keyspace: self.keyspace, user_key, trailer: Trailer::OLDEST };
                HeadPrefix::between(key(lo), key(hi))
            }
            _ => HeadPrefix::new(self.keyspace, b""),
        }
    }

    /// The next entry from the front.
    #[inline]
    pub fn next_front(&mut self) -> Option<Result<PinnedRecord>> {
        self.next_from(Side::Front)
    }

    /// The next entry from the back.
    #[inline]
    pub fn next_back(&mut self) -> Option<Result<PinnedRecord>> {
        self.next_from(Side::Back)
    }

    /// The next entry from the front, lent: no reference is counted.
    #[inline]
    pub fn lend_front(&mut self) -> Option<Result<RecordRef<'_>>> {
        self.lend_from(Side::Front)
    }

    /// The next entry from the back, lent.
    #[inline]
    pub fn lend_back(&mut self) -> Option<Result<RecordRef<'_>>> {
        self.lend_from(Side::Back)
    }

    /// Moves the front so that the next entry it gives is the first at or after `key`, also to a place before where it
    /// stood, and then it gives again what it gave behind that place. What is left lies between the ends, wherever they
    /// were moved to or ran off: none if the front is behind the back. Cost: a seek in every memtable and run.
    pub fn seek(&mut self, key: &[u8]) {
        self.seek_from(Side::Front, key);
    }

    /// Moves the back so that the next entry it gives is the last at or before `key`; otherwise as [`Iter::seek`].
    pub fn seek_for_prev(&mut self, key: &[u8]) {
        self.seek_from(Side::Back, key);
    }

    #[inline]
    fn end(&self, side: Side) -> &Option<End> {
        match side {
            Side::Front => &self.front,
            Side::Back => &self.back,
        }
    }

    #[inline]
    fn end_mut(&mut self, side: Side) -> &mut Option<End> {
        match side {
            Side::Front => &mut self.front,
            Side::Back => &mut self.back,
        }
    }

    #[inline]
    fn next_from(&mut self, side: Side) -> Option<Result<PinnedRecord>> {
        match self.advance(side) {
            Ok(true) => {
                let found = self.end(side).as_ref()?.pinned()?;
                Some(if found.record().is_reference() { self.follow(&found) } else { Ok(found) })
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    #[inline]
    fn lend_from(&mut self, side: Side) -> Option<Result<RecordRef<'_>>> {
        match self.advance(side) {
            // Only where there are values apart is each record looked at for it.
            Ok(true) if self.state.tree.values.is_empty() => self.end(side).as_ref()?.record().map(Ok),
            Ok(true) => self.lend_or_follow(side),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn lend_or_follow(&mut self, side: Side) -> Option<Result<RecordRef<'_>>> {
        if self.end(side).as_ref()?.record()?.is_reference() {
            let found = self.end(side).as_ref()?.pinned()?;
            return Some(self.follow(&found).map(|followed| self.lent.insert(followed).record()));
        }
        self.end(side).as_ref()?.record().map(Ok)
    }

    /// The record with the value, in place of one that refers to it.
    fn follow(&mut self, found: &PinnedRecord) -> Result<PinnedRecord> {
        self.state.tree.values.follow(found.record()).map_err(|error| {
            let error = self.met(error);
            // No end goes on from here.
            (self.front, self.back, self.phase) = (None, None, Phase::Failed(error.clone()));
            error
        })
    }

    /// Moves an end to its next entry; says whether there is one.
    #[inline]
    fn advance(&mut self, side: Side) -> Result<bool> {
        if self.end_mut(side).as_mut().is_some_and(End::glide) {
            Ok(true)
        } else {
            self.advance_in_full(side)
        }
    }

    fn advance_in_full(&mut self, side: Side) -> Result<bool> {
        match &self.phase {
            Phase::Open => {}
            Phase::Exhausted => return Ok(false),
            Phase::Failed(error) => return Err(error.clone()),
        }
        let moved = self.step(side);
        let found = moved.map(|()| {
            let record = self.end(side).as_ref().and_then(|end| end.view.record());
            record.is_some_and(|found| !self.is_given(side, found.key()))
        });
        self.report_hole(side);
        match found {
            Ok(true) => {
                let alone = self.end(side.other()).is_none();
                if let Some(end) = self.end_mut(side).as_mut().filter(|_| alone) {
                    end.try_stretch();
                }
                Ok(true)
            }
            Ok(false) => {
                self.phase = Phase::Exhausted;
                // Where the ends met, this one stands on what it has not given.
                if let Some(end) = self.end_mut(side) {
                    end.pending = true;
                }
                Ok(false)
            }
            Err(error) => {
                let error = self.met(error);
                self.phase = Phase::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// Moves an end's view by one entry; makes the end if there is none.
    fn step(&mut self, side: Side) -> pebble_format::Result<()> {
        let fresh = self.end(side).is_none();
        if fresh {
            self.begin(side)?;
        }
        let Some(end) = self.end_mut(side) else { return Ok(()) };
        end.leave_stretch()?;
        match side {
            _ if std::mem::take(&mut end.pending) => Ok(()),
            Side::Front if fresh => end.view.first(),
            Side::Front => end.view.next(),
            Side::Back if fresh => end.view.last(),
            Side::Back => end.view.prev(),
        }
    }

    /// Makes an end. Once there are two, each looks where the other stands, so neither goes by stretches.
    fn begin(&mut self, side: Side) -> pebble_format::Result<()> {
        *self.end_mut(side) = Some(self.new_end());
        self.end_mut(side.other()).as_mut().map_or(Ok(()), End::leave_stretch)
    }

    fn report_hole(&mut self, side: Side) {
        let hole = self.end_mut(side).as_mut().and_then(|end| end.view.take_hole());
        if let Some(hole) = hole {
            let found = self.end(side).as_ref().and_then(|end| end.view.record());
            self.report(side, hole, found.map(|record| record.key()));
        }
    }

    /// A long row of records was passed unseen, up to the entry that was found.
    #[cold]
    fn report(&self, side: Side, hole: Hole, found: Option<&[u8]>) {
        let Some(core) = self.core.upgrade() else { return };
        let start = match hole.start {
            Bound::Unbounded => Box::default(),
            Bound::Included(key) => key,
            Bound::Excluded(key) => [&*key, b"\0"].concat().into(),
        };
        match side {
            Side::Front => {
                let end: Box<[u8]> = match (found, &self.bounds.1) {
                    (Some(key), _) => key.into(),
                    (None, Bound::Excluded(key)) => key.clone(),
                    (None, Bound::Unbounded) => Box::default(),
                    (None, Bound::Included(key)) => [&**key, b"\0"].concat().into(),
                };
                if ends_behind(&end, &start) {
                    let range = KeyRange { keyspace: self.keyspace, start, end };
                    core.found_dead(&self.state.memtable, range, self.seqno, hole.passed);
                }
            }
            Side::Back => {
                let range =
                    KeyRange { keyspace: self.keyspace, start: found.unwrap_or_default().into(), end: start };
                core.wanted.add(range, hole.passed);
            }
        }
    }

    /// Whether the other end has given `key` already, or has passed it: what is left lies between the two. One that has
    /// run off has passed everything.
    #[inline]
    fn is_given(&self, side: Side, key: &[u8]) -> bool {
        let Some(other) = self.end(side.other()) else { return false };
        let Some(there) = other.view.record() else { return true };
        match key.cmp(there.key()) {
            Ordering::Equal => !other.pending,
            Ordering::Greater => side == Side::Front,
            Ordering::Less => side == Side::Back,
        }
    }

    fn seek_from(&mut self, side: Side, key: &[u8]) {
        if matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        let moved = self.seek_end(side, key);
        self.report_hole(side);
        self.phase = moved.map_or_else(|error| Phase::Failed(self.met(error)), |()| Phase::Open);
    }

    /// Takes in an error on its way to the caller.
    #[cold]
    fn met(&self, error: pebble_format::Error) -> Error {
        let error = Error::from(error);
        if let Some(core) = self.core.upgrade() {
            core.met.note(&error);
        }
        error
    }

    fn seek_end(&mut self, side: Side, key: &[u8]) -> pebble_format::Result<()> {
        if self.end(side).is_none() {
            self.begin(side)?;
        }
        let Some(end) = self.end_mut(side) else { return Ok(()) };
        (end.stretch, end.patience, end.backoff, end.pending) = (None, end.patience_first, BACKOFF_MIN, true);
        match side {
            Side::Front => end.view.seek(key),
            Side::Back => end.view.seek_for_prev(key),
        }
    }
}
