//! The contract's rows, one by one: one stated fault, and what is promised of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pebble_db::{Db, Executor, LogIo, ReadMode, WriteBatch, WriteOptions};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, SimFs};

use super::Context;
use crate::support::{Config, LOG_MODES, State, assert_none, attempt, bytes, check_reads, dump, kind, scan};

/// A simulated disk with rules over it, and a database that has a synced and a buffered commit.
fn prepared(log_io: LogIo) -> (SimFs, FaultFs, Db) {
    let sim = SimFs::new(5);
    let fs = FaultFs::over_sim(sim.clone());
    let db = Config::tiny(log_io).sim(fs.clone()).open().unwrap();
    db.put_with("synced", "1", &WriteOptions::sync()).unwrap();
    db.put("buffered", "2").unwrap();
    (sim, fs, db)
}

/// The two commits are there, and what else `extra` says.
fn assert_prepared(db: &Db, extra: &[(&str, &str)]) {
    let mut map = crate::support::Map::new();
    for (key, value) in [("synced", "1"), ("buffered", "2")].iter().chain(extra) {
        map.insert((*key).into(), (*value).into());
    }
    check_reads(db, &[("default".to_owned(), map)].into(), &[b"lost", b"next"]).unwrap();
}

#[test]
fn a_failed_log_sync_is_an_unknown_commit_and_the_end_of_writing() {
    for log_io in LOG_MODES {
        for fault in [FaultKind::Io, FaultKind::LyingSync, FaultKind::NoSpace] {
            let (sim, fs, db) = prepared(log_io);
            fs.inject(Fault::once(Op::Sync, 0, fault).on(".log"));
            let snapshot = db.snapshot();
            let error = db.put_with("lost", "?", &WriteOptions::sync()).unwrap_err();
            assert_eq!(kind(&error), "CommitUnknown", "{log_io:?}, {fault:?}: {error}");
            assert!(!error.is_retryable());
            for _ in 0..2 {
                assert_prepared(&db, &[]);
                assert!(!snapshot.contains(&db.default_keyspace(), "lost").unwrap());
                assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly");
                assert_eq!(kind(&db.delete("synced").unwrap_err()), "ReadOnly");
                let sync = db.put_with("next", "", &WriteOptions::sync()).unwrap_err();
                assert_eq!(kind(&sync), "ReadOnly");
                assert!(db.persist().is_err());
                assert!(db.stopped().is_some());
            }
            drop((snapshot, db));
            let db = Config::tiny(log_io).sim(sim.kill()).open().unwrap();
            let unknown: &[_] = if db.contains("lost").unwrap() { &[("lost", "?")] } else { &[] };
            assert_prepared(&db, unknown);
            let cut = sim.crash_with(CrashImage::NothingUnsynced);
            let db = Config::tiny(log_io).sim(cut).open().unwrap();
            assert_eq!(db.get("synced").unwrap().as_deref(), Some(&b"1"[..]));
            db.put("next", "").unwrap();
        }
    }
}

#[test]
fn a_failed_persist_is_the_end_of_writing() {
    for log_io in LOG_MODES {
        let (sim, fs, db) = prepared(log_io);
        fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync).on(".log"));
        assert!(db.persist().is_err());
        assert!(db.persist().is_err(), "a second sync proves nothing");
        assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly");
        assert_prepared(&db, &[]);
        drop(db);
        assert_prepared(&Config::tiny(log_io).sim(sim.kill()).open().unwrap(), &[]);
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    for log_io in LOG_MODES {
        let (sim, _, db) = prepared(log_io);
        let used: usize = dump(&sim).values().map(Vec::len).sum();
        sim.set_capacity(Some(used as u64));
        let mut map = scan(&db).unwrap();
        let mut refused = 0;
        for n in 0..40_u64 {
            let (key, value) = (format!("key-{n:02}").into_bytes(), bytes(n, 500));
            match db.put(&key, &value) {
                Ok(()) => _ = map.get_mut("default").unwrap().insert(key, value),
                Err(error) => {
                    assert_eq!(kind(&error), "NoSpace", "{error}");
                    assert!(error.is_retryable());
                    refused += 1;
                }
            }
            check_reads(&db, &map, &[b"key-39"]).unwrap();
        }
        assert!(refused > 20, "{log_io:?}: only {refused} refused");
        let mut batch = WriteBatch::new();
        batch.put(&db.default_keyspace(), "x", bytes(1, 3000)).put(
            &db.default_keyspace(),
            "y",
            bytes(1, 3000),
        );
        assert_eq!(kind(&db.write(batch).unwrap_err()), "NoSpace");
        assert!(!db.contains("x").unwrap() && !db.contains("y").unwrap());
        sim.set_capacity(None);
        db.put_with("resumed", "", &WriteOptions::sync()).unwrap();
        map.get_mut("default").unwrap().insert(b"resumed".to_vec(), Vec::new());
        check_reads(&db, &map, &[]).unwrap();
        for image in [sim.kill(), sim.crash_with(CrashImage::NothingUnsynced)] {
            let db = Config::tiny(log_io).sim(image).open().unwrap();
            check_reads(&db, &map, &[b"x", b"y"]).unwrap();
        }
    }
}

