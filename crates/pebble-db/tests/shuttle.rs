//! The whole engine, its threads included, under randomized schedules over a simulated disk.
//!
//! Every lock, atomic, channel and call to the disk is a place where the schedule may turn to another thread. Half of
//! the schedules are random, half are those of PCT (Burckhardt et al., ASPLOS 2010), which preempts seldom. A schedule
//! that fails is printed; `PEBBLE_SHUTTLE_REPLAY` takes it back. Run with `RUSTFLAGS="--cfg shuttle"`.
//!
//! What it cannot see: weak memory. Every atomic is sequentially consistent here; the loom models are for the rest.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of tests are tests too")]

use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Once};

use pebble_db::{
    CompactionPolicy, Components, Db, Error, Executor, Keyspace, LogIo, ReadMode, Result, Value, WriteBatch,
    WriteOptions,
};
use pebble_vfs::fault::{Fault, FaultFs, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{Fs, ManualClock, SimFs};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, MaxSteps, Runner, thread};

/// Schedules of each scenario and scheduler, unless `PEBBLE_SHUTTLE` says otherwise.
const SCHEDULES: usize = 500;

/// Preemptions that PCT plans for.
const DEPTH: usize = 4;

/// So much of a value that a few of them fill a memtable.
const LARGE: usize = 24 << 10;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a scenario under many schedules.
///
/// A scenario's main thread does nothing while scoped threads run: shuttle's scope wakes it when the last one ends,
/// whatever it waits for.
fn explore(scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(2_000_000);
    config.silence_warnings = true;
    if let Ok(schedule) = std::env::var("PEBBLE_SHUTTLE_REPLAY") {
        Runner::new(ReplayScheduler::new_from_encoded(schedule.trim()), config).run(scenario);
        return;
    }
    let schedules =
        from_env("PEBBLE_SHUTTLE").and_then(|count| usize::try_from(count).ok()).unwrap_or(SCHEDULES);
    let seed = from_env("PEBBLE_SEED").unwrap_or(1);
    Runner::new(RandomScheduler::new_from_seed(seed, schedules), config.clone()).run(move || {
        spare_injected_panics();
        scenario();
    });
    Runner::new(PctScheduler::new_from_seed(seed, DEPTH, schedules), config).run(scenario);
}

/// A panic that a fault asked for is caught by the engine, and its schedule is no news.
fn spare_injected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"injected fault") {
                report(info);
            }
        }));
    });
}

fn opened_with(fs: impl Fs, read_mode: ReadMode) -> Db {
    let components =
        Components { fs: Arc::new(fs), clock: Arc::new(ManualClock::new()), executor: Executor::Threads };
    let small = CompactionPolicy { fan_out: [2; 6], crumbs: 4, ..CompactionPolicy::lazy() };
    Db::builder(Path::new("/db"))
        .log_io(LogIo::Write)
        .read_mode(read_mode)
        .segment_len(4096, 64 << 10)
        .memory_budget(1 << 20)
        .block_len(4096)
        .table_len(64 << 10)
        .compaction(small)
        .merge_threads(2)
        .sync_interval(None)
        .components(components)
        .open()
        .unwrap()
}

fn opened(fs: impl Fs) -> Db {
    opened_with(fs, ReadMode::Map)
}

fn value(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len.max(8), u8::try_from(number % 251).unwrap());
    bytes
}

fn number(value: &[u8]) -> u64 {
    let number = u64::from_be_bytes(value[..8].try_into().unwrap());
    let filler = u8::try_from(number % 251).unwrap();
    assert!(value[8..].iter().all(|byte| *byte == filler), "the bytes of {number} are its own");
    number
}

fn number_of(value: Option<Value>) -> u64 {
    value.map_or(0, |value| number(&value))
}

fn entries(entries: pebble_db::Iter) -> Vec<(Vec<u8>, u64)> {
    let entries = entries.map(Result::unwrap).map(|(key, value)| (key.to_vec(), number(&value)));
    let entries: Vec<_> = entries.collect();
    assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "each key once, in order");
    entries
}

