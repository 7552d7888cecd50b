//! A memtable that takes another's place because its heads tell keys apart: same records, at any size and mix.

use pebble_cursor::Cursor;
use pebble_format::{HeadPrefix, KeyspaceId, Kind, Seqno, Trailer};
use pebble_memtable::MemtableWriter;

use crate::log::{Log, Seeded, key};

/// Records in order, as (keyspace, key, trailer, value).
fn walked(writer: &MemtableWriter) -> Vec<(u16, Vec<u8>, u64, Vec<u8>)> {
    let mut cursor = writer.shared().cursor();
    let mut records = Vec::new();
    cursor.first().unwrap();
    while let Some(record) = cursor.record() {
        let trailer = record.internal_key().trailer.0;
        records.push((record.keyspace().0, record.key().to_vec(), trailer, record.value().to_vec()));
        cursor.next().unwrap();
    }
    records
}

/// Puts `keys`, asking after each whether to relearn; checks at each relearning that nothing changed. How often it was
/// relearned, and with how many records at last.
fn put_all(log: &mut Log, keys: impl Iterator<Item = Vec<u8>>) -> (usize, usize) {
    let (mut times, mut last) = (0, 0);
    for user_key in keys {
        let seqno = log.put(0, &user_key, &user_key);
        let Some(next) = log.writer.relearned().unwrap() else { continue };
        let (old, new) = (log.writer.shared(), next.shared());
        assert_eq!((old.len(), old.log_bytes()), (new.len(), new.log_bytes()));
        assert_eq!(old.seqno_range(), new.seqno_range());
        assert_eq!(walked(&log.writer), walked(&next));
        assert_eq!(new.get(key(0, &user_key, seqno.0)).unwrap().value(), user_key);
        (times, last) = (times + 1, new.len());
        log.writer = next;
    }
    (times, last)
}

#[test]
fn a_long_prefix_is_learned_once_and_early() {
    let mut random = Seeded(3);
    let prefix = "a prefix of forty bytes, as good as any: ";
    let keys = (0..100_000).map(|_| format!("{prefix}{:016x}", random.next()).into_bytes());
    let (mut log, _) = Log::new(HeadPrefix::none(), 1 << 22);
    let (times, len) = put_all(&mut log, keys);
    assert!(times == 1 && len < 200, "{times} times, at {len}");
    assert_eq!(walked(&log.writer).len(), 100_000);
}

#[test]
fn a_counter_that_outgrows_what_was_learned_is_learned_again() {
    for wide in [false, true] {
        let name =
            |n: u32| if wide { format!("{n:020}").into_bytes() } else { u64::from(n).to_be_bytes().to_vec() };
        let (mut log, _) = Log::new(HeadPrefix::none(), 1 << 22);
        let (times, _) = put_all(&mut log, (0..200_000).map(name));
        assert!((1..=4).contains(&times), "{times}");
        assert!(
            walked(&log.writer)
                .iter()
                .map(|record| &record.1)
                .eq((0..200_000).map(name).collect::<Vec<_>>().iter())
        );
    }
}

#[test]
fn what_would_not_help_is_left_alone() {
    // Versions of one key have equal heads whatever the prefix is, after the first time.
    let (mut log, _) = Log::new(HeadPrefix::new(KeyspaceId(0), b"h"), 1 << 20);
    assert_eq!(put_all(&mut log, (0..20_000).map(|_| b"hot".to_vec())).0, 0);
    // Keys that differ at once need none.
    let mut random = Seeded(4);
    let (mut log, _) = Log::new(HeadPrefix::none(), 1 << 22);
    assert_eq!(put_all(&mut log, (0..50_000).map(|_| random.next().to_be_bytes().to_vec())).0, 0);
    // Of two keyspaces nothing is shared.
    let (mut log, _) = Log::new(HeadPrefix::none(), 1 << 20);
    for n in 0..2_000_u32 {
        log.put(n as u16 % 2, format!("the same prefix {n}").as_bytes(), b"");
        assert!(log.writer.relearned().unwrap().is_none());
    }
}

#[test]
fn a_large_memtable_is_left_to_the_next_one() {
    let (mut log, _) = Log::new(HeadPrefix::none(), 1 << 22);
    for n in 0..40_000 {
        log.put(0, format!("prefix {n:09}").as_bytes(), b"");
    }
    assert!(log.writer.relearned().unwrap().is_none());
}

#[test]
fn range_deletes_the_filter_and_the_region_come_along() {
    let (mut log, _) = Log::new(HeadPrefix::none(), 1 << 16);
    let (writer, _) = pebble_memtable::Memtable::with_filter(HeadPrefix::none(), 4_096);
    log.writer = writer;
    assert!(log.writer.attach(log.appender.region()).unwrap());
    let name = |n: u32| format!("one prefix {n:05}");
    for n in 0..3_000 {
        log.put(0, name(n).as_bytes(), b"value of some length, so that several regions are needed");
    }
    log.seqno += 1;
    let trailer = Trailer::new(Seqno(log.seqno), Kind::RangeDelete);
    log.add(0, name(10).as_bytes(), trailer, name(20).as_bytes()).unwrap();
    let old = log.writer.shared().clone();
    log.writer = log.writer.relearned().unwrap().expect("heads were equal all the time");
    let new = log.writer.shared().clone();
    assert_eq!((new.range_delete_count(), old.range_delete_count()), (1, 1));
    assert!(new.range_deletes().unwrap().covering(KeyspaceId(0), name(15).as_bytes(), Seqno::MAX).is_some());
    let hash = |n| pebble_format::hash::key_hash(KeyspaceId(0), name(n).as_bytes());
    assert!((0..3_000).all(|n| new.may_hold(hash(n))));
    assert!((3_000..13_000).filter(|n| new.may_hold(hash(*n))).count() < 3_000);
    // The region is attached still, and who holds the old one sees nothing of what comes.
    let seqno = log.put(0, name(3_000).as_bytes(), b"");
    assert!(new.get(key(0, name(3_000).as_bytes(), seqno.0)).is_some());
    assert!(old.get(key(0, name(3_000).as_bytes(), seqno.0)).is_none());
}
