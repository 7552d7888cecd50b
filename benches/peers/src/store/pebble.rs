//! PebbleTree, through its public API.

use std::path::Path;

use pebble_db::{CompactionPolicy, Db, WriteBatch};

use super::{Compression, Config, FileKind, Store};
use crate::Result;

/// A PebbleTree database; the default keyspace is used.
pub struct Pebble(Db);

impl Pebble {
    /// Opens a new database in `dir`. Nothing is synced in the background: the peers do not do that either.
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        let compression = match config.compression {
            Compression::None => pebble_db::Compression::None,
            Compression::Lz4 => pebble_db::Compression::Lz4,
        };
        let mut builder = Db::builder(dir);
        builder = builder.memory_budget(config.budget).compression(compression).sync_interval(None);
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
        Ok(Self(builder.open()?))
    }
}

impl Store for Pebble {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.put(key, value)?)
    }

    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let keyspace = self.0.default_keyspace();
        let mut batch = WriteBatch::new();
        for (key, value) in entries {
            batch.put(&keyspace, key, value);
        }
        Ok(self.0.write(batch)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.0.delete(key)?)
    }

    fn get(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.0.get(key)?;
        value.as_deref().map(visit);
        Ok(value.is_some())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for entry in self.0.iter()? {
            let (key, value) = entry?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(self.0.flush()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(self.0.compact_range(..)?)
    }

    /// A merge has removed its inputs when it returns.
    fn collect_garbage(&self) -> Result<()> {
        Ok(())
    }

    fn is_busy(&self) -> bool {
        let stats = self.0.stats();
        stats.sealed_memtables > 0 || stats.merges_running > 0 || stats.debt_bytes > 0
    }

    fn runs(&self) -> u64 {
        self.0.stats().levels.iter().map(|level| level.runs as u64).sum()
    }

    fn table_bytes_written(&self) -> Option<u64> {
        let stats = self.0.stats();
        Some(stats.flush_bytes_written + stats.compaction_bytes_written)
    }

    fn file_kind(&self, path: &Path) -> FileKind {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => FileKind::Log,
            Some("sst") => FileKind::Table,
            _ => FileKind::Other,
        }
    }
}
