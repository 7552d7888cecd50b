//! A few records in memory, in order, as a cursor: what a salvaged log holds, and the tombstones of keys in doubt.
//!
//! Threading: as every [`Cursor`]; the records are shared.

use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::{InternalKey, KeyspaceId, Kind, Pinned, PinnedRecord, RecordRef, Seqno, Trailer, record};

use crate::error::Result;

/// Records in order, without two of one key and number.
#[derive(Clone, Default)]
pub(crate) struct Sorted(Arc<[PinnedRecord]>);

impl Sorted {
    /// Of records in any order. Of two with one internal key one stays.
    pub(crate) fn new(mut records: Vec<PinnedRecord>) -> Self {
        records.sort_by(|a, b| a.record().internal_key().cmp(&b.record().internal_key()));
        records.dedup_by(|a, b| a.record().internal_key() == b.record().internal_key());
        Self(records.into())
    }

    pub(crate) fn records(&self) -> &[PinnedRecord] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn cursor(&self) -> SortedCursor {
        SortedCursor { records: Arc::clone(&self.0), at: None }
    }
}

/// A record of its own.
pub(crate) fn record_of(
    keyspace: KeyspaceId,
    key: &[u8],
    seqno: Seqno,
    kind: Kind,
    value: &[u8],
) -> Result<PinnedRecord> {
    let mut bytes = vec![0; record::encoded_len(key.len(), value.len())];
    record::encode(&mut bytes, keyspace, key, Trailer::new(seqno, kind), value)?;
    Ok(PinnedRecord::parse(Pinned::copy(&bytes))?)
}

/// See [`Sorted`].
pub(crate) struct SortedCursor {
    records: Arc<[PinnedRecord]>,
    at: Option<usize>,
}

impl SortedCursor {
    fn stand(&mut self, at: Option<usize>) -> pebble_format::Result<()> {
        self.at = at.filter(|at| *at < self.records.len());
        Ok(())
    }

    fn before(&self, target: InternalKey<'_>) -> usize {
        self.records.partition_point(|record| record.record().internal_key() < target)
    }
}

impl Cursor for SortedCursor {
    fn first(&mut self) -> pebble_format::Result<()> {
        self.stand(Some(0))
    }

    fn last(&mut self) -> pebble_format::Result<()> {
        self.stand(self.records.len().checked_sub(1))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> pebble_format::Result<()> {
        self.stand(Some(self.before(target)))
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> pebble_format::Result<()> {
        self.stand(self.before(target).checked_sub(1))
    }

    fn next(&mut self) -> pebble_format::Result<()> {
        self.stand(self.at.map(|at| at + 1))
    }

    fn prev(&mut self) -> pebble_format::Result<()> {
        self.stand(self.at.and_then(|at| at.checked_sub(1)))
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.records.get(self.at?).map(PinnedRecord::record)
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.records.get(self.at?).cloned()
    }
}
