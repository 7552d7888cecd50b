//! Counters and what `stats()` makes of them.
//!
//! Threading: relaxed atomics; a figure may lag behind another by what is in flight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pebble_vfs::Clock;

/// What the engine counts while it runs.
#[derive(Default)]
pub(crate) struct Counters {
    records: AtomicU64,
    record_bytes: AtomicU64,
    flushes: AtomicU64,
    flush_bytes: AtomicU64,
    compactions: AtomicU64,
    compaction_read_bytes: AtomicU64,
    compaction_bytes: AtomicU64,
    covered_bytes: AtomicU64,
    stalls: [AtomicU64; StallReason::COUNT],
    stall_nanos: [AtomicU64; StallReason::COUNT],
}

/// Why a write has to wait, or is slowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StallReason {
    /// Memtables are filled faster than they are flushed.
    #[default]
    Flush,
    /// The tree is beyond its shape by more than its merges keep up with.
    Merge,
}

impl StallReason {
    const COUNT: usize = 2;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Flush, Self::Merge];
}

impl std::fmt::Display for StallReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Flush => "flushes are behind",
            Self::Merge => "merges are behind",
        })
    }
}

impl Counters {
    #[inline]
    pub(crate) fn committed(&self, records: u32, bytes: usize) {
        // Called under the commit lock: plain loads and stores suffice, and spare two locked instructions a put.
        add_alone(&self.records, u64::from(records));
        add_alone(&self.record_bytes, bytes as u64);
    }

    pub(crate) fn flushed(&self, bytes: u64) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flush_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn compacted(&self, read: u64, written: u64) {
        self.compactions.fetch_add(1, Ordering::Relaxed);
        self.compaction_read_bytes.fetch_add(read, Ordering::Relaxed);
        self.compaction_bytes.fetch_add(written, Ordering::Relaxed);
    }

    pub(crate) fn dropped_covered(&self, bytes: u64) {
        self.covered_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a stall, and its time until the guard is dropped.
    pub(crate) fn stall<'a>(&'a self, clock: &'a dyn Clock, reason: StallReason) -> impl Drop + 'a {
        let [stalls, nanos] = [&self.stalls, &self.stall_nanos].map(|counters| &counters[reason as usize]);
        stalls.fetch_add(1, Ordering::Relaxed);
        Stall { nanos, clock, begun: clock.now() }
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.records_written = get(&self.records);
        stats.record_bytes_written = get(&self.record_bytes);
        stats.flushes = get(&self.flushes);
        stats.flush_bytes_written = get(&self.flush_bytes);
        stats.compactions = get(&self.compactions);
        stats.compaction_bytes_read = get(&self.compaction_read_bytes);
        stats.compaction_bytes_written = get(&self.compaction_bytes);
        stats.covered_bytes_dropped = get(&self.covered_bytes);
        stats.stalls = StallReason::ALL.map(|reason| StallStats {
            reason,
            count: get(&self.stalls[reason as usize]),
            time: Duration::from_nanos(get(&self.stall_nanos[reason as usize])),
        });
    }
}

#[inline]
fn add_alone(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

struct Stall<'a> {
    nanos: &'a AtomicU64,
    clock: &'a dyn Clock,
    begun: Duration,
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        let nanos = self.clock.now().saturating_sub(self.begun).as_nanos();
        self.nanos.fetch_add(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// One level of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelStats {
    /// The level; 0 takes flushes.
    pub level: u8,
    /// Sorted runs in it.
    pub runs: usize,
    /// Tables in it.
    pub tables: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Records in it, tombstones and old versions included.
    pub records: u64,
}

/// How often and how long writes were held up for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallStats {
    /// The reason.
    pub reason: StallReason,
    /// Times that a write waited or was slowed.
    pub count: u64,
    /// How long these took together.
    pub time: Duration,
}

/// Figures of an open database, since it was opened unless they say otherwise.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Records committed.
    pub records_written: u64,
    /// Their bytes, headers and padding included.
    pub record_bytes_written: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of tables that flushes wrote.
    pub flush_bytes_written: u64,
    /// Merges done.
    pub compactions: u64,
    /// Bytes of tables that merges read.
    pub compaction_bytes_read: u64,
    /// Bytes of tables that merges wrote.
    pub compaction_bytes_written: u64,
    /// Device syncs of the log.
    pub log_syncs: u64,
    /// Bytes of tables that left the tree unread, because range deletes covered them whole.
    pub covered_bytes_dropped: u64,
    /// How often and how long writes were held up, for each reason.
    pub stalls: [StallStats; StallReason::COUNT],
    /// Bytes that merges have yet to deal with until the tree has its shape, now.
    pub debt_bytes: u64,
    /// Merges that run now.
    pub merges_running: usize,
    /// Range deletes in memtables and tables, now.
    pub range_deletes: usize,
    /// Records in the active and the sealed memtables now.
    pub memtable_records: usize,
    /// Anonymous memory of the memtables' indexes now.
    pub memtable_index_bytes: usize,
    /// Memtables that wait for their flush now.
    pub sealed_memtables: usize,
    /// Anonymous memory of tables opened without a map, now.
    pub table_memory_bytes: usize,
    /// Blocks in the cache now.
    pub cache_bytes: u64,
    /// Log segments in heap memory now; zero where the log is mapped.
    pub log_heap_bytes: u64,
    /// All anonymous memory that the budget covers, now.
    pub memory_bytes: u64,
    /// The budget.
    pub memory_budget: u64,
    /// Log segments in mapped pages now: the kernel's memory, outside the budget.
    pub log_mapped_bytes: u64,
    /// Tables in mapped pages now: the kernel's memory, outside the budget.
    pub table_mapped_bytes: u64,
    /// Bytes of log segments on disk now, recycled ones included.
    pub log_disk_bytes: u64,
    /// The levels that hold a run now.
    pub levels: Vec<LevelStats>,
    /// Tables that hold long values now. They lie in no level.
    pub value_tables: usize,
    /// Bytes of their files.
    pub value_table_bytes: u64,
    /// Bytes of the values in them, uncompressed.
    pub value_bytes: u64,
    /// Of these, bytes that no record of a table refers to any more.
    pub value_dead_bytes: u64,
    /// Snapshots alive now.
    pub snapshots: usize,
    /// The last sequence number that readers see.
    pub visible_seqno: u64,
}
