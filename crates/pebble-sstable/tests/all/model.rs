//! A table's content as a sorted map, and every way to write and to open it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pebble_cursor::RangeDelete;
use pebble_format::{InternalKey, KeyspaceId, Kind, OwnedKey, RecordRef, Result, Seqno};
use pebble_sstable::{
    BlockCache, Compression, FileSink, PointIndex, Table, TableInfo, TableOptions, TableReadOptions,
    TableWriter,
};
use pebble_vfs::{Fs, Open, SimFs};

/// What a record says of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Put(Vec<u8>),
    Delete,
    /// Deletes every key up to this one.
    DeleteTo(Vec<u8>),
}

/// Keyspace, key, seqno → what is said.
pub type Model = BTreeMap<(u16, Vec<u8>, Reverse<u64>), Said>;

/// A record as a plain value: keyspace, key, seqno, what it says.
pub type Plain = (u16, Vec<u8>, u64, Said);

pub fn plain(record: RecordRef<'_>) -> Plain {
    let said = match record.trailer().kind().unwrap() {
        Kind::Put => Said::Put(record.value().to_vec()),
        Kind::Delete => Said::Delete,
        Kind::RangeDelete => Said::DeleteTo(record.value().to_vec()),
        Kind::Reference => unreachable!("the model makes none"),
    };
    (record.keyspace().0, record.key().to_vec(), record.seqno().0, said)
}

pub fn plains(model: &Model) -> Vec<Plain> {
    model
        .iter()
        .map(|((keyspace, key, seqno), value)| (*keyspace, key.clone(), seqno.0, value.clone()))
        .collect()
}

/// The answer to a get.
pub fn newest_at(model: &Model, keyspace: u16, key: &[u8], seqno: u64) -> Option<Plain> {
    let from = (keyspace, key.to_vec(), Reverse(seqno));
    let (found, value) = model.range(from..).next()?;
    (found.0 == keyspace && found.1 == key).then(|| (found.0, found.1.clone(), found.2.0, value.clone()))
}

/// The table's own share of what its range deletes cover, if the next table begins with `cut`.
pub fn range_deletes(model: &Model, cut: Option<(u16, &[u8])>) -> Vec<RangeDelete> {
    let share = |((keyspace, start, seqno), said): (&(u16, Vec<u8>, Reverse<u64>), &Said)| {
        let Said::DeleteTo(end) = said else { return None };
        let beyond = |cut: &[u8]| end.is_empty() || &end[..] > cut;
        let end = match cut {
            Some((space, cut)) if space == *keyspace && beyond(cut) => cut,
            _ => end,
        };
        let (start, end) = (start[..].into(), end.into());
        Some(RangeDelete { keyspace: KeyspaceId(*keyspace), start, end, seqno: Seqno(seqno.0) })
    };
    model.iter().filter_map(share).collect()
}

pub fn write(model: &Model, options: &TableOptions) -> (Vec<u8>, TableInfo) {
    let mut writer = TableWriter::new(Vec::new(), options.clone()).unwrap();
    fill(&mut writer, model);
    writer.finish().unwrap()
}

pub fn fill<W: std::io::Write>(writer: &mut TableWriter<W>, model: &Model) {
    for ((keyspace, key, seqno), value) in model {
        let (keyspace, seqno) = (KeyspaceId(*keyspace), Seqno(seqno.0));
        match value {
            Said::Put(value) => writer.put(keyspace, key, seqno, value).unwrap(),
            Said::Delete => writer.delete(keyspace, key, seqno).unwrap(),
            Said::DeleteTo(end) => writer.delete_range(keyspace, key, end, seqno).unwrap(),
        }
    }
}

/// Every way to open the same bytes.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    Bytes,
    Map,
    File,
    CachedFile,
    CachedBytes,
}

pub const SOURCES: [Source; 5] =
    [Source::Bytes, Source::Map, Source::File, Source::CachedFile, Source::CachedBytes];

pub const INDEXES: [PointIndex; 3] =
    [PointIndex::Location, PointIndex::Bloom { bits_per_key: 8 }, PointIndex::None];

#[cfg(not(feature = "zstd"))]
pub const COMPRESSIONS: [Compression; 2] = [Compression::None, Compression::Lz4];
#[cfg(feature = "zstd")]
pub const COMPRESSIONS: [Compression; 3] =
    [Compression::None, Compression::Lz4, Compression::Zstd { level: 3, dictionary: false }];

pub fn open(bytes: &[u8], source: Source) -> Result<Arc<Table>> {
    let uncached = TableReadOptions::default();
    let cached = TableReadOptions { cache: Some(Arc::new(BlockCache::new(64 << 10))) };
    let file = || {
        let fs = SimFs::new(1);
        let file = fs.open(Path::new("/000007.sst"), Open::CreateNew).unwrap();
        let mut sink = FileSink::new(file);
        std::io::Write::write_all(&mut sink, bytes).unwrap();
        std::io::Write::flush(&mut sink).unwrap();
        sink.into_file()
    };
    match source {
        Source::Bytes => Table::from_bytes(bytes, "000007.sst", uncached),
        Source::Map => Table::open_map(file().map().unwrap(), "000007.sst", uncached),
        Source::File => Table::open_file(file(), "000007.sst", uncached),
        Source::CachedFile => Table::open_file(file(), "000007.sst", cached),
        Source::CachedBytes => Table::from_bytes(bytes, "000007.sst", cached),
    }
}

pub fn lookup(keyspace: u16, key: &[u8], seqno: u64) -> OwnedKey {
    OwnedKey::new(InternalKey::lookup(KeyspaceId(keyspace), key, Seqno(seqno)))
}

pub fn get(table: &Table, keyspace: u16, key: &[u8], seqno: u64) -> Result<Option<Plain>> {
    let found = table.get(lookup(keyspace, key, seqno).as_ref())?;
    Ok(found.map(|found| plain(found.record())))
}

/// A small generator (splitmix64, Vigna 2015), so that fixtures are the same in every run.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A table of a few blocks with what makes reading hard: two keyspaces, versions, tombstones, prefixes, an
/// empty key and an empty value, a value longer than a block, range deletes that end within and beyond it.
pub fn fixture() -> Model {
    let mut model = Model::new();
    for (keyspace, name) in [(1_u16, "user:"), (2, "")] {
        for n in 0..14_u64 {
            let key = format!("{name}{:03}", n * 7).into_bytes();
            for version in 0..=(n % 3) {
                let said = match n % 4 == version {
                    true => Said::Delete,
                    false => Said::Put(vec![b'a' + (n % 26) as u8; (n * 5) as usize]),
                };
                model.insert((keyspace, key.clone(), Reverse(10 + n * 3 + version)), said);
            }
        }
        model.insert((keyspace, vec![], Reverse(5)), Said::Put(vec![]));
        let ranges = [("000", 61, "050"), ("014", 62, ""), ("014", 60, "014\0"), ("05", 63, "06")];
        for (start, seqno, end) in ranges {
            let at = |key: &str| if key.is_empty() { vec![] } else { [name, key].concat().into_bytes() };
            model.insert((keyspace, at(start), Reverse(seqno)), Said::DeleteTo(at(end)));
        }
    }
    model.insert((2, b"long".to_vec(), Reverse(99)), Said::Put(b"0123456789".repeat(60)));
    model
}

pub fn small(index: PointIndex, compression: Compression) -> TableOptions {
    TableOptions { block_len: 256, index, compression, number: 7, uuid: [9; 16], ..TableOptions::default() }
}
