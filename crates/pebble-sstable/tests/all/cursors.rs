//! The cursor against a sorted list: random walks over both directions, and the contract's corners.

use pebble_cursor::Cursor;
use pebble_format::{OwnedKey, Seqno};
use pebble_sstable::{Table, TableCursor};

use crate::model::{
    COMPRESSIONS, INDEXES, Plain, SOURCES, Said, Seeded, fixture, lookup, open, plain, plains, small, write,
};

fn at(cursor: &TableCursor) -> Option<Plain> {
    let record = cursor.record().map(plain);
    assert_eq!(cursor.pinned().map(|found| plain(found.record())), record);
    assert_eq!(cursor.is_positioned(), record.is_some());
    record
}

/// A key that is in the list, or just beside one.
fn target(list: &[Plain], seeded: &mut Seeded) -> OwnedKey {
    let (keyspace, mut key, seqno, _) = list[seeded.below(list.len() as u64) as usize].clone();
    match seeded.below(5) {
        0 => key.push(0),
        1 => _ = key.pop(),
        2 => return lookup(keyspace + 1, &key, seqno),
        _ => {}
    }
    lookup(keyspace, &key, [seqno, seqno.saturating_sub(1), 0, Seqno::MAX.0][seeded.below(4) as usize])
}

fn key(plain: &Plain) -> OwnedKey {
    let kind = match plain.3 {
        Said::Put(_) => 1,
        Said::Delete => 2,
        Said::DeleteTo(_) => 3,
    };
    let newest = lookup(plain.0, &plain.1, plain.2);
    let mut key = newest.as_ref();
    key.trailer.0 = plain.2 << 8 | kind;
    OwnedKey::new(key)
}

#[test]
fn a_random_walk_follows_the_list() {
    let list = plains(&fixture());
    for (round, index) in INDEXES.into_iter().enumerate() {
        for compression in COMPRESSIONS {
            let (bytes, _) = write(&fixture(), &small(index, compression));
            for source in SOURCES {
                let mut cursor = open(&bytes, source).unwrap().cursor();
                let mut place: Option<usize> = None;
                assert_eq!(at(&cursor), None);
                let mut seeded = Seeded(round as u64);
                for _ in 0..600 {
                    match seeded.below(12) {
                        0 => {
                            cursor.first().unwrap();
                            place = Some(0);
                        }
                        1 => {
                            cursor.last().unwrap();
                            place = Some(list.len() - 1);
                        }
                        2 | 3 => {
                            let target = target(&list, &mut seeded);
                            cursor.seek(target.as_ref()).unwrap();
                            place = list.iter().position(|found| key(found) >= target);
                        }
                        4 | 5 => {
                            let target = target(&list, &mut seeded);
                            cursor.seek_before(target.as_ref()).unwrap();
                            place = list.iter().rposition(|found| key(found) < target);
                        }
                        6..=8 => {
                            cursor.next().unwrap();
                            place = place.map(|place| place + 1).filter(|place| *place < list.len());
                        }
                        _ => {
                            cursor.prev().unwrap();
                            place = place.and_then(|place| place.checked_sub(1));
                        }
                    }
                    assert_eq!(at(&cursor), place.map(|place| list[place].clone()));
                }
            }
        }
    }
}

#[test]
fn an_error_sticks_and_what_was_pinned_outlives_cursor_and_table() {
    let (mut bytes, _) = write(&fixture(), &small(INDEXES[0], COMPRESSIONS[0]));
    let second = open(&bytes, SOURCES[0]).unwrap().blocks().nth(1).unwrap().offset as usize;
    bytes[second + 20] ^= 1;
    let table: std::sync::Arc<Table> = open(&bytes, SOURCES[0]).unwrap();
    let mut cursor = table.cursor();
    cursor.first().unwrap();
    let pinned = cursor.pinned().unwrap();
    let error = std::iter::repeat_with(|| cursor.next()).find_map(Result::err).unwrap();
    assert!(error.is_corruption());
    assert!(cursor.record().is_none() && cursor.pinned().is_none());
    let again = [cursor.first(), cursor.last(), cursor.next(), cursor.prev()];
    assert!(again.into_iter().all(|found| found.unwrap_err().to_string() == error.to_string()));
    // Only the damaged block is lost: a new cursor reads the rest.
    let mut other = table.cursor();
    other.last().unwrap();
    assert!(other.record().is_some());
    drop((cursor, other, table));
    assert_eq!(plain(pinned.record()), plains(&fixture())[0]);
}
