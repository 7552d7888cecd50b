//! The instructions that a put, a get, a step of an iterator and a merge take: a figure that a busy machine does not
//! move. `cargo xtask instructions` runs this under callgrind and compares with `benches/instructions.txt`.
//!
//! ```text
//!   put     Db::put, random keys, into a memtable that has records already
//!   get     Db::get, keys that are there: past a memtable that does not have them, from one run of tables
//!   next    a step of Db::iter over the same run and memtable, which lie among each other
//!   merge   pebble_compaction::run, a record: four inputs that lie among each other, opened anew, to one table
//! ```
//!
//! - Keys of 16 B, values of 100 B, no compression, and nothing on a disk: the file system is the simulated one, the
//!   clock stands still, and what would run in the background is the caller's and falls into no counted part.
//! - Only what lies between the two requests to callgrind is counted; the line on stdout tells of how many operations.
//!
//! Without the feature `callgrind`, which takes valgrind's headers, it runs the same and counts nothing.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::hint::black_box;
use std::sync::Arc;

use pebble_bench::keys::{mix, random_key};
use pebble_compaction::{Job, Outputs, run};
use pebble_cursor::{Concat, Merge, RangeDeletes};
use pebble_db::{Components, Compression, Db, Executor};
use pebble_format::{HeadPrefix, KeyspaceId, Result, Seqno};
use pebble_sstable::{Table, TableInfo, TableOptions, TableReadOptions, TableRun, TableWriter};
use pebble_vfs::{ManualClock, SimFs};

const VALUE: [u8; 100] = [7; 100];
/// Operations that are counted of each kind.
const OPERATIONS: u64 = 5_000;
/// Records of the tree that is read, in its tables and in its memtable.
const IN_TABLES: u64 = 20_000;
const IN_MEMTABLE: u64 = 2_000;
const INPUTS: u64 = 4;

/// Counts what `work` executes, under `name`. `work` does [`OPERATIONS`] operations.
fn count(name: &str, work: impl FnOnce()) {
    #[cfg(feature = "callgrind")]
    {
        crabgrind::callgrind::zero_stats();
        crabgrind::callgrind::start_instrumentation();
    }
    work();
    #[cfg(feature = "callgrind")]
    {
        crabgrind::callgrind::dump_stats(name);
        crabgrind::callgrind::stop_instrumentation();
    }
    println!("{name} {OPERATIONS}");
}

/// A database on a disk of its own, with a log segment that takes all that is put.
fn open() -> Db {
    let components = Components {
        fs: Arc::new(SimFs::new(1)),
        clock: Arc::new(ManualClock::new()),
        executor: Executor::Inline,
    };
    let builder = Db::builder("db").components(components).segment_len(16 << 20, 16 << 20);
    builder.compression(Compression::None).sync_interval(None).open().unwrap()
}

fn put_all(db: &Db, numbers: std::ops::Range<u64>) {
    for number in numbers {
        db.put(random_key(number), VALUE).unwrap();
    }
}

fn put() {
    let db = open();
    put_all(&db, 0..IN_MEMTABLE);
    count("put", || put_all(&db, IN_MEMTABLE..IN_MEMTABLE + OPERATIONS));
}

/// The tree that is read.
fn tree() -> Db {
    let db = open();
    put_all(&db, 0..IN_TABLES);
    db.flush().unwrap();
    db.compact_range(..).unwrap();
    put_all(&db, IN_TABLES..IN_TABLES + IN_MEMTABLE);
    db
}

fn get(db: &Db) {
    let keys: Vec<_> = (0..OPERATIONS).map(|n| random_key(mix(n) % IN_TABLES)).collect();
    // The first get of a block checks it; what a get costs is told by the later ones.
    let get_all = || keys.iter().for_each(|key| _ = black_box(db.get(key).unwrap().unwrap()[0]));
    get_all();
    count("get", get_all);
}

fn next(db: &Db) {
    let mut entries = db.iter().unwrap();
    let mut step = || _ = black_box(entries.next().unwrap().unwrap().0[0]);
    step();
    count("next", || (0..OPERATIONS).for_each(|_| step()));
}

/// A table in memory, opened anew.
fn table(mut keys: Vec<[u8; 16]>, seqno: Seqno) -> Arc<Table> {
    keys.sort_unstable();
    let mut writer = TableWriter::new(Vec::new(), TableOptions::default()).unwrap();
    for key in keys {
        writer.put(KeyspaceId::DEFAULT, &key, seqno, &VALUE).unwrap();
    }
    Table::from_bytes(writer.finish().unwrap().0, "input", TableReadOptions::default()).unwrap()
}

/// One table, into a buffer that need not grow.
struct Memory(Vec<u8>);

impl Outputs for Memory {
    type Writer = Vec<u8>;

    fn create(&mut self) -> Result<(u64, Vec<u8>)> {
        Ok((1, std::mem::take(&mut self.0)))
    }

    fn finish(&mut self, writer: Vec<u8>, _: &TableInfo) -> Result<()> {
        self.0 = writer;
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

fn merge() {
    let keys_of = |input| (0..OPERATIONS / INPUTS).map(move |n| random_key(n * INPUTS + input)).collect();
    let tables: Vec<_> = (0..INPUTS).map(|input| table(keys_of(input), Seqno(input + 1))).collect();
    let first = tables.iter().map(|table| table.first()).min().unwrap();
    let last = tables.iter().map(|table| table.last()).max().unwrap();
    let prefix = HeadPrefix::between(first.as_ref(), last.as_ref());
    let runs = tables.into_iter().map(|table| Concat::new(TableRun([table].into()))).collect();
    let mut input = Merge::with_prefix(runs, prefix);
    let job = Job {
        snapshots: &[],
        range_deletes: &RangeDeletes::default(),
        bottom: true,
        range: (None, None),
        table: TableOptions::default(),
        apart: None,
        cut_at: &[],
        cut_len_min: 0,
        stop: &|| false,
    };
    let mut output = Memory(Vec::with_capacity(2 << 20));
    count("merge", || assert_eq!(run(&mut input, &mut output, &job).unwrap().written, OPERATIONS));
}

fn main() {
    put();
    let tree = tree();
    get(&tree);
    next(&tree);
    merge();
}
