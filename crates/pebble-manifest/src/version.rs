//! A version: which tables make the tree. Immutable, shared by `Arc`, and true to its rules by construction.
//!
//! ```text
//!   level 0   run 9  [a ── k] [m ── z]        runs of one level: newest first
//!             run 8     [c ───── p]
//!   level 1   run 3  [a ─ e] [f ─ q] [r ─ z]  tables of one run: ascending, no user key in two of them
//! ```
//!
//! Threading: plain data.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use pebble_format::manifest::LEVEL_COUNT;
use pebble_format::{HeadPrefix, InternalKey, OwnedKey, Result, Seqno};

use crate::broken::{Broken, ensure};
use crate::edit::Edit;
use crate::tables::TableSet;

/// What the tree remembers of a table: enough to find it, to know it again, and to plan with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// The number in its file name.
    pub number: u64,
    /// Bytes of the file.
    pub len: u64,
    /// The checksum of its footer, which covers all its others: with `len` it tells this file from any other.
    pub footer_crc: u32,
    /// Records; at least one.
    pub count: u64,
    /// Records that are tombstones.
    pub tombstones: u64,
    /// The first key.
    pub first: OwnedKey,
    /// The last key.
    pub last: OwnedKey,
    /// Smallest sequence number.
    pub seqno_min: Seqno,
    /// Largest sequence number.
    pub seqno_max: Seqno,
}

impl TableMeta {
    /// The rules that one table keeps by itself.
    pub(crate) fn check(&self) -> Result<(), Broken> {
        let (first, last) = (self.first.as_ref(), self.last.as_ref());
        ensure(self.count > 0, "table without records", 1, 0)?;
        ensure(self.tombstones <= self.count, "tombstones of a table", self.count, self.tombstones)?;
        ensure(first <= last, "last key of a table before its first", self.number, self.number)?;
        ensure(self.seqno_max <= Seqno::MAX, "sequence number of a table", Seqno::MAX.0, self.seqno_max.0)?;
        ensure(
            self.seqno_min <= self.seqno_max,
            "sequence range of a table",
            self.seqno_max.0,
            self.seqno_min.0,
        )?;
        for trailer in [first.trailer, last.trailer] {
            let range = self.seqno_min..=self.seqno_max;
            ensure(
                range.contains(&trailer.seqno()),
                "bound outside a table's sequence range",
                self.number,
                trailer.0,
            )?;
            ensure(trailer.kind().is_some(), "record kind in a table's bound", self.number, trailer.0)?;
        }
        Ok(())
    }
}

/// A sorted run: tables in ascending order, no user key in two of them, so that at most one can hold a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    id: u64,
    level: u8,
    tables: Box<[Arc<TableMeta>]>,
    prefix: HeadPrefix,
    /// The heads of the tables' last keys, behind `prefix`: what [`Run::find`] touches before any table's own memory.
    last_heads: Box<[u64]>,
}

impl Run {
    /// A run of tables that are in order.
    pub(crate) fn new(level: u8, id: u64, tables: Box<[Arc<TableMeta>]>) -> Self {
        let prefix = match (tables.first(), tables.last()) {
            (Some(first), Some(last)) => HeadPrefix::between(first.first.as_ref(), last.last.as_ref()),
            _ => HeadPrefix::none(),
        };
        let head = |key: InternalKey<'_>| prefix.head(key.keyspace, key.user_key);
        let last_heads = tables.iter().map(|table| head(table.last.as_ref())).collect();
        Self { id, level, tables, prefix, last_heads }
    }

    /// The run's number: within a level, a larger one is newer.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The level.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The tables, ascending; at least one.
    pub fn tables(&self) -> &[Arc<TableMeta>] {
        &self.tables
    }

    /// Bytes of all its tables.
    pub fn len_bytes(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.len))
    }

    /// The index of the one table that may hold versions of the key's user key. Cost: a binary search over heads that
    /// lie side by side, then one or two comparisons of keys.
    #[inline]
    pub fn find(&self, key: InternalKey<'_>) -> Option<usize> {
        let head = self.prefix.head(key.keyspace, key.user_key);
        let low = self.last_heads.partition_point(|last| *last < head);
        let equal = self.last_heads.get(low..)?.iter().take_while(|last| **last == head).count();
        let ends_before = |table: &Arc<TableMeta>| table.last.as_ref().cmp_user(&key) == Ordering::Less;
        let index = low + self.tables.get(low..low + equal)?.partition_point(ends_before);
        let table = self.tables.get(index)?;
        (table.first.as_ref().cmp_user(&key) != Ordering::Greater).then_some(index)
    }

    fn check(&self) -> Result<(), Broken> {
        ensure(!self.tables.is_empty(), "run without tables", 1, 0)?;
        ensure(
            self.level < LEVEL_COUNT,
            "level of a run",
            u64::from(LEVEL_COUNT - 1),
            u64::from(self.level),
        )?;
        check_tables(self.tables.iter().map(|table| &**table))
    }

    fn seqnos(&self) -> (Seqno, Seqno) {
        let min = self.tables.iter().map(|table| table.seqno_min).min();
        let max = self.tables.iter().map(|table| table.seqno_max).max();
        (min.unwrap_or(Seqno::ZERO), max.unwrap_or(Seqno::ZERO))
    }
}

/// The rules of the tables of one run.
pub(crate) fn check_tables<'a>(tables: impl IntoIterator<Item = &'a TableMeta>) -> Result<(), Broken> {
    let mut previous: Option<&TableMeta> = None;
    for table in tables {
        table.check()?;
        if let Some(previous) = previous {
            let apart = previous.last.as_ref().cmp_user(&table.first.as_ref()) == Ordering::Less;
            ensure(apart, "tables of a run overlap", previous.number, table.number)?;
        }
        previous = Some(table);
    }
    Ok(())
}

/// Which tables make the tree, and in which order they are newer than one another. Immutable. The default version is
/// the empty tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// By level, then newest first.
    runs: Vec<Arc<Run>>,
}

impl Version {
    /// A version of runs that are in order.
    pub(crate) fn from_runs(runs: Vec<Arc<Run>>) -> Self {
        Self { runs }
    }

    /// The version after `edit`. This one stays as it is.
    ///
    /// Errors: `InvalidArgument` when the edit breaks a rule: a number used twice, a removed table that is not there,
    /// tables of a run out of order or overlapping, a level that does not exist, runs of level 0 out of order in
    /// time.
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
            ensure(ids.insert(run.id), "run number used twice", run.id, run.id)?;
            for table in run.tables() {
                ensure(numbers.insert(table.number), "table number used twice", table.number, table.number)?;
            }
        }
        for (newer, older) in self.runs().zip(self.runs().skip(1)) {
            let in_order = newer.level < older.level || newer.level == older.level && newer.id > older.id;
            ensure(in_order, "order of runs", newer.id, older.id)?;
            if older.level == 0 {
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
        self.runs.iter().filter(move |run| run.level == level)
    }

    /// All tables, run by run.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> + Clone {
        self.runs.iter().flat_map(|run| run.tables())
    }

    /// Whether the tree has no table.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}
