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

/// At most this part of the memory that could be had is filled with tables.
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
        self.warm_one(|table| table.blocks_read().0 >= TOUCHED_MIN)
    }

    /// Brings tables into memory, one after the other, until `stop`.
    pub(crate) fn warm(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        while !stop() && self.warm_one(|_| true)? {}
        Ok(())
    }

    /// Brings the first table into memory that is wanted there, and for which those that were brought there before
    /// leave room; says whether there was one.
    fn warm_one(&self, is_wanted: impl Fn(&Table) -> bool) -> Result<bool> {
        let tree = Arc::clone(&self.state.load().tree);
        let mut cold = tree.tables().filter(|table| !table.is_warm() && is_wanted(table)).peekable();
        if cold.peek().is_none() {
            return Ok(false);
        }
        let warm: u64 = tree.tables().filter(|table| table.is_warm()).map(|table| table.len()).sum();
        // The pages of those could be had too, and so are counted in what the system says.
        let room = (self.fs.spare_memory() / WARM_PART).saturating_sub(warm);
        match cold.find(|table| table.len() <= room) {
            Some(table) => Ok(table.warm()? > 0),
            None => Ok(false),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]
mod tests {
    use std::path::Path;

    use pebble_compaction::Policy;
    use pebble_format::KeyspaceId;
    use pebble_vfs::{ManualClock, SimFs};

    use super::*;
    use crate::commit::Write;
    use crate::open::open;
    use crate::options::{Components, Durability, Executor, Options};

    fn open_with(fs: &SimFs, fan_out: u16) -> Arc<Core> {
        let shape = Policy { fan_out: [fan_out; 6], last_percent: Policy::NEVER, ..Policy::default() };
        let options = Options { block_len: 256, shape, sync_interval: None, ..Options::default() };
        let components = Components {
            fs: Arc::new(fs.clone()),
            clock: Arc::new(ManualClock::new()),
            executor: Executor::Inline,
        };
        open(Path::new("/db"), options, components).unwrap()
    }

    /// A run of one table with so many keys, which lie between those of the others.
    fn add_run(core: &Core, name: u8, keys: u8) {
        for n in 0..keys {
            let (key, value) = (&[n, name][..], &[n; 100][..]);
            let write =
                Write::One { keyspace: KeyspaceId::DEFAULT, key, kind: pebble_format::Kind::Put, value };
            core.commit(write, Durability::Buffered).unwrap();
        }
        core.flush_all().unwrap();
    }

    fn tables(core: &Core) -> Vec<Arc<Table>> {
        core.state.load().tree.tables().cloned().collect()
    }

    fn read(table: &Arc<Table>) {
        assert!(table.iter().all(|found| found.is_ok()) && table.blocks_read().0 >= TOUCHED_MIN);
    }

    fn warm_bytes(core: &Core) -> u64 {
        tables(core).iter().filter(|table| table.is_warm()).map(|table| table.len()).sum()
    }

    #[test]
    fn what_is_in_memory_leaves_room_for_as_much_again_in_sum() {
        let fs = SimFs::new(1);
        let core = open_with(&fs, 100);
        (0..5).for_each(|name| add_run(&core, name, 30));
        // The newest, and so the first of all: too large for what there is.
        add_run(&core, 9, 200);
        let all = tables(&core);
        let (large, small) = (all[0].len(), all[1].len());
        assert!(large > 3 * small && all[1..].iter().all(|table| table.len() == small));
        all.iter().for_each(read);
        assert!(!core.warm_what_is_read().unwrap(), "there is no memory to spare");

        fs.set_spare_memory(WARM_PART * (2 * small + small / 2));
        while core.warm_what_is_read().unwrap() {}
        assert_eq!(warm_bytes(&core), 2 * small);
        core.warm(&|| false).unwrap();
        assert_eq!(warm_bytes(&core), 2 * small);
        fs.set_spare_memory(WARM_PART * (large + 5 * small));
        core.warm(&|| false).unwrap();
        assert_eq!(warm_bytes(&core), large + 5 * small);
    }

    /// The merge takes all runs but the oldest, which comes into memory right behind it.
    #[test]
    fn a_merge_that_is_due_waits_for_no_table_and_a_table_for_one_merge() {
        let fs = SimFs::new(1);
        let core = open_with(&fs, 100);
        (0..6).for_each(|name| add_run(&core, name, 30));
        drop(core);
        fs.set_spare_memory(1 << 30);
        let core = open_with(&fs, 3);
        tables(&core).iter().for_each(read);
        assert!(core.merge_or_rest().unwrap());
        let left = tables(&core);
        assert_eq!(left.iter().map(|table| table.info().keys).collect::<Vec<_>>(), [5 * 30, 30]);
        assert_eq!(left.iter().map(|table| table.is_warm()).collect::<Vec<_>>(), [false, true]);
    }
}
