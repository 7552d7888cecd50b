//! The developer's verbs: `cargo xtask <verb>`.
//!
//! One file per verb; `source` reads Rust just well enough for the checks, `process` runs commands. A verb returns
//! `Ok` when the tree is as it should be and `Err(what failed)` otherwise; only `main` prints the verdict and sets
//! the exit code. Everything runs on one thread, but for what `ci` runs side by side.
//!
//! ```text
//!   ci ──► fmt ─► layers ─► tidy ─► clippy ─► doc ─► schedules, models, instructions ─► examples ─► audit ─► fuzz
//!                   │         │                       (pool: side by side)
//!                   └─ source ┘   (code without comments, literals and tests)
//! ```
#![forbid(unsafe_code)]

mod audit;
mod ci;
mod contest;
mod contract;
mod coverage;
mod instructions;
mod layers;
mod pool;
mod process;
mod sanitize;
mod source;
mod tidy;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <verb>

  audit   the order of a busy database's system calls, by strace
  ci      every check but the test suite, in order; stops at the first failure
  contract [--read <file>]  the campaign, and one table: each row of docs/contract.md with its tests and cases;
          with a file, the table of a run that kept its account there (PEBBLE_CONTRACT)
  coverage  lines that tests run, of the crates that read and write bytes
  contest [option ..]  every row of the contest with other engines, for hours: `--help` lists the options
  instructions [--accept <names>]  what put, get, next and merge cost, against the record in benches/
  layers  the arrows between the crates, and what each layer must not name
  sanitize  tests under the address and leak sanitizers
  simulate [workload]  what policies of compaction cost: `pebble simulate`, see its --help
  tidy    file length, unfinished marks, unsafe against docs/unsafe.md, titles, layout
  torture [minutes]  the long versions of the campaign, with ever new seeds

exit code: 0 all well, 1 a check failed, 2 wrong usage";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = process::repository_root();
    let outcome = match words.as_slice() {
        ["audit"] => audit::run(&root),
        ["ci"] => ci::run(&root),
        ["contract"] => contract::run(&root),
        ["contract", "--read", account] => contract::read(&root, account),
        ["coverage"] => coverage::run(&root),
        ["contest", arguments @ ..] => contest::run(&root, arguments),
        ["instructions"] => instructions::run(&root, &[]),
        ["instructions", "--accept", names] => {
            instructions::run(&root, &names.split(',').collect::<Vec<_>>())
        }
        ["layers"] => layers::run(&root),
        ["sanitize"] => sanitize::run(&root),
        ["tidy"] => tidy::run(&root),
        ["torture"] => torture::run(&root, None),
        ["torture", minutes] => torture::run(&root, Some(minutes)),
        ["simulate", workload @ ..] => simulate(&root, workload),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("xtask: {what}");
            ExitCode::FAILURE
        }
    }
}

/// The planner lives below the program, so the program simulates; this is the developer's short way there.
fn simulate(root: &std::path::Path, workload: &[&str]) -> Result<(), String> {
    let pebble = ["run", "--quiet", "--release", "-p", "pebble-cli", "--bin", "pebble", "--", "simulate"];
    process::Command::cargo(&[&pebble[..], workload].concat()).run(root)
}
