//! The same random operations on a model and on databases of several layouts: every answer of each must be the model's.
//!
//! ```text
//!     seed ──► operations ──┬──► model: a map for each keyspace, one more for each snapshot
//!                           ├──► database 0   lazy leveling     every answer compared with the model's,
//!                           ├──► database 1   leveled           and so with those of the others
//!                           ├──► database 2   tiered
//!                           ├──► …                                      │ differ
//!                           └──── fewer, simpler ones ◄─────────────────┘
//! ```
//!
//! A failing case prints its seed and what it was shrunk to. `PEBBLE_SEED=n PEBBLE_SEEDS=1` runs it again.

mod ops;
mod run;
mod shrink;
mod world;

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use pebble_db::{Builder, CompactionPolicy, Executor, Iter};
use pebble_vfs::SimFs;

use crate::campaign;
use crate::support::{Config, LOG_MODES, Rng, env_number, policies};
use ops::{Maker, tell};
use run::{Bug, Disks, Failure, Layout, Tally, run};
use shrink::{Case, shrink};

/// Operations times layouts that a plain `cargo test` is to run at least.
const LEAST: usize = 1_000_000;

/// One layout for each policy, the rest at random; the log's modes in turn.
fn layouts(seed: u64, executor: Executor) -> Vec<Layout> {
    let mut rng = Rng(!seed);
    let config = |(number, compaction): (usize, CompactionPolicy)| {
        let log_io = LOG_MODES[number % LOG_MODES.len()];
        Config { compaction, log_io, ..Config::random(&mut rng) }
    };
    let configs = policies().into_iter().enumerate().map(config);
    configs.map(|config| Layout { config, executor, bug: None }).collect()
}

fn case(seed: u64, count: usize, executor: Executor) -> Case {
    Case { layouts: layouts(seed, executor), ops: Maker::new(seed).ops(count) }
}

/// One for each layout.
struct SimDisks(RefCell<Vec<SimFs>>);

impl Disks for SimDisks {
    fn open(&self, number: usize, layout: &Layout) -> Builder {
        layout.config.sim_with(Arc::new(self.0.borrow()[number].clone()), layout.executor)
    }

    fn kill(&self, number: usize) {
        let disk = &mut self.0.borrow_mut()[number];
        *disk = disk.kill();
    }
}

fn run_sim(case: &Case) -> Result<Tally, Failure> {
    let disks = case.layouts.iter().map(|_| SimFs::new(1)).collect();
    run(&case.layouts, &case.ops, &SimDisks(RefCell::new(disks)))
}

/// A directory for each layout, and threads.
struct RealDisks<'a>(&'a Path);

impl Disks for RealDisks<'_> {
    fn open(&self, number: usize, layout: &Layout) -> Builder {
        layout.config.real(&self.0.join(number.to_string()))
    }
}

/// What a failing case comes down to.
fn report(seed: u64, why: &Failure, case: &Case, run: &dyn Fn(&Case) -> Result<Tally, Failure>) -> String {
    let listing: Vec<String> = case.ops.iter().map(tell).collect();
    let again = run(case).err().map_or_else(|| "does not fail each time".to_owned(), |failure| failure.why);
    format!(
        "PEBBLE_SEED={seed}: operation {}: {}\nshrunk: {again}\n{:?}\n{}",
        why.at,
        why.why,
        case.layouts,
        listing.join("\n")
    )
}

/// Runs the seeds on all cores; the first failure is shrunk and told.
fn run_seeds(seeds: std::ops::Range<usize>, of: impl Fn(u64) -> Case + Sync) -> Tally {
    let next = AtomicUsize::new(seeds.start);
    let (failed, tally) = (Mutex::new(None), Mutex::new(Tally::default()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= seeds.end || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let case = of(seed as u64);
                    match run_sim(&case) {
                        Ok(done) => tally.lock().unwrap().add(&done),
                        Err(why) => _ = failed.lock().unwrap().get_or_insert((seed, why, case)),
                    }
                }
            });
        }
    });
    if let Some((seed, why, case)) = failed.into_inner().unwrap() {
        let small = shrink(case, &run_sim);
        panic!("{}", report(seed as u64, &why, &small, &run_sim));
    }
    tally.into_inner().unwrap()
}

