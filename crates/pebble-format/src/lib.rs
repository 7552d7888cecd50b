//! Bytes and their names: what PebbleTree writes to disk, and the few shapes of memory that its layers share.
//!
//! ```text
//!   limits   checksum   hash   file_name          constants, crc32c, xxh3, names of files
//!   key ──► record ──► batch                      one record layout for log, memtable and table
//!            │      └──► reference              a value that lies in a table of its own
//!            ├─► log        segment and frame headers       docs/format/log.md
//!            ├─► table      blocks, indexes, footer         docs/format/table.md
//!            └─► manifest   edits of the tree               docs/format/manifest.md
//!   region   pinned                               memory appended once and read in place
//!   error                                         Corruption and the error of the component crates
//! ```
//!
//! No file, clock or thread is touched here. All integers on disk are little-endian, and every header is a
//! [`zerocopy`] type without alignment, so it can be read where it lies. Every decoder takes hostile bytes: it
//! answers with [`Corruption`] and never panics, over-allocates or loops.
//!
//! Threading: everything is plain data; [`region::AppendRegion`] is the one type with a protocol, told in its file.

pub mod batch;
pub mod checksum;
pub mod error;
pub mod file_name;
pub mod hash;
pub mod key;
pub mod limits;
pub mod log;
pub mod manifest;
pub mod pinned;
pub mod prefetch;
pub mod record;
pub mod reference;
pub mod region;
pub mod single_byte;
#[cfg(any(loom, shuttle))]
pub mod stand_in;
mod sync;
pub mod table;

pub use batch::RecordBatch;
pub use error::{Corruption, Error, Result};
pub use file_name::FileName;
pub use key::{HeadPrefix, InternalKey, KeyspaceId, Kind, OwnedKey, Seqno, Trailer};
pub use pinned::Pinned;
pub use record::{PinnedRecord, RecordRef};
pub use reference::Reference;
pub use region::{AppendRegion, Appender};
