//! The SSTable of PebbleTree: a sorted, immutable file of records that is read in place.
//!
//! ```text
//!   records ──► TableWriter ──► any io::Write          (a FileSink writes to a pebble_vfs::File)
//!                                    │
//!             Table::open, open_map, from_bytes        bytes in place: no copy, no cache
//!             Table::open_file                         positioned reads, through a BlockCache if given
//!                                    │
//!        get, prefetch ◄─────────────┼─────────────► cursor, iter, range
//!        point index, 2 misses       └► verify       seek index, then heads in the block
//! ```
//!
//! The format is told in `docs/format/table.md`. Everything that a file says is checked before it is
//! believed: footer and metadata when the table is opened, a data block when it is first touched. Whatever
//! the bytes, the answer is a record or [`pebble_format::Corruption`], never a panic and never an allocation
//! that the file does not pay for.
//!
//! Threading: a [`Table`] is shared by `Arc` and read by any number of threads without a lock; a
//! [`BlockCache`] locks one of its shards for a lookup. A [`TableWriter`] and a [`TableCursor`] belong to one
//! thread at a time.
//!
//! ```
//! use pebble_format::{InternalKey, KeyspaceId, Seqno};
//! use pebble_sstable::{Table, TableOptions, TableReadOptions, TableWriter};
//!
//! # fn main() -> pebble_format::Result<()> {
//! let mut writer = TableWriter::new(Vec::new(), TableOptions::default())?;
//! writer.put(KeyspaceId::DEFAULT, b"ann", Seqno(1), b"1 apple")?;
//! writer.put(KeyspaceId::DEFAULT, b"bob", Seqno(2), b"2 plums")?;
//! let (bytes, info) = writer.finish()?;
//! assert_eq!((info.count, info.len), (2, bytes.len() as u64));
//!
//! let table = Table::from_bytes(bytes, "memory", TableReadOptions::default())?;
//! let bob = InternalKey::lookup(KeyspaceId::DEFAULT, b"bob", Seqno::MAX);
//! assert_eq!(table.get(bob)?.map(|found| found.into_value().to_vec()), Some(b"2 plums".to_vec()));
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod block;
mod bloom;
mod cache;
mod codec;
mod cursor;
mod data;
#[cfg(feature = "zstd")]
mod dictionary;
#[cfg(not(feature = "zstd"))]
#[path = "no_dictionary.rs"]
mod dictionary;
mod estimate;
mod facts;
mod index;
mod iter;
mod mend;
mod meta;
#[cfg(all(test, loom))]
mod models;
mod options;
mod ranges;
mod referred;
mod remains;
mod run;
mod seek;
mod sink;
mod source;
mod stream;
mod sync;
mod table;
mod verified;
mod verify;
mod writer;

pub use cache::BlockCache;
pub use cursor::TableCursor;
pub use estimate::KeyBoundary;
pub use facts::BlockFacts;
pub use iter::TableIter;
pub use options::{
    BLOCK_LEN_DEFAULT, Compression, PointIndex, TABLE_LEN_DEFAULT, TableInfo, TableOptions, TableReadOptions,
};
pub use referred::Referred;
pub use remains::{LostBlock, Remains, RemainsCursor};
pub use run::TableRun;
pub use sink::FileSink;
pub use stream::{OpenFile, StreamedRun};
pub use table::Table;
pub use verify::VerifyReport;
pub use writer::TableWriter;
