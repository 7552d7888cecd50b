//! A whole table: opened in place and as a file, walked, searched, verified.
//!
//! Oracle: both ways of reading give the same; no walk has more steps than there are records; a get never gives a
//! record of another key or a version that is too new; and a table that verifies is what its records say: each is
//! found, both walks agree, and a table written of them verifies with the same figures.
//!
//! Threading: as every body.

use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::hash::key_hash;
use pebble_format::{InternalKey, Kind, Reference, Trailer};
use pebble_sstable::{Compression, PointIndex, Table, TableOptions, TableWriter};

use crate::disk::assert_told;
use crate::forge::{self, UUID};
use crate::guard::{allowance, bounded};
use crate::records::{encoded, key_of, parsed, sorted};
use crate::tables::{backward, forward, open, open_file, written};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "table", run, repair: Some(forge::table), seeds, rounds: 8_000 };

/// Keys that every table is asked for, found or not.
const ASKED: [(u16, &[u8]); 5] = [(0, b""), (0, b"key-05"), (1, b"bob"), (3, b"x"), (u16::MAX, &[0xff; 12])];

fn run(bytes: &[u8]) {
    // What a walk copies for its comparison is the body's own.
    bounded(2 * allowance(bytes.len()), || read(bytes));
}

fn read(bytes: &[u8]) {
    let (place, file) = match (open(bytes), open_file(bytes)) {
        (Ok(place), Ok(file)) => (place, file),
        (Err(error), Err(other)) => {
            assert_eq!(error.to_string(), other.to_string());
            return assert_told(&error);
        }
        (place, file) => panic!("in place {:?}, as a file {:?}", place.err(), file.err()),
    };
    assert_eq!(place.info(), file.info());
    assert_eq!(place.blocks().count(), file.blocks().count());
    assert!(place.blocks().count() <= bytes.len());
    let (records, complete) = forward(&place);
    assert_eq!(forward(&file), (records.clone(), complete));
    for table in [&place, &file] {
        for (keyspace, key) in ASKED {
            assert_get(
                table,
                InternalKey::lookup(pebble_format::KeyspaceId(keyspace), key, pebble_format::Seqno::MAX),
            );
        }
        for record in records.iter().step_by(records.len() / 32 + 1) {
            let key = key_of(record);
            assert_get(table, key);
            assert_get(table, InternalKey { trailer: Trailer(u64::MAX), ..key });
            let mut cursor = table.cursor();
            for moved in [cursor.seek(key), cursor.seek_before(key)] {
                moved.unwrap_or_else(|error| assert_told(&error));
            }
        }
    }
    match (place.verify(), file.verify()) {
        (Ok(report), Ok(other)) => {
            assert_eq!(report, other);
            assert!(complete, "a walk saw what a verification did not");
            assert_whole(&place, &records, bytes.len());
        }
        (Err(error), Err(other)) => {
            assert_told(&error);
            assert_eq!(error.to_string(), other.to_string());
        }
        (place, file) => panic!("in place {place:?}, as a file {file:?}"),
    }
}

/// A get gives the key that was asked for, in a version that is not too new, or nothing, or an error.
fn assert_get(table: &Arc<Table>, lookup: InternalKey<'_>) {
    table.prefetch(key_hash(lookup.keyspace, lookup.user_key));
    match table.get(lookup) {
        Ok(Some(found)) => {
            let key = found.record().internal_key();
            assert!(key.same_key(&lookup) && key >= lookup, "{key:?} for {lookup:?}");
        }
        Ok(None) => {}
        Err(error) => assert_told(&error),
    }
}

/// Nothing is wrong with the table: so it must be right in every way of reading.
fn assert_whole(table: &Arc<Table>, records: &[Vec<u8>], len: usize) {
    assert_eq!(records.len() as u64, table.info().count);
    assert!(records.windows(2).all(|pair| key_of(&pair[0]) < key_of(&pair[1])));
    let (mut reverse, complete) = backward(table);
    reverse.reverse();
    assert!(complete && reverse == records);
    for record in records.iter().step_by(records.len() / 64 + 1) {
        let found = table.get(key_of(record)).unwrap().unwrap();
        assert_eq!(found.record().raw(), record);
    }
    let info = table.info();
    let options = TableOptions { number: info.number, uuid: info.uuid, ..TableOptions::default() };
    let again = open(&written(records.iter().map(|record| parsed(record)), options.clone())).unwrap();
    let report = again.verify().unwrap();
    assert_eq!((report.records, report.keys, report.tombstones), (info.count, info.keys, info.tombstones));
    assert_eq!((&again.info().first, &again.info().last), (&info.first, &info.last));
    assert_eq!(forward(&again).0, records);
    assert_moved(table, records, options, len);
}

/// Blocks that a merge hands on whole hold the same records.
fn assert_moved(table: &Arc<Table>, records: &[Vec<u8>], options: TableOptions, len: usize) {
    let mut writer = TableWriter::new(Vec::new(), options).unwrap();
    let mut cursor = table.cursor();
    cursor.first().unwrap();
    for _ in 0..=len {
        let Some(record) = cursor.record() else { break };
        match cursor.block() {
            Some(block) if writer.takes(&block) => {
                writer.add_block(&block).unwrap();
                cursor.skip_block().unwrap();
            }
            _ => {
                writer.add(record).unwrap();
                cursor.next().unwrap();
            }
        }
    }
    let moved = open(&writer.finish().unwrap().0).unwrap();
    moved.verify().unwrap();
    assert_eq!(forward(&moved).0, records);
}

/// Records of every kind, in two keyspaces and several versions.
pub(crate) fn mixed() -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for n in 0..12_u8 {
        let key = format!("key-{n:02}").into_bytes();
        records.push(encoded(0, &key, 10 + u64::from(n), Kind::Put, &[n; 9]));
        if n % 4 == 1 {
            records.push(encoded(0, &key, 40 + u64::from(n), Kind::Delete, b""));
        }
    }
    records.push(encoded(0, b"key-03", 60, Kind::RangeDelete, b"key-06"));
    records.push(encoded(1, b"ann", 61, Kind::Put, &[b'z'; 200]));
    let reference = Reference::new(3, 36, 5000).unwrap();
    records.push(encoded(1, b"bea", 63, Kind::Reference, reference.bytes()));
    records.push(encoded(1, b"bob", 62, Kind::RangeDelete, b""));
    sorted(records)
}

/// Small blocks, so that a few records make several.
pub(crate) fn small(index: PointIndex, compression: Compression) -> TableOptions {
    TableOptions { block_len: 128, index, compression, number: 7, uuid: UUID, ..TableOptions::default() }
}

fn seeds() -> Vec<Seed> {
    let records = mixed();
    let table =
        |index, compression| written(records.iter().map(|record| parsed(record)), small(index, compression));
    let bloom = PointIndex::Bloom { bits_per_key: 10 };
    vec![
        ("location", table(PointIndex::Location, Compression::None)),
        ("slots", table(PointIndex::Location, Compression::Lz4)),
        ("bloom", table(bloom, Compression::None)),
        ("none", table(PointIndex::None, Compression::Lz4)),
        ("single", written([parsed(&records[0])], small(PointIndex::Location, Compression::None))),
    ]
}
