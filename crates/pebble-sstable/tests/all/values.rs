//! Tables of values, and the references that lead to them.

use std::mem::offset_of;

use pebble_cursor::Cursor;
use pebble_format::table::{
    FLAG_HAS_REFERENCES, FLAG_HOLDS_VALUES, RegionId, TABLE_FOOTER_LEN, TableFooter, TableProperties,
};
use pebble_format::{
    Error, InternalKey, KeyspaceId, Kind, RecordRef, Reference, Result, Seqno, Trailer, record,
};
use pebble_sstable::{
    BlockCache, Compression, PointIndex, Referred, Table, TableOptions, TableReadOptions, TableWriter,
};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

use crate::hostile::repair;

const SPACE: KeyspaceId = KeyspaceId(2);

fn encoded(key: &[u8], seqno: u64, kind: Kind, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; record::encoded_len(key.len(), value.len())];
    record::encode(&mut bytes, SPACE, key, Trailer::new(Seqno(seqno), kind), value).unwrap();
    bytes
}

fn of_values(compression: Compression) -> TableOptions {
    TableOptions {
        block_len: 64,
        index: PointIndex::None,
        holds_values: true,
        number: 7,
        compression,
        ..TableOptions::default()
    }
}

fn add(writer: &mut TableWriter<Vec<u8>>, bytes: &[u8]) -> Result<()> {
    writer.add(RecordRef::parse(bytes).unwrap())
}

fn value(n: u32) -> Vec<u8> {
    format!("value {n} ").repeat(40 + n as usize).into_bytes()
}

fn key(n: u32) -> Vec<u8> {
    format!("key-{n:02}").into_bytes()
}

/// Twenty values, and where the block of each begins.
fn values(compression: Compression) -> (Vec<u8>, Vec<u64>) {
    let mut places = Vec::new();
    let mut writer = TableWriter::new(Vec::new(), of_values(compression)).unwrap();
    for n in 0..20 {
        places.push(writer.end_block().unwrap());
        add(&mut writer, &encoded(&key(n), 100 + u64::from(n), Kind::Put, &value(n))).unwrap();
    }
    let (bytes, info) = writer.finish().unwrap();
    assert!(info.holds_values && info.referred.is_empty() && info.blocks == 20);
    (bytes, places)
}

fn open(bytes: &[u8]) -> Result<Arc<Table>> {
    let cache = Some(Arc::new(BlockCache::new(1 << 20)));
    Table::from_bytes(bytes.to_vec(), "values", TableReadOptions { cache })
}

fn reference(table: u64, offset: u64, len: usize) -> Reference {
    Reference::new(table, offset, len).unwrap()
}

fn internal(key: &[u8], seqno: u64) -> InternalKey<'_> {
    let trailer = Trailer::new(Seqno(seqno), Kind::Reference);
    InternalKey { keyspace: SPACE, user_key: key, trailer }
}

#[test]
fn a_reference_leads_to_its_record_and_to_no_other() {
    for compression in [Compression::None, Compression::Lz4] {
        let (bytes, places) = values(compression);
        let table = open(&bytes).unwrap();
        table.verify().unwrap();
        for (n, at) in (0..20).zip(places) {
            let (key, value, seqno) = (key(n), value(n), 100 + u64::from(n));
            let found = table.referred(&reference(7, at, value.len()), internal(&key, seqno)).unwrap();
            let once = table.referred_once(&reference(7, at, value.len()), internal(&key, seqno)).unwrap();
            assert_eq!(found.record().raw(), once.record().raw());
            assert_eq!((found.record().key(), found.record().value()), (&key[..], &value[..]));
            let wrong = [
                (reference(7, at + 4, value.len()), internal(&key, seqno)),
                (reference(7, at, value.len() + 1), internal(&key, seqno)),
                (reference(7, at, value.len()), internal(&key, seqno + 1)),
                (reference(7, at, value.len()), internal(b"another", seqno)),
                (reference(7, 1 << 33, value.len()), internal(&key, seqno)),
                (
                    reference(7, at, value.len()),
                    InternalKey { keyspace: KeyspaceId(3), ..internal(&key, seqno) },
                ),
            ];
            for (reference, key) in wrong {
                for error in [table.referred(&reference, key), table.referred_once(&reference, key)] {
                    let error = error.unwrap_err();
                    assert!(
                        matches!(&error, Error::Corruption(found) if &*found.file == "values"),
                        "{error}"
                    );
                }
            }
        }
    }
}