#[test]
fn any_operations_on_every_layout() {
    let seeds = env_number("PEBBLE_SEEDS", 100);
    let first = env_number("PEBBLE_SEED", 1);
    let count = env_number("PEBBLE_OPS", 2_000);
    let done = run_seeds(first..first + seeds, |seed| case(seed, count, Executor::Inline));
    println!("model: on the simulated disk {done:?}");
    campaign::count(&["I1", "I2", "I4", "I5"], "operations", done.ops as u64);
    if std::env::var("PEBBLE_SEEDS").is_err() && std::env::var("PEBBLE_OPS").is_err() {
        assert!(done.ops >= LEAST && done.merges > 30_000 && done.covered_bytes > 50 << 20, "{done:?}");
    }
}

/// Merges in threads beside the operations, one to three of them, and rests in which an idle tree is merged.
#[test]
fn any_operations_beside_threads_that_merge() {
    let seeds = env_number("PEBBLE_SEEDS", 6);
    let first = env_number("PEBBLE_SEED", 1000);
    let count = env_number("PEBBLE_OPS", 1_000);
    let done = run_seeds(first..first + seeds, |seed| case(seed, count, Executor::Threads));
    println!("model: beside threads {done:?}");
    campaign::count(&["I1", "I4", "I5", "I9"], "operations", done.ops as u64);
}

#[test]
fn any_operations_on_a_real_disk() {
    for seed in 2000..2003 {
        let root = tempfile::tempdir().unwrap();
        let case = case(seed, 800, Executor::Threads);
        match run(&case.layouts, &case.ops, &RealDisks(root.path())) {
            Ok(done) => println!("model: on a real disk {done:?}"),
            Err(why) => {
                let listing: Vec<String> = case.ops.iter().take(why.at + 1).map(tell).collect();
                panic!("seed {seed}: {}\n{:?}\n{}", why.why, case.layouts, listing.join("\n"));
            }
        }
    }
}

/// A bug that is planted between the test and one of the databases is found by every seed, and comes down to a few
/// operations.
#[test]
fn a_planted_bug_is_found_and_shrunk() {
    let bugs = [
        Bug::LosesDeletes,
        Bug::LosesRangeDeletes,
        Bug::EndsIncluded,
        Bug::ReversesBatches,
        Bug::SeesThePresent,
        Bug::LosesTheLast,
    ];
    for bug in bugs {
        for seed in 1..=20 {
            let mut case = case(seed, 2_000, Executor::Inline);
            case.layouts.truncate(2);
            case.layouts[1].bug = Some(bug);
            let why = run_sim(&case).expect_err("a planted bug");
            assert!(why.at < 2_000, "{bug:?}, seed {seed}: only after {} operations", why.at);
            if seed == 1 {
                let small = shrink(case, &run_sim);
                let told = report(seed, &why, &small, &run_sim);
                assert!(small.layouts.len() == 1 && small.ops.len() <= 5, "{bug:?}: {told}");
                println!("{bug:?}: {told}\n");
            }
        }
    }
}

/// A seek makes an entry the next one from its end, whatever is asked of the other end in between.
#[test]
fn a_seek_keeps_its_end_while_the_other_end_moves() {
    let db = Config::tiny(pebble_db::LogIo::Map).sim(SimFs::new(1)).open().unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        db.put(key, "").unwrap();
    }
    let rest = |iter: Iter| iter.map(|entry| entry.unwrap().0.to_vec()).collect::<Vec<_>>();

    let mut iter = db.iter().unwrap();
    iter.seek("c");
    let mut back = Vec::new();
    while let Some(entry) = iter.next_back() {
        back.push(entry.unwrap().0.to_vec());
    }
    assert_eq!(back, [b"e", b"d", b"c"], "a sought entry that nobody took is still there from behind");

    let mut iter = db.iter().unwrap();
    iter.seek("b");
    iter.seek_for_prev("d");
    assert_eq!(rest(iter), [b"b", b"c", b"d"], "a seek of one end does not undo the other's");

    let mut iter = db.iter().unwrap();
    iter.seek_for_prev("d");
    iter.seek("b");
    let mut found = rest(iter);
    found.sort();
    assert_eq!(found, [b"b", b"c", b"d"]);
}
