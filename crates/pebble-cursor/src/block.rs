//! Whole blocks: what a merge hands on as it is stored, where nothing is to be merged.
//!
//! ```text
//!   child a   [ a1 a2 a3 ]  [ d1 …            the winner's block ends before any other child's record:
//!   child b        [ c1 c2 …                  a1 to a3 move as one, unread but for their keys
//!
//!   child a   [ a1 c1 d1 ]                    it does not: record by record
//!   child b        [ b1 …
//! ```
//!
//! Threading: plain data.

use pebble_format::record::{Records, records};
use pebble_format::table::Codec;
use pebble_format::{Corruption, RecordRef, Result};

/// A block of a table that begins with the record under a cursor, lent by [`Cursor::block`](crate::Cursor::block).
///
/// It was found right when it was read (checksum, order, offsets), no two of its records are versions of one user
/// key, none deletes a range, and no record behind it is of its last user key. What stands before it is unknown: who
/// takes it sees to it that the record before was of another user key.
#[derive(Clone, Copy)]
pub struct WholeBlock<'a> {
    /// The bytes as they are stored, without the zeros behind them.
    pub stored: &'a [u8],
    /// How they are stored.
    pub codec: Codec,
    /// CRC-32C of the stored bytes and the zeros behind them.
    pub crc: u32,
    /// Bytes of the uncompressed block, tail included.
    pub raw_len: u32,
    /// Records; at least one.
    pub count: u16,
    /// How many of them are tombstones.
    pub tombstones: u16,
    /// The records one after another, uncompressed.
    pub records: &'a [u8],
    /// The last record.
    pub last: RecordRef<'a>,
}

impl<'a> WholeBlock<'a> {
    /// The first record.
    pub fn first(&self) -> Result<RecordRef<'a>, Corruption> {
        RecordRef::parse(self.records)
    }

    /// The records in order, each with its offset in the block.
    pub fn records(&self) -> Records<'a> {
        records(self.records)
    }
}

/// Prints lengths, not bytes: a key must not stand in a log or an error.
impl std::fmt::Debug for WholeBlock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stored, raw, codec) = (self.stored.len(), self.raw_len, self.codec);
        write!(f, "{} records, {raw} B, {codec:?} in {stored} B, up to {:?}", self.count, self.last)
    }
}
