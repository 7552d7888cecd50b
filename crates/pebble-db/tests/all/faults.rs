//! Failing calls: the n-th of each kind, for all n of a set of scripts, in every way; and in `rows`, the contract's
//! rows one by one.
//!
//! ```text
//!     script ── call 0 ── call 1 ── call 2 ── ...        once without a fault: how many calls of each kind
//!                           ╳                            and once for each call, kind of fault, and whether it stays
//!                                      clear ── resume   the disk is healthy again: writes go on, or say ReadOnly
//!                                                        then the disk as a kill, and as power cuts, leave it
//! ```
//!
//! During a run the errors and the state of the database are held against the contract's table of faults (`expect`);
//! after it, what is left against what was acknowledged.

mod expect;
mod rows;
mod run;
mod scripts;

use std::collections::BTreeMap;

use pebble_db::{Compression, LogIo, ReadMode};
use pebble_vfs::FaultFs;
use pebble_vfs::fault::{Fault, FaultKind, Op};

use self::run::{Jump, Run};
use self::scripts::SCRIPTS;
use crate::campaign;
use crate::support::{Config, Rng, assert_none, attempt, check_reads, dump, env_number, kind};

/// Runs that each test comes to at least.
const RUNS: [u64; 4] = [15_000, 21_000, 18_500, 18_000];
const _: () = assert!(RUNS[0] + RUNS[1] + RUNS[2] + RUNS[3] >= 65_000);

/// The ways in which a kind of call may fail, and whether each is tried for all later calls too.
fn kinds(op: Op, seed: u64) -> Vec<(FaultKind, bool)> {
    let mut kinds = vec![
        (FaultKind::Io, true),
        (FaultKind::Interrupted, false),
        // Were it to stay, it would also be met in the drop of what the first panic unwinds.
        (FaultKind::Panic, false),
    ];
    match op {
        Op::Open | Op::Lock | Op::List | Op::Map | Op::MapMut => kinds.push((FaultKind::TooManyFiles, true)),
        Op::Create => kinds.extend([(FaultKind::TooManyFiles, true), (FaultKind::NoSpace, true)]),
        Op::Write => kinds.extend([(FaultKind::NoSpace, true), (FaultKind::ShortWrite, true)]),
        Op::Sync => kinds.extend([(FaultKind::NoSpace, true), (FaultKind::LyingSync, true)]),
        Op::Allocate | Op::Truncate | Op::CreateDir | Op::SyncDir | Op::Rename => {
            kinds.push((FaultKind::NoSpace, true));
        }
        Op::Read | Op::Remove | Op::Metadata => {}
        _ => panic!("nobody decided how {op:?} fails"),
    }
    if matches!(op, Op::Read | Op::Map) {
        // One in the file's first bytes, and one anywhere.
        kinds.extend([seed % 97, seed].map(|bit| (FaultKind::FlipBit { bit }, false)));
    }
    kinds
}

/// Says which run it was when a check panics.
struct Context(String);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0);
        }
    }
}

/// The figures of a test.
#[derive(Default)]
struct Tally {
    runs: u64,
    /// Runs in which the fault was met.
    met: u64,
    /// Runs behind each row of the contract.
    rows: BTreeMap<&'static str, u64>,
    failures: Vec<String>,
    /// Runs whose fault was not met.
    unmet: Vec<String>,
}

impl Tally {
    fn run(
        &mut self,
        config: &Config,
        (name, calls): (&str, &dyn Fn(&mut Run)),
        fault: Option<&Fault>,
        jump: Option<(u64, Jump)>,
    ) -> Run {
        let mut run = Run::new(config, fault.cloned());
        if let Some((nth, jump)) = jump {
            run.clock.set(nth, jump);
        }
        let what = || format!("{name:?}, {:?}, {:?}, {fault:?}, {jump:?}", config.log_io, config.read_mode);
        attempt(&mut self.failures, what, || {
            calls(&mut run);
            run.finish();
        });
        self.runs += 1;
        self.met += u64::from(run.met());
        if (fault.is_some() || jump.is_some()) && !run.met() {
            self.unmet.push(what());
        }
        if let Some(row) = run.row() {
            *self.rows.entry(row).or_default() += 1;
        }
        run
    }

    fn close(&self, what: &str, least: u64) {
        println!("faults, {what}: {} runs, the fault met in {}, {:?}", self.runs, self.met, self.rows);
        campaign::count(&["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9"], "faults", self.runs);
        for (row, runs) in &self.rows {
            campaign::count(&[row], "faults", *runs);
        }
        assert_none(&self.failures);
        assert!(self.runs >= least, "only {} runs", self.runs);
    }
}

fn every_call_fails(config: &Config, least: u64) {
    let mut tally = Tally::default();
    for (name, calls) in SCRIPTS {
        let script: (_, &dyn Fn(&mut Run)) = (name, &calls);
        let whole = tally.run(config, script, None, None);
        assert_eq!(whole.errors, [""; 0], "{name:?} without a fault");
        for (op, calls) in whole.made {
            for nth in 0..calls {
                for (kind, stays) in kinds(op, crate::support::mix(nth)) {
                    let once = Fault::once(op, nth, kind);
                    tally.run(config, script, Some(&once), None);
                    if stays {
                        tally.run(config, script, Some(&once.sticky()), None);
                    }
                }
            }
        }
        for nth in 0..whole.looks {
            for jump in [Jump::Ahead, Jump::Back, Jump::AheadAndBack] {
                tally.run(config, script, None, Some((nth, jump)));
            }
        }
    }
    assert_none(&tally.unmet);
    tally.close(&format!("{:?}, {:?}, {:?}", config.log_io, config.read_mode, config.compression), least);
}

