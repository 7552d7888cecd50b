//! PebbleTree, through its public API.

use std::path::Path;

use pebble_db::{CompactionPolicy, Db, Iter, ReadMode, WriteBatch, WriteOptions};

use super::{Compression, Config, FileKind, Reader, Store, Visit, Window};
use crate::Result;

/// A PebbleTree database; the default keyspace is used.
pub struct Pebble {
    database: Db,
    sync: bool,
}

impl Pebble {
    /// Opens the database in `dir`. Nothing is synced in the background: the peers do not do that either.
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        let compression = match config.compression {
            Compression::None => pebble_db::Compression::None,
            Compression::Lz4 => pebble_db::Compression::Lz4,
        };
        let mut builder = Db::builder(dir);
        builder = builder.memory_budget(config.budget).compression(compression).sync_interval(None);
        if config.cold {
            builder = builder.read_mode(ReadMode::Pread);
        }
        if config.hold_merges {
            // Runs that overlap stay where they are until they are asked to merge, and so they do while nothing is
            // written.
            builder = builder.compaction(CompactionPolicy {
                fan_out: [1000; 6],
                last_percent: CompactionPolicy::NEVER,
                idle_factor: 0,
                ..CompactionPolicy::default()
            });
        }
        Ok(Self { database: builder.open()?, sync: config.sync })
    }

    fn options(&self) -> WriteOptions {
        if self.sync { WriteOptions::sync() } else { WriteOptions::buffered() }
    }
}

impl Store for Pebble {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.sync {
            return Ok(self.database.put_with(key, value, &WriteOptions::sync())?);
        }
        Ok(self.database.put(key, value)?)
    }

    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let keyspace = self.database.default_keyspace();
        let mut batch = WriteBatch::new();
        for (key, value) in entries {
            batch.put(&keyspace, key, value);
        }
        Ok(self.database.write_with(batch, &self.options())?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.database.delete_with(key, &self.options())?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(View { database: &self.database, iterator: None }))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.database.flush()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(self.database.compact_range(..)?)
    }

    fn is_busy(&self) -> bool {
        let stats = self.database.stats();
        stats.sealed_memtables > 0 || stats.merges_running > 0 || stats.debt_bytes > 0
    }

    fn runs(&self) -> u64 {
        self.database.stats().levels.iter().map(|level| level.runs as u64).sum()
    }

    fn table_bytes_written(&self) -> Option<u64> {
        let stats = self.database.stats();
        Some(stats.flush_bytes_written + stats.compaction_bytes_written)
    }

    fn file_kind(&self, path: &Path) -> FileKind {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => FileKind::Log,
            Some("sst") => FileKind::Table,
            _ => FileKind::Other,
        }
    }

    fn settings(&self) -> String {
        "defaults; sync_interval off; mapped, but pread where the data is larger than the memory".to_owned()
    }
}

/// A reader that keeps its iterator from seek to seek.
struct View<'a> {
    database: &'a Db,
    iterator: Option<Iter>,
}

impl Reader for View<'_> {
    fn refresh(&mut self) {
        self.iterator = None;
    }

    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.database.get(key)?;
        value.as_deref().map(visit);
        Ok(value.is_some())
    }

    fn scan(&mut self, window: Window<'_>, visit: Visit<'_>) -> Result<()> {
        let Some(from) = window.from else {
            let mut iterator = self.database.iter()?;
            return show(&mut iterator, window.limit, window.reverse, visit);
        };
        let iterator = match &mut self.iterator {
            Some(iterator) => iterator,
            none => none.insert(self.database.iter()?),
        };
        iterator.seek(from);
        show(iterator, window.limit, false, visit)
    }
}

/// Lends the next entries, as the other engines' iterators do.
fn show(iterator: &mut Iter, limit: usize, reverse: bool, visit: Visit<'_>) -> Result<()> {
    for _ in 0..limit {
        let entry = if reverse { iterator.next_back_lent() } else { iterator.next_lent() };
        let Some(entry) = entry else { break };
        let (key, value) = entry?;
        visit(key, value);
    }
    Ok(())
}
