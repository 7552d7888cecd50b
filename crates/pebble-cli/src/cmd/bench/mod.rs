//! `pebble bench`: fills and reads, each with its throughput, its latencies and what it wrote.
//!
//! Threading: each workload runs on `--threads` threads, which share its records evenly and are joined before the next.

mod workload;

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pebble_db::{Db, Stats};
use serde::Serialize;

use crate::failure::{Failure, Result, note};
use crate::histogram::Histogram;
use crate::human;
use crate::output::Output;
use crate::place::{Missing, Place};
use workload::{Data, Workload};

/// Measure fills and reads in a new database
///
/// Keys have 16 bytes, values are incompressible and checked on every read. A latency is the time from one operation's
/// end to the next one's, the making of the key included.
///
/// written/given = (bytes of records in the log + bytes of tables that flushes and merges wrote) / (bytes of keys and
/// values put), after a flush at the end of the fill, which is not part of its time. The frames of the log and the
/// manifest are not counted; merges count as far as they have come by then.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    place: Place,
    /// What to run, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Workload::ALL)]
    workloads: Vec<Workload>,
    /// Records of a fill, and operations of readrandom and readmissing
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Records of fillsync, at most --records
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u64).range(1..))]
    sync_records: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(..=16 << 20))]
    value_len: u32,
    /// Threads
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Which keys and values; the same ones for the same seed
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Print an object a line for each workload
    #[arg(long)]
    json: bool,
}

/// What a workload showed.
#[derive(Serialize)]
struct Figures {
    workload: String,
    threads: u16,
    operations: u64,
    seconds: f64,
    operations_per_second: f64,
    /// Keys and values.
    bytes_per_second: f64,
    p50_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    /// Only of fills.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_per_given: Option<f64>,
}

/// What was measured while a workload ran.
struct Measured {
    time: Duration,
    operations: u64,
    latencies: Histogram,
}

impl Bench {
    pub fn run(&self) -> Result<()> {
        check_unused(&self.place.db)?;
        if cfg!(debug_assertions) {
            note("this is a debug build: its figures say nothing");
        }
        self.place.with(Missing::Create, |db| {
            let mut output = Output::new();
            if !self.json {
                output.line(HEADER)?;
                output.flush()?;
            }
            let mut data = Data::new(self.seed, self.value_len, self.threads);
            for workload in &self.workloads {
                let figures = self.measure(db, *workload, &mut data)?;
                if self.json {
                    output.json(&figures)?;
                } else {
                    output.line(figures.text())?;
                }
                output.flush()?;
            }
            Ok(())
        })
    }

    fn measure(&self, db: &Db, workload: Workload, data: &mut Data) -> Result<Figures> {
        let records = match workload {
            Workload::Fillsync => self.sync_records.min(self.records),
            _ => self.records,
        };
        data.prepare(db, workload, records)?;
        let before = written(&db.stats());
        let measured = data.run(db, workload, records)?;
        let given = measured.operations * data.record_len();
        let written_per_given = match workload.fills() {
            true => {
                db.flush()?;
                Some(human::ratio(written(&db.stats()) - before, given))
            }
            false => None,
        };
        let given = if workload == Workload::Readmissing { 0 } else { given };
        let nanos = |share| u64::try_from(measured.latencies.quantile(share).as_nanos()).unwrap_or(u64::MAX);
        Ok(Figures {
            workload: workload.name(),
            threads: self.threads,
            operations: measured.operations,
            seconds: measured.time.as_secs_f64(),
            operations_per_second: human::rate(measured.operations, measured.time),
            bytes_per_second: human::rate(given, measured.time),
            p50_ns: nanos(0.5),
            p99_ns: nanos(0.99),
            p999_ns: nanos(0.999),
            max_ns: u64::try_from(measured.latencies.max().as_nanos()).unwrap_or(u64::MAX),
            written_per_given,
        })
    }
}

fn written(stats: &Stats) -> u64 {
    stats.record_bytes_written + stats.flush_bytes_written + stats.compaction_bytes_written
}

/// Figures of a database with a past would not be comparable, and its records might be somebody's.
fn check_unused(path: &Path) -> Result<()> {
    match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(Failure::at(path, "not empty; a bench wants a directory of its own")),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::at(path, error)),
    }
}

const HEADER: &str = "workload      threads        ops       ops/s      MB/s       p50       p99     p99.9       max  \
                      written/given";

impl Figures {
    fn text(&self) -> String {
        let time = |nanos| human::time(Duration::from_nanos(nanos));
        format!(
            "{:12} {:>8} {:>10} {:>11.0} {:>9.1} {:>9} {:>9} {:>9} {:>9}  {:>13}",
            self.workload,
            self.threads,
            self.operations,
            self.operations_per_second,
            self.bytes_per_second / 1e6,
            time(self.p50_ns),
            time(self.p99_ns),
            time(self.p999_ns),
            time(self.max_ns),
            self.written_per_given.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        )
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Workload {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
