//! What a user may tune (plain data, checked once), and what a test may swap (objects).

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use pebble_compaction::Policy;
use pebble_format::manifest::LAST_LEVEL;
use pebble_memtable::Memtable;
use pebble_sstable::{Compression, PointIndex, TableOptions};
use pebble_vfs::{Clock, Fs, OsFs, SystemClock};
use pebble_wal::{LogIo, Recovery};

use crate::error::{Error, Result};

/// Largest memtable, in bytes of log and of index each: one full-grown log segment.
const MEMTABLE_LEN_MAX: u64 = 64 << 20;

/// Shortest value that may lie apart, so that a block of a table of values never takes two.
pub const VALUES_APART_MIN: usize = 64;

/// A table of values is so many times as long as another at most: there is no point index that has to reach over it,
/// and the fewer there are, the shorter the lists of those that a table refers to.
const VALUE_TABLE_FACTOR: u64 = 8;

/// Most threads that may merge.
const THREADS_MAX: usize = 64;

/// Shortest interval between two syncs in the background: below it a core would do nothing else.
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Smallest memory budget: below it memtables would be too small to be worth a file.
pub const MEMORY_BUDGET_MIN: u64 = 1 << 20;

/// How tables are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// Through a shared map, in place. Fastest; an I/O error under a mapped page is a SIGBUS from the kernel. A block
    /// is checked when it is first touched: what the device says otherwise when it is asked for the page again, without
    /// an error, is served unchecked, and a record that is none by then ends a scan.
    #[default]
    Map,
    /// Through positioned reads and a block cache within the memory budget. Safe against SIGBUS, and better when
    /// the data far exceeds the memory.
    Pread,
}

/// When a commit is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Its frame is in pages that the kernel owns: it survives the death of the process.
    #[default]
    Buffered,
    /// It is synced to the device: it survives a loss of power, and so does every commit before it.
    Sync,
}

/// The knobs of a database. Every default is one that a benchmark defends or that a promise needs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Bytes of anonymous memory for memtables, indexes, filters and caches together. 256 MiB.
    pub memory_budget: u64,
    /// Whether opening a path without a database makes one. True.
    pub create_if_missing: bool,
    /// How the log is written. Mapped segments.
    pub log_io: LogIo,
    /// What to do with a log that is damaged below what was known durable. Refuse.
    pub recovery: Recovery,
    /// Whether the database is only read, and nothing at all is written to its directory. False.
    pub read_only: bool,
    /// How often buffered commits are synced in the background, a millisecond apart at least; `None` for never. One
    /// second.
    pub sync_interval: Option<Duration>,
    /// How tables are read. Mapped.
    pub read_mode: ReadMode,
    /// The point index of each table. Locations: one miss to a record, about five bytes a key.
    pub point_index: PointIndex,
    /// Compression of the oldest run, where most data rests. LZ4, block by block where it pays. Zstd needs the
    /// feature of that name.
    pub compression: Compression,
    /// Bytes from which on a value lies in a table of values, and is not moved by merges; `None` leaves all values in
    /// their records. 4 KiB.
    pub values_apart: Option<usize>,
    /// Target bytes of a data block. 16 KiB.
    pub block_len: usize,
    /// Target bytes of a table. 32 MiB.
    pub table_len: u64,
    /// The shape of the tree, between cheap writes and cheap reads. Lazy leveling.
    pub shape: Policy,
    /// Threads that merge. One less than the machine has cores, and at least one.
    pub merge_threads: usize,
    /// Bytes of the first log segment; each next one is twice as long. 256 KiB.
    pub segment_len_min: u32,
    /// Bytes of a full-grown log segment. 64 MiB.
    pub segment_len_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_budget: 256 << 20,
            create_if_missing: true,
            log_io: LogIo::Map,
            recovery: Recovery::Strict,
            read_only: false,
            sync_interval: Some(Duration::from_secs(1)),
            read_mode: ReadMode::Map,
            point_index: PointIndex::Location,
            compression: Compression::Lz4,
            values_apart: Some(4 << 10),
            block_len: 16 << 10,
            table_len: 32 << 20,
            shape: Policy::default(),
            merge_threads: available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
            segment_len_min: 256 << 10,
            segment_len_max: 64 << 20,
        }
    }
}

/// The bytes at which a memtable is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemtableLen {
    /// Of log that it points into.
    pub(crate) log: usize,
    /// Of its index.
    pub(crate) index: usize,
}

/// Bytes of log that a key is expected to take, for what is sized before the first one comes.
const KEY_LOG_LEN: usize = 128;

impl MemtableLen {
    /// How many keys one is expected to hold.
    pub(crate) fn keys(self) -> usize {
        self.log / KEY_LOG_LEN
    }

    /// Whether the memtable is to be sealed before it takes `len` more bytes. An empty one takes any record.
    #[inline]
    pub(crate) fn is_reached(self, memtable: &Memtable, len: usize) -> bool {
        let full = memtable.memory() >= self.index || memtable.log_bytes() + len > self.log;
        full && !memtable.is_empty()
    }
}

/// Range deletes that a memtable may hold: each is a copy of the list, so a longer one would cost more than a flush.
pub(crate) const RANGE_DELETES_MAX: usize = 1_024;

