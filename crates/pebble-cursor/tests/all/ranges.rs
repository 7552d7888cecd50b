//! Range deletes against a list that is gone through from end to end.

use std::sync::Arc;

use pebble_cursor::{RangeDelete, RangeDeletes};
use pebble_format::{KeyspaceId, Kind, RecordRef, Seqno, Trailer, record};
use proptest::prelude::*;

const KEYS: [&[u8]; 8] = [b"", b"\0", b"a", b"a\0", b"b", b"bb", b"c", b"\xff"];

fn delete(keyspace: u16, start: &[u8], end: &[u8], seqno: u64) -> RangeDelete {
    RangeDelete { keyspace: KeyspaceId(keyspace), start: start.into(), end: end.into(), seqno: Seqno(seqno) }
}

/// Range deletes that hold a key, in the order of time.
fn deletes() -> impl Strategy<Value = Vec<RangeDelete>> {
    let one = (0..3_u16, 0..KEYS.len(), 0..KEYS.len());
    prop::collection::vec(one, 0..12).prop_map(|list| {
        let numbered = list.into_iter().zip(1..);
        let made = numbered.map(|((keyspace, a, b), n)| delete(keyspace, KEYS[a], KEYS[b], n * 2));
        made.filter(|d| d.end.is_empty() || d.start < d.end).collect()
    })
}

fn naive(list: &[RangeDelete], keyspace: KeyspaceId, key: &[u8], at: u64) -> Option<u64> {
    let covers = |d: &&RangeDelete| {
        d.keyspace == keyspace && *d.start <= *key && (d.end.is_empty() || *key < *d.end) && d.seqno.0 <= at
    };
    list.iter().filter(covers).map(|d| d.seqno.0).max()
}

fn agree(built: &RangeDeletes, list: &[RangeDelete]) -> Result<(), TestCaseError> {
    for keyspace in (0..4).map(KeyspaceId) {
        for key in KEYS {
            for at in 0..26 {
                let found = built.covering(keyspace, key, Seqno(at)).map(|d| d.seqno.0);
                prop_assert_eq!(found, naive(list, keyspace, key, at));
            }
            let span = built.span(keyspace, key).map(|d| d.seqno.0);
            prop_assert_eq!(span, naive(list, keyspace, key, u64::MAX));
        }
    }
    for pair in built.spans().windows(2) {
        let apart = pair[0].keyspace < pair[1].keyspace
            || pair[0].keyspace == pair[1].keyspace
                && !pair[0].end.is_empty()
                && pair[0].end <= pair[1].start;
        prop_assert!(apart, "spans overlap");
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_key_finds_the_newest_that_covers_it(list in deletes()) {
        let built = RangeDeletes::new(list.iter().rev().cloned().collect());
        agree(&built, &list)?;
        for at in 0..26 {
            let seen: Vec<_> = list.iter().filter(|d| d.seqno.0 <= at).cloned().collect();
            agree(&built.as_of(Seqno(at)), &seen)?;
        }
    }

    #[test]
    fn pushed_one_by_one_they_are_the_same(list in deletes()) {
        let mut pushed = RangeDeletes::default();
        for d in &list {
            pushed.push(d.clone());
        }
        agree(&pushed, &list)?;
        prop_assert_eq!(pushed.len(), list.len());
        prop_assert_eq!(pushed.seqno_max(), list.last().map(|d| d.seqno));
    }

    #[test]
    fn a_range_is_covered_if_each_key_of_it_is(
        list in deletes(), a in 0..KEYS.len(), b in 0..KEYS.len(), after in 0..20_u64,
    ) {
        let built = RangeDeletes::new(list.clone());
        let (first, last) = (KEYS[a.min(b)], KEYS[a.max(b)]);
        for keyspace in (0..3).map(KeyspaceId) {
            let said = built.covers_all(keyspace, first, last, Seqno(after));
            // Every key that occurs, and one right behind each: between them nothing changes.
            let between = KEYS.iter().map(|key| key.to_vec()).chain(KEYS.iter().map(|key| [key, &b"\0"[..]].concat()));
            let mut inside = between.filter(|key| &**key >= first && &**key <= last);
            let each = inside.all(|key| naive(&list, keyspace, &key, u64::MAX).is_some_and(|s| s > after));
            prop_assert_eq!(said, each);
        }
    }
}

#[test]
fn a_record_says_what_it_deletes() {
    let encoded = |kind, key: &[u8], value: &[u8]| {
        let mut bytes = vec![0; record::encoded_len(key.len(), value.len())];
        record::encode(&mut bytes, KeyspaceId(3), key, Trailer::new(Seqno(7), kind), value).unwrap();
        bytes
    };
    let said = |bytes: &[u8]| RangeDelete::of(RecordRef::parse(bytes).unwrap());
    assert_eq!(said(&encoded(Kind::RangeDelete, b"b", b"d")), Some(delete(3, b"b", b"d", 7)));
    assert_eq!(said(&encoded(Kind::RangeDelete, b"b", b"")), Some(delete(3, b"b", b"", 7)));
    for (kind, key, value) in [
        (Kind::Put, &b"b"[..], &b"d"[..]),
        (Kind::Delete, b"b", b""),
        (Kind::RangeDelete, b"b", b"b"),
        (Kind::RangeDelete, b"b", b"a"),
    ] {
        assert_eq!(said(&encoded(kind, key, value)), None);
    }
}

#[test]
fn many_side_by_side_and_many_nested_stay_cheap() {
    let key = |n: u64| n.to_be_bytes();
    let side: Vec<_> = (0..100_000).map(|n| delete(0, &key(2 * n), &key(2 * n + 1), n + 1)).collect();
    let built = RangeDeletes::new(side);
    assert_eq!(built.spans().len(), 100_000);
    assert_eq!(built.span(KeyspaceId(0), &key(77_776)).map(|d| d.seqno), Some(Seqno(38_889)));
    let nested: Vec<_> = (1..100_000).map(|n| delete(0, &key(0), &key(n), n)).collect();
    let built = RangeDeletes::new(nested);
    assert_eq!(built.spans().len(), 1, "the newest covers all");
    assert!(Arc::ptr_eq(&built.spans()[0].end, &built.iter().last().unwrap().end));
}
