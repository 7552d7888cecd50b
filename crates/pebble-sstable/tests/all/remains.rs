//! One wrong byte, anywhere in a table: what is left, and which keys may be gone.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::KeyspaceId;
use pebble_format::table::IndexKind;
use pebble_sstable::{Remains, Table, TableReadOptions};
use pebble_vfs::{File, Fs, Open, SimFs};

use crate::model::{COMPRESSIONS, INDEXES, Plain, fixture, plain, plains, small, write};

fn file_of(bytes: &[u8]) -> Arc<dyn File> {
    let fs = SimFs::new(1);
    let file = fs.open(Path::new("/000007.sst"), Open::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn walk(remains: &Arc<Remains>) -> Vec<Plain> {
    let (mut cursor, mut forward) = (remains.cursor(), Vec::new());
    cursor.first().unwrap();
    while let Some(record) = cursor.record() {
        forward.push(plain(record));
        cursor.next().unwrap();
    }
    let mut backward = Vec::new();
    cursor.last().unwrap();
    while let Some(record) = cursor.record() {
        backward.push(plain(record));
        cursor.prev().unwrap();
    }
    backward.reverse();
    assert_eq!(forward, backward);
    forward
}

#[test]
fn a_wrong_byte_costs_its_block_and_names_its_keys() {
    let model = fixture();
    let all = plains(&model);
    let (mut mended, mut lost) = (0, 0);
    for index in INDEXES {
        for compression in COMPRESSIONS {
            let (bytes, info) = write(&model, &small(index, compression));
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= [1, 0x80, 0x5a, 0xff][at % 4];
                let context = format!("{index:?}, {compression:?}, byte {at} of {}", bytes.len());
                let opened = Table::open_mended(file_of(&damaged), "t", TableReadOptions::default());
                let in_data = (at as u64) < info.data_len;
                let version = bytes.len() - 256 + 8;
                if let Err(error) = &opened {
                    // A version with one wrong byte has a wrong checksum, and so is told as damage and mended.
                    panic!("{context}, version at {version}: {error}");
                }
                let (table, damage) = opened.unwrap();
                assert_eq!(damage.is_some(), !in_data, "{context}");
                assert_eq!(table.info().count, info.count, "{context}");
                let remains = Arc::new(table.remains(&mut |_| {}));
                let left = walk(&remains);
                if !in_data {
                    mended += 1;
                    assert!(remains.lost().is_empty() && left == all, "{context}");
                    continue;
                }
                lost += 1;
                let [block] = remains.lost() else { panic!("{context}: {:?}", remains.lost()) };
                assert!((block.offset..block.offset + block.len).contains(&(at as u64)), "{context}");
                let left_set: BTreeSet<_> = left.iter().map(|found| (found.0, &found.1, found.2)).collect();
                let gone: Vec<_> =
                    all.iter().filter(|found| !left_set.contains(&(found.0, &found.1, found.2))).collect();
                assert!(!gone.is_empty() && left.len() + gone.len() == all.len(), "{context}");
                for found in &all {
                    let newest = all.iter().find(|other| (other.0, &other.1) == (found.0, &found.1)).unwrap();
                    let newest_is_gone = !left_set.contains(&(newest.0, &newest.1, newest.2));
                    let may = remains.may_have_lost(KeyspaceId(found.0), &found.1);
                    assert!(may || !newest_is_gone, "{context}: {:?} is lost unseen", found.1);
                    if may {
                        let of_block = gone.iter().any(|other| (other.0, &other.1) == (found.0, &found.1));
                        assert!(of_block, "{context}: {:?} is not in the block", found.1);
                    }
                }
            }
        }
    }
    println!("remains: {mended} bytes of metadata mended, {lost} of data lost with their block");
    assert!(mended > 1_000 && lost > 1_000);
}

/// Nothing vouches for what a damaged point index would be if it were mended, so it is done without, however little is
/// wrong: what it says of a lost key is believed.
#[test]
fn a_table_with_a_damaged_point_index_is_searched() {
    let model = fixture();
    let (bytes, info) = write(&model, &small(INDEXES[0], COMPRESSIONS[0]));
    let at = usize::try_from(info.data_len.next_multiple_of(64)).unwrap();
    let open = |damaged: &[u8]| {
        let (table, damage) = Table::open_mended(file_of(damaged), "t", TableReadOptions::default()).unwrap();
        assert!(damage.is_some());
        assert_eq!(table.index_kind(), IndexKind::None);
        Arc::new(table.remains(&mut |_| {}))
    };
    for wrong in [1, 2, 64] {
        let mut damaged = bytes.clone();
        damaged[at..at + wrong].iter_mut().for_each(|byte| *byte ^= 0xee);
        assert_eq!(walk(&open(&damaged)), plains(&model));
        // A block whose keys cannot be told either.
        damaged[20] ^= 1;
        damaged[40] ^= 1;
        let remains = open(&damaged);
        let left = walk(&remains);
        let gone = plains(&model).into_iter().filter(|found| !left.contains(found));
        assert!(gone.clone().count() > 0);
        for (keyspace, key, ..) in gone {
            assert!(remains.may_have_lost(KeyspaceId(keyspace), &key));
        }
    }
    // Of the rest there is no other copy.
    let mut damaged = bytes;
    let footer = damaged.len() - 256;
    damaged[footer..footer + 64].fill(0xee);
    assert!(
        Table::open_mended(file_of(&damaged), "t", TableReadOptions::default()).unwrap_err().is_corruption()
    );
}
