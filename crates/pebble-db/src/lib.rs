//! PebbleTree: an embedded, ordered, crash-safe key-value store that writes like a log and reads like a memory map.
//!
//! ```
//! # fn main() -> pebble_db::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("db");
//! use pebble_db::Db;
//!
//! let db = Db::open(path)?;
//! db.put("stone", "granite")?;
//! assert_eq!(db.get("stone")?.as_deref(), Some(&b"granite"[..]));
//! # db.close()
//! # }
//! ```
//!
//! # What it promises
//!
//! | | [`Durability::Buffered`] (the default) | [`Durability::Sync`] |
//! |---|---|---|
//! | acknowledged means | the whole commit is in pages that the kernel owns | it is on the device |
//! | the process is killed: lost | nothing acknowledged | nothing acknowledged |
//! | the power fails: lost | at most what came after the last sync | nothing acknowledged |
//!
//! A sync is a commit with [`Durability::Sync`], a [`Db::persist`], or the background's, once a second: each makes
//! every commit before it durable.
//!
//! - A [`WriteBatch`] is applied whole or not at all, over any number of keyspaces.
//! - What a reopen finds is the first *k* commits exactly: a prefix, without a hole.
//! - A read gives the right value, a correct absence, or an error. An iterator that met an error only repeats it.
//!
//! # Before you start
//!
//! - One process at a time opens a database for writing; a second open fails with [`Error::Locked`]. Any number open
//!   it for reading ([`Db::open_read_only`]) while none writes.
//! - A damaged database is refused. [`inspect`] says what is wrong with it, [`Recovery::SalvageReadOnly`] serves what
//!   is left, and [`repair`] makes a whole one of that, in another directory.
//! - Keys have up to 65,535 bytes, values up to 1 GiB, batches up to 2 GiB. Empty keys and values are valid. Keys
//!   are ordered bytewise; there is no custom comparator.
//! - A [`Value`] is a slice in place. It keeps the log segment or the table it lies in alive (not in memory, but on
//!   disk) until it is dropped; [`Value::detach`] copies it out.
//! - Tables are read through a memory map by default. An I/O error under a mapped page reaches the process as a
//!   SIGBUS; [`ReadMode::Pread`] avoids that, at the price of a copy. The files are locked, written once and only
//!   ever unlinked; whoever truncates them from outside while they are mapped breaks that.
//! - Network file systems are not supported.
//!
//! This crate holds names and promises; the mechanism is in the crates below it, each usable alone.

#![forbid(unsafe_code)]

mod batch;
mod builder;
mod db;
mod iter;
mod keyspace;
mod range;
mod repair;
mod snapshot;
mod value;

pub use batch::{WriteBatch, WriteOptions};
pub use builder::Builder;
pub use db::Db;
pub use iter::Iter;
pub use keyspace::Keyspace;
pub use pebble_engine::{
    CompactProgress, Components, Compression, Corruption, Damage, Durability, Error, Executor, Extent, Fate,
    Health, HealthEntry, HealthState, LevelStats, LogIo, PointIndex, Policy as CompactionPolicy, ReadMode,
    Recovery, RecoveryReport, RepairOptions, RepairReport, Result, SizeEstimate, StallReason, StallStats,
    Stats, Verification, VerifyProgress, VerifyReport, limits,
};
pub use range::KeyRange;
pub use repair::{inspect, inspect_with, repair, repair_with};
pub use snapshot::Snapshot;
pub use value::{Key, Value};
