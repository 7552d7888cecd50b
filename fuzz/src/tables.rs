//! Tables as the bodies make and read them.
//!
//! Threading: plain functions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::table::{
    BlockEntry, Codec, FLAG_COMPRESSED, FLAG_HAS_RANGE_DELETES, FLAG_HAS_REFERENCES, FLAG_HAS_TOMBSTONES,
    FLAG_UNIQUE_USER_KEYS, HASH_XXH3, IndexKind, KeyBound, RegionId, TABLE_MAGIC, TableFooter,
    TableProperties, TableRegion, region_start, version_of,
};
use pebble_format::{
    HeadPrefix, InternalKey, KeyspaceId, RecordRef, Reference, Result, Seqno, Trailer, record,
};
use pebble_sstable::{BlockCache, Table, TableOptions, TableReadOptions, TableWriter};
use pebble_vfs::{Fs, Open};
use zerocopy::{FromZeros, IntoBytes};

use crate::disk::{DIR, Files, assert_told, disk};
use crate::forge::{self, UUID};

/// A table of these records, which are in order.
pub(crate) fn written<'a>(
    records: impl IntoIterator<Item = RecordRef<'a>>,
    options: TableOptions,
) -> Vec<u8> {
    let mut writer = TableWriter::new(Vec::new(), options).unwrap();
    for record in records {
        writer.add(record).unwrap();
    }
    writer.finish().unwrap().0
}

/// Opens bytes in place.
pub(crate) fn open(bytes: &[u8]) -> Result<Arc<Table>> {
    Table::from_bytes(bytes.to_vec(), "table", TableReadOptions::default())
}

/// Opens bytes as a file that is read through a small cache.
pub(crate) fn open_file(bytes: &[u8]) -> Result<Arc<Table>> {
    let fs = disk(&Files::from([("table".to_owned(), bytes.to_vec())]));
    let file = fs.open(&Path::new(DIR).join("table"), Open::Read).unwrap();
    Table::open_file(file, "table", TableReadOptions { cache: Some(Arc::new(BlockCache::new(64 << 10))) })
}

/// All records by steps forward, up to the first error, which is one of damage.
pub(crate) fn forward(table: &Arc<Table>) -> (Vec<Vec<u8>>, bool) {
    walk(table, |cursor| cursor.first(), |cursor| cursor.next())
}

/// The same by steps backward.
pub(crate) fn backward(table: &Arc<Table>) -> (Vec<Vec<u8>>, bool) {
    walk(table, |cursor| cursor.last(), |cursor| cursor.prev())
}

fn walk(
    table: &Arc<Table>,
    begin: impl Fn(&mut pebble_sstable::TableCursor) -> Result<()>,
    step: impl Fn(&mut pebble_sstable::TableCursor) -> Result<()>,
) -> (Vec<Vec<u8>>, bool) {
    let mut cursor = table.cursor();
    let mut found = Vec::new();
    let mut moved = begin(&mut cursor);
    while moved.is_ok()
        && let Some(record) = cursor.record()
    {
        found.push(record.raw().to_vec());
        assert!(found.len() as u64 <= table.info().count, "a walk of more steps than records");
        moved = step(&mut cursor);
    }
    if let Err(error) = moved {
        assert_told(&error);
        let again = cursor.next().unwrap_err();
        assert_eq!(again.to_string(), error.to_string(), "an error that does not stick");
        assert!(cursor.record().is_none() && cursor.pinned().is_none());
        return (found, false);
    }
    (found, true)
}

