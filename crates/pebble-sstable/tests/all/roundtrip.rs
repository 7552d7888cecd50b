//! What is written is read: over block lengths, indexes, compressions and sources, against a sorted map.

use std::cmp::Reverse;
use std::ops::Bound;

use pebble_format::hash::key_hash;
use pebble_format::{Error, KeyspaceId, RecordRef, Seqno};
use pebble_sstable::{Compression, PointIndex, Table, TableOptions, TableReadOptions, TableWriter};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::model::{
    COMPRESSIONS, INDEXES, Model, SOURCES, Said, Seeded, fixture, get, newest_at, open, plain, plains,
    range_deletes, small, write,
};

pub fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => Just(vec![]),
        4 => vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff)], 0..6),
        3 => vec(any::<u8>(), 0..20).prop_map(|tail| [&b"user:profile:"[..], &tail].concat()),
        1 => vec(any::<u8>(), 200..400),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        2 => Just(Said::Delete),
        2 => key().prop_map(Said::DeleteTo),
        1 => Just(Said::Put(vec![])),
        5 => vec(any::<u8>(), 0..60).prop_map(Said::Put),
        2 => (any::<u8>(), 0..900_usize).prop_map(|(byte, len)| Said::Put(vec![byte; len])),
    ]
}

pub fn model() -> impl Strategy<Value = Model> {
    let seqno = prop_oneof![4 => 0..12_u64, 1 => Just(Seqno::MAX.0)];
    btree_map((0..3_u16, key(), seqno.prop_map(Reverse)), said(), 1..120).prop_map(|mut model| {
        for ((_, start, _), said) in &mut model {
            match said {
                // A range that holds nothing is not taken; as the end of one of a single key it is.
                Said::DeleteTo(end) if !end.is_empty() && *end <= *start => {
                    *end = [start, &b"\0"[..]].concat()
                }
                _ => {}
            }
        }
        model
    })
}

