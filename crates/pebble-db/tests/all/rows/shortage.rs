//! Too little of something: room on the disk for the log or for a flush, descriptors. It is told, and all goes on as
//! soon as there is enough.

use std::time::{Duration, Instant};

use pebble_db::{Executor, WriteBatch, WriteOptions};
use pebble_vfs::fault::{Fault, FaultKind, Op};

use super::bench::{Bench, names_of, prepared};
use crate::campaign;
use crate::support::{Config, LOG_MODES, Map, State, bytes, check_reads, dump, kind, scan};

#[test]
fn full_disk_log() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for room in (0..6000).step_by(600) {
            let bench = Bench::prepared(log_io);
            let used: usize = dump(&bench.sim).values().map(Vec::len).sum();
            bench.sim.set_capacity(Some((used + room) as u64));
            let mut state = prepared(&[]);
            let map = state.get_mut("default").unwrap();
            let mut refused = 0;
            for n in 0..60_u64 {
                let (a, b) = (format!("a-{n:02}"), format!("b-{n:02}"));
                let mut batch = WriteBatch::new();
                batch.put(&bench.db.default_keyspace(), &a, bytes(n, 300));
                batch.put(&bench.db.default_keyspace(), &b, bytes(n, 200));
                match bench.db.write(batch) {
                    Ok(()) => {
                        map.insert(a.into(), bytes(n, 300));
                        map.insert(b.into(), bytes(n, 200));
                    }
                    Err(error) => {
                        assert_eq!(kind(&error), "NoSpace", "{error}");
                        assert!(error.is_retryable());
                        refused += 1;
                    }
                }
            }
            assert!(refused > 0, "{log_io:?}, {room}: nothing was refused");
            check_reads(&bench.db, &state, &[b"a-59", b"b-59"]).unwrap();
            bench.sim.set_capacity(None);
            bench.db.put_with("resumed", "", &WriteOptions::sync()).unwrap();
            state.get_mut("default").unwrap().insert(b"resumed".to_vec(), Vec::new());
            check_reads(&bench.db, &state, &[]).unwrap();
            check_reads(&bench.after_power_cut(), &state, &[b"a-59", b"b-59"]).unwrap();
            cases += 1;
        }
    }
    campaign::count(&["full-disk-log"], "cases", cases);
}

/// First a flush and a merge that are asked for, each with too little space by another amount; then writers whose
/// memtables are full because the background cannot flush.
#[test]
fn full_disk_flush() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for step in 0..30 {
            let bench = Bench::prepared(log_io);
            for n in 0..20_u64 {
                bench.db.put(format!("key-{n:02}"), bytes(n, 200)).unwrap();
                if n % 7 == 6 && step % 2 == 1 {
                    bench.db.flush().unwrap();
                }
            }
            if step % 2 == 1 {
                bench.db.flush().unwrap();
            }
            let state = scan(&bench.db).unwrap();
            let inputs = names_of(&bench.sim, ".sst");
            let failing = |outcome: pebble_db::Result<()>| match outcome {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(kind(&error), "NoSpace", "{error}");
                    let left = names_of(&bench.sim, ".sst");
                    assert_eq!(left, inputs, "{log_io:?}, {step}: an output stays, or an input went");
                }
            };
            // The tables themselves, or the edit that would install them.
            let (nth, file) = if step % 6 < 2 { (0, "MANIFEST") } else { (step, ".sst") };
            bench.fs.inject(Fault::once(Op::Write, nth, FaultKind::ShortWrite).on(file).sticky());
            failing(match step % 2 {
                0 => bench.db.flush(),
                _ => bench.db.compact_range(..),
            });
            bench.fs.clear();
            assert!(bench.db.stopped().is_none());
            check_reads(&bench.db, &state, &[]).unwrap();
            bench.db.flush().unwrap();
            bench.db.compact_range(..).unwrap();
            check_reads(&bench.db, &state, &[]).unwrap();
            check_reads(&bench.after_kill(), &state, &[]).unwrap();
            cases += 1;
        }

        let bench = Bench::with(Config::tiny(log_io), Executor::Threads);
        bench.fs.inject(Fault::once(Op::Write, 0, FaultKind::NoSpace).on(".sst").sticky());
        let mut map = Map::new();
        let refused = loop {
            let n = map.len() as u64;
            match bench.db.put(n.to_be_bytes(), bytes(n, 3000)) {
                Ok(()) => _ = map.insert(n.to_be_bytes().to_vec(), bytes(n, 3000)),
                Err(error) => break error,
            }
        };
        assert_eq!(kind(&refused), "NoSpace", "{refused}");
        let mut state: State = [("default".to_owned(), map)].into();
        check_reads(&bench.db, &state, &[b"absent"]).unwrap();
        assert!(bench.db.stopped().is_none());
        assert!(names_of(&bench.sim, ".sst").is_empty(), "an output stays");
        bench.fs.clear();
        // It is tried again by itself, with pauses; a writer that asks often enough finds it done.
        let begun = Instant::now();
        while let Err(error) = bench.db.put("resumed", "") {
            assert_eq!(kind(&error), "NoSpace", "{error}");
            assert!(begun.elapsed() < Duration::from_secs(60), "it never resumes");
            std::thread::yield_now();
        }
        state.get_mut("default").unwrap().insert(b"resumed".to_vec(), Vec::new());
        check_reads(&bench.db, &state, &[b"absent"]).unwrap();
        cases += 1;
    }
    campaign::count(&["full-disk-flush"], "cases", cases);
}

