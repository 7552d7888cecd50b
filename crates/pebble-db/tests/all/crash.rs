//! Power cuts and kills at every state-changing event of a set of scripts, on the simulated disk.
//!
//! ```text
//!     script ── event 0 ── event 1 ── event 2 ── ... ── end
//!                  │          │
//!                  ├─ kill    ├─ kill                       each image: open, compare with the history,
//!                  ├─ nothing ├─ nothing                    write, reopen, compare; one in ten is crashed
//!                  ├─ all     ├─ all                        again at every event of its own recovery
//!                  ├─ but one ├─ but one
//!                  └─ ...     └─ ...
//! ```
//!
//! The images of one moment are all different: what a kind of power cut leaves that another left already is not
//! counted, and what a moment has few of is not made up by repeating.
//!
//! Commit `n` sets the counter to `n` and derives its other writes from `n`, so a recovered database says itself
//! which commits it holds, and the history says what they make.

mod images;
mod scripted;
mod scripts;
mod sequences;
mod tally;
mod visit;

use std::sync::Arc;

use pebble_db::LogIo;
use pebble_vfs::{Effect, Fs, Op, SimFs};

use self::scripted::{Scripted, lock};
use self::scripts::{SCRIPTS, delete, delete_range, everywhere, put};
use self::tally::Tally;
use self::visit::{CLOSE, look};
use crate::support::{Config, Rng, attempt, dir, env_number};

/// Images, those of recoveries included, that the parts of the enumeration come to at least.
const PARTS: [u64; 5] = [60_000, 60_000, 75_000, 90_000, 60_000];
const _: () = assert!(PARTS[0] + PARTS[1] + PARTS[2] + PARTS[3] + PARTS[4] >= 250_000);

/// Calls that change a disk and that the engine never makes: it cuts no file.
const NEVER_MADE: [Op; 1] = [Op::Truncate];

/// How the database of a script is laid out: where whole tables are to leave, their values lie in them.
fn layout(script: &str, config: Config) -> Config {
    let values_apart = config.values_apart.filter(|_| script != "a range over whole tables");
    Config { values_apart, ..config }
}

/// One half of the scripts, so that both modes and both halves can run at once.
fn run_half(log_io: LogIo, half: usize) {
    let mut total = Tally::default();
    for (name, script) in SCRIPTS.iter().skip(half).step_by(2) {
        let mut run = Scripted::new(layout(name, Config::tiny(log_io)));
        run.watch(name);
        script(&mut run);
        run.fs.clear_on_event();
        run.assert_nothing_missed();
        // The moment after the last event, and what dropping the handle leaves.
        let shared = Arc::clone(&run.shared);
        let (history, tally) = &mut *lock(&shared);
        look(&run.fs, run.fs.events(), name, CLOSE, &run.config, history, tally);
        total.add(tally);
    }
    for op in Op::ALL.into_iter().filter(|op| op.effect() != Effect::None) {
        let looked = total.looked.get(&op).copied().unwrap_or(0);
        assert_eq!(looked == 0, NEVER_MADE.contains(&op), "{op:?}: {looked} moments");
    }
    let part = half + if log_io == LogIo::Map { 0 } else { 2 };
    total.close(&format!("{log_io:?}, half {half} of {} scripts", SCRIPTS.len()), PARTS[part]);
}

/// Runs the scripts up to the first failure: how many images, and what it was.
pub fn first_failure(config: &Config) -> (u64, Option<String>) {
    let mut images = 0;
    for (name, script) in SCRIPTS {
        let mut run = Scripted::new(layout(name, config.clone()));
        run.depth.to_the_first = true;
        run.watch(name);
        let mut failures = Vec::new();
        attempt(&mut failures, || format!("{name:?}"), || script(&mut run));
        run.fs.clear_on_event();
        let (_, tally) = &mut *lock(&run.shared);
        images += tally.images + tally.recoveries;
        tally.failures.append(&mut failures);
        if !tally.failures.is_empty() {
            return (images, Some(tally.failures.swap_remove(0)));
        }
    }
    (images, None)
}

#[test]
fn every_event_with_a_mapped_log_of_one_half() {
    run_half(LogIo::Map, 0);
}

#[test]
fn every_event_with_a_mapped_log_of_the_other_half() {
    run_half(LogIo::Map, 1);
}

