//! Iteration for programs that use a table on its own: every record, pinned, from both ends of nothing but
//! one cursor.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::{InternalKey, KeyspaceId, OwnedKey, PinnedRecord, Result, Trailer};

use crate::cursor::TableCursor;
use crate::table::Table;

/// Records of a table in order, see [`Table::iter`] and [`Table::range`]. Ends after an error.
#[derive(Debug)]
pub struct TableIter {
    cursor: TableCursor,
    /// The position to start from; taken by the first step.
    start: Option<OwnedKey>,
    /// The position to stop before.
    end: Option<OwnedKey>,
    begun: bool,
    done: bool,
}

impl Table {
    /// Every record in order: all versions, and tombstones too. Range deletes come as records and hide none of the
    /// others.
    pub fn iter(self: &Arc<Self>) -> TableIter {
        TableIter { cursor: self.cursor(), start: None, end: None, begun: false, done: false }
    }

    /// The records of the user keys within `bounds` in one keyspace, in order: all versions, and tombstones
    /// too, as [`Table::iter`] gives them. A range delete that begins before the bounds is not among them.
    pub fn range<'k>(
        self: &Arc<Self>,
        keyspace: KeyspaceId,
        bounds: impl RangeBounds<&'k [u8]>,
    ) -> TableIter {
        let at = |user_key: &[u8], trailer| Some(OwnedKey::new(InternalKey { keyspace, user_key, trailer }));
        let newest = Trailer(u64::MAX);
        let start = match bounds.start_bound() {
            Bound::Included(key) => at(key, newest),
            Bound::Excluded(key) => at(&[key, &[0][..]].concat(), newest),
            Bound::Unbounded => at(b"", newest),
        };
        let end = match bounds.end_bound() {
            Bound::Included(key) => at(&[key, &[0][..]].concat(), newest),
            Bound::Excluded(key) => at(key, newest),
            Bound::Unbounded => keyspace.0.checked_add(1).map(|next| {
                OwnedKey::new(InternalKey { keyspace: KeyspaceId(next), user_key: b"", trailer: newest })
            }),
        };
        TableIter { cursor: self.cursor(), start, end, begun: false, done: false }
    }
}

impl TableIter {
    fn step(&mut self) -> Result<Option<PinnedRecord>> {
        match (self.begun, &self.start) {
            (true, _) => self.cursor.next()?,
            (false, Some(start)) => self.cursor.seek(start.as_ref())?,
            (false, None) => self.cursor.first()?,
        }
        self.begun = true;
        let Some(record) = self.cursor.record() else { return Ok(None) };
        if self.end.as_ref().is_some_and(|end| record.internal_key() >= end.as_ref()) {
            return Ok(None);
        }
        Ok(self.cursor.pinned())
    }
}

impl Iterator for TableIter {
    type Item = Result<PinnedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let found = self.step().transpose();
        self.done = !matches!(found, Some(Ok(_)));
        found
    }
}

impl std::iter::FusedIterator for TableIter {}
