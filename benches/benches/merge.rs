//! A merge pass against the least that moves the same records: copying them, and a checksum over the copy.
//!
//! - memory: the inputs lie in memory, and so does what is written. Nothing of a file system is in the figures.
//! - files: inputs are mapped files in the page cache; what is written goes to a file through [`FileSink`]. Neither
//!   contestant syncs; both remove the files of their last round first.
//!
//! The base reads the records table after table, not in the order of keys, copies each into a recycled buffer, and
//! checks off every 16 KiB of it. A merge pass is `pebble_compaction::run` over `Merge` over a `Concat` of each run's
//! tables, as the engine does it: collapse, blocks, checksums, point index, directory and footer, tables cut at 32
//! MiB. "opened anew" checks every block of its inputs on the way, as a merge of tables that nobody has read does;
//! the other one has inputs that were checked.
//!
//! Keys are dealt out at random, so that inputs interleave; "side by side" they do not, and blocks go through whole.
//!
//! `cargo bench -p pebble-bench --bench merge [-- [memory] [records [rounds]]]`: 2,000,000 records of 140 B (16 B
//! random keys, 108 B values) unless told otherwise. `-- profile <k> <records> [anew]` only merges, again and again,
//! for a profiler.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pebble_bench::keys::spread_key as key;
use pebble_bench::rounds::{Contestant, interleaved_on_cpu};
use pebble_compaction::{Job, Outputs, run};
use pebble_cursor::{Concat, Merge, RangeDeletes};
use pebble_format::checksum::crc32c;
use pebble_format::{HeadPrefix, KeyspaceId, Pinned, Result, Seqno};
use pebble_sstable::{
    FileSink, PointIndex, Table, TableInfo, TableOptions, TableReadOptions, TableRun, TableWriter,
};
use pebble_vfs::{File, Fs, Open, OsFs};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
const VALUE_LEN: usize = 108;
const RECORD_LEN: usize = 140;

/// One table's bytes, in memory or mapped.
#[derive(Clone)]
enum Bytes {
    Memory(Arc<[u8]>),
    File(PathBuf, Pinned),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::File(_, map) => map,
        }
    }

    /// A table of which nothing is known to be right.
    fn open(&self) -> Arc<Table> {
        match self {
            Self::Memory(bytes) => {
                Table::from_bytes(Arc::clone(bytes), "input", TableReadOptions::default()).unwrap()
            }
            Self::File(path, _) => Table::open(path, TableReadOptions::default()).unwrap(),
        }
    }
}

/// What is merged: for each run its tables, and where records lie in them.
struct Inputs {
    runs: Vec<Vec<Bytes>>,
    /// Table by table, the records of each block.
    blocks: Vec<(Bytes, Vec<std::ops::Range<usize>>)>,
    checked: Vec<TableRun>,
    records: u64,
}

impl Inputs {
    /// `records` records, dealt out to `k` runs of tables. In files if a directory is given.
    fn new(records: u64, k: u64, dir: Option<&Path>) -> Self {
        let runs = (0..k).map(|run| {
            let mut keys: Vec<[u8; 16]> = (0..records / k).map(|n| key(n * k + run)).collect();
            keys.sort_unstable();
            keys
        });
        Self::of(runs.collect(), dir)
    }

    /// As many, in `k` runs of which each has a range of keys to itself.
    fn side_by_side(records: u64, k: u64) -> Self {
        let mut keys: Vec<[u8; 16]> = (0..records / k * k).map(key).collect();
        keys.sort_unstable();
        Self::of(keys.chunks((records / k) as usize).map(<[_]>::to_vec).collect(), None)
    }

    fn of(keys: Vec<Vec<[u8; 16]>>, dir: Option<&Path>) -> Self {
        let (k, records) = (keys.len(), keys.iter().map(|keys| keys.len() as u64).sum());
        let runs: Vec<Vec<Bytes>> = keys
            .iter()
            .zip(1..)
            .map(|(keys, run)| {
                let tables = write_run(keys, Seqno(run)).into_iter().enumerate();
                tables.map(|(table, bytes)| place(bytes, dir, &format!("{k}-{run}-{table}"))).collect()
            })
            .collect();
        let blocks = runs.iter().flatten().map(|bytes| {
            let of_records = |block: pebble_sstable::BlockFacts| {
                let start = block.offset as usize;
                start..start + usize::from(block.count) * RECORD_LEN
            };
            (bytes.clone(), bytes.open().blocks().map(of_records).collect())
        });
        let blocks = blocks.collect();
        let mut inputs = Self { runs, blocks, checked: Vec::new(), records };
        inputs.checked = inputs.open();
        inputs.checked.iter().for_each(|run| run.0.iter().for_each(walk));
        inputs
    }

    fn open(&self) -> Vec<TableRun> {
        self.runs.iter().map(|tables| TableRun(tables.iter().map(Bytes::open).collect())).collect()
    }
}

