//! Records in memory, in order, as a cursor: a few that are pinned (what a salvaged log holds, the tombstones of keys
//! in doubt), or all of a log that is replayed (`gathered.rs`).
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

    pub(crate) fn cursor(&self) -> InOrderCursor<Self> {
        InOrderCursor::new(self.clone())
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

/// Records that lie in memory in order and are known by their number.
pub(crate) trait InOrder {
    /// How many.
    fn len(&self) -> usize;

    /// The one with so many before it; `None` from the last on.
    fn record(&self, nth: usize) -> Option<RecordRef<'_>>;

    /// The same, pinned.
    fn pinned(&self, nth: usize) -> Option<PinnedRecord>;

    /// Asks for what a walk that has come to this one needs soon. A hint.
    fn ask_ahead(&self, _nth: usize) {}
}

impl InOrder for Sorted {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn record(&self, nth: usize) -> Option<RecordRef<'_>> {
        self.0.get(nth).map(PinnedRecord::record)
    }

    fn pinned(&self, nth: usize) -> Option<PinnedRecord> {
        self.0.get(nth).cloned()
    }
}

/// A cursor over [`InOrder`].
pub(crate) struct InOrderCursor<R> {
    records: R,
    at: Option<usize>,
}

impl<R: InOrder> InOrderCursor<R> {
    pub(crate) fn new(records: R) -> Self {
        Self { records, at: None }
    }

    fn stand(&mut self, at: Option<usize>) -> pebble_format::Result<()> {
        self.at = at.filter(|at| *at < self.records.len());
        Ok(())
    }

    fn before(&self, target: InternalKey<'_>) -> usize {
        let (mut low, mut high) = (0, self.records.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.records.record(middle) {
                Some(record) if record.internal_key() < target => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

impl<R: InOrder> Cursor for InOrderCursor<R> {
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
        let next = self.at.map(|at| at + 1);
        next.into_iter().for_each(|next| self.records.ask_ahead(next));
        self.stand(next)
    }

    fn prev(&mut self) -> pebble_format::Result<()> {
        self.stand(self.at.and_then(|at| at.checked_sub(1)))
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.records.record(self.at?)
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.records.pinned(self.at?)
    }
}
