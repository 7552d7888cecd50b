//! What a database tells of its own state: full disks, damage that calls and merges met, all damage at once.

use std::ops::ControlFlow;

use pebble_db::{Db, Error, HealthState, LogIo, Recovery};
use pebble_vfs::SimFs;

use crate::campaign;
use crate::salvage::class;
use crate::support::{Config, LOG_MODES, bytes, dir, dump, kind, policies, read_file, write_file};

/// Two runs over the same keys, closed, and the names of their tables.
fn two_runs(config: &Config) -> (SimFs, Vec<String>) {
    let fs = SimFs::new(1);
    let db = config.sim(fs.clone()).open().unwrap();
    for round in 0..2_u64 {
        for n in 0..20_u64 {
            db.put(format!("key-{n:02}"), bytes(round * 100 + n, 40)).unwrap();
        }
        db.flush().unwrap();
    }
    db.close().unwrap();
    let tables = dump(&fs).into_keys().filter(|name| class(name) == "table").collect();
    (fs, tables)
}

fn flip(fs: &SimFs, name: &str, at: usize) {
    let mut bytes = read_file(fs, name);
    bytes[at] ^= 1;
    write_file(fs, name, &bytes);
}

/// Runs that nothing merges by itself.
fn quiet() -> Config {
    Config { compaction: policies()[4], ..Config::tiny(LogIo::Map) }
}

#[test]
fn what_calls_meet_is_listed_once_and_counted() {
    let config = quiet();
    let (fs, tables) = two_runs(&config);
    let newest = tables.last().unwrap();
    flip(&fs, newest, 30);
    let db = config.sim(fs).open().unwrap();
    assert!(db.health().errors.is_empty());
    for _ in 0..3 {
        assert_eq!(kind(&db.get("key-00").unwrap_err()), "Corruption");
    }
    assert!(db.get("key-19").unwrap().is_some(), "another block is fine");
    let scanned: Result<Vec<_>, Error> = db.iter().unwrap().collect();
    assert!(scanned.unwrap_err().is_corruption());
    let health = db.health();
    assert!(matches!(health.state, HealthState::Healthy), "{health:?}");
    let [entry] = &health.errors[..] else { panic!("{health:?}") };
    assert_eq!((&*entry.file, entry.offset, &*entry.what, entry.count), (&**newest, 0, "block checksum", 4));
    assert_eq!((health.more_errors, health.set_aside), (0, vec![]));
    campaign::count(&["read-error"], "cases", 1);
}

#[test]
fn a_merge_that_meets_damage_keeps_its_inputs_and_is_not_tried_again() {
    let config = quiet();
    let (fs, tables) = two_runs(&config);
    flip(&fs, &tables[0], 30);
    let db = config.sim(fs.clone()).open().unwrap();
    let before = dump(&fs);
    assert_eq!(kind(&db.compact_range(..).unwrap_err()), "Corruption");
    let present: Vec<_> = dump(&fs).into_keys().filter(|name| class(name) == "table").collect();
    assert_eq!(present, tables, "an input is gone, or an output stayed");
    assert!(tables.iter().all(|name| read_file(&fs, name) == before[name]));
    let health = db.health();
    assert_eq!((health.errors.len(), health.errors[0].count), (1, 1), "{health:?}");
    assert_eq!(health.set_aside.len(), 1);
    assert!(matches!(health.state, HealthState::Healthy));
    for round in 0..5_u64 {
        db.put("key-03", bytes(round, 40)).unwrap();
        db.flush().unwrap();
        assert_eq!(kind(&db.compact_range(..).unwrap_err()), "Corruption");
    }
    assert_eq!(db.health().errors[0].count, 1, "the damaged block was read again");
    assert_eq!(db.get("key-03").unwrap().as_deref(), Some(&bytes(4, 40)[..]));
    db.close().unwrap();
    campaign::count(&["read-error"], "cases", 1);
}

