//! How much lies in a range of keys, without reading it.
//!
//! Threading: over one picture of the tree.

use std::ops::Bound;

use pebble_cursor::Cursor;
use pebble_format::{InternalKey, KeyspaceId, Seqno};
use pebble_memtable::Memtable;
use pebble_sstable::KeyBoundary;

use crate::core::Core;
use crate::error::Result;
use crate::iter::Bounds;
use crate::state::ReadState;

/// Records of a memtable that are looked at before the rest is reckoned to be alike.
const SAMPLE: usize = 256;

/// What lies in a range, more or less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizeEstimate {
    /// Bytes of tables, indexes and filters included, and of values that lie apart.
    pub table_bytes: u64,
    /// Bytes of records in memtables.
    pub memtable_bytes: u64,
    /// Keys that have a value: records less twice the tombstones, since each of those hides another record.
    pub keys: u64,
}

impl Core {
    /// What lies within bounds of a keyspace. Cost: two binary searches a table at an end of the range.
    pub(crate) fn estimate(&self, keyspace: KeyspaceId, bounds: &Bounds) -> Result<SizeEstimate> {
        self.status.check_open()?;
        let low = match &bounds.0 {
            Bound::Unbounded => Bound::Included((keyspace, &b""[..])),
            Bound::Included(key) => Bound::Included((keyspace, &**key)),
            Bound::Excluded(key) => Bound::Excluded((keyspace, &**key)),
        };
        let high = match &bounds.1 {
            Bound::Unbounded => match keyspace.0.checked_add(1) {
                Some(next) => Bound::Excluded((KeyspaceId(next), &b""[..])),
                None => Bound::Unbounded,
            },
            Bound::Included(key) => Bound::Included((keyspace, &**key)),
            Bound::Excluded(key) => Bound::Excluded((keyspace, &**key)),
        };
        Ok(self.state.load_full().estimate(low, high)?)
    }
}

impl ReadState {
    fn estimate(&self, low: KeyBoundary<'_>, high: KeyBoundary<'_>) -> pebble_format::Result<SizeEstimate> {
        let (mut bytes, mut records, mut tombstones) = (0.0, 0.0, 0.0);
        for (run, tables) in self.tree.version.runs().zip(&self.tree.runs) {
            for table in tables.get(run.overlapping(low, high)).unwrap_or_default() {
                let part = table.part_within(low, high)?;
                let apart = table.info().referred.iter().map(|referred| referred.bytes as f64).sum::<f64>();
                bytes += part * (table.len() as f64 + apart);
                records += part * table.info().count as f64;
                tombstones += part * table.info().tombstones as f64;
            }
        }
        let table_bytes = bytes as u64;
        let mut memtable_bytes = 0.0;
        for memtable in self.memtables().filter(|memtable| !memtable.is_empty()) {
            let part = part_of(memtable, low, high)?;
            memtable_bytes += part * memtable.log_bytes() as f64;
            records += part * memtable.len() as f64;
        }
        let keys = (records - 2.0 * tombstones).max(0.0) as u64;
        Ok(SizeEstimate { table_bytes, memtable_bytes: memtable_bytes as u64, keys })
    }
}

/// The part of a memtable's records that lies within bounds: counted up to [`SAMPLE`], and a half of the rest beyond.
fn part_of(
    memtable: &std::sync::Arc<Memtable>,
    low: KeyBoundary<'_>,
    high: KeyBoundary<'_>,
) -> pebble_format::Result<f64> {
    let mut cursor = memtable.cursor();
    match low {
        Bound::Unbounded => cursor.first()?,
        Bound::Included((keyspace, key)) | Bound::Excluded((keyspace, key)) => {
            cursor.seek(InternalKey::lookup(keyspace, key, Seqno::MAX))?;
        }
    }
    let mut counted = 0;
    while let Some(record) = cursor.record() {
        let key = (record.keyspace(), record.key());
        let inside = match high {
            Bound::Unbounded => true,
            Bound::Included(high) => key <= high,
            Bound::Excluded(high) => key < high,
        };
        if !inside {
            return Ok(counted as f64 / memtable.len() as f64);
        }
        counted += 1;
        if counted == SAMPLE {
            // Beyond the sample nothing is counted: between it and all of the memtable, the middle.
            return Ok((counted as f64 / memtable.len() as f64).midpoint(1.0).min(1.0));
        }
        cursor.next()?;
    }
    Ok(counted as f64 / memtable.len() as f64)
}
