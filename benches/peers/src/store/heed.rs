//! LMDB through heed, with and without its writable map.

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use super::{Config, FileKind, Reader, Store, Visit, Window};
use crate::Result;

/// Address space for the map; the file takes only what it holds.
const MAP_LEN: usize = 64 << 30;

/// An LMDB environment with its unnamed database.
pub struct Lmdb {
    env: Env,
    database: Database<Bytes, Bytes>,
    settings: &'static str,
}

impl Lmdb {
    /// Opens the environment in `dir`. A commit that is not synced lies in pages that the kernel owns, be they
    /// written or mapped, the page that makes it valid last: a kill loses nothing. LMDB has no cache of its own.
    #[expect(unsafe_code, reason = "heed's own way to say that nobody else may change the file")]
    pub fn open(dir: &Path, config: &Config, writemap: bool) -> Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_LEN).max_readers(64);
        let mut flags = EnvFlags::empty();
        if writemap {
            flags |= EnvFlags::WRITE_MAP;
        }
        if !config.sync {
            flags |= if writemap { EnvFlags::NO_SYNC | EnvFlags::MAP_ASYNC } else { EnvFlags::NO_SYNC };
        }
        if config.cold {
            flags |= EnvFlags::NO_READ_AHEAD;
        }
        // SAFETY: the directory is this process's own, and it opens the environment once. The flags leave the lock
        // file in use, and no power fails while it runs.
        let env = unsafe { options.flags(flags).open(dir)? };
        let mut transaction = env.write_txn()?;
        let database = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        let settings = if writemap { "NOSYNC, WRITEMAP, MAPASYNC" } else { "NOSYNC" };
        Ok(Self { env, database, settings })
    }
}

impl Store for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.database.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in entries {
            self.database.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.database.delete(&mut transaction, key)?;
        Ok(transaction.commit()?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(View { store: self, transaction: None }))
    }

    /// A commit is in the tree already.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// There is nothing to merge.
    fn compact(&self) -> Result<()> {
        Ok(())
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn runs(&self) -> u64 {
        1
    }

    fn table_bytes_written(&self) -> Option<u64> {
        None
    }

    fn file_kind(&self, path: &Path) -> FileKind {
        if path.ends_with("data.mdb") { FileKind::Table } else { FileKind::Other }
    }

    fn settings(&self) -> String {
        format!(
            "{} (synced rows: without NOSYNC), a read transaction kept while nothing writes",
            self.settings
        )
    }
}

/// A read transaction that is kept until [`Reader::refresh`].
struct View<'a> {
    store: &'a Lmdb,
    transaction: Option<RoTxn<'a, WithTls>>,
}

impl<'a> View<'a> {
    fn transaction(&mut self) -> Result<&RoTxn<'a, WithTls>> {
        match &mut self.transaction {
            Some(transaction) => Ok(transaction),
            none => Ok(none.insert(self.store.env.read_txn()?)),
        }
    }
}

impl Reader for View<'_> {
    fn refresh(&mut self) {
        self.transaction = None;
    }

    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let database = self.store.database;
        let value = database.get(self.transaction()?, key)?;
        value.map(visit);
        Ok(value.is_some())
    }

    fn scan(&mut self, window: Window<'_>, visit: Visit<'_>) -> Result<()> {
        let database = self.store.database;
        let transaction = self.transaction()?;
        match (window.from, window.reverse) {
            (Some(from), _) => {
                for entry in database
                    .range(transaction, &(Bound::Included(from), Bound::Unbounded))?
                    .take(window.limit)
                {
                    let (key, value) = entry?;
                    visit(key, value);
                }
            }
            (None, false) => {
                for entry in database.iter(transaction)?.take(window.limit) {
                    let (key, value) = entry?;
                    visit(key, value);
                }
            }
            (None, true) => {
                for entry in database.rev_iter(transaction)?.take(window.limit) {
                    let (key, value) = entry?;
                    visit(key, value);
                }
            }
        }
        Ok(())
    }
}
