//! Rows that write: into a new database, over what is there, synced, and each put measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Bench, Done, Figures, Limit};
use crate::data::Random;
use crate::histogram::Histogram;
use crate::store::Store;
use crate::{Result, quiet};

/// Records in one commit of a load.
const LOAD_BATCH: u64 = 1000;

/// Loads the data that rows begin with, and closes the database at rest. Opening it once more leaves to no row what
/// an engine does only then, such as to flush what it replays.
pub fn load(bench: &Bench<'_>) -> Result<()> {
    let store = bench.open()?;
    load_into(bench, store.as_ref())?;
    quiet::wait(store.as_ref())?;
    drop(store);
    quiet::wait(bench.open()?.as_ref())?;
    Ok(())
}

/// Writes every record at version 1.
pub fn load_into(bench: &Bench<'_>, store: &dyn Store) -> Result<()> {
    let mut batch = Vec::new();
    let mut id = 0;
    // A commit of large values holds fewer of them.
    let step = (LOAD_BATCH * 128 / bench.records.len()).clamp(1, LOAD_BATCH);
    while id < bench.count {
        let end = bench.count.min(id + step);
        make_batch(bench, id, end, &mut batch);
        store.batch(&batch)?;
        id = end;
    }
    Ok(())
}

fn make_batch(bench: &Bench<'_>, from: u64, to: u64, batch: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    batch.resize_with((to - from) as usize, Default::default);
    for (id, (key, value)) in (from..to).zip(batch) {
        bench.records.key(id, key);
        bench.records.value(id, 1, value);
    }
}

/// Writes every record into a new database, `batch` of them in one commit.
pub fn fill(bench: &Bench<'_>, batch: usize) -> Result<(Figures, String)> {
    let store = bench.open()?;
    let store = store.as_ref();
    let mut written = 0;
    let figures = bench.measure(store, || {
        let done =
            if batch > 1 { in_batches(bench, store, batch as u64)? } else { one_by_one(bench, store)? };
        written = done.operations;
        Ok(done)
    })?;
    bench.check(store, |id| (id < written).then_some(1), written)?;
    Ok((figures, store.settings()))
}

fn one_by_one(bench: &Bench<'_>, store: &dyn Store) -> Result<Done> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let limit = Limit::new(bench.patience(), 64);
    let mut id = 0;
    while id < bench.count && !limit.is_over(id) {
        bench.records.key(id, &mut key);
        bench.records.value(id, 1, &mut value);
        store.put(&key, &value)?;
        id += 1;
    }
    Ok(wrote(bench, id, id, &limit, id < bench.count))
}

fn in_batches(bench: &Bench<'_>, store: &dyn Store, len: u64) -> Result<Done> {
    let limit = Limit::new(bench.patience(), 1);
    let mut batch = Vec::new();
    let mut id = 0;
    while id < bench.count && !limit.is_over(id) {
        let end = bench.count.min(id + len);
        make_batch(bench, id, end, &mut batch);
        store.batch(&batch)?;
        id = end;
    }
    Ok(wrote(bench, id, id, &limit, id < bench.count))
}

fn wrote(bench: &Bench<'_>, operations: u64, live: u64, limit: &Limit, stopped: bool) -> Done {
    Done {
        operations,
        seconds: limit.seconds(),
        user_bytes: operations * bench.records.len(),
        live_bytes: live * bench.records.len(),
        stopped,
        ..Done::default()
    }
}

/// Writes records, each synced, from several threads.
pub fn fill_sync(bench: &Bench<'_>, threads: usize) -> Result<(Figures, String)> {
    let store = bench.open()?;
    let store = store.as_ref();
    let next = AtomicU64::new(0);
    let mut written = 0;
    let figures = bench.measure(store, || {
        let limit = Limit::new(Duration::from_secs(10), 1);
        let worker = || -> Result<()> {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            while !limit.is_over(0) {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id >= bench.count {
                    break;
                }
                bench.records.key(id, &mut key);
                bench.records.value(id, 1, &mut value);
                store.put(&key, &value)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a writer panicked")?)
        })?;
        written = next.load(Ordering::Relaxed).min(bench.count);
        Ok(wrote(bench, written, written, &limit, written < bench.count))
    })?;
    bench.check(store, |id| (id < written).then_some(1), written)?;
    Ok((figures, store.settings()))
}

/// Overwrites as many random records as there are.
pub fn overwrite(bench: &Bench<'_>) -> Result<(Figures, String)> {
    let mut versions = vec![1_u32; usize::try_from(bench.count)?];
    let store = bench.open()?;
    let store = store.as_ref();
    quiet::wait(store)?;
    let figures = bench.measure(store, || {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut random = Random::new(1);
        let limit = Limit::new(bench.patience(), 64);
        let mut puts = 0;
        while puts < bench.count && !limit.is_over(puts) {
            let id = random.below(bench.count);
            // An index of `versions`.
            let version = &mut versions[id as usize];
            *version += 1;
            bench.records.key(id, &mut key);
            bench.records.value(id, *version, &mut value);
            store.put(&key, &value)?;
            puts += 1;
        }
        Ok(wrote(bench, puts, bench.count, &limit, puts < bench.count))
    })?;
    bench.check(store, |id| versions.get(id as usize).copied(), bench.count)?;
    Ok((figures, store.settings()))
}

/// Writes random records, some of them more than once, and measures each put.
pub fn puts(bench: &Bench<'_>) -> Result<(Figures, String)> {
    let mut versions = vec![0_u32; usize::try_from(bench.count)?];
    let store = bench.open()?;
    let store = store.as_ref();
    let figures = bench.measure(store, || {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut random = Random::new(2);
        let mut latency = Histogram::new();
        let mut seconds: Vec<u64> = Vec::new();
        let limit = Limit::new(bench.patience(), 64);
        let begin = Instant::now();
        let (mut puts, mut live) = (0, 0);
        while puts < bench.count && !limit.is_over(puts) {
            let id = random.below(bench.count);
            // An index of `versions`.
            let version = &mut versions[id as usize];
            live += u64::from(*version == 0);
            *version += 1;
            bench.records.key(id, &mut key);
            bench.records.value(id, *version, &mut value);
            let start = Instant::now();
            store.put(&key, &value)?;
            let end = Instant::now();
            latency.add(u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX));
            let second = usize::try_from((end - begin).as_secs())?;
            if second >= seconds.len() {
                seconds.resize(second + 1, 0);
            }
            seconds[second] += 1;
            puts += 1;
        }
        let mut done = wrote(bench, puts, live, &limit, puts < bench.count);
        for (name, part) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            done.figures.insert(name, latency.quantile(part) as f64 / 1e3);
        }
        done.figures.insert("max_us", latency.max() as f64 / 1e3);
        // The last second is not a whole one.
        seconds.pop();
        seconds.sort_unstable();
        if let (Some(lowest), Some(median)) = (seconds.first(), seconds.get(seconds.len() / 2)) {
            done.figures.insert("lowest_second", 100.0 * *lowest as f64 / *median as f64);
        }
        Ok(done)
    })?;
    let live = versions.iter().filter(|version| **version > 0).count() as u64;
    let version = |id: u64| versions.get(id as usize).copied().filter(|version| *version > 0);
    bench.check(store, version, live)?;
    Ok((figures, store.settings()))
}