/// The n-th call that needs a descriptor finds none, once and for a while.
#[test]
fn no_descriptors() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for op in [Op::Create, Op::Open] {
            for nth in 0..4 {
                for sticky in [false, true] {
                    let bench = Bench::prepared(log_io);
                    let rule = Fault::once(op, nth, FaultKind::TooManyFiles);
                    bench.fs.inject(if sticky { rule.sticky() } else { rule });
                    for outcome in
                        [bench.db.flush(), bench.db.put("more", bytes(1, 9000)), bench.db.compact_range(..)]
                    {
                        if let Err(error) = outcome {
                            assert_eq!(kind(&error), "Io", "{op:?} {nth}: {error}");
                        }
                    }
                    assert!(bench.db.stopped().is_none(), "{op:?} {nth}: {:?}", bench.db.stopped());
                    bench.fs.clear();
                    bench.db.put("more", "3").unwrap();
                    bench.db.flush().unwrap();
                    bench.assert_prepared(&bench.db, &[("more", "3")]);
                    bench.assert_prepared(&bench.after_kill(), &[("more", "3")]);
                    cases += 1;
                }
            }
        }
        // The background's own: it is tried again by itself, and a flush that is asked for finds it done or does it.
        let bench = Bench::with(Config::tiny(log_io), Executor::Threads);
        bench.fs.inject(Fault::once(Op::Create, 0, FaultKind::TooManyFiles).on(".sst"));
        let mut n = 0_u64;
        while bench.db.stats().flushes == 0 {
            match bench.db.put(n.to_be_bytes(), bytes(n, 3000)) {
                Ok(()) => n += 1,
                Err(error) => assert_eq!(kind(&error), "Io", "{error}"),
            }
        }
        assert_eq!(bench.fs.fired(), 1);
        assert_eq!(bench.db.iter().unwrap().count() as u64, n);
        cases += 1;
    }
    campaign::count(&["no-descriptors"], "cases", cases);
}

/// A flush that finds no descriptor to sync the directory with: nothing refers to its table yet.
#[test]
fn no_descriptor_for_the_name_of_a_table() {
    for log_io in LOG_MODES {
        let bench = Bench::prepared(log_io);
        let before = names_of(&bench.sim, ".sst");
        bench.fs.inject(Fault::once(Op::SyncDir, 0, FaultKind::TooManyFiles));
        assert_eq!(kind(&bench.db.flush().unwrap_err()), "Io");
        assert!(bench.fs.fired() == 1 && bench.db.stopped().is_none());
        assert_eq!(names_of(&bench.sim, ".sst"), before, "an output stays");
        bench.db.put("more", "3").unwrap();
        bench.db.flush().unwrap();
        bench.assert_prepared(&bench.db, &[("more", "3")]);
        bench.assert_prepared(&bench.after_power_cut(), &[("more", "3")]);
    }
    campaign::count(&["no-descriptors"], "cases", LOG_MODES.len() as u64);
}
