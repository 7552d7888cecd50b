//! The knobs, each with a default that needs no thought.

use std::path::PathBuf;
use std::time::Duration;

use pebble_engine::{
    Components, Compression, Engine, LogIo, Options, PointIndex, Policy as CompactionPolicy, ReadMode,
    Recovery, Result,
};

use crate::db::Db;

/// Options of a database, then [`Builder::open`].
///
/// ```
/// # fn main() -> pebble_db::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// use pebble_db::{Db, ReadMode};
///
/// let db = Db::builder(path).memory_budget(64 << 20).read_mode(ReadMode::Pread).open()?;
/// assert_eq!(db.stats().memory_budget, 64 << 20);
/// # db.close()
/// # }
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until `open`"]
pub struct Builder {
    path: PathBuf,
    options: Options,
    components: Components,
}

impl Builder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, options: Options::default(), components: Components::default() }
    }

    /// Bytes of memory for memtables, indexes, filters and caches together: 256 MiB. Mapped files are the kernel's
    /// memory and not counted; [`Stats`](crate::Stats) reports them apart.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.options.memory_budget = bytes;
        self
    }

    /// Whether to make a database where there is none: yes.
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.options.create_if_missing = create;
        self
    }

    /// How the log is written: through mapped segments, or (also where a file system cannot map) with one `write` a
    /// commit.
    pub fn log_io(mut self, io: LogIo) -> Self {
        self.options.log_io = io;
        self
    }

    /// What to do about damage that an open meets: refuse it.
    ///
    /// - [`Recovery::PointInTime`] takes, of a log that is damaged where it was known durable, all before the damage.
    /// - [`Recovery::SalvageReadOnly`] opens any damaged database as [`Builder::read_only`] does, changes nothing, and
    ///   serves every key that the damage does not touch. It reads everything first, and
    ///   [`RecoveryReport::skipped`](crate::RecoveryReport::skipped) tells what it had to pass over. Of a key whose
    ///   newest version may have been in that, no older one is shown: a read of it gives
    ///   [`Error::Corruption`](crate::Error::Corruption) or [`Error::MissingFile`](crate::Error::MissingFile), and a
    ///   scan leaves it out. What is left is no prefix of the commits.
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.options.recovery = recovery;
        self
    }

    /// Whether to open for reading: see [`Db::open_read_only`]. No.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.options.read_only = read_only;
        self
    }

    /// How often buffered commits are synced in the background: every second, at least a millisecond apart; `None`
    /// for never.
    pub fn sync_interval(mut self, interval: Option<Duration>) -> Self {
        self.options.sync_interval = interval;
        self
    }

    /// How tables are read: mapped.
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.options.read_mode = mode;
        self
    }

    /// The point index of new tables: locations, about five bytes a key.
    pub fn point_index(mut self, index: PointIndex) -> Self {
        self.options.point_index = index;
        self
    }

    /// Compression of the oldest run: LZ4 where it pays. [`Compression::Zstd`] needs the feature `zstd`: without it,
    /// opening a database answers `InvalidArgument` to it, and `UnsupportedCodec` to tables that were made with it.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.options.compression = compression;
        self
    }

    /// Bytes from which on a value lies in a table of values: 4 KiB, at least 64; `None` leaves every value in its
    /// record.
    ///
    /// What lies apart is written once, by the flush, and not by the merges that follow; a read of it costs one miss
    /// more, a scan one for each value. Its space comes back by merges once half of such a table is dead. It may be
    /// changed from open to open, and then holds for what is written and moved: what lies where it lies stays there
    /// until then.
    pub fn values_apart(mut self, from_len: Option<usize>) -> Self {
        self.options.values_apart = from_len;
        self
    }

    /// Target bytes of a data block: 16 KiB.
    pub fn block_len(mut self, bytes: usize) -> Self {
        self.options.block_len = bytes;
        self
    }

    /// Target bytes of a table: 32 MiB.
    pub fn table_len(mut self, bytes: u64) -> Self {
        self.options.table_len = bytes;
        self
    }

    /// The shape of the tree, between cheap writes and cheap reads: lazy leveling.
    pub fn compaction(mut self, policy: CompactionPolicy) -> Self {
        self.options.shape = policy;
        self
    }

    /// Threads that merge: one less than the machine has cores, and at least one.
    pub fn merge_threads(mut self, threads: usize) -> Self {
        self.options.merge_threads = threads;
        self
    }

    /// Bytes of the first log segment and of a full-grown one: 256 KiB and 64 MiB. Each segment is twice as long as
    /// the one before it, so that a small database stays small.
    pub fn segment_len(mut self, first: u32, full: u32) -> Self {
        self.options.segment_len_min = first;
        self.options.segment_len_max = full;
        self
    }

    /// The file system, clock and executor that the engine stands on; for tests and simulations.
    pub fn components(mut self, components: Components) -> Self {
        self.components = components;
        self
    }

    /// Opens the database. See [`Db::open`].
    pub fn open(self) -> Result<Db> {
        Ok(Db::new(Engine::open(&self.path, self.options, self.components)?))
    }
}
