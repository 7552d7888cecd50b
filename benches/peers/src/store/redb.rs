//! redb: one table, each commit synced.
//!
//! A commit of redb is either synced or, until the next one that is, lost with the process. So where other engines
//! hand a write to the kernel, redb syncs: nothing less survives a kill.

use std::path::Path;

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Config, FileKind, Reader, Store, Visit, Window};
use crate::Result;

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("default");

/// A redb database with one table.
pub struct Redb(Database);

impl Redb {
    /// Opens the database in `dir`; the whole budget is its cache.
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut builder = Database::builder();
        let database =
            builder.set_cache_size(usize::try_from(config.budget)?).create(dir.join("data.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Self(database))
    }

    fn write(
        &self,
        durability: Durability,
        entries: &mut dyn Iterator<Item = (&[u8], Option<&[u8]>)>,
    ) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in entries {
                match value {
                    Some(value) => drop(table.insert(key, value)?),
                    None => drop(table.remove(key)?),
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Store for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(Durability::Immediate, &mut [(key, Some(value))].into_iter())
    }

    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut entries = entries.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice())));
        self.write(Durability::Immediate, &mut entries)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(Durability::Immediate, &mut [(key, None)].into_iter())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(View { database: &self.0, table: None }))
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
        if path.ends_with("data.redb") { FileKind::Table } else { FileKind::Other }
    }

    fn settings(&self) -> String {
        "cache of the whole budget, every commit synced: what is not synced is lost with the process"
            .to_owned()
    }
}

/// A read transaction's table that is kept until [`Reader::refresh`].
struct View<'a> {
    database: &'a Database,
    table: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl View<'_> {
    fn table(&mut self) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>> {
        match &mut self.table {
            Some(table) => Ok(table),
            none => Ok(none.insert(self.database.begin_read()?.open_table(TABLE)?)),
        }
    }
}

impl Reader for View<'_> {
    fn refresh(&mut self) {
        self.table = None;
    }

    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.table()?.get(key)?;
        if let Some(value) = &value {
            visit(value.value());
        }
        Ok(value.is_some())
    }

    fn scan(&mut self, window: Window<'_>, visit: Visit<'_>) -> Result<()> {
        let mut range = match window.from {
            Some(from) => self.table()?.range(from..)?,
            None => self.table()?.iter()?,
        };
        for _ in 0..window.limit {
            let entry = if window.reverse { range.next_back() } else { range.next() };
            let Some(entry) = entry else { break };
            let (key, value) = entry?;
            visit(key.value(), value.value());
        }
        Ok(())
    }
}