/// Space that ends in a flush or a compaction: what they made so far goes, what they read stays.
#[test]
fn a_full_disk_in_a_flush_or_a_compaction_loses_nothing() {
    for log_io in LOG_MODES {
        for step in 0..40 {
            let (sim, _, db) = prepared(log_io);
            for n in 0..20_u64 {
                db.put(format!("key-{n:02}"), bytes(n, 200)).unwrap();
                if n % 7 == 6 && step % 2 == 1 {
                    db.flush().unwrap();
                }
            }
            let map = scan(&db).unwrap();
            let used: usize = dump(&sim).values().map(Vec::len).sum();
            sim.set_capacity(Some(used as u64 + step * 200));
            let outcome = db.flush().and_then(|()| db.compact_range(..));
            if let Err(error) = &outcome {
                assert_eq!(kind(error), "NoSpace", "{error}");
            }
            check_reads(&db, &map, &[]).unwrap();
            assert!(db.stopped().is_none(), "a full disk stopped the database for good");
            sim.set_capacity(None);
            db.flush().unwrap();
            db.compact_range(..).unwrap();
            db.put("resumed", "").unwrap();
            db.delete("resumed").unwrap();
            check_reads(&db, &map, &[]).unwrap();
            let db = Config::tiny(log_io).sim(sim.kill()).open().unwrap();
            check_reads(&db, &map, &[]).unwrap();
        }
    }
}

#[test]
fn a_failed_sync_of_the_manifest_or_the_directory_ends_writing() {
    for log_io in LOG_MODES {
        for fault in [
            Fault::once(Op::Sync, 0, FaultKind::LyingSync).on("MANIFEST"),
            Fault::once(Op::SyncDir, 0, FaultKind::Io),
        ] {
            let (sim, fs, db) = prepared(log_io);
            fs.inject(fault.clone());
            let outcome = db.flush();
            if fs.fired() == 0 {
                continue;
            }
            assert!(outcome.is_err(), "{fault:?}");
            assert_prepared(&db, &[]);
            assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly", "{fault:?}");
            assert_prepared(&db, &[]);
            drop(db);
            assert_prepared(&Config::tiny(log_io).sim(sim.kill()).open().unwrap(), &[]);
        }
    }
}

#[test]
fn a_table_whose_sync_fails_is_written_once_more() {
    for log_io in LOG_MODES {
        let (sim, fs, db) = prepared(log_io);
        fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync).on(".sst"));
        db.flush().unwrap();
        assert_eq!(fs.fired(), 1);
        db.put_with("more", "3", &WriteOptions::sync()).unwrap();
        let cut = sim.crash_with(CrashImage::NothingUnsynced);
        assert_prepared(&Config::tiny(log_io).sim(cut).open().unwrap(), &[("more", "3")]);

        let (sim, fs, db) = prepared(log_io);
        fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync).on(".sst").sticky());
        assert!(db.flush().is_err());
        assert_prepared(&db, &[]);
        assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly");
        assert_prepared(&Config::tiny(log_io).sim(sim.kill()).open().unwrap(), &[]);
    }
}

