//! Data four times the memory: a control group limits the process and the pages that the kernel keeps for it.
//!
//! Without the right to make one, only the engines' own budgets limit them; the settings say so.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read::get_random;
use super::{Bench, Done, Figures, Limit};
use crate::Result;
use crate::data::Random;
use crate::store::Config;

/// Less than this no engine is made for.
const MEMORY_MIN: u64 = 96 << 20;
/// How long it reads, and how long it writes.
const EACH: Duration = Duration::from_secs(15);

/// Loads, reads and overwrites. Half of the memory is the engine's budget, the rest the kernel's.
pub fn run(bench: &Bench<'_>) -> Result<(Figures, String)> {
    let memory = (bench.live_bytes() / 4).max(MEMORY_MIN);
    let config = Config { cold: true, budget: memory / 2, ..bench.config };
    let group = Group::new(memory);
    let limited = match &group {
        Ok(_) => format!("process and its pages limited to {} MiB, budget half of it", memory >> 20),
        Err(error) => format!("NOT limited but by the budget of {} MiB: {error}", memory >> 21),
    };
    let mut versions = vec![1_u32; usize::try_from(bench.count)?];
    let store = bench.open_with(&config)?;
    let store = store.as_ref();
    let figures = bench.measure(store, || {
        let mut figures = Figures::new();
        let load = Limit::new(bench.patience(), 1);
        super::fill::load_into(bench, store)?;
        figures.insert("fill_rate", bench.count as f64 / load.seconds());
        crate::quiet::wait(store)?;

        let read = Limit::new(EACH, 1);
        let reads = get_random(bench, &mut *store.reader()?, 8, u64::MAX, EACH)?;
        figures.insert("reader_rate", reads as f64 / read.seconds());

        let write = Limit::new(EACH, 16);
        let (mut key, mut value, mut random, mut writes) = (Vec::new(), Vec::new(), Random::new(9), 0);
        while !write.is_over(writes) {
            let id = random.below(bench.count);
            // An index of `versions`.
            let version = &mut versions[id as usize];
            *version += 1;
            bench.records.key(id, &mut key);
            bench.records.value(id, *version, &mut value);
            store.put(&key, &value)?;
            writes += 1;
        }
        figures.insert("writer_rate", writes as f64 / write.seconds());
        let operations = bench.count + reads + writes;
        let user_bytes = (bench.count + writes) * bench.records.len();
        Ok(Done { operations, user_bytes, live_bytes: bench.live_bytes(), figures, ..Done::default() })
    })?;
    bench.check(store, |id| versions.get(id as usize).copied(), bench.count)?;
    Ok((figures, format!("{}; {limited}", store.settings())))
}

/// A control group of this process, removed when it leaves.
struct Group {
    path: PathBuf,
    parent: PathBuf,
}

impl Group {
    /// Moves this process into a new group that may use `bytes` of memory.
    fn new(bytes: u64) -> Result<Self> {
        // The first version of control groups mounts each controller by itself.
        let (parent, limit) = match Path::new("/sys/fs/cgroup/memory") {
            first if first.is_dir() => (first.to_owned(), "memory.limit_in_bytes"),
            _ => (PathBuf::from("/sys/fs/cgroup"), "memory.max"),
        };
        let path = parent.join(format!("pebble-peers-{}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Self { path, parent };
        fs::write(group.path.join(limit), bytes.to_string())?;
        fs::write(group.path.join("cgroup.procs"), std::process::id().to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let id = std::process::id().to_string();
        let left = fs::write(self.parent.join("cgroup.procs"), id).and_then(|()| fs::remove_dir(&self.path));
        if let Err(error) = left {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}
