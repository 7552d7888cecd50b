//! The orchestration of PebbleTree: the layers below know records, logs, memtables, tables and versions; this one
//! knows when. It owns every lock and every thread.
//!
//! ```text
//!              engine.rs          the handle, open to close
//!   write ─► commit.rs ─► log, memtable ─► visible            read ─► get.rs, iter.rs ─► state.rs
//!                │ full                                                     ▲
//!            flush.rs, compact.rs ─► tables.rs ─► install.rs ───────────────┘
//!            work.rs: the threads that run them      open.rs, recover.rs: how it all begins
//! ```
//!
//! `pebble-db` is the face of this crate; use that one.

#![forbid(unsafe_code)]

mod commit;
mod compact;
mod core;
mod engine;
mod error;
mod flush;
mod get;
mod install;
mod iter;
mod keyspaces;
mod open;
mod options;
mod recover;
mod snapshots;
mod state;
mod stats;
mod status;
mod sync;
mod tables;
mod work;

pub use engine::{Engine, Snapshot};
pub use error::{Error, Result};
pub use iter::{Bounds, Iter};
pub use keyspaces::DEFAULT_KEYSPACE;
pub use options::{Components, Durability, Executor, MEMORY_BUDGET_MIN, Options, ReadMode};
pub use pebble_format::{Corruption, KeyspaceId, Pinned, PinnedRecord, RecordBatch, Seqno, limits};
pub use pebble_sstable::{Compression, PointIndex, VerifyReport};
pub use pebble_wal::{LogIo, Recovery};
pub use recover::RecoveryReport;
pub use stats::{LevelStats, Stats};
