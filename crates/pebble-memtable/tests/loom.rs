//! Loom models: with nodes of three slots, a few inserts split leaves, inner nodes and the root while a reader is
//! under way.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p pebble-memtable --test loom --release`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use pebble_cursor::Cursor;
use pebble_format::{
    AppendRegion, Appender, HeadPrefix, InternalKey, KeyspaceId, Kind, Seqno, Trailer, record,
};
use pebble_memtable::{Memtable, MemtableWriter};

struct Log {
    writer: MemtableWriter,
    appender: Appender,
}

impl Log {
    fn put(&mut self, key: &[u8], seqno: u64) {
        let (at, trailer) = (self.appender.filled(), Trailer::new(Seqno(seqno), Kind::Put));
        let len = record::encode(self.appender.spare(), KeyspaceId(0), key, trailer, b"").unwrap();
        self.appender.fill(len);
        self.writer.insert(at).unwrap();
    }
}

fn lookup(key: &[u8], seqno: u64) -> InternalKey<'_> {
    InternalKey::lookup(KeyspaceId(0), key, Seqno(seqno))
}

/// Inserts `before`, then `during` beside a reader that is given the memtable, all keys and the published seqno.
fn model(before: &'static [u8], during: &'static [u8], read: fn(&Arc<Memtable>, &[Vec<u8>])) {
    model_behind(b"", before, during, read);
}

/// The same with keys behind a prefix, which nodes learn to skip if it is long.
fn model_behind(
    prefix: &'static [u8],
    before: &'static [u8],
    during: &'static [u8],
    read: fn(&Arc<Memtable>, &[Vec<u8>]),
) {
    let mut builder = loom::model::Builder::new();
    let bound = std::env::var("PEBBLE_LOOM_BOUND").ok().and_then(|bound| bound.parse().ok());
    builder.preemption_bound = Some(bound.unwrap_or(3));
    builder.max_branches = 20_000;
    builder.check(move || {
        let (mut writer, memtable) = Memtable::new(HeadPrefix::none());
        let appender = AppendRegion::heap(1 << 10);
        assert!(writer.attach(appender.region()).unwrap());
        let mut log = Log { writer, appender };
        let keys: Vec<_> = before.iter().chain(during).map(|key| [prefix, &[*key]].concat()).collect();
        for (index, key) in keys[..before.len()].iter().enumerate() {
            log.put(key, index as u64 + 1);
        }
        let published = loom::sync::Arc::new(AtomicU64::new(before.len() as u64));
        let reader = {
            let (memtable, published) = (Arc::clone(&memtable), loom::sync::Arc::clone(&published));
            let keys = keys.clone();
            loom::thread::spawn(move || {
                let visible = usize::try_from(published.load(Ordering::Acquire)).unwrap();
                read(&memtable, &keys[..visible]);
            })
        };
        for (index, key) in keys.iter().enumerate().skip(before.len()) {
            let seqno = index as u64 + 1;
            log.put(key, seqno);
            published.store(seqno, Ordering::Release);
        }
        reader.join().unwrap();
    });
}

fn get_each(memtable: &Arc<Memtable>, visible: &[Vec<u8>]) {
    for (index, key) in visible.iter().enumerate() {
        let seqno = index as u64 + 1;
        assert_eq!(memtable.get(lookup(key, seqno)).map(|record| record.seqno().0), Some(seqno));
    }
}

fn get_last(memtable: &Arc<Memtable>, visible: &[Vec<u8>]) {
    let seqno = visible.len() as u64;
    let found = visible.last().and_then(|key| memtable.get(lookup(key, seqno)));
    assert_eq!(found.map(|record| record.seqno().0), Some(seqno));
}

fn walk(memtable: &Arc<Memtable>, visible: &[Vec<u8>], forward: bool) {
    let (mut cursor, mut seen) = (memtable.cursor(), Vec::new());
    if forward {
        cursor.first().unwrap()
    } else {
        cursor.last().unwrap()
    }
    while let Some(record) = cursor.record() {
        seen.push((record.key().to_vec(), u64::MAX - record.seqno().0));
        if forward { cursor.next().unwrap() } else { cursor.prev().unwrap() }
    }
    if !forward {
        seen.reverse();
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "each once, in order");
    for seqno in 1..=visible.len() as u64 {
        assert!(seen.iter().any(|(_, age)| u64::MAX - age == seqno), "{seqno} of {} missing", visible.len());
    }
}

fn scan_forward(memtable: &Arc<Memtable>, visible: &[Vec<u8>]) {
    walk(memtable, visible, true);
}

fn scan_backward(memtable: &Arc<Memtable>, visible: &[Vec<u8>]) {
    walk(memtable, visible, false);
}

fn seek_before_last(memtable: &Arc<Memtable>, visible: &[Vec<u8>]) {
    let Some(key) = visible.last() else { return };
    let seqno = visible.len() as u64;
    let mut cursor = memtable.cursor();
    cursor.seek_before(lookup(key, seqno - 1)).unwrap();
    assert_eq!(cursor.record().map(|record| record.seqno().0), Some(seqno));
}

/// One leaf under a root is split in the middle, then gets more.
const LEAF: (&[u8], &[u8]) = (&[10, 50, 60, 20, 30], &[40, 25, 35]);
/// The root splits, and a leaf below it.
const ROOT: (&[u8], &[u8]) = (&[10, 50, 90, 30, 70, 20, 40, 60, 80, 15], &[65, 85, 75, 77]);

#[test]
fn gets_beside_a_split_of_a_leaf() {
    model(LEAF.0, LEAF.1, get_last);
}

#[test]
fn gets_beside_a_split_of_the_root_leaf() {
    model(&[10, 30, 50], &[20, 40], get_each);
}

#[test]
fn gets_beside_a_split_of_the_root() {
    model(ROOT.0, ROOT.1, get_last);
}

/// Keys that only what follows the heads of the first leaf tells apart.
const LONG: &[u8] = b"eight bytes and more/";

#[test]
fn gets_beside_a_split_that_skips_a_prefix() {
    model_behind(LONG, LEAF.0, LEAF.1, get_last);
}

#[test]
fn scans_beside_a_split_that_skips_a_prefix() {
    model_behind(LONG, LEAF.0, &LEAF.1[..2], scan_forward);
    model_behind(LONG, LEAF.0, &LEAF.1[..2], scan_backward);
}

#[test]
fn forward_scans_beside_splits() {
    model(LEAF.0, LEAF.1, scan_forward);
}

#[test]
fn backward_scans_beside_splits() {
    model(LEAF.0, LEAF.1, scan_backward);
}

#[test]
fn scans_beside_a_split_of_the_root() {
    model(ROOT.0, &ROOT.1[..2], scan_forward);
}

#[test]
fn backward_seeks_beside_splits() {
    model(ROOT.0, ROOT.1, seek_before_last);
}

#[test]
fn gets_beside_runs_of_neighbours() {
    model(&[10, 20, 30], &[40, 50, 60, 70], get_last);
    model(&[70, 60, 50], &[40, 30, 20, 10], get_last);
    model(&[9, 9, 9], &[9, 9, 9, 9], get_last);
}
