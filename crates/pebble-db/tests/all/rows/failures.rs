//! A disk that fails: a sync of the log, of a table or of the manifest, and the read of a table.

use pebble_db::{LogIo, ReadMode, WriteOptions};
use pebble_vfs::FaultFs;
use pebble_vfs::fault::{Fault, FaultKind, Op};

use super::bench::{Bench, names_of};
use crate::campaign;
use crate::support::{Config, LOG_MODES, Map, State, bytes, check_reads, kind};

#[test]
fn log_sync_fails() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for fault in [FaultKind::Io, FaultKind::LyingSync, FaultKind::NoSpace] {
            for sticky in [false, true] {
                let bench = Bench::prepared(log_io);
                let rule = Fault::once(Op::Sync, 0, fault).on(".log");
                bench.fs.inject(if sticky { rule.sticky() } else { rule });
                let snapshot = bench.db.snapshot();
                let error = bench.db.put_with("lost", "?", &WriteOptions::sync()).unwrap_err();
                assert_eq!(kind(&error), "CommitUnknown", "{log_io:?}, {fault:?}: {error}");
                assert!(!error.is_retryable());
                let before = (bench.calls("sync ", ".log"), bench.calls("write", ".log"));
                bench.assert_read_only(&[]);
                assert!(!snapshot.contains(&bench.db.default_keyspace(), "lost").unwrap());
                assert!(bench.db.close().is_err() || sticky || bench.db.stopped().is_some());
                let after = (bench.calls("sync ", ".log"), bench.calls("write", ".log"));
                assert_eq!(after, before, "{log_io:?}, {fault:?}: the log was synced or written again");
                drop(snapshot);
                let db = bench.after_kill();
                let unknown: &[_] = if db.contains("lost").unwrap() { &[("lost", "?")] } else { &[] };
                bench.assert_prepared(&db, unknown);
                let db = bench.after_power_cut();
                assert_eq!(db.get("synced").unwrap().as_deref(), Some(&b"1"[..]));
                db.put("next", "").unwrap();
                cases += 1;
            }
        }
    }
    campaign::count(&["log-sync-fails", "I6"], "cases", cases);
}

#[test]
fn table_sync_fails() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for fault in [FaultKind::Io, FaultKind::LyingSync] {
            let bench = Bench::prepared(log_io);
            bench.fs.inject(Fault::once(Op::Sync, 0, fault).on(".sst"));
            bench.db.flush().unwrap();
            let transcript = bench.trace.transcript();
            let failed = transcript.lines().find(|line| line.contains(".sst !")).unwrap();
            let failed = failed.trim_start_matches("sync ").split_once(' ').unwrap().0;
            let tables = names_of(&bench.sim, ".sst");
            assert_eq!(tables.len(), 1);
            assert!(*tables[0] > *failed, "{} after {failed}: a number was given twice", tables[0]);
            assert_eq!(bench.calls("sync ", failed), 1, "the file was synced again");
            assert!(bench.db.stopped().is_none());
            bench.db.put_with("more", "3", &WriteOptions::sync()).unwrap();
            bench.assert_prepared(&bench.after_power_cut(), &[("more", "3")]);

            let bench = Bench::prepared(log_io);
            bench.fs.inject(Fault::once(Op::Sync, 0, fault).on(".sst").sticky());
            assert_eq!(kind(&bench.db.flush().unwrap_err()), "Io");
            bench.assert_read_only(&[]);
            bench.assert_prepared(&bench.after_kill(), &[]);
            cases += 2;
        }
    }
    campaign::count(&["table-sync-fails"], "cases", cases);
}

#[test]
fn manifest_sync_fails() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for fault in [
            Fault::once(Op::Sync, 0, FaultKind::LyingSync).on("MANIFEST"),
            Fault::once(Op::Sync, 0, FaultKind::Io).on("MANIFEST"),
            Fault::once(Op::SyncDir, 0, FaultKind::Io),
        ] {
            for sticky in [false, true] {
                let bench = Bench::prepared(log_io);
                bench.fs.inject(if sticky { fault.clone().sticky() } else { fault.clone() });
                assert!(bench.db.flush().is_err(), "{fault:?}");
                assert!(bench.fs.fired() > 0);
                let count = || (bench.calls("write", "MANIFEST"), bench.calls("sync ", "MANIFEST"));
                let before = count();
                bench.assert_read_only(&[]);
                _ = bench.db.close().unwrap_err();
                assert_eq!(count(), before, "{fault:?}: the manifest was written or synced again");
                for db in [bench.after_kill(), bench.after_power_cut()] {
                    assert!(db.contains("synced").unwrap());
                    db.put_with("next", "", &WriteOptions::sync()).unwrap();
                    db.flush().unwrap();
                }
                bench.assert_prepared(&bench.after_kill(), &[]);
                cases += 1;
            }
        }
    }
    campaign::count(&["manifest-sync-fails", "I6"], "cases", cases);
}

