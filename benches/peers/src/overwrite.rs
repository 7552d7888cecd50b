//! Sustained overwrites by one thread.
//!
//! ```text
//!   load ─► quiet ─► overwrite ─► quiet ─► compact ─► check every record
//!                    └── measured ──────┘
//! ```

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::data::{Random, Records};
use crate::disk::{Directory, Scratch, Space};
use crate::histogram::Histogram;
use crate::process::{self, Usage};
use crate::report::{Better, Report, megabytes};
use crate::sampler::{self, Sample};
use crate::store::{Config, Store};
use crate::{Common, Result, load, parse_bytes, quiet, verify};

/// Options of the program.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// User bytes (keys and values) that are alive.
    #[arg(long, value_parser = parse_bytes, default_value = "2G")]
    live: u64,
    /// User bytes that are written in all, the load included.
    #[arg(long, value_parser = parse_bytes, default_value = "20G")]
    total: u64,
    /// Bytes of a value, at least 12.
    #[arg(long = "value", default_value_t = 1000)]
    value_len: usize,
    /// A file for the course of it: a line per second.
    #[arg(long)]
    seconds_csv: Option<PathBuf>,
}

/// What the writer saw.
struct Written {
    /// Puts that ended in each second.
    seconds: Vec<u64>,
    latency: Histogram,
    elapsed: Duration,
}

/// What the whole run gave.
struct Measured {
    written: Written,
    /// From the last put until background work was done.
    quiet: Duration,
    usage: Usage,
    user_bytes: u64,
    live_bytes: u64,
    table_bytes_engine: Option<u64>,
    table_bytes_seen: u64,
    samples: Vec<Sample>,
    compacted: Space,
    anonymous_before: u64,
}

/// Runs it for one engine.
pub fn run(options: &Options) -> Result<Report> {
    let common = &options.common;
    let records = Records::new(common.key_len, options.value_len, common.content)?;
    let count = options.live / records.len();
    let puts = options.total.saturating_sub(options.live) / records.len();
    if count == 0 || puts == 0 {
        return Err("--live holds at least one record, and --total is more than that".into());
    }
    let mut versions = vec![1_u32; usize::try_from(count)?];
    let scratch = Scratch::new(&common.dir, common.engine.name())?;
    let config = Config::new(common.budget, common.compression);
    let anonymous_before = process::anonymous_bytes()?;
    let store = common.engine.open(scratch.path(), &config)?;
    let store = store.as_ref();

    eprintln!("{}: loading {count} records", common.engine.name());
    load::load(store, &records, 0, count)?;
    quiet::wait(store)?;

    eprintln!("{}: overwriting {puts} times", common.engine.name());
    let mut directory = Directory::new(scratch.path(), store);
    directory.look()?;
    let (seen_before, told_before) = (directory.table_bytes_seen(), store.table_bytes_written());
    let usage_before = Usage::now()?;
    let ((written, quiet), samples) = sampler::beside(&mut directory, || {
        let written = overwrite(store, &records, &mut versions, puts)?;
        Ok((written, quiet::wait(store)?))
    })?;
    let usage = Usage::now()?.since(&usage_before);
    let told = store.table_bytes_written();
    let table_bytes_seen = directory.table_bytes_seen() - seen_before;

    eprintln!("{}: compacting, then checking every record", common.engine.name());
    store.compact()?;
    store.collect_garbage()?;
    quiet::wait(store)?;
    let compacted = directory.look()?;
    verify::check(store, &records, &versions)?;

    if let Some(path) = &options.seconds_csv {
        write_csv(path, &written.seconds, &samples)?;
    }
    let measured = Measured {
        written,
        quiet,
        usage,
        user_bytes: puts * records.len(),
        live_bytes: count * records.len(),
        table_bytes_engine: told.zip(told_before).map(|(told, before)| told - before),
        table_bytes_seen,
        samples,
        compacted,
        anonymous_before,
    };
    let mut report = Report::new("overwrite", common.engine);
    measured.fill(&mut report);
    Ok(report)
}

/// Overwrites random records `puts` times. The clock is read before and after every put.
fn overwrite(store: &dyn Store, records: &Records, versions: &mut [u32], puts: u64) -> Result<Written> {
    let mut random = Random::new(1);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut seconds = Vec::new();
    let mut latency = Histogram::new();
    let begin = Instant::now();
    for _ in 0..puts {
        let id = random.below(versions.len() as u64);
        // An index of `versions`.
        let version = &mut versions[id as usize];
        *version += 1;
        records.key(id, &mut key);
        records.value(id, *version, &mut value);

        let start = Instant::now();
        store.put(&key, &value)?;
        let end = Instant::now();

        latency.add(u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX));
        let second = usize::try_from((end - begin).as_secs())?;
        if second >= seconds.len() {
            seconds.resize(second + 1, 0);
        }
        seconds[second] += 1;
    }
    Ok(Written { seconds, latency, elapsed: begin.elapsed() })
}

