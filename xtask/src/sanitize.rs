//! `cargo xtask sanitize`: the tests of the crates with `unsafe` under the address sanitizer, which finds leaks too.
//!
//! It needs a nightly toolchain, and is left out without one, which it says. One thread.

use std::path::Path;

use crate::process::Command;

/// Crates whose tests all run, because they hold `unsafe` or stand right above it.
const CRATES: &[&str] = &["pebble-format", "pebble-vfs", "pebble-wal", "pebble-memtable", "pebble-sstable"];

/// Of the database, what reads damaged bytes, ends in the middle, and reads beside writers.
const OF_THE_DATABASE: &[&str] = &["rows::", "damage::a_", "concurrency::", "golden::", "limits::"];

/// Runs them; the first error of the sanitizer ends its test binary, and so this.
pub fn run(root: &Path) -> Result<(), String> {
    if Command::new(&["cargo", "+nightly", "--version"]).output(root).is_err() {
        eprintln!("   SKIPPED: no nightly toolchain, which sanitizers need");
        return Ok(());
    }
    let version = Command::new(&["rustc", "-vV"]).output(root)?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV tells no host")?;
    let test = |packages: &[&str], names: &[&str]| {
        // With a target named, procedural macros are built without the sanitizer, which they could not be loaded with.
        let common = ["+nightly", "test", "--locked", "--target", host, "--lib", "--tests"];
        Command::cargo(&[&common[..], packages, &["--"], names].concat())
            .with_env("RUSTFLAGS", "-Zsanitizer=address")
            .with_env("ASAN_OPTIONS", "detect_leaks=1")
            .with_env("CARGO_TARGET_DIR", "target/sanitize")
    };
    let packages: Vec<&str> = CRATES.iter().flat_map(|name| ["-p", name]).collect();
    test(&packages, &[]).run(root)?;
    test(&["-p", "pebble-db"], OF_THE_DATABASE).run(root)
}
