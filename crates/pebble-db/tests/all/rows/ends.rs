//! What an open finds after an end that nobody asked for: a kill, the end of a log as a power cut tears it, and damage
//! below what was promised.

use std::sync::Arc;

use pebble_db::{Recovery, WriteOptions};
use pebble_vfs::SimFs;

use super::bench::Bench;
use crate::campaign;
use crate::support::{Config, LOG_MODES, bytes, dump, kind, write_file};

/// The process ends at every event of commits, a flush and a merge; the report says what the open met.
#[test]
fn kill() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config::tiny(log_io));
        let images = Arc::<std::sync::Mutex<Vec<SimFs>>>::default();
        let sink = Arc::clone(&images);
        bench.sim.on_event(move |sim, _| sink.lock().unwrap().push(sim.kill()));
        for n in 0..30_u64 {
            bench.db.put(n.to_be_bytes(), bytes(n, 400)).unwrap();
            if n % 10 == 9 {
                bench.db.flush().unwrap();
            }
        }
        bench.db.compact_range(..).unwrap();
        bench.db.put("last", "").unwrap();
        bench.sim.clear_on_event();
        let images = std::mem::take(&mut *images.lock().unwrap());
        let (mut replayed, mut orphans) = (0, 0);
        for image in images {
            let db = bench.config.sim(image).open().unwrap();
            let report = db.recovery();
            let found = db.iter().unwrap().count() as u64;
            assert_eq!(report.dropped_bytes, 0, "a kill tears nothing: {report:?}");
            assert!(!report.clean);
            assert_eq!(report.last_seqno, found, "{report:?}");
            assert!(report.replayed <= report.last_seqno, "{report:?}");
            assert!(db.stopped().is_none());
            db.put("healthy", "").unwrap();
            replayed += report.replayed;
            orphans += report.orphans;
            cases += 1;
        }
        assert!(replayed > 0 && orphans > 0, "{log_io:?}: {replayed} replayed, {orphans} orphans");
    }
    campaign::count(&["kill"], "cases", cases);
}

/// The end of a log above the last promise: cut, zeroed, overwritten, or with a frame of another place in it.
#[test]
fn power_loss() {
    let mut cases = 0;
    let mut reported = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config { segments: (16384, 16384), ..Config::tiny(log_io) });
        bench.db.put_with("synced", "", &WriteOptions::sync()).unwrap();
        let synced_len = used_len(&only_log(&bench.sim).1);
        for n in 0..6_u8 {
            bench.db.put([n], bytes(u64::from(n), 100)).unwrap();
        }
        let (name, log) = only_log(&bench.sim);
        let used = used_len(&log);
        let frame = (used - synced_len) / 6;
        for at in synced_len..used {
            let zeroed = [&log[..at], &vec![0; log.len() - at]].concat();
            let torn = [&log[..at], &vec![0; frame.min(used - at)], &log[(at + frame).min(used)..]].concat();
            let stale_len = frame.min(log.len() - at);
            let stale =
                [&log[..at], &log[synced_len..synced_len + stale_len], &log[at + stale_len..]].concat();
            for (what, damaged) in [("zeroed", zeroed), ("torn", torn), ("stale", stale)] {
                let disk = bench.sim.kill();
                write_file(&disk, &name, &damaged);
                let db = bench.config.sim(disk.clone()).open();
                let db = db.unwrap_or_else(|error| panic!("{log_io:?}, {what} at {at} of {used}: {error}"));
                let same = |n: &usize| damaged[..synced_len + n * frame] == log[..synced_len + n * frame];
                let whole = (1..=6).take_while(same).count();
                let found = db.iter().unwrap().count() - 1;
                assert!(db.contains("synced").unwrap());
                assert_eq!(found, whole, "{log_io:?}, {what} at {at}");
                for n in 0..u8::try_from(found).unwrap() {
                    assert_eq!(db.get([n]).unwrap().as_deref(), Some(&bytes(u64::from(n), 100)[..]));
                }
                reported += db.recovery().dropped_bytes;
                db.put_with("healthy", "", &WriteOptions::sync()).unwrap();
                drop(db);
                assert_eq!(bench.config.sim(disk).open().unwrap().iter().unwrap().count(), found + 2);
                cases += 1;
            }
        }
    }
    assert!(reported > 0, "no dropped byte was reported");
    campaign::count(&["power-loss"], "cases", cases);
}

/// Damage below the promise of a sync, or before a seal: refused, and by choice the prefix before it.
#[test]
fn log_damage() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for closed in [false, true] {
            let bench = Bench::new(Config { segments: (16384, 16384), ..Config::tiny(log_io) });
            for n in 0..8_u8 {
                bench.db.put_with([n], bytes(u64::from(n), 60), &WriteOptions::sync()).unwrap();
            }
            if closed {
                bench.db.close().unwrap();
            }
            let (name, log) = only_log(&bench.sim);
            // Behind the segment's header; the last sync group of a log that was not closed is nobody's promise.
            let frame = 24 + usize::from(log[64 + 4]);
            let end = if closed { used_len(&log) } else { 64 + 7 * frame };
            for at in (64..end).step_by(5) {
                let disk = bench.sim.kill();
                let mut damaged = log.clone();
                damaged[at] ^= 0x10;
                write_file(&disk, &name, &damaged);
                let before = dump(&disk);
                let what = format!("{log_io:?}, closed: {closed}, byte {at} of {end}");
                let refused = bench.config.sim(disk.clone()).open().expect_err(&what);
                assert_eq!(kind(&refused), "Corruption", "{what}: {refused}");
                assert!(dump(&disk) == before, "{what}: the directory was changed");
                let db = bench.config.sim(disk.clone()).recovery(Recovery::PointInTime).open().expect(&what);
                let found = db.iter().unwrap().count();
                assert_eq!(found, ((at - 64) / frame).min(8), "{what}");
                for n in 0..u8::try_from(found).unwrap() {
                    assert_eq!(db.get([n]).unwrap().as_deref(), Some(&bytes(u64::from(n), 60)[..]), "{what}");
                }
                cases += 1;
            }
        }
    }
    campaign::count(&["log-damage"], "cases", cases);
}

fn only_log(sim: &SimFs) -> (String, Vec<u8>) {
    let mut logs = dump(&sim.kill()).into_iter().filter(|(name, _)| name.ends_with(".log"));
    let log = logs.next().unwrap();
    assert!(logs.next().is_none(), "more than one segment");
    log
}

fn used_len(log: &[u8]) -> usize {
    log.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 4) & !3)
}
