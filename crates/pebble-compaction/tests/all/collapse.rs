//! What every reader sees is the same before and after; and no more is kept than the rules ask for.

use std::collections::BTreeSet;

use pebble_compaction::Collapse;
use pebble_cursor::RangeDeletes;
use pebble_format::{Kind, Seqno};
use proptest::prelude::*;

use crate::model::{any_records, any_snapshots, cases, encoded, parsed, seen};

fn collapsed(records: &[Vec<u8>], snapshots: &[Seqno], bottom: bool) -> Vec<Vec<u8>> {
    let deletes = RangeDeletes::default();
    let mut collapse = Collapse::new(snapshots, &deletes, bottom);
    let mut kept = vec![];
    for (index, bytes) in records.iter().enumerate() {
        let record = parsed(bytes);
        if index == 0 || !parsed(&records[index - 1]).internal_key().same_key(&record.internal_key()) {
            collapse.next_key();
        }
        if collapse.keeps(record) {
            kept.push(bytes.clone());
        }
    }
    kept
}

/// Readers that exist: the snapshots, and every number from the newest record's on.
fn readers(snapshots: &[Seqno]) -> Vec<u64> {
    snapshots.iter().map(|snapshot| snapshot.0).chain([60, Seqno::MAX.0]).collect()
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn no_reader_sees_a_difference(records in any_records(), snapshots in any_snapshots(), bottom: bool) {
        let kept = collapsed(&records, &snapshots, bottom);
        for reader in readers(&snapshots) {
            prop_assert_eq!(seen(&kept, reader), seen(&records, reader), "reader at {}", reader);
        }
        prop_assert_eq!(collapsed(&kept, &snapshots, bottom), kept, "a second time finds nothing more to drop");
    }

    /// Tombstones kept above the bottom go on hiding what lies in older runs.
    #[test]
    fn what_was_deleted_stays_deleted(
        records in any_records(), split in 0_u64..50, snapshots in any_snapshots(),
    ) {
        let (older, newer): (Vec<_>, Vec<_>) =
            records.iter().cloned().partition(|bytes| parsed(bytes).seqno().0 <= split);
        let merged = collapsed(&newer, &snapshots, false);
        for reader in readers(&snapshots) {
            prop_assert_eq!(seen(merged.iter().chain(&older), reader), seen(&records, reader));
        }
    }

    #[test]
    fn a_stripe_keeps_at_most_one_version(records in any_records(), snapshots in any_snapshots(), bottom: bool) {
        let mut stripes = BTreeSet::new();
        for bytes in &collapsed(&records, &snapshots, bottom) {
            let record = parsed(bytes);
            let stripe = snapshots.iter().filter(|snapshot| **snapshot < record.seqno()).count();
            prop_assert!(stripes.insert((record.keyspace(), record.key().to_vec(), stripe)));
            prop_assert!(!(bottom && stripe == 0 && record.is_tombstone()));
        }
    }
}

/// `+n` is a put with number n, `-n` a delete; newest first.
fn case(versions: &[i64], snapshots: &[u64], bottom: bool) -> Vec<i64> {
    let records: Vec<_> = versions
        .iter()
        .map(|n| encoded(0, b"k", n.unsigned_abs(), if *n > 0 { Kind::Put } else { Kind::Delete }))
        .collect();
    let snapshots: Vec<_> = snapshots.iter().map(|n| Seqno(*n)).collect();
    let signed = |bytes: &Vec<u8>| {
        let seqno = i64::try_from(parsed(bytes).seqno().0).unwrap();
        if parsed(bytes).is_tombstone() { -seqno } else { seqno }
    };
    collapsed(&records, &snapshots, bottom).iter().map(signed).collect()
}

#[test]
fn the_edges_of_a_stripe_are_where_readers_stand() {
    assert_eq!(case(&[12, 10, 8, 7, 4, 3], &[5, 9], false), [12, 8, 4]);
    // A reader at 5 sees 5; one at 4 does not.
    assert_eq!(case(&[6, 5], &[5], true), [6, 5]);
    assert_eq!(case(&[6, 5], &[4], true), [6]);
    // A snapshot before every commit hides nothing and costs nothing.
    assert_eq!(case(&[2, 1], &[0], true), [2]);
    assert_eq!(case(&[1], &[0], true), [1]);
    assert_eq!(case(&[-9, 8], &[], true), []);
    assert_eq!(case(&[-9, 8], &[], false), [-9]);
    assert_eq!(case(&[-9, 8], &[8], true), [-9, 8]);
    assert_eq!(case(&[9, -5], &[5], true), [9]);
    assert_eq!(case(&[9, -5], &[5], false), [9, -5]);
}
