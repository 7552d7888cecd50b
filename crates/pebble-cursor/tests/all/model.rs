//! Cursors in memory, the naive model of a sorted sequence, and the walks that both are driven with.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::{
    Corruption, Error, InternalKey, KeyspaceId, Kind, OwnedKey, PinnedRecord, RecordRef, Result, Seqno,
    Trailer, record,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// So many cases, the same ones in every run.
pub fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(2),
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
    }
}

/// One record, encoded.
pub fn encoded(keyspace: u16, key: &[u8], seqno: u64, kind: Kind) -> Vec<u8> {
    let value = format!("v{seqno}");
    let value = if kind == Kind::Put { value.as_bytes() } else { b"" };
    let mut bytes = vec![0; record::encoded_len(key.len(), value.len())];
    record::encode(&mut bytes, KeyspaceId(keyspace), key, Trailer::new(Seqno(seqno), kind), value).unwrap();
    bytes
}

pub fn parsed(bytes: &[u8]) -> RecordRef<'_> {
    RecordRef::parse(bytes).unwrap()
}

/// Records in order, shared.
pub type Records = Arc<Vec<Vec<u8>>>;

pub fn sorted(mut records: Vec<Vec<u8>>) -> Records {
    records.sort_by(|a, b| parsed(a).internal_key().cmp(&parsed(b).internal_key()));
    Arc::new(records)
}

/// A cursor over records in memory, and the model of what a cursor is.
#[derive(Clone, Debug)]
pub struct VecCursor {
    pub records: Records,
    pub at: Option<usize>,
}

impl VecCursor {
    pub fn new(records: Records) -> Self {
        Self { records, at: None }
    }

    fn lower_bound(&self, target: InternalKey<'_>) -> usize {
        self.records.partition_point(|record| parsed(record).internal_key() < target)
    }

    fn place(&mut self, at: Option<usize>) -> Result<()> {
        self.at = at.filter(|at| *at < self.records.len());
        Ok(())
    }
}

impl Cursor for VecCursor {
    fn first(&mut self) -> Result<()> {
        self.place(Some(0))
    }

    fn last(&mut self) -> Result<()> {
        self.place(self.records.len().checked_sub(1))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place(Some(self.lower_bound(target)))
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place(self.lower_bound(target).checked_sub(1))
    }

    fn next(&mut self) -> Result<()> {
        self.place(self.at.map(|at| at + 1))
    }

    fn prev(&mut self) -> Result<()> {
        self.place(self.at.and_then(|at| at.checked_sub(1)))
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.at.map(|at| parsed(&self.records[at]))
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.at.map(|at| PinnedRecord::new(Arc::clone(&self.records), move |records| parsed(&records[at])))
    }
}

/// Fails at the n-th call that moves any cursor of a group, and from then on as C5 asks.
#[derive(Clone, Debug)]
pub struct Failing {
    pub inner: VecCursor,
    pub calls_left: Rc<Cell<u32>>,
    failed: bool,
}

impl Failing {
    pub fn new(inner: VecCursor, calls_left: &Rc<Cell<u32>>) -> Self {
        Self { inner, calls_left: Rc::clone(calls_left), failed: false }
    }

    fn call(&mut self, movement: impl FnOnce(&mut VecCursor) -> Result<()>) -> Result<()> {
        let left = self.calls_left.get();
        self.calls_left.set(left.saturating_sub(1));
        self.failed |= left == 1;
        if self.failed { Err(injected()) } else { movement(&mut self.inner) }
    }
}

pub fn injected() -> Error {
    Corruption::new("injected", 7, 1, 2).into()
}

impl Cursor for Failing {
    fn first(&mut self) -> Result<()> {
        self.call(VecCursor::first)
    }

    fn last(&mut self) -> Result<()> {
        self.call(VecCursor::last)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.call(|inner| inner.seek(target))
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.call(|inner| inner.seek_before(target))
    }

    fn next(&mut self) -> Result<()> {
        self.call(VecCursor::next)
    }

