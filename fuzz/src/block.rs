//! One data block: any bytes, in a table that is right but for them.
//!
//! Oracle: a block that is taken is the one a writer makes of its records, byte for byte; it is walked both ways and
//! searched as a sorted list is; and `verify` has nothing against it.
//!
//! Threading: as every body.

use pebble_cursor::Cursor;
use pebble_format::table::{BLOCK_LEN_MAX, Codec};
use pebble_format::{InternalKey, KeyspaceId, Kind, Trailer, record};
use pebble_sstable::{PointIndex, TableOptions};

use crate::disk::assert_told;
use crate::guard::{allowance, bounded};
use crate::records::{encoded, key_of, parsed, sorted};
use crate::tables::{backward, forward, of_one_block, open, open_file, written};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "block", run, repair: None, seeds, rounds: 10_000 };

fn one_block() -> TableOptions {
    TableOptions { block_len: BLOCK_LEN_MAX, index: PointIndex::None, ..TableOptions::default() }
}

fn run(bytes: &[u8]) {
    let raw_len = u32::try_from(bytes.len()).unwrap();
    let whole = of_one_block(bytes, Codec::None, bytes, raw_len);
    let taken = bounded(allowance(whole.len()), || {
        let table = match open(&whole) {
            Ok(table) => table,
            Err(error) => {
                assert_told(&error);
                return None;
            }
        };
        let (records, complete) = forward(&table);
        let (mut reverse, complete_reverse) = backward(&table);
        assert_eq!(complete, complete_reverse);
        reverse.reverse();
        assert_eq!(records, reverse);
        if !complete {
            assert!(records.is_empty(), "a damaged block that gave records");
            assert_told(&table.verify().unwrap_err());
            return None;
        }
        Some((table, records))
    });
    let Some((table, records)) = taken else { return };
    let naive: Vec<_> =
        record::records(bytes).take(records.len()).map(|found| found.unwrap().1.raw()).collect();
    assert_eq!(records, naive);
    assert!(records.windows(2).all(|pair| key_of(&pair[0]) < key_of(&pair[1])));
    let report = table.verify().unwrap();
    assert_eq!(report.records, records.len() as u64);
    let again = written(records.iter().map(|record| parsed(record)), one_block());
    assert_eq!(&again[..bytes.len()], bytes, "a block that no writer makes");
    assert_searched(&table, &records);
    assert_eq!(forward(&open_file(&whole).unwrap()), (records, true));
}

/// Seeks around every key find what a sorted list says.
fn assert_searched(table: &std::sync::Arc<pebble_sstable::Table>, records: &[Vec<u8>]) {
    let mut cursor = table.cursor();
    let check = |cursor: &mut pebble_sstable::TableCursor, target: InternalKey<'_>| {
        let after = records.partition_point(|record| key_of(record) < target);
        cursor.seek(target).unwrap();
        assert_eq!(cursor.record().map(|record| record.raw()), records.get(after).map(Vec::as_slice));
        cursor.seek_before(target).unwrap();
        let before = after.checked_sub(1).map(|at| records[at].as_slice());
        assert_eq!(cursor.record().map(|record| record.raw()), before);
    };
    for own in records.iter().step_by(records.len() / 64 + 1) {
        let key = key_of(own);
        let longer = [key.user_key, &[0]].concat();
        let shorter = &key.user_key[..key.user_key.len().saturating_sub(1)];
        for user_key in [key.user_key, &longer, shorter] {
            for trailer in [key.trailer, Trailer(u64::MAX), Trailer::OLDEST] {
                check(&mut cursor, InternalKey { user_key, trailer, ..key });
            }
        }
        for keyspace in [key.keyspace.0.wrapping_sub(1), key.keyspace.0.wrapping_add(1)] {
            check(&mut cursor, InternalKey { keyspace: KeyspaceId(keyspace), ..key });
        }
        let found = table.get(key).unwrap().unwrap();
        assert_eq!(found.record().raw(), own);
    }
}

/// The blocks that seeds begin with.
pub(crate) fn blocks() -> Vec<Seed> {
    let put = |keyspace, key: &[u8], seqno, value: &[u8]| encoded(keyspace, key, seqno, Kind::Put, value);
    let block = |records: Vec<Vec<u8>>| {
        let records = sorted(records);
        let len = records.iter().map(Vec::len).sum::<usize>();
        let whole = written(records.iter().map(|record| parsed(record)), one_block());
        whole[..len + pebble_format::table::block_tail_len(records.len())].to_vec()
    };
    let versions = (1..6).map(|seqno| put(1, b"key", seqno, &[7; 5])).collect();
    let keys = (0..9).map(|n: u8| put(0, format!("prefix-{n}").as_bytes(), u64::from(n), b"value")).collect();
    vec![
        ("single", block(vec![put(0, b"one", 1, b"1")])),
        ("versions", block(versions)),
        ("keys", block(keys)),
        ("keyspaces", block(vec![put(0, b"", 1, b""), put(1, b"b", 2, b""), put(9, b"c", 3, b"cc")])),
        (
            "deletes",
            block(vec![encoded(2, b"a", 5, Kind::Delete, b""), encoded(2, b"b", 4, Kind::RangeDelete, b"d")]),
        ),
    ]
}

fn seeds() -> Vec<Seed> {
    blocks()
}
