//! The table against the memory that it lies in.
//!
//! - A warm get against two dependent random loads over the same mapped bytes: what a get cannot be without.
//! - A scan against a walk over the same bytes that knows nothing but record lengths.
//!
//! `cargo bench -p pebble-bench --bench table [-- records [advice]]`: 4,000,000 records (16 B keys, 100 B
//! values) in tables of 32 MiB unless told otherwise; `advice` is `huge` or `random`. `-- misses <gets>
//! [records]` does only gets, to be run twice under cachegrind: the difference is what a get costs. `-- copies` does
//! only the moving of a table's records or blocks to another.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pebble_bench::keys::{mix, spread_key as key};
use pebble_bench::rounds::{Contestant, interleaved};
use pebble_cursor::Cursor;
use pebble_format::checksum::crc32c;
use pebble_format::hash::key_hash;
use pebble_format::record::{self, RecordHeader};
use pebble_format::{InternalKey, KeyspaceId, Kind, Seqno, Trailer};
use pebble_sstable::{
    BlockCache, Compression, FileSink, PointIndex, Table, TableOptions, TableReadOptions, TableWriter,
};
use pebble_vfs::{Advice, File, Fs, Map, Open, OsFs};
use zerocopy::FromBytes;

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
const GETS: usize = 200_000;

/// One table, the file under it, and the first eight bytes of its last key.
struct Part {
    table: Arc<Table>,
    file: Arc<dyn File>,
    map: Map,
    last: u64,
}

/// Sorted tables over all records.
struct Run {
    parts: Vec<Part>,
    records: u64,
}

impl Run {
    fn build(dir: &Path, name: &str, records: u64, options: &TableOptions, advice: Option<Advice>) -> Self {
        let mut keys: Vec<[u8; 16]> = (0..records).map(key).collect();
        keys.sort_unstable();
        let start = Instant::now();
        let mut parts = Vec::new();
        let mut rest = &keys[..];
        while !rest.is_empty() {
            let path = dir.join(format!("{name}-{:06}.sst", parts.len()));
            let file = OsFs.open(&path, Open::CreateNew).unwrap();
            let mut writer = TableWriter::new(FileSink::new(file), options.clone()).unwrap();
            let mut value = [0; 100];
            while let Some((key, after)) = rest.split_first().filter(|_| !writer.is_full()) {
                value[..16].copy_from_slice(key);
                value[50..66].copy_from_slice(key);
                writer.put(KEYSPACE, key, Seqno(1), &value).unwrap();
                rest = after;
            }
            let (sink, _) = writer.finish().unwrap();
            let file = sink.into_file();
            let open = |map: Map| {
                if let Some(advice) = advice {
                    map.advise(advice).unwrap();
                }
                map
            };
            let table =
                Table::open_map(open(file.map().unwrap()), name, TableReadOptions::default()).unwrap();
            let last = u64::from_be_bytes(*table.last().as_ref().user_key.first_chunk().unwrap());
            parts.push(Part { table, map: open(file.map().unwrap()), file, last });
        }
        let spent = start.elapsed().as_nanos() as f64 / records as f64;
        let bytes: u64 = parts.iter().map(|part| part.table.len()).sum();
        println!(
            "{name}: {records} records in {} tables, {} MiB; written at {spent:.0} ns a record",
            parts.len(),
            bytes >> 20
        );
        let start = Instant::now();
        parts.iter().for_each(|part| assert!(part.table.verify().is_ok()));
        println!("  verified at {:.0} ns a record", start.elapsed().as_nanos() as f64 / records as f64);
        Self { parts, records }
    }

    fn part(&self, key: &[u8; 16]) -> &Part {
        let head = u64::from_be_bytes(*key.first_chunk().unwrap());
        &self.parts[self.parts.partition_point(|part| part.last < head)]
    }
}

