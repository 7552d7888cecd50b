//! The whole engine against the copy and checksum of its records, and reads of what it wrote.
//!
//! ```text
//!   floor        encoded records ── crc32c, copy ─► 256 KiB of warm memory, again and again
//!   read back    the same, but the checksum is of the copy
//!   fillseq      Db::put, keys ascending             one thread, no sync, background flush and merges running
//!   fillrandom   Db::put, keys in random order
//!   readrandom, readmissing, scan                    after compact_range(..), everything in memory
//! ```
//!
//! - Keys of 16 B, incompressible values of 100 B; default options, but no compression. A value is told by its key,
//!   so every get is checked; a scan is checked once, untimed.
//! - The floor checksums what it copies from. To checksum the copy takes some three times as long; that is a cost of
//!   the order, not of the work, so it has a line of its own.
//! - Beside the elapsed time of a fill stands what the writing thread did with it: it ran, it was ready but the
//!   processor was another's, or it slept (for a flush or the disk). On a busy machine the first is the one to compare.
//! - A fill ends with its last put. What the background still owes then is timed apart, as a flush.
//!
//! `cargo bench -p pebble-bench --bench engine [-- --records N] [--rounds N]`: 1,000,000 records and 5 rounds unless
//! told otherwise. `--only fillseq|fillrandom` does nothing else, to be run under a profiler.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::hint::black_box;
use std::time::{Duration, Instant};

use pebble_bench::keys::{mix, random_key};
use pebble_bench::rounds::{Contestant, Figure, interleaved};
use pebble_db::{Compression, Db, Stats};
use pebble_format::checksum::crc32c;
use pebble_format::{KeyspaceId, Kind, Seqno, Trailer, record};
use tempfile::TempDir;

const VALUE: usize = 100;
/// What the floor reads and what it writes, both small enough to stay in a core's second-level cache.
const RING: usize = 256 << 10;
/// Gets in a round.
const GETS: u64 = 200_000;

type Key = [u8; 16];

fn ascending_key(n: u64) -> Key {
    (u128::from(n) << 64).to_be_bytes()
}

/// Random bytes, of which each value is a slice.
struct Values(Vec<u8>);

impl Values {
    fn new() -> Self {
        Self((0..(1 << 20) / 8).flat_map(|n| mix(n).to_le_bytes()).collect())
    }

    fn of(&self, key: &Key) -> &[u8] {
        let word = u128::from_be_bytes(*key);
        let at = ((word >> 64) as u64 ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 45;
        &self.0[at as usize..][..VALUE]
    }
}

/// What a thread has used so far, in nanoseconds. The kernel brings the figures up to date when a thread yields.
#[derive(Clone, Copy, Default)]
struct Used {
    ran: f64,
    ready: f64,
    faults: f64,
}

impl Used {
    fn now() -> Self {
        std::thread::yield_now();
        let (ran, ready) = schedule("/proc/thread-self/schedstat");
        let stat = read_to_string("/proc/thread-self/stat").unwrap_or_default();
        // The fields behind the name, which may hold blanks itself: the eighth counts the pages that were faulted in.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let faults = fields.split_whitespace().nth(7).and_then(|word| word.parse().ok());
        Self { ran, ready, faults: faults.unwrap_or(0.0) }
    }

    fn since(self, before: Self) -> Self {
        Self {
            ran: self.ran - before.ran,
            ready: self.ready - before.ready,
            faults: self.faults - before.faults,
        }
    }
}

/// Nanoseconds on a processor, and nanoseconds of waiting for one.
fn schedule(path: &str) -> (f64, f64) {
    let text = read_to_string(path).unwrap_or_default();
    let mut words = text.split(' ').map(|word| word.parse().unwrap_or(0.0));
    (words.next().unwrap_or(0.0), words.next().unwrap_or(0.0))
}

/// Nanoseconds that the engine's threads ran, by name.
fn background() -> BTreeMap<String, f64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let paths = tasks.filter_map(|task| task.path().to_str().map(String::from));
    let named = paths.map(|path| (read_to_string(format!("{path}/comm")).unwrap_or_default(), path));
    named
        .filter(|(name, _)| name.starts_with("pebble-"))
        .map(|(name, path)| (name.trim().into(), schedule(&format!("{path}/schedstat")).0))
        .collect()
}

/// One round of a fill or of its floor.
#[derive(Default)]
struct Fill {
    wall: f64,
    used: Used,
    /// What was left when the last put returned.
    flush: f64,
    stats: Stats,
    background: BTreeMap<String, f64>,
}

