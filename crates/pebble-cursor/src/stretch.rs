//! Stretches: records of one block that come next one after another, to be walked without asking a cursor of each.
//!
//! ```text
//!   block   [ r0  r1  r2  r3  r4  r5  r6 │ heads │ offsets │ tail ]
//!                     ▲   └──── left ───┘
//!                   taken last
//! ```
//!
//! A scan over one run takes most of its time where it asks merge, run and table in turn whether the next record is
//! still the next one. Of a block that holds one version of each key, with nothing else in between, that is known for
//! all records at once. Threading: one walk's own; the block is pinned and does not change.

use std::ops::Range;

use pebble_format::limits::RECORD_ALIGN;
use pebble_format::prefetch::prefetch_lines;
use pebble_format::{InternalKey, KeyspaceId, Pinned, PinnedRecord, RecordRef, Seqno};

/// How far ahead of a walk lines are asked for, and how many bytes of them: as many as a small record has. The
/// processor asks by itself too, but begins anew with every page. Measured on 144 B records: 22 ns a step without, 15
/// with.
const AHEAD: usize = 2048;
const AHEAD_LEN: usize = 192;

/// Bytes that [`Stretch::asked_for`] asks for: some eight small records, which is as far as many a walk goes.
const ASK_LEN: usize = 1024;

/// Which way a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To larger keys.
    Forward,
    /// To smaller keys.
    Backward,
}

/// Records of one block, none of which deletes, each of a user key of its own, that a cursor would give one after
/// another. Lent by [`Cursor::stretch`](crate::Cursor::stretch).
///
/// Cost: making one counts a reference on the block; a step reads two bytes, a record its header.
#[derive(Clone, Debug)]
pub struct Stretch {
    block: Pinned,
    /// Where the records end.
    records_len: usize,
    /// Where the array of the records' places begins: two bytes a record, little-endian, in units of
    /// [`RECORD_ALIGN`].
    offsets: usize,
    /// The slots that were not taken.
    left: Range<u16>,
    direction: Direction,
    taken: u16,
    /// The slot that was taken last.
    at: u16,
    newest: Seqno,
    keyspace: Option<KeyspaceId>,
}

impl Stretch {
    /// The records in `slots` of a block that was checked: its records end at `records_len`, its array of their places
    /// begins at `offsets`, and none of them is newer than `newest`.
    pub fn new(
        block: Pinned,
        records_len: usize,
        offsets: usize,
        slots: Range<u16>,
        direction: Direction,
        newest: Seqno,
    ) -> Self {
        Self {
            block,
            records_len,
            offsets,
            at: slots.start,
            left: slots,
            direction,
            taken: 0,
            newest,
            keyspace: None,
        }
    }

    /// Asks for the first few records at once: the processor sees a walk only after it has waited for some of them.
    #[must_use]
    pub fn asked_for(self) -> Self {
        if self.direction == Direction::Forward
            && let Some(place) = self.place(self.left.start)
        {
            prefetch_lines(&self.block, place, ASK_LEN);
        }
        self
    }

    /// The same, known to be of one keyspace only.
    #[must_use]
    pub fn of_keyspace(self, keyspace: Option<KeyspaceId>) -> Self {
        Self { keyspace, ..self }
    }

    /// The keyspace of all records, if it is known without a look at them.
    pub fn keyspace(&self) -> Option<KeyspaceId> {
        self.keyspace
    }

    /// Takes the next record; says whether there was one. It is [`Stretch::record`] from then on.
    #[inline]
    pub fn step(&mut self) -> bool {
        if self.left.is_empty() {
            return false;
        }
        let ahead = match self.direction {
            Direction::Forward => {
                self.at = self.left.start;
                self.left.start += 1;
                AHEAD
            }
            Direction::Backward => {
                self.left.end -= 1;
                self.at = self.left.end;
                AHEAD.wrapping_neg()
            }
        };
        self.taken += 1;
        if let Some(place) = self.place(self.at) {
            prefetch_lines(&self.block, place.wrapping_add(ahead), AHEAD_LEN);
        }
        true
    }

    /// The record taken last; `None` before the first one.
    #[inline]
    pub fn record(&self) -> Option<RecordRef<'_>> {
        if self.taken == 0 { None } else { self.get(self.at) }
    }

    /// The record taken last, pinned. Cost: a reference count.
    #[inline]
    pub fn pinned(&self) -> Option<PinnedRecord> {
        let start = self.place(self.at).filter(|start| self.taken > 0 && *start < self.records_len)?;
        PinnedRecord::parse(self.block.slice(start..self.records_len)).ok()
    }

    /// Records that were not taken.
    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether all were taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Records that were taken.
    pub fn taken(&self) -> u16 {
        self.taken
    }

    /// The way it goes.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// No record is newer.
    pub fn newest(&self) -> Seqno {
        self.newest
    }

    /// Leaves out the next record as if it had never been part of it.
    #[must_use]
    pub fn without_next(mut self) -> Self {
        match self.direction {
            Direction::Forward => self.left.start = self.left.end.min(self.left.start.saturating_add(1)),
            Direction::Backward => self.left.end = self.left.start.max(self.left.end.saturating_sub(1)),
        }
        self
    }

    /// The record that would be taken at last.
    pub fn last(&self) -> Option<RecordRef<'_>> {
        if self.left.is_empty() {
            return None;
        }
        match self.direction {
            Direction::Forward => self.get(self.left.end - 1),
            Direction::Backward => self.get(self.left.start),
        }
    }

    /// Ends it before the first record for which `within` no longer holds, which then holds for none behind it. Cost: a
    /// look at the last record, and a binary search where it is not within.
    pub fn keep_while(&mut self, within: impl Fn(InternalKey<'_>) -> bool) {
        let holds = |slot| self.get(slot).is_some_and(|record| within(record.internal_key()));
        if self.last().is_none_or(|last| within(last.internal_key())) {
            return;
        }
        let (mut low, mut high) = (self.left.start, self.left.end);
        match self.direction {
            Direction::Forward => {
                while low < high {
                    let middle = low.midpoint(high);
                    if holds(middle) { low = middle + 1 } else { high = middle }
                }
                self.left.end = low;
            }
            Direction::Backward => {
                while low < high {
                    let middle = low.midpoint(high);
                    if holds(middle) { high = middle } else { low = middle + 1 }
                }
                self.left.start = low;
            }
        }
    }

    #[inline]
    fn place(&self, slot: u16) -> Option<usize> {
        let at = self.offsets + 2 * usize::from(slot);
        let granule = self.block.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))?;
        Some(usize::from(granule) * RECORD_ALIGN)
    }

    /// The block was checked, so there is a record in every slot.
    #[inline]
    fn get(&self, slot: u16) -> Option<RecordRef<'_>> {
        RecordRef::parse(self.block.get(self.place(slot)?..self.records_len)?).ok()
    }
}