/// Reads a table through, so that every block of it is checked.
fn walk(table: &Arc<Table>) {
    let mut cursor = table.cursor();
    pebble_cursor::Cursor::first(&mut cursor).unwrap();
    while pebble_cursor::Cursor::record(&cursor).is_some() {
        pebble_cursor::Cursor::next(&mut cursor).unwrap();
    }
}

fn write_run(keys: &[[u8; 16]], seqno: Seqno) -> Vec<Vec<u8>> {
    let (mut tables, mut rest) = (Vec::new(), keys);
    let mut value = [0; VALUE_LEN];
    while !rest.is_empty() {
        let mut writer = TableWriter::new(Vec::new(), TableOptions::default()).unwrap();
        while let Some((key, after)) = rest.split_first().filter(|_| !writer.is_full()) {
            value[..16].copy_from_slice(key);
            value[50..66].copy_from_slice(key);
            writer.put(KEYSPACE, key, seqno, &value).unwrap();
            rest = after;
        }
        tables.push(writer.finish().unwrap().0);
    }
    tables
}

fn place(bytes: Vec<u8>, dir: Option<&Path>, name: &str) -> Bytes {
    let Some(dir) = dir else { return Bytes::Memory(bytes.into()) };
    let path = dir.join(name);
    let file = OsFs.open(&path, Open::CreateNew).unwrap();
    // In the pieces in which the engine writes, since the page cache keeps what it is given.
    for (piece, at) in bytes.chunks(2 << 20).zip((0..).step_by(2 << 20)) {
        file.write_at(piece, at).unwrap();
    }
    Bytes::File(path, Pinned::new(Arc::new(file.map().unwrap()), |map| map))
}

/// Where tables go.
trait Place {
    type To: std::io::Write;
    fn create(&mut self) -> Self::To;
    fn finish(&mut self, to: Self::To);
}

/// Buffers that are used again and again.
#[derive(Default)]
struct Memory(Vec<Vec<u8>>);

impl Place for Memory {
    type To = Vec<u8>;

    fn create(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(40 << 20))
    }

    fn finish(&mut self, mut to: Vec<u8>) {
        black_box(&to);
        to.clear();
        self.0.push(to);
    }
}

/// New files, which live until the next round.
struct Files<'a> {
    dir: &'a Path,
    name: &'a str,
    made: usize,
}

impl<'a> Files<'a> {
    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{}-{number}", self.name))
    }

    fn clear(&mut self) {
        (0..self.made).for_each(|number| std::fs::remove_file(self.path(number)).unwrap());
        self.made = 0;
    }
}

impl Place for Files<'_> {
    type To = FileSink;

    fn create(&mut self) -> FileSink {
        self.made += 1;
        FileSink::new(OsFs.open(&self.path(self.made - 1), Open::CreateNew).unwrap())
    }

    fn finish(&mut self, to: FileSink) {
        let file: Arc<dyn File> = to.into_file();
        black_box(file.len().unwrap());
    }
}

/// A place as the outputs of a run.
struct Numbered<'a, P>(&'a mut P, u64);

impl<P: Place> Outputs for Numbered<'_, P> {
    type Writer = P::To;

    fn create(&mut self) -> Result<(u64, P::To)> {
        self.1 += 1;
        Ok((self.1, self.0.create()))
    }

    fn finish(&mut self, writer: P::To, _: &TableInfo) -> Result<()> {
        self.0.finish(writer);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

fn merge(runs: &[TableRun], to: &mut impl Place, index: PointIndex) -> u64 {
    let tables = || runs.iter().flat_map(|run| run.0.iter());
    let first = tables().map(|table| table.first()).min().unwrap();
    let last = tables().map(|table| table.last()).max().unwrap();
    let prefix = HeadPrefix::between(first.as_ref(), last.as_ref());
    let mut input = Merge::with_prefix(runs.iter().cloned().map(Concat::new).collect(), prefix);
    let job = Job {
        snapshots: &[],
        range_deletes: &RangeDeletes::default(),
        bottom: true,
        range: (None, None),
        table: TableOptions { index, ..TableOptions::default() },
        apart: None,
        cut_at: &[],
        cut_len_min: 0,
        stop: &|| black_box(false),
    };
    let done = run(&mut input, &mut Numbered(to, 0), &job).unwrap();
    assert_eq!(done.read, done.written);
    done.written
}

/// How the base copies: record by record, or a block's records at once.
#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Record,
    Block,
}

