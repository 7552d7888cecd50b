//! Blocks that a run hands on as they are stored, against the same run record by record.

use std::cell::Cell;

use pebble_compaction::{Job, RunResult, run};
use pebble_cursor::{Concat, Cursor, Merge, RangeDeletes};
use pebble_format::{
    InternalKey, KeyspaceId, Kind, OwnedKey, PinnedRecord, RecordRef, Result, Seqno, Trailer, record,
};
use pebble_sstable::{Compression, Table, TableOptions, TableReadOptions, TableRun, TableWriter};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::model::{cases, encoded_range, parsed, range_deletes, seen, seen_below, sort};
use crate::run::Memory;

/// A cursor that lends no blocks.
struct ByRecord<C>(C);

impl<C: Cursor> Cursor for ByRecord<C> {
    fn first(&mut self) -> Result<()> {
        self.0.first()
    }

    fn last(&mut self) -> Result<()> {
        self.0.last()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.0.seek(target)
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.0.seek_before(target)
    }

    fn next(&mut self) -> Result<()> {
        self.0.next()
    }

    fn prev(&mut self) -> Result<()> {
        self.0.prev()
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.0.record()
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.0.pinned()
    }
}

fn user_key(n: u16) -> Vec<u8> {
    format!("{n:05}").into_bytes()
}

/// A record with a value that a block can be compressed by.
fn encoded(keyspace: u16, n: u16, seqno: u64, kind: Kind) -> Vec<u8> {
    let value = if kind == Kind::Put { format!("{seqno:060}") } else { String::new() };
    let mut bytes = vec![0; record::encoded_len(user_key(n).len(), value.len())];
    let trailer = Trailer::new(Seqno(seqno), kind);
    record::encode(&mut bytes, KeyspaceId(keyspace), &user_key(n), trailer, value.as_bytes()).unwrap();
    bytes
}

fn options(compression: Compression, table_len: u64) -> TableOptions {
    TableOptions { block_len: 400, table_len, compression, ..TableOptions::default() }
}

/// Sorted records as a run of tables of about `table_len` bytes.
fn written(records: &[Vec<u8>], options: &TableOptions) -> TableRun {
    let mut tables = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let mut writer = TableWriter::new(Vec::new(), options.clone()).unwrap();
        while let Some((bytes, after)) = rest.split_first() {
            let key = parsed(bytes).internal_key();
            let parts = writer.last_key().is_some_and(|last| !last.same_key(&key));
            if writer.is_full() && parts {
                break;
            }
            writer.add(parsed(bytes)).unwrap();
            rest = after;
        }
        let bytes = writer.finish().unwrap().0;
        tables.push(Table::from_bytes(bytes, "input", TableReadOptions::default()).unwrap());
    }
    TableRun(tables.into())
}

/// What is merged, and how.
#[derive(Clone, Debug)]
struct Case {
    /// The records of each input.
    inputs: Vec<Vec<Vec<u8>>>,
    compression: Compression,
    input_len: u64,
    table_len: u64,
    snapshots: Vec<Seqno>,
    bottom: bool,
    cuts: Vec<OwnedKey>,
    borders: Vec<OwnedKey>,
}

/// Some keys, ascending.
fn any_keys() -> impl Strategy<Value = Vec<OwnedKey>> {
    proptest::collection::btree_set((0_u16..2, 0_u16..80), 0..4).prop_map(|keys| {
        let lookup = |(keyspace, n): (u16, u16)| {
            OwnedKey::new(InternalKey::lookup(KeyspaceId(keyspace), &user_key(n), Seqno(5)))
        };
        keys.into_iter().map(lookup).collect()
    })
}

