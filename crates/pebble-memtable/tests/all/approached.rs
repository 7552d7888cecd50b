//! Places that were found before their records were there: whatever happens in between, each record is where it
//! belongs.

use std::collections::BTreeSet;
use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::hash::key_hash;
use pebble_format::{AppendRegion, HeadPrefix, InternalKey, KeyspaceId, Kind, Seqno, Trailer, record};
use pebble_memtable::Memtable;

use crate::log::{Log, Seeded};

/// Keys that split leaves in all ways: runs up and down, versions of one key, a shared prefix, and at random.
fn any_key(random: &mut Seeded, n: u64) -> Vec<u8> {
    match random.below(5) {
        0 => (n * 8).to_be_bytes().to_vec(),
        1 => (u64::MAX - n * 8).to_be_bytes().to_vec(),
        2 => b"one key".to_vec(),
        3 => [&b"a prefix that many keys share "[..], &random.next().to_be_bytes()].concat(),
        _ => random.next().to_be_bytes().to_vec(),
    }
}

/// What the memtable holds must be `expected`, in order, and each record must be found.
fn check(memtable: &Arc<Memtable>, expected: &BTreeSet<(Vec<u8>, u64)>) {
    let (mut cursor, mut seen) = (memtable.cursor(), Vec::new());
    cursor.first().unwrap();
    while let Some(record) = cursor.record() {
        seen.push((record.key().to_vec(), u64::MAX - record.seqno().0));
        cursor.next().unwrap();
    }
    assert!(seen.iter().eq(expected.iter()), "{} records for {}", seen.len(), expected.len());
    for (key, age) in expected {
        let seqno = u64::MAX - age;
        let found = memtable.get(InternalKey::lookup(KeyspaceId(0), key, Seqno(seqno)));
        assert_eq!(found.map(|record| record.seqno().0), Some(seqno));
    }
}

#[test]
fn approaches_serve_however_late_and_in_whatever_order_they_are_used() {
    for seed in 0..20 {
        let mut random = Seeded(seed);
        let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 20);
        let mut expected = BTreeSet::new();
        let wait_max = random.below(40);
        let mut waiting: Vec<(Vec<u8>, u64)> = Vec::new();
        for n in 0..4_000 {
            let key = any_key(&mut random, n);
            waiting.push((key, n + 1));
            if waiting.len() as u64 <= wait_max {
                continue;
            }
            // All that wait are approached, and inserted in another order than they came.
            let keys: Vec<_> = std::mem::take(&mut waiting);
            let trailer = |seqno: u64| Trailer::new(Seqno(seqno), Kind::Put);
            let mut approaches: Vec<_> = keys
                .iter()
                .map(|(key, seqno)| {
                    let key =
                        InternalKey { keyspace: KeyspaceId(0), user_key: key, trailer: trailer(*seqno) };
                    (key, log.writer.approach(key))
                })
                .collect();
            while !approaches.is_empty() {
                let (key, approach) = approaches.swap_remove(random.below(approaches.len() as u64) as usize);
                let at = log.appender.filled();
                let len = record::encode(log.appender.spare(), key.keyspace, key.user_key, key.trailer, b"")
                    .unwrap();
                log.appender.fill(len);
                log.writer.insert_approached(at, &approach).unwrap();
                expected.insert((key.user_key.to_vec(), u64::MAX - key.trailer.seqno().0));
            }
        }
        check(&memtable, &expected);
    }
}

#[test]
fn a_batch_is_indexed_whole() {
    for seed in 0..20 {
        let mut random = Seeded(seed);
        let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 20);
        let (mut expected, mut seqno) = (BTreeSet::new(), 0);
        while seqno < 4_000 {
            let at = log.appender.filled();
            for _ in 0..random.below(100) {
                seqno += 1;
                let (key, trailer) = (any_key(&mut random, seqno), Trailer::new(Seqno(seqno), Kind::Put));
                let len = record::encode(log.appender.spare(), KeyspaceId(0), &key, trailer, b"").unwrap();
                log.appender.fill(len);
                expected.insert((key, u64::MAX - seqno));
            }
            log.writer.insert_all(at).unwrap();
        }
        check(&memtable, &expected);
    }
}

#[test]
fn an_approach_of_another_memtable_serves_and_one_of_another_key_is_refused() {
    let mut appender = AppendRegion::heap(1 << 20);
    let (mut writer, memtable) = Memtable::with_filter(HeadPrefix::none(), 1_000);
    // Its heads are others, and it hashes no keys.
    let (other, _) = Memtable::new(HeadPrefix::new(KeyspaceId(0), b"key "));
    assert!(writer.attach(appender.region()).unwrap());
    let mut expected = BTreeSet::new();
    for n in 0..1_000_u64 {
        let user_key = [&b"key "[..], &n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()].concat();
        let trailer = Trailer::new(Seqno(n + 1), Kind::Put);
        let key = InternalKey { keyspace: KeyspaceId(0), user_key: &user_key, trailer };
        let approach = other.approach(key);
        let wrong = writer.approach(InternalKey { user_key: b"wrong", ..key });
        let at = appender.filled();
        let len = record::encode(appender.spare(), key.keyspace, &user_key, trailer, b"").unwrap();
        appender.fill(len);
        assert!(writer.insert_approached(at, &wrong).is_err());
        writer.insert_approached(at, &approach).unwrap();
        assert!(writer.insert_approached(at, &approach).is_err(), "it is there already");
        assert!(memtable.may_hold(key_hash(KeyspaceId(0), &user_key)));
        expected.insert((user_key, u64::MAX - (n + 1)));
    }
    check(&memtable, &expected);
}

#[test]
fn a_batch_with_damage_is_refused_from_there_on() {
    let mut appender = AppendRegion::heap(1 << 12);
    let (mut writer, memtable) = Memtable::new(HeadPrefix::none());
    assert!(writer.insert_all(0).is_err(), "no region");
    assert!(writer.attach(appender.region()).unwrap());
    for n in 1..=5_u64 {
        let trailer = Trailer::new(Seqno(n), Kind::Put);
        let len = record::encode(appender.spare(), KeyspaceId(0), b"key", trailer, b"value").unwrap();
        if n == 4 {
            appender.spare()[..len].fill(0xff);
        }
        appender.fill(len);
    }
    assert!(writer.insert_all(2).is_err(), "no record begins there");
    assert!(writer.insert_all(0).is_err());
    assert!(memtable.len() < 4);
    assert!(writer.insert_all(1 << 12).is_err(), "behind what is filled");
}