#[test]
fn no_file_descriptors_is_an_error_of_that_call_alone() {
    for log_io in LOG_MODES {
        for op in [Op::Create, Op::Open] {
            let (sim, fs, db) = prepared(log_io);
            fs.inject(Fault::once(op, 0, FaultKind::TooManyFiles).on(".sst"));
            if let Err(error) = db.flush() {
                assert_eq!(kind(&error), "Io", "{error}");
            }
            assert_eq!(fs.fired(), 1, "{op:?}");
            db.flush().unwrap();
            db.put("more", "3").unwrap();
            assert_prepared(&db, &[("more", "3")]);
            assert_prepared(&Config::tiny(log_io).sim(sim.kill()).open().unwrap(), &[("more", "3")]);
        }
    }
}

/// The same for the log: a new segment for which there is no descriptor, or that cannot be made for another reason, is
/// made by a later call.
#[test]
fn a_segment_that_cannot_be_made_is_an_error_of_that_call_alone() {
    for log_io in LOG_MODES {
        for (op, fault) in [
            (Op::Create, FaultKind::TooManyFiles),
            (Op::Create, FaultKind::Io),
            (Op::Allocate, FaultKind::Io),
            (Op::MapMut, FaultKind::TooManyFiles),
        ] {
            let (sim, fs, db) = prepared(log_io);
            fs.inject(Fault::once(op, 0, fault).on(".log"));
            let big = bytes(1, 6000);
            let Err(error) = db.put("lost", &big) else {
                assert_eq!((log_io, op), (LogIo::Write, Op::MapMut), "{fault:?} was not met");
                continue;
            };
            assert_eq!(kind(&error), "Io", "{error}");
            assert_eq!(fs.fired(), 1, "{op:?}");
            assert!(db.stopped().is_none(), "{op:?}, {fault:?} ended writing");
            assert_prepared(&db, &[]);
            db.put_with("more", "3", &WriteOptions::sync()).unwrap();
            db.put("other", &big).unwrap();
            db.delete("other").unwrap();
            assert_prepared(&db, &[("more", "3")]);
            for image in [sim.kill(), sim.crash_with(CrashImage::NothingUnsynced)] {
                assert_prepared(&Config::tiny(log_io).sim(image).open().unwrap(), &[("more", "3")]);
            }
        }
    }
}

/// What a panic leaves half done is not built on: the next writer is told that writing has stopped, and not a reason
/// of the log's, and the manifest that may say that a keyspace is gone gets no records of it behind it.
#[test]
fn a_panic_in_a_sync_or_in_the_drop_of_a_keyspace_ends_writing() {
    for log_io in LOG_MODES {
        let (sim, fs, db) = prepared(log_io);
        fs.inject(Fault::once(Op::Sync, 0, FaultKind::Panic).on(".log"));
        assert!(catch_unwind(AssertUnwindSafe(|| db.put_with("x", "", &WriteOptions::sync()))).is_err());
        assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly");
        assert_prepared(&db, &[]);
        drop((db, sim));

        let (sim, fs, db) = prepared(log_io);
        let space = db.keyspace("a").unwrap();
        db.flush().unwrap();
        fs.inject(Fault::once(Op::Sync, 0, FaultKind::Panic).on("MANIFEST"));
        assert!(catch_unwind(AssertUnwindSafe(|| db.drop_keyspace("a"))).is_err());
        assert_eq!(kind(&space.put("next", "").unwrap_err()), "ReadOnly");
        drop((space, db));
        for image in [sim.kill(), sim.crash_with(CrashImage::NothingUnsynced)] {
            let db = Config::tiny(log_io).sim(image).open().unwrap();
            assert_eq!(db.get("synced").unwrap().as_deref(), Some(&b"1"[..]));
        }
    }
}