/// The n-th read of a table fails, or gives a flipped bit: that call tells, an iterator repeats it, a merge that meets
/// it keeps its inputs, and all goes on.
#[test]
fn read_error() {
    let mut cases = 0;
    let config = Config { read_mode: ReadMode::Pread, ..Config::tiny(LogIo::Map) };
    let bench = Bench::new(config.clone());
    let mut map = Map::new();
    for n in 0..50_u64 {
        bench.db.put(n.to_be_bytes(), bytes(n, 300)).unwrap();
        map.insert(n.to_be_bytes().to_vec(), bytes(n, 300));
        if n % 13 == 12 {
            bench.db.flush().unwrap();
        }
    }
    bench.db.close().unwrap();
    let state: State = [("default".to_owned(), map)].into();
    let (mut by_iterator, mut by_merge) = (0, 0);
    for (fault, wanted) in [(FaultKind::Io, "Io"), (FaultKind::FlipBit { bit: 77 }, "Corruption")] {
        for nth in 0..40 {
            let sim = bench.sim.kill();
            let fs = FaultFs::over_sim(sim.clone());
            let db = config.sim(fs.clone()).open().unwrap();
            fs.inject(Fault::once(Op::Read, nth, fault).on(".sst"));
            let mut iter = db.iter().unwrap();
            let mut entries = state["default"].iter();
            loop {
                match iter.next() {
                    Some(Ok((key, value))) => {
                        let (wanted_key, wanted_value) = entries.next().unwrap();
                        assert_eq!((&*key, &*value), (&wanted_key[..], &wanted_value[..]));
                    }
                    Some(Err(error)) => {
                        assert_eq!(kind(&error), wanted, "{nth}: {error}");
                        for _ in 0..3 {
                            assert_eq!(kind(&iter.next().unwrap().unwrap_err()), wanted);
                            assert_eq!(kind(&iter.next_back().unwrap().unwrap_err()), wanted);
                        }
                        by_iterator += 1;
                        break;
                    }
                    None => {
                        assert!(entries.next().is_none(), "ended early");
                        break;
                    }
                }
            }
            fs.clear();
            check_reads(&db, &state, &[]).unwrap();
            let inputs = names_of(&sim, ".sst");
            fs.inject(Fault::once(Op::Read, nth, fault).on(".sst"));
            if let Err(error) = db.compact_range(..) {
                assert_eq!(kind(&error), wanted, "{nth}: {error}");
                assert_eq!(names_of(&sim, ".sst"), inputs, "{nth}: the inputs of a merge that failed");
                by_merge += 1;
            }
            fs.clear();
            assert!(db.stopped().is_none());
            db.put("healthy", "").unwrap();
            db.delete("healthy").unwrap();
            check_reads(&db, &state, &[]).unwrap();
            db.compact_range(..).unwrap();
            check_reads(&config.sim(sim.kill()).open().unwrap(), &state, &[]).unwrap();
            cases += 1;
        }
    }
    assert!(by_iterator > 0 && by_merge > 0, "{by_iterator} met by an iterator, {by_merge} by a merge");
    campaign::count(&["read-error"], "cases", cases);
}

/// A reader passes a long row of deleted keys and then cannot read on: what lies behind is not taken for deleted too.
#[test]
fn read_error_behind_deleted_keys() {
    let mut cases = 0;
    let config = Config { read_mode: ReadMode::Pread, ..Config::tiny(LogIo::Map) };
    let bench = Bench::new(config.clone());
    for n in 0..200_u64 {
        bench.db.put(n.to_be_bytes(), bytes(n, 300)).unwrap();
    }
    bench.db.compact_range(..).unwrap();
    for n in 0..100_u64 {
        bench.db.delete(n.to_be_bytes()).unwrap();
    }
    bench.db.close().unwrap();
    let live: Vec<_> = (100..200_u64).map(|n| n.to_be_bytes().to_vec()).collect();
    for nth in 0..80 {
        let fs = FaultFs::over_sim(bench.sim.kill());
        let db = config.sim(fs.clone()).open().unwrap();
        fs.inject(Fault::once(Op::Read, nth, FaultKind::Io).on(".sst"));
        let failed = db.iter().unwrap().any(|entry| entry.is_err());
        let mut seeking = db.iter().unwrap();
        seeking.seek([]);
        for iter in [seeking, db.iter().unwrap()] {
            let seen: Vec<_> = iter.map(|entry| entry.unwrap().0.to_vec()).collect();
            assert!(seen == live, "read {nth}: {} of {} live keys are found", seen.len(), live.len());
        }
        cases += u64::from(failed);
    }
    assert!(cases > 5, "{cases} scans failed");
    campaign::count(&["read-error", "I4"], "cases", cases);
}