/// A snapshot may keep an older version of a key.
#[test]
fn two_versions_of_a_key_are_one_key_also_where_blocks_are_ended() {
    let mut writer = TableWriter::new(Vec::new(), of_values(Compression::None)).unwrap();
    for (key, seqno) in [(b"a", 9), (b"a", 7), (b"b", 8)] {
        assert_eq!(writer.end_block().unwrap(), writer.end_block().unwrap());
        add(&mut writer, &encoded(key, seqno, Kind::Put, &[1; 100])).unwrap();
    }
    writer.end_block().unwrap();
    for (key, seqno) in [(b"b", 8), (b"b", 9), (b"a", 1)] {
        let again = encoded(key, seqno, Kind::Put, &[1; 100]);
        assert!(matches!(add(&mut writer, &again), Err(Error::InvalidArgument(_))), "out of order");
    }
    let (bytes, info) = writer.finish().unwrap();
    assert_eq!((info.count, info.keys), (3, 2));
    open(&bytes).unwrap().verify().unwrap();
}

#[test]
fn a_table_of_values_takes_only_what_can_be_referred_to() {
    let mut writer = TableWriter::new(Vec::new(), of_values(Compression::None)).unwrap();
    let short = encoded(b"a", 1, Kind::Put, b"a value that would share a block");
    let refused = [
        short,
        encoded(b"a", 1, Kind::Delete, b""),
        encoded(&[b'a'; 99], 1, Kind::Put, b""),
        encoded(&[b'a'; 99], 1, Kind::RangeDelete, b"b"),
        encoded(&[b'a'; 99], 1, Kind::Reference, reference(1, 4, 100).bytes()),
    ];
    for bytes in &refused {
        assert!(matches!(add(&mut writer, bytes), Err(Error::InvalidArgument(_))));
    }
    assert_eq!(writer.count(), 0);
    add(&mut writer, &encoded(b"a", 1, Kind::Put, &[1; 100])).unwrap();
    writer.finish().unwrap();
    let searched = TableOptions { index: PointIndex::Location, ..of_values(Compression::None) };
    assert!(TableWriter::new(Vec::new(), searched).is_err());
    // And no table takes a reference that is none.
    let mut writer = TableWriter::new(Vec::new(), TableOptions::default()).unwrap();
    for bad in [&reference(1, 4, 100).bytes()[..15], &[0; 16], b""] {
        assert!(add(&mut writer, &encoded(b"a", 1, Kind::Reference, bad)).is_err());
    }
}

/// A table of references to 3 and 9.
fn referring() -> Vec<u8> {
    let options = TableOptions { block_len: 128, number: 10, ..TableOptions::default() };
    let mut writer = TableWriter::new(Vec::new(), options).unwrap();
    for n in 0..30 {
        let (of, key) = (reference(if n % 2 == 0 { 9 } else { 3 }, u64::from(n) * 4, 100), key(n));
        match n % 3 {
            0 => add(&mut writer, &encoded(&key, 5, Kind::Put, b"short")).unwrap(),
            _ => add(&mut writer, &encoded(&key, 5, Kind::Reference, of.bytes())).unwrap(),
        }
    }
    let (bytes, info) = writer.finish().unwrap();
    let expected = [Referred { table: 3, bytes: 1000 }, Referred { table: 9, bytes: 1000 }];
    assert_eq!((&*info.referred, info.tombstones), (&expected[..], 0));
    bytes
}