/// Nanoseconds that one reading of the clock takes.
fn clock_cost() -> f64 {
    const READINGS: u32 = 100_000;
    let begin = Instant::now();
    for _ in 0..READINGS {
        black_box(Instant::now());
    }
    begin.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

impl Measured {
    fn fill(&self, report: &mut Report) {
        self.fill_speed(report);
        self.fill_writes(report);
        self.fill_space(report);
        let anonymous = sampler::max(&self.samples, |sample| sample.anonymous);
        let peak = megabytes(anonymous.saturating_sub(self.anonymous_before));
        report.add("anonymous memory, peak", "MB", Better::Lower, peak);
    }

    fn fill_speed(&self, report: &mut Report) {
        let written = &self.written;
        let puts: u64 = written.seconds.iter().sum();
        // The last second is not a whole one.
        let mut whole = written.seconds[..written.seconds.len().saturating_sub(1)].to_vec();
        whole.sort_unstable();
        let lowest = whole.first().map(|puts| *puts as f64);
        let median = whole.get(whole.len() / 2).map(|puts| *puts as f64);
        let share = lowest.zip(median).map(|(lowest, median)| 100.0 * lowest / median);
        report.add(
            "puts per second, mean",
            "1/s",
            Better::Higher,
            puts as f64 / written.elapsed.as_secs_f64(),
        );
        report.add("puts per second, median", "1/s", Better::Higher, median);
        report.add("puts per second, lowest", "1/s", Better::Higher, lowest);
        report.add("lowest second of the median", "%", Better::Higher, share);
        report.add("overwrites took", "s", Better::Lower, written.elapsed.as_secs_f64());
        report.add("quiet after", "s", Better::Neither, self.quiet.as_secs_f64());
        for (name, part) in [("put, p50", 0.5), ("put, p99", 0.99), ("put, p99.9", 0.999)] {
            report.add(name, "us", Better::Lower, written.latency.quantile(part) as f64 / 1e3);
        }
        report.add("put, max", "us", Better::Lower, written.latency.max() as f64 / 1e3);
        report.add("clock, within each put", "us", Better::Neither, clock_cost() / 1e3);
        report.add("CPU", "s", Better::Lower, self.usage.cpu_seconds);
        report.add("CPU per put", "us", Better::Lower, self.usage.cpu_seconds * 1e6 / puts as f64);
    }

    fn fill_writes(&self, report: &mut Report) {
        let user = self.user_bytes as f64;
        let told = self.table_bytes_engine.map(|bytes| bytes as f64 / user);
        report.add("user bytes written", "MB", Better::Neither, megabytes(self.user_bytes));
        report.add("write amp, tables, files seen", "x", Better::Lower, self.table_bytes_seen as f64 / user);
        report.add("write amp, tables, as told", "x", Better::Lower, told);
        report.add("write amp, storage with log", "x", Better::Lower, self.usage.write_bytes as f64 / user);
        report.add("storage writes", "MB", Better::Neither, megabytes(self.usage.write_bytes));
        report.add("storage writes, cancelled", "MB", Better::Neither, megabytes(self.usage.cancelled_bytes));
        report.add("write calls", "MB", Better::Neither, megabytes(self.usage.write_call_bytes));
    }

    fn fill_space(&self, report: &mut Report) {
        let end = self.samples.last().map(|sample| sample.space).unwrap_or_default();
        let max = |figure: fn(&Space) -> u64| sampler::max(&self.samples, |sample| figure(&sample.space));
        let mut add = |name: &str, bytes: u64, of: u64| {
            report.add(name, "x", Better::Lower, bytes as f64 / of as f64);
        };
        let (live, whole, tables) = (self.live_bytes, self.compacted.total(), self.compacted.tables);
        add("space amp of live, max", max(Space::total), live);
        add("space amp of live, end", end.total(), live);
        add("space amp of compacted, max", max(Space::total), whole);
        add("space amp of compacted, end", end.total(), whole);
        add("tables only, of live, max", max(|space| space.tables), live);
        add("tables only, of live, end", end.tables, live);
        add("tables only, of compacted, max", max(|space| space.tables), tables);
        add("tables only, of compacted, end", end.tables, tables);
        report.add("log, max", "MB", Better::Lower, megabytes(max(|space| space.log)));
        report.add("log, end", "MB", Better::Lower, megabytes(end.log));
        report.add("tables after compaction", "MB", Better::Lower, megabytes(tables));
    }
}

/// A line per second: puts, and the last sample in it.
fn write_csv(path: &Path, seconds: &[u64], samples: &[Sample]) -> Result<()> {
    let mut text = "second,puts,log_bytes,table_bytes,other_bytes,anonymous_bytes\n".to_owned();
    let last = samples.last().map_or(0, |sample| sample.at.as_secs());
    for second in 0..=last {
        let puts = usize::try_from(second).ok().and_then(|second| seconds.get(second)).unwrap_or(&0);
        let Some(sample) = samples.iter().rfind(|sample| sample.at.as_secs() == second) else { continue };
        let Space { log, tables, other } = sample.space;
        text += &format!("{second},{puts},{log},{tables},{other},{}\n", sample.anonymous);
    }
    Ok(fs::write(path, text)?)
}