fn timed(work: impl FnOnce()) -> Fill {
    let (before, start) = (Used::now(), Instant::now());
    work();
    let wall = nanos(start.elapsed());
    Fill { wall, used: Used::now().since(before), ..Fill::default() }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// Copy and checksum of records that are encoded already: the least a put can be, unless `read_back` asks for the
/// checksum of the copy.
fn floor(encoded: &[u8], record_len: usize, records: u64, read_back: bool) -> Fill {
    let mut ring = vec![1; RING / record_len * record_len];
    timed(|| {
        let mut sum = 0;
        let mut places = (0..encoded.len()).step_by(record_len).cycle();
        for _ in 0..records {
            let at = places.next().unwrap_or(0);
            let to = &mut ring[at..at + record_len];
            let from = &encoded[at..at + record_len];
            to.copy_from_slice(from);
            // Without it the copy into a ring that nobody reads could be left out.
            black_box(&mut to[0]);
            sum ^= crc32c(0, if read_back { to } else { from });
        }
        black_box(sum);
    })
}

/// The same from key and value: encoded into the ring, then checksummed.
fn encode_only(keys: &[Key], values: &Values, record_len: usize) -> Fill {
    let mut ring = vec![1; RING / record_len * record_len];
    timed(|| {
        let mut sum = 0;
        let mut places = (0..ring.len()).step_by(record_len).cycle();
        for (seqno, key) in (1..).zip(keys) {
            let at = places.next().unwrap_or(0);
            let to = &mut ring[at..at + record_len];
            let trailer = Trailer::new(Seqno(seqno), Kind::Put);
            record::encode(to, KeyspaceId::DEFAULT, key, trailer, values.of(key)).unwrap();
            sum ^= crc32c(0, to);
        }
        black_box(sum);
    })
}

/// A database in a directory of its own.
struct Place {
    db: Db,
    _dir: TempDir,
}

fn open() -> Place {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let db = Db::builder(dir.path().join("db")).compression(Compression::None).open().unwrap();
    Place { db, _dir: dir }
}

fn fill(keys: &[Key], values: &Values) -> (Place, Fill) {
    let place = open();
    let mut fill = timed(|| {
        for key in keys {
            place.db.put(key, values.of(key)).unwrap();
        }
    });
    fill.stats = place.db.stats();
    fill.background = background();
    let start = Instant::now();
    place.db.flush().unwrap();
    fill.flush = nanos(start.elapsed());
    for key in keys.iter().step_by(997) {
        assert_eq!(place.db.get(key).unwrap().as_deref(), Some(values.of(key)));
    }
    (place, fill)
}

/// What many rounds of one thing say.
struct Rounds<'a> {
    fills: &'a [Fill],
    records: f64,
}

impl Rounds<'_> {
    fn median(&self, of: impl Fn(&Fill) -> f64) -> f64 {
        self.figure(of).median
    }

    fn figure(&self, of: impl Fn(&Fill) -> f64) -> Figure {
        Figure::of(self.fills.iter().map(of).collect())
    }

    fn show(&self, name: &str, floor: &[Fill]) {
        let wall = self.figure(|fill| fill.wall / self.records);
        let ran = self.figure(|fill| fill.used.ran / self.records);
        let ratio = |of: fn(&Fill) -> f64| {
            Figure::of(self.fills.iter().zip(floor).map(|(own, floor)| of(own) / of(floor)).collect())
        };
        let (by_wall, by_cpu) = (ratio(|fill| fill.wall), ratio(|fill| fill.used.ran));
        println!(
            "  {name:<20} {:7.1} [{:6.1} .. {:6.1}]  ran {:6.1} [{:6.1} .. {:6.1}]  \
             floors {:5.1} [{:4.1} .. {:5.1}], ran {:5.1}",
            wall.median,
            wall.min,
            wall.max,
            ran.median,
            ran.min,
            ran.max,
            by_wall.median,
            by_wall.min,
            by_wall.max,
            by_cpu.median
        );
    }

    /// Where the time of a fill went, a record.
    fn explain(&self, name: &str) {
        let per = |of: fn(&Fill) -> f64| self.median(|fill| of(fill) / self.records);
        println!("{name}: where the writing thread's time went, ns a record, medians");
        println!(
            "  ran {:.1}; ready, but not on a processor {:.1}; slept {:.1}, of which stalls {:.1}; {:.3} page faults",
            per(|fill| fill.used.ran),
            per(|fill| fill.used.ready),
            per(|fill| (fill.wall - fill.used.ran - fill.used.ready).max(0.0)),
            per(|fill| nanos(fill.stats.stalls.iter().map(|stall| stall.time).sum())),
            per(|fill| fill.used.faults),
        );
        let count = |of: fn(&Stats) -> u64| self.median(|fill| of(&fill.stats) as f64);
        println!(
            "  {:.0} stalls, {:.0} flushes, {:.0} merges; {:.0} MiB of records, {:.0} MiB flushed, {:.0} MiB merged; \
             log on disk {:.0} MiB",
            count(|stats| stats.stalls.iter().map(|stall| stall.count).sum()),
            count(|stats| stats.flushes),
            count(|stats| stats.compactions),
            count(|stats| stats.record_bytes_written >> 20),
            count(|stats| stats.flush_bytes_written >> 20),
            count(|stats| stats.compaction_bytes_written >> 20),
            count(|stats| stats.log_disk_bytes >> 20),
        );
        for thread in self.fills.first().into_iter().flat_map(|fill| fill.background.keys()) {
            let ran = self.median(|fill| fill.background.get(thread).copied().unwrap_or(0.0) / self.records);
            println!("  {thread} ran {ran:.1}");
        }
        println!("  flush of the rest after the last put: {:.1}", per(|fill| fill.flush));
    }
}

