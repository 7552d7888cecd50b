//! The data mover against the rules of dropping, with cuts, faults and a stop.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use pebble_compaction::{Apart, Fetch, Job, Outputs, RunResult, run};
use pebble_cursor::{RangeDelete, RangeDeletes};
use pebble_format::{
    Error, InternalKey, KeyspaceId, Kind, OwnedKey, PinnedRecord, RecordRef, Reference, Result, Seqno,
};
use pebble_sstable::{PointIndex, Table, TableInfo, TableOptions, TableReadOptions};
use proptest::prelude::*;

use crate::model::{
    Walk, any_records, any_records_and_ranges, any_snapshots, cases, encoded, encoded_range, injected,
    parsed, range_deletes, seen, seen_below, sort, with_value,
};

/// Tables in memory; a call of any kind may be made to fail.
#[derive(Default)]
pub struct Memory {
    created: Vec<u64>,
    pub finished: Vec<(Vec<u8>, TableInfo)>,
    calls: usize,
    fails_at: Option<usize>,
}

impl Memory {
    fn call(&mut self) -> Result<()> {
        self.calls += 1;
        if self.fails_at == Some(self.calls) { Err(injected()) } else { Ok(()) }
    }

    fn tables(&self) -> impl Iterator<Item = Arc<Table>> {
        let open = |bytes: &Vec<u8>| Table::from_bytes(bytes.clone(), "memory", TableReadOptions::default());
        self.finished.iter().map(move |(bytes, _)| open(bytes).unwrap())
    }

    /// What the tables say of ranges, each of its own part.
    pub fn range_deletes(&self) -> RangeDeletes {
        self.tables().flat_map(|table| table.range_deletes().iter().cloned().collect::<Vec<_>>()).collect()
    }

    /// The records of all finished tables, in order, after a check of each table and of the run.
    pub fn records(&self) -> Vec<Vec<u8>> {
        let mut records: Vec<Vec<u8>> = vec![];
        for (bytes, info) in &self.finished {
            let table = Table::from_bytes(bytes.clone(), "memory", TableReadOptions::default()).unwrap();
            table.verify().unwrap();
            assert_eq!(info.len, bytes.len() as u64);
            if let Some(previous) = records.last() {
                assert!(
                    parsed(previous).internal_key().cmp_user(&info.first.as_ref()).is_lt(),
                    "a key in two tables"
                );
            }
            let mut cursor = table.cursor();
            pebble_cursor::Cursor::first(&mut cursor).unwrap();
            while let Some(record) = pebble_cursor::Cursor::record(&cursor) {
                records.push(record.raw().to_vec());
                pebble_cursor::Cursor::next(&mut cursor).unwrap();
            }
        }
        records
    }
}

impl Outputs for Memory {
    type Writer = Vec<u8>;

    fn create(&mut self) -> Result<(u64, Vec<u8>)> {
        self.call()?;
        let number = self.created.len() as u64 + 1;
        self.created.push(number);
        Ok((number, Vec::new()))
    }

