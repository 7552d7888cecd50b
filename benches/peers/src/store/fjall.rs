//! Fjall 3: leveled compaction and its other defaults, but for what must be equal.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::CompressionPolicy;
use fjall::{
    AbstractTree, CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, KvSeparationOptions,
    PersistMode,
};

use super::{Compression, Config, FileKind, Reader, Store, Visit, Window};
use crate::Result;

/// A Fjall database with one keyspace.
pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
    sync: bool,
}

impl Fjall {
    /// Opens the database in `dir`. Each write is handed to the kernel before it returns
    /// (`PersistMode::Buffer`), which is Fjall's default and what `manual_journal_persist(false)` says.
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        let memtable_len = config.memtable_len();
        // Two memtables, one being written and one being flushed, and the cache make up the budget.
        let database = Database::builder(dir)
            .cache_size(config.budget - 2 * memtable_len)
            .journal_compression(CompressionType::None)
            .manual_journal_persist(false)
            .open()?;
        let mut options =
            KeyspaceCreateOptions::default().max_memtable_size(memtable_len).manual_journal_persist(false);
        if config.compression == Compression::None {
            options = options.data_block_compression_policy(CompressionPolicy::all(CompressionType::None));
        }
        if config.large_values {
            options = options.with_kv_separation(Some(KvSeparationOptions::default()));
        }
        if config.hold_merges {
            // Runs are what the caller flushes. Fjall counts an entry's overhead in a memtable's size, so it would
            // flush small records sooner than PebbleTree does.
            options = options
                .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(u8::MAX)))
                .max_memtable_size(u64::MAX);
        }
        let keyspace = database.keyspace("default", || options)?;
        Ok(Self { database, keyspace, sync: config.sync })
    }

    fn synced(&self) -> Result<()> {
        if self.sync {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Store for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        self.synced()
    }

    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.database.batch();
        for (key, value) in entries {
            batch.insert(&self.keyspace, key.as_slice(), value.as_slice());
        }
        batch.commit()?;
        self.synced()
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.keyspace.remove(key)?;
        self.synced()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(View(&self.keyspace)))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.keyspace.rotate_memtable_and_wait()?)
    }

    fn compact(&self) -> Result<()> {
        self.flush()?;
        Ok(self.keyspace.major_compact()?)
    }

    /// Only the rotation of a memtable that is not empty, of any keyspace, lets old versions of all of them go.
    fn collect_garbage(&self) -> Result<()> {
        let other = self.database.keyspace("other", KeyspaceCreateOptions::default)?;
        other.insert("key", "value")?;
        Ok(other.rotate_memtable_and_wait()?)
    }

    fn is_busy(&self) -> bool {
        self.database.outstanding_flushes() > 0
            || self.database.active_compactions() > 0
            || self.keyspace.sealed_memtable_count() > 0
    }

    fn runs(&self) -> u64 {
        let version = self.keyspace.tree.current_version();
        version.iter_levels().map(|level| level.run_count() as u64).sum()
    }

    /// Fjall keeps no such account.
    fn table_bytes_written(&self) -> Option<u64> {
        None
    }

    fn file_kind(&self, path: &Path) -> FileKind {
        let in_tables =
            path.parent().is_some_and(|parent| parent.ends_with("tables") || parent.ends_with("blobs"));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jnl") => FileKind::Log,
            _ if in_tables => FileKind::Table,
            _ => FileKind::Other,
        }
    }

    fn settings(&self) -> String {
        "leveled compaction and its other defaults (bloom filters, 4 KiB blocks), the budget beside two memtables is \
         cache; large values apart from keys"
            .to_owned()
    }
}

struct View<'a>(&'a Keyspace);

impl Reader for View<'_> {
    /// It keeps nothing.
    fn refresh(&mut self) {}

    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.0.get(key)?;
        value.as_deref().map(visit);
        Ok(value.is_some())
    }

    fn scan(&mut self, window: Window<'_>, visit: Visit<'_>) -> Result<()> {
        match (window.from, window.reverse) {
            (Some(from), _) => show(self.0.range(from..).take(window.limit), visit),
            (None, false) => show(self.0.iter().take(window.limit), visit),
            (None, true) => show(self.0.iter().rev().take(window.limit), visit),
        }
    }
}

fn show(entries: impl Iterator<Item = Guard>, visit: Visit<'_>) -> Result<()> {
    for entry in entries {
        let (key, value) = entry.into_inner()?;
        visit(&key, &value);
    }
    Ok(())
}
