//! The memtable against `crossbeam_skiplist::SkipMap`, on the same keys in the same order.
//!
//! - Insert includes the copy of the record into a (warm, recycled) log region; the skip list owns key and value, as
//!   two `Vec`s that it is given.
//! - A get reads the value's first byte. A scan reads one byte of each key, here beside a walk over the skip list.
//!
//! `cargo bench -p pebble-bench --bench memtable [-- records]`: 500,000 records (16 B keys, 100 B values) unless told
//! otherwise. `-- only insert|get <times>` does one thing again and again, to be run under a profiler.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_skiplist::SkipMap;
use pebble_bench::keys::{mix, random_key};
use pebble_bench::rounds::Figure;
use pebble_cursor::Cursor;
use pebble_format::{
    AppendRegion, Appender, HeadPrefix, InternalKey, KeyspaceId, Kind, Seqno, Trailer, record,
};
use pebble_memtable::Memtable;

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
const ROUNDS: usize = 9;
const VALUE: [u8; 100] = [7; 100];

type Key = [u8; 16];
type Skip = SkipMap<Vec<u8>, Vec<u8>>;

fn random_keys(count: u64) -> Vec<Key> {
    (1..=count).map(random_key).collect()
}

/// A region that every round uses again, as the log uses its segments.
fn region_for(count: usize) -> Appender {
    let mut appender = AppendRegion::heap(count * record::encoded_len(16, VALUE.len()));
    appender.spare().fill(1);
    appender
}

fn fill(appender: &mut Appender, keys: &[Key]) -> (Arc<Memtable>, Duration) {
    assert!(appender.recycle(), "nobody reads the last round's records any more");
    let (mut writer, memtable) = Memtable::new(HeadPrefix::new(KEYSPACE, b""));
    assert!(writer.attach(appender.region()).unwrap());
    let start = Instant::now();
    for (seqno, key) in (1..).zip(keys) {
        let at = appender.filled();
        let trailer = Trailer::new(Seqno(seqno), Kind::Put);
        let len = record::encode(appender.spare(), KEYSPACE, key, trailer, &VALUE).unwrap();
        appender.fill(len);
        writer.insert(at).unwrap();
    }
    (memtable, start.elapsed())
}

fn fill_skip(keys: &[Key]) -> (Skip, Duration) {
    let skip = Skip::new();
    let start = Instant::now();
    for key in keys {
        skip.insert(key.to_vec(), VALUE.to_vec());
    }
    (skip, start.elapsed())
}

fn copy_only(appender: &mut Appender, keys: &[Key]) -> Duration {
    assert!(appender.recycle());
    let start = Instant::now();
    for (seqno, key) in (1..).zip(keys) {
        let trailer = Trailer::new(Seqno(seqno), Kind::Put);
        let len = record::encode(appender.spare(), KEYSPACE, key, trailer, &VALUE).unwrap();
        appender.fill(len);
    }
    start.elapsed()
}

fn get(memtable: &Memtable, keys: &[Key]) -> Duration {
    let start = Instant::now();
    for key in keys {
        let found = memtable.get(InternalKey::lookup(KEYSPACE, key, Seqno::MAX));
        black_box(found.unwrap().value()[0]);
    }
    start.elapsed()
}

fn get_skip(skip: &Skip, keys: &[Key]) -> Duration {
    let start = Instant::now();
    for key in keys {
        black_box(skip.get(&key[..]).unwrap().value()[0]);
    }
    start.elapsed()
}

fn scan(memtable: &Arc<Memtable>, forward: bool) -> Duration {
    let start = Instant::now();
    let mut cursor = memtable.cursor();
    if forward {
        cursor.first().unwrap()
    } else {
        cursor.last().unwrap()
    }
    let mut count = 0;
    while let Some(record) = cursor.record() {
        black_box(record.key()[0]);
        count += 1;
        if forward { cursor.next().unwrap() } else { cursor.prev().unwrap() }
    }
    assert_eq!(count, memtable.len());
    start.elapsed()
}

