//! The memtable as its readers see it.
//!
//! Threading: everything here reads; any number of threads, no lock, no waiting. The totals are stored by the one
//! writer after each insert and may lag behind it for others.

use std::sync::Arc;

use pebble_cursor::RangeDeletes;
use pebble_format::{HeadPrefix, InternalKey, PinnedRecord, RecordRef, Seqno};

use crate::cursor::MemtableCursor;
use crate::dead::Dead;
use crate::filter::Filter;
use crate::ranges::Ranges;
use crate::sync::totals::{AtomicU64, AtomicUsize, Ordering};
use crate::tree::{Spot, Tree};
use crate::windows::record_at;
use crate::writer::MemtableWriter;

/// An ordered index over records that lie in log regions. See the [crate].
pub struct Memtable {
    pub(crate) tree: Tree,
    pub(crate) filter: Filter,
    pub(crate) ranges: Ranges,
    pub(crate) dead: Dead,
    pub(crate) totals: Totals,
}

/// Sums over all records, stored by the writer alone.
#[repr(align(64))]
pub(crate) struct Totals {
    len: AtomicUsize,
    log_bytes: AtomicUsize,
    seqno_min: AtomicU64,
    seqno_max: AtomicU64,
}

impl Totals {
    #[inline]
    pub(crate) fn add(&self, record: &RecordRef<'_>) {
        let seqno = record.seqno().0;
        self.seqno_min.store(self.seqno_min.load(Ordering::Relaxed).min(seqno), Ordering::Relaxed);
        self.seqno_max.store(self.seqno_max.load(Ordering::Relaxed).max(seqno), Ordering::Relaxed);
        self.log_bytes.store(self.log_bytes.load(Ordering::Relaxed) + record.raw().len(), Ordering::Relaxed);
        self.len.store(self.len.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

impl Memtable {
    /// An empty memtable and the right to insert into it. `prefix` is what the keys are expected to share (take
    /// [`Memtable::learned_prefix`] of the one before); a wrong one costs time, never correctness. Cost: some 20 KiB.
    pub fn new(prefix: HeadPrefix) -> (MemtableWriter, Arc<Self>) {
        Self::with_filter(prefix, 0)
    }

    /// As [`Memtable::new`], for about `keys` keys: most of those that it does not hold are told from those that it
    /// does without a look at the tree ([`Memtable::may_hold`]). Cost: a byte for each key, at once.
    pub fn with_filter(prefix: HeadPrefix, keys: usize) -> (MemtableWriter, Arc<Self>) {
        let writer = MemtableWriter::new(prefix, keys);
        let shared = Arc::clone(writer.shared());
        (writer, shared)
    }

    pub(crate) fn over(tree: Tree, keys: usize) -> Self {
        let totals = Totals {
            len: AtomicUsize::new(0),
            log_bytes: AtomicUsize::new(0),
            seqno_min: AtomicU64::new(u64::MAX),
            seqno_max: AtomicU64::new(0),
        };
        Self { tree, filter: Filter::new(keys), ranges: Ranges::default(), dead: Dead::default(), totals }
    }

    /// Whether there may be a version of the key with this [hash](pebble_format::hash::key_hash), for a reader at a
    /// sequence number that he loaded before. False is certain; true may be wrong, one time in twenty-five with as many
    /// keys as expected, and always without a filter. Range deletes are not asked. Cost: at most one cache miss.
    #[inline]
    pub fn may_hold(&self, hash: u64) -> bool {
        !self.is_empty() && self.filter.may_hold(hash)
    }

    /// The newest version at or after `lookup` of exactly its user key; a tombstone is given as the record it is.
    /// With [`InternalKey::lookup`] that is what a reader at a sequence number sees, but for
    /// [`Memtable::range_deletes`]. Cost: one descent, about one
    /// cache miss, and one more for the record.
    #[inline]
    pub fn get(&self, lookup: InternalKey<'_>) -> Option<RecordRef<'_>> {
        let position = self.tree.candidate(&self.tree.target(lookup))?;
        let record = self.tree.windows.record(position);
        record.internal_key().same_key(&lookup).then_some(record)
    }

    /// As [`Memtable::get`], pinned in its region: the record outlives the memtable. Cost: a reference count more.
    #[inline]
    pub fn get_pinned(&self, lookup: InternalKey<'_>) -> Option<PinnedRecord> {
        let position = self.tree.candidate(&self.tree.target(lookup))?;
        let record = self.tree.windows.record(position);
        record.internal_key().same_key(&lookup).then(|| self.pin(position))
    }

    /// Asks for what a get of this key will wait for first, so that several memtables' waits are one. A hint. Cost: a
    /// descent through nodes that are mostly in the cache.
    #[inline]
    pub fn prefetch(&self, lookup: InternalKey<'_>) {
        self.tree.prefetch(&self.tree.target(lookup));
    }

    /// The record at a position, pinned in its region.
    #[inline]
    pub(crate) fn pin(&self, position: u32) -> PinnedRecord {
        let (region, offset) = self.tree.windows.find(position);
        PinnedRecord::new(Arc::clone(region), |region| record_at(region, offset))
    }

    /// A cursor on no position. It keeps the memtable alive.
    pub fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor::new(Arc::clone(self))
    }

    /// The range deletes inserted, which hide records here and in whatever is older; `None` while there is none. What
    /// is given stays as it is while others are inserted. All are in it whose insert had returned; a reader at an
    /// older sequence number asks as of that. Cost: one load while there is none, else a reference count.
    #[inline]
    pub fn range_deletes(&self) -> Option<Arc<RangeDeletes>> {
        self.ranges.get()
    }

    /// How many range deletes were inserted, without those of a range that holds no key. Each insert of one copies
    /// all others, so a memtable is to be sealed at some number: about 1,024.
    #[inline]
    pub fn range_delete_count(&self) -> usize {
        self.ranges.count()
    }

    /// The [dead ranges](MemtableWriter::mark_dead) that hold now. Whoever loaded his sequence number before he asks
    /// may begin behind those that are not newer than it, here and in all that is older. Cost: one load while there
    /// is none.
    #[inline]
    pub fn dead_ranges(&self) -> Option<Arc<RangeDeletes>> {
        self.dead.get()
    }

    /// Records inserted.
    pub fn len(&self) -> usize {
        self.totals.len.load(Ordering::Acquire)
    }

    /// Whether no record was inserted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of anonymous memory that the index, the filter and the range deletes hold, nodes still unused included;
    /// the records are not the memtable's.
    pub fn memory(&self) -> usize {
        let tree = self.tree.windows.bytes() + self.tree.leaves.bytes() + self.tree.inners.bytes();
        size_of::<Self>() + tree + self.filter.bytes() + self.ranges.memory()
    }

    /// Bytes of the records inserted, as they lie in the log: about what a flush writes.
    pub fn log_bytes(&self) -> usize {
        self.totals.log_bytes.load(Ordering::Relaxed)
    }

    /// The first key in order. Cost: one descent.
    pub fn first(&self) -> Option<InternalKey<'_>> {
        let spot = self.tree.first_leaf();
        self.key_at(spot, 0)
    }

    /// The last key in order. Cost: one descent.
    pub fn last(&self) -> Option<InternalKey<'_>> {
        let spot = self.tree.last_leaf();
        self.key_at(spot, spot.order.len().checked_sub(1)?)
    }

    fn key_at(&self, spot: Spot, rank: usize) -> Option<InternalKey<'_>> {
        let leaf = self.tree.leaves.get(spot.leaf);
        (rank < spot.order.len())
            .then(|| self.tree.windows.record(leaf.position(spot.order, rank)).internal_key())
    }

    /// The longest prefix that all keys share, for the next memtable; the one it was made with while it is empty.
    pub fn learned_prefix(&self) -> HeadPrefix {
        match (self.first(), self.last()) {
            (Some(first), Some(last)) => HeadPrefix::between(first, last),
            _ => self.tree.prefix.clone(),
        }
    }

    /// The smallest and the largest sequence number inserted; `None` while empty.
    pub fn seqno_range(&self) -> Option<(Seqno, Seqno)> {
        let totals = &self.totals;
        (!self.is_empty()).then(|| {
            let [min, max] =
                [&totals.seqno_min, &totals.seqno_max].map(|seqno| seqno.load(Ordering::Relaxed));
            (Seqno(min), Seqno(max))
        })
    }
}

/// Prints sizes, never keys.
impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Memtable({} records of {} bytes, {} of index)",
            self.len(),
            self.log_bytes(),
            self.memory()
        )
    }
}
