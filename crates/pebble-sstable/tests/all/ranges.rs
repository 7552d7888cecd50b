//! Range deletes: the region against the records, cut and whole, and what it takes for a region to be refused.

use std::cmp::Reverse;
use std::mem::offset_of;
use std::sync::Arc;

use pebble_cursor::RangeDeletes;
use pebble_format::table::{RangeDeleteEntry, RegionId, TABLE_FOOTER_LEN, TableFooter};
use pebble_format::{Error, InternalKey, KeyspaceId, Seqno, Trailer};
use pebble_sstable::{Compression, PointIndex, Table, TableInfo, TableOptions, TableWriter};
use proptest::prelude::*;
use zerocopy::FromBytes;

use crate::hostile::{bounded, repair};
use crate::model::{
    COMPRESSIONS, Model, SOURCES, Said, Source, fill, fixture, get, newest_at, open, plain, plains,
    range_deletes, small, write,
};
use crate::roundtrip::{key, model, options};

fn write_before(model: &Model, cut: (u16, &[u8]), options: &TableOptions) -> (Vec<u8>, TableInfo) {
    let mut writer = TableWriter::new(Vec::new(), options.clone()).unwrap();
    fill(&mut writer, model);
    writer.finish_before(Some(place(cut))).unwrap()
}

fn place(cut: (u16, &[u8])) -> InternalKey<'_> {
    // What stands in the trailer is no part of the border.
    InternalKey { keyspace: KeyspaceId(cut.0), user_key: cut.1, trailer: Trailer(7) }
}

/// The model of [`TableInfo::reach`]: by the first key behind the last one.
fn reach(model: &Model, deletes: &RangeDeletes) -> Option<Vec<u8>> {
    let ((keyspace, last, _), _) = model.last_key_value().unwrap();
    let behind = [last, &b"\0"[..]].concat();
    let covering = deletes.iter().filter(|delete| delete.covers(KeyspaceId(*keyspace), &behind));
    let ends = covering.map(|delete| delete.end.to_vec());
    ends.max_by_key(|end| (end.is_empty(), end.clone()))
}

fn of(deletes: &[(u16, &[u8], u64, &[u8])]) -> Model {
    let one = |(keyspace, start, seqno, end): &(u16, &[u8], u64, &[u8])| {
        ((*keyspace, start.to_vec(), Reverse(*seqno)), Said::DeleteTo(end.to_vec()))
    };
    deletes.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_answers_for_its_share_of_every_range(
        model in model(), cut in proptest::option::of((0..3_u16, key())), options in options()
    ) {
        let last = model.last_key_value().map(|((keyspace, key, _), _)| (*keyspace, key.clone())).unwrap();
        // Mostly the key of the next table lies in the keyspace of the last one, and not far.
        let cut = cut.map(|(how, key)| match how {
            0 => (last.0 + 1, key),
            _ if key > last.1 => (last.0, key),
            _ => (last.0, [&last.1, &b"\0"[..], &key].concat()),
        });
        let cut = cut.as_ref().map(|(keyspace, key)| (*keyspace, &key[..]));
        let (bytes, info) = match cut {
            Some(cut) => write_before(&model, cut, &options),
            None => write(&model, &options),
        };
        let expected: RangeDeletes = range_deletes(&model, cut).into_iter().collect();
        prop_assert_eq!(&info.reach, &reach(&model, &expected).map(Box::from));
        prop_assert_eq!(info.range_deletes as usize, expected.len());
        for source in SOURCES {
            let table = open(&bytes, source).unwrap();
            prop_assert_eq!(table.info(), &info);
            prop_assert_eq!(&**table.range_deletes(), &expected);
            prop_assert_eq!(table.verify().unwrap().range_deletes, info.range_deletes);
            let seen: Vec<_> = table.iter().map(|found| plain(found.unwrap().record())).collect();
            prop_assert_eq!(seen, plains(&model));
        }
    }
}

#[test]
fn a_table_of_nothing_but_range_deletes_is_a_table() {
    let model = of(&[(0, b"", 3, b""), (0, b"a", 9, b"c"), (0, b"a", 2, b"b"), (4, b"z", 5, b"")]);
    for compression in COMPRESSIONS {
        let (bytes, info) = write(&model, &small(PointIndex::Location, compression));
        assert_eq!((info.count, info.tombstones, info.range_deletes, info.keys), (4, 4, 4, 3));
        assert_eq!(info.reach.as_deref(), Some(&b""[..]));
        let table = open(&bytes, Source::Bytes).unwrap();
        let covering = |keyspace, key: &[u8]| {
            table.range_deletes().covering(KeyspaceId(keyspace), key, Seqno::MAX).map(|delete| delete.seqno.0)
        };
        assert_eq!(
            [covering(0, b"a"), covering(0, b"c"), covering(4, b"y"), covering(4, b"zz")],
            [Some(9), Some(3), None, Some(5)]
        );
        // A get finds a range delete under its own key, and under no other.
        assert_eq!(get(&table, 0, b"a", 8).unwrap(), newest_at(&model, 0, b"a", 8));
        assert_eq!(get(&table, 0, b"b", 8).unwrap(), None);
        assert!(table.memory() >= size_of::<Table>() + table.range_deletes().memory());
    }
}

