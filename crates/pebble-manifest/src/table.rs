//! What the tree remembers of a table, and which keys that table may say something about.
//!
//! ```text
//!   first ──────────── last ┄┄┄┄┄┄┄┄ reach          records lie from `first` to `last`, both included;
//!     k1 #9 … k7 #3      k8 #5                      range deletes that start there may go on behind `last`,
//!                   [k7 ─────────── m) #6           up to `reach`, which is excluded
//! ```
//!
//! So a table ends with the user key of `last`, or before its `reach`; everything here counts the reach.
//!
//! Threading: plain data.

use std::cmp::Ordering;
use std::ops::Bound;

use pebble_cursor::ends_behind;
use pebble_format::{KeyspaceId, OwnedKey, Seqno};

use crate::broken::{Broken, ensure};

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
    /// Where range deletes of the last key's keyspace end, if any goes on behind the last key: a user key behind
    /// that of `last`, itself excluded, or nothing at all for the end of the keyspace.
    pub reach: Option<Box<[u8]>>,
    /// Smallest sequence number.
    pub seqno_min: Seqno,
    /// Largest sequence number.
    pub seqno_max: Seqno,
    /// Bytes of values in other tables that its records refer to.
    pub apart: u64,
}

impl TableMeta {
    /// Keyspace and user key of the first key: nothing of the table lies before it.
    pub fn starts(&self) -> (KeyspaceId, &[u8]) {
        let first = self.first.as_ref();
        (first.keyspace, first.user_key)
    }

    /// The end that goes with [`TableMeta::starts`]: nothing of the table, its range deletes included, lies behind
    /// it.
    pub fn ends(&self) -> Bound<(KeyspaceId, &[u8])> {
        let last = self.last.as_ref();
        match self.reach.as_deref() {
            None => Bound::Included((last.keyspace, last.user_key)),
            Some([]) => match last.keyspace.0.checked_add(1) {
                Some(next) => Bound::Excluded((KeyspaceId(next), &[])),
                None => Bound::Unbounded,
            },
            Some(reach) => Bound::Excluded((last.keyspace, reach)),
        }
    }

    /// Whether nothing of the table, its range deletes included, is at or behind this key.
    #[inline]
    pub fn ends_before(&self, keyspace: KeyspaceId, user_key: &[u8]) -> bool {
        let last = self.last.as_ref();
        match (last.keyspace.cmp(&keyspace), self.reach.as_deref()) {
            (Ordering::Equal, None) => *last.user_key < *user_key,
            (Ordering::Equal, Some(reach)) => !ends_behind(reach, user_key),
            (order, _) => order.is_lt(),
        }
    }

    /// Whether there is a user key that both tables may say something about, be it by a range delete.
    pub fn overlaps(&self, other: &Self) -> bool {
        let before = |a: &Self, b: &Self| {
            let (keyspace, user_key) = b.starts();
            a.ends_before(keyspace, user_key)
        };
        !before(self, other) && !before(other, self)
    }

    /// The rules that one table keeps by itself.
    pub(crate) fn check(&self) -> Result<(), Broken> {
        let (first, last) = (self.first.as_ref(), self.last.as_ref());
        ensure(self.count > 0, "table without records", 1, 0)?;
        ensure(self.tombstones <= self.count, "tombstones of a table", self.count, self.tombstones)?;
        ensure(first <= last, "last key of a table before its first", self.number, self.number)?;
        let reach_holds = self.reach.as_ref().is_none_or(|reach| ends_behind(reach, last.user_key));
        ensure(reach_holds, "reach of a table before its last key", self.number, self.number)?;
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

/// The rules of the tables of one run.
pub(crate) fn check_tables<'a>(tables: impl IntoIterator<Item = &'a TableMeta>) -> Result<(), Broken> {
    let mut previous: Option<&TableMeta> = None;
    for table in tables {
        table.check()?;
        if let Some(previous) = previous {
            let (keyspace, user_key) = table.starts();
            let apart = previous.ends_before(keyspace, user_key);
            ensure(apart, "tables of a run overlap", previous.number, table.number)?;
        }
        previous = Some(table);
    }
    Ok(())
}
