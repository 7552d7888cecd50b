//! Range deletes over layers in the order of time, against a map; and how far a hole is jumped.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use pebble_cursor::{Cursor, Merge, RangeDelete, RangeDeletes, Veil, Visible};
use pebble_format::{InternalKey, KeyspaceId, Kind, PinnedRecord, RecordRef, Result, Seqno, Trailer, record};
use proptest::prelude::*;

use crate::model::{VecCursor, any_key, cases, encoded, parsed, sorted};
use crate::visible::{Bounds, any_bound, any_walk, assert_walk};

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

fn range_delete(start: &[u8], end: &[u8], seqno: u64) -> Vec<u8> {
    let mut bytes = vec![0; record::encoded_len(start.len(), end.len())];
    let trailer = Trailer::new(Seqno(seqno), Kind::RangeDelete);
    record::encode(&mut bytes, KeyspaceId(1), start, trailer, end).unwrap();
    bytes
}

fn any_ops() -> impl Strategy<Value = Vec<Op>> {
    let one = prop_oneof![
        6 => any_key().prop_map(Op::Put),
        1 => any_key().prop_map(Op::Delete),
        2 => (any_key(), any_key()).prop_map(|(a, b)| Op::DeleteRange(a, b)),
    ];
    // Dense runs of keys, so that there is something to jump over.
    let dense = (0..200_u8, 10..50_u8).prop_map(|(from, len)| {
        (from..from.saturating_add(len)).map(|key| Op::Put(vec![key])).collect::<Vec<_>>()
    });
    let block = prop_oneof![2 => dense, 3 => proptest::collection::vec(one, 1..12)];
    proptest::collection::vec(block, 1..8).prop_map(|blocks| blocks.concat())
}

/// An empty range is no record, and takes no number.
fn is_record(op: &Op) -> bool {
    !matches!(op, Op::DeleteRange(start, end) if !end.is_empty() && end <= start)
}

/// What a reader at `seqno` sees, one operation after another.
fn seen(ops: &[Op], (lo, hi): &Bounds, seqno: u64) -> Vec<(Vec<u8>, u64)> {
    let mut map = BTreeMap::new();
    for (op, n) in ops.iter().zip(1..=seqno) {
        match op {
            Op::Put(key) => _ = map.insert(key.clone(), n),
            Op::Delete(key) => _ = map.remove(key),
            Op::DeleteRange(start, end) => {
                map.retain(|key, _| key < start || !end.is_empty() && key >= end);
            }
        }
    }
    let above = |key: &[u8]| match lo {
        Bound::Unbounded => true,
        Bound::Included(lo) => key >= &**lo,
        Bound::Excluded(lo) => key > &**lo,
    };
    let below = |key: &[u8]| match hi {
        Bound::Unbounded => true,
        Bound::Included(hi) => key <= &**hi,
        Bound::Excluded(hi) => key < &**hi,
    };
    map.into_iter().filter(|(key, _)| above(key) && below(key)).collect()
}

/// The records of all operations in layers, the newest first, with the veil of each.
fn layers(ops: &[Op], count: usize) -> (Vec<VecCursor>, Vec<Veil>) {
    let records: Vec<Vec<u8>> = ops
        .iter()
        .zip(1..)
        .filter_map(|(op, n)| match op {
            Op::Put(key) => Some(encoded(1, key, n, Kind::Put)),
            Op::Delete(key) => Some(encoded(1, key, n, Kind::Delete)),
            Op::DeleteRange(start, end) => {
                (end.is_empty() || start < end).then(|| range_delete(start, end, n))
            }
        })
        .collect();
    let chunks: Vec<_> = records.chunks(records.len() / count + 1).rev().collect();
    let veil = |(layer, chunk): (usize, &&[Vec<u8>])| {
        let deletes: RangeDeletes = chunk.iter().filter_map(|bytes| RangeDelete::of(parsed(bytes))).collect();
        (!deletes.is_empty()).then(|| Veil { deletes: Arc::new(deletes), layer, whole: false })
    };
    let veils = chunks.iter().enumerate().filter_map(veil).collect();
    (chunks.iter().map(|chunk| VecCursor::new(sorted(chunk.to_vec()))).collect(), veils)
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_reader_sees_what_range_deletes_leave(
        ops in any_ops(), count in 1..6_usize, part in 0..=100_u64, lo in any_bound(), hi in any_bound(),
        walk in any_walk(),
    ) {
        let ops: Vec<_> = ops.into_iter().filter(is_record).collect();
        let seqno = ops.len() as u64 * part / 100;
        let (cursors, veils) = layers(&ops, count);
        let bounds = (lo, hi);
        let shown = seen(&ops, &bounds, seqno);
        let merge = Merge::new(cursors);
        let mut visible = Visible::new(merge, KeyspaceId(1), bounds.0, bounds.1, Seqno(seqno)).below(veils);
        assert_walk(&mut visible, &shown, &walk);
    }
}