fn get_all(db: &Db, keys: &[Key], values: &Values) -> u64 {
    for key in keys {
        let found = db.get(key).unwrap();
        assert_eq!(found.as_deref(), Some(values.of(key)));
    }
    keys.len() as u64
}

fn miss_all(db: &Db, keys: &[Key]) -> u64 {
    for key in keys {
        assert!(db.get(key).unwrap().is_none());
    }
    keys.len() as u64
}

fn scan(db: &Db, records: u64) -> u64 {
    let (mut count, mut sum) = (0, 0_u64);
    for entry in db.iter().unwrap() {
        let (key, value) = entry.unwrap();
        sum += u64::from(key[0]) + u64::from(value[VALUE - 1]);
        count += 1;
    }
    black_box(sum);
    assert_eq!(count, records);
    count
}

/// Every record is there once, in order, with its value.
fn check(db: &Db, keys: &[Key], values: &Values) {
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let mut entries = db.iter().unwrap();
    for expected in &sorted {
        let (key, value) = entries.next().unwrap().unwrap();
        assert_eq!((&key[..], &value[..]), (&expected[..], values.of(expected)));
    }
    assert!(entries.next().is_none());
}

fn reads(db: &Db, keys: &[Key], values: &Values, rounds: usize) {
    let start = Instant::now();
    db.compact_range(..).unwrap();
    let spent = nanos(start.elapsed()) / keys.len() as f64;
    println!("compact_range(..): {spent:.1} ns a record; {:?}", db.stats().levels);
    check(db, keys, values);
    let records = keys.len() as u64;
    let present: Vec<Key> = (0..GETS).map(|n| keys[(mix(n + 7) % records) as usize]).collect();
    let absent: Vec<Key> = (0..GETS).map(|n| random_key(records + 1 + n)).collect();
    interleaved(
        "reads, one merged run, warm (the ratio is to readrandom)",
        rounds,
        &mut [
            Contestant::new("readrandom", || get_all(db, &present, values)),
            Contestant::new("readmissing", || miss_all(db, &absent)),
            Contestant::new("scan forward", || scan(db, records)),
        ],
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|word| word == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let records: u64 = option("--records").map_or(1_000_000, |word| word.parse().unwrap());
    let rounds: usize = option("--rounds").map_or(5, |word| word.parse().unwrap());
    let values = Values::new();
    let random: Vec<Key> = (1..=records).map(random_key).collect();
    let ascending: Vec<Key> = (1..=records).map(ascending_key).collect();
    if let Some(only) = option("--only") {
        let keys = if only == "fillseq" { &ascending } else { &random };
        for _ in 0..rounds {
            fill(keys, &values);
        }
        return;
    }

    let record_len = record::encoded_len(size_of::<Key>(), VALUE);
    let mut encoded = vec![0; RING / record_len * record_len];
    for (to, key) in encoded.chunks_exact_mut(record_len).zip(random.iter().cycle()) {
        let trailer = Trailer::new(Seqno(1), Kind::Put);
        record::encode(to, KeyspaceId::DEFAULT, key, trailer, values.of(key)).unwrap();
    }
    let mut fills: [Vec<Fill>; 5] = Default::default();
    let mut filled = None;
    for round in 0..=rounds {
        let least = floor(&encoded, record_len, records, false);
        let read_back = floor(&encoded, record_len, records, true);
        let encode = encode_only(&random, &values, record_len);
        let sequential = fill(&ascending, &values).1;
        // The last round's database goes only now, so that removing it falls into no timed part.
        drop(filled.take());
        let (place, shuffled) = fill(&random, &values);
        filled = Some(place);
        // The first round warms up and is not counted.
        if round > 0 {
            let one_each = [least, read_back, encode, sequential, shuffled];
            fills.iter_mut().zip(one_each).for_each(|(all, one)| all.push(one));
        }
    }
    println!("{records} records: ns a record, median of {rounds} interleaved rounds [fastest .. slowest]");
    let [floor, read_back, encode, sequential, shuffled] = fills;
    let rounds_of = |fills| Rounds { fills, records: records as f64 };
    rounds_of(&floor).show("floor", &floor);
    rounds_of(&read_back).show("floor, read back", &floor);
    rounds_of(&encode).show("encode, read back", &floor);
    rounds_of(&sequential).show("fillseq", &floor);
    rounds_of(&shuffled).show("fillrandom", &floor);
    rounds_of(&sequential).explain("fillseq");
    rounds_of(&shuffled).explain("fillrandom");
    if let Some(place) = filled {
        reads(&place.db, &random, &values, rounds);
    }
}