/// A table of one block whose stored bytes are given, and the block as they should expand, as far as it makes sense:
/// everything around it is what a writer would have made of that block.
pub(crate) fn of_one_block(stored: &[u8], codec: Codec, raw: &[u8], raw_len: u32) -> Vec<u8> {
    let count = raw.len().checked_sub(4).map_or(1, |at| u16::from_le_bytes([raw[at], raw[at + 1]]));
    let found: Vec<_> =
        record::records(raw).map_while(|found| Some(found.ok()?.1)).take(usize::from(count)).collect();
    let nothing = InternalKey { keyspace: KeyspaceId(0), user_key: b"", trailer: Trailer(1) };
    let first = found.first().map_or(nothing, RecordRef::internal_key);
    let last = found.last().filter(|_| count > 1).map_or(first, RecordRef::internal_key);
    let keys =
        1 + found.windows(2).filter(|pair| !pair[0].internal_key().same_key(&pair[1].internal_key())).count();
    let tombstones = found.iter().filter(|record| record.is_tombstone()).count();
    let seqnos = || found.iter().map(|record| record.seqno());

    let mut bytes = stored.to_vec();
    bytes.resize(stored.len().next_multiple_of(4), 0);
    let data_len = bytes.len() as u64;
    let entry = BlockEntry {
        offset: 0.into(),
        stored_len: u32::try_from(stored.len()).unwrap().into(),
        raw_len: raw_len.into(),
        crc: 0.into(),
        count: count.into(),
        codec: codec as u8,
        reserved: 0,
    };
    let head = HeadPrefix::between(first, last).head(first.keyspace, first.user_key);
    let compressed = codec != Codec::None;
    let properties = TableProperties {
        key_bytes: found.iter().map(|record| record.key().len() as u64).sum::<u64>().into(),
        value_bytes: found.iter().map(|record| record.value().len() as u64).sum::<u64>().into(),
        raw_len: u64::from(raw_len).into(),
        compressed_blocks: u32::from(compressed).into(),
        block_len: raw_len.into(),
        reserved: [0; 32],
    };
    let bound = |key: InternalKey<'_>| KeyBound {
        trailer: key.trailer.0.into(),
        key_len: u16::try_from(key.user_key.len()).unwrap().into(),
        keyspace: key.keyspace.0.into(),
    };
    let bounds = [[bound(first), bound(last)].as_bytes(), first.user_key, last.user_key].concat();
    let mut of_tables: BTreeMap<u64, u64> = BTreeMap::new();
    for reference in found.iter().filter(|record| record.is_reference()) {
        if let Ok(reference) = Reference::read(reference.value()) {
            *of_tables.entry(reference.table.get()).or_default() += u64::from(reference.value_len.get());
        }
    }
    let entry_of = |(table, bytes): (&u64, &u64)| [table.to_le_bytes(), bytes.to_le_bytes()].concat();
    let referred: Vec<u8> = of_tables.iter().flat_map(entry_of).collect();
    let deletes: Vec<u8> =
        found.iter().filter(|record| record.is_range_delete()).flat_map(range_entry).collect();

    let mut footer = TableFooter::new_zeroed();
    let contents: [(RegionId, &[u8]); 5] = [
        (RegionId::Directory, entry.as_bytes()),
        (RegionId::SeekIndex, &head.to_le_bytes()),
        (RegionId::RangeDeletes, &deletes),
        (RegionId::Properties, &[properties.as_bytes(), &referred].concat()),
        (RegionId::KeyBounds, &bounds),
    ];
    for id in RegionId::ALL {
        let start = region_start(bytes.len() as u64).unwrap();
        bytes.resize(usize::try_from(start).unwrap(), 0);
        let content = contents.iter().find(|(own, _)| *own == id).map_or(&[][..], |(_, content)| content);
        let len = u32::try_from(content.len()).unwrap();
        footer.regions[id as usize] = TableRegion { offset: start.into(), len: len.into(), crc: 0.into() };
        bytes.extend_from_slice(content);
    }
    bytes.resize(usize::try_from(region_start(bytes.len() as u64).unwrap()).unwrap(), 0);
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    footer.magic = TABLE_MAGIC;
    footer.flags = (flag(keys == usize::from(count), FLAG_UNIQUE_USER_KEYS)
        | flag(tombstones > 0, FLAG_HAS_TOMBSTONES)
        | flag(compressed, FLAG_COMPRESSED)
        | flag(!deletes.is_empty(), FLAG_HAS_RANGE_DELETES)
        | flag(!referred.is_empty(), FLAG_HAS_REFERENCES))
    .into();
    footer.version = version_of(footer.flags.get()).into();
    footer.uuid = UUID;
    footer.number = 1.into();
    footer.data_len = data_len.into();
    footer.count = u64::from(count).into();
    footer.keys = (keys as u64).into();
    footer.tombstones = (tombstones as u64).into();
    footer.seqno_min = seqnos().min().unwrap_or(Seqno(0)).0.into();
    footer.seqno_max = seqnos().max().unwrap_or(Seqno(0)).0.into();
    footer.blocks = 1.into();
    footer.index = IndexKind::None as u8;
    footer.hash = HASH_XXH3;
    bytes.extend_from_slice(footer.as_bytes());
    forge::table(&mut bytes);
    bytes
}

/// What stands in the region of range deletes for a record; nothing where the end is no key.
fn range_entry(record: &RecordRef<'_>) -> Vec<u8> {
    let (start, end) = (record.key(), record.value());
    let (Ok(start_len), Ok(end_len)) = (u16::try_from(start.len()), u16::try_from(end.len())) else {
        return Vec::new();
    };
    let entry = pebble_format::table::RangeDeleteEntry {
        seqno: record.seqno().0.into(),
        keyspace: record.keyspace().0.into(),
        start_len: start_len.into(),
        end_len: end_len.into(),
        reserved: 0.into(),
    };
    let mut bytes = [entry.as_bytes(), start, end].concat();
    bytes.resize(entry.padded_len(), 0);
    bytes
}
