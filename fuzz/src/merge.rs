//! The read algebra: layers of records with tombstones of keys and ranges, merged and walked.
//!
//! ```text
//!   input = counts u8, reader u8, bounds, operations oldest first, moves
//! ```
//!
//! The newest layer is a memtable, the others are runs of small tables, split where the input says.
//!
//! Oracle: the merge is the sorted list of all records, forward and backward; and what a reader sees of it at his
//! sequence number, within his bounds, below the range deletes of all layers, is what a map says after the operations
//! up to it.
//!
//! Threading: as every body.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use pebble_cursor::{Concat, Cursor, Merge, RangeDelete, RangeDeletes, Veil, Visible};
use pebble_format::{AppendRegion, HeadPrefix, KeyspaceId, Kind, RecordRef, Seqno};
use pebble_memtable::Memtable;
use pebble_sstable::{PointIndex, TableOptions, TableRun};

use crate::input::Input;
use crate::records::{encoded, key_of, parsed, sorted};
use crate::tables::{open, written};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "merge", run, repair: None, seeds, rounds: 8_000 };

const OPS_MAX: usize = 192;
const MOVES_MAX: usize = 192;

/// One write to the keyspace that is read, or a put to another one.
#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Elsewhere(u16, Vec<u8>),
}

const OWN: u16 = 1;

impl Op {
    fn draw(input: &mut Input<'_>) -> Vec<Self> {
        let choice = input.u8();
        match choice % 8 {
            0..=3 => vec![Self::Put(input.key())],
            4 => vec![Self::Delete(input.key())],
            5 => vec![Self::DeleteRange(input.key(), input.key())],
            6 => vec![Self::Elsewhere([0, 2, u16::MAX][usize::from(choice >> 4) % 3], input.key())],
            // A dense run of keys, so that there is something to jump over.
            _ => {
                let (from, len) = (input.u8(), choice >> 3);
                (from..from.saturating_add(len)).map(|key| Self::Put(vec![b'a', key])).collect()
            }
        }
    }

    /// The record that it makes as the `seqno`-th; an empty range makes none.
    fn record(&self, seqno: u64) -> Option<Vec<u8>> {
        let value = seqno.to_le_bytes();
        match self {
            Self::Put(key) => Some(encoded(OWN, key, seqno, Kind::Put, &value)),
            Self::Delete(key) => Some(encoded(OWN, key, seqno, Kind::Delete, b"")),
            Self::DeleteRange(start, end) => {
                let holds = end.is_empty() || end > start;
                holds.then(|| encoded(OWN, start, seqno, Kind::RangeDelete, end))
            }
            Self::Elsewhere(keyspace, key) => Some(encoded(*keyspace, key, seqno, Kind::Put, &value)),
        }
    }
}

type Bounds = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);

fn bound(input: &mut Input<'_>) -> Bound<Box<[u8]>> {
    match input.u8() % 4 {
        0 | 1 => Bound::Unbounded,
        2 => Bound::Included(input.key().into()),
        _ => Bound::Excluded(input.key().into()),
    }
}

