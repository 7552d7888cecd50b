//! A version: which tables make the tree. Immutable, shared by `Arc`, and true to its rules by construction.
//!
//! ```text
//!   level 0   run 9  [a ── k] [m ── z]        runs of one level: newest first
//!             run 8     [c ───── p]
//!   level 1   run 7  [a ─ e]                  tables of one run: ascending, no user key in two of them
//!             run 3  [a ─ e] [f ─ q] [r ─ z]
//!   level 6   run 1  [a ─────── n] [o ─── z]  the last level: one run at most
//!   values    #4  #7  #12                     records with long values, to which those of the runs refer
//! ```
//!
//! At every key the runs from first to last are newest to oldest. A table that comes to a level joins the oldest run
//! that this allows ([`Version::place`]), so that a level has few runs.
//!
//! Threading: plain data.

use std::collections::HashSet;
use std::sync::Arc;

use pebble_format::Result;
use pebble_format::manifest::LAST_LEVEL;

use crate::broken::{Broken, ensure};
use crate::edit::Edit;
use crate::run::Run;
use crate::table::TableMeta;
use crate::tables::TableSet;

/// Which tables make the tree, and in which order they are newer than one another. Immutable. The default version is
/// the empty tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// By level, then newest first.
    runs: Vec<Arc<Run>>,
    /// Ascending by number.
    values: Vec<Arc<TableMeta>>,
    len_bytes: u64,
    count: u64,
}

impl Version {
    /// A version of runs, and of tables of values, that are in order.
    pub(crate) fn new(runs: Vec<Arc<Run>>, values: Vec<Arc<TableMeta>>) -> Self {
        let sum = |of: fn(&Run) -> u64| runs.iter().fold(0, |sum: u64, run| sum.saturating_add(of(run)));
        let (len_bytes, count) = (sum(Run::len_bytes), sum(Run::count));
        Self { runs, values, len_bytes, count }
    }

    /// The version after `edit`. This one stays as it is.
    ///
    /// Errors: `InvalidArgument` when the edit breaks a rule: a number used twice, a removed table that is not there, a
    /// moved one that is not the same, tables of a run out of order or overlapping, a run on two levels, a level that
    /// does not exist, runs of level 0 out of order in time, a second run on the last level.
    ///
    /// Cost: O(n log n) in the number of tables; their descriptions are shared, not copied.
    pub fn apply(&self, edit: &Edit) -> Result<Self> {
        let mut tables = TableSet::of(self);
        tables.apply(edit)?;
        Ok(tables.build()?)
    }

    /// Checks all rules again. [`Version::apply`] has done so; this is for tests and tools.
    pub fn check(&self) -> Result<()> {
        Ok(self.check_rules()?)
    }

    pub(crate) fn check_rules(&self) -> Result<(), Broken> {
        let (mut ids, mut numbers) = (HashSet::new(), HashSet::new());
        for run in self.runs() {
            run.check()?;
            ensure(ids.insert(run.id()), "run number used twice", run.id(), run.id())?;
            for table in run.tables() {
                ensure(numbers.insert(table.number), "table number used twice", table.number, table.number)?;
            }
        }
        for table in self.values() {
            ensure(numbers.insert(table.number), "table number used twice", table.number, table.number)?;
            table.check()?;
            let plain = table.tombstones == 0 && table.reach.is_none() && table.apart == 0;
            ensure(plain, "more than puts in a table of values", 0, table.tombstones)?;
        }
        for (newer, older) in self.runs().zip(self.runs().skip(1)) {
            let in_order =
                newer.level() < older.level() || newer.level() == older.level() && newer.id() > older.id();
            ensure(in_order, "order of runs", newer.id(), older.id())?;
            let second = older.level() == LAST_LEVEL && newer.level() == LAST_LEVEL;
            ensure(!second, "runs of the last level", 1, 2)?;
            if older.level() == 0 {
                // A run of level 0 is a flush, or a merge of neighbours: were its range of sequence numbers not
                // wholly above the next one's, a search from new to old could stop at a version that is not the
                // newest.
                let (newer_min, older_max) = (newer.seqnos().0, older.seqnos().1);
                ensure(
                    newer_min > older_max,
                    "runs of level 0 interleave in time",
                    older_max.0,
                    newer_min.0,
                )?;
            }
        }
        Ok(())
    }

    /// The runs, newest to oldest: of two that hold one key, the first holds its newer versions.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &Arc<Run>> + ExactSizeIterator + Clone {
        self.runs.iter()
    }

    /// The runs of one level, newest to oldest.
    pub fn level(&self, level: u8) -> impl DoubleEndedIterator<Item = &Arc<Run>> + Clone {
        self.runs.iter().filter(move |run| run.level() == level)
    }

    /// The tables of values, ascending by number. They are in no order of time and in no run: records of the runs'
    /// tables refer to what they hold, and one to which none refers any more is to be removed.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Arc<TableMeta>> + Clone {
        self.values.iter()
    }

    /// The table of values with this number. Cost: a binary search.
    pub fn value(&self, number: u64) -> Option<&Arc<TableMeta>> {
        let at = self.values.binary_search_by_key(&number, |table| table.number).ok()?;
        self.values.get(at)
    }

    /// All tables of runs, run by run.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> + Clone {
        self.runs.iter().flat_map(|run| run.tables())
    }

    /// The number of the run of `level` that `tables` should join: the oldest one with only such newer runs of the
    /// level beside it that, like itself, overlap none of them. `None` when not even the newest run will do, or there
    /// is none: then a new run with a larger number is to be made.
    ///
    /// The tables overlap none of one another, and are newer than what the level holds at any of their keys. Placed
    /// so, the runs of the level stay newest to oldest at every key, and are as few as that allows.
    ///
    /// Tables that leave the level in the same edit still count here; ask the version without them, if they should
    /// not.
    pub fn place(&self, level: u8, tables: &[TableMeta]) -> Option<u64> {
        let beside = |run: &&Arc<Run>| !tables.iter().any(|table| run.overlaps(table));
        self.level(level).take_while(beside).last().map(|run| run.id())
    }

    /// Bytes of all tables of runs.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Records in all tables of runs.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the tree has no table.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}
