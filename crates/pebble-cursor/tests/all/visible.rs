//! `Visible` over `Merge` against a map of what each reader sees.

use std::collections::BTreeMap;
use std::ops::Bound;

use pebble_cursor::{Layers, Merge, Visible};
use pebble_format::{KeyspaceId, Kind, Seqno};
use proptest::prelude::*;

use crate::model::{VecCursor, any_key, any_records, cases, encoded, parsed, sorted};

pub type Bounds = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);

/// Key and sequence number of each record that is seen.
fn seen(records: &[Vec<u8>], keyspace: u16, (lo, hi): &Bounds, seqno: u64) -> Vec<(Vec<u8>, u64)> {
    let mut newest = BTreeMap::new();
    for record in records.iter().map(|bytes| parsed(bytes)) {
        let after_lo = match lo {
            Bound::Unbounded => true,
            Bound::Included(lo) => record.key() >= &**lo,
            Bound::Excluded(lo) => record.key() > &**lo,
        };
        let before_hi = match hi {
            Bound::Unbounded => true,
            Bound::Included(hi) => record.key() <= &**hi,
            Bound::Excluded(hi) => record.key() < &**hi,
        };
        if record.keyspace().0 == keyspace && record.seqno().0 <= seqno && after_lo && before_hi {
            let version = newest.entry(record.key().to_vec()).or_insert(record);
            if version.seqno() < record.seqno() {
                *version = record;
            }
        }
    }
    let shown = newest.into_iter().filter(|(_, record)| !record.is_tombstone());
    shown.map(|(key, record)| (key, record.seqno().0)).collect()
}

#[derive(Clone, Debug)]
pub enum Walk {
    First,
    Last,
    Next,
    Prev,
    Seek(Vec<u8>),
    SeekForPrev(Vec<u8>),
}

pub fn any_walk() -> impl Strategy<Value = Vec<Walk>> {
    let one = prop_oneof![
        1 => Just(Walk::First),
        1 => Just(Walk::Last),
        6 => Just(Walk::Next),
        6 => Just(Walk::Prev),
        2 => any_key().prop_map(Walk::Seek),
        2 => any_key().prop_map(Walk::SeekForPrev),
    ];
    proptest::collection::vec(one, 1..60)
}

pub fn any_bound() -> impl Strategy<Value = Bound<Box<[u8]>>> {
    prop_oneof![
        Just(Bound::Unbounded),
        any_key().prop_map(|key| Bound::Included(key.into())),
        any_key().prop_map(|key| Bound::Excluded(key.into())),
    ]
}