fn scan_skip(skip: &Skip) -> Duration {
    let start = Instant::now();
    let count = skip.iter().inspect(|entry| _ = black_box(entry.key()[0])).count();
    assert_eq!(count, skip.len());
    start.elapsed()
}

/// One line: nanoseconds for an operation.
fn show(name: &str, rounds: &[f64]) {
    let Figure { median, min, max } = Figure::of(rounds.to_vec());
    println!("  {name:<34} {median:8.1}  [{min:.1} .. {max:.1}]");
}

/// Two lines, and the ratio of the peer's time to ours within each round.
fn duel(name: &str, ours: &[f64], peer: &[f64]) {
    show(&format!("{name}, memtable"), ours);
    show(&format!("{name}, skip list"), peer);
    let ratio = Figure::of(ours.iter().zip(peer).map(|(ours, peer)| peer / ours).collect());
    println!("  {:<34} {:8.2}x [{:.2} .. {:.2}]", "", ratio.median, ratio.min, ratio.max);
}

/// One thing again and again.
fn profile(what: &str, times: usize, keys: &[Key], shuffled: &[Key]) {
    let mut appender = region_for(keys.len());
    let mut memtable = fill(&mut appender, keys).0;
    for _ in 0..times {
        if what == "insert" {
            drop(memtable);
            memtable = fill(&mut appender, keys).0;
        } else {
            black_box(get(&memtable, shuffled));
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let count = arguments.first().and_then(|word| word.parse().ok()).unwrap_or(500_000);
    let keys = random_keys(count);
    let mut shuffled = keys.clone();
    shuffled.sort_by_key(|key| mix(u64::from_be_bytes(*key.first_chunk().unwrap())));
    if let [only, what, times] = &arguments[..]
        && only == "only"
    {
        return profile(what, times.parse().unwrap(), &keys, &shuffled);
    }
    let ascending: Vec<Key> = (0..u128::from(count))
        .map(u128::to_be_bytes)
        .map(|key| {
            let mut key = key;
            key.rotate_left(8);
            key
        })
        .collect();

    let per = |time: Duration| time.as_secs_f64() * 1e9 / keys.len() as f64;
    let mut times: [Vec<f64>; 10] = Default::default();
    let mut appender = region_for(keys.len());
    let mut bytes = (0, 0);
    for round in 0..=ROUNDS {
        let copied = copy_only(&mut appender, &keys);
        let (memtable, filled) = fill(&mut appender, &keys);
        let (skip, filled_skip) = fill_skip(&keys);
        let gets = (get(&memtable, &shuffled), get_skip(&skip, &shuffled));
        let scans = (scan(&memtable, true), scan_skip(&skip), scan(&memtable, false));
        bytes.0 = memtable.memory() / keys.len();
        drop((memtable, skip));
        let (memtable, run) = fill(&mut appender, &ascending);
        let (skip, run_skip) = fill_skip(&ascending);
        bytes.1 = memtable.memory() / keys.len();
        drop((memtable, skip));
        let all = [copied, filled, filled_skip, gets.0, gets.1, scans.0, scans.1, scans.2, run, run_skip];
        // The first round warms the allocator and is not counted.
        if round > 0 {
            times.iter_mut().zip(all).for_each(|(times, time)| times.push(per(time)));
        }
    }
    let [copy, insert, insert_skip, gets, gets_skip, scans, scans_skip, back, run, run_skip] = &times;
    println!("{count} records: ns per operation, median of {ROUNDS} interleaved rounds [fastest .. slowest]");
    show("copy of the record alone", copy);
    duel("insert, random", insert, insert_skip);
    duel("insert, ascending", run, run_skip);
    duel("get, random", gets, gets_skip);
    duel("scan", scans, scans_skip);
    show("scan backward, memtable", back);
    println!("  index bytes per record: {} random, {} ascending", bytes.0, bytes.1);
}
