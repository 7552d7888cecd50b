//! What goes wrong within the process: a clock that jumps, a handle dropped without a close, a panic in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pebble_db::{Components, Db, Executor};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{ManualClock, SimFs};

use super::bench::{Bench, prepared};
use super::gate::GateFs;
use crate::campaign;
use crate::support::{Config, LOG_MODES, Map, State, bytes, check_reads, dir, kind};

#[test]
fn clock_jump() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let fs = SimFs::new(1);
        let clock = Arc::new(ManualClock::new());
        let components =
            Components { fs: Arc::new(fs.clone()), clock: clock.clone(), executor: Executor::Inline };
        let open =
            || Config::tiny(log_io).apply(Db::builder(dir())).components(components.clone()).open().unwrap();
        let mut db = open();
        for n in 0..60 {
            db.put(format!("{n:02}"), n.to_string()).unwrap();
            clock.advance(Duration::from_secs(5 * 365 * 86_400));
            match n % 12 {
                5 => db.flush().unwrap(),
                8 => db.compact_range(..).unwrap(),
                11 => {
                    drop(db);
                    db = open();
                }
                _ => {}
            }
            assert_eq!(db.iter().unwrap().count(), n + 1);
            assert!(db.stopped().is_none());
            cases += 1;
        }
    }
    campaign::count(&["clock-jump"], "cases", cases);
}

/// As if closed: the next open finds a seal. When that fails there is no panic, and nothing that was acknowledged is
/// lost.
#[test]
fn dropped() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::prepared(log_io);
        let Bench { sim, db, config, .. } = bench;
        drop(db);
        let db = config.sim(sim.kill()).open().unwrap();
        assert!(db.recovery().clean, "{log_io:?}: a drop is a close");
        drop(db);
        for op in [Op::Write, Op::Sync, Op::SyncDir, Op::Create, Op::Any] {
            for fault in [FaultKind::Io, FaultKind::NoSpace, FaultKind::LyingSync, FaultKind::Panic] {
                for nth in 0..6 {
                    let Bench { sim, fs, db, config, trace } = Bench::prepared(log_io);
                    fs.inject(Fault::once(op, nth, fault).sticky());
                    // A panic of the disk itself passes through; the drop makes none of its own.
                    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(db)));
                    assert!(ended.is_ok() || fault == FaultKind::Panic, "{op:?} {nth} {fault:?}");
                    drop(trace);
                    let db = config.sim(sim.kill()).open().unwrap();
                    check_reads(&db, &prepared(&[]), &[]).unwrap();
                    let cut = config.sim(sim.crash_with(CrashImage::NothingUnsynced)).open().unwrap();
                    assert!(cut.contains("synced").unwrap());
                    cases += 1;
                }
            }
        }
    }
    campaign::count(&["dropped"], "cases", cases);
}

/// Writers wait for a flush that waits at a gate and then panics: each is woken, with an error, within a second.
#[test]
fn panic() {
    const WRITERS: u8 = 3;
    let mut cases = 0;
    for log_io in LOG_MODES {
        let sim = SimFs::new(5);
        let (fs, keeper) = GateFs::new(sim.clone());
        let config = Config::tiny(log_io);
        let db = config.sim_with(Arc::new(fs), Executor::Threads).open().unwrap();
        let done = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let db = &db;
                    scope.spawn(move || {
                        for n in 0_u32.. {
                            let key = [&[writer][..], &n.to_be_bytes()].concat();
                            if let Err(error) = db.put(key, bytes(u64::from(n), 6000)) {
                                assert!(matches!(kind(&error), "Background" | "ReadOnly"), "{error}");
                                return (n, Instant::now());
                            }
                        }
                        unreachable!("memtables take everything");
                    })
                })
                .collect();
            keeper.arrived.recv().unwrap();
            // All of them wait when the counter of commits stands still over many turns of this thread.
            let (mut last, mut still) = (0, 0);
            while still < 2000 {
                std::thread::sleep(Duration::from_micros(50));
                let seqno = db.stats().visible_seqno;
                still = if seqno == last { still + 1 } else { 0 };
                last = seqno;
            }
            keeper.opens.send(()).unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        let began = keeper.panicked_at.lock().unwrap().unwrap();
        let mut map = Map::new();
        for (writer, (count, woken)) in (0..WRITERS).zip(done) {
            let late = woken.saturating_duration_since(began);
            assert!(late < Duration::from_secs(1), "writer {writer} was woken after {late:?}");
            for n in 0..count {
                map.insert([&[writer][..], &n.to_be_bytes()].concat(), bytes(u64::from(n), 6000));
            }
        }
        let state: State = [("default".to_owned(), map)].into();
        for refused in [db.put("next", ""), db.flush(), db.persist(), db.keyspace("next").map(drop)] {
            assert!(matches!(kind(&refused.unwrap_err()), "Background" | "ReadOnly"));
        }
        assert!(db.stopped().is_some());
        check_reads(&db, &state, &[b"next"]).unwrap();
        drop(db);
        let db = config.sim(sim.kill()).open().unwrap();
        check_reads(&db, &state, &[b"next"]).unwrap();
        db.put("next", "1").unwrap();
        cases += u64::from(WRITERS);
    }
    campaign::count(&["panic", "I9"], "cases", cases);
}