/// Sealed memtables that may wait for their flush before writers have to.
pub(crate) const SEALED_MAX: usize = 3;

impl Options {
    pub(crate) fn check(&self) -> Result<()> {
        if self.memory_budget < MEMORY_BUDGET_MIN {
            return Err(Error::invalid(format!("memory budget below {MEMORY_BUDGET_MIN} bytes")));
        }
        if !(4 << 10..=64 << 20).contains(&self.segment_len_min)
            || self.segment_len_max < self.segment_len_min
        {
            return Err(Error::invalid("log segments must be 4 KiB to 64 MiB at first, and not shrink"));
        }
        if !(1 << 10..=1 << 30).contains(&self.table_len) {
            return Err(Error::invalid("tables must be 1 KiB to 1 GiB long"));
        }
        if self.values_apart.is_some_and(|from_len| from_len < VALUES_APART_MIN) {
            return Err(Error::invalid(format!("values apart from {VALUES_APART_MIN} bytes on at least")));
        }
        if self.sync_interval.is_some_and(|interval| interval < SYNC_INTERVAL_MIN) {
            return Err(Error::invalid(format!(
                "sync interval below {SYNC_INTERVAL_MIN:?}; `None` is never"
            )));
        }
        TableOptions { compression: self.compression, ..self.table_options([0; 16]) }.check()?;
        if !(1..=THREADS_MAX).contains(&self.merge_threads) {
            return Err(Error::invalid(format!("merge threads: 1 to {THREADS_MAX}")));
        }
        Ok(())
    }

    /// How the tables of the database `uuid` are written, but for their compression.
    pub(crate) fn table_options(&self, uuid: [u8; 16]) -> TableOptions {
        TableOptions {
            block_len: self.block_len,
            table_len: self.table_len,
            index: self.point_index,
            uuid,
            ..TableOptions::default()
        }
    }

    /// How tables of values are written. They are compressed at once, for no merge does it later; without a dictionary,
    /// which serves short records.
    pub(crate) fn value_table_options(&self, uuid: [u8; 16]) -> TableOptions {
        let compression = match self.compression {
            Compression::Zstd { level, .. } => Compression::Zstd { level, dictionary: false },
            other => other,
        };
        TableOptions {
            block_len: VALUES_APART_MIN,
            table_len: self.table_len.saturating_mul(VALUE_TABLE_FACTOR),
            index: PointIndex::None,
            compression,
            holds_values: true,
            uuid,
            ..TableOptions::default()
        }
    }

    /// How large a memtable may grow.
    ///
    /// One active and [`SEALED_MAX`] sealed memtables may exist at a time, and half of the budget is theirs. A mapped
    /// log is the kernel's memory, so the index has that half to itself; where the log is heap memory, they share it.
    pub(crate) fn memtable_len(&self) -> MemtableLen {
        let share = self.memory_budget / 2 / (SEALED_MAX as u64 + 1);
        let (log, index) = match self.log_io {
            LogIo::Map => (share * 2, share),
            LogIo::Write => (share / 2, share / 2),
        };
        let bytes = |len: u64| usize::try_from(len.min(MEMTABLE_LEN_MAX)).unwrap_or(usize::MAX);
        MemtableLen { log: bytes(log), index: bytes(index) }
    }

    /// Bytes of data that a table of this level has at least before a cut ends it. Above the last level it keeps
    /// flushes from making crumbs; in the last one it keeps borders where they are, and lets tables grow that have
    /// shrunk.
    pub(crate) fn cut_len_min(&self, level: u8) -> u64 {
        self.table_len / if level == LAST_LEVEL { 2 } else { 16 }
    }

    /// The policy of the planner.
    pub(crate) fn policy(&self) -> Policy {
        // A table that a merge has ended is no crumb, or it would be merged for ever.
        let crumb_bytes = self.shape.crumb_bytes.min(self.table_len / 4);
        Policy { crumb_bytes, ..self.shape }
    }

    /// Bytes for decompressed and for read blocks, at least and at most. Between the two it is what memtables and
    /// tables leave of the budget. Where tables are read with positioned reads the most is a quarter: the kernel keeps
    /// the same blocks as long as it has memory, and such a database is larger than memory.
    pub(crate) fn cache_len(&self) -> (u64, u64) {
        let most = match self.read_mode {
            ReadMode::Map => self.memory_budget,
            ReadMode::Pread => self.memory_budget / 4,
        };
        (self.memory_budget / 8, most)
    }
}

/// Who runs flushes and compactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Executor {
    /// Threads of the engine's own.
    #[default]
    Threads,
    /// The caller: a full memtable is flushed by the write that finds it full, and what is then due is merged.
    /// Nothing runs unseen, so a test that counts file-system calls sees the same ones every time.
    Inline,
}

/// The objects that the engine stands on.
#[derive(Clone)]
pub struct Components {
    /// The file system.
    pub fs: Arc<dyn Fs>,
    /// The clock; used for pacing and figures, never for a decision about correctness.
    pub clock: Arc<dyn Clock>,
    /// Who runs the background work.
    pub executor: Executor,
}

impl Default for Components {
    fn default() -> Self {
        Self { fs: Arc::new(OsFs), clock: Arc::new(SystemClock::new()), executor: Executor::Threads }
    }
}
