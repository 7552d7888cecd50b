//! What a caller chooses, and what it learns of a finished table. Plain data.

use std::sync::Arc;

use pebble_format::table::{BLOCK_LEN_MAX, LOCATION_MAX, granule_offset};
use pebble_format::{Error, OwnedKey, Result, Seqno};

use crate::cache::BlockCache;
use crate::dictionary;
use crate::referred::Referred;

/// Bytes that a data block aims at unless told otherwise: four pages, checked in about 2 µs on first touch.
pub const BLOCK_LEN_DEFAULT: usize = 16 << 10;

/// Bytes of data at which a table is full unless told otherwise: as far as a point index by offset reaches.
pub const TABLE_LEN_DEFAULT: u64 = granule_offset(LOCATION_MAX) + 4;

/// Shortest block that may be asked for: below, every block holds one record and its index costs more than
/// it.
const BLOCK_LEN_MIN: usize = 64;

/// How a table finds a single key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointIndex {
    /// Where every key's newest record lies: about 5 B a key, and a get is two dependent cache misses. A
    /// table that is too large for it (a start beyond 32 MiB, or more than 8,192 blocks when compressing), or whose
    /// keys were chosen to have hashes that crowd, falls back to a bloom filter.
    Location,
    /// Whether a key is there: `bits_per_key / 8` B a key; a get that passes it searches the blocks.
    Bloom {
        /// 1 to 32. 10 lets about 1 % of the absent keys pass.
        bits_per_key: u8,
    },
    /// Nothing: every get searches the blocks.
    None,
}

/// Whether blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Blocks are stored as they are, and read in place.
    None,
    /// LZ4 where it makes a block shorter by at least an eighth; such a block is read through the cache.
    Lz4,
    /// Zstd under the same rule; smaller than LZ4, and slower in both directions. Only in a build with the feature
    /// `zstd`: without it, [`TableOptions::check`] refuses this, and a reader answers a table that has such blocks
    /// with `UnsupportedCodec`.
    Zstd {
        /// 1 (fast) to 22 (small). 3 is zstd's own default.
        level: i32,
        /// Whether the table gets a dictionary of its own, trained from its first records. It is for small, similar
        /// records in small blocks: of 110 B in blocks of 1 KiB it saved a third of the bytes, in 4 KiB 7 %; with 16
        /// KiB it was dropped. The writer holds back 1.6 MiB of blocks for the training, which takes about 0.15 s a
        /// table; a dictionary that does not save more there than its own length is dropped. A reader keeps it in
        /// memory (about 43 KiB), and blocks that need it are not handed on whole.
        dictionary: bool,
    },
}

/// How a table is written.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// Bytes that a data block aims at, tail included: 64 B to 256 KiB. A record that is longer has a block
    /// of its own.
    pub block_len: usize,
    /// Bytes of data at which [`TableWriter::is_full`](crate::TableWriter::is_full) begins to say so.
    pub table_len: u64,
    /// How single keys are found.
    pub index: PointIndex,
    /// Whether blocks are compressed.
    pub compression: Compression,
    /// Whether it is a table of values, to which records of other tables refer: each record, a put that is no shorter
    /// than `block_len`, gets a block of its own, and references name where in the file that begins.
    pub holds_values: bool,
    /// The table's number, which is in its file name too.
    pub number: u64,
    /// The database that the table belongs to.
    pub uuid: [u8; 16],
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_len: BLOCK_LEN_DEFAULT,
            table_len: TABLE_LEN_DEFAULT,
            index: PointIndex::Location,
            compression: Compression::None,
            holds_values: false,
            number: 0,
            uuid: [0; 16],
        }
    }
}

impl TableOptions {
    /// Refuses options out of their range, as [`TableWriter::new`](crate::TableWriter::new) does. Errors:
    /// `InvalidArgument`.
    pub fn check(&self) -> Result<()> {
        if !(BLOCK_LEN_MIN..=BLOCK_LEN_MAX).contains(&self.block_len) {
            return Err(Error::invalid(format!(
                "block length {}; from {BLOCK_LEN_MIN} to {BLOCK_LEN_MAX}",
                self.block_len
            )));
        }
        match self.compression {
            Compression::Zstd { .. } if !dictionary::SUPPORTED => {
                return Err(Error::invalid("zstd for a build without the feature zstd"));
            }
            Compression::Zstd { level, .. } if !(1..=22).contains(&level) => {
                return Err(Error::invalid(format!("zstd level {level}; from 1 to 22")));
            }
            _ => {}
        }
        if self.holds_values && self.index != PointIndex::None {
            return Err(Error::invalid("a point index for a table of values, which is not searched by key"));
        }
        match self.index {
            PointIndex::Bloom { bits_per_key } if !(1..=32).contains(&bits_per_key) => {
                Err(Error::invalid(format!("{bits_per_key} bits per key; from 1 to 32")))
            }
            _ => Ok(()),
        }
    }
}

/// How a table is read.
#[derive(Clone, Debug, Default)]
pub struct TableReadOptions {
    /// Where blocks live that cannot be read in place: compressed ones, and all when the file is not mapped.
    /// Without one each of them is read and expanded anew whenever it is touched.
    pub cache: Option<Arc<BlockCache>>,
}

/// The facts of a finished table: what a manifest remembers of it, and what a reader finds in its footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// The table's number.
    pub number: u64,
    /// The database that it belongs to.
    pub uuid: [u8; 16],
    /// Bytes of the file.
    pub len: u64,
    /// The footer's checksum, which covers all others: with `len` it tells this file from any other.
    pub footer_crc: u32,
    /// Records.
    pub count: u64,
    /// Different user keys; equal to `count` when no key has an older version here.
    pub keys: u64,
    /// Records that are tombstones.
    pub tombstones: u64,
    /// The first key.
    pub first: OwnedKey,
    /// The last key.
    pub last: OwnedKey,
    /// How many records delete a range. They are tombstones too.
    pub range_deletes: u32,
    /// The first key that the table does not reach, where its range deletes cover keys behind its last one in that
    /// one's keyspace: empty when they reach to the end of it. `None` when the table answers for no key behind its
    /// last one.
    pub reach: Option<Box<[u8]>>,
    /// Smallest sequence number.
    pub seqno_min: Seqno,
    /// Largest sequence number.
    pub seqno_max: Seqno,
    /// Data blocks.
    pub blocks: u32,
    /// Bytes of the data blocks in the file.
    pub data_len: u64,
    /// Bytes of the data blocks, uncompressed.
    pub raw_len: u64,
    /// Bytes of all user keys.
    pub key_bytes: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
    /// Bytes of the point index or the filter.
    pub index_len: u64,
    /// Whether it is a table of values, to which records of others refer.
    pub holds_values: bool,
    /// The tables of values that its records refer to, ascending, and how much of each.
    pub referred: Box<[Referred]>,
}
