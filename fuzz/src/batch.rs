//! Records behind one another, as a log's frame, a batch and a memtable hold them.
//!
//! Oracle: what parses encodes to the same bytes, padding aside; a batch that is made of it and stamped parses to the
//! same; and a memtable over the very bytes orders them as a map does.
//!
//! Threading: as every body.

use std::collections::BTreeMap;

use pebble_cursor::{Cursor, RangeDelete};
use pebble_format::record::{self, RECORD_HEADER_LEN, RecordRef};
use pebble_format::{AppendRegion, HeadPrefix, InternalKey, Kind, OwnedKey, RecordBatch, Seqno, Trailer};
use pebble_memtable::Memtable;

use crate::guard::{allowance, bounded};
use crate::records::{encoded, has_range};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "batch", run, repair: None, seeds, rounds: 10_000 };

/// Most records of an input that go into the memtable and the batch: each range delete costs a copy of all others.
const RECORDS_MAX: usize = 256;

fn run(bytes: &[u8]) {
    let mut all = Vec::new();
    let mut end = 0;
    for found in record::records(bytes) {
        match found {
            Ok((at, record)) => {
                assert_eq!(at, end, "records without a gap");
                end = at + record.raw().len();
                assert_eq!(record.raw(), &bytes[at..end]);
                assert_encodes_again(record);
                all.push((at, record));
            }
            Err(corruption) => {
                assert_eq!(corruption.offset, end as u64);
                assert!(RecordRef::parse(&bytes[end..]).is_err());
            }
        }
    }
    let mut stamped = bytes.to_vec();
    let mut rest = stamped.as_mut_slice();
    for index in 0..=all.len() as u64 {
        let Some(len) = record::stamp(rest, Seqno(5), index) else { break };
        let Some(next) = rest.get_mut(len..) else { break };
        rest = next;
    }
    all.truncate(RECORDS_MAX);
    assert_batches(&all);
    assert_indexed(bytes, &all);
}

fn assert_encodes_again(record: RecordRef<'_>) {
    let mut to = vec![0xaa; record.raw().len()];
    let len = record::encode(&mut to, record.keyspace(), record.key(), record.trailer(), record.value());
    assert_eq!(len.unwrap(), to.len());
    let used = RECORD_HEADER_LEN + record.key().len() + record.value().len();
    assert_eq!(to[..used], record.raw()[..used]);
    assert!(to[used..].iter().all(|byte| *byte == 0));
}

/// What a user could have written goes into a batch, and comes out of it numbered.
fn assert_batches(all: &[(usize, RecordRef<'_>)]) {
    let mut batch = RecordBatch::new();
    let mut expected = Vec::new();
    for (_, record) in all {
        let (keyspace, key, value) = (record.keyspace(), record.key(), record.value());
        let before = batch.count();
        let (kind, value) = match record.trailer().kind() {
            Some(Kind::Put) => (Kind::Put, batch.put(keyspace, key, value).map(|()| value)),
            Some(Kind::Delete) => (Kind::Delete, batch.delete(keyspace, key).map(|()| &b""[..])),
            Some(Kind::RangeDelete) => {
                (Kind::RangeDelete, batch.delete_range(keyspace, key, value).map(|()| value))
            }
            // Nobody writes one: it stands in tables alone.
            Some(Kind::Reference) => continue,
            None => panic!("a record of no kind was parsed"),
        };
        match value {
            Ok(value) if batch.count() > before => expected.push((keyspace, key, kind, value)),
            Ok(_) => assert!(!has_range(*record), "a range with a key was left out"),
            Err(_) => assert!(!has_range(*record) && batch.count() == before),
        }
    }
    let mut bytes = vec![0xaa; batch.bytes().len()];
    batch.copy_stamped(&mut bytes, Seqno(100));
    let found: Vec<_> = record::records(&bytes).map(|found| found.unwrap().1).collect();
    assert_eq!(found.len(), batch.count() as usize);
    for ((record, (keyspace, key, kind, value)), seqno) in found.iter().zip(&expected).zip(100..) {
        let wanted =
            InternalKey { keyspace: *keyspace, user_key: key, trailer: Trailer::new(Seqno(seqno), *kind) };
        assert!(record.internal_key() == wanted && record.value() == *value);
    }
}

/// A memtable over the bytes agrees with a map.
fn assert_indexed(bytes: &[u8], all: &[(usize, RecordRef<'_>)]) {
    let limit = allowance(bytes.len()) + all.len() * all.len() * size_of::<RangeDelete>();
    bounded(limit, || {
        let mut appender = AppendRegion::heap(bytes.len());
        appender.spare().copy_from_slice(bytes);
        appender.fill(bytes.len());
        let (mut writer, memtable) = Memtable::new(HeadPrefix::none());
        assert!(writer.attach(appender.region()).unwrap());
        let mut model: BTreeMap<OwnedKey, usize> = BTreeMap::new();
        for (at, record) in all {
            let key = OwnedKey::new(record.internal_key());
            let known = model.contains_key(&key);
            assert_eq!(writer.insert(*at).is_ok(), !known);
            model.entry(key).or_insert(*at);
        }
        for at in [bytes.len(), bytes.len().wrapping_add(4), 1] {
            assert!(writer.insert(at).is_err());
        }
        let mut cursor = memtable.cursor();
        cursor.first().unwrap();
        for (key, at) in &model {
            let record = cursor.record().unwrap();
            assert!(record.internal_key() == key.as_ref());
            assert_eq!(record.raw(), &bytes[*at..*at + record.raw().len()]);
            let found = memtable.get(key.as_ref()).unwrap();
            assert_eq!(found.raw(), record.raw());
            cursor.next().unwrap();
        }
        assert!(cursor.record().is_none());
        cursor.last().unwrap();
        for key in model.keys().rev() {
            assert!(cursor.record().unwrap().internal_key() == key.as_ref());
            cursor.prev().unwrap();
        }
    });
}

fn seeds() -> Vec<Seed> {
    let put = |keyspace, key: &[u8], seqno, value: &[u8]| encoded(keyspace, key, seqno, Kind::Put, value);
    let mixed = [
        put(0, b"ann", 1, b"1"),
        put(1, b"", 2, b""),
        encoded(0, b"ann", 3, Kind::Delete, b""),
        encoded(0, b"a", 4, Kind::RangeDelete, b"m"),
        encoded(0, b"k", 5, Kind::RangeDelete, b""),
        put(u16::MAX, &[0xff; 9], 6, &[7; 30]),
    ];
    let mut tail = put(0, b"key", 9, b"cut off");
    tail.truncate(20);
    vec![
        ("mixed", mixed.concat()),
        ("same_twice", [put(0, b"a", 1, b"1"), put(0, b"a", 1, b"2")].concat()),
        ("torn", [put(0, b"b", 1, b"x"), tail].concat()),
        ("zeros", vec![0; 40]),
    ]
}