/// The fixture without its range deletes.
fn fixture_without() -> Model {
    let mut model = fixture();
    model.retain(|_, said| !matches!(said, Said::DeleteTo(_)));
    model
}

#[test]
fn tables_without_range_deletes_share_one_empty_index() {
    let (bytes, info) = write(&fixture_without(), &small(PointIndex::None, Compression::None));
    assert_eq!((info.range_deletes, info.reach), (0, None));
    let tables = [Source::Bytes, Source::File].map(|source| open(&bytes, source).unwrap());
    assert!(tables[0].range_deletes().is_empty());
    assert!(Arc::ptr_eq(tables[0].range_deletes(), tables[1].range_deletes()));
}

#[test]
fn only_what_passes_the_cut_is_clipped_and_the_records_stay() {
    let model = of(&[
        (1, b"a", 1, b""),
        (2, b"a", 9, b"m"),
        (2, b"b", 8, b"m\0"),
        (2, b"c", 7, b""),
        (2, b"d", 6, b"k"),
    ]);
    let options = small(PointIndex::Location, Compression::None);
    let ends = |cut: (u16, &[u8])| -> (Vec<Vec<u8>>, Option<Box<[u8]>>) {
        let (bytes, info) = write_before(&model, cut, &options);
        let table = open(&bytes, Source::Bytes).unwrap();
        table.verify().unwrap();
        let seen: Vec<_> = table.iter().map(|found| plain(found.unwrap().record())).collect();
        assert_eq!(seen, plains(&model));
        let mut ends: Vec<_> = table
            .range_deletes()
            .iter()
            .map(|delete| (delete.start.clone(), delete.end.to_vec()))
            .skip(1)
            .collect();
        ends.sort();
        (ends.into_iter().map(|(_, end)| end).collect(), info.reach)
    };
    let whole = || [b"m".to_vec(), b"m\0".to_vec(), vec![], b"k".to_vec()].to_vec();
    assert_eq!(
        ends((2, b"m")),
        ([b"m".to_vec(), b"m".to_vec(), b"m".to_vec(), b"k".to_vec()].to_vec(), Some((*b"m").into()))
    );
    assert_eq!(ends((2, b"d\0")), (vec![b"d\0".to_vec(); 4], None));
    assert_eq!(ends((3, b"")), (whole(), Some(Box::default())));
    for cut in [(2, &b"d"[..]), (2, b"a"), (1, b"z"), (0, b"")] {
        let mut writer = TableWriter::new(Vec::new(), options.clone()).unwrap();
        fill(&mut writer, &model);
        assert!(matches!(writer.finish_before(Some(place(cut))), Err(Error::InvalidArgument(_))));
    }
}

#[test]
fn ranges_without_a_key_are_refused_and_change_nothing() {
    let mut writer = TableWriter::new(Vec::new(), TableOptions::default()).unwrap();
    let space = KeyspaceId(3);
    let long = vec![b'z'; 65_536];
    for (start, end) in [(&b"b"[..], &b"b"[..]), (b"b", b"a"), (b"b\0", b"b"), (b"b", &long)] {
        assert!(matches!(writer.delete_range(space, start, end, Seqno(4)), Err(Error::InvalidArgument(_))));
    }
    assert_eq!(writer.count(), 0);
    writer.delete_range(space, b"b", b"b\0", Seqno(4)).unwrap();
    writer.delete_range(space, b"c", &long[1..], Seqno(4)).unwrap();
    writer.put(space, &long[2..], Seqno(4), b"").unwrap();
    let (bytes, info) = writer.finish().unwrap();
    assert_eq!((info.count, info.tombstones, info.range_deletes), (3, 2, 2));
    // The end is the last key with one byte more, but that is no zero.
    assert_eq!(info.reach.as_deref(), Some(&long[1..]));
    open(&bytes, Source::Bytes).unwrap().verify().unwrap();
}

/// Where the region lies, and where each of its entries begins.
fn region(bytes: &[u8]) -> Vec<usize> {
    let footer = TableFooter::read_from_bytes(&bytes[bytes.len() - TABLE_FOOTER_LEN..]).unwrap();
    let region = footer.region(RegionId::RangeDeletes);
    let (mut at, end) =
        (region.offset.get() as usize, (region.offset.get() + u64::from(region.len.get())) as usize);
    let mut starts = Vec::new();
    while at < end {
        starts.push(at);
        at += RangeDeleteEntry::ref_from_prefix(&bytes[at..]).unwrap().0.padded_len();
    }
    starts
}