/// Transfers between accounts of two keyspaces: every snapshot sees the same sum, twice the same, whatever is sealed,
/// flushed and merged meanwhile.
#[test]
fn snapshots_beside_writers() {
    explore(|| {
        let db = opened(SimFs::new(1));
        let spaces = [db.keyspace("left").unwrap(), db.keyspace("right").unwrap()];
        let mut batch = WriteBatch::new();
        for account in 0..4_u8 {
            spaces.iter().for_each(|space| _ = batch.put(space, [account], value(100, 8)));
        }
        db.write(batch).unwrap();
        thread::scope(|scope| {
            for writer in 0..2_u8 {
                let (db, [left, right]) = (db.clone(), &spaces);
                scope.spawn(move || {
                    for n in 0..4_u8 {
                        let (from, to) = ([writer * 2 + n % 2], [writer * 2]);
                        let have = number_of(left.get(from).unwrap());
                        let has = number_of(right.get(to).unwrap());
                        let moved = have / 3;
                        let mut batch = WriteBatch::new();
                        batch.put(left, from, value(have - moved, LARGE));
                        batch.put(right, to, value(has + moved, 100));
                        db.write(batch).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..3 {
                    let snapshot = db.snapshot();
                    let read = || spaces.iter().flat_map(|space| entries(snapshot.iter(space).unwrap()));
                    let first: Vec<_> = read().collect();
                    assert_eq!((first.len(), first.iter().map(|(_, amount)| amount).sum::<u64>()), (8, 800));
                    let by_key = spaces.iter().flat_map(|space| (0..4_u8).map(move |key| (space, key)));
                    let by_key = by_key
                        .map(|(space, key)| (vec![key], number_of(snapshot.get(space, [key]).unwrap())));
                    assert_eq!(by_key.collect::<Vec<_>>(), first, "by key as by iterator");
                    assert!(read().eq(first), "twice the same");
                }
            });
        });
        db.close().unwrap();
    });
}

/// One writer raises all keys together; an iterator sees them equal, and never falls back, beside flushes and merges
/// that are asked for.
#[test]
fn readers_beside_rotation_flush_and_merge() {
    explore(|| {
        let db = opened(SimFs::new(2));
        let write = |db: &Db, n: u64| {
            let mut batch = WriteBatch::new();
            let space = db.default_keyspace();
            (0..3_u8).for_each(|key| _ = batch.put(&space, [key], value(n, 2000)));
            db.write(batch).unwrap();
        };
        write(&db, 1);
        thread::scope(|scope| {
            scope.spawn(|| (2..=6).for_each(|n| write(&db, n)));
            scope.spawn(|| {
                db.flush().unwrap();
                db.compact_range(..).unwrap();
                db.flush().unwrap();
            });
            scope.spawn(|| {
                let mut last = 1;
                for _ in 0..4 {
                    let seen = entries(db.iter().unwrap());
                    assert_eq!(seen.len(), 3);
                    assert!(seen.iter().all(|(_, n)| *n == seen[0].1), "a batch was torn: {seen:?}");
                    assert!(seen[0].1 >= last, "time went back");
                    last = number_of(db.get([1]).unwrap());
                    assert!(last >= seen[0].1, "a get fell behind an iterator");
                }
            });
        });
        assert_eq!(number_of(db.get([2]).unwrap()), 6);
        db.close().unwrap();
    });
}

/// Three committers share syncs, the second of which fails: what was acknowledged, or only seen by a reader, is on the
/// device, and nobody waits for ever.
#[test]
fn a_failing_sync_among_committers() {
    explore(|| {
        let disk = SimFs::new(3);
        let faults = FaultFs::over_sim(disk.clone());
        let db = opened(faults.clone());
        faults.inject(Fault::once(Op::Sync, 1, FaultKind::LyingSync).on(".log").sticky());
        let (told, seen): ([AtomicU64; 3], [AtomicU64; 3]) = Default::default();
        thread::scope(|scope| {
            for writer in 0..3_u8 {
                let (db, told) = (db.clone(), &told[usize::from(writer)]);
                scope.spawn(move || {
                    for n in 1..=2 {
                        match db.put_with([writer], value(n, 50), &WriteOptions::sync()) {
                            Ok(()) => told.store(n, SeqCst),
                            Err(Error::CommitUnknown { .. } | Error::ReadOnly { .. } | Error::Io(_)) => {
                                return;
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            scope.spawn(|| {
                for (writer, seen) in (0..3_u8).zip(&seen).cycle().take(6) {
                    seen.fetch_max(number_of(db.get([writer]).unwrap()), SeqCst);
                }
            });
        });
        assert!(db.put([9], [9]).is_err() || faults.fired() == 0, "after a failed sync nothing is written");
        drop(db);
        let db = opened(disk.crash_with(CrashImage::NothingUnsynced));
        for writer in 0..3_u8 {
            let place = usize::from(writer);
            let (told, seen) = (told[place].load(SeqCst), seen[place].load(SeqCst));
            let there = number_of(db.get([writer]).unwrap());
            assert!(there >= told.max(seen), "{there} after a power cut; told {told}, seen {seen}");
        }
    });
}

/// A close among writers, or the drop of the last handle: each call is done or says that the database is closed, and
/// what was acknowledged is there at the next open.
#[test]
fn a_close_among_writers() {
    explore(|| {
        let disk = SimFs::new(4);
        let db = opened(disk.clone());
        let told: [AtomicU64; 2] = Default::default();
        thread::scope(|scope| {
            for writer in 0..2_u8 {
                let (db, told) = (db.clone(), &told[usize::from(writer)]);
                scope.spawn(move || {
                    for n in 1..=5 {
                        let options = if n == 3 { WriteOptions::sync() } else { WriteOptions::buffered() };
                        match db.put_with([writer], value(n, LARGE), &options) {
                            Ok(()) => told.store(n, SeqCst),
                            Err(Error::Closed) => return,
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            scope.spawn(|| match db.compact_range(..) {
                Ok(()) | Err(Error::Closed) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            });
            scope.spawn(|| {
                while told[0].load(SeqCst) == 0 {
                    thread::yield_now();
                }
                db.close().unwrap();
                assert!(matches!(db.get([0]), Err(Error::Closed)));
            });
        });
        drop(db);
        let db = opened(disk);
        assert!(db.recovery().clean, "{:?}", db.recovery());
        for (writer, told) in (0..2_u8).zip(&told) {
            assert_eq!(number_of(db.get([writer]).unwrap()), told.load(SeqCst));
        }
        // The last handle goes on another thread, while there is work.
        db.put([7], value(7, LARGE)).unwrap();
        thread::spawn(move || drop(db)).join().unwrap();
    });
}

/// A background thread panics: writers that wait for it get an error, readers go on, and the close ends.
#[test]
fn a_panic_in_the_background_beside_waiters() {
    explore(|| {
        let disk = SimFs::new(5);
        let faults = FaultFs::over_sim(disk.clone());
        let db = opened(faults.clone());
        faults.inject(Fault::once(Op::Create, 0, FaultKind::Panic).on(".sst").sticky());
        let told: [AtomicU64; 2] = Default::default();
        thread::scope(|scope| {
            for writer in 0..2_u8 {
                let (db, told) = (db.clone(), &told[usize::from(writer)]);
                scope.spawn(move || {
                    for n in 1..=40 {
                        match db.put([writer], value(n, LARGE)) {
                            Ok(()) => told.store(n, SeqCst),
                            Err(Error::ReadOnly { .. }) => return,
                            Err(error) => panic!("{error}"),
                        }
                        assert_eq!(number_of(db.get([writer]).unwrap()), n, "reads go on");
                    }
                    panic!("forty values found room, and nothing was flushed");
                });
            }
        });
        assert!(db.stopped().is_some());
        drop(db);
        let db = opened(disk);
        for (writer, told) in (0..2_u8).zip(&told) {
            assert!(number_of(db.get([writer]).unwrap()) >= told.load(SeqCst));
        }
    });
}

/// The disk is full, writers are refused, and go on once there is room: nothing that was acknowledged is lost, and what
/// was refused left nothing behind.
#[test]
fn a_full_disk_that_is_freed() {
    explore(|| {
        let disk = SimFs::new(6);
        let faults = FaultFs::over_sim(disk.clone());
        let db = opened(faults.clone());
        let full = || {
            faults.inject(Fault::once(Op::Any, 0, FaultKind::NoSpace).on(".sst").sticky());
            faults.inject(Fault::once(Op::Any, 2, FaultKind::NoSpace).on(".log"));
        };
        thread::scope(|scope| {
            for writer in 0..2_u8 {
                let (db, faults) = (db.clone(), faults.clone());
                scope.spawn(move || {
                    for n in 1..=10 {
                        loop {
                            match db.put([writer], value(n, LARGE)) {
                                Ok(()) => break,
                                Err(Error::NoSpace(_)) => {
                                    let before = number_of(db.get([writer]).unwrap());
                                    assert_eq!(before, n - 1, "a refused write is not there");
                                    faults.clear();
                                    thread::yield_now();
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                        assert_eq!(number_of(db.get([writer]).unwrap()), n);
                    }
                });
            }
            scope.spawn(|| {
                full();
                assert!(number_of(db.get([0]).unwrap()) <= 10);
                full();
            });
        });
        faults.clear();
        assert!(db.stopped().is_none(), "a full disk passes");
        db.flush().unwrap();
        drop(db);
        let db = opened(disk.crash_with(CrashImage::NothingUnsynced));
        for writer in 0..2_u8 {
            assert_eq!(number_of(db.get([writer]).unwrap()), 10);
        }
    });
}

/// Values and iterators that are held while everything under them is flushed, merged, evicted, unlinked, recycled and
/// closed.
#[test]
fn what_is_held_keeps_its_bytes() {
    explore(|| {
        let db = opened_with(SimFs::new(7), ReadMode::Pread);
        for key in 0..3_u8 {
            db.put([key], value(1, LARGE)).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 2..=4 {
                    (0..3_u8).for_each(|key| db.put([key], value(n, LARGE)).unwrap());
                }
                db.flush().unwrap();
                db.compact_range(..).unwrap();
            });
            scope.spawn(|| {
                for _ in 0..2 {
                    let held = db.get([1]).unwrap().unwrap();
                    let mut iter = db.iter().unwrap();
                    let before = number(&held);
                    let first = iter.next().unwrap().unwrap();
                    db.delete([9]).unwrap();
                    let rest = entries(iter);
                    assert_eq!((number(&held), rest.len()), (before, 2), "what was held does not change");
                    assert!(number(&first.1) >= rest[1].1, "one state: keys are raised in order");
                }
            });
        });
        let (held, iter) = (db.get([2]).unwrap().unwrap(), db.iter().unwrap());
        db.close().unwrap();
        drop(db);
        assert_eq!(number(&held), 4);
        assert!(entries(iter).iter().all(|(_, n)| *n == 4));
    });
}

/// Keyspaces that several threads ask for at once are one each, also where another thread drops and makes them anew.
#[test]
fn keyspaces_among_threads() {
    explore(|| {
        let disk = SimFs::new(8);
        let db = opened(disk.clone());
        let put = |space: &Keyspace, key: u8| match space.put([key], value(u64::from(key), 20)) {
            Ok(()) | Err(Error::InvalidArgument(_)) => {}
            Err(error) => panic!("{error}"),
        };
        thread::scope(|scope| {
            for thread in 1..=2_u8 {
                let db = &db;
                scope.spawn(move || {
                    db.keyspace("kept").unwrap().put([thread], value(u64::from(thread), 20)).unwrap();
                    put(&db.keyspace("dropped").unwrap(), thread);
                });
            }
            scope.spawn(|| db.drop_keyspace("dropped").unwrap());
        });
        db.drop_keyspace("dropped").unwrap();
        assert_eq!(entries(db.keyspace("kept").unwrap().iter().unwrap()), [(vec![1], 1), (vec![2], 2)]);
        assert_eq!(entries(db.keyspace("dropped").unwrap().iter().unwrap()), []);
        db.close().unwrap();
    });
}