#[test]
fn every_event_with_a_written_log_of_one_half() {
    run_half(LogIo::Write, 0);
}

#[test]
fn every_event_with_a_written_log_of_the_other_half() {
    run_half(LogIo::Write, 1);
}

/// A manifest of a megabyte is begun anew while the database is in use, not only at an open. It is grown unseen.
#[test]
fn a_manifest_that_has_grown_is_begun_anew_in_use() {
    let mut run = Scripted::new(Config::tiny(LogIo::Map));
    run.open();
    run.commit(true, |n| vec![put("default", n, 100)]);
    let manifest = |fs: &SimFs| {
        let mut files = fs.list(dir()).unwrap().into_iter();
        let file = files.find(|file| file.name.to_str().unwrap().starts_with("MANIFEST")).unwrap();
        (file.name, file.len)
    };
    let (before, mut n) = (manifest(&run.fs).0, 0);
    while manifest(&run.fs).1 < (1 << 20) - 1200 {
        let name = format!("{n:0>250}");
        run.db().keyspace(&name).unwrap();
        run.db().drop_keyspace(&name).unwrap();
        n += 1;
    }
    assert_eq!(manifest(&run.fs).0, before, "begun anew too early to be seen");
    run.watch("a roll");
    let grown = run.fs.events();
    for name in 'a'..'g' {
        run.keyspace(&name.to_string().repeat(250));
        run.commit(name == 'b', |n| vec![put("default", n, 100)]);
    }
    assert_ne!(manifest(&run.fs).0, before, "not begun anew");
    run.fs.clear_on_event();
    let shared = Arc::clone(&run.shared);
    let (_, tally) = &mut *lock(&shared);
    assert_eq!(grown + tally.events, run.fs.events(), "an event was missed");
    tally.close("a roll of the manifest", 1_000);
}

const RANDOM_SCRIPTS: usize = 12;

/// Scripts that nobody thought of, under random layouts. One moment in four is looked at.
#[test]
fn random_scripts() {
    let seeds = env_number("PEBBLE_CRASH_SEEDS", RANDOM_SCRIPTS);
    let first = env_number("PEBBLE_SEED", 1);
    let mut total = Tally::default();
    for seed in first..first + seeds {
        let mut rng = Rng(seed as u64);
        // Large segments would only make large images.
        let config = Config { segments: (4096, 16384), ..Config::random(&mut rng) };
        let mut run = Scripted::new(config);
        run.thin = 4;
        run.open();
        for name in ["a", "b"] {
            run.keyspace(name);
        }
        run.watch("random");
        let opened = run.fs.events();
        for _ in 0..40 {
            random_step(&mut run, &mut rng);
        }
        run.fs.clear_on_event();
        let shared = Arc::clone(&run.shared);
        let (_, tally) = &mut *lock(&shared);
        assert_eq!(opened + tally.events, run.fs.events(), "seed {seed}: an event was missed");
        for failure in &mut tally.failures {
            failure.insert_str(0, &format!("seed {seed}: "));
        }
        total.add(tally);
    }
    let least = if seeds < RANDOM_SCRIPTS { 0 } else { PARTS[4] };
    total.close(&format!("{seeds} random scripts"), least);
}

fn random_step(run: &mut Scripted, rng: &mut Rng) {
    let sync = rng.one_in(5);
    match rng.below(20) {
        0 => run.flush(),
        1 => run.compact(),
        2 => run.persist(),
        3 => {
            run.close();
            run.open();
            run.check();
        }
        4 => {
            run.drop_db();
            run.open();
            run.check();
        }
        5 => run.commit(sync, everywhere),
        _ => {
            let mut rng = rng.clone();
            run.commit(sync, move |n| {
                let write = |rng: &mut Rng, n: u64| {
                    let name = rng.pick(&["default", "a", "b"]);
                    let len = rng.pick(&[0, 10, 10, 100, 100, 600, 1800, 1800, 9000, 30_000]);
                    match rng.below(12) {
                        0 => delete_range(name, n),
                        1..=4 => delete(name, n),
                        _ => put(name, n, len),
                    }
                };
                (0..1 + rng.next() % 3).map(|of| write(&mut rng, n * 4 + of)).collect()
            });
        }
    }
    rng.next();
}
