//! Rows that read: gets, scans and seeks, alone and beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Bench, Done, Figures, Limit};
use crate::Result;
use crate::data::Random;
use crate::histogram::Histogram;
use crate::store::{Reader, Store, Window};

/// One read in so many has every byte of its value compared; the others their numbers and their end.
const WHOLE_EVERY: u64 = 64;
/// How long a reader and a writer run beside each other.
const BESIDE: Duration = Duration::from_secs(10);
/// A scan is repeated until it took so long.
const SCAN_AT_LEAST: f64 = 1.0;
/// Gets that warm the caches up.
const WARM_GETS: u64 = 500_000;

/// Reads everything once, which checks it too, then random records.
pub fn warm_up(bench: &Bench<'_>, store: &dyn Store) -> Result<()> {
    bench.check(store, |id| (id < bench.count).then_some(1), bench.count)?;
    get_random(bench, &mut *store.reader()?, 11, WARM_GETS.min(bench.count), bench.patience())?;
    Ok(())
}

/// How many gets a thread makes.
fn gets(bench: &Bench<'_>) -> u64 {
    bench.count.clamp(100_000, 2_000_000)
}

/// Gets random records and checks them; says how many before the time was up.
pub fn get_random(
    bench: &Bench<'_>,
    reader: &mut dyn Reader,
    seed: u64,
    count: u64,
    patience: Duration,
) -> Result<u64> {
    let mut random = Random::new(seed);
    let mut key = Vec::new();
    let limit = Limit::new(patience, 64);
    for number in 0..count {
        if limit.is_over(number) {
            return Ok(number);
        }
        let id = random.below(bench.count);
        bench.records.key(id, &mut key);
        let mut right = false;
        let whole = number.is_multiple_of(WHOLE_EVERY);
        reader.get(&key, &mut |value| right = bench.records.is_of(id, value, whole))?;
        if !right {
            return Err(format!("a read of record {id} gave a wrong value or none").into());
        }
    }
    Ok(count)
}

/// Gets of random records.
pub fn random(bench: &Bench<'_>, threads: usize) -> Result<(Figures, String)> {
    let store = bench.open()?;
    let store = store.as_ref();
    warm_up(bench, store)?;
    let figures = bench.measure(store, || {
        let read = |seed: u64| get_random(bench, &mut *store.reader()?, seed, gets(bench), bench.patience());
        let read = &read;
        let begin = Instant::now();
        let operations = thread::scope(|scope| {
            let readers: Vec<_> =
                (0..threads as u64).map(|seed| scope.spawn(move || read(seed + 20))).collect();
            let mut sum = 0;
            for reader in readers {
                sum += reader.join().map_err(|_| "a reader panicked")??;
            }
            Result::Ok(sum)
        })?;
        Ok(Done { operations, seconds: begin.elapsed().as_secs_f64(), ..Done::default() })
    })?;
    Ok((figures, store.settings()))
}

/// Gets of keys that are not there, though they lie between those that are.
pub fn missing(bench: &Bench<'_>) -> Result<(Figures, String)> {
    let store = bench.open()?;
    let store = store.as_ref();
    warm_up(bench, store)?;
    let figures = bench.measure(store, || {
        let mut reader = store.reader()?;
        let mut key = Vec::new();
        let limit = Limit::new(bench.patience(), 64);
        let operations = gets(bench);
        for number in 0..operations {
            bench.records.key(bench.count + number, &mut key);
            if reader.get(&key, &mut |_| {})? {
                return Err("a key is there that was never written".into());
            }
        }
        Ok(Done { operations, seconds: limit.seconds(), ..Done::default() })
    })?;
    Ok((figures, store.settings()))
}

/// All records in order, again and again for a second.
pub fn all(bench: &Bench<'_>, reverse: bool) -> Result<(Figures, String)> {
    let store = bench.open()?;
    let store = store.as_ref();
    warm_up(bench, store)?;
    let figures = bench.measure(store, || {
        let limit = Limit::new(bench.patience(), 1);
        let mut operations = 0;
        while operations == 0 || limit.seconds() < SCAN_AT_LEAST {
            let (seen, wrong) = scan_all(bench, store, reverse)?;
            if seen != bench.count || wrong > 0 {
                return Err(format!("a scan gave {seen} of {} records, {wrong} wrong", bench.count).into());
            }
            operations += seen;
        }
        Ok(Done { operations, seconds: limit.seconds(), ..Done::default() })
    })?;
    Ok((figures, store.settings()))
}

/// Scans everything; gives how many entries came, and how many of them were wrong.
pub fn scan_all(bench: &Bench<'_>, store: &dyn Store, reverse: bool) -> Result<(u64, u64)> {
    let (mut seen, mut wrong) = (0_u64, 0_u64);
    store.reader()?.scan(Window { reverse, ..Window::ALL }, &mut |_, value| {
        wrong += u64::from(!looks_right(bench, value, seen));
        seen += 1;
    })?;
    Ok((seen, wrong))
}

