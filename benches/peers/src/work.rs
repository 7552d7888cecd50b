//! One row with one engine, in this process: opens the database, does the work, measures it, checks what is there.
//!
//! ```text
//!   (the parent loads the data before) ─► open ─► warm up ─► work ─► quiet ─► check
//!                                                            └── measured ─┘
//! ```

mod delete;
mod fill;
mod memory;
mod read;
mod reopen;
mod ycsb;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::data::{Content, Records};
use crate::disk::Directory;
use crate::process::{self, Usage};
use crate::report::megabytes;
use crate::rows::{ROWS, Row, Work};
use crate::store::{Config, EngineName, Store, Window};
use crate::{Result, parse_bytes, quiet, sampler};

/// Bytes of a value from which engines that can keep values apart from keys.
const LARGE: usize = 4 << 10;

/// Options of one row with one engine.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The engine to run.
    #[arg(long, value_enum)]
    pub engine: EngineName,
    /// The row to run.
    #[arg(long)]
    pub row: String,
    /// Where the database is; the parent made it.
    #[arg(long)]
    pub dir: PathBuf,
    /// Records of a row that takes them all.
    #[arg(long)]
    pub records: u64,
    /// Bytes of memory for memtables and caches together.
    #[arg(long, value_parser = parse_bytes, default_value = "256MiB")]
    pub budget: u64,
    /// What to do: the row, or a part of it that needs a process of its own; the last one said counts.
    #[arg(long, value_enum, default_value = "row", overrides_with = "stage")]
    pub stage: Stage,
}

/// What a child process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// The row itself.
    Row,
    /// Loads the data that rows begin with, waits until the engine is at rest, and closes it.
    Load,
    /// Writes all records, says so, and waits to be killed.
    WriteAndWait,
    /// Writes all records and closes the database.
    WriteAndClose,
}

/// Figures by their keys; see [`crate::rows::FIGURES`].
pub type Figures = BTreeMap<&'static str, f64>;

/// What a row works with.
pub struct Bench<'a> {
    /// The row.
    pub row: Row,
    /// The engine's name.
    pub engine: EngineName,
    /// How it is opened.
    pub config: Config,
    /// The records.
    pub records: Records,
    /// How many there are.
    pub count: u64,
    /// The database's directory.
    pub dir: &'a Path,
    /// Anonymous memory that this program had before it opened the database.
    own: AtomicU64,
}

/// What was done while it was measured.
#[derive(Default)]
pub struct Done {
    /// Operations.
    pub operations: u64,
    /// The time they took.
    pub seconds: f64,
    /// User bytes written.
    pub user_bytes: u64,
    /// User bytes alive at the end, for the figure of space.
    pub live_bytes: u64,
    /// Whether the time limit ended it.
    pub stopped: bool,
    /// More figures.
    pub figures: Figures,
}

/// Runs one stage, and prints what a row gives as one JSON line.
pub fn run(options: &Options) -> Result<()> {
    let row = ROWS.iter().find(|row| row.name == options.row);
    let row = *row.ok_or_else(|| format!("no row {:?}", options.row))?;
    let mut config = Config::new(options.budget, row.compression);
    config.large_values = row.value_len >= LARGE;
    config.sync = matches!(row.work, Work::FillSync { .. });
    let bench = Bench {
        row,
        engine: options.engine,
        config,
        records: Records::shaped(row.keys, row.key_len(), row.value_len, row.content())?,
        count: row.records(options.records),
        dir: &options.dir,
        own: AtomicU64::new(0),
    };
    match options.stage {
        Stage::Load => fill::load(&bench),
        Stage::WriteAndWait => reopen::write_and_wait(&bench),
        Stage::WriteAndClose => reopen::write(&bench).map(drop),
        Stage::Row => {
            let (figures, settings) = bench.run()?;
            println!("{}", bench.line(&figures, &settings));
            Ok(())
        }
    }
}