/// Gets in a chain: each key is chosen by the value before, so that no two gets overlap, as no two loads of
/// the base do.
fn gets(
    run: &Run,
    keys: &[[u8; 16]],
    found: bool,
    get: impl Fn(&Part, InternalKey<'_>) -> Option<u8>,
) -> u64 {
    let zero = black_box(0);
    let mut chained = 0_usize;
    for index in 0..keys.len() {
        let key = &keys[index + (chained & zero)];
        let answer = get(run.part(key), InternalKey::lookup(KEYSPACE, key, Seqno::MAX));
        assert_eq!(answer.is_some(), found);
        chained = chained.wrapping_add(answer.unwrap_or(1).into());
    }
    black_box(chained);
    keys.len() as u64
}

/// The value's bytes are read, not only found: one word of its front and one of its end.
fn read(value: &[u8]) -> u8 {
    value.first().unwrap_or(&0) ^ value.last().unwrap_or(&0)
}

fn get(part: &Part, lookup: InternalKey<'_>) -> Option<u8> {
    part.table.get(lookup).unwrap().map(|found| read(found.record().value()))
}

/// Gets that need not wait for each other, with the index lines of the eight to come asked for: a batch.
fn gets_ahead(run: &Run, keys: &[[u8; 16]]) -> u64 {
    let mut sum = 0_u64;
    for (index, key) in keys.iter().enumerate() {
        if let Some(ahead) = keys.get(index + 8) {
            run.part(ahead).table.prefetch(key_hash(KEYSPACE, ahead));
        }
        sum += u64::from(get(run.part(key), InternalKey::lookup(KEYSPACE, key, Seqno::MAX)).unwrap());
    }
    black_box(sum);
    keys.len() as u64
}

/// Two loads, the second at an address that needs the first, over all mapped bytes.
fn loads(run: &Run, places: &[(u32, u64)]) -> u64 {
    let zero = black_box(0);
    let mut chained = 0_u64;
    let load = |place: (u32, u64), chained: u64| {
        let map = &run.parts[place.0 as usize].map;
        let at = (place.1 + (chained & zero)) as usize;
        u64::from_le_bytes(*map[at..].first_chunk().unwrap())
    };
    for pair in places.chunks_exact(2) {
        chained = load(pair[0], chained);
        chained = load(pair[1], chained);
    }
    black_box(chained);
    places.len() as u64 / 2
}

fn scan(run: &Run) -> u64 {
    let (mut sum, mut count) = (0_u64, 0);
    for part in &run.parts {
        let mut cursor = part.table.cursor();
        cursor.first().unwrap();
        while let Some(record) = cursor.record() {
            sum += u64::from(read(record.value())) + record.key().len() as u64;
            count += 1;
            cursor.next().unwrap();
        }
    }
    assert_eq!(count, run.records);
    black_box(sum);
    count
}

fn scan_back(run: &Run) -> u64 {
    let (mut sum, mut count) = (0_u64, 0);
    for part in run.parts.iter().rev() {
        let mut cursor = part.table.cursor();
        cursor.last().unwrap();
        while let Some(record) = cursor.record() {
            sum += u64::from(read(record.value())) + record.key().len() as u64;
            count += 1;
            cursor.prev().unwrap();
        }
    }
    assert_eq!(count, run.records);
    black_box(sum);
    count
}

/// Nothing but lengths, over the very bytes that the scan reads.
fn walk(run: &Run) -> u64 {
    let (mut sum, mut count) = (0_u64, 0);
    for part in &run.parts {
        for block in part.table.blocks() {
            let bytes = &part.map[block.offset as usize..(block.offset + block.raw_len) as usize];
            let mut at = 0;
            for _ in 0..block.count {
                let (header, _) = RecordHeader::ref_from_prefix(&bytes[at..]).unwrap();
                let key_end = at + 16 + usize::from(header.key_len.get());
                let end = key_end + header.value_len.get() as usize;
                sum += u64::from(read(&bytes[key_end..end])) + u64::from(header.key_len.get());
                at = end.next_multiple_of(4);
                count += 1;
            }
        }
    }
    assert_eq!(count, run.records);
    black_box(sum);
    count
}

/// The least that any scan does: every cache line of the data, once.
fn lines(run: &Run) -> u64 {
    let mut sum = 0_u64;
    for part in &run.parts {
        let data = &part.map[..part.table.info().data_len as usize];
        let words = data.chunks_exact(64).map(|line| u64::from_le_bytes(*line.first_chunk().unwrap()));
        sum = words.fold(sum, u64::wrapping_add);
    }
    black_box(sum);
    run.records
}

/// Records of one table, encoded, one after another: what a flush has before it.
fn encoded(count: u64) -> Vec<u8> {
    let mut keys: Vec<[u8; 16]> = (0..count).map(key).collect();
    keys.sort_unstable();
    let mut bytes = Vec::new();
    for key in &keys {
        let at = bytes.len();
        bytes.resize(at + record::encoded_len(16, 100), 0);
        let trailer = Trailer::new(Seqno(1), Kind::Put);
        record::encode(&mut bytes[at..], KEYSPACE, key, trailer, &[7; 100]).unwrap();
    }
    bytes
}

/// What writing a table costs beside the file.
fn writes() {
    let bytes = encoded(200_000);
    let write = |options: &TableOptions| {
        let mut writer = TableWriter::new(std::io::sink(), options.clone()).unwrap();
        for found in record::records(&bytes) {
            writer.add(found.unwrap().1).unwrap();
        }
        black_box(writer.finish().unwrap().1).count
    };
    let no_index = TableOptions { index: PointIndex::None, ..TableOptions::default() };
    let mut copy = Vec::new();
    interleaved(
        "writing a table to nowhere",
        9,
        &mut [
            Contestant::new("copy and checksum", || {
                copy.clear();
                copy.extend_from_slice(&bytes);
                for block in copy.chunks(16 << 10) {
                    black_box(crc32c(0, block));
                }
                200_000
            }),
            Contestant::new("writer, location index", || write(&TableOptions::default())),
            Contestant::new("writer, no index", || write(&no_index)),
        ],
    );
}

/// Moves a table record by record, or by whole blocks, from memory to nowhere.
fn copies() {
    for compression in [Compression::None, Compression::Lz4] {
        let options = TableOptions { compression, ..TableOptions::default() };
        let mut writer = TableWriter::new(Vec::new(), options.clone()).unwrap();
        let bytes = encoded(200_000);
        record::records(&bytes).for_each(|found| writer.add(found.unwrap().1).unwrap());
        let cache = Some(Arc::new(BlockCache::new(1 << 30)));
        let table =
            Table::from_bytes(writer.finish().unwrap().0, "copied", TableReadOptions { cache }).unwrap();
        let copy = |whole: bool| {
            let mut cursor = table.cursor();
            let mut writer = TableWriter::new(std::io::sink(), options.clone()).unwrap();
            cursor.first().unwrap();
            while let Some(record) = cursor.record() {
                if let Some(block) = cursor.block().filter(|block| whole && writer.takes(block)) {
                    writer.add_block(&block).unwrap();
                    cursor.skip_block().unwrap();
                } else {
                    writer.add(record).unwrap();
                    cursor.next().unwrap();
                }
            }
            black_box(writer.finish().unwrap().1).count
        };
        interleaved(
            &format!("moving a table to nowhere, {compression:?}"),
            9,
            &mut [
                Contestant::new("record by record", || copy(false)),
                Contestant::new("by whole blocks", || copy(true)),
            ],
        );
    }
}

fn seeks(run: &Run, keys: &[[u8; 16]]) -> u64 {
    let mut cursors: Vec<_> = run.parts.iter().map(|part| part.table.cursor()).collect();
    let mut sum = 0_u64;
    for key in keys {
        let head = u64::from_be_bytes(*key.first_chunk().unwrap());
        let cursor = &mut cursors[run.parts.partition_point(|part| part.last < head)];
        cursor.seek(InternalKey::lookup(KEYSPACE, key, Seqno::MAX)).unwrap();
        sum += u64::from(read(cursor.record().unwrap().value()));
    }
    black_box(sum);
    keys.len() as u64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let word = |index: usize| arguments.get(index).map(String::as_str);
    let number = |index: usize| word(index).and_then(|word| word.parse::<u64>().ok());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if word(0) == Some("copies") {
        copies();
        return;
    }
    if word(0) == Some("misses") {
        let run =
            Run::build(dir.path(), "plain", number(2).unwrap_or(400_000), &TableOptions::default(), None);
        let wanted = number(1).unwrap_or(100_000);
        let keys: Vec<_> = (0..wanted).map(|n| key(mix(n) % run.records)).collect();
        gets(&run, &keys, true, get);
        return;
    }
    let records = number(0).unwrap_or(4_000_000);
    let advice = match word(1) {
        Some("huge") => Some(Advice::HugePage),
        Some("random") => Some(Advice::Random),
        _ => None,
    };
    let options = TableOptions::default();
    let run = Run::build(dir.path(), "plain", records, &options, advice);
    let present: Vec<_> = (0..GETS as u64).map(|n| key(mix(n + 7) % records)).collect();
    let absent: Vec<_> = (0..GETS as u64).map(|n| key(records + n)).filter(|key| key[0] != 0xff).collect();
    let places: Vec<_> = (0..GETS as u64 * 2)
        .map(|n| {
            let part = mix(n + 99) % run.parts.len() as u64;
            let len = run.parts[part as usize].table.len() - 8;
            (part as u32, mix(n) % len)
        })
        .collect();
    interleaved(
        "point reads",
        9,
        &mut [
            Contestant::new("two dependent loads", || loads(&run, &places)),
            Contestant::new("get, present", || gets(&run, &present, true, get)),
            Contestant::new("get, present, prefetched", || gets_ahead(&run, &present)),
            Contestant::new("get, absent", || gets(&run, &absent, false, get)),
            Contestant::new("seek", || seeks(&run, &present)),
        ],
    );
    interleaved(
        "scan",
        7,
        &mut [
            Contestant::new("bare walk", || walk(&run)),
            Contestant::new("one word of each cache line", || lines(&run)),
            Contestant::new("cursor forward", || scan(&run)),
            Contestant::new("cursor backward", || scan_back(&run)),
        ],
    );
    writes();
    copies();
    others(dir.path(), records / 4);
}

/// The other ways to keep and to read a table, each against the default one, on a smaller run.
fn others(dir: &Path, records: u64) {
    let plain = Run::build(dir, "small", records, &TableOptions::default(), None);
    let bloom = TableOptions { index: PointIndex::Bloom { bits_per_key: 10 }, ..TableOptions::default() };
    let bloom = Run::build(dir, "bloom", records, &bloom, None);
    let lz4 = TableOptions { compression: Compression::Lz4, ..TableOptions::default() };
    let mut lz4 = Run::build(dir, "lz4", records, &lz4, None);
    let mut read = Run::build(dir, "pread", records, &TableOptions::default(), None);
    let cache = Arc::new(BlockCache::new(2 << 30));
    for part in lz4.parts.iter_mut().chain(&mut read.parts) {
        let options = TableReadOptions { cache: Some(Arc::clone(&cache)) };
        part.table = Table::open_file(Arc::clone(&part.file), "cached", options).unwrap();
    }
    let present: Vec<_> = (0..GETS as u64).map(|n| key(mix(n + 7) % records)).collect();
    interleaved(
        "point reads, other layouts",
        5,
        &mut [
            Contestant::new("get, location, mapped", || gets(&plain, &present, true, get)),
            Contestant::new("get, bloom, mapped", || gets(&bloom, &present, true, get)),
            Contestant::new("get, location, pread, cached", || gets(&read, &present, true, get)),
            Contestant::new("get, location, lz4, cached", || gets(&lz4, &present, true, get)),
        ],
    );
}