/// Whether an entry of a scan is of the record that it names: the same look as at a get.
fn looks_right(bench: &Bench<'_>, value: &[u8], number: u64) -> bool {
    let named = bench.records.names(value);
    named.is_some_and(|(id, _)| bench.records.is_of(id, value, number.is_multiple_of(WHOLE_EVERY)))
}

/// Seeks to random records, and reads some entries from there.
pub fn seek(bench: &Bench<'_>, entries: usize) -> Result<(Figures, String)> {
    let store = bench.open()?;
    let store = store.as_ref();
    warm_up(bench, store)?;
    let seeks = (bench.count / 5).clamp(20_000, 300_000) * 10 / entries.max(10) as u64;
    let figures = bench.measure(store, || {
        let mut reader = store.reader()?;
        let mut random = Random::new(4);
        let mut key = Vec::new();
        let limit = Limit::new(bench.patience(), 1);
        for number in 0..seeks {
            let id = random.below(bench.count);
            seek_to(bench, &mut *reader, id, entries, number, &mut key)?;
        }
        Ok(Done { operations: seeks, seconds: limit.seconds(), ..Done::default() })
    })?;
    Ok((figures, store.settings()))
}

/// Seeks to the record `id`, which must be there, and reads up to `entries` entries from it.
pub fn seek_to(
    bench: &Bench<'_>,
    reader: &mut dyn Reader,
    id: u64,
    entries: usize,
    number: u64,
    key: &mut Vec<u8>,
) -> Result<()> {
    bench.records.key(id, key);
    let (mut seen, mut right) = (0, true);
    let window = Window { from: Some(key), reverse: false, limit: entries };
    reader.scan(window, &mut |_, value| {
        right &= match seen {
            0 => bench.records.is_of(id, value, false),
            _ => looks_right(bench, value, number + seen),
        };
        seen += 1;
    })?;
    if seen == 0 || !right {
        return Err(format!("a seek to record {id} gave {seen} entries, or a wrong one").into());
    }
    Ok(())
}

/// A thread gets random records while another overwrites random ones as fast as it can.
pub fn while_writing(bench: &Bench<'_>) -> Result<(Figures, String)> {
    let mut versions = vec![1_u32; usize::try_from(bench.count)?];
    let store = bench.open()?;
    let store = store.as_ref();
    warm_up(bench, store)?;
    let figures = bench.measure(store, || {
        let ended = AtomicBool::new(false);
        let (writes, (reads, latency), seconds) = thread::scope(|scope| {
            let reader = scope.spawn(|| read_until(bench, store, &ended));
            let limit = Limit::new(BESIDE, 16);
            let writes = overwrite(bench, store, &mut versions, &limit);
            let seconds = limit.seconds();
            ended.store(true, Ordering::Relaxed);
            let read = reader.join().map_err(|_| "the reader panicked")??;
            Result::Ok((writes?, read, seconds))
        })?;
        let mut figures = Figures::new();
        figures.insert("reader_rate", reads as f64 / seconds);
        figures.insert("writer_rate", writes as f64 / seconds);
        figures.insert("reader_p999_us", latency.quantile(0.999) as f64 / 1e3);
        Ok(Done {
            operations: reads + writes,
            user_bytes: writes * bench.records.len(),
            live_bytes: bench.live_bytes(),
            figures,
            ..Done::default()
        })
    })?;
    bench.check(store, |id| versions.get(id as usize).copied(), bench.count)?;
    Ok((figures, store.settings()))
}

fn overwrite(bench: &Bench<'_>, store: &dyn Store, versions: &mut [u32], limit: &Limit) -> Result<u64> {
    let mut random = Random::new(5);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut writes = 0;
    while !limit.is_over(writes) {
        let id = random.below(bench.count);
        // An index of `versions`.
        let version = &mut versions[id as usize];
        *version += 1;
        bench.records.key(id, &mut key);
        bench.records.value(id, *version, &mut value);
        store.put(&key, &value)?;
        writes += 1;
    }
    Ok(writes)
}

fn read_until(bench: &Bench<'_>, store: &dyn Store, ended: &AtomicBool) -> Result<(u64, Histogram)> {
    let mut reader = store.reader()?;
    let mut random = Random::new(6);
    let mut latency = Histogram::new();
    let mut key = Vec::new();
    let mut reads = 0_u64;
    while !ended.load(Ordering::Relaxed) {
        let id = random.below(bench.count);
        bench.records.key(id, &mut key);
        let mut right = false;
        let whole = reads.is_multiple_of(WHOLE_EVERY);
        let start = Instant::now();
        reader.refresh();
        reader.get(&key, &mut |value| right = bench.records.is_of(id, value, whole))?;
        latency.add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if !right {
            return Err(format!("a read of record {id} gave a wrong value or none").into());
        }
        reads += 1;
    }
    Ok((reads, latency))
}
