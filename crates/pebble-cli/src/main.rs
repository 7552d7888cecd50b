//! The `pebble` program: look into, fill, drain and measure a PebbleTree database.
//!
//! ```text
//!   main ─► cmd/<verb>.rs ─► place.rs   opens and closes the database
//!                │           text.rs    bytes as text that round-trips
//!                │           output.rs  data, on stdout
//!                │           progress.rs  a bar, on stderr, on a terminal only
//!                └─► rows/   tsv, csv, jsonl and directories, in and out
//!   failure.rs: what went wrong, and the exit code that says so
//! ```
//!
//! Threading: one thread, but for `bench` and `demo`, which start writers and readers and join them.

#![forbid(unsafe_code)]

mod between;
mod cmd;
mod failure;
mod histogram;
mod human;
mod mix;
mod output;
mod place;
mod progress;
mod rows;
mod text;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::failure::Result;

/// Look into, fill, drain and measure a PebbleTree database.
#[derive(Parser)]
#[command(name = "pebble", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Put(cmd::put::Put),
    Get(cmd::get::Get),
    Delete(cmd::delete::Delete),
    Scan(cmd::scan::Scan),
    Import(cmd::import::Import),
    Export(cmd::export::Export),
    Compact(cmd::compact::Compact),
    Stats(cmd::stats::StatsOf),
    Verify(cmd::verify::Verify),
    Repair(cmd::repair::Repair),
    Bench(cmd::bench::Bench),
    Demo(cmd::demo::Demo),
    Simulate(cmd::simulate::Simulate),
}

impl Verb {
    fn run(&self) -> Result<()> {
        match self {
            Self::Put(verb) => verb.run(),
            Self::Get(verb) => verb.run(),
            Self::Delete(verb) => verb.run(),
            Self::Scan(verb) => verb.run(),
            Self::Import(verb) => verb.run(),
            Self::Export(verb) => verb.run(),
            Self::Compact(verb) => verb.run(),
            Self::Stats(verb) => verb.run(),
            Self::Verify(verb) => verb.run(),
            Self::Repair(verb) => verb.run(),
            Self::Bench(verb) => verb.run(),
            Self::Demo(verb) => verb.run(),
            Self::Simulate(verb) => verb.run(),
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::command().after_help(failure::EXIT_CODES);
    let command = command.mut_subcommands(|verb| verb.after_help(failure::EXIT_CODES));
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    match cli.verb.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