/// A memtable that fills up is flushed by a thread; when that panics, writers are told and readers see nothing of it.
#[test]
fn a_panic_in_the_background_is_an_error_and_reads_go_on() {
    for log_io in LOG_MODES {
        let sim = SimFs::new(5);
        let fs = FaultFs::over_sim(sim.clone());
        let config = Config::tiny(log_io);
        let db = config.sim_with(Arc::new(fs.clone()), Executor::Threads).open().unwrap();
        fs.inject(Fault::once(Op::Create, 0, FaultKind::Panic).on(".sst"));
        let mut map = crate::support::Map::new();
        let error = loop {
            let n = map.len() as u64;
            match db.put(key_of(n), bytes(n, 8000)) {
                Ok(()) => _ = map.insert(key_of(n), bytes(n, 8000)),
                Err(error) => break error,
            }
        };
        assert_eq!(fs.fired(), 1);
        let mut expected: State = [("default".to_owned(), map)].into();
        assert!(matches!(kind(&error), "Background" | "ReadOnly"), "{error}");
        check_reads(&db, &expected, &[b"absent"]).unwrap();
        assert!(matches!(kind(&db.put("next", "").unwrap_err()), "Background" | "ReadOnly"));
        assert!(matches!(kind(&db.flush().unwrap_err()), "Background" | "ReadOnly"));
        assert!(db.stopped().is_some());
        check_reads(&db, &expected, &[b"next"]).unwrap();
        drop(db);
        let db = config.sim(sim.kill()).open().unwrap();
        check_reads(&db, &expected, &[b"next"]).unwrap();
        db.put("next", "1").unwrap();
        expected.get_mut("default").unwrap().insert(b"next".to_vec(), b"1".to_vec());
        check_reads(&db, &expected, &[]).unwrap();
    }
}

/// A panic in a caller's own thread reaches that caller; it poisons nothing for the others.
#[test]
fn a_panic_in_a_call_poisons_nothing() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::Map, Op::SyncDir, Op::Allocate, Op::MapMut] {
        for nth in 0..4 {
            let _context = Context(format!("{op:?} {nth}"));
            let (sim, fs, db) = prepared(LogIo::Map);
            fs.inject(Fault::once(op, nth, FaultKind::Panic));
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                db.flush().and_then(|()| db.keyspace("new").map(drop)).and_then(|()| db.persist())
            }));
            fs.clear();
            assert_prepared(&db, &[]);
            if outcome.is_ok_and(|outcome| outcome.is_ok()) {
                db.put("more", "3").unwrap();
                assert_prepared(&db, &[("more", "3")]);
                db.delete("more").unwrap();
            } else {
                // Whether writes go on is the engine's choice; that the call ends is not.
                let ended = catch_unwind(AssertUnwindSafe(|| db.put("more", "3")));
                let applied = ended.unwrap_or_else(|_| panic!("{op:?} {nth}: a panic was passed on")).is_ok();
                assert_prepared(&db, if applied { &[("more", "3")] } else { &[] });
                if applied {
                    db.delete("more").unwrap();
                }
            }
            let closed = catch_unwind(AssertUnwindSafe(|| db.close()));
            assert!(closed.is_ok(), "{op:?} {nth}: the close panicked");
            drop(db);
            assert_prepared(&Config::tiny(LogIo::Map).sim(sim.kill()).open().unwrap(), &[]);
        }
    }
}