/// Inputs that mostly lie side by side, so that whole blocks of one lie before the next record of the others.
fn any_case() -> impl Strategy<Value = Case> {
    let one = (0_u16..2, 0_u16..80, 0_u8..60, 0_usize..3, proptest::bool::weighted(0.04));
    let records = proptest::collection::vec(one, 40..200);
    let layout =
        (prop_oneof![Just(Compression::None), Just(Compression::Lz4)], 300_u64..3_000, 300_u64..6_000);
    let snapshots = proptest::collection::btree_set(0_u64..200, 0..3);
    let rest = (snapshots, any::<bool>(), any_keys(), any_keys(), 5_u16..30);
    (records, layout, rest).prop_map(|(records, layout, (snapshots, bottom, cuts, borders, width))| {
        let mut inputs = vec![Vec::new(); 3];
        for ((keyspace, n, what, stray, strays), seqno) in records.into_iter().zip(1..) {
            let bytes = match what {
                0 => encoded_range(keyspace, &user_key(n), &user_key(n + 5), seqno),
                1..4 => encoded(keyspace, n, seqno, Kind::Delete),
                _ => encoded(keyspace, n, seqno, Kind::Put),
            };
            inputs[if strays { stray } else { usize::from(n / width) % 3 }].push(bytes);
        }
        inputs.iter_mut().for_each(|records| sort(records));
        let (compression, input_len, table_len) = layout;
        let snapshots = snapshots.into_iter().map(Seqno).collect();
        Case { inputs, compression, input_len, table_len, snapshots, bottom, cuts, borders }
    })
}

/// Merges piece by piece, as a merge that is spread over cores is.
fn merged(case: &Case, deletes: &RangeDeletes, whole: bool) -> (Memory, RunResult) {
    let input_options = options(case.compression, case.input_len);
    let runs: Vec<TableRun> = case.inputs.iter().map(|records| written(records, &input_options)).collect();
    let mut outputs = Memory::default();
    let mut sum = RunResult::default();
    let borders: Vec<_> = std::iter::once(None).chain(case.borders.iter().map(Some)).chain([None]).collect();
    for range in borders.windows(2) {
        let job = Job {
            snapshots: &case.snapshots,
            range_deletes: deletes,
            bottom: case.bottom,
            range: (range[0], range[1]),
            table: options(case.compression, case.table_len),
            apart: None,
            cut_at: &case.cuts,
            cut_len_min: 0,
            stop: &|| false,
        };
        let mut input = Merge::new(runs.iter().cloned().map(Concat::new).collect());
        let done = if whole {
            run(&mut input, &mut outputs, &job).unwrap()
        } else {
            run(&mut ByRecord(input), &mut outputs, &job).unwrap()
        };
        sum.read += done.read;
        sum.read_bytes += done.read_bytes;
        sum.written += done.written;
        sum.written_bytes += done.written_bytes;
        sum.whole_blocks += done.whole_blocks;
    }
    (outputs, sum)
}

/// The records that do not delete ranges: those are parted where tables are.
fn without_ranges(records: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    records.iter().filter(|bytes| !parsed(bytes).is_range_delete()).collect()
}

#[test]
fn whole_blocks_say_what_their_records_say() {
    let whole_blocks = [Cell::new(0), Cell::new(0)];
    let checked = TestRunner::new(cases(1_500)).run(&any_case(), |case| {
        let all: Vec<Vec<u8>> = case.inputs.concat();
        let deletes = range_deletes(&all);
        let (outputs, done) = merged(&case, &deletes, true);
        let (expected, by_record) = merged(&case, &deletes, false);
        let (records, expected) = (outputs.records(), expected.records());
        prop_assert_eq!(without_ranges(&records), without_ranges(&expected));
        prop_assert_eq!((done.read, done.read_bytes), (by_record.read, by_record.read_bytes));
        let bytes: u64 = records.iter().map(|record| record.len() as u64).sum();
        prop_assert_eq!((done.written, done.written_bytes), (records.len() as u64, bytes));
        prop_assert_eq!(by_record.whole_blocks, 0);
        let kept = outputs.range_deletes();
        for reader in case.snapshots.iter().map(|snapshot| snapshot.0).chain([200]) {
            prop_assert_eq!(seen_below(&records, &kept, reader), seen(&all, reader), "reader at {}", reader);
        }
        // No border falls into a table.
        for (_, info) in &outputs.finished {
            let inside = |key: &&OwnedKey| {
                let key = key.as_ref();
                key.cmp_user(&info.first.as_ref()).is_gt() && key.cmp_user(&info.last.as_ref()).is_le()
            };
            prop_assert_eq!(case.cuts.iter().chain(&case.borders).find(inside), None);
        }
        let count = &whole_blocks[usize::from(case.compression == Compression::Lz4)];
        count.set(count.get() + done.whole_blocks);
        Ok(())
    });
    checked.unwrap();
    let counts = whole_blocks.map(Cell::into_inner);
    assert!(counts.iter().all(|count| *count > 1_000), "{counts:?}");
}

