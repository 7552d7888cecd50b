//! Range deletes against a list of them, alone and beside a writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use pebble_format::{HeadPrefix, KeyspaceId, Kind, Seqno, Trailer};
use pebble_memtable::Memtable;

use crate::log::{Log, Seeded, key};

/// What one record did: keyspace, first key, end, seqno; `None` for the end stands for a put.
type Deed = (u16, Vec<u8>, Option<Vec<u8>>, u64);

const KEYS: u64 = 40;

fn user_key(n: u64) -> Vec<u8> {
    format!("key {n:02}").into_bytes()
}

/// The deed with this number: mostly range deletes, some of them without an end, some puts between them.
fn deed(seed: u64, seqno: u64) -> Deed {
    let mut random = Seeded(seed << 32 | seqno);
    let (keyspace, start) = (random.below(3) as u16, random.below(KEYS));
    let end = match random.below(12) {
        0 => Some(Vec::new()),
        1..=8 => Some(user_key(start + 1 + random.below(6))),
        9 => Some([&user_key(start)[..], &[0]].concat()),
        _ => None,
    };
    (keyspace, user_key(start), end, seqno)
}

fn insert(log: &mut Log, (keyspace, start, end, seqno): &Deed) {
    let kind = if end.is_some() { Kind::RangeDelete } else { Kind::Put };
    let value = end.as_deref().unwrap_or(b"value");
    log.add(*keyspace, start, Trailer::new(Seqno(*seqno), kind), value).unwrap();
}

/// The newest range delete of the deeds up to `seqno` that covers the key.
fn covering(deeds: impl DoubleEndedIterator<Item = Deed>, keyspace: u16, key: &[u8]) -> Option<u64> {
    let covers = |(of, start, end, _): &Deed| {
        let behind = |end: &[u8]| end.is_empty() || key < end;
        *of == keyspace && key >= &start[..] && end.as_deref().is_some_and(behind)
    };
    deeds.rev().find(covers).map(|(.., seqno)| seqno)
}

fn check(memtable: &Memtable, seed: u64, at: u64, keyspace: u16, user_key: &[u8]) {
    let found = memtable.range_deletes();
    let found = found.as_ref().and_then(|all| all.covering(KeyspaceId(keyspace), user_key, Seqno(at)));
    let naive = covering((1..=at).map(|seqno| deed(seed, seqno)), keyspace, user_key);
    assert_eq!(found.map(|delete| delete.seqno.0), naive, "seed {seed}, at {at}");
}

#[test]
fn range_deletes_are_those_of_the_list_at_every_number() {
    for seed in 0..4 {
        let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 16);
        assert!(memtable.range_deletes().is_none());
        let deeds: Vec<_> = (1..=200).map(|seqno| deed(seed, seqno)).collect();
        // Out of order in one of the seeds: a record's number, not its place in the log, is what counts.
        let turned = |at: usize| if seed == 3 { deeds.len() - 1 - at } else { at };
        (0..deeds.len()).for_each(|at| insert(&mut log, &deeds[turned(at)]));
        let count = deeds.iter().filter(|deed| deed.2.is_some()).count();
        assert_eq!((memtable.len(), memtable.range_delete_count()), (200, count));
        assert_eq!(memtable.range_deletes().map(|all| all.len()), Some(count));
        for at in [0, 1, 2, 50, 199, 200] {
            for keyspace in 0..4 {
                (0..KEYS + 8).for_each(|n| check(&memtable, seed, at, keyspace, &user_key(n)));
            }
        }
    }
}

#[test]
fn a_range_delete_is_a_tombstone_of_its_first_key_too() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 12);
    insert(&mut log, &(0, b"b".to_vec(), None, 1));
    assert!(memtable.range_deletes().is_none());
    insert(&mut log, &(0, b"b".to_vec(), Some(b"d".to_vec()), 2));
    let record = memtable.get(key(0, b"b", 2)).unwrap();
    assert!(record.is_tombstone() && record.is_range_delete());
    assert_eq!(record.value(), b"d");
    assert_eq!(memtable.get(key(0, b"b", 1)).unwrap().value(), b"value");
    assert!(memtable.get(key(0, b"c", 2)).is_none());
}

#[test]
fn a_range_without_a_key_and_a_refused_record_are_not_published() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 12);
    for end in [&b"a"[..], b"b"] {
        let seqno = memtable.len() as u64 + 1;
        insert(&mut log, &(0, b"b".to_vec(), Some(end.to_vec()), seqno));
        assert!(memtable.get(key(0, b"b", seqno)).unwrap().is_tombstone());
    }
    assert_eq!((memtable.range_delete_count(), memtable.range_deletes()), (0, None));
    insert(&mut log, &(0, b"b".to_vec(), Some(b"c".to_vec()), 3));
    let twice = log.add(0, b"b", Trailer::new(Seqno(3), Kind::RangeDelete), b"d");
    assert!(twice.is_err());
    assert_eq!(memtable.range_delete_count(), 1);
    assert!(memtable.range_deletes().unwrap().span(KeyspaceId(0), b"c").is_none());
}

#[test]
fn what_a_reader_took_stays_and_memory_counts_it() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 20);
    let empty = memtable.memory();
    insert(&mut log, &(0, user_key(1), Some(user_key(3)), 1));
    let taken = memtable.range_deletes().unwrap();
    let one = memtable.memory();
    assert!(one > empty + user_key(1).len());
    for n in 1..1_024 {
        insert(&mut log, &(0, user_key(n % 90), Some(user_key(n % 90 + 5)), n + 1));
    }
    assert_eq!((taken.len(), memtable.range_delete_count()), (1, 1_024));
    assert!(memtable.memory() > one + 1_023 * 16);
}

/// Readers at numbers that were published, old and new, while range deletes come.
#[test]
fn every_published_range_delete_is_found() {
    const DEEDS: u64 = 1_024 * 12 / 10;
    for seed in 0..3 {
        let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 16);
        let published = AtomicU64::new(0);
        thread::scope(|scope| {
            for reader in 0..2 {
                let (memtable, published) = (&memtable, &published);
                scope.spawn(move || {
                    let mut random = Seeded(reader);
                    loop {
                        let visible = published.load(Ordering::Acquire);
                        for back in [0, random.below(visible + 1)] {
                            let (keyspace, n) = (random.below(3) as u16, random.below(KEYS + 8));
                            check(memtable, seed, visible - back, keyspace, &user_key(n));
                        }
                        if visible == DEEDS {
                            return;
                        }
                    }
                });
            }
            for seqno in 1..=DEEDS {
                insert(&mut log, &deed(seed, seqno));
                published.store(seqno, Ordering::Release);
            }
        });
        assert!(memtable.range_delete_count() > 900);
    }
}
