//! What all parts of an open database share.
//!
//! ```text
//!   commit (lock)   log's end, memtable's writer, next seqno        commit.rs
//!   state           the picture that readers load                   state.rs
//!   manifest (lock) the log of edits                                install.rs
//!   flushing (lock) one flush at a time             flush.rs
//!   merges (lock)   which tables are being merged   merges.rs
//! ```
//!
//! Threading, the order of locks: `flushing`, then `merges`, then `manifest`, then `commit`, then the change lock
//! inside `state`. Nobody takes an earlier one while he holds a later one.

use std::path::PathBuf;
use std::sync::Arc;

use pebble_vfs::{Clock, Fs, Lock};
use pebble_wal::{LogIo, LogSync};

use crate::commit::Committer;
use crate::doubt::Doubts;
use crate::error::Result;
use crate::health::Met;
use crate::install::Manifest;
use crate::keyspaces::Keyspaces;
use crate::merges::Merges;
use crate::options::{Executor, MemtableLen, Options, ReadMode};
use crate::pace::Pace;
use crate::recover::{RecoveryReport, SPARES_OF_HEAP};
use crate::snapshots::Snapshots;
use crate::state::{State, Visible};
use crate::stats::{Counters, LevelStats, Stats};
use crate::status::Status;
use crate::sync::{Condvar, Mutex, lock};
use crate::tables::Tables;
use crate::wanted::WantedRanges;
use crate::work::Work;

/// An open database without its threads and its last will.
pub(crate) struct Core {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) executor: Executor,
    /// When a memtable is sealed.
    pub(crate) memtable_len: MemtableLen,

    pub(crate) commit: Mutex<Committer>,
    /// Rung, with the commit lock, when a flush ended.
    pub(crate) room: Condvar,
    pub(crate) log_sync: Arc<LogSync>,
    pub(crate) state: State,
    pub(crate) visible: Visible,
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) flushing: Mutex<()>,
    pub(crate) merges: Merges,
    /// Key ranges that readers found full of what they could not be shown.
    pub(crate) wanted: WantedRanges,
    pub(crate) pace: Pace,

    pub(crate) tables: Tables,
    /// See [`Core::share_memory`].
    pub(crate) sharing: Mutex<()>,
    pub(crate) keyspaces: Keyspaces,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) status: Status,
    pub(crate) met: Met,
    pub(crate) counters: Counters,
    pub(crate) work: Work,
    pub(crate) recovery: RecoveryReport,
    /// What a salvaged database cannot vouch for.
    pub(crate) doubts: Option<Doubts>,
    /// The directory's lock, until the database is closed.
    pub(crate) lock: Mutex<Option<Box<dyn Lock>>>,
}

impl Core {
    /// Makes every commit so far durable.
    pub(crate) fn persist(&self) -> Result<()> {
        let end = {
            let committer = self.lock_commit()?;
            committer.log.end()
        };
        self.wait_durable(end)
    }

    /// Gives the block cache what is left of the memory budget: by sealed memtables as large as they are, by the active
    /// one as large as it may become, and by tables. To be called when any of them came or went.
    pub(crate) fn share_memory(&self) {
        // What one sees last must be what the cache is left with.
        let _one_at_a_time = lock(&self.sharing);
        let state = self.state.load();
        let heap_log = if self.options.log_io == LogIo::Write { self.memtable_len.log } else { 0 };
        let sealed = state.sealed.iter().map(|sealed| sealed.memtable.memory());
        let segments = 1 + state.sealed.len() + SPARES_OF_HEAP;
        let memtables = self.memtable_len.index + sealed.sum::<usize>() + heap_log * segments;
        let tables: usize = state.tree.tables().map(|table| table.memory()).sum();
        let left = self.options.memory_budget.saturating_sub((memtables + tables) as u64);
        let (min, max) = self.options.cache_len();
        self.tables.cache_up_to(left.clamp(min, max));
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.counters.fill(&mut stats);
        let state = self.state.load_full();
        stats.memtable_records = state.memtables().map(|memtable| memtable.len()).sum();
        stats.memtable_index_bytes = state.memtables().map(|memtable| memtable.memory()).sum();
        stats.sealed_memtables = state.sealed.len();
        let in_memtables = state.memtables().map(|memtable| memtable.range_delete_count());
        let in_tables = state.tree.range_deletes.iter().map(|(_, deletes)| deletes.len());
        stats.range_deletes = in_memtables.chain(in_tables).sum();
        stats.debt_bytes = self.pace.debt();
        stats.merges_running = self.merges.running();
        for run in state.tree.version.runs() {
            if stats.levels.last().is_none_or(|level| level.level != run.level()) {
                stats.levels.push(LevelStats { level: run.level(), ..LevelStats::default() });
            }
            if let Some(level) = stats.levels.last_mut() {
                level.runs += 1;
                level.tables += run.tables().len();
                level.bytes += run.tables().iter().map(|meta| meta.len).sum::<u64>();
                level.records += run.tables().iter().map(|meta| meta.count).sum::<u64>();
            }
        }
        let values = &state.tree.values;
        stats.value_tables = values.tables().len();
        stats.value_table_bytes = values.tables().iter().map(|table| table.len()).sum();
        (stats.value_bytes, stats.value_dead_bytes) = values.bytes();
        let tables = || state.tree.tables();
        stats.table_memory_bytes = tables().map(|table| table.memory()).sum();
        if self.options.read_mode == ReadMode::Map {
            stats.table_mapped_bytes = tables().map(|table| table.len()).sum();
        }
        stats.cache_bytes = self.tables.cached();
        stats.log_syncs = self.log_sync.syncs();
        {
            let log = &lock(&self.commit).log;
            stats.log_heap_bytes = log.heap_bytes() as u64;
            stats.log_mapped_bytes = log.mapped_bytes();
            stats.log_disk_bytes = log.disk_bytes();
        }
        stats.memory_bytes = stats.memtable_index_bytes as u64
            + stats.table_memory_bytes as u64
            + stats.cache_bytes
            + stats.log_heap_bytes;
        stats.memory_budget = self.options.memory_budget;
        stats.snapshots = self.snapshots.count();
        stats.visible_seqno = self.visible.get().0;
        stats
    }
}
