//! The tree in its shape: what a rest leaves, what a hole costs, and how a queue reads at its tail.
//!
//! ```text
//!   cargo bench -p pebble-bench --bench shape                            all three
//!   cargo bench -p pebble-bench --bench shape -- hole --records 5000000
//! ```
//!
//! Every part compares two databases in one run: the one in question, and one that was made fresh with the same
//! content.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use pebble_bench::rounds::{Contestant, Figure, interleaved};
use pebble_db::{Db, Result};

const VALUE: [u8; 100] = [7; 100];

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let (mut parts, mut records) = (Vec::new(), None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--records" => records = words.next().and_then(|number| number.parse().ok()),
            _ => parts.push(word),
        }
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    if wanted("rest") {
        rest(records.unwrap_or(2_000_000))?;
    }
    if wanted("hole") {
        hole(records.unwrap_or(5_000_000))?;
    }
    if wanted("queue") {
        queue(records.unwrap_or(1_000_000))?;
    }
    Ok(())
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// A permutation of `0..count`, the same every time.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    let bits = 64 - count.next_power_of_two().leading_zeros() - 1;
    let mask = (1_u64 << bits) - 1;
    let mix = move |n: u64| {
        let mut n = n;
        for _ in 0..3 {
            n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15 | 1) & mask;
            n ^= n >> (bits / 2).max(1);
        }
        n
    };
    (0..=mask).map(mix).filter(move |n| *n < count)
}

fn open(dir: &Path) -> Result<Db> {
    Db::builder(dir).compression(pebble_db::Compression::None).open()
}

/// Waits until nothing is left to merge; says how long that took.
fn settle(db: &Db) -> Duration {
    let begun = Instant::now();
    let mut quiet = 0;
    while quiet < 20 {
        let stats = db.stats();
        let busy = stats.merges_running > 0 || stats.sealed_memtables > 0 || stats.debt_bytes > 0;
        quiet = if busy { 0 } else { quiet + 1 };
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

fn shape(db: &Db) -> String {
    let levels = db.stats().levels;
    let texts = levels.iter().map(|level| {
        format!("L{} {} runs {} tables {} MB", level.level, level.runs, level.tables, level.bytes >> 20)
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn scan(db: &Db) -> u64 {
    db.iter().map_or(0, |iter| iter.filter(|entry| entry.is_ok()).count() as u64)
}

/// After a rest, a database that was loaded in random order against one that was loaded in order.
fn rest(records: u64) -> Result<()> {
    let home = tempfile::tempdir()?;
    let in_order = open(&home.path().join("in order"))?;
    (0..records).try_for_each(|n| in_order.put(key(n), VALUE))?;
    let at_random = open(&home.path().join("at random"))?;
    shuffled(records).try_for_each(|n| at_random.put(key(n), VALUE))?;
    for (name, db) in [("in order", &in_order), ("at random", &at_random)] {
        println!("loaded {name}: at rest after {:.2?}; {}", settle(db), shape(db));
    }
    interleaved(
        &format!("scan of {records} records"),
        9,
        &mut [
            Contestant::new("loaded in order", || scan(&in_order)),
            Contestant::new("loaded at random", || scan(&at_random)),
        ],
    );
    in_order.close()?;
    at_random.close()
}

/// Nine tenths of the records go by one range delete.
fn hole(records: u64) -> Result<()> {
    let home = tempfile::tempdir()?;
    let db = open(&home.path().join("hole"))?;
    shuffled(records).try_for_each(|n| db.put(key(n), VALUE))?;
    settle(&db);
    let (before, full) = (db.stats(), shape(&db));
    let (low, high) = (records / 20, records / 20 * 19);
    let begun = Instant::now();
    db.delete_range(key(low)..key(high))?;
    let issued = begun.elapsed();
    // Read before anything was flushed or merged, while all records are still there.
    let begun = Instant::now();
    let left = scan(&db);
    let fresh_hole = begun.elapsed();
    println!("{records} records, {full}\none range delete over {} of them: {issued:.2?}", high - low);
    println!(
        "first scan over the hole: {:.1} ns per record left",
        fresh_hole.as_nanos() as f64 / left as f64
    );
    let back = settle(&db);
    let after = db.stats();
    println!(
        "at rest after {back:.2?}: {}; dropped unread {} MB, merges read {} MB and wrote {} MB",
        shape(&db),
        after.covered_bytes_dropped >> 20,
        (after.compaction_bytes_read - before.compaction_bytes_read) >> 20,
        (after.compaction_bytes_written - before.compaction_bytes_written) >> 20,
    );
    let fresh = open(&home.path().join("fresh"))?;
    let kept = (0..low).chain(high..records);
    kept.into_iter().try_for_each(|n| fresh.put(key(n), VALUE))?;
    settle(&fresh);
    // The hole again, in the state in which it costs most: over all records, in a memtable.
    let held = open(&home.path().join("held"))?;
    shuffled(records).try_for_each(|n| held.put(key(n), VALUE))?;
    held.compact_range_with(.., |_| ControlFlow::Continue(()))?;
    let snapshot = held.snapshot();
    held.delete_range(key(low)..key(high))?;
    interleaved(
        "scan of what is left",
        9,
        &mut [
            Contestant::new("never had more", || scan(&fresh)),
            Contestant::new("hole, at rest", || scan(&db)),
            Contestant::new("hole that a snapshot keeps full", || scan(&held)),
        ],
    );
    drop(snapshot);
    Ok(())
}

/// A queue: append at the head, read and delete at the tail, many times its own length.
fn queue(turns: u64) -> Result<()> {
    const BACKLOG: u64 = 10_000;
    const WINDOWS: u64 = 50;
    let home = tempfile::tempdir()?;
    let db = open(&home.path().join("queue"))?;
    (0..BACKLOG).try_for_each(|n| db.put(key(n), VALUE))?;
    let (mut windows, mut window, mut worst) = (Vec::new(), Vec::new(), Duration::ZERO);
    for n in 0..turns {
        db.put(key(BACKLOG + n), VALUE)?;
        let begun = Instant::now();
        let first = db.iter()?.next();
        let took = begun.elapsed();
        window.push(took.as_nanos() as f64);
        worst = worst.max(took);
        if let Some(entry) = first {
            db.delete(entry?.0)?;
        }
        if window.len() as u64 == (turns / WINDOWS).max(1) {
            windows.push(Figure::of(std::mem::take(&mut window)).median);
        }
    }
    let (begin, all) = (windows.first().copied().unwrap_or_default(), Figure::of(windows));
    println!(
        "queue of {BACKLOG}, {turns} turns in {WINDOWS} windows: first key, median of a window, {begin:.0} ns in the \
         first, {:.0} ns in the median one ({:.2} x), {:.0} ns in the worst ({:.2} x); worst of all {worst:.2?}; {}",
        all.median,
        all.median / begin,
        all.max,
        all.max / begin,
        shape(&db)
    );
    let fresh = open(&home.path().join("fresh"))?;
    (0..BACKLOG).try_for_each(|n| fresh.put(key(turns + n), VALUE))?;
    for db in [&db, &fresh] {
        settle(db);
        db.flush()?;
        settle(db);
        // Neither is all in tables: a queue that is used never is.
        db.put(key(u64::MAX), VALUE)?;
    }
    let first =
        |db: &Db| (0..1_000).filter(|_| db.iter().is_ok_and(|mut iter| iter.next().is_some())).count() as u64;
    interleaved(
        "first key",
        9,
        &mut [
            Contestant::new("fresh", || first(&fresh)),
            Contestant::new("after the turns, at rest", || first(&db)),
        ],
    );
    Ok(())
}