pub fn assert_walk<C: Layers>(visible: &mut Visible<C>, shown: &[(Vec<u8>, u64)], walk: &[Walk]) {
    let mut at: Option<usize> = None;
    for (index, step) in walk.iter().enumerate() {
        at = match step {
            Walk::First => Some(0),
            Walk::Last => shown.len().checked_sub(1),
            Walk::Next => at.map(|at| at + 1),
            Walk::Prev => at.and_then(|at| at.checked_sub(1)),
            Walk::Seek(key) => Some(shown.partition_point(|(have, _)| have < key)),
            Walk::SeekForPrev(key) => shown.partition_point(|(have, _)| have <= key).checked_sub(1),
        };
        at = at.filter(|at| *at < shown.len());
        match step {
            Walk::First => visible.first(),
            Walk::Last => visible.last(),
            Walk::Next => visible.next(),
            Walk::Prev => visible.prev(),
            Walk::Seek(key) => visible.seek(key),
            Walk::SeekForPrev(key) => visible.seek_for_prev(key),
        }
        .unwrap();
        let expected = at.map(|at| shown[at].clone());
        let got = visible.record().map(|record| (record.key().to_vec(), record.seqno().0));
        assert_eq!(got, expected, "step {index} of {walk:?}");
        let pinned = visible.pinned().map(|record| (record.key().to_vec(), record.record().seqno().0));
        assert_eq!(pinned, expected);
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_reader_sees_what_the_map_says(
        records in any_records(60), seqno in 0..60_u64, lo in any_bound(), hi in any_bound(),
        keyspace in prop_oneof![3 => Just(1_u16), 1 => Just(u16::MAX), 1 => Just(7_u16)], walk in any_walk(),
    ) {
        let bounds = (lo, hi);
        let shown = seen(&records, keyspace, &bounds, seqno);
        let runs = records.chunks(records.len() / 3 + 1).map(|run| VecCursor::new(sorted(run.to_vec()))).collect();
        let mut visible = Visible::new(Merge::new(runs), KeyspaceId(keyspace), bounds.0, bounds.1, Seqno(seqno));
        assert_walk(&mut visible, &shown, &walk);
    }

    #[test]
    fn long_rows_of_versions_are_jumped(
        counts in proptest::collection::vec(0..90_u64, 1..6), seqno in 0..400_u64, gap in 2..40_u64, walk in any_walk(),
    ) {
        let mut number = 0;
        let mut records = vec![];
        for (key, count) in (0_u8..).zip(&counts) {
            for _ in 0..*count {
                number += 1;
                records.push(encoded(1, &[key], number, if number % gap == 0 { Kind::Delete } else { Kind::Put }));
            }
        }
        let shown = seen(&records, 1, &(Bound::Unbounded, Bound::Unbounded), seqno);
        let cursor = Merge::new(vec![VecCursor::new(sorted(records))]);
        let mut visible = Visible::new(cursor, KeyspaceId(1), Bound::Unbounded, Bound::Unbounded, Seqno(seqno));
        assert_walk(&mut visible, &shown, &walk);
    }
}

#[test]
fn a_long_row_of_tombstones_is_reported_once() {
    let key = |n: u64| n.to_be_bytes();
    let dead = (1..=600).map(|n| encoded(0, &key(n), n + 1, Kind::Delete));
    let records = sorted(
        dead.chain([encoded(0, &key(0), 1, Kind::Put), encoded(0, &key(601), 9, Kind::Put)]).collect(),
    );
    let cursor = Merge::new(vec![VecCursor::new(records)]);
    let mut visible = Visible::new(cursor, KeyspaceId(0), Bound::Unbounded, Bound::Unbounded, Seqno(5_000));
    visible.first().unwrap();
    assert_eq!(visible.take_hole(), None);
    visible.next().unwrap();
    assert_eq!(visible.record().map(|record| record.key().to_vec()), Some(key(601).to_vec()));
    let hole = visible.take_hole().expect("600 tombstones were passed");
    assert_eq!((hole.start, hole.passed), (Bound::Excluded(key(0).as_slice().into()), 600));
    assert_eq!(visible.take_hole(), None);
    visible.prev().unwrap();
    assert_eq!(visible.record().map(|record| record.key().to_vec()), Some(key(0).to_vec()));
    assert!(visible.take_hole().is_some(), "and again on the way back");
    for n in [1, 7] {
        // Whatever was shown before a seek is no part of its hole.
        visible.seek(&key(0)).unwrap();
        visible.seek(&key(n)).unwrap();
        let start = visible.take_hole().map(|hole| hole.start);
        assert_eq!(start, Some(Bound::Included(key(n).as_slice().into())));
    }
    visible.seek(&key(601)).unwrap();
    visible.next().unwrap();
    visible.seek(&key(9)).unwrap();
    assert_eq!(visible.take_hole().map(|hole| hole.start), Some(Bound::Included(key(9).as_slice().into())));
}

#[test]
fn what_is_passed_is_counted() {
    let records = sorted(vec![
        encoded(0, b"a", 9, Kind::Put),
        encoded(0, b"a", 4, Kind::Put),
        encoded(0, b"a", 2, Kind::Put),
        encoded(0, b"b", 5, Kind::Delete),
        encoded(0, b"b", 1, Kind::Put),
        encoded(0, b"c", 3, Kind::Put),
    ]);
    let visible = || {
        let cursor = Merge::new(vec![VecCursor::new(records.clone())]);
        Visible::new(cursor, KeyspaceId(0), Bound::Unbounded, Bound::Unbounded, Seqno(5))
    };
    let (mut forward, mut backward) = (visible(), visible());
    forward.seek(b"").unwrap();
    backward.last().unwrap();
    while forward.record().is_some() {
        forward.next().unwrap();
    }
    while backward.record().is_some() {
        backward.prev().unwrap();
    }
    assert_eq!((forward.skipped(), backward.skipped()), (4, 4));
}