/// The longest range from `start` on in which nothing is shown to a reader at `seqno`, as a range delete of that
/// number.
fn bare(ops: &[Op], start: &[u8], seqno: u64) -> Option<RangeDelete> {
    let shown = seen(ops, &(Bound::Included(start.into()), Bound::Unbounded), seqno);
    let end = shown.first().map_or(Vec::new(), |(key, _)| key.clone());
    let holds = end.is_empty() || *start < *end;
    holds.then(|| RangeDelete {
        keyspace: KeyspaceId(1),
        start: start.into(),
        end: end.into(),
        seqno: Seqno(seqno),
    })
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// What a reader at some number found bare in all layers spares later readers the way, and changes nothing for
    /// them, nor for readers before it: if nothing newer lies there in the newest layer.
    #[test]
    fn a_bare_range_is_begun_behind(
        ops in any_ops(), count in 1..6_usize, part in 50..=100_u64, start in any_key(), at in 0..=100_u64,
        lo in any_bound(), hi in any_bound(), walk in any_walk(),
    ) {
        let ops: Vec<_> = ops.into_iter().filter(is_record).collect();
        let newest = ops.len() as u64;
        let known = newest * part / 100;
        let bare = bare(&ops[..known as usize], &start, known);
        let put_since = |range: &RangeDelete| ops[known as usize..].iter().any(|op| {
            matches!(op, Op::Put(key) if range.covers(KeyspaceId(1), key))
        });
        let Some(range) = bare.filter(|range| !put_since(range)) else { return Ok(()) };
        let (cursors, mut veils) = layers(&ops, count);
        veils.push(Veil { deletes: Arc::new([range].into_iter().collect()), layer: 0, whole: true });
        let bounds = (lo, hi);
        let seqno = newest * at / 100;
        let shown = seen(&ops, &bounds, seqno);
        let merge = Merge::new(cursors);
        let mut visible = Visible::new(merge, KeyspaceId(1), bounds.0, bounds.1, Seqno(seqno)).below(veils);
        assert_walk(&mut visible, &shown, &walk);
    }
}

/// Counts the calls that move it.
struct Counting(VecCursor, Rc<Cell<u64>>);

impl Counting {
    fn count(&self) {
        self.1.set(self.1.get() + 1);
    }
}

impl Cursor for Counting {
    fn first(&mut self) -> Result<()> {
        self.count();
        self.0.first()
    }

    fn last(&mut self) -> Result<()> {
        self.count();
        self.0.last()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.count();
        self.0.seek(target)
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.count();
        self.0.seek_before(target)
    }

    fn next(&mut self) -> Result<()> {
        self.count();
        self.0.next()
    }

    fn prev(&mut self) -> Result<()> {
        self.count();
        self.0.prev()
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.0.record()
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.0.pinned()
    }
}

#[test]
fn a_hole_is_jumped_from_both_sides() {
    let key = |n: u32| n.to_be_bytes();
    let old: Vec<_> = (0..10_000).map(|n| encoded(1, &key(n), u64::from(n) + 1, Kind::Put)).collect();
    let hole = range_delete(&key(10), &key(9_990), 20_000);
    let new = vec![hole.clone(), encoded(1, &key(5_000), 20_001, Kind::Put)];
    let deletes: RangeDeletes = RangeDelete::of(parsed(&hole)).into_iter().collect();
    let moves = Rc::new(Cell::new(0));
    let layers = [new, old].map(|records| Counting(VecCursor::new(sorted(records)), Rc::clone(&moves)));
    let merge = Merge::new(layers.into());
    let veil = Veil { deletes: Arc::new(deletes), layer: 0, whole: false };
    let mut visible = Visible::new(merge, KeyspaceId(1), Bound::Unbounded, Bound::Unbounded, Seqno(30_000))
        .below(vec![veil]);
    let expected: Vec<_> = (0..10).chain([5_000]).chain(9_990..10_000).map(|n| key(n).to_vec()).collect();

    let mut forward = vec![];
    visible.first().unwrap();
    while let Some(record) = visible.record() {
        forward.push(record.key().to_vec());
        visible.next().unwrap();
    }
    assert_eq!(forward, expected);
    let mut backward = vec![];
    visible.last().unwrap();
    while let Some(record) = visible.record() {
        backward.insert(0, record.key().to_vec());
        visible.prev().unwrap();
    }
    assert_eq!(backward, expected);
    assert!(
        visible.take_hole().is_none_or(|hole| hole.passed < 40),
        "a hole that is jumped costs next to nothing"
    );
    assert!(moves.get() < 200, "{} moves over a hole of 9,980 keys, twice", moves.get());
}
