//! How much of a table lies in a range of keys, without reading it.
//!
//! Threading: as [`Table`].

use std::ops::Bound;

use pebble_format::{InternalKey, KeyspaceId, Result, Seqno};

use crate::table::Table;

/// A bound of keys within a keyspace.
pub type KeyBoundary<'a> = Bound<(KeyspaceId, &'a [u8])>;

impl Table {
    /// The part of the table's data that lies within bounds, from 0 to 1, to the exactness of a block or two. Cost: two
    /// searches of the seek index.
    ///
    /// Errors: as [`Table::get`], where heads that are equal make it look into a block.
    pub fn part_within(&self, low: KeyBoundary<'_>, high: KeyBoundary<'_>) -> Result<f64> {
        let blocks = f64::from(self.info().blocks);
        let before = match low {
            Bound::Unbounded => 0.0,
            Bound::Included(key) | Bound::Excluded(key) => self.blocks_before(key)?,
        };
        let until = match high {
            Bound::Unbounded => blocks,
            Bound::Included(key) | Bound::Excluded(key) => self.blocks_before(key)?,
        };
        Ok(((until - before) / blocks).clamp(0.0, 1.0))
    }

    /// How many blocks lie before a key; the one that it falls into counts half.
    fn blocks_before(&self, (keyspace, user_key): (KeyspaceId, &[u8])) -> Result<f64> {
        let target = InternalKey::lookup(keyspace, user_key, Seqno::MAX);
        if target <= self.first().as_ref() {
            return Ok(0.0);
        }
        if self.last().as_ref().cmp_user(&target).is_lt() {
            return Ok(f64::from(self.info().blocks));
        }
        Ok(f64::from(self.blocks_starting_before(target)?) - 0.5)
    }
}
