//! The cost of merging: runs that overlap everywhere, then one full compaction.
//!
//! Every key is written once, so a full compaction writes each again exactly once, and the figures are per key.

use std::time::Instant;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::data::Records;
use crate::disk::{Directory, Scratch};
use crate::process::Usage;
use crate::report::{Better, Report, megabytes};
use crate::store::Config;
use crate::{Common, Result, load, quiet, verify};

/// Options of the program.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Records to merge.
    #[arg(long, default_value_t = 5_000_000)]
    records: u64,
    /// Bytes of a value, at least 12.
    #[arg(long = "value", default_value_t = 100)]
    value_len: usize,
    /// Runs that the records are flushed to. Fjall slows writes down from 20 on.
    #[arg(long, default_value_t = 12, value_parser = RangedU64ValueParser::<u64>::new().range(2..=16))]
    runs: u64,
}

/// Runs it for one engine.
pub fn run(options: &Options) -> Result<Report> {
    let common = &options.common;
    let records = Records::new(common.key_len, options.value_len, common.content)?;
    let config = Config { hold_merges: true, ..Config::new(common.budget, common.compression) };
    // A memtable holds more than the user's bytes; what does not fit would be flushed as a run of its own.
    if options.records / options.runs * records.len() > config.memtable_len() * 3 / 4 {
        return Err("a run does not fit in a memtable: fewer --records, more --runs or --budget".into());
    }
    let scratch = Scratch::new(&common.dir, common.engine.name())?;
    let store = common.engine.open(scratch.path(), &config)?;
    let store = store.as_ref();
    let mut directory = Directory::new(scratch.path(), store);

    eprintln!("{}: loading {} records", common.engine.name(), options.records);
    for part in 0..options.runs {
        let end = |part: u64| options.records * part / options.runs;
        load::load(store, &records, end(part), end(part + 1))?;
        store.flush()?;
    }
    quiet::wait(store)?;
    let (runs, before) = (store.runs(), directory.look()?);
    if runs != options.runs {
        return Err(
            format!("{runs} runs instead of {}: engines would not merge the same", options.runs).into()
        );
    }

    eprintln!("{}: compacting {runs} runs", common.engine.name());
    let (usage, begin) = (Usage::now()?, Instant::now());
    store.compact()?;
    let (wall, usage) = (begin.elapsed().as_secs_f64(), Usage::now()?.since(&usage));
    store.collect_garbage()?;
    quiet::wait(store)?;
    let (runs_after, after) = (store.runs(), directory.look()?);

    eprintln!("{}: checking every record", common.engine.name());
    verify::check(store, &records, &vec![1; usize::try_from(options.records)?])?;

    let keys = options.records as f64;
    let mut report = Report::new("merge", common.engine);
    report.add("CPU per key", "ns", Better::Lower, usage.cpu_seconds * 1e9 / keys);
    report.add("wall time per key", "ns", Better::Lower, wall * 1e9 / keys);
    report.add("CPU", "s", Better::Lower, usage.cpu_seconds);
    report.add("wall time", "s", Better::Lower, wall);
    report.add("keys", "", Better::Neither, keys);
    report.add("runs before", "", Better::Neither, runs as f64);
    report.add("runs after", "", Better::Neither, runs_after as f64);
    report.add("tables before", "MB", Better::Neither, megabytes(before.tables));
    report.add("tables after", "MB", Better::Neither, megabytes(after.tables));
    report.add("storage writes", "MB", Better::Neither, megabytes(usage.write_bytes));
    Ok(report)
}
