//! Readers beside a writer: whatever was inserted before a reader looked, it finds, whichever way it looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use pebble_cursor::Cursor;
use pebble_format::{HeadPrefix, InternalKey, KeyspaceId};
use pebble_memtable::Memtable;

use crate::log::{Log, Seeded, key};

const RECORDS: u64 = 60_000;

/// The key with this sequence number: a permutation of the numbers, or neighbours, or a few keys with many versions, or
/// a permutation behind the prefixes of some tenants, or neighbours there.
fn nth(shape: u64, seqno: u64) -> Vec<u8> {
    if shape > 3 {
        let name = format!("the tenant with the number {:02}/", seqno % 23 * (seqno % 23));
        return [name.as_bytes(), &nth(shape - 4, seqno)].concat();
    }
    let number = match shape {
        0 => seqno.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        1 => seqno,
        2 => u64::MAX - seqno,
        _ => seqno % 97,
    };
    number.to_be_bytes().to_vec()
}

/// All with a seqno up to `visible` that a walk meets, in the direction, must be all there are.
fn walk(memtable: &Arc<Memtable>, visible: u64, forward: bool) {
    let mut cursor = memtable.cursor();
    let (mut seen, mut last): (u64, Option<(Vec<u8>, u64)>) = (0, None);
    if forward {
        cursor.first().unwrap()
    } else {
        cursor.last().unwrap()
    }
    while let Some(record) = cursor.record() {
        let now = (record.key().to_vec(), record.trailer().0);
        if let Some((key, trailer)) = &last {
            let order = key.cmp(&now.0).then(now.1.cmp(trailer));
            assert_eq!(order.is_lt(), forward, "order, and each once");
            assert!(order.is_ne());
        }
        seen += u64::from(record.seqno().0 <= visible);
        last = Some(now);
        if forward { cursor.next().unwrap() } else { cursor.prev().unwrap() }
    }
    assert_eq!(seen, visible, "forward: {forward}");
}

fn read(memtable: &Arc<Memtable>, published: &AtomicU64, shape: u64, seed: u64) {
    let mut random = Seeded(seed);
    let mut round = 0;
    loop {
        let visible = published.load(Ordering::Acquire);
        for _ in 0..200.min(visible * 4) {
            let seqno = 1 + random.below(visible);
            let user_key = nth(shape, seqno);
            assert_eq!(memtable.get(key(0, &user_key, seqno)).unwrap().seqno().0, seqno);
            let mut cursor = memtable.cursor();
            cursor.seek(key(0, &user_key, seqno)).unwrap();
            assert_eq!(cursor.record().unwrap().seqno().0, seqno);
            let after = InternalKey::lookup(KeyspaceId(0), &user_key, pebble_format::Seqno(seqno - 1));
            cursor.seek_before(after).unwrap();
            assert_eq!(cursor.record().unwrap().seqno().0, seqno);
        }
        if round % 16 == 0 {
            walk(memtable, visible, round % 32 == 0);
        }
        round += 1;
        if visible == RECORDS {
            walk(memtable, visible, true);
            walk(memtable, visible, false);
            return;
        }
    }
}

#[test]
fn every_published_record_is_found() {
    for shape in 0..6 {
        let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 18);
        let published = AtomicU64::new(0);
        thread::scope(|scope| {
            for seed in 0..2 {
                let (memtable, published) = (&memtable, &published);
                scope.spawn(move || read(memtable, published, shape, seed));
            }
            for seqno in 1..=RECORDS {
                log.put(0, &nth(shape, seqno), b"value");
                published.store(seqno, Ordering::Release);
            }
        });
        assert_eq!(memtable.len() as u64, RECORDS);
    }
}