    fn prev(&mut self) -> Result<()> {
        self.call(VecCursor::prev)
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        if self.failed { None } else { self.inner.record() }
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        if self.failed { None } else { self.inner.pinned() }
    }
}

/// One call on a cursor.
#[derive(Clone, Debug)]
pub enum Move {
    First,
    Last,
    Next,
    Prev,
    Seek(OwnedKey),
    SeekBefore(OwnedKey),
}

impl Move {
    pub fn apply(&self, cursor: &mut impl Cursor) -> Result<()> {
        match self {
            Self::First => cursor.first(),
            Self::Last => cursor.last(),
            Self::Next => cursor.next(),
            Self::Prev => cursor.prev(),
            Self::Seek(key) => cursor.seek(key.as_ref()),
            Self::SeekBefore(key) => cursor.seek_before(key.as_ref()),
        }
    }
}

/// Short keys over a small alphabet with its extremes, some sharing eight bytes and more: neighbours, prefixes,
/// equal heads.
pub fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(proptest::sample::select(vec![0_u8, b'a', b'b', 0xff]), 0..3);
    prop_oneof![bytes(), bytes().prop_map(|tail| [b"long prefix ".to_vec(), tail].concat())]
}

pub fn any_keyspace() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(1_u16), 1 => Just(0_u16), 1 => Just(2_u16), 1 => Just(u16::MAX)]
}

/// Records with unique sequence numbers, in no order.
pub fn any_records(count: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = (any_keyspace(), any_key(), proptest::bool::weighted(0.3));
    proptest::collection::vec(one, 0..count).prop_map(|specs| {
        let numbered = specs.into_iter().zip(1_u64..);
        numbered
            .map(|((keyspace, key, delete), seqno)| {
                encoded(keyspace, &key, seqno, if delete { Kind::Delete } else { Kind::Put })
            })
            .collect()
    })
}

fn any_target() -> impl Strategy<Value = OwnedKey> {
    (any_keyspace(), any_key(), 0_u64..60).prop_map(|(keyspace, key, seqno)| {
        OwnedKey::new(InternalKey::lookup(KeyspaceId(keyspace), &key, Seqno(seqno)))
    })
}

pub fn any_moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        6 => Just(Move::Next),
        6 => Just(Move::Prev),
        2 => any_target().prop_map(Move::Seek),
        2 => any_target().prop_map(Move::SeekBefore),
    ];
    proptest::collection::vec(one, 1..60)
}

/// Drives both and compares every position.
pub fn assert_same_walk(cursor: &mut impl Cursor, model: &mut VecCursor, moves: &[Move]) {
    assert!(cursor.record().is_none(), "new cursors stand nowhere");
    for (index, movement) in moves.iter().enumerate() {
        movement.apply(cursor).unwrap();
        movement.apply(model).unwrap();
        let raw = |record: Option<RecordRef<'_>>| record.map(|record| record.raw().to_vec());
        assert_eq!(raw(cursor.record()), raw(model.record()), "move {index} of {moves:?}");
        assert_eq!(cursor.is_positioned(), cursor.record().is_some());
        let pinned = cursor.pinned();
        assert_eq!(raw(pinned.as_ref().map(PinnedRecord::record)), raw(model.record()));
    }
}

/// Drives a cursor whose children fail at some call: equal to the model until then, and the same error afterwards.
pub fn assert_sticks(cursor: &mut impl Cursor, model: &mut VecCursor, moves: &[Move]) {
    let mut failed = false;
    for movement in moves {
        let done = movement.apply(cursor);
        movement.apply(model).unwrap();
        assert!(!failed || done.is_err(), "went on behind an error");
        failed |= done.is_err();
        if let Err(error) = done {
            assert_eq!(error.to_string(), injected().to_string());
            assert!(cursor.record().is_none() && cursor.pinned().is_none() && !cursor.is_positioned());
        } else {
            assert_eq!(cursor.record().map(|r| r.raw()), model.record().map(|r| r.raw()));
        }
    }
}