pub fn options() -> impl Strategy<Value = TableOptions> {
    let block_len = prop_oneof![Just(64), Just(300), Just(4_096), Just(65_536)];
    let index = prop_oneof![2 => Just(INDEXES[0]), 1 => Just(INDEXES[1]), 1 => Just(INDEXES[2])];
    let mut compressions = COMPRESSIONS.to_vec();
    compressions.extend(cfg!(feature = "zstd").then_some(Compression::Zstd { level: 1, dictionary: true }));
    let compression = proptest::sample::select(compressions);
    (block_len, index, compression)
        .prop_map(|(block_len, index, compression)| TableOptions { block_len, ..small(index, compression) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_get_scan_and_range_is_that_of_the_model(model in model(), options in options()) {
        let (bytes, info) = write(&model, &options);
        prop_assert_eq!((info.count, info.len), (model.len() as u64, bytes.len() as u64));
        for source in SOURCES {
            let table = open(&bytes, source).unwrap();
            prop_assert_eq!(table.info(), &info);
            let report = table.verify().unwrap();
            prop_assert_eq!((report.records, report.keys), (info.count, info.keys));
            prop_assert_eq!(report.range_deletes, info.range_deletes);
            prop_assert_eq!(&**table.range_deletes(), &range_deletes(&model, None).into_iter().collect());
            let seen: Vec<_> = table.iter().map(|found| plain(found.unwrap().record())).collect();
            prop_assert_eq!(seen, plains(&model));
            for (keyspace, key, seqno) in model.keys() {
                for at in [0, seqno.0.saturating_sub(1), seqno.0, Seqno::MAX.0] {
                    prop_assert_eq!(get(&table, *keyspace, key, at).unwrap(), newest_at(&model, *keyspace, key, at));
                }
                let absent = [key, &b"\0"[..]].concat();
                prop_assert_eq!(
                    get(&table, *keyspace, &absent, 9).unwrap(), newest_at(&model, *keyspace, &absent, 9)
                );
            }
        }
    }

    #[test]
    fn a_range_is_that_of_the_model(model in model(), from in key(), to in key(), options in options()) {
        let (bytes, _) = write(&model, &options);
        let table = open(&bytes, SOURCES[0]).unwrap();
        let bounds = [
            (Bound::Included(&from[..]), Bound::Excluded(&to[..])),
            (Bound::Excluded(&from), Bound::Included(&to)),
            (Bound::Unbounded, Bound::Included(&to)),
            (Bound::Included(&from), Bound::Unbounded),
        ];
        for (low, high) in bounds {
            let inside = |key: &[u8]| {
                let after = match low {
                    Bound::Included(low) => key >= low,
                    Bound::Excluded(low) => key > low,
                    Bound::Unbounded => true,
                };
                let before = match high {
                    Bound::Included(high) => key <= high,
                    Bound::Excluded(high) => key < high,
                    Bound::Unbounded => true,
                };
                after && before
            };
            let expected: Vec<_> =
                plains(&model).into_iter().filter(|found| found.0 == 1 && inside(&found.1)).collect();
            let seen: Vec<_> =
                table.range(KeyspaceId(1), (low, high)).map(|found| plain(found.unwrap().record())).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}

#[test]
fn records_are_moved_verbatim() {
    let (bytes, _) = write(&fixture(), &small(PointIndex::Location, Compression::None));
    let table = open(&bytes, SOURCES[0]).unwrap();
    let mut writer = TableWriter::new(Vec::new(), small(PointIndex::Location, Compression::None)).unwrap();
    for found in table.iter() {
        let found = found.unwrap();
        let record: RecordRef<'_> = found.record();
        writer.add(record).unwrap();
    }
    assert_eq!(writer.finish().unwrap().0, bytes);
}

#[test]
fn records_out_of_order_and_bad_options_are_refused_and_change_nothing() {
    let mut writer = TableWriter::new(Vec::new(), TableOptions::default()).unwrap();
    writer.put(KeyspaceId(1), b"b", Seqno(5), b"x").unwrap();
    for (keyspace, key, seqno) in [(1, &b"a"[..], 9), (1, b"b", 5), (1, b"b", 6), (0, b"z", 1)] {
        let refused = writer.put(KeyspaceId(keyspace), key, Seqno(seqno), b"y");
        assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    }
    writer.delete(KeyspaceId(1), b"b", Seqno(4)).unwrap();
    assert_eq!(writer.count(), 2);
    let (bytes, info) = writer.finish().unwrap();
    assert_eq!((info.count, info.keys, info.tombstones), (2, 1, 1));
    assert!(Table::from_bytes(bytes, "t", TableReadOptions::default()).unwrap().verify().is_ok());

    let empty = TableWriter::new(Vec::new(), TableOptions::default()).unwrap();
    assert!(matches!(empty.finish(), Err(Error::InvalidArgument(_))));
    for options in [
        TableOptions { block_len: 63, ..TableOptions::default() },
        TableOptions { block_len: (256 << 10) + 1, ..TableOptions::default() },
        TableOptions { index: PointIndex::Bloom { bits_per_key: 0 }, ..TableOptions::default() },
    ] {
        assert!(TableWriter::new(Vec::new(), options).is_err());
    }
}

#[test]
fn a_block_holds_1023_records_at_most_and_long_records_have_their_own() {
    let mut writer =
        TableWriter::new(Vec::new(), TableOptions { block_len: 256 << 10, ..TableOptions::default() })
            .unwrap();
    for n in 0..3_000_u32 {
        writer.put(KeyspaceId(0), &n.to_be_bytes(), Seqno(1), b"").unwrap();
    }
    let long = vec![7; 600 << 10];
    writer.put(KeyspaceId(0), b"long", Seqno(1), &long).unwrap();
    writer.put(KeyspaceId(0), b"longer", Seqno(1), &long).unwrap();
    let (bytes, _) = writer.finish().unwrap();
    let table = open(&bytes, SOURCES[0]).unwrap();
    let counts: Vec<_> = table.blocks().map(|block| block.count).collect();
    assert_eq!(counts, [1_023, 1_023, 954, 1, 1]);
    table.verify().unwrap();
    assert_eq!(get(&table, 0, b"longer", 9).unwrap().unwrap().3, Said::Put(long));
}

#[test]
fn a_table_beyond_the_reach_of_its_index_falls_back_to_a_filter() {
    let mut writer = TableWriter::new(Vec::new(), TableOptions::default()).unwrap();
    let value = vec![3; 9 << 20];
    let mut full = None;
    for n in 0..5_u8 {
        full = full.or(writer.is_full().then_some(n));
        writer.put(KeyspaceId(0), &[n], Seqno(1), &value).unwrap();
    }
    assert_eq!(full, Some(4));
    let (bytes, _) = writer.finish().unwrap();
    let table = open(&bytes, SOURCES[0]).unwrap();
    assert_eq!(table.index_kind(), pebble_format::table::IndexKind::Bloom);
    assert_eq!(get(&table, 0, &[4], 9).unwrap().unwrap().3, Said::Put(value));
    assert_eq!(get(&table, 0, &[5], 9).unwrap(), None);
}

/// Keys that somebody chose, so that each would have to pass over all those before it.
#[test]
fn keys_whose_hashes_crowd_get_a_filter() {
    let keys = (0..32_000_u32).map(u32::to_be_bytes);
    let crowd = keys.filter(|key| key_hash(KeyspaceId(1), key) >> 60 == 0);
    let model: Model = crowd.map(|key| ((1, key.to_vec(), Reverse(1)), Said::Put(key.to_vec()))).collect();
    assert!(model.len() > 1_900);
    for compression in COMPRESSIONS {
        let table = open(&write(&model, &small(PointIndex::Location, compression)).0, SOURCES[0]).unwrap();
        assert_eq!(table.index_kind(), pebble_format::table::IndexKind::Bloom);
        table.verify().unwrap();
        for (_, key, _) in model.keys() {
            assert_eq!(get(&table, 1, key, 9).unwrap(), newest_at(&model, 1, key, 9));
            assert_eq!(get(&table, 2, key, 9).unwrap(), None);
        }
    }
}

#[test]
fn only_blocks_that_shrink_by_an_eighth_are_compressed() {
    let mut writer = TableWriter::new(Vec::new(), small(PointIndex::Location, Compression::Lz4)).unwrap();
    let mut seeded = Seeded(3);
    for n in 0..60_u8 {
        let noise: Vec<u8> = (0..150).map(|_| seeded.next() as u8).collect();
        let value = if n < 30 { noise } else { vec![n; 150] };
        writer.put(KeyspaceId(0), &[n], Seqno(1), &value).unwrap();
    }
    let (bytes, info) = writer.finish().unwrap();
    let table = open(&bytes, SOURCES[0]).unwrap();
    let stored: Vec<_> =
        table.blocks().map(|block| (block.codec as u8, block.stored_len, block.raw_len)).collect();
    assert!(stored.iter().any(|(codec, ..)| *codec == 0) && stored.iter().any(|(codec, ..)| *codec == 1));
    assert!(stored.iter().all(|(codec, stored, raw)| if *codec == 0 {
        stored == raw
    } else {
        *stored <= raw - raw / 8
    }));
    assert!(info.data_len < info.raw_len);
    table.verify().unwrap();
}

#[test]
fn the_fixture_reads_alike_in_every_layout() {
    let model = fixture();
    for index in INDEXES {
        for compression in COMPRESSIONS {
            let (bytes, _) = write(&model, &small(index, compression));
            for source in SOURCES {
                let table = open(&bytes, source).unwrap();
                assert!(table.info().blocks > 5);
                for (keyspace, key, seqno) in model.keys() {
                    table.prefetch(seqno.0);
                    let found = get(&table, *keyspace, key, seqno.0).unwrap();
                    assert_eq!(found, newest_at(&model, *keyspace, key, seqno.0));
                }
            }
        }
    }
}

#[test]
fn an_output_error_sticks() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut writer = TableWriter::new(Full(1_000), small(PointIndex::Location, Compression::None)).unwrap();
    let failed = (0..200_u8).find(|n| writer.put(KeyspaceId(0), &[*n], Seqno(1), &[0; 50]).is_err());
    assert!(failed.is_some());
    assert!(matches!(writer.put(KeyspaceId(0), &[250], Seqno(1), b""), Err(Error::Io(_))));
    assert!(matches!(writer.finish(), Err(Error::Io(_))));
}