#[test]
fn a_table_lists_what_it_refers_to_also_in_blocks_that_are_handed_on() {
    let table = open(&referring()).unwrap();
    table.verify().unwrap();
    let listed = table.info().referred.clone();
    assert_eq!(listed.len(), 2);
    let options = TableOptions { block_len: 128, ..TableOptions::default() };
    let mut writer = TableWriter::new(Vec::new(), options).unwrap();
    let (mut cursor, mut whole) = (table.cursor(), 0);
    cursor.first().unwrap();
    while let Some(record) = cursor.record() {
        match cursor.block().filter(|block| writer.takes(block)) {
            Some(block) => {
                writer.add_block(&block).unwrap();
                whole += 1;
                cursor.skip_block().unwrap();
            }
            None => {
                writer.add(record).unwrap();
                cursor.next().unwrap();
            }
        }
    }
    let (bytes, info) = writer.finish().unwrap();
    assert!(whole > 3 && info.referred == listed);
    open(&bytes).unwrap().verify().unwrap();
    // A table of values hands its blocks to nobody but a reader.
    let values = open(&values(Compression::None).0).unwrap();
    let mut cursor = values.cursor();
    cursor.first().unwrap();
    let mut writer = TableWriter::new(Vec::new(), of_values(Compression::None)).unwrap();
    assert!(writer.add_block(&cursor.block().unwrap()).is_err());
}

/// Changes the footer, puts the checksums right, and opens.
fn with_footer(bytes: &[u8], change: impl FnOnce(&mut TableFooter)) -> Result<Arc<Table>> {
    let mut bytes = bytes.to_vec();
    let at = bytes.len() - TABLE_FOOTER_LEN;
    let mut footer = TableFooter::read_from_bytes(&bytes[at..]).unwrap();
    change(&mut footer);
    bytes[at..].copy_from_slice(footer.as_bytes());
    repair(&mut bytes);
    open(&bytes)
}

#[test]
fn flags_and_lists_that_lie_are_damage() {
    let (plain, apart) = (referring(), values(Compression::None).0);
    let version = |footer: &TableFooter| footer.version.get();
    assert!(with_footer(&plain, |footer| assert_eq!(version(footer), 3)).is_ok());
    for flag in [FLAG_HAS_REFERENCES, FLAG_HOLDS_VALUES] {
        for bytes in [&plain, &apart] {
            let flipped = with_footer(bytes, |footer| footer.flags = (footer.flags.get() ^ flag).into());
            assert!(flipped.unwrap_err().is_corruption());
        }
    }
    assert!(with_footer(&plain, |footer| footer.version = 2.into()).unwrap_err().is_corruption());

    // The list: out of order, without bytes, of other bytes than the records say.
    let footer = TableFooter::read_from_bytes(&plain[plain.len() - TABLE_FOOTER_LEN..]).unwrap();
    let start = usize::try_from(footer.region(RegionId::Properties).offset.get()).unwrap();
    let list = start + size_of::<TableProperties>();
    let change = |at: usize, to: u64| {
        let mut bytes = plain.clone();
        bytes[at..at + 8].copy_from_slice(&to.to_le_bytes());
        repair(&mut bytes);
        open(&bytes)
    };
    assert!(change(list, 9).unwrap_err().is_corruption(), "the same table twice");
    assert!(change(list, 10).unwrap_err().is_corruption(), "out of order");
    assert!(change(list + 8, 0).unwrap_err().is_corruption(), "no bytes");
    for (at, to) in [(list + 8, 999), (list, 2)] {
        let table = change(at, to).unwrap();
        let error = table.verify().unwrap_err();
        assert!(error.to_string().contains("list of references"), "{error}");
    }
    // A reserved byte of the properties is still one.
    let reserved = change(start + offset_of!(TableProperties, reserved), 1);
    assert!(reserved.unwrap_err().is_corruption());
}