#[test]
fn a_failed_read_is_an_error_of_that_call_and_an_iterator_repeats_it() {
    let config = Config { read_mode: ReadMode::Pread, ..Config::tiny(LogIo::Map) };
    let sim = SimFs::new(5);
    let fs = FaultFs::over_sim(sim);
    let db = config.sim(fs.clone()).open().unwrap();
    for n in 0..50_u64 {
        db.put(key_of(n), bytes(n, 300)).unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
    let mut met = 0;
    for nth in 0..60 {
        let db = config.sim(fs.clone()).open().unwrap();
        fs.inject(Fault::once(Op::Read, nth, FaultKind::Io).on(".sst"));
        let mut iter = db.iter().unwrap();
        let mut n = 0_u64;
        loop {
            match iter.next() {
                Some(Ok((key, value))) => {
                    assert_eq!((key.to_vec(), value.to_vec()), (key_of(n), bytes(n, 300)));
                    n += 1;
                }
                Some(Err(error)) => {
                    met += 1;
                    assert_eq!(kind(&error), "Io", "{error}");
                    for _ in 0..3 {
                        assert_eq!(kind(&iter.next().unwrap().unwrap_err()), "Io");
                        assert_eq!(kind(&iter.next_back().unwrap().unwrap_err()), "Io");
                    }
                    break;
                }
                None => {
                    assert_eq!(n, 50, "ended early");
                    break;
                }
            }
        }
        fs.clear();
        check_all(&db);
        db.put("healthy", "").unwrap();
        db.delete("healthy").unwrap();
        db.close().unwrap();
    }
    assert!(met > 0, "no read failed");
}

fn key_of(n: u64) -> Vec<u8> {
    format!("key-{n:02}").into_bytes()
}

fn check_all(db: &Db) {
    for n in 0..50_u64 {
        let value = db.get(key_of(n)).unwrap();
        assert_eq!(value.as_deref(), Some(&bytes(n, 300)[..]));
    }
}

/// Writers that share a sync share its failure: none of that group is seen, all before it are there after a power
/// cut, and nobody is told a thing twice.
#[test]
fn a_group_whose_sync_fails_is_unknown_to_every_writer() {
    for nth in 0..12 {
        let sim = SimFs::new(nth);
        let fs = FaultFs::over_sim(sim.clone());
        let config = Config::tiny(if nth % 2 == 0 { LogIo::Map } else { LogIo::Write });
        let db = config.sim_with(Arc::new(fs.clone()), Executor::Threads).open().unwrap();
        fs.inject(Fault::once(Op::Sync, nth, FaultKind::LyingSync).on(".log"));
        let told: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4_u8)
                .map(|writer| {
                    let db = &db;
                    scope.spawn(move || {
                        for n in 1..=30_u64 {
                            let outcome = db.put_with([writer], n.to_be_bytes(), &WriteOptions::sync());
                            if let Err(error) = outcome {
                                assert!(matches!(kind(&error), "CommitUnknown" | "ReadOnly"), "{error}");
                                return n - 1;
                            }
                        }
                        30
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(fs.fired(), 1);
        let counter = |db: &Db, writer: usize| {
            let value = db.get([u8::try_from(writer).unwrap()]).unwrap();
            value.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()))
        };
        for (writer, told) in told.iter().enumerate() {
            assert_eq!(
                counter(&db, writer),
                *told,
                "sync {nth}: what is visible was acknowledged, and the reverse"
            );
        }
        assert!(db.stopped().is_some());
        drop(db);
        for image in [sim.kill(), sim.crash_with(CrashImage::NothingUnsynced), sim.crash(nth)] {
            let db = config.sim(image).open().unwrap();
            for (writer, told) in told.iter().enumerate() {
                let found = counter(&db, writer);
                assert!((*told..=told + 1).contains(&found), "sync {nth}: {found} of {told}");
            }
        }
    }
}

/// What a manifest's failed sync left in the page cache is no ground to build on: the next open may read it, but the
/// edits behind it must not be all that becomes durable. Where the sectors lie decides, so the lengths vary.
#[test]
fn a_manifest_whose_sync_failed_is_not_appended_to_after_a_reopen() {
    let mut failures = Vec::new();
    for log_io in LOG_MODES {
        for pad in (1..250).step_by(12) {
            let (sim, fs, db) = prepared(log_io);
            db.keyspace(&"p".repeat(pad)).unwrap();
            fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync).on("MANIFEST"));
            assert!(db.flush().is_err());
            drop(db);
            attempt(
                &mut failures,
                || format!("{log_io:?}, {pad}"),
                || {
                    let db = Config::tiny(log_io).sim(fs.clone()).open().unwrap();
                    db.put_with("more", "3", &WriteOptions::sync()).unwrap();
                    for name in ["x", "y"] {
                        db.keyspace(&name.repeat(255)).unwrap();
                    }
                    db.flush().unwrap();
                    let cut = sim.crash_with(CrashImage::NothingUnsynced);
                    let db = Config::tiny(log_io).sim(cut).open().unwrap();
                    assert_prepared(&db, &[("more", "3")]);
                },
            );
        }
    }
    assert_none(&failures);
}
