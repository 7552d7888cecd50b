//! Contents at size: what random, ascending, descending and hot keys leave behind.

use pebble_cursor::Cursor;
use pebble_format::{HeadPrefix, KeyspaceId, Seqno};

use crate::log::{Log, Seeded, key};

const MANY: u64 = 300_000;

/// Inserts `keys` with their index as value, then checks each by get, and all by a walk in both directions.
fn check(prefix: HeadPrefix, keys: impl Iterator<Item = Vec<u8>>) -> usize {
    let (mut log, memtable) = Log::new(prefix, 1 << 22);
    let mut model: Vec<(Vec<u8>, u64)> = Vec::new();
    for user_key in keys {
        let seqno = log.put(0, &user_key, &(model.len() as u64).to_le_bytes());
        model.push((user_key, seqno.0));
    }
    for (index, (user_key, seqno)) in model.iter().enumerate() {
        let record = memtable.get(key(0, user_key, *seqno)).unwrap();
        assert_eq!((record.key(), record.seqno()), (&user_key[..], Seqno(*seqno)));
        assert_eq!(record.value(), (index as u64).to_le_bytes());
    }
    model.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut cursor = memtable.cursor();
    cursor.first().unwrap();
    for (user_key, seqno) in &model {
        let record = cursor.record().unwrap();
        assert_eq!((record.key(), record.seqno().0), (&user_key[..], *seqno));
        cursor.next().unwrap();
    }
    assert!(cursor.record().is_none());
    cursor.last().unwrap();
    for (user_key, seqno) in model.iter().rev() {
        let record = cursor.record().unwrap();
        assert_eq!((record.key(), record.seqno().0), (&user_key[..], *seqno));
        cursor.prev().unwrap();
    }
    assert!(cursor.record().is_none());
    assert_eq!(memtable.len(), model.len());
    memtable.memory() / model.len()
}

#[test]
fn random_keys() {
    let mut random = Seeded(1);
    let keys = (0..MANY).map(|_| [random.next().to_be_bytes(), random.next().to_be_bytes()].concat());
    let per_record = check(HeadPrefix::none(), keys);
    assert!(per_record <= 55, "{per_record} bytes of index for a record");
}

#[test]
fn ascending_keys_fill_their_leaves() {
    let per_record = check(HeadPrefix::none(), (0..MANY).map(|n| n.to_be_bytes().to_vec()));
    assert!(per_record <= 20, "{per_record} bytes of index for a record");
}

#[test]
fn descending_keys_fill_their_leaves() {
    let per_record = check(HeadPrefix::none(), (0..MANY / 4).rev().map(|n| n.to_be_bytes().to_vec()));
    assert!(per_record <= 20, "{per_record} bytes of index for a record");
}

#[test]
fn keys_that_differ_behind_their_heads() {
    let mut random = Seeded(2);
    let keys = (0..MANY / 10).map(|_| format!("user:profile:{:08}", random.below(5_000)).into_bytes());
    check(HeadPrefix::none(), keys);
    let keys = (0..MANY / 10).map(|n| format!("user:profile:{n:08}").into_bytes());
    check(HeadPrefix::new(KeyspaceId(0), b"user:profile:"), keys);
}

#[test]
fn keys_of_many_tenants() {
    let mut random = Seeded(5);
    let keys = (0..MANY / 3).map(|_| {
        let tenant = random.below(200);
        format!("tenants/{:040}/{:08x}", tenant * tenant, random.next() as u32).into_bytes()
    });
    let per_record = check(HeadPrefix::none(), keys);
    assert!(per_record <= 55, "{per_record} bytes of index for a record");
    // Each tenant's in order, one after another.
    let keys = (0..MANY / 3).map(|n| format!("tenants/{:040}/{:08}", n % 200, n / 200).into_bytes());
    check(HeadPrefix::none(), keys);
}

#[test]
fn every_version_of_a_hot_key_is_found() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 20);
    for version in 1..=3_000_u64 {
        let user_key = if version % 3 == 0 { &b"cold"[..] } else { b"hot" };
        log.put(0, user_key, &version.to_le_bytes());
    }
    for seqno in 0..=3_000 {
        let newest = (1..=seqno).rev().find(|version| version % 3 != 0);
        let found = memtable.get(key(0, b"hot", seqno));
        assert_eq!(found.map(|record| record.seqno().0), newest);
        let newest = (1..=seqno).rev().find(|version| version % 3 == 0);
        let found = memtable.get(key(0, b"cold", seqno));
        assert_eq!(found.map(|record| record.seqno().0), newest);
    }
    assert!(memtable.get(key(0, b"hos", 3_000)).is_none());
    assert!(memtable.get(key(1, b"hot", 3_000)).is_none());
}
