//! sled 0.34: one tree, each write flushed.
//!
//! A write of sled stays in a buffer of the process until it is flushed, which syncs. So where other engines hand a
//! write to the kernel, sled flushes: nothing less survives a kill.

use std::path::Path;

use sled::{Batch, Db, Mode};

use super::{Compression, Config, FileKind, Reader, Store, Visit, Window};
use crate::Result;

/// A sled database; its default tree is used.
pub struct Sled(Db);

impl Sled {
    /// Opens the database in `dir`; the whole budget is its cache.
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        if config.compression != Compression::None {
            return Err("sled has no LZ4".into());
        }
        let options = sled::Config::new().path(dir).cache_capacity(config.budget);
        Ok(Self(options.mode(Mode::HighThroughput).flush_every_ms(None).open()?))
    }

    fn flushed(&self) -> Result<()> {
        self.0.flush()?;
        Ok(())
    }
}

impl Store for Sled {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.insert(key, value)?;
        self.flushed()
    }

    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = Batch::default();
        for (key, value) in entries {
            batch.insert(key.as_slice(), value.as_slice());
        }
        self.0.apply_batch(batch)?;
        self.flushed()
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.0.remove(key)?;
        self.flushed()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(View(&self.0)))
    }

    fn flush(&self) -> Result<()> {
        self.flushed()
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
        if path.ends_with("db") { FileKind::Table } else { FileKind::Other }
    }

    fn settings(&self) -> String {
        "cache of the whole budget, HighThroughput, every write flushed: what is not is lost with the process"
            .to_owned()
    }
}

struct View<'a>(&'a Db);

impl Reader for View<'_> {
    /// It keeps nothing.
    fn refresh(&mut self) {}

    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.0.get(key)?;
        value.as_deref().map(visit);
        Ok(value.is_some())
    }

    fn scan(&mut self, window: Window<'_>, visit: Visit<'_>) -> Result<()> {
        let mut range = match window.from {
            Some(from) => self.0.range(from..),
            None => self.0.iter(),
        };
        for _ in 0..window.limit {
            let entry = if window.reverse { range.next_back() } else { range.next() };
            let Some(entry) = entry else { break };
            let (key, value) = entry?;
            visit(&key, &value);
        }
        Ok(())
    }
}
