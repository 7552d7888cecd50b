//! The contest: every row with every engine, each in a process of its own, rounds interleaved and the order rotated.
//!
//! ```text
//!   for each row ─► for each round ─► for each engine ─► [load once] ─► copy ─► child ─► a JSON line
//!                                                                                        │
//!                                              Markdown, SVG ◄── medians, ratios ◄───────┘
//! ```
//!
//! The file of lines grows with every child, so a run that ends early leaves what it has; a row that is run again
//! replaces its lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::disk::Scratch;
use crate::rows::{ROWS, Row};
use crate::store::{Compression, EngineName};
use crate::{Result, charts, machine, parse_bytes, results};

/// A child that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(1800);
const POLL: Duration = Duration::from_millis(20);

/// Options of the contest.
#[derive(Args)]
pub struct Options {
    /// The rows to run; all without it.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// The engines to run; all of this build without it.
    #[arg(long, value_enum, value_delimiter = ',')]
    engines: Vec<EngineName>,
    /// How often each engine runs each row.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Records, such as `1M`.
    #[arg(long, value_parser = parse_bytes, default_value = "1M")]
    records: u64,
    /// Where the databases are made, on the device to be measured.
    #[arg(long)]
    dir: PathBuf,
    /// Where the lines, the table and the charts go.
    #[arg(long)]
    out: PathBuf,
    /// Bytes of memory for memtables and caches together.
    #[arg(long, value_parser = parse_bytes, default_value = "256MiB")]
    budget: u64,
    /// Runs nothing, and makes the table and the charts anew from the lines.
    #[arg(long)]
    render: bool,
    /// A remark for the table, such as what else ran on the machine.
    #[arg(long)]
    remark: Option<String>,
}

impl Options {
    fn rows(&self) -> Result<Vec<Row>> {
        if let Some(unknown) = self.rows.iter().find(|name| ROWS.iter().all(|row| row.name != **name)) {
            let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            return Err(format!("no row {unknown:?}; there are {}", known.join(", ")).into());
        }
        let wanted = |row: &&Row| self.rows.is_empty() || self.rows.iter().any(|name| name == row.name);
        Ok(ROWS.iter().filter(wanted).copied().collect())
    }

    fn engines(&self) -> Vec<EngineName> {
        if self.engines.is_empty() { EngineName::value_variants().to_vec() } else { self.engines.clone() }
    }

    /// A name for the number of records, such as `1m`.
    fn scale(&self) -> String {
        match self.records {
            n if n > 0 && n.is_multiple_of(1_000_000) => format!("{}m", n / 1_000_000),
            n if n > 0 && n.is_multiple_of(1000) => format!("{}k", n / 1000),
            n => n.to_string(),
        }
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.out)?;
    let lines_path = options.out.join(format!("contest-{}.jsonl", options.scale()));
    let mut lines = read_lines(&lines_path)?;
    if !options.render {
        let (rows, engines) = (options.rows()?, options.engines());
        let is_old = |line: &Value| {
            let same = |key: &str, name: &str| line[key].as_str() == Some(name);
            rows.iter().any(|row| same("row", row.name))
                && engines.iter().any(|engine| same("engine", engine.name()))
        };
        lines.retain(|line| !is_old(line));
        let contest = Contest { options, scratch: Scratch::new(&options.dir, "contest")?, engines };
        for (index, row) in rows.iter().enumerate() {
            contest.run_row(row, &mut |line| {
                println!("{line}");
                lines.push(line);
                write_lines(&lines_path, &lines)
            })?;
            contest.forget_data(&rows[index + 1..])?;
        }
    }
    let results = results::Results::new(&lines);
    let about = machine::About {
        dir: &options.dir,
        records: options.records,
        rounds: results.rounds(),
        remark: options.remark.as_deref(),
    };
    let charts = charts::write(&options.out, &options.scale(), &results)?;
    let table = results.markdown(&about.markdown()?, &charts);
    fs::write(options.out.join(format!("contest-{}.md", options.scale())), &table)?;
    println!("{table}");
    Ok(())
}

fn read_lines(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    fs::read_to_string(path)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn write_lines(path: &Path, lines: &[Value]) -> Result<()> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Ok(fs::write(path, text)?)
}

