//! PebbleTree beside other engines, each in a process of its own.
//!
//! ```text
//!   main ─► overwrite ─┬─► store (pebble | rocksdb | ..)   what an engine must do
//!      │ ├► merge ─────┤
//!      │ ├► work ──────┤                                   one row of the contest (rows)
//!      │ │             ├─► sampler ─► disk, process        what the kernel says while it runs
//!      │ │             └─► report                          JSON lines and a table
//!      │ └► contest ─► this program again, for each row, round and engine ─► results ─► charts
//!      └──► compare ─► this program again, once per engine and round ─► report
//! ```
//!
//! Threading: the main thread works and measures, with more threads where a row says so; a sampler runs beside it.
//! All other threads are the engines' own.

mod charts;
mod compare;
mod contest;
mod data;
mod disk;
mod histogram;
mod load;
mod machine;
mod merge;
mod overwrite;
mod process;
mod quiet;
mod report;
mod results;
mod rows;
mod sampler;
mod store;
mod verify;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::store::{Compression, EngineName};

/// Any error ends the program and is printed.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Compares PebbleTree with other engines.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    /// Loads a data set, then overwrites random keys of it: throughput, latency, write and space amplification.
    Overwrite(overwrite::Options),
    /// CPU time per record of a full compaction of several overlapping runs.
    Merge(merge::Options),
    /// Every row of the contest with every engine of this build.
    Contest(contest::Options),
    /// One row with one engine, as the contest starts it.
    #[command(hide = true)]
    Row(work::Options),
}

/// What both programs take.
#[derive(Args, Clone)]
struct Common {
    /// The engine to run.
    #[arg(long, value_enum, default_value = "pebble")]
    engine: EngineName,
    /// Runs every engine of this build, interleaved, each in a process of its own, and prints ratios.
    #[arg(long, conflicts_with = "engine")]
    compare: bool,
    /// How often each engine runs when comparing; medians are printed.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Where the databases are made. Each run makes a directory of its own there and removes it.
    #[arg(long)]
    dir: PathBuf,
    /// Bytes of a key, at least 8.
    #[arg(long = "key", default_value_t = 16)]
    key_len: usize,
    /// Bytes of memory for memtables and caches together.
    #[arg(long, value_parser = parse_bytes, default_value = "256MiB")]
    budget: u64,
    /// Compression of tables.
    #[arg(long, value_enum, default_value = "none")]
    compression: Compression,
    /// What the values hold.
    #[arg(long, value_enum, default_value = "random")]
    content: data::Content,
}

/// A number of bytes such as `4096`, `20G` (powers of 1000) or `256MiB` (powers of 1024).
fn parse_bytes(text: &str) -> std::result::Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "K" | "k" => 1000,
        "M" => 1000 * 1000,
        "G" => 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("unknown unit {unit:?}; one of K, M, G, KiB, MiB, GiB")),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

fn run() -> Result<()> {
    let (name, common) = match &Arguments::parse().program {
        Program::Overwrite(options) if !options.common.compare => {
            return overwrite::run(options)?.print();
        }
        Program::Merge(options) if !options.common.compare => return merge::run(options)?.print(),
        Program::Contest(options) => return contest::run(options),
        Program::Row(options) => return work::run(options),
        Program::Overwrite(options) => ("overwrite", options.common.clone()),
        Program::Merge(options) => ("merge", options.common.clone()),
    };
    compare::run(name, common.rounds)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pebble-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_their_unit() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("2G", 2_000_000_000), ("256MiB", 256 << 20)] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for text in ["", "G", "1.5G", "-1", "1T", "18446744073709551615K"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