impl Bench<'_> {
    fn run(&self) -> Result<(Figures, String)> {
        match self.row.work {
            Work::Fill { batch } => fill::fill(self, batch),
            Work::FillSync { threads } => fill::fill_sync(self, threads),
            Work::Overwrite => fill::overwrite(self),
            Work::Puts => fill::puts(self),
            Work::Read { threads } => read::random(self, threads),
            Work::Missing => read::missing(self),
            Work::Scan { reverse } => read::all(self, reverse),
            Work::Seek { entries } => read::seek(self, entries),
            Work::ReadWhileWriting => read::while_writing(self),
            Work::Ycsb(letter) => ycsb::run(self, letter),
            Work::Delete => delete::run(self),
            Work::ReopenKilled => reopen::killed(self),
            Work::ReopenClosed => reopen::closed(self),
            Work::BeyondMemory => memory::run(self),
        }
    }

    fn line(&self, figures: &Figures, settings: &str) -> Value {
        json!({
            "row": self.row.name, "engine": self.engine.name(), "records": self.count,
            "key_len": self.row.key_len(), "value_len": self.row.value_len,
            "compression": format!("{:?}", self.row.compression).to_lowercase(),
            "compressible": self.row.content() == Content::Half,
            "budget": self.config.budget, "settings": settings, "figures": figures,
        })
    }

    /// Opens the database. What the caller needs for itself it has made by now: memory is counted from here.
    pub fn open(&self) -> Result<Box<dyn Store>> {
        self.open_with(&self.config)
    }

    /// Opens it with another configuration than the row's.
    pub fn open_with(&self, config: &Config) -> Result<Box<dyn Store>> {
        self.own.store(process::anonymous_bytes()?, Ordering::Relaxed);
        self.engine.open(self.dir, config)
    }

    /// Bytes of user data when every record is there once.
    pub fn live_bytes(&self) -> u64 {
        self.count * self.records.len()
    }

    /// How long a measured part may take. An engine that has to sync each write would take hours.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(if self.engine.syncs_always() { 10 } else { 120 })
    }

    /// Does `work` and measures it, until the engine's background work that it caused is done too.
    pub fn measure(&self, store: &dyn Store, work: impl FnOnce() -> Result<Done>) -> Result<Figures> {
        let mut directory = Directory::new(self.dir, store);
        directory.look()?;
        let seen = directory.table_bytes_seen();
        let told = store.table_bytes_written();
        let before = Usage::now()?;
        let ((done, settled), samples) = sampler::beside(&mut directory, || {
            let done = work()?;
            Ok((done, quiet::wait(store)?))
        })?;
        let used = Usage::now()?.since(&before);
        let told = store.table_bytes_written().zip(told).map(|(after, before)| after - before);
        let tables = told.unwrap_or(directory.table_bytes_seen() - seen);
        let space = samples.last().map(|sample| sample.space).unwrap_or_default();
        let disk = space.total();
        let anonymous = sampler::max(&samples, |sample| sample.anonymous)
            .saturating_sub(self.own.load(Ordering::Relaxed));

        let mut figures = done.figures;
        let operations = done.operations as f64;
        figures.insert("operations", operations);
        if done.seconds > 0.0 {
            figures.insert("rate", operations / done.seconds);
        }
        figures.insert("stopped", f64::from(u8::from(done.stopped)));
        figures.insert("cpu_s", used.cpu_seconds);
        figures.insert("cpu_per_million", used.cpu_seconds * 1e6 / operations);
        figures.insert("device_mb", megabytes(used.write_bytes));
        figures.insert("disk_mb", megabytes(disk));
        figures.insert("log_mb", megabytes(space.log));
        figures.insert("anonymous_mb", megabytes(anonymous));
        figures.insert("settle_s", settled.as_secs_f64());
        if self.engine.merges() {
            figures.insert("tables_mb", megabytes(tables));
        }
        if done.user_bytes > 0 {
            let user = done.user_bytes as f64;
            figures.insert("write_amp_device", used.write_bytes as f64 / user);
            if self.engine.merges() {
                figures.insert("write_amp_tables", tables as f64 / user);
            }
        }
        if done.live_bytes > 0 {
            figures.insert("space_amp", disk as f64 / done.live_bytes as f64);
        }
        figures.retain(|_, value| value.is_finite());
        Ok(figures)
    }

    /// Checks by a scan that exactly the records of `versions` are there, each at its version; one that is `None`
    /// must not be.
    pub fn check(&self, store: &dyn Store, version: impl Fn(u64) -> Option<u32>, records: u64) -> Result<()> {
        let (mut key, mut seen, mut wrong) = (Vec::new(), 0, 0_u64);
        store.reader()?.scan(Window::ALL, &mut |found_key, value| {
            seen += 1;
            let named = self.records.names(value);
            let right = named.is_some_and(|(id, found)| {
                self.records.key(id, &mut key);
                version(id) == Some(found) && found_key == key && self.records.is_of(id, value, true)
            });
            wrong += u64::from(!right);
        })?;
        // Keys of a scan ascend, so no record came twice.
        match (seen == records, wrong) {
            (true, 0) => Ok(()),
            _ => Err(format!("a scan gave {seen} entries of {records}, {wrong} of them wrong").into()),
        }
    }
}

/// Watches the time without reading the clock at every operation.
pub struct Limit {
    begin: Instant,
    patience: Duration,
    every: u64,
}

impl Limit {
    /// Looks at the clock once in `every` operations.
    pub fn new(patience: Duration, every: u64) -> Self {
        Self { begin: Instant::now(), patience, every }
    }

    /// Whether the time is up before operation `number`.
    pub fn is_over(&self, number: u64) -> bool {
        number.is_multiple_of(self.every) && self.begin.elapsed() > self.patience
    }

    /// Seconds since it began.
    pub fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}