/// Keys and the numbers of their puts, as a reader sees them.
fn seen(ops: &[Op], (lo, hi): &Bounds, seqno: u64) -> Vec<(Vec<u8>, u64)> {
    let mut map = BTreeMap::new();
    for (op, n) in ops.iter().zip(1..=seqno) {
        match op {
            Op::Put(key) => _ = map.insert(key.clone(), n),
            Op::Delete(key) => _ = map.remove(key),
            Op::DeleteRange(start, end) => map.retain(|key, _| key < start || !end.is_empty() && key >= end),
            Op::Elsewhere(..) => {}
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

type Child = Box<dyn Cursor>;

/// A memtable of these records, and its veil.
fn memtable(records: &[Vec<u8>]) -> (Child, Option<Arc<RangeDeletes>>) {
    let mut appender = AppendRegion::heap(records.iter().map(Vec::len).sum());
    let (mut writer, memtable) = Memtable::new(HeadPrefix::none());
    assert!(writer.attach(appender.region()).unwrap());
    for record in records {
        let at = appender.filled();
        appender.spare()[..record.len()].copy_from_slice(record);
        appender.fill(record.len());
        writer.insert(at).unwrap();
    }
    (Box::new(memtable.cursor()), memtable.range_deletes())
}

/// A run of tables of these records, parted behind every so many user keys, and its veil.
fn run_of(records: &[Vec<u8>], per_table: usize) -> (Child, Option<Arc<RangeDeletes>>) {
    let options = TableOptions { block_len: 64, index: PointIndex::None, ..TableOptions::default() };
    let mut tables = Vec::new();
    let mut part: Vec<&Vec<u8>> = Vec::new();
    for record in records {
        let new_key = part.last().is_none_or(|last| !key_of(last).same_key(&key_of(record)));
        if new_key && part.len() >= per_table {
            tables.push(open(&written(part.drain(..).map(|own| parsed(own)), options.clone())).unwrap());
        }
        part.push(record);
    }
    tables.push(open(&written(part.iter().map(|own| parsed(own)), options)).unwrap());
    let deletes: Vec<RangeDelete> = records.iter().filter_map(|own| RangeDelete::of(parsed(own))).collect();
    let veil = (!deletes.is_empty()).then(|| Arc::new(RangeDeletes::new(deletes)));
    (Box::new(Concat::new(TableRun(tables.into()))), veil)
}

/// All operations in layers, the newest first.
fn layers(ops: &[Op], count: usize, per_table: usize) -> (Vec<Child>, Vec<Veil>) {
    let records: Vec<Vec<u8>> = ops.iter().zip(1..).filter_map(|(op, seqno)| op.record(seqno)).collect();
    let (mut children, mut veils): (Vec<Child>, Vec<Veil>) = (Vec::new(), Vec::new());
    for part in records.chunks(records.len().div_ceil(count).max(1)).rev() {
        let (child, deletes) = match children.len() {
            0 => memtable(part),
            _ => run_of(&sorted(part.to_vec()), per_table),
        };
        veils.extend(deletes.map(|deletes| Veil { deletes, layer: children.len(), whole: false }));
        children.push(child);
    }
    (children, veils)
}

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let counts = input.u8();
    let (layer_count, per_table) = (1 + usize::from(counts & 3), 1 + usize::from(counts >> 2 & 7));
    let reader = u64::from(input.u8());
    let bounds = (bound(&mut input), bound(&mut input));
    let op_count = usize::from(input.u8()) % OPS_MAX;
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < op_count {
        ops.extend(Op::draw(&mut input));
    }
    // An even reader is one of the present.
    let reader = if reader % 2 == 0 { ops.len() as u64 } else { reader.min(ops.len() as u64) };

    let all = sorted(ops.iter().zip(1..).filter_map(|(op, seqno)| op.record(seqno)).collect());
    let (children, veils) = layers(&ops, layer_count, per_table);
    let mut merge = Merge::new(children);
    assert_merged(&mut merge, &all);

    let model = seen(&ops, &bounds, reader);
    let (lo, hi) = bounds;
    let mut view = Visible::new(merge, KeyspaceId(OWN), lo.clone(), hi.clone(), Seqno(reader)).below(veils);
    let mut at: Option<usize> = None;
    for _ in 0..MOVES_MAX {
        if input.is_empty() {
            break;
        }
        at = match input.u8() % 8 {
            0 => view.first().map(|()| (!model.is_empty()).then_some(0)),
            1 => view.last().map(|()| model.len().checked_sub(1)),
            2 | 3 => view.next().map(|()| at.map(|at| at + 1)),
            4 | 5 => view.prev().map(|()| at.and_then(|at| at.checked_sub(1))),
            6 => {
                let key = input.key();
                view.seek(&key).map(|()| Some(model.partition_point(|(own, _)| *own < key)))
            }
            _ => {
                let key = input.key();
                view.seek_for_prev(&key)
                    .map(|()| model.partition_point(|(own, _)| *own <= key).checked_sub(1))
            }
        }
        .unwrap()
        .filter(|at| *at < model.len());
        let shown = |record: RecordRef<'_>| (record.key().to_vec(), record.seqno().0);
        let wanted = at.map(|at| model[at].clone());
        assert_eq!(view.record().map(shown), wanted);
        assert_eq!(view.pinned().map(|pinned| shown(pinned.record())), wanted);
    }
}

fn assert_merged(merge: &mut Merge<Child>, all: &[Vec<u8>]) {
    let raw = |merge: &Merge<Child>| merge.record().map(|record| record.raw().to_vec());
    merge.first().unwrap();
    for record in all {
        assert_eq!(raw(merge).as_ref(), Some(record));
        merge.next().unwrap();
    }
    assert_eq!(raw(merge), None);
    merge.last().unwrap();
    for (at, record) in all.iter().enumerate().rev() {
        assert_eq!(raw(merge).as_ref(), Some(record));
        // Turns around now and then.
        if at % 7 == 3 {
            merge.next().unwrap();
            assert_eq!(raw(merge).as_ref(), all.get(at + 1));
            match all.get(at + 1) {
                Some(_) => merge.prev().unwrap(),
                None => merge.last().unwrap(),
            }
            assert_eq!(raw(merge).as_ref(), Some(record));
        }
        merge.prev().unwrap();
    }
    assert_eq!(raw(merge), None);
}

fn seeds() -> Vec<Seed> {
    let mut rng = crate::Rng(3);
    let moves = [0, 2, 2, 4, 5, 1, 4, 2, 6, 3, 0x1b, 7, 2, 5, 2, 4];
    let dense =
        [&[3 | 2 << 2, 0, 0, 0, 9, 7 | 0xf0, 0, 5, 0, 0, 1, 1, 7 | 0xa0, 3, 4, 1, 2][..], &moves].concat();
    let random = |rng: &mut crate::Rng, counts: u8, reader: u8| {
        [&[counts, reader, 0, 0, 40][..], &rng.bytes(220)].concat()
    };
    vec![
        ("dense", dense),
        ("present", random(&mut rng, 0x0d, 0)),
        ("past", random(&mut rng, 0x0a, 21)),
        ("one_layer", random(&mut rng, 0, 7)),
    ]
}