/// Copies all records into `buffer`, with a checksum of each 16 KiB of it, and gives the buffer to `full` when
/// it holds a table's worth.
fn copy(inputs: &Inputs, buffer: &mut Vec<u8>, piece: Piece, mut full: impl FnMut(&mut Vec<u8>)) -> u64 {
    const CHUNK: usize = 16 << 10;
    let record_len = if piece == Piece::Record { black_box(RECORD_LEN) } else { usize::MAX };
    let mut checked = 0;
    for (bytes, blocks) in &inputs.blocks {
        let bytes = bytes.as_slice();
        for block in blocks {
            for record in bytes[block.clone()].chunks(record_len) {
                buffer.extend_from_slice(record);
                if buffer.len() - checked >= CHUNK {
                    black_box(crc32c(0, &buffer[checked..]));
                    checked = buffer.len();
                }
            }
            if buffer.len() >= 32 << 20 {
                black_box(crc32c(0, &buffer[checked..]));
                full(buffer);
                checked = buffer.len();
            }
        }
    }
    black_box(crc32c(0, &buffer[checked..]));
    full(buffer);
    inputs.records
}

fn in_memory(records: u64, rounds: usize, k: u64) {
    let inputs = Inputs::new(records, k, None);
    let mut buffer = Vec::with_capacity(40 << 20);
    let mut other = Vec::with_capacity(40 << 20);
    let outputs: [Memory; 3] = Default::default();
    let [mut checked, mut anew, mut no_index] = outputs;
    let no_point_index = PointIndex::None;
    interleaved_on_cpu(
        &format!("memory, {k} inputs, {} records", inputs.records),
        rounds,
        &mut [
            Contestant::new("copy each record, checksum", || {
                copy(&inputs, &mut buffer, Piece::Record, Vec::clear)
            }),
            Contestant::new("copy block by block, checksum", || {
                copy(&inputs, &mut other, Piece::Block, Vec::clear)
            }),
            Contestant::new("merge pass", || merge(&inputs.checked, &mut checked, PointIndex::Location)),
            Contestant::new("merge pass, opened anew", || {
                merge(&inputs.open(), &mut anew, PointIndex::Location)
            }),
            Contestant::new("merge pass, no index", || merge(&inputs.checked, &mut no_index, no_point_index)),
        ],
    );
}

/// Where no two inputs overlap, blocks go through as they are.
fn side_by_side(records: u64, rounds: usize, k: u64) {
    let inputs = Inputs::side_by_side(records, k);
    let mut buffer = Vec::with_capacity(40 << 20);
    let [mut checked, mut anew]: [Memory; 2] = Default::default();
    interleaved_on_cpu(
        &format!("memory, {k} inputs side by side, {} records", inputs.records),
        rounds,
        &mut [
            Contestant::new("copy each record, checksum", || {
                copy(&inputs, &mut buffer, Piece::Record, Vec::clear)
            }),
            Contestant::new("merge pass", || merge(&inputs.checked, &mut checked, PointIndex::Location)),
            Contestant::new("merge pass, opened anew", || {
                merge(&inputs.open(), &mut anew, PointIndex::Location)
            }),
        ],
    );
}

fn in_files(records: u64, rounds: usize, k: u64, dir: &Path) {
    let inputs = Inputs::new(records, k, Some(dir));
    let mut buffer = Vec::with_capacity(40 << 20);
    let mut copied = Files { dir, name: "copied", made: 0 };
    let mut merged = Files { dir, name: "merged", made: 0 };
    // Each contestant removes what it wrote in the round before within its own time: removing gives pages back, which
    // is no small part of what a file costs, and falls on both.
    interleaved_on_cpu(
        &format!("files, {k} inputs, {} records", inputs.records),
        rounds,
        &mut [
            Contestant::new("copy each record, checksum, write", || {
                copied.clear();
                copy(&inputs, &mut buffer, Piece::Record, |buffer| {
                    let mut sink = copied.create();
                    std::io::Write::write_all(&mut sink, buffer).unwrap();
                    std::io::Write::flush(&mut sink).unwrap();
                    copied.finish(sink);
                    buffer.clear();
                })
            }),
            Contestant::new("merge pass, opened anew", || {
                merged.clear();
                merge(&inputs.open(), &mut merged, PointIndex::Location)
            }),
        ],
    );
    copied.clear();
    merged.clear();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let number = |index: usize| arguments.get(index).and_then(|word| word.parse::<u64>().ok());
    if arguments.first().is_some_and(|word| word == "profile") {
        let inputs = Inputs::new(number(2).unwrap_or(2_000_000), number(1).unwrap_or(4), None);
        let mut outputs = Memory::default();
        let anew = arguments.get(3).is_some_and(|word| word == "anew");
        for _ in 0..20 {
            let runs = if anew { inputs.open() } else { inputs.checked.clone() };
            merge(&runs, &mut outputs, PointIndex::Location);
        }
        return;
    }
    let only_memory = arguments.first().is_some_and(|word| word == "memory");
    let first = usize::from(only_memory);
    let (records, rounds) = (number(first).unwrap_or(2_000_000), number(first + 1).unwrap_or(9) as usize);
    for k in [2, 4, 8] {
        in_memory(records, rounds, k);
    }
    side_by_side(records, rounds, 4);
    if only_memory {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for k in [2, 8] {
        in_files(records, rounds, k, dir.path());
    }
}
