//! Iteration: what a reader at one sequence number sees of one keyspace, from both ends.
//!
//! ```text
//!   Iter ─► front: Visible ─► Merge ─► [ memtable │ sealed … │ Concat of a run's tables … ]
//!        └► back:  Visible ─► Merge ─► [ the same children, cursors of their own ]
//! ```
//!
//! Each end has its own cursors, made when that end is first used; they meet by comparing keys. What an end stands
//! on has been given out already, so the two never give one entry twice.
//!
//! Threading: an iterator belongs to one thread at a time. It holds one picture of the tree, so what it gives does
//! not change, and the memtables and tables of that picture live as long as it does.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use pebble_compaction::KeyRange;
use pebble_cursor::{Concat, Cursor, Hole, Merge, Veil, Visible, WholeBlock, ends_behind};
use pebble_format::{HeadPrefix, InternalKey, KeyspaceId, PinnedRecord, RecordRef, Seqno, Trailer};
use pebble_memtable::MemtableCursor;
use pebble_sstable::TableRun;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::state::{ReadState, RunTables};

/// One sorted source of records.
pub(crate) enum Child {
    Memtable(MemtableCursor),
    Run(Concat<TableRun>),
}

impl Child {
    pub(crate) fn run(tables: &RunTables) -> Self {
        Self::Run(Concat::new(TableRun(Arc::clone(tables))))
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
    phase: Phase,
}

/// One end: where it stands, and whether that entry was given out.
struct End {
    view: Visible<Merge<Child>>,
    /// The end was moved to its entry by a seek, and has yet to give it.
    pending: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
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
        Self { state, core, keyspace, bounds, seqno, front: None, back: None, phase: Phase::Open }
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
        let merge = Merge::with_prefix(children, self.prefix());
        let (lo, hi) = self.bounds.clone();
        let view = Visible::new(merge, self.keyspace, lo, hi, self.seqno).below(veils);
        End { view, pending: false }
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

    /// Moves the front so that the next entry it gives is the first at or after `key`, also to a place before where it
    /// stood; what the back has given stays given. Cost: a seek in every memtable and run.
    pub fn seek(&mut self, key: &[u8]) {
        self.seek_from(Side::Front, key);
    }

    /// Moves the back so that the next entry it gives is the last at or before `key`; otherwise as [`Iter::seek`].
    pub fn seek_for_prev(&mut self, key: &[u8]) {
        self.seek_from(Side::Back, key);
    }

    fn take(&mut self, side: Side) -> Option<End> {
        match side {
            Side::Front => self.front.take(),
            Side::Back => self.back.take(),
        }
    }

    fn put_back(&mut self, side: Side, end: End) {
        match side {
            Side::Front => self.front = Some(end),
            Side::Back => self.back = Some(end),
        }
    }

    fn next_from(&mut self, side: Side) -> Option<Result<PinnedRecord>> {
        match &self.phase {
            Phase::Open => {}
            Phase::Exhausted => return None,
            Phase::Failed(error) => return Some(Err(error.clone())),
        }
        let (fresh, mut end) = match self.take(side) {
            Some(end) => (false, end),
            None => (true, self.new_end()),
        };
        let moved = match side {
            _ if std::mem::take(&mut end.pending) => Ok(()),
            Side::Front if fresh => end.view.first(),
            Side::Front => end.view.next(),
            Side::Back if fresh => end.view.last(),
            Side::Back => end.view.prev(),
        };
        let found =
            moved.map(|()| end.view.pinned().filter(|found| !self.is_given(side, found.record().key())));
        if let Some(hole) = end.view.take_hole() {
            self.report(side, hole, end.view.record().map(|record| record.key()));
        }
        self.put_back(side, end);
        match found {
            Ok(Some(record)) => Some(Ok(record)),
            Ok(None) => {
                self.phase = Phase::Exhausted;
                None
            }
            Err(error) => {
                let error = Error::from(error);
                self.phase = Phase::Failed(error.clone());
                Some(Err(error))
            }
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

    /// Whether the other end has given `key` already, or what lies behind it from here.
    #[inline]
    fn is_given(&self, side: Side, key: &[u8]) -> bool {
        let other = match side {
            Side::Front => &self.back,
            Side::Back => &self.front,
        };
        let Some((other, there)) = other.as_ref().and_then(|end| Some((end, end.view.record()?))) else {
            return false;
        };
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
        let mut end = self.take(side).unwrap_or_else(|| self.new_end());
        let moved = match side {
            Side::Front => end.view.seek(key),
            Side::Back => end.view.seek_for_prev(key),
        };
        if let Some(hole) = end.view.take_hole() {
            self.report(side, hole, end.view.record().map(|record| record.key()));
        }
        end.pending = true;
        self.put_back(side, end);
        self.phase = moved.map_or_else(|error| Phase::Failed(error.into()), |()| Phase::Open);
    }
}
