//! What a reader sees: one immutable picture of the tree, and one number that says how far it may look.
//!
//! ```text
//!   ArcSwap<ReadState> ──► memtable  sealed[newest … oldest]  tree ──► runs[newest … oldest] ──► tables
//!   Visible            ──► every commit up to this number is readable
//! ```
//!
//! Threading: readers load both without a lock. A new picture is made under `State::change` only, so no change is
//! lost. A picture is never changed; whoever holds one keeps its memtables and tables alive.
//!
//! A point read needs no agreement between the two: it answers as of the moment it loaded the picture. Whoever
//! reads several keys does: [`State::consistent`] loads the picture, then the number, then checks that the picture
//! is still the one in force. If so, every commit up to the number lies in it: a commit that went to a later
//! memtable would have found the picture replaced before it.

use std::sync::Arc;

use pebble_cursor::RangeDeletes;
use pebble_format::Seqno;
use pebble_manifest::Version;
use pebble_memtable::Memtable;
use pebble_sstable::Table;

use crate::sync::{ArcSwap, AtomicU64, Guard, Mutex, Ordering, lock};
use crate::values::Values;

/// A memtable that takes no more records and waits for its flush.
pub(crate) struct Sealed {
    pub(crate) memtable: Arc<Memtable>,
    /// The last sequence number in it.
    pub(crate) last_seqno: Seqno,
    /// The first log segment that holds nothing of it.
    pub(crate) next_segment: u32,
}

/// The open tables of one run, in its own order.
pub(crate) type RunTables = Arc<[Arc<Table>]>;

/// A version together with its open tables.
pub(crate) struct Tree {
    pub(crate) version: Arc<Version>,
    /// The tables of each run, in the order of [`Version::runs`].
    pub(crate) runs: Vec<RunTables>,
    /// The range deletes of those runs that have any, by the run's place in `runs`, ascending.
    pub(crate) range_deletes: Vec<(usize, Arc<RangeDeletes>)>,
    /// The tables that records of those refer to.
    pub(crate) values: Values,
}

impl Tree {
    /// `values` are the open tables of [`Version::values`], in its order.
    pub(crate) fn new(version: Arc<Version>, runs: Vec<RunTables>, values: Vec<Arc<Table>>) -> Self {
        let of_run = |(place, tables): (usize, &RunTables)| {
            let mut with_any = tables.iter().map(|table| table.range_deletes()).filter(|all| !all.is_empty());
            let first = with_any.next()?;
            let rest: Vec<_> = with_any.collect();
            // One table's own are shared; those of several are joined, which their parts in each other's order allows.
            let joined = if rest.is_empty() {
                Arc::clone(first)
            } else {
                let all = std::iter::once(first).chain(rest).flat_map(|deletes| deletes.iter());
                Arc::new(all.cloned().collect())
            };
            Some((place, joined))
        };
        let range_deletes = runs.iter().enumerate().filter_map(of_run).collect();
        let values = Values::new(values, &version, &runs);
        Self { version, runs, range_deletes, values }
    }

    /// The open tables of the runs, newest run first.
    pub(crate) fn run_tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.runs.iter().flat_map(|run| run.iter())
    }

    /// All open tables: those of the runs, then those of values.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.run_tables().chain(self.values.tables())
    }

    /// The range deletes of the run at `place`.
    pub(crate) fn range_deletes_of(&self, place: usize) -> Option<&RangeDeletes> {
        let found = self.range_deletes.binary_search_by_key(&place, |(run, _)| *run).ok()?;
        self.range_deletes.get(found).map(|(_, deletes)| &**deletes)
    }
}

/// One picture of everything that can be read.
pub(crate) struct ReadState {
    pub(crate) memtable: Arc<Memtable>,
    /// Newest first.
    pub(crate) sealed: Vec<Arc<Sealed>>,
    pub(crate) tree: Arc<Tree>,
}

impl ReadState {
    /// All memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> + Clone {
        std::iter::once(&self.memtable).chain(self.sealed.iter().map(|sealed| &sealed.memtable))
    }
}

/// The picture in force.
pub(crate) struct State {
    current: ArcSwap<ReadState>,
    change: Mutex<()>,
}

impl State {
    pub(crate) fn new(first: ReadState) -> Self {
        Self { current: ArcSwap::from_pointee(first), change: Mutex::new(()) }
    }

    /// The picture in force, for a short look. Cost: about 7 ns.
    #[inline]
    pub(crate) fn load(&self) -> Guard<Arc<ReadState>> {
        self.current.load()
    }

    /// The picture in force, to keep.
    pub(crate) fn load_full(&self) -> Arc<ReadState> {
        self.current.load_full()
    }

    /// Puts the next picture in force.
    pub(crate) fn replace(&self, next: impl FnOnce(&ReadState) -> ReadState) {
        let _one_at_a_time = lock(&self.change);
        let next = next(&self.current.load());
        self.current.store(Arc::new(next));
    }

    /// A picture and a number such that every commit up to the number lies in the picture.
    pub(crate) fn consistent(&self, visible: &Visible) -> (Arc<ReadState>, Seqno) {
        loop {
            let state = self.load_full();
            let seqno = visible.get();
            if Arc::ptr_eq(&state, &self.load()) {
                return (state, seqno);
            }
        }
    }
}

/// How far readers may look. It only grows, in the order of the commits.
pub(crate) struct Visible(AtomicU64);

impl Visible {
    pub(crate) fn new(seqno: Seqno) -> Self {
        Self(AtomicU64::new(seqno.0))
    }

    /// The last commit that can be read; what it wrote is reachable for whoever has seen its number.
    #[inline]
    pub(crate) fn get(&self) -> Seqno {
        Seqno(self.0.load(Ordering::Acquire))
    }

    /// Makes every commit up to `seqno` readable.
    #[inline]
    pub(crate) fn raise(&self, seqno: Seqno) {
        self.0.fetch_max(seqno.0, Ordering::Release);
    }
}