/// Runs the part of the campaign in which writes and syncs fail, up to the first failure: how many runs, and what it
/// was.
pub fn first_failure(config: &Config) -> (u64, Option<String>) {
    let mut tally = Tally::default();
    let unbugged = Config { bug: None, ..config.clone() };
    for (name, calls) in SCRIPTS {
        let script: (_, &dyn Fn(&mut Run)) = (name, &calls);
        let whole = Tally::default().run(&unbugged, script, None, None);
        for op in [Op::Sync, Op::Write] {
            for nth in 0..whole.fs.calls(op) {
                for (kind, _) in kinds(op, nth) {
                    tally.run(config, script, Some(&Fault::once(op, nth, kind)), None);
                    if let Some(failure) = tally.failures.pop() {
                        return (tally.runs, Some(failure));
                    }
                }
            }
        }
    }
    (tally.runs, None)
}

#[test]
fn every_call_fails_with_a_mapped_log_and_mapped_tables() {
    every_call_fails(&Config::tiny(LogIo::Map), RUNS[0]);
}

#[test]
fn every_call_fails_with_a_written_log_and_positioned_reads() {
    every_call_fails(&Config { read_mode: ReadMode::Pread, ..Config::tiny(LogIo::Write) }, RUNS[1]);
}

#[test]
fn every_call_fails_with_a_mapped_log_and_positioned_reads_of_compressed_tables() {
    let read_mode = ReadMode::Pread;
    every_call_fails(
        &Config { read_mode, compression: Compression::Lz4, ..Config::tiny(LogIo::Map) },
        RUNS[2],
    );
}

#[test]
fn every_call_fails_with_a_written_log_and_mapped_compressed_tables() {
    every_call_fails(&Config { compression: Compression::Lz4, ..Config::tiny(LogIo::Write) }, RUNS[3]);
}

/// Faults of each seed of [`random_scripts_and_faults`].
const FAULTS_OF_A_SEED: usize = 10;

/// Scripts that nobody thought of, under random layouts, and random faults in each.
#[test]
fn random_scripts_and_faults() {
    let seeds = env_number("PEBBLE_FAULT_SEEDS", 200);
    let first = env_number("PEBBLE_SEED", 1);
    let mut tally = Tally::default();
    for seed in first..first + seeds {
        let mut rng = Rng(seed as u64);
        let config = Config { segments: (4096, 16384), ..Config::random(&mut rng) };
        let name = format!("seed {seed}");
        let drawn = rng.next();
        let script = |run: &mut Run| scripts::random(run, drawn);
        let whole = tally.run(&config, (&name, &script), None, None);
        for _ in 0..FAULTS_OF_A_SEED {
            let made: Vec<_> = whole.made.iter().copied().filter(|(_, calls)| *calls > 0).collect();
            let (op, calls) = rng.pick(&made);
            let (kind, stays) = rng.pick(&kinds(op, rng.clone().next()));
            let fault = Fault::once(op, rng.next() % calls, kind);
            let fault = if stays && rng.one_in(2) { fault.sticky() } else { fault };
            tally.run(&config, (&name, &script), Some(&fault), None);
        }
    }
    tally.close("random scripts", (seeds * (1 + FAULTS_OF_A_SEED)) as u64);
}

/// A flipped bit on the way from the disk is an error of that call and leaves nothing behind.
#[test]
fn every_read_flips_a_bit() {
    let mut runs = 0;
    for (log_io, read_mode) in [(LogIo::Map, ReadMode::Map), (LogIo::Write, ReadMode::Pread)] {
        let config = Config { read_mode, ..Config::tiny(log_io) };
        let mut run = Run::new(&config, None);
        (SCRIPTS[0].1)(&mut run);
        run.close();
        let (sim, expected) = (run.sim.clone(), run.expected());
        let before = dump(&sim);
        let read = |fs: &FaultFs| -> pebble_db::Result<()> {
            let db = config.sim(fs.clone()).open()?;
            check_reads(&db, &expected, &[b"absent"])?;
            db.verify().map(|_| ())
        };
        for op in [Op::Read, Op::Map] {
            let whole = FaultFs::over_sim(sim.kill());
            read(&whole).unwrap();
            for nth in 0..whole.calls(op) {
                for bit in [0, 77, 100_003, 1_234_577, u64::MAX / 3] {
                    let _context = Context(format!("{log_io:?}, {op:?} {nth}, bit {bit}"));
                    let disk = sim.kill();
                    let fs = FaultFs::over_sim(disk.clone());
                    fs.inject(Fault::once(op, nth, FaultKind::FlipBit { bit }));
                    let refused = config.sim(fs.clone()).open().map(drop).is_err();
                    if refused {
                        assert_eq!(dump(&disk), before, "a refused open changed the directory");
                    }
                    fs.clear();
                    let disk = sim.kill();
                    let fs = FaultFs::over_sim(disk.clone());
                    fs.inject(Fault::once(op, nth, FaultKind::FlipBit { bit }));
                    if let Err(error) = read(&fs) {
                        let allowed =
                            matches!(kind(&error), "Corruption" | "MissingFile" | "UnsupportedVersion");
                        assert!(allowed, "{error}");
                    }
                    fs.clear();
                    read(&fs).unwrap();
                    runs += 1;
                }
            }
        }
    }
    println!("faults: {runs} flipped reads");
    campaign::count(&["I4", "I8", "read-error"], "faults", runs);
}
