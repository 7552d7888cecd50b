//! `cargo xtask coverage`: which part of the lines of the crates that read and write bytes the tests run.
//!
//! The compiler counts, LLVM's tools read. They must be of the compiler's own LLVM: the component `llvm-tools`, those
//! of a package `llvm-<major>`, or those in the directory that `LLVM_BIN` names. Without them the figures are left out,
//! and the reason is told. One thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{self, Command};

/// Each of these has at least [`FLOOR`] of its lines run by its own tests.
const CRATES: &[&str] = &["pebble-format", "pebble-wal", "pebble-sstable", "pebble-manifest"];

/// Lines of a hundred.
const FLOOR: u64 = 90;

/// Where builds with counters go, and what they count.
const HOME: &str = "target/coverage";

/// Runs the tests with counters and prints the table.
pub fn run(root: &Path) -> Result<(), String> {
    let tools = match Tools::find(root) {
        Ok(tools) => tools,
        Err(why) => {
            eprintln!("   SKIPPED: {why}");
            return Ok(());
        }
    };
    let home = root.join(HOME);
    let profiles = home.join("profiles");
    match std::fs::remove_dir_all(&profiles) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(&profiles, &error)),
        _ => {}
    }
    let packages: Vec<&str> = CRATES.iter().flat_map(|name| ["-p", name]).collect();
    let test = |more: &[&str]| {
        Command::cargo(&[&["test", "--locked", "--lib", "--tests"], &packages[..], more].concat())
            .with_env("RUSTFLAGS", "-Cinstrument-coverage")
            .with_env("CARGO_TARGET_DIR", HOME)
            .with_env("LLVM_PROFILE_FILE", &profiles.join("%p-%m.profraw").to_string_lossy())
    };
    let built = test(&["--no-run", "--message-format", "json"]).output(root)?;
    let binaries = process::executables(&built);
    test(&[]).run(root)?;

    let merged = home.join("merged.profdata").to_string_lossy().into_owned();
    let profiles = profiles.to_string_lossy().into_owned();
    let merge = [&*tools.profdata, "merge", "-sparse", &profiles, "-o", &merged];
    Command::new(&merge).run(root)?;
    let profile = format!("-instr-profile={merged}");
    let objects: Vec<&str> = binaries.iter().flat_map(|binary| ["-object", binary]).collect();
    let export = [&*tools.cov, "export", "-summary-only", &profile];
    let report = Command::new(&[&export[..], &objects[1..]].concat()).output(root)?;
    let lines = lines_of_crates(&report)?;
    let mut below = Vec::new();
    for name in CRATES {
        let Lines { count, covered } = lines.get(*name).copied().unwrap_or_default();
        println!("{name:<18} {covered:>6} of {count:>6} lines, {}", percent(covered, count));
        if count == 0 || covered * 100 < count * FLOOR {
            below.push(*name);
        }
    }
    if below.is_empty() {
        Ok(())
    } else {
        Err(format!("coverage: below {FLOOR} of 100: {}", below.join(", ")))
    }
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn percent(part: u64, whole: u64) -> String {
    let tenths = (part * 1000).checked_div(whole).unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// The two programs that read what the compiler's counters wrote.
struct Tools {
    profdata: String,
    cov: String,
}

impl Tools {
    fn find(root: &Path) -> Result<Self, String> {
        let verbose = Command::new(&["rustc", "-vV"]).output(root)?;
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let (host, llvm) = field("host:").zip(field("LLVM version:")).ok_or("rustc -vV tells no LLVM")?;
        let major = llvm.split('.').next().unwrap_or(llvm);
        let sysroot = Command::new(&["rustc", "--print", "sysroot"]).output(root)?;
        let mut places = vec![PathBuf::from(sysroot.trim()).join("lib/rustlib").join(host).join("bin")];
        places.push(PathBuf::from(format!("/usr/lib/llvm-{major}/bin")));
        places.extend(std::env::var_os("LLVM_BIN").map(PathBuf::from));
        let in_place = |name: &str| {
            places
                .iter()
                .rev()
                .map(|place| place.join(name))
                .find(|path| path.is_file())
                .map_or_else(|| format!("{name}-{major}"), |path| path.to_string_lossy().into_owned())
        };
        let tools = Self { profdata: in_place("llvm-profdata"), cov: in_place("llvm-cov") };
        for tool in [&tools.profdata, &tools.cov] {
            let version = Command::new(&[tool, "--version"]).output(root);
            if !version.is_ok_and(|version| is_of(major, &version)) {
                return Err(format!(
                    "no {tool} of LLVM {major}, which rustc counts with: `rustup component add llvm-tools`"
                ));
            }
        }
        Ok(tools)
    }
}

fn is_of(major: &str, version: &str) -> bool {
    let number = version.split_whitespace().skip_while(|word| *word != "version").nth(1);
    number.and_then(|number| number.split('.').next()) == Some(major)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    count: u64,
    covered: u64,
}

/// Sums up llvm-cov's summaries of files by crate.
fn lines_of_crates(report: &str) -> Result<BTreeMap<String, Lines>, String> {
    let wrong = || "llvm-cov wrote something else".to_owned();
    let report: Value = serde_json::from_str(report).map_err(|error| format!("llvm-cov: {error}"))?;
    let mut sums: BTreeMap<String, Lines> = BTreeMap::new();
    for file in report["data"][0]["files"].as_array().ok_or_else(wrong)? {
        let path = file["filename"].as_str().ok_or_else(wrong)?;
        let Some((name, _)) = path.rsplit_once("crates/").and_then(|(_, rest)| rest.split_once("/src/"))
        else {
            continue;
        };
        let lines = &file["summary"]["lines"];
        let sum = sums.entry(name.to_owned()).or_default();
        sum.count += lines["count"].as_u64().ok_or_else(wrong)?;
        sum.covered += lines["covered"].as_u64().ok_or_else(wrong)?;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_of_another_llvm_is_not_taken() {
        assert!(is_of("22", "Debian LLVM version 22.1.8\n  Optimized build."));
        assert!(is_of("22", "LLVM (http://llvm.org/):\n  LLVM version 22.1.2-rust-1.95.0-stable"));
        assert!(!is_of("22", "Debian LLVM version 14.0.6"));
        assert!(!is_of("22", ""));
    }

    #[test]
    fn lines_are_summed_by_crate() {
        let file = |path: &str, count: u64, covered: u64| {
            format!(
                "{{\"filename\":\"{path}\",\"summary\":{{\"lines\":{{\"count\":{count},\"covered\":{covered}}}}}}}"
            )
        };
        let files = [
            file("/a/crates/pebble-wal/src/x.rs", 10, 9),
            file("/a/crates/pebble-wal/src/deep/y.rs", 5, 5),
            file("/a/crates/pebble-wal/tests/all/z.rs", 5, 0),
            file("/home/.cargo/other/src/lib.rs", 5, 0),
        ];
        let report = format!("{{\"data\":[{{\"files\":[{}]}}]}}", files.join(","));
        let sums = lines_of_crates(&report).unwrap();
        assert_eq!(sums.len(), 1);
        assert_eq!(sums["pebble-wal"], Lines { count: 15, covered: 14 });
        assert_eq!(percent(14, 15), "93.3 %");
        assert!(lines_of_crates("{}").is_err());
    }
}
