//! Which tables belong in memory: those that somebody reads.
//!
//! ```text
//!   nobody reads:   flush ──► device ──► merge ──► device            no page of the cache is filled
//!   somebody does:  flush ──► page cache ──► merge ──► page cache    and the device, later
//!   somebody begins to: a table that is touched here and there is read in whole, one after the other
//!   at rest:        so is all that is on the device only, as far as there is memory to spare
//! ```
//!
//! A fresh page of the cache costs many times the copy into it, so a load that nobody reads yet pays most of its time
//! for pages that the next merge throws away. How much of a table was read is known for nothing: a block is checked
//! when it is first read, and that is noted (`docs/design/page-cache.md`).
//!
//! Threading: looks at bits that only go from 0 to 1; what it decides may be stale, and is about time only.

use std::sync::Arc;

use pebble_format::FileName;
use pebble_sstable::Table;
use pebble_vfs::{File, Open};

use crate::core::Core;
use crate::error::Result;
use crate::state::Tree;

/// Tables count as read when at least one block in so many was.
const READ_PART: u64 = 8;

/// Blocks of a table that were touched before all of it is brought into memory.
const TOUCHED_MIN: u64 = 4;

/// At most this part of the memory that could be had is filled at rest.
const WARM_PART: u64 = 2;

/// Whether the tables are read.
pub(crate) fn are_read<'a>(tables: impl Iterator<Item = &'a Arc<Table>>) -> bool {
    let sums = tables.map(|table| table.blocks_read()).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    sums.0 > 0 && sums.0 * READ_PART >= sums.1
}

/// Whether the tree as a whole is read.
pub(crate) fn is_read(tree: &Tree) -> bool {
    are_read(tree.run_tables())
}

impl Core {
    /// The file of a table that a merge had better read past the cache; `None` for one that is in memory already, for
    /// its readers.
    pub(crate) fn open_stream(&self, table: &Table) -> pebble_format::Result<Option<Arc<dyn File>>> {
        let (read, blocks) = table.blocks_read();
        if read * READ_PART >= blocks {
            return Ok(None);
        }
        let path = self.tables.path(FileName::Table(table.number()));
        Ok(Some(self.fs.open(&path, Open::Read)?))
    }

    /// Brings one table into memory that somebody reads and that is not there; says whether there was one. Its readers
    /// wait for the device otherwise, a few blocks at a time.
    pub(crate) fn warm_what_is_read(&self) -> Result<bool> {
        let tree = Arc::clone(&self.state.load().tree);
        let found = tree.tables().find(|table| !table.is_warm() && table.blocks_read().0 >= TOUCHED_MIN);
        match found {
            Some(table) if table.len() < self.fs.spare_memory() / WARM_PART => Ok(table.warm()? > 0),
            _ => Ok(false),
        }
    }

    /// Brings tables into memory, one after the other, until `stop`.
    pub(crate) fn warm(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        let tree = Arc::clone(&self.state.load().tree);
        let mut spare = self.fs.spare_memory() / WARM_PART;
        for table in tree.tables().filter(|table| !table.is_warm()) {
            spare = spare.saturating_sub(table.len());
            if spare == 0 || stop() {
                break;
            }
            table.warm()?;
        }
        Ok(())
    }
}