    fn finish(&mut self, writer: Vec<u8>, info: &TableInfo) -> Result<()> {
        self.call()?;
        self.finished.push((writer, info.clone()));
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

static NO_RANGES: LazyLock<RangeDeletes> = LazyLock::new(RangeDeletes::default);

fn job<'a>(snapshots: &'a [Seqno], bottom: bool, cut_at: &'a [OwnedKey], table_len: u64) -> Job<'a> {
    Job {
        snapshots,
        range_deletes: &NO_RANGES,
        bottom,
        range: (None, None),
        table: TableOptions { block_len: 64, table_len, ..TableOptions::default() },
        apart: None,
        cut_at,
        cut_len_min: 0,
        stop: &|| false,
    }
}

fn key(user_key: &[u8], seqno: u64) -> OwnedKey {
    OwnedKey::new(InternalKey::lookup(KeyspaceId(0), user_key, Seqno(seqno)))
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn tables_hold_what_readers_see(
        records in any_records(), snapshots in any_snapshots(), bottom: bool, table_len in 1_u64..2_000,
    ) {
        let mut outputs = Memory::default();
        let result = run(&mut Walk::new(&records), &mut outputs, &job(&snapshots, bottom, &[], table_len)).unwrap();
        let written = outputs.records();
        for reader in snapshots.iter().map(|snapshot| snapshot.0).chain([60]) {
            prop_assert_eq!(seen(&written, reader), seen(&records, reader));
        }
        prop_assert!(written.iter().all(|record| records.contains(record)), "records are moved verbatim");
        let bytes = |records: &[Vec<u8>]| records.iter().map(|record| record.len() as u64).sum::<u64>();
        prop_assert_eq!(result.read, records.len() as u64);
        prop_assert_eq!(result.written, written.len() as u64);
        prop_assert_eq!((result.read_bytes, result.written_bytes), (bytes(&records), bytes(&written)));
        prop_assert_eq!(result.tables, outputs.finished.iter().map(|(_, info)| info.clone()).collect::<Vec<_>>());
        prop_assert_eq!(outputs.created, outputs.finished.iter().map(|(_, info)| info.number).collect::<Vec<_>>());
    }
}

/// Cuts at some of the keys that occur, and between them.
fn any_cuts() -> impl Strategy<Value = Vec<OwnedKey>> {
    proptest::collection::btree_set((0_u16..2, 0_u8..9, any::<bool>()), 0..6).prop_map(|cuts| {
        let mut cuts: Vec<_> = cuts
            .into_iter()
            .map(|(keyspace, n, behind)| {
                let user_key = if behind { vec![b'a' + n, b'x'] } else { vec![b'a' + n] };
                OwnedKey::new(InternalKey::lookup(KeyspaceId(keyspace), &user_key, Seqno(5)))
            })
            .collect();
        cuts.sort();
        cuts
    })
}

proptest! {
    #![proptest_config(cases(3_000))]

    /// Whatever a merge of the newer records does with range deletes, over the older records every reader sees the
    /// same.
    #[test]
    fn ranges_stay_deleted_over_older_runs(
        records in any_records_and_ranges(), split in 0_u64..50, snapshots in any_snapshots(), cuts in any_cuts(),
        cut_len_min in prop_oneof![Just(0), 1_u64..400], table_len in 1_u64..800, bottom: bool,
        parts in any_cuts(),
    ) {
        let split = if bottom { 0 } else { split };
        let (older, newer): (Vec<_>, Vec<_>) =
            records.iter().cloned().partition(|bytes| parsed(bytes).seqno().0 <= split);
        let deletes = range_deletes(&newer);
        let mut outputs = Memory::default();
        // In one piece or in several, as a merge that is spread over cores is.
        let borders: Vec<_> = std::iter::once(None).chain(parts.iter().map(Some)).chain([None]).collect();
        for range in borders.windows(2) {
            let job = Job {
                range_deletes: &deletes,
                range: (range[0], range[1]),
                cut_len_min,
                ..job(&snapshots, bottom, &cuts, table_len)
            };
            run(&mut Walk::new(&newer), &mut outputs, &job).unwrap();
        }
        let merged = outputs.records();
        let said: Vec<RangeDelete> = outputs.range_deletes().iter().cloned().collect();
        let all: RangeDeletes = said.into_iter().chain(range_deletes(&older).iter().cloned()).collect();
        for reader in snapshots.iter().map(|snapshot| snapshot.0).chain([60]) {
            let got = seen_below(merged.iter().chain(&older), &all, reader);
            prop_assert_eq!(got, seen(&records, reader), "reader at {}", reader);
        }
        for (bytes, info) in &outputs.finished {
            let table = Table::from_bytes(bytes.clone(), "memory", TableReadOptions::default()).unwrap();
            prop_assert_eq!(table.info(), info);
            if bottom {
                let oldest = snapshots.first().map_or(u64::MAX, |snapshot| snapshot.0);
                prop_assert!(table.range_deletes().iter().all(|delete| delete.seqno.0 > oldest), "one hides nothing");
            }
        }
        // The tables do not reach into each other.
        for pair in outputs.finished.windows(2) {
            let (left, right) = (&pair[0].1, &pair[1].1);
            let next = right.first.as_ref();
            if let Some(reach) = &left.reach
                && left.last.as_ref().keyspace == next.keyspace
            {
                prop_assert!(!reach.is_empty() && **reach <= *next.user_key, "a range reaches into the next table");
            }
        }
    }
}

#[test]
fn a_range_that_is_cut_goes_on_in_the_next_table() {
    let mut records: Vec<_> = (1_u8..=9).map(|n| encoded(0, &[b'a' + n], u64::from(n), Kind::Put)).collect();
    records.push(encoded_range(0, b"c", b"y", 20));
    sort(&mut records);
    let deletes = range_deletes(&records);
    // With a reader before the delete nothing is hidden yet, so all of it stays.
    let snapshots = [Seqno(15)];
    let cuts = [key(b"e", 1), key(b"gg", 1)];
    let job = Job { range_deletes: &deletes, ..job(&snapshots, false, &cuts, 1 << 20) };
    let mut outputs = Memory::default();
    run(&mut Walk::new(&records), &mut outputs, &job).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let said: Vec<_> = outputs
        .tables()
        .flat_map(|table| {
            let ranges = table.range_deletes().iter().map(|delete| (text(&delete.start), text(&delete.end)));
            ranges.collect::<Vec<_>>()
        })
        .collect();
    let expected = [("c", "e"), ("e", "gg"), ("gg", "y")];
    assert_eq!(said, expected.map(|(start, end)| (start.to_owned(), end.to_owned())));
    assert_eq!(outputs.finished[2].1.reach.as_deref(), Some(&b"y"[..]));
}

#[test]
fn versions_of_one_key_lie_in_one_table_however_many() {
    let mut records: Vec<_> = (1..=300).map(|n| encoded(0, b"hot", n, Kind::Put)).collect();
    records.push(encoded(0, b"a", 301, Kind::Put));
    records.push(encoded(0, b"z", 302, Kind::Put));
    sort(&mut records);
    let snapshots: Vec<_> = (0..300).map(Seqno).collect();
    let mut outputs = Memory::default();
    run(&mut Walk::new(&records), &mut outputs, &job(&snapshots, true, &[], 1)).unwrap();
    let counts: Vec<_> = outputs.finished.iter().map(|(_, info)| info.count).collect();
    assert_eq!(counts, [1, 300, 1]);
    assert_eq!(outputs.records(), records);
}

/// The first and last user keys of the tables that these cuts lead to.
fn cut(cuts: &[OwnedKey]) -> Vec<String> {
    let mut records: Vec<_> = [(b"b", 9), (b"b", 3), (b"d", 8), (b"a", 7), (b"e", 6)]
        .iter()
        .map(|(key, n)| encoded(0, *key, *n, Kind::Put))
        .collect();
    sort(&mut records);
    let mut outputs = Memory::default();
    run(&mut Walk::new(&records), &mut outputs, &job(&[Seqno(4)], false, cuts, 1 << 20)).unwrap();
    assert_eq!(outputs.records(), records);
    let text = |key: &OwnedKey| String::from_utf8(key.as_ref().user_key.to_vec()).unwrap();
    outputs.finished.iter().map(|(_, info)| text(&info.first) + &text(&info.last)).collect()
}

#[test]
fn a_cut_falls_before_its_key_whatever_version_made_it() {
    assert_eq!(cut(&[]), ["ae"]);
    // Versions 9 and 3 of "b" are here. A border made by an older, an equal, one between and a newer version.
    for seqno in [1, 3, 5, 9, 99] {
        assert_eq!(cut(&[key(b"b", seqno)]), ["aa", "be"], "{seqno}");
    }
    assert_eq!(cut(&[key(b"a", 1)]), ["ae"], "nothing lies before the first key");
    assert_eq!(cut(&[key(b"c", 1)]), ["ab", "de"], "a border need not be a key");
    assert_eq!(cut(&[key(b"c", 1), key(b"d", 1)]), ["ab", "de"], "two cuts at one place are one");
    assert_eq!(cut(&[key(b"x", 1)]), ["ae"]);
    assert_eq!(cut(&[key(b"a", 1), key(b"b", 1), key(b"d", 1), key(b"e", 1)]), ["aa", "bb", "dd", "ee"]);
}

#[test]
fn nothing_left_is_no_table() {
    let tombstones: Vec<_> = (1..5).map(|n| encoded(0, &[n], u64::from(n), Kind::Delete)).collect();
    for records in [&[][..], &tombstones] {
        let mut outputs = Memory::default();
        let result = run(&mut Walk::new(records), &mut outputs, &job(&[], true, &[], 1)).unwrap();
        assert_eq!((result.tables.len(), result.written, outputs.created.len()), (0, 0, 0));
    }
}

#[test]
fn a_failed_input_is_never_read_as_its_end() {
    let records: Vec<_> = (1..30).map(|n| encoded(0, &[n], u64::from(n), Kind::Put)).collect();
    for call in 0..30 {
        let mut outputs = Memory::default();
        let done = run(&mut Walk::failing(&records, call), &mut outputs, &job(&[], true, &[], 64));
        assert_eq!(done.unwrap_err().to_string(), injected().to_string(), "call {call}");
    }
    let mut outputs = Memory::default();
    assert!(run(&mut Walk::failing(&records, 30), &mut outputs, &job(&[], true, &[], 64)).is_ok());
}

#[test]
fn a_failed_output_ends_the_run_and_is_known_to_its_owner() {
    let records: Vec<_> = (1..30).map(|n| encoded(0, &[n], u64::from(n), Kind::Put)).collect();
    let attempt = |fails_at| {
        let mut outputs = Memory { fails_at, ..Memory::default() };
        let done: Result<RunResult> = run(&mut Walk::new(&records), &mut outputs, &job(&[], true, &[], 200));
        (done, outputs)
    };
    let (whole, outputs) = attempt(None);
    assert!(whole.is_ok() && outputs.calls > 6);
    for call in 1..=outputs.calls {
        let (done, outputs) = attempt(Some(call));
        assert_eq!(done.unwrap_err().to_string(), injected().to_string());
        assert_eq!(outputs.calls, call, "nothing is asked for after the failure");
        assert!(outputs.created.len() - outputs.finished.len() <= 1);
    }
}

/// A disk that is full from some byte on.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct FullDisk(usize);

impl Outputs for FullDisk {
    type Writer = Full;

    fn create(&mut self) -> Result<(u64, Full)> {
        Ok((1, Full(self.0)))
    }

    fn finish(&mut self, _: Full, _: &TableInfo) -> Result<()> {
        panic!("a table that did not fit was finished")
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_run() {
    let records: Vec<_> = (1..30).map(|n| encoded(0, &[n], u64::from(n), Kind::Put)).collect();
    for room in [0, 63, 200, 900] {
        let done = run(&mut Walk::new(&records), &mut FullDisk(room), &job(&[], true, &[], 1 << 20));
        let Err(Error::Io(error)) = done else { panic!("{room}: not an I/O error") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

#[test]
fn a_run_stops_when_told_to() {
    let records: Vec<_> =
        (1..=10_000_u32).map(|n| encoded(0, &n.to_be_bytes(), u64::from(n), Kind::Put)).collect();
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() == 3
    };
    let mut outputs = Memory::default();
    let told = Job { stop: &stop, ..job(&[], true, &[], 1 << 20) };
    let Err(Error::Io(error)) = run(&mut Walk::new(&records), &mut outputs, &told) else { panic!("went on") };
    assert_eq!((error.kind(), asked.get(), outputs.finished.len()), (io::ErrorKind::Interrupted, 3, 0));
}

/// What a run makes of records, with values of 64 bytes and more apart: all outputs, and its result.
fn run_apart(input: &[Vec<u8>], fetch: Option<Fetch<'_>>, table_len: u64) -> (Memory, RunResult) {
    let table = TableOptions {
        block_len: 64,
        table_len,
        index: PointIndex::None,
        holds_values: true,
        ..TableOptions::default()
    };
    let apart = Some(Apart { from_len: 64, table, fetch });
    let mut outputs = Memory::default();
    let result =
        run(&mut Walk::new(input), &mut outputs, &Job { apart, ..job(&[], true, &[], 300) }).unwrap();
    (outputs, result)
}

/// The records of a run's tables, each with its value, wherever that lies.
fn followed(outputs: &Memory, result: &RunResult) -> Vec<Vec<u8>> {
    let tables: Vec<Arc<Table>> = outputs.tables().collect();
    let numbered: Vec<_> =
        outputs.finished.iter().zip(&tables).map(|((_, info), table)| (info.number, table)).collect();
    let table = |number: u64| numbered.iter().find(|(own, _)| *own == number).unwrap().1;
    let mut all = Vec::new();
    for info in &result.tables {
        let mut cursor = table(info.number).cursor();
        pebble_cursor::Cursor::first(&mut cursor).unwrap();
        while let Some(record) = pebble_cursor::Cursor::record(&cursor) {
            all.push(if record.is_reference() {
                let reference = Reference::read(record.value()).unwrap();
                let found = table(reference.table.get()).referred(reference, record.internal_key()).unwrap();
                found.record().raw().to_vec()
            } else {
                record.raw().to_vec()
            });
            pebble_cursor::Cursor::next(&mut cursor).unwrap();
        }
    }
    all
}

#[test]
fn long_values_go_apart_and_come_along_when_they_are_fetched() {
    let long = |n: u64| vec![n as u8; 60 + 7 * n as usize];
    let input: Vec<Vec<u8>> =
        (0..40).map(|n| with_value(0, format!("k{n:02}").as_bytes(), 100 - n, Kind::Put, &long(n))).collect();
    let mut records = input.clone();
    records.insert(7, encoded(0, b"k06x", 3, Kind::Delete));
    let (outputs, result) = run_apart(&records, None, 2000);
    assert!(result.tables.len() > 1 && result.values.len() > 1, "{result:?}");
    assert!(result.values.iter().all(|info| info.holds_values) && !result.tables[0].holds_values);
    assert_eq!(followed(&outputs, &result), input, "a tombstone at the bottom goes, and nothing else");
    let bytes: u64 =
        result.tables.iter().flat_map(|info| &info.referred).map(|referred| referred.bytes).sum();
    assert_eq!(bytes, result.values.iter().map(|info| info.value_bytes).sum::<u64>());
    for (bytes, info) in &outputs.finished {
        let table = Table::from_bytes(bytes.clone(), "memory", TableReadOptions::default()).unwrap();
        table.verify().unwrap();
        assert_eq!(table.info(), info, "what is opened is what was written");
    }

    // The next run: references stay, but for those into the first table of values, which are fetched.
    let tables: Vec<Arc<Table>> = outputs.tables().collect();
    let of_first = result.values[0].number;
    let first = tables.iter().find(|table| table.info().number == of_first).unwrap();
    let fetched = AtomicU64::new(0);
    let fetch = |record: RecordRef<'_>| -> Result<Option<PinnedRecord>> {
        let reference = Reference::read(record.value())?;
        if reference.table.get() != of_first {
            return Ok(None);
        }
        fetched.fetch_add(1, Ordering::Relaxed);
        first.referred(reference, record.internal_key()).map(Some)
    };
    let mut again = Vec::new();
    for info in &result.tables {
        let table = tables.iter().find(|table| table.info().number == info.number).unwrap();
        let mut cursor = table.cursor();
        pebble_cursor::Cursor::first(&mut cursor).unwrap();
        while let Some(record) = pebble_cursor::Cursor::record(&cursor) {
            again.push(record.raw().to_vec());
            pebble_cursor::Cursor::next(&mut cursor).unwrap();
        }
    }
    let (_, moved) = run_apart(&again, Some(&fetch), 2000);
    assert_eq!(fetched.load(Ordering::Relaxed), result.values[0].count);
    let kept: Vec<u64> =
        moved.tables.iter().flat_map(|info| &info.referred).map(|referred| referred.table).collect();
    let moved_count: u64 = moved.values.iter().map(|info| info.count).sum();
    assert_eq!(moved_count, result.values[0].count);
    assert!(kept.contains(&result.values[1].number));
}
