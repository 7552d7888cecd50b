//! The account of the campaign: which rows of the contract a test stands behind, and how many cases it ran.
//!
//! A line of JSON for each call goes to the file that `PEBBLE_CONTRACT` names, if it names one; `cargo xtask contract`
//! sums them up. Lines are appended in one write each, so tests on any thread and in any process may call.

use std::fs::OpenOptions;
use std::io::Write;

/// Adds `cases` of `unit` (`images`, `faults`, `flips`, `kills`, `sequences`, `operations`, `cases`) to the account of
/// `rows`, by their ids in `docs/contract.md`, under the name of the running test.
pub fn count(rows: &[&str], unit: &str, cases: u64) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a helper thread");
    println!("contract: {test}: {cases} {unit} behind {}", rows.join(", "));
    let Some(path) = std::env::var_os("PEBBLE_CONTRACT") else { return };
    let rows = rows.iter().map(|row| format!("\"{row}\"")).collect::<Vec<_>>().join(",");
    let line = format!("{{\"test\":\"{test}\",\"unit\":\"{unit}\",\"cases\":{cases},\"rows\":[{rows}]}}\n");
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}