/// The same where merges are planned by themselves.
#[test]
fn planned_merges_go_around_a_damaged_table() {
    let mut config = Config::tiny(LogIo::Map);
    let (fs, _) = two_runs(&Config { compaction: policies()[4], ..config.clone() });
    let oldest = dump(&fs).into_keys().find(|name| class(name) == "table").unwrap();
    flip(&fs, &oldest, 30);
    config.compaction = policies()[0];
    let db = config.sim(fs).open().unwrap();
    for round in 0..30_u64 {
        for n in 0..10_u64 {
            db.put(format!("key-{n:02}"), bytes(round * 1000 + n, 40)).unwrap();
        }
        db.flush().unwrap();
    }
    let health = db.health();
    assert_eq!(health.set_aside.len(), 1, "{health:?}");
    assert_eq!(health.errors.iter().map(|entry| entry.count).sum::<u64>(), 1, "{health:?}");
    for n in 0..10_u64 {
        assert_eq!(db.get(format!("key-{n:02}")).unwrap().as_deref(), Some(&bytes(29_000 + n, 40)[..]));
    }
    db.close().unwrap();
}

#[test]
fn a_full_disk_shows_until_there_is_space() {
    for log_io in LOG_MODES {
        let fs = SimFs::new(1);
        let config = Config::tiny(log_io);
        let db = config.sim(fs.clone()).open().unwrap();
        let used: usize = dump(&fs).values().map(Vec::len).sum();
        fs.set_capacity(Some(used as u64 + 3000));
        let failed = (0..100_000_u64).find_map(|n| db.put(n.to_be_bytes(), bytes(n, 200)).err()).unwrap();
        assert_eq!(kind(&failed), "NoSpace");
        assert!(matches!(&db.health().state, HealthState::WriteStopped(Error::NoSpace(_))), "{log_io:?}");
        assert!(db.get(0_u64.to_be_bytes()).unwrap().is_some(), "reads go on");
        fs.set_capacity(None);
        db.put("more", "1").unwrap();
        assert!(matches!(db.health().state, HealthState::Healthy), "{log_io:?}: {:?}", db.health());
        db.close().unwrap();
    }
    campaign::count(&["full-disk-log"], "cases", 2);
}

fn verified(db: &Db) -> Vec<(String, String)> {
    let found = db.verify_with(|_| ControlFlow::Continue(())).unwrap();
    assert!(found.is_complete);
    found.damage.iter().map(|damage| (damage.file.to_string(), damage.reason.to_string())).collect()
}

#[test]
fn a_verification_tells_all_damage_and_can_be_ended() {
    let config = quiet();
    let (fs, tables) = two_runs(&config);
    let disk = fs.kill();
    for name in &tables {
        flip(&disk, name, 30);
        flip(&disk, name, 500);
    }
    let db = config.sim(disk.clone()).open().unwrap();
    let found = verified(&db);
    for name in &tables {
        assert_eq!(found.iter().filter(|(file, _)| file == name).count(), 2, "{found:?}");
    }
    assert_eq!(kind(&db.verify().unwrap_err()), "Corruption");
    let mut calls = 0;
    let ended = db.verify_with(|progress| {
        calls += 1;
        assert!(progress.done_bytes <= progress.total_bytes);
        ControlFlow::Break(())
    });
    assert!(!ended.unwrap().is_complete);
    assert_eq!(calls, 1);

    // The manifest and the log too, under the feet of an open database.
    let db = config.sim(fs.clone()).open().unwrap();
    db.put("log", bytes(1, 100)).unwrap();
    db.put("log", bytes(2, 100)).unwrap();
    assert_eq!(verified(&db), []);
    let manifest = dump(&fs).into_keys().find(|name| class(name) == "manifest").unwrap();
    flip(&fs, &manifest, 100);
    assert!(verified(&db).iter().any(|(file, _)| *file == manifest));
    let log = dump(&fs).into_keys().rfind(|name| class(name) == "log").unwrap();
    let at = read_file(&fs, &log).iter().rposition(|byte| *byte != 0).unwrap();
    flip(&fs, &log, at - 200);
    assert!(verified(&db).iter().any(|(file, _)| *file == log));
    campaign::count(&["bit-flip", "read-error"], "cases", 6);
}

#[test]
fn a_database_opened_for_reading_says_so() {
    let config = quiet();
    let (fs, _) = two_runs(&config);
    for recovery in [Recovery::Strict, Recovery::SalvageReadOnly] {
        let db = config.sim(fs.clone()).read_only(true).recovery(recovery).open().unwrap();
        let HealthState::ReadOnly(cause) = db.health().state else { panic!("{:?}", db.health()) };
        assert!(cause.to_string().contains("for reading only"), "{cause}");
        assert_eq!(kind(&db.put("k", "v").unwrap_err()), "ReadOnly");
    }
    assert!(dump(&fs).contains_key("CURRENT") && dir().is_absolute());
}
