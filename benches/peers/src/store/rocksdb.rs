//! RocksDB: leveled compaction, tuned by its own guide for two cores and a budget of memory.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, CompactOptions, DB, DBCompressionType, DBRawIterator, DataBlockIndexType,
    Options, WaitForCompactOptions, WriteBatch, WriteOptions, properties,
};

use super::{Compression, Config, FileKind, Reader, Store, Visit, Window};
use crate::Result;

/// Bits of the Bloom filters for each key: one false answer in a hundred.
const BLOOM_BITS: f64 = 10.0;
/// The newest format of tables that this version writes by itself.
const FORMAT_VERSION: i32 = 7;
/// Bytes of a value from which it goes to a blob file, in rows with large values.
const BLOB_LEN: u64 = 4 << 10;
/// A flush and a merge at once: one for each core.
const BACKGROUND_JOBS: i32 = 2;

/// A RocksDB database with its default column family.
pub struct RocksDb {
    database: DB,
    writes: WriteOptions,
    /// Merges that are due and held back are no work.
    holds_merges: bool,
}

impl RocksDb {
    /// Opens the database in `dir`. Each write is handed to the kernel in the log before it returns, which is
    /// RocksDB's default (`manual_wal_flush` and `disable_wal` are off).
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        let memtable_len = config.memtable_len();
        let mut blocks = BlockBasedOptions::default();
        let cache = config.budget.saturating_sub(2 * memtable_len).max(8 << 20);
        let cache = Cache::new_hyper_clock_cache(usize::try_from(cache)?, 0);
        blocks.set_block_cache(&cache);
        blocks.set_bloom_filter(BLOOM_BITS, false);
        blocks.set_format_version(FORMAT_VERSION);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        blocks.set_optimize_filters_for_memory(true);

        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_size(usize::try_from(memtable_len)?);
        options.set_max_write_buffer_number(3);
        options.increase_parallelism(BACKGROUND_JOBS);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        options.set_max_open_files(-1);
        options.set_stats_dump_period_sec(0);
        match config.compression {
            Compression::None => options.set_compression_type(DBCompressionType::None),
            // Of the upper levels little is read and all is rewritten soon: the guide leaves them as they are.
            Compression::Lz4 => {
                let (none, lz4) = (DBCompressionType::None, DBCompressionType::Lz4);
                options.set_compression_per_level(&[none, none, lz4, lz4, lz4, lz4, lz4]);
            }
        }
        if config.large_values {
            options.set_enable_blob_files(true);
            options.set_enable_blob_gc(true);
            options.set_min_blob_size(BLOB_LEN);
            options.set_blob_cache(&cache);
        }
        if config.hold_merges {
            // Runs are what the caller flushes.
            options.set_disable_auto_compactions(true);
            options.set_write_buffer_size(1 << 30);
        }
        let mut writes = WriteOptions::default();
        writes.set_sync(config.sync);
        Ok(Self { database: DB::open(&options, dir)?, writes, holds_merges: config.hold_merges })
    }

    fn number(&self, property: &properties::PropName) -> u64 {
        self.database.property_int_value(property).ok().flatten().unwrap_or_default()
    }
}

impl Store for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.database.put_opt(key, value, &self.writes)?)
    }

    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        Ok(self.database.write_opt(batch, &self.writes)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.database.delete_opt(key, &self.writes)?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(View { database: &self.database, iterator: None }))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.database.flush()?)
    }

    fn compact(&self) -> Result<()> {
        self.flush()?;
        let options = CompactOptions::default();
        self.database.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }

    /// Its worker removes the inputs of a merge a moment after the merge counts as done.
    fn collect_garbage(&self) -> Result<()> {
        Ok(self.database.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn is_busy(&self) -> bool {
        let due = [
            properties::NUM_IMMUTABLE_MEM_TABLE,
            properties::MEM_TABLE_FLUSH_PENDING,
            properties::NUM_RUNNING_FLUSHES,
            properties::NUM_RUNNING_COMPACTIONS,
        ];
        due.iter().any(|property| self.number(property) > 0)
            || !self.holds_merges && self.number(properties::COMPACTION_PENDING) > 0
    }

    fn runs(&self) -> u64 {
        let mut levels: Vec<i32> =
            self.database.live_files().unwrap_or_default().iter().map(|file| file.level).collect();
        levels.sort_unstable();
        // A file of level 0 is a run; every other level is one.
        let first = levels.partition_point(|level| *level == 0);
        levels[first..].chunk_by(|a, b| a == b).count() as u64 + first as u64
    }

    /// Its counters are off: they would cost it speed.
    fn table_bytes_written(&self) -> Option<u64> {
        None
    }

    fn file_kind(&self, path: &Path) -> FileKind {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => FileKind::Log,
            Some("sst" | "blob") => FileKind::Table,
            _ => FileKind::Other,
        }
    }

    fn settings(&self) -> String {
        format!(
            "bloom {BLOOM_BITS} bits, index and filters in the cache (level 0 pinned), hash index in data blocks, \
             format {FORMAT_VERSION}, {BACKGROUND_JOBS} background jobs, up to 3 memtables, hyper clock \
             cache; blob files for large values"
        )
    }
}

/// A reader that keeps its iterator from seek to seek.
struct View<'a> {
    database: &'a DB,
    iterator: Option<DBRawIterator<'a>>,
}

impl Reader for View<'_> {
    fn refresh(&mut self) {
        self.iterator = None;
    }

    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.database.get_pinned(key)?;
        value.as_deref().map(visit);
        Ok(value.is_some())
    }

    fn scan(&mut self, window: Window<'_>, visit: Visit<'_>) -> Result<()> {
        let iterator = self.iterator.get_or_insert_with(|| self.database.raw_iterator());
        match (window.from, window.reverse) {
            (Some(from), _) => iterator.seek(from),
            (None, false) => iterator.seek_to_first(),
            (None, true) => iterator.seek_to_last(),
        }
        for _ in 0..window.limit {
            let Some((key, value)) = iterator.item() else { break };
            visit(key, value);
            if window.reverse { iterator.prev() } else { iterator.next() }
        }
        Ok(iterator.status()?)
    }
}