#[test]
fn a_region_that_no_writer_makes_is_refused_though_its_checksum_is_right() {
    let mut model = of(&[(1, b"aa", 9, b"cc"), (1, b"aa", 7, b"cc"), (1, b"bb", 5, b"dd")]);
    model.insert((1, b"a".to_vec(), Reverse(9)), Said::Put(vec![1]));
    model.insert((1, b"z".to_vec(), Reverse(5)), Said::Put(vec![1]));
    let (good, _) = write(&model, &small(PointIndex::Location, Compression::None));
    let starts = region(&good);
    let (first, third) = (starts[0], starts[2]);
    let keys = size_of::<RangeDeleteEntry>();
    let footer = good.len() - TABLE_FOOTER_LEN;
    type Forge<'a> = Box<dyn Fn(&mut [u8]) + 'a>;
    let set = |at: usize, byte: u8| -> Forge<'static> { Box::new(move |bytes| bytes[at] = byte) };
    let forgeries: Vec<(&str, Forge<'_>)> = vec![
        ("zeros of a range delete", set(first + offset_of!(RangeDeleteEntry, reserved), 1)),
        (
            "zeros of a range delete",
            Box::new(|bytes| {
                // One byte less of the last end, which then counts as padding.
                bytes[third + offset_of!(RangeDeleteEntry, end_len)] = 1;
            }),
        ),
        ("range of a range delete", set(first + keys + 2, b'A')),
        ("range delete length", set(third + offset_of!(RangeDeleteEntry, end_len), 3)),
        ("range delete length", set(third + offset_of!(RangeDeleteEntry, start_len) + 1, 0xff)),
        ("sequence number of a range delete", set(first, 10)),
        ("sequence number of a range delete", set(first, 4)),
        ("sequence number of a range delete", set(first + 7, 1)),
        ("order of the range deletes", set(first, 6)),
        ("order of the range deletes", set(first, 7)),
        ("order of the range deletes", set(first + keys, b'b')),
        ("order of the range deletes", set(first + keys, b'Z')),
        (
            "order of the range deletes",
            Box::new(|bytes| {
                bytes[third + keys] = b'z';
                bytes[third + keys + 2] = 0xff;
            }),
        ),
        ("order of the range deletes", set(third + offset_of!(RangeDeleteEntry, keyspace), 2)),
        ("range delete flag", set(footer + 12, good[footer + 12] & !8)),
        ("number of range deletes", set(footer + offset_of!(TableFooter, tombstones), 2)),
    ];
    for (what, forge) in forgeries {
        let mut bytes = good.clone();
        forge(&mut bytes);
        repair(&mut bytes);
        for source in [Source::Bytes, Source::File] {
            let error = open(&bytes, source).unwrap_err().to_string();
            assert!(error.contains(what), "{error}, not {what}");
        }
        bounded(&bytes, Source::Bytes);
    }
    // The first that is too many is told; those behind it are not looked at.
    let mut bytes = good.clone();
    set(footer + offset_of!(TableFooter, tombstones), 1)(&mut bytes);
    repair(&mut bytes);
    let error = open(&bytes, Source::Bytes).unwrap_err().to_string();
    assert!(error.contains(&format!("at offset {}: expected 0x1, got 0x2", starts[1])), "{error}");
}

#[test]
fn verify_compares_every_entry_with_its_record() {
    let model = of(&[(1, b"aa", 9, b"cc"), (1, b"bb", 7, b"dd"), (1, b"bc", 5, b"ee")]);
    let (good, _) = write(&model, &small(PointIndex::Location, Compression::None));
    let starts = region(&good);
    let keys = size_of::<RangeDeleteEntry>();
    // Another start, another seqno, an end behind the record's, an end before the table's.
    for (at, byte) in [
        (starts[1] + keys + 1, b'a'),
        (starts[1], 8),
        (starts[1] + keys + 2, b'e'),
        (starts[0] + keys + 2, b'b'),
    ] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        repair(&mut bytes);
        let error = open(&bytes, Source::Bytes).unwrap().verify().unwrap_err().to_string();
        assert!(error.contains("entry of a range delete"), "{error}");
    }
    // An end that a cut behind the last key might have made is one.
    let mut bytes = good.clone();
    bytes[starts[1] + keys + 2] = b'c';
    repair(&mut bytes);
    open(&bytes, Source::Bytes).unwrap().verify().unwrap();
}

#[test]
fn a_record_without_an_entry_and_an_entry_without_a_record_are_found() {
    let mut model = of(&[(1, b"b", 9, b"y")]);
    for (key, value) in [(b"a", b"x"), (b"c", b"x"), (b"z", b"x")] {
        model.insert((1, key.to_vec(), Reverse(9)), Said::Put(value.to_vec()));
    }
    let (good, info) = write(&model, &small(PointIndex::Location, Compression::None));
    assert_eq!((info.blocks, good[20], good[20 + 17]), (1, 3, b'y'));
    let forgeries = [
        ("entry of a range delete", 40, 3),
        ("range deletes", 20, 2),
        ("range of a range delete", 20 + 17, b'a'),
    ];
    for (what, at, byte) in forgeries {
        let mut bytes = good.clone();
        bytes[at] = byte;
        repair(&mut bytes);
        let error = open(&bytes, Source::Bytes).unwrap().verify().unwrap_err().to_string();
        assert!(error.contains(what), "{error}, not {what}");
    }
}
