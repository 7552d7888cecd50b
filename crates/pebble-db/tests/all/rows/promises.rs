//! What it means that a commit was acknowledged, buffered or synced: what a kill and a power cut may take then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pebble_db::{Executor, WriteBatch, WriteOptions};
use pebble_vfs::SimFs;
use pebble_vfs::sim::CrashImage;

use super::bench::Bench;
use crate::campaign;
use crate::support::{Config, LOG_MODES, Map, bytes, check_reads, scan};

const ALL_KINDS: [CrashImage; 5] = [
    CrashImage::NothingUnsynced,
    CrashImage::EverythingUnsynced,
    CrashImage::NamesOnly,
    CrashImage::DataOnly,
    CrashImage::ZeroedTail,
];

/// Enough commits for several segments; the directory's sync of a new one is asked for too, because without it the
/// power cut would take the name.
#[test]
fn acknowledged() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config::tiny(log_io));
        let mut expected = Map::new();
        for n in 0..30_u64 {
            let (key, value) = (n.to_be_bytes().to_vec(), bytes(n, 900));
            let before = bench.calls("sync ", ".log");
            if n % 2 == 0 {
                bench.db.put(&key, &value).unwrap();
                expected.insert(key, value);
                let state = [("default".to_owned(), expected.clone())].into();
                check_reads(&bench.after_kill(), &state, &[]).unwrap();
            } else {
                bench.db.put_with(&key, &value, &WriteOptions::sync()).unwrap();
                assert!(bench.calls("sync ", ".log") > before, "{log_io:?}: acknowledged without a sync");
                expected.insert(key, value);
                let state = [("default".to_owned(), expected.clone())].into();
                check_reads(&bench.after_power_cut(), &state, &[]).unwrap();
            }
            cases += 1;
        }
        assert!(bench.calls("create", ".log") >= 3, "one segment says nothing about new ones");
    }
    campaign::count(&["acknowledged"], "cases", cases);
}

#[test]
fn killed() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config::tiny(log_io));
        let users = bench.db.keyspace("users").unwrap();
        for n in 0..40_u64 {
            let options = if n % 3 == 0 { WriteOptions::sync() } else { WriteOptions::buffered() };
            let mut batch = WriteBatch::new();
            batch.put(&users, (n % 7).to_be_bytes(), bytes(n, 300)).put(
                &bench.db.default_keyspace(),
                (n % 5).to_be_bytes(),
                bytes(n, 100),
            );
            batch.delete(&users, ((n + 3) % 7).to_be_bytes());
            bench.db.write_with(batch, &options).unwrap();
            if n % 11 == 10 {
                bench.db.flush().unwrap();
            }
            assert_eq!(scan(&bench.after_kill()).unwrap(), scan(&bench.db).unwrap(), "{log_io:?}, {n}");
            cases += 1;
        }
    }
    campaign::count(&["killed", "kill"], "cases", cases);
}

/// What a power cut takes is behind the last sync: a commit's own, a `persist()`, the background's.
#[test]
fn power_lost() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config::tiny(log_io));
        let mut floor = 0;
        for n in 1..=40_u64 {
            let sync = n % 9 == 4;
            let options = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
            bench.db.put_with("counter", n.to_be_bytes(), &options).unwrap();
            if n % 9 == 7 {
                bench.db.persist().unwrap();
            }
            if sync || n % 9 == 7 {
                floor = n;
            }
            for image in ALL_KINDS.into_iter().chain((0..3).map(CrashImage::Random)) {
                let db = bench.config.sim(bench.sim.crash_with(image)).open().unwrap();
                let found = db.get("counter").unwrap();
                let found = found.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()));
                assert!((floor..=n).contains(&found), "{log_io:?}, {image:?}: {found} of {floor}..={n}");
                cases += 1;
            }
        }

        // The background's, here every millisecond. It is waited for, however long it takes.
        let sim = SimFs::new(5);
        let config = Config::tiny(log_io);
        let builder = config.sim_with(Arc::new(sim.clone()), Executor::Threads);
        let db = builder.sync_interval(Some(Duration::from_millis(1))).open().unwrap();
        db.put("buffered", "1").unwrap();
        let begun = Instant::now();
        loop {
            let cut = config.sim(sim.crash_with(CrashImage::NothingUnsynced)).open().unwrap();
            if cut.contains("buffered").unwrap() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody syncs in the background");
            std::thread::yield_now();
        }
        cases += 1;
    }
    campaign::count(&["power-lost"], "cases", cases);
}

#[test]
fn mixed() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for way in ["a commit", "persist", "an empty batch"] {
            for before in 0..12_u64 {
                let bench = Bench::new(Config::tiny(log_io));
                let users = bench.db.keyspace("users").unwrap();
                // Over several segments, and over a flush in some.
                for n in 0..before {
                    users.put(n.to_be_bytes(), bytes(n, 1500)).unwrap();
                    bench.db.put(n.to_be_bytes(), "").unwrap();
                    if n == 4 && before % 2 == 1 {
                        bench.db.flush().unwrap();
                    }
                }
                match way {
                    "persist" => bench.db.persist().unwrap(),
                    "a commit" => bench.db.put_with("sync", "", &WriteOptions::sync()).unwrap(),
                    _ => bench.db.write_with(WriteBatch::new(), &WriteOptions::sync()).unwrap(),
                }
                let expected = scan(&bench.db).unwrap();
                bench.db.put("behind", "").unwrap();
                let mut found = scan(&bench.after_power_cut()).unwrap();
                if let Some(map) = found.get_mut("default") {
                    map.remove(&b"behind"[..]);
                }
                found.retain(|_, map| !map.is_empty());
                assert_eq!(found, expected, "{log_io:?}, {before} before, by {way}");
                cases += 1;
            }
        }
    }
    campaign::count(&["mixed"], "cases", cases);
}
