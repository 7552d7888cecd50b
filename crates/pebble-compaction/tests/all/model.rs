//! Records in memory, a cursor over them that may fail, and what a reader sees of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use pebble_cursor::{Cursor, RangeDelete, RangeDeletes};
use pebble_format::{
    Corruption, Error, InternalKey, KeyspaceId, Kind, PinnedRecord, RecordRef, Result, Seqno, Trailer, record,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// So many cases, the same ones in every run.
pub fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(3),
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
    }
}

pub fn encoded(keyspace: u16, key: &[u8], seqno: u64, kind: Kind) -> Vec<u8> {
    let value = if kind == Kind::Put { format!("v{seqno}") } else { String::new() };
    with_value(keyspace, key, seqno, kind, value.as_bytes())
}

pub fn with_value(keyspace: u16, key: &[u8], seqno: u64, kind: Kind, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; record::encoded_len(key.len(), value.len())];
    record::encode(&mut bytes, KeyspaceId(keyspace), key, Trailer::new(Seqno(seqno), kind), value).unwrap();
    bytes
}

/// Deletes the keys from `start` up to `end`.
pub fn encoded_range(keyspace: u16, start: &[u8], end: &[u8], seqno: u64) -> Vec<u8> {
    let mut bytes = vec![0; record::encoded_len(start.len(), end.len())];
    let trailer = Trailer::new(Seqno(seqno), Kind::RangeDelete);
    record::encode(&mut bytes, KeyspaceId(keyspace), start, trailer, end).unwrap();
    bytes
}

/// The range deletes among records.
pub fn range_deletes<'a>(records: impl IntoIterator<Item = &'a Vec<u8>>) -> RangeDeletes {
    records.into_iter().filter_map(|bytes| RangeDelete::of(parsed(bytes))).collect()
}

pub fn parsed(bytes: &[u8]) -> RecordRef<'_> {
    RecordRef::parse(bytes).unwrap()
}

pub fn sort(records: &mut [Vec<u8>]) {
    records.sort_by(|a, b| parsed(a).internal_key().cmp(&parsed(b).internal_key()));
}

/// Records of a few keys with many versions each, numbered from 1 on, in order.
pub fn any_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = (0_u16..2, 0_u8..6, proptest::bool::weighted(0.35));
    proptest::collection::vec(one, 1..50).prop_map(|specs| {
        let mut records: Vec<_> = specs
            .into_iter()
            .zip(1..)
            .map(|((keyspace, key, delete), seqno)| {
                let kind = if delete { Kind::Delete } else { Kind::Put };
                encoded(keyspace, &vec![b'k'; usize::from(key)], seqno, kind)
            })
            .collect();
        sort(&mut records);
        records
    })
}

/// As [`any_records`], with ranges of keys deleted among them.
pub fn any_records_and_ranges() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = (0_u16..2, 0_u8..8, 0_u8..9, 0_u8..10);
    proptest::collection::vec(one, 1..50).prop_map(|specs| {
        let key = |n: u8| vec![b'a' + n];
        let record = |((keyspace, key_n, end_n, what), seqno): ((u16, u8, u8, u8), u64)| match what {
            0..=5 => encoded(keyspace, &key(key_n), seqno, Kind::Put),
            6 | 7 => encoded(keyspace, &key(key_n), seqno, Kind::Delete),
            _ if end_n == 8 => encoded_range(keyspace, &key(key_n), b"", seqno),
            _ => encoded_range(keyspace, &key(key_n.min(end_n)), &key(key_n.max(end_n) + 1), seqno),
        };
        let mut records: Vec<_> = specs.into_iter().zip(1..).map(record).collect();
        sort(&mut records);
        records
    })
}

/// Snapshots in order, 0 and the newest number among them at times.
pub fn any_snapshots() -> impl Strategy<Value = Vec<Seqno>> {
    proptest::collection::btree_set(0_u64..52, 0..5).prop_map(|set| set.into_iter().map(Seqno).collect())
}

/// Each key that a reader at `seqno` sees, with the bytes of the version it sees.
pub fn seen<'a>(
    records: impl IntoIterator<Item = &'a Vec<u8>> + Clone,
    seqno: u64,
) -> BTreeMap<(u16, Vec<u8>), Vec<u8>> {
    let deletes = range_deletes(records.clone());
    seen_below(records, &deletes, seqno)
}

/// As [`seen`], with these range deletes and not those among the records.
pub fn seen_below<'a>(
    records: impl IntoIterator<Item = &'a Vec<u8>>,
    deletes: &RangeDeletes,
    seqno: u64,
) -> BTreeMap<(u16, Vec<u8>), Vec<u8>> {
    let mut newest: BTreeMap<(u16, Vec<u8>), RecordRef<'_>> = BTreeMap::new();
    for record in records.into_iter().map(|bytes| parsed(bytes)).filter(|record| record.seqno().0 <= seqno) {
        let version = newest.entry((record.keyspace().0, record.key().to_vec())).or_insert(record);
        if version.seqno() < record.seqno() {
            *version = record;
        }
    }
    let hidden = |record: &RecordRef<'_>| {
        deletes.iter().any(|delete| {
            delete.seqno.0 <= seqno
                && delete.seqno > record.seqno()
                && delete.covers(record.keyspace(), record.key())
        })
    };
    let shown = newest.into_iter().filter(|(_, record)| !record.is_tombstone() && !hidden(record));
    shown.map(|(key, record)| (key, record.raw().to_vec())).collect()
}

/// Walks records forward; fails at the n-th call that moves it, if told to.
pub struct Walk {
    records: Arc<Vec<Vec<u8>>>,
    at: Option<usize>,
    calls: usize,
    fails_at: Option<usize>,
}

impl Walk {
    pub fn new(records: &[Vec<u8>]) -> Self {
        Self { records: Arc::new(records.to_vec()), at: None, calls: 0, fails_at: None }
    }

    pub fn failing(records: &[Vec<u8>], call: usize) -> Self {
        Self { fails_at: Some(call), ..Self::new(records) }
    }

    fn place(&mut self, at: Option<usize>) -> Result<()> {
        self.calls += 1;
        if self.fails_at.is_some_and(|call| self.calls > call) {
            self.at = None;
            return Err(injected());
        }
        self.at = at.filter(|at| *at < self.records.len());
        Ok(())
    }
}

pub fn injected() -> Error {
    Corruption::new("injected", 1, 2, 3).into()
}

impl Cursor for Walk {
    fn first(&mut self) -> Result<()> {
        self.place(Some(0))
    }

    fn last(&mut self) -> Result<()> {
        unimplemented_here()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place(Some(self.records.partition_point(|record| parsed(record).internal_key() < target)))
    }

    fn seek_before(&mut self, _: InternalKey<'_>) -> Result<()> {
        unimplemented_here()
    }

    fn next(&mut self) -> Result<()> {
        self.place(self.at.map(|at| at + 1))
    }

    fn prev(&mut self) -> Result<()> {
        unimplemented_here()
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.at.map(|at| parsed(&self.records[at]))
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.at.map(|at| PinnedRecord::new(Arc::clone(&self.records), move |records| parsed(&records[at])))
    }
}

/// A data mover reads once, from front to back.
fn unimplemented_here() -> Result<()> {
    panic!("a run only goes forward")
}