fn table(records: &[Vec<u8>]) -> TableRun {
    written(records, &options(Compression::None, u64::MAX))
}

/// A merge of one table into one, told to stop where `stop` says so.
fn moved(
    input: &TableRun,
    deletes: &RangeDeletes,
    bottom: bool,
    cut_at: &[OwnedKey],
    stop: &dyn Fn() -> bool,
) -> Result<RunResult> {
    let job = Job {
        snapshots: &[],
        range_deletes: deletes,
        bottom,
        range: (None, None),
        table: options(Compression::None, u64::MAX),
        apart: None,
        cut_at,
        cut_len_min: u64::MAX,
        stop,
    };
    run(&mut Concat::new(input.clone()), &mut Memory::default(), &job)
}

fn handed_on(records: &[Vec<u8>], bottom: bool, cut_at: &[OwnedKey]) -> u64 {
    let done = moved(&table(records), &range_deletes(records), bottom, cut_at, &|| false).unwrap();
    assert_eq!(done.read, records.len() as u64);
    done.whole_blocks
}

#[test]
fn what_has_to_be_looked_at_is_no_whole_block() {
    let puts: Vec<_> = (0..80).map(|n| encoded(0, n, 9, Kind::Put)).collect();
    let blocks = u64::from(table(&puts).0[0].info().blocks);
    assert_eq!(handed_on(&puts, true, &[]), blocks, "nothing is to be decided");
    let mut deleted = puts.clone();
    deleted[30] = encoded(0, 30, 9, Kind::Delete);
    assert_eq!(handed_on(&deleted, false, &[]), u64::from(table(&deleted).0[0].info().blocks));
    assert!(handed_on(&deleted, true, &[]) < blocks, "a tombstone with nothing to hide goes");
    let mut versions = puts.clone();
    versions.insert(31, encoded(0, 30, 5, Kind::Put));
    assert!(handed_on(&versions, true, &[]) < blocks, "an older version goes");
    let mut ranges = puts.clone();
    ranges.insert(30, encoded_range(0, &user_key(30), &user_key(33), 10));
    assert!(handed_on(&ranges, false, &[]) < blocks, "what a range delete hides goes");
    let cuts: Vec<_> =
        (0..80).map(|n| OwnedKey::new(InternalKey::lookup(KeyspaceId(0), &user_key(n), Seqno(5)))).collect();
    assert_eq!(handed_on(&puts, true, &cuts), 0, "a border may fall into any block");
}

#[test]
fn a_run_by_whole_blocks_stops_when_told_to() {
    let input = table(&(0..20_000).map(|n| encoded(0, n, 9, Kind::Put)).collect::<Vec<_>>());
    let asked = Cell::new(0);
    let stop = |limit| {
        let asked = &asked;
        move || {
            asked.set(asked.get() + 1);
            asked.get() == limit
        }
    };
    let done = moved(&input, &RangeDeletes::default(), true, &[], &stop(0)).unwrap();
    assert_eq!((done.whole_blocks, asked.take()), (u64::from(input.0[0].info().blocks), 5));
    assert!(moved(&input, &RangeDeletes::default(), true, &[], &stop(3)).is_err());
    assert_eq!(asked.get(), 3);
}
