//! Edges: the empty memtable, what is refused, and the space of positions.

use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::{AppendRegion, Error, HeadPrefix, KeyspaceId, Kind, Seqno, Trailer, record};
use pebble_memtable::Memtable;

use crate::log::{Log, key};

const WINDOW: usize = 64 << 20;

#[test]
fn an_empty_memtable_has_nothing() {
    let prefix = HeadPrefix::new(KeyspaceId(3), b"abc");
    let (_writer, memtable) = Memtable::new(prefix.clone());
    assert!(memtable.is_empty() && memtable.get(key(0, b"", 1)).is_none());
    assert!(memtable.first().is_none() && memtable.last().is_none() && memtable.seqno_range().is_none());
    assert_eq!((memtable.log_bytes(), memtable.learned_prefix()), (0, prefix));
    assert!(memtable.memory() < 64 << 10);
    let mut cursor = memtable.cursor();
    cursor.first().unwrap();
    assert!(cursor.record().is_none());
    cursor.last().unwrap();
    assert!(cursor.record().is_none() && cursor.pinned().is_none());
}

#[test]
fn a_cursor_on_no_position_stays_there_until_it_seeks() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 12);
    let mut cursor = memtable.cursor();
    log.put(0, b"a", b"");
    cursor.next().unwrap();
    cursor.prev().unwrap();
    assert!(cursor.record().is_none());
    cursor.seek(key(0, b"b", 9)).unwrap();
    assert!(cursor.record().is_none());
    cursor.prev().unwrap();
    assert!(cursor.record().is_none());
    cursor.first().unwrap();
    assert_eq!(cursor.record().unwrap().key(), b"a");
    cursor.next().unwrap();
    cursor.prev().unwrap();
    assert!(cursor.record().is_none());
    cursor.seek_before(key(0, b"b", 9)).unwrap();
    assert_eq!(cursor.record().unwrap().key(), b"a");
}

#[test]
fn a_cursor_and_a_pinned_record_outlive_everything_else() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 12);
    log.put(0, b"a", b"1");
    let region = Arc::downgrade(log.appender.region());
    let mut cursor = memtable.cursor();
    drop((log, memtable));
    cursor.first().unwrap();
    let pinned = cursor.pinned().unwrap();
    drop(cursor);
    assert_eq!(pinned.record().value(), b"1");
    drop(pinned);
    assert!(region.upgrade().is_none());
}

#[test]
fn what_is_no_record_is_refused() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 12);
    log.put(0, b"key", b"value");
    let filled = log.appender.filled();
    let refused = |error: Error| matches!(error, Error::InvalidArgument(_));
    assert!(refused(log.writer.insert(1).unwrap_err()));
    assert!(refused(log.writer.insert(filled + 4).unwrap_err()));
    assert!(refused(log.writer.insert(usize::MAX - 3).unwrap_err()));
    assert!(refused(log.writer.insert(0).unwrap_err()), "indexed already");
    assert!(log.writer.insert(filled).unwrap_err().is_corruption());
    log.appender.spare()[..64].fill(0xff);
    log.appender.fill(64);
    match log.writer.insert(filled).unwrap_err() {
        Error::Corruption(corruption) => assert_eq!(corruption.offset, filled as u64),
        other => panic!("{other}"),
    }
    let (mut writer, _) = Memtable::new(HeadPrefix::none());
    assert!(refused(writer.insert(0).unwrap_err()), "no region");
    assert_eq!((memtable.len(), memtable.log_bytes()), (1, filled));
}

#[test]
fn a_record_with_one_seqno_and_another_kind_is_another_record() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 1 << 12);
    log.add(0, b"k", Trailer::new(Seqno(5), Kind::Delete), b"").unwrap();
    log.add(0, b"k", Trailer::new(Seqno(4), Kind::Put), b"v").unwrap();
    assert!(memtable.get(key(0, b"k", 5)).unwrap().is_tombstone());
    assert_eq!(memtable.get(key(0, b"k", 4)).unwrap().value(), b"v");
    assert!(memtable.get(key(0, b"k", 3)).is_none());
}

/// Fills a region up to `offset` without touching most of its memory, and puts a record there.
fn record_at(log: &mut Log, offset: usize, user_key: &[u8], seqno: u64) {
    let skip = offset - log.appender.filled();
    log.appender.fill(skip);
    log.add(0, user_key, Trailer::new(Seqno(seqno), Kind::Put), b"v").unwrap();
}

#[test]
fn a_region_may_span_windows() {
    let (mut log, memtable) = Log::new(HeadPrefix::none(), 2 * WINDOW + 64);
    let len = record::encoded_len(1, 1);
    record_at(&mut log, WINDOW - len, b"c", 1);
    record_at(&mut log, WINDOW, b"b", 2);
    record_at(&mut log, 2 * WINDOW - 8, b"a", 3);
    // The next region must not begin in the last window of this one.
    log.appender = AppendRegion::heap(1 << 12);
    assert!(log.writer.attach(log.appender.region()).unwrap());
    log.put(0, b"d", b"v");
    let mut cursor = memtable.cursor();
    cursor.first().unwrap();
    for expected in [b"a", b"b", b"c", b"d"] {
        assert_eq!(cursor.record().unwrap().key(), expected);
        cursor.next().unwrap();
    }
    assert!(cursor.record().is_none());
}

#[test]
fn positions_run_out_and_say_so() {
    let (mut writer, memtable) = Memtable::new(HeadPrefix::none());
    let mut appenders: Vec<_> = (0..257).map(|_| AppendRegion::heap(64)).collect();
    for (index, appender) in appenders.iter_mut().enumerate() {
        let trailer = Trailer::new(Seqno(index as u64 + 1), Kind::Put);
        let len = record::encode(appender.spare(), KeyspaceId(0), b"k", trailer, b"v").unwrap();
        appender.fill(len);
        let attached = writer.attach(appender.region()).unwrap();
        assert_eq!(attached, index < 256);
        assert_eq!(writer.insert(0).is_ok(), attached, "never the same offset of an earlier region");
    }
    assert!(writer.attach(appenders[7].region()).unwrap(), "attached before");
    assert_eq!(memtable.len(), 256);
    for seqno in 1..=256 {
        assert_eq!(memtable.get(key(0, b"k", seqno)).unwrap().seqno(), Seqno(seqno));
    }
}
