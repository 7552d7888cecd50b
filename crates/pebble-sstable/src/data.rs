//! The data of a table as it is written: blocks one behind another, and what directory, properties and footer say
//! of them.
//!
//! Threading: plain data; belongs to the [`TableWriter`](crate::TableWriter).

use std::io::Write;

use pebble_format::checksum::crc32c;
use pebble_format::limits::RECORD_ALIGN;
use pebble_format::table::{BlockEntry, Codec};
use pebble_format::{OwnedKey, RecordRef, Result, Seqno};

use crate::writer::to_u32;

/// The blocks that are written.
#[derive(Debug)]
pub(crate) struct Data<W> {
    pub(crate) to: W,
    /// Bytes in the file so far, and so where the next block begins.
    pub(crate) len: u64,
    pub(crate) directory: Vec<BlockEntry>,
    pub(crate) first_keys: Vec<OwnedKey>,
    pub(crate) raw_len: u64,
    pub(crate) compressed_blocks: u32,
}

/// A block in the form in which it is stored.
pub(crate) struct Stored<'a> {
    /// The bytes, without the zeros behind them.
    pub(crate) bytes: &'a [u8],
    pub(crate) codec: Codec,
    /// Of the bytes and the zeros; computed if it is not known.
    pub(crate) crc: Option<u32>,
    pub(crate) raw_len: u32,
    pub(crate) count: u16,
}

impl<W: Write> Data<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, len: 0, directory: Vec::new(), first_keys: Vec::new(), raw_len: 0, compressed_blocks: 0 }
    }

    /// Appends a block that begins with `first`.
    pub(crate) fn write(&mut self, block: &Stored<'_>, first: OwnedKey) -> Result<()> {
        let len = block.bytes.len();
        let padding = [0; RECORD_ALIGN];
        let zeros = padding.get(..len.next_multiple_of(RECORD_ALIGN) - len).unwrap_or_default();
        self.to.write_all(block.bytes)?;
        self.to.write_all(zeros)?;
        let entry = BlockEntry {
            offset: self.len.into(),
            stored_len: to_u32(len)?.into(),
            raw_len: block.raw_len.into(),
            crc: block.crc.unwrap_or_else(|| crc32c(crc32c(0, block.bytes), zeros)).into(),
            count: block.count.into(),
            codec: block.codec as u8,
            reserved: 0,
        };
        self.len += entry.padded_len();
        self.raw_len += u64::from(block.raw_len);
        self.compressed_blocks += u32::from(block.codec != Codec::None);
        self.directory.push(entry);
        self.first_keys.push(first);
        Ok(())
    }
}

/// What the records of a table come to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) count: u64,
    pub(crate) keys: u64,
    pub(crate) tombstones: u64,
    pub(crate) key_bytes: u64,
    pub(crate) value_bytes: u64,
    /// The smallest and the largest sequence number.
    pub(crate) seqnos: Option<(Seqno, Seqno)>,
}

impl Sums {
    /// Counts a record, which is its key's newest or an older one.
    #[inline]
    pub(crate) fn add(&mut self, record: RecordRef<'_>, newest: bool) {
        self.count += 1;
        self.keys += u64::from(newest);
        self.tombstones += u64::from(record.is_tombstone());
        self.key_bytes += record.key().len() as u64;
        self.value_bytes += record.value().len() as u64;
        let seqno = record.seqno();
        let (min, max) = self.seqnos.unwrap_or((seqno, seqno));
        self.seqnos = Some((min.min(seqno), max.max(seqno)));
    }
}
