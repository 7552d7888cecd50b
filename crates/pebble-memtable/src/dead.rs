//! Dead ranges: where a reader found every key deleted, in all of the tree, and nothing was put since.
//!
//! ```text
//!   a queue     d d d d d d d d d d d d d d d p p p p p        d deleted, p there
//!               └──────── dead, as of #90 ──┘                  a reader at #90 or later begins behind it
//! ```
//!
//! To step over what was deleted costs as much as reading it, until a merge has dropped it; at the tail of a queue
//! that would be every read. So what one reader has learned is kept for the next ones. It is kept in the memtable
//! because the memtable is where it ends to be true: its writer takes a range back when it inserts a put into it.
//!
//! Threading: marked and taken back by the one writer; any number of readers, without a lock.

use std::sync::Arc;

use pebble_cursor::{Cursor, RangeDelete, RangeDeletes, ends_behind};
use pebble_format::{InternalKey, RecordRef, Seqno};

use crate::memtable::Memtable;
use crate::sync::ArcSwapOption;

/// Ranges that are kept: one for each queue, and not so many that inserts would feel it.
const RANGES_MAX: usize = 8;

/// Records that are looked at to make sure of a range; one with more new ones is not worth the writer's time.
const STEPS_MAX: usize = 4_096;

/// What readers see.
#[derive(Default)]
pub(crate) struct Dead(ArcSwapOption<RangeDeletes>);

impl Dead {
    #[inline]
    pub(crate) fn get(&self) -> Option<Arc<RangeDeletes>> {
        // One load decides in nearly every memtable.
        if self.0.load().is_none() { None } else { self.0.load_full() }
    }
}

/// The writer's own list, newest last.
#[derive(Default)]
pub(crate) struct DeadRanges(Vec<RangeDelete>);

impl DeadRanges {
    /// A record is about to be found by readers.
    #[inline]
    pub(crate) fn inserted(&mut self, memtable: &Memtable, record: RecordRef<'_>) {
        if !self.0.is_empty() && !record.is_tombstone() {
            self.take_back(memtable, record);
        }
    }

    #[cold]
    fn take_back(&mut self, memtable: &Memtable, record: RecordRef<'_>) {
        let before = self.0.len();
        self.0.retain(|range| !range.covers(record.keyspace(), record.key()));
        if self.0.len() < before {
            self.publish(memtable);
        }
    }

    fn publish(&self, memtable: &Memtable) {
        let ranges = (!self.0.is_empty()).then(|| Arc::new(self.0.iter().cloned().collect()));
        memtable.dead.0.store(ranges);
    }

    /// See [`MemtableWriter::mark_dead`](crate::MemtableWriter::mark_dead).
    pub(crate) fn mark(&mut self, memtable: &Arc<Memtable>, mut range: RangeDelete, now: Seqno) -> bool {
        if !self.is_dead_since(memtable, &range) {
            return false;
        }
        range.seqno = now;
        // What the new one covers from its first key on is known by it alone.
        self.0.retain(|known| !range.covers(known.keyspace, &known.start));
        if self.0.len() == RANGES_MAX {
            self.0.remove(0);
        }
        self.0.push(range);
        self.publish(memtable);
        true
    }

    /// Whether nothing was put into the range since it was found dead.
    fn is_dead_since(&self, memtable: &Arc<Memtable>, range: &RangeDelete) -> bool {
        let mut cursor = memtable.cursor();
        let mut moved = cursor.seek(InternalKey::lookup(range.keyspace, &range.start, Seqno::MAX));
        for _ in 0..STEPS_MAX {
            let Some(record) = cursor.record().filter(|_| moved.is_ok()) else { return moved.is_ok() };
            if !range.covers(record.keyspace(), record.key()) {
                return true;
            }
            if record.seqno() > range.seqno && !record.is_tombstone() {
                return false;
            }
            // What is marked already needs no second look.
            let known = self.0.iter().find(|known| known.covers(record.keyspace(), record.key()));
            moved = match known.map(|known| Arc::clone(&known.end)) {
                Some(end) if end.is_empty() || !ends_behind(&range.end, &end) => return true,
                Some(end) => cursor.seek(InternalKey::lookup(range.keyspace, &end, Seqno::MAX)),
                None => cursor.next(),
            };
        }
        false
    }
}
