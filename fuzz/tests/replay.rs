//! Every seed and every regression through its body, and mutations of them, without libFuzzer.
//!
//! `PEBBLE_REWRITE=1` writes the seeds anew; `PEBBLE_ROUNDS=n` tries n times as many mutations, `PEBBLE_SEED=n` others,
//! `PEBBLE_TARGET=name` those of one target.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use pebble_fuzz::{Rng, TARGETS, Target};

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files in `kind/target`, by name.
fn inputs(kind: &str, target: &Target) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(home().join(kind).join(target.name)) else { return BTreeMap::new() };
    let read = |path: PathBuf| {
        let name = format!("fuzz/{kind}/{}/{}", target.name, path.file_name().unwrap().to_string_lossy());
        (name, std::fs::read(path).unwrap())
    };
    entries.map(|entry| read(entry.unwrap().path())).collect()
}

fn env_number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What went wrong, a line for each target that is done for.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    /// Runs one input; says whether it panicked, and notes how to repeat it.
    fn attempt(&mut self, target: &Target, what: impl FnOnce() -> String, bytes: &[u8]) -> bool {
        let done = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
        if done.is_err() {
            let path = std::env::temp_dir().join(format!("pebble-fuzz-{}", target.name));
            std::fs::write(&path, bytes).unwrap();
            self.0.push(format!("{}: {}; the input is in {}", target.name, what(), path.display()));
        }
        done.is_err()
    }

    fn assert_none(self) {
        assert!(self.0.is_empty(), "{} targets found something:\n{}", self.0.len(), self.0.join("\n"));
    }
}

#[test]
fn seeds_are_those_that_the_targets_make() {
    for target in TARGETS {
        let home = home().join("seeds").join(target.name);
        let made: BTreeMap<String, Vec<u8>> = (target.seeds)()
            .into_iter()
            .map(|(name, bytes)| (format!("fuzz/seeds/{}/{name}", target.name), bytes))
            .collect();
        if std::env::var_os("PEBBLE_REWRITE").is_some() {
            std::fs::remove_dir_all(&home).ok();
            std::fs::create_dir_all(&home).unwrap();
            for (name, bytes) in &made {
                std::fs::write(home.join(name.rsplit('/').next().unwrap()), bytes).unwrap();
            }
        }
        let found = inputs("seeds", &target);
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&made), "PEBBLE_REWRITE=1 writes the seeds anew");
        assert!(found == made && !made.is_empty(), "{}: PEBBLE_REWRITE=1 writes the seeds anew", target.name);
    }
}

#[test]
fn the_directories_can_still_be_read() {
    if std::env::var_os("PEBBLE_REWRITE").is_some() {
        for (name, bytes) in pebble_fuzz::directory::fixtures() {
            std::fs::write(home().join("fixtures").join(name), bytes).unwrap();
        }
        return;
    }
    // After a change of the format: PEBBLE_REWRITE=1, and say so in the commit.
    pebble_fuzz::directory::assert_fixtures();
}

#[test]
fn every_target_has_its_binary_and_every_directory_its_target() {
    let manifest = std::fs::read_to_string(home().join("Cargo.toml")).unwrap();
    let readme = std::fs::read_to_string(home().join("README.md")).unwrap();
    for target in TARGETS {
        let path = format!("fuzz_targets/{}.rs", target.name);
        assert!(home().join(&path).exists() && manifest.contains(&path), "no binary {path}");
        assert!(readme.contains(&format!("| `{}` |", target.name)), "{} is not in the README", target.name);
    }
    for kind in ["seeds", "regressions", "fuzz_targets"] {
        // Git keeps no directory without a file, and there may be no regression.
        for entry in std::fs::read_dir(home().join(kind)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.trim_end_matches(".rs");
            assert!(TARGETS.iter().any(|target| target.name == name), "fuzz/{kind}/{name} is of no target");
        }
    }
}

#[test]
fn seeds_and_regressions() {
    let mut findings = Findings::default();
    for target in TARGETS {
        for kind in ["seeds", "regressions"] {
            for (name, bytes) in inputs(kind, &target) {
                findings.attempt(&target, || name.clone(), &bytes);
                let mut mended = bytes.clone();
                target.mend(&mut mended, 1);
                findings.attempt(&target, || format!("{name}, mended"), &mended);
            }
        }
    }
    findings.assert_none();
}

#[test]
fn mutations() {
    let mut findings = Findings::default();
    let (factor, first) = (env_number("PEBBLE_ROUNDS", 1), env_number("PEBBLE_SEED", 1));
    let only = std::env::var("PEBBLE_TARGET").ok();
    for target in TARGETS.into_iter().filter(|target| only.as_ref().is_none_or(|name| name == target.name)) {
        let mut goods = inputs("seeds", &target);
        goods.extend(inputs("regressions", &target));
        let goods: Vec<_> = goods.into_iter().collect();
        let rounds = u64::from(target.rounds) * factor;
        for round in 0..rounds {
            let seed = first.wrapping_mul(0x1_0000_0000).wrapping_add(round);
            let mut rng = Rng(seed);
            let (name, good) = &goods[rng.below(goods.len())];
            let (_, other) = &goods[rng.below(goods.len())];
            let bytes = mutated(&target, good, other, &mut rng);
            let what = || format!("{name}, round {round} from PEBBLE_SEED={first}");
            if findings.attempt(&target, what, &bytes) {
                break;
            }
        }
        println!("{}: {rounds} mutations of {} inputs", target.name, goods.len());
    }
    findings.assert_none();
}

/// Up to four small changes, and checksums put right most of the time.
fn mutated(target: &Target, good: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len());
        let len = [1, 1, 2, 4, 8][rng.below(5)].min(bytes.len() - at);
        match rng.below(8) {
            0 | 1 if len > 0 => bytes[at] ^= 1 << rng.below(8),
            2 if len > 0 => bytes[at..at + len].fill([0, 1, 0x7f, 0x80, 0xff][rng.below(5)]),
            3 if len > 0 => bytes[at] = bytes[at].wrapping_add([1, 0xff, 4, 0xfc][rng.below(4)]),
            4 => bytes.truncate(at),
            5 => {
                let from = rng.below(other.len());
                let taken = &other[from..other.len().min(from + 1 + rng.below(64))];
                bytes.splice(at..at, taken.iter().copied());
            }
            6 => {
                bytes.drain(at..at + len);
            }
            _ => {
                let len = 1 + rng.below(8);
                let fresh = rng.bytes(len);
                let end = bytes.len().min(at + fresh.len());
                bytes[at..end].copy_from_slice(&fresh[..end - at]);
            }
        }
    }
    target.mend(&mut bytes, rng.number() as u32);
    bytes
}
