//! The orchestration of PebbleTree: the layers below know records, logs, memtables, tables and versions; this one
//! knows when. It owns every lock and every thread.
//!
//! ```text
//!              engine.rs          the handle, open to close
//!   write ─► commit.rs ─► log, memtable ─► visible            read ─► get.rs, iter.rs ─► state.rs
//!                │ full                                                     ▲
//!            flush.rs, compact.rs ─► tables.rs ─► install.rs ───────────────┘     pace.rs: how fast writers may go
//!            work.rs: the threads that run them      open.rs, recover.rs: how it all begins
//!            read_only.rs, survey.rs, rebuild.rs, repair.rs: whole or damaged, without a trace in the directory
//! ```
//!
//! `pebble-db` is the face of this crate; use that one.

#![forbid(unsafe_code)]

mod commit;
mod compact;
mod core;
mod covered;
mod damage;
mod doubt;
mod engine;
mod error;
mod estimate;
mod flush;
mod followed;
mod gathered;
mod get;
mod health;
mod heat;
mod install;
mod iter;
mod keyspaces;
mod merges;
#[cfg(all(test, loom))]
mod models;
mod open;
mod options;
mod pace;
mod read_only;
mod rebuild;
mod recover;
mod repair;
mod salvaged;
mod snapshots;
mod sorted;
#[cfg(any(loom, shuttle))]
mod stand_in;
mod state;
mod stats;
mod status;
mod survey;
mod sync;
mod tables;
mod transfers;
mod values;
mod verify;
mod wanted;
mod work;

pub use compact::CompactProgress;
pub use damage::Damage;
pub use engine::{Engine, Snapshot};
pub use error::{Error, Result};
pub use estimate::SizeEstimate;
pub use health::{Health, HealthEntry, HealthState};
pub use iter::{Bounds, Iter};
pub use keyspaces::DEFAULT_KEYSPACE;
pub use options::{Components, Durability, Executor, MEMORY_BUDGET_MIN, Options, ReadMode};
pub use pebble_compaction::{KeyRange, Policy};
pub use pebble_format::{Corruption, KeyspaceId, Pinned, PinnedRecord, RecordBatch, Seqno, limits};
pub use pebble_sstable::{Compression, PointIndex, VerifyReport};
pub use pebble_wal::{LogIo, Recovery};
pub use recover::RecoveryReport;
pub use repair::{Extent, Fate, RepairOptions, RepairReport, repair};
pub use stats::{LevelStats, StallReason, StallStats, Stats};
pub use survey::VerifyProgress;
pub use verify::{Verification, inspect};
