//! What the contest ran on, for its table.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;

/// The crates whose versions the table names.
const ENGINES: &[(&str, &str)] = &[
    ("rocksdb", "RocksDB by crate rocksdb"),
    ("librocksdb-sys", "librocksdb-sys"),
    ("fjall", "Fjall"),
    ("heed", "LMDB by heed"),
    ("redb", "redb"),
    ("sled", "sled"),
];

/// What the table says before its figures.
pub struct About<'a> {
    /// Where the databases were.
    pub dir: &'a Path,
    /// Records of a row that takes them all.
    pub records: u64,
    /// Rounds of each row.
    pub rounds: usize,
    /// What the caller adds.
    pub remark: Option<&'a str>,
}

impl About<'_> {
    /// As Markdown.
    pub fn markdown(&self) -> Result<String> {
        let processor = labelled("/proc/cpuinfo", "model name")?;
        let cores = std::thread::available_parallelism()?;
        let memory = labelled("/proc/meminfo", "MemTotal")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let memory =
            memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 20;
        let versions: Vec<String> =
            ENGINES.iter().filter_map(|(name, title)| Some(format!("{title} {}", locked(name)?))).collect();
        let mut text = format!(
            "Machine: {processor}, {cores} cores, {memory} GiB, {}, Linux {}.\n{}; profile and flags as in \
             `benches/peers/Cargo.toml`, default x86-64 target for Rust and C++.\nVersions: {}.\n\n\
             Repeat it: `cargo xtask contest --records {} --rounds {} --dir D`, `D` on the device to be measured.\n",
            file_system(self.dir)?,
            kernel.trim(),
            first_line("rustc", "--version"),
            versions.join(", "),
            self.records,
            self.rounds,
        );
        if let Some(remark) = self.remark {
            text += &format!("\n{remark}\n");
        }
        Ok(text)
    }
}

fn labelled(path: &str, label: &str) -> Result<String> {
    let text = fs::read_to_string(path)?;
    let found = text.lines().find(|line| line.starts_with(label)).and_then(|line| line.split_once(':'));
    Ok(found.map_or("unknown", |(_, value)| value.trim()).to_owned())
}

/// The version of a crate in this build's lock file.
fn locked(name: &str) -> Option<String> {
    let lock = include_str!("../Cargo.lock");
    let (_, behind) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(behind.split_once('"')?.0.to_owned())
}

/// The kind of the file system that holds `dir`.
fn file_system(dir: &Path) -> Result<String> {
    let dir = fs::canonicalize(dir)?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut best = (0, "an unknown file system");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(place), Some(kind)) = (fields.next(), fields.next()) else { continue };
        if dir.starts_with(place) && place.len() >= best.0 {
            best = (place.len(), kind);
        }
    }
    Ok(best.1.to_owned())
}

fn first_line(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("an unknown compiler").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        for (name, _) in ENGINES {
            assert!(locked(name).is_some_and(|version| version.contains('.')), "{name}");
        }
        assert_eq!(locked("no-such-crate"), None);
    }
}
