//! A sorted run, and the searches in it.
//!
//! ```text
//!   tables      [a ─ e ┄ g)   [g ─── q]      [r ─ z]         ascending; no user key in two of them, reach counted
//!   end heads      g             q              z            one word a table: what a search touches first
//! ```
//!
//! Threading: plain data, immutable.

use std::ops::{Bound, Range};
use std::sync::Arc;

use pebble_format::manifest::{LAST_LEVEL, LEVEL_COUNT};
use pebble_format::{HeadPrefix, InternalKey, KeyspaceId, Seqno};

use crate::broken::{Broken, ensure};
use crate::table::{TableMeta, check_tables};

/// A sorted run: tables in ascending order, no user key in two of them, so that at most one can hold a key or a range
/// delete that covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    id: u64,
    level: u8,
    tables: Box<[Arc<TableMeta>]>,
    prefix: HeadPrefix,
    /// The heads of the tables' ends, behind `prefix`: what [`Run::find`] touches before any table's own memory.
    end_heads: Box<[u64]>,
    len_bytes: u64,
    count: u64,
}

impl Run {
    /// A run of tables that are in order.
    pub(crate) fn new(level: u8, id: u64, tables: Box<[Arc<TableMeta>]>) -> Self {
        let prefix = match (tables.first(), tables.last()) {
            (Some(first), Some(last)) => HeadPrefix::between(first.first.as_ref(), last.last.as_ref()),
            _ => HeadPrefix::none(),
        };
        let end_heads = tables.iter().map(|table| end_head(&prefix, table)).collect();
        let sum = |of: fn(&TableMeta) -> u64| {
            tables.iter().fold(0, |sum: u64, table| sum.saturating_add(of(table)))
        };
        let (len_bytes, count) = (sum(|table| table.len), sum(|table| table.count));
        Self { id, level, tables, prefix, end_heads, len_bytes, count }
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
        self.len_bytes
    }

    /// Records in all its tables.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The index of the one table that may hold versions of the key's user key, or a range delete that covers it.
    /// Cost: a binary search over heads that lie side by side, then one or two comparisons of keys.
    #[inline]
    pub fn find(&self, key: InternalKey<'_>) -> Option<usize> {
        let head = self.prefix.head(key.keyspace, key.user_key);
        let low = self.end_heads.partition_point(|end| *end < head);
        let equal = self.end_heads.get(low..)?.iter().take_while(|end| **end == head).count();
        let ends_before = |table: &Arc<TableMeta>| table.ends_before(key.keyspace, key.user_key);
        let index = low + self.tables.get(low..low + equal)?.partition_point(ends_before);
        let table = self.tables.get(index)?;
        (table.starts() <= (key.keyspace, key.user_key)).then_some(index)
    }

    /// The indexes of the tables that may hold a key from `lo` to `hi`, or a range delete that covers one. Cost: two
    /// binary searches, each with a comparison of keys per step.
    pub fn overlapping(
        &self,
        lo: Bound<(KeyspaceId, &[u8])>,
        hi: Bound<(KeyspaceId, &[u8])>,
    ) -> Range<usize> {
        let from = match lo {
            Bound::Unbounded => 0,
            Bound::Included((keyspace, user_key)) => self.first_at(keyspace, user_key),
            // The first key behind another one is that key and a zero.
            Bound::Excluded((keyspace, user_key)) => self.first_at(keyspace, &[user_key, &[0]].concat()),
        };
        let to = self.tables.partition_point(|table| match hi {
            Bound::Unbounded => true,
            Bound::Included(hi) => table.starts() <= hi,
            Bound::Excluded(hi) => table.starts() < hi,
        });
        from..to.max(from)
    }

    /// Whether any table of the run overlaps this one.
    pub(crate) fn overlaps(&self, table: &TableMeta) -> bool {
        !self.overlapping(Bound::Included(table.starts()), table.ends()).is_empty()
    }

    /// The index of the first table of which anything lies at or behind the key.
    fn first_at(&self, keyspace: KeyspaceId, user_key: &[u8]) -> usize {
        self.tables.partition_point(|table| table.ends_before(keyspace, user_key))
    }

    pub(crate) fn check(&self) -> Result<(), Broken> {
        ensure(!self.tables.is_empty(), "run without tables", 1, 0)?;
        ensure(self.level < LEVEL_COUNT, "level of a run", u64::from(LAST_LEVEL), u64::from(self.level))?;
        check_tables(self.tables.iter().map(|table| &**table))
    }

    pub(crate) fn seqnos(&self) -> (Seqno, Seqno) {
        let min = self.tables.iter().map(|table| table.seqno_min).min();
        let max = self.tables.iter().map(|table| table.seqno_max).max();
        (min.unwrap_or(Seqno::ZERO), max.unwrap_or(Seqno::ZERO))
    }
}

/// A head that no key of the table exceeds, and no key behind the table falls below.
fn end_head(prefix: &HeadPrefix, table: &TableMeta) -> u64 {
    let last = table.last.as_ref();
    match (table.reach.as_deref(), prefix.keyspace()) {
        (None, _) => prefix.head(last.keyspace, last.user_key),
        // The largest head of the one keyspace, and the largest of the last key's.
        (Some([]), Some(_)) => u64::MAX,
        (Some([]), None) => prefix.head(last.keyspace, &[u8::MAX; 8]),
        (Some(reach), _) => prefix.head(last.keyspace, reach),
    }
}