struct Contest<'a> {
    options: &'a Options,
    scratch: Scratch,
    engines: Vec<EngineName>,
}

impl Contest<'_> {
    /// Runs a row; an engine that fails gives a line that says so.
    fn run_row(&self, row: &Row, take: &mut dyn FnMut(Value) -> Result<()>) -> Result<()> {
        // Only merge trees compress.
        let takes_part = |engine: &EngineName| row.compression == Compression::None || engine.merges();
        let mut engines: Vec<EngineName> = self.engines.iter().copied().filter(takes_part).collect();
        for round in 0..self.options.rounds.max(1) {
            for engine in &engines {
                eprintln!("== {} round {}: {}", row.name, round + 1, engine.name());
                let mut line = self.run_one(row, *engine).unwrap_or_else(
                    |error| json!({"row": row.name, "engine": engine.name(), "error": error.to_string()}),
                );
                line["round"] = json!(round + 1);
                take(line)?;
            }
            let step = engines.len().min(1);
            engines.rotate_left(step);
        }
        Ok(())
    }

    fn run_one(&self, row: &Row, engine: EngineName) -> Result<Value> {
        let run = self.scratch.path().join(format!("run-{}", engine.name()));
        let outcome = self.run_in(&run, row, engine);
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        outcome
    }

    fn run_in(&self, run: &Path, row: &Row, engine: EngineName) -> Result<Value> {
        let mut dir = run.to_owned();
        if row.work.loads() {
            let data = self.load(row, engine)?;
            if row.work.only_reads() {
                dir = data;
            } else {
                copy(&data, run)?;
            }
        } else {
            fs::create_dir_all(run)?;
        }
        let output = self.child(row, engine, &dir, "row")?;
        let line = output.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        line.ok_or_else(|| "the child printed no figures".into())
    }

    fn data_path(&self, row: &Row, engine: EngineName) -> PathBuf {
        self.scratch.path().join(format!("data-{}-{}", engine.name(), row.data_name(self.options.records)))
    }

    /// The loaded database that the row begins with, made when it is first asked for.
    fn load(&self, row: &Row, engine: EngineName) -> Result<PathBuf> {
        let path = self.data_path(row, engine);
        if !path.exists() {
            eprintln!("   loading {}", path.display());
            let fresh = path.with_extension("fresh");
            fs::create_dir_all(&fresh)?;
            self.child(row, engine, &fresh, "load")?;
            fs::rename(&fresh, &path)?;
            settle(&path)?;
        }
        Ok(path)
    }

    /// Removes loaded data that no later row begins with.
    fn forget_data(&self, later: &[Row]) -> Result<()> {
        for entry in fs::read_dir(self.scratch.path())? {
            let path = entry?.path();
            let needed = later
                .iter()
                .filter(|row| row.work.loads())
                .any(|row| self.engines.iter().any(|engine| self.data_path(row, *engine) == path));
            if !needed {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }

    fn child(&self, row: &Row, engine: EngineName, dir: &Path, stage: &str) -> Result<String> {
        let (records, budget) = (self.options.records.to_string(), self.options.budget.to_string());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["row", "--row", row.name, "--engine", engine.name()])
            .args(["--records", &records, "--budget", &budget, "--stage", stage, "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let begin = Instant::now();
        // What a child prints fits in a pipe.
        while child.try_wait()?.is_none() {
            if begin.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                return Err(format!("no end after {PATIENCE:?}").into());
            }
            thread::sleep(POLL);
        }
        let output = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let complaint = complaint.lines().last().unwrap_or("not a word");
            return Err(format!("{}, {complaint}", output.status).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Copies a database; holes stay holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status =
        Command::new("cp").args(["-r", "--sparse=always", "--reflink=auto"]).arg(from).arg(to).status()?;
    if !status.success() {
        return Err(format!("cp: {status}").into());
    }
    settle(to)
}

/// Writes out what the kernel still has to, so that the row is not measured beside it.
fn settle(path: &Path) -> Result<()> {
    let status = Command::new("sync").arg("-f").arg(path).status()?;
    if status.success() { Ok(()) } else { Err(format!("sync: {status}").into()) }
}
