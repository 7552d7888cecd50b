//! Opens what a killed process left, and what a closed database left.
//!
//! The first also proves what "survives a kill" claims for every engine: each record must be there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Bench, Done, Figures, Limit};
use crate::store::Store;
use crate::{Result, quiet};

const WRITTEN: &str = "written";

/// Writes records one by one, or in batches where each write is synced.
pub fn write(bench: &Bench<'_>) -> Result<Box<dyn Store>> {
    let store = bench.open()?;
    if bench.engine.syncs_always() {
        super::fill::load_into(bench, store.as_ref())?;
        return Ok(store);
    }
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for id in 0..bench.count {
        bench.records.key(id, &mut key);
        bench.records.value(id, 1, &mut value);
        store.put(&key, &value)?;
    }
    Ok(store)
}

/// Writes records, says that they are written, and waits to be killed.
pub fn write_and_wait(bench: &Bench<'_>) -> Result<()> {
    let _open = write(bench)?;
    println!("{WRITTEN}");
    std::io::stdout().flush()?;
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// This program again, with another stage.
fn child(stage: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args().skip(1)).args(["--stage", stage]).stdout(Stdio::piped());
    Ok(command)
}

/// A child writes everything and is killed with SIGKILL, then this process opens it.
pub fn killed(bench: &Bench<'_>) -> Result<(Figures, String)> {
    let mut child = child("write-and-wait")?.spawn()?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    child.kill()?;
    child.wait()?;
    if line.trim() != WRITTEN {
        return Err("the writer failed".into());
    }
    opened(bench)
}

/// A child writes everything and closes the database, then this process opens it.
pub fn closed(bench: &Bench<'_>) -> Result<(Figures, String)> {
    if !child("write-and-close")?.status()?.success() {
        return Err("the writer failed".into());
    }
    opened(bench)
}

fn opened(bench: &Bench<'_>) -> Result<(Figures, String)> {
    let limit = Limit::new(bench.patience(), 1);
    let begin = Instant::now();
    let store = bench.open()?;
    let mut key = Vec::new();
    bench.records.key(0, &mut key);
    let mut right = false;
    store.get(&key, &mut |value| right = bench.records.is_of(0, value, true))?;
    let open = begin.elapsed();
    if !right {
        return Err("the first get after the open gave a wrong value or none".into());
    }
    let mut figures = bench.measure(store.as_ref(), || {
        Ok(Done { operations: bench.count, seconds: limit.seconds(), ..Done::default() })
    })?;
    // They are of the open's work, which was not measured, or of none.
    for key in ["rate", "cpu_s", "cpu_per_million"] {
        figures.remove(key);
    }
    figures.insert("open_ms", open.as_secs_f64() * 1e3);
    quiet::wait(store.as_ref())?;
    bench.check(store.as_ref(), |id| (id < bench.count).then_some(1), bench.count)?;
    Ok((figures, store.settings()))
}
