//! Long values, which lie in tables of their own: that they are right wherever they are read, that merges leave them,
//! that their space comes back, and what damage to them costs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pebble_db::{Compression, Db, Error, Executor, Key, LogIo, ReadMode, Stats, Value, VerifyProgress};
use pebble_vfs::{Fs, SimFs};

use crate::support::{Config, LOG_MODES, Rng, State, bytes, check_reads, dir, dump, write_file};

const LEN: usize = 3000;

/// Room for some hundred long values in a memtable.
fn config(log_io: LogIo) -> Config {
    Config { block_len: 4096, table_len: 64 << 10, segments: (64 << 10, 1 << 20), ..Config::tiny(log_io) }
}

fn key(n: usize) -> Vec<u8> {
    format!("key-{n:04}").into_bytes()
}

/// Every third value is short, and lies in its record.
fn value(n: usize, version: u64) -> Vec<u8> {
    let len = if n.is_multiple_of(3) { 20 } else { LEN + n % 7 };
    bytes(version << 32 | n as u64, len)
}

fn put_all(db: &Db, keys: impl Iterator<Item = usize>, version: u64, state: &mut State) {
    let map = state.entry("default".into()).or_default();
    for n in keys {
        db.put(key(n), value(n, version)).unwrap();
        map.insert(key(n), value(n, version));
    }
}

/// What files of tables hold, and what they would if they held the live values alone.
fn tables_of(stats: &Stats) -> (u64, u64) {
    let levels: u64 = stats.levels.iter().map(|level| level.bytes).sum();
    (levels + stats.value_table_bytes, levels + stats.value_bytes - stats.value_dead_bytes)
}

fn files(fs: &SimFs) -> usize {
    dump(fs).keys().filter(|name| name.ends_with(".sst")).count()
}

#[test]
fn long_values_are_right_in_every_layout_and_way_of_reading() {
    let compressions = [Compression::None, Compression::Lz4];
    for (at, log_io) in LOG_MODES.into_iter().enumerate() {
        for read_mode in [ReadMode::Map, ReadMode::Pread] {
            let config = Config { read_mode, compression: compressions[at], ..config(log_io) };
            let fs = SimFs::new(1);
            let db = config.sim(fs.clone()).open().unwrap();
            let mut state = State::new();
            for round in 0..4 {
                put_all(&db, (round..200).step_by(round + 1), round as u64, &mut state);
                db.flush().unwrap();
                check_reads(&db, &state, &[b"absent"]).unwrap();
            }
            assert!(db.stats().value_tables > 0);
            db.compact_range(..).unwrap();
            check_reads(&db, &state, &[b"absent"]).unwrap();
            let (mut iter, map) = (db.range("key-0050".."key-0150").unwrap(), &state["default"]);
            while let Some(entry) = iter.next_lent() {
                let (key, value) = entry.unwrap();
                assert_eq!(map[key], value);
            }
            let mut iter = db.iter().unwrap();
            iter.seek("key-0101");
            assert_eq!(iter.next().unwrap().unwrap().1, map[&b"key-0101"[..]][..]);
            assert_eq!(iter.next_back_lent().unwrap().unwrap().1, map[&b"key-0199"[..]]);
            db.verify().unwrap();
            db.close().unwrap();
            let db = config.sim(fs.clone()).open().unwrap();
            check_reads(&db, &state, &[b"absent"]).unwrap();
            drop(db);
            // What the log held, and what was closed: the same after a crash.
            let db = config.sim(fs.kill()).open().unwrap();
            check_reads(&db, &state, &[b"absent"]).unwrap();
            let stats = db.stats();
            assert!(stats.value_dead_bytes * 2 <= stats.value_bytes, "{stats:?}");
        }
    }
}

#[test]
fn merges_leave_long_values_where_they_are() {
    let fs = SimFs::new(1);
    let db = config(LogIo::Map).sim(fs).open().unwrap();
    let mut state = State::new();
    for round in 0..10 {
        put_all(&db, (round..600).step_by(10), 1, &mut state);
        db.flush().unwrap();
    }
    db.compact_range(..).unwrap();
    let stats = db.stats();
    assert!(stats.compactions > 2, "nothing was merged");
    let values = 400 * LEN as u64;
    assert!((values..values * 11 / 10).contains(&stats.value_bytes), "{stats:?}");
    assert!(stats.flush_bytes_written < stats.value_bytes * 12 / 10, "{stats:?}");
    assert!(stats.compaction_bytes_written < stats.value_bytes / 5, "{stats:?}");
    check_reads(&db, &state, &[]).unwrap();
}

/// Without a call for it: only what flushes bring about.
#[test]
fn space_of_dead_values_comes_back_by_merges() {
    let fs = SimFs::new(1);
    let db = config(LogIo::Map).sim(fs.clone()).open().unwrap();
    let (mut state, mut rng, mut most) = (State::new(), Rng(7), 0.0_f64);
    put_all(&db, 0..300, 0, &mut state);
    for version in 1..=40 {
        let some: Vec<usize> = (0..100).map(|_| rng.below(300)).collect();
        put_all(&db, some.into_iter(), version, &mut state);
        db.flush().unwrap();
        let (all, live) = tables_of(&db.stats());
        most = most.max(all as f64 / live as f64);
    }
    assert!(most < 2.6, "{most} times what is alive");
    check_reads(&db, &state, &[]).unwrap();
    db.compact_range(..).unwrap();
    let stats = db.stats();
    assert!(stats.value_dead_bytes * 2 <= stats.value_bytes, "{stats:?}");
    check_reads(&db, &state, &[]).unwrap();

    // Nothing is left of what was deleted, and what was put under a range delete goes with it.
    for n in 0..300 {
        db.delete(key(n)).unwrap();
    }
    db.compact_range(..).unwrap();
    assert_eq!((db.stats().value_tables, files(&fs)), (0, 0));
    let users = db.keyspace("users").unwrap();
    for n in 0..100 {
        users.put(key(n), value(n, 9)).unwrap();
    }
    db.flush().unwrap();
    assert!(db.stats().value_tables > 0);
    db.drop_keyspace("users").unwrap();
    db.compact_range(..).unwrap();
    assert_eq!((db.stats().value_tables, files(&fs)), (0, 0));
}

/// Few long values beside many short ones, in one keyspace: what a merge of the short ones costs is no reason to keep
/// old versions of the long ones.
#[test]
fn old_versions_of_a_few_long_values_go_beside_many_short_ones() {
    let config = Config { compaction: Default::default(), budget: 4 << 20, ..config(LogIo::Map) };
    let db = config.sim(SimFs::new(1)).open().unwrap();
    for n in 0..30_000 {
        db.put(format!("short-{n:06}"), bytes(n, 40)).unwrap();
    }
    db.compact_range(..).unwrap();
    let (mut state, mut most) = (State::new(), 0);
    let map = state.entry("default".into()).or_default();
    for version in 0..80_u64 {
        for n in 0..8 {
            let (key, value) = (format!("short-{n:06}-long"), bytes(version << 8 | n, 100_000));
            db.put(&key, &value).unwrap();
            map.insert(key.into_bytes(), value);
        }
        db.flush().unwrap();
        most = most.max(db.stats().value_bytes);
    }
    // Of short ones there are some three megabytes, of which six tenths may be above the last level.
    assert!(most < 2 * 800_000 + 3_500_000, "{most} bytes of 800,000 that are alive");
    for (key, value) in map {
        assert_eq!(db.get(key).unwrap().as_deref(), Some(&value[..]));
    }
}

/// A flush after each value: the tables of values are gathered as they come to be many.
#[test]
fn small_tables_of_values_are_gathered() {
    let db = config(LogIo::Map).sim(SimFs::new(1)).open().unwrap();
    let (mut state, mut most) = (State::new(), 0);
    for n in (0..900).filter(|n| n % 3 != 0) {
        put_all(&db, std::iter::once(n), 1, &mut state);
        db.flush().unwrap();
        most = most.max(db.stats().value_tables);
    }
    assert!(most < 100, "{most} tables of values");
    assert!(db.stats().compaction_bytes_written < 8 * 600 * LEN as u64, "{:?}", db.stats());
    check_reads(&db, &state, &[]).unwrap();
}

#[test]
fn who_holds_the_past_has_its_values() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let fs = SimFs::new(1);
        let db = Config { read_mode, ..config(LogIo::Map) }.sim(fs.clone()).open().unwrap();
        let (mut old, mut new) = (State::new(), State::new());
        put_all(&db, 0..90, 1, &mut old);
        db.flush().unwrap();
        let snapshot = db.snapshot();
        let held = db.get(key(1)).unwrap().unwrap();
        let mut iter = db.iter().unwrap();
        let first = iter.next().unwrap().unwrap();
        put_all(&db, 0..90, 2, &mut new);
        db.compact_range(..).unwrap();
        for (key, value) in &old["default"] {
            assert_eq!(snapshot.get(&db.default_keyspace(), key).unwrap().as_deref(), Some(&value[..]));
        }
        drop(snapshot);
        let before = files(&fs);
        put_all(&db, 0..1, 3, &mut new);
        db.compact_range(..).unwrap();
        assert!(files(&fs) < before, "the values of the snapshot are there still");
        // Their files are gone, and what was held is not.
        assert_eq!(*held, value(1, 1));
        let rest: Vec<_> =
            iter.map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        let expected: Vec<_> = old["default"].clone().into_iter().collect();
        assert_eq!((&*first.0, &*first.1), (&*expected[0].0, &*expected[0].1));
        assert_eq!(rest, expected[1..]);
        check_reads(&db, &new, &[]).unwrap();
    }
}

#[test]
fn the_option_may_change_from_open_to_open() {
    let fs = SimFs::new(1);
    let mut state = State::new();
    let lengths = [None, Some(64), Some(5000), None, Some(LEN)];
    for (version, values_apart) in lengths.into_iter().enumerate() {
        let config = Config { values_apart, ..config(LogIo::Map) };
        let db = config.sim(fs.clone()).open().unwrap();
        check_reads(&db, &state, &[]).unwrap();
        put_all(&db, (version..240).step_by(2), version as u64, &mut state);
        db.compact_range(..).unwrap();
        check_reads(&db, &state, &[]).unwrap();
        if values_apart == Some(64) {
            // What a merge hands on in whole blocks stays where it was.
            let written = (1..240).step_by(2).filter(|n| n % 3 != 0).map(|n| value(n, 1).len() as u64);
            assert!(db.stats().value_bytes >= written.sum());
        }
        db.verify().unwrap();
        db.close().unwrap();
    }
    for refused in [0, 1, 63] {
        let error =
            Config { values_apart: Some(refused), ..config(LogIo::Map) }.sim(fs.clone()).open().unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
}

/// The name of the largest table of values, and a place in the value of a key.
fn place_of(fs: &SimFs, value: &[u8]) -> (String, usize) {
    let files: BTreeMap<String, Vec<u8>> = dump(fs);
    let place = |(name, bytes): (&String, &Vec<u8>)| {
        let at = bytes.windows(value.len()).position(|window| window == value)?;
        name.ends_with(".sst").then(|| (name.clone(), at))
    };
    files.iter().find_map(place).unwrap()
}

#[test]
fn a_damaged_value_is_an_error_of_its_key_alone() {
    let fs = SimFs::new(1);
    let config = config(LogIo::Map);
    let db = config.sim(fs.clone()).open().unwrap();
    let mut state = State::new();
    put_all(&db, 0..90, 1, &mut state);
    db.flush().unwrap();
    db.close().unwrap();
    let (name, at) = place_of(&fs, &value(40, 1));
    let mut damaged = dump(&fs)[&name].clone();
    damaged[at + 100] ^= 1;
    write_file(&fs, &name, &damaged);

    let db = config.sim(fs.clone()).open().unwrap();
    for n in 0..90 {
        match db.get(key(n)) {
            Ok(found) => assert_eq!(found.as_deref(), Some(&value(n, 1)[..])),
            Err(Error::Corruption(found)) => assert_eq!((n, &*found.file), (40, &*name)),
            Err(error) => panic!("{n}: {error}"),
        }
    }
    assert!(db.get(key(40)).is_err(), "the damage was not met");
    let mut iter = db.iter().unwrap();
    for n in 0..40 {
        assert_eq!(iter.next().unwrap().unwrap().0, key(n)[..]);
    }
    for _ in 0..3 {
        assert!(
            iter.next().unwrap().is_err() && iter.next_lent().unwrap().is_err(),
            "an error that does not stick"
        );
        assert!(iter.next_back().unwrap().is_err());
    }
    let found = db.verify_with(|_: VerifyProgress| ControlFlow::Continue(())).unwrap();
    assert!(found.damage.iter().all(|damage| *damage.file == *name) && !found.damage.is_empty(), "{found:?}");
    assert!(db.verify().is_err());

    // Most of its table dies: what is alive in it cannot be moved, and nothing is tried again and again for it.
    put_all(&db, (0..90).filter(|n| *n != 40 && *n != 41), 2, &mut state);
    db.compact_range(..).unwrap();
    let (errors, _) = (db.health().errors, db.compact_range(..).unwrap());
    assert!(errors.iter().any(|met| *met.file == *name), "{errors:?}");
    db.compact_range(..).unwrap();
    assert_eq!(db.get(key(41)).unwrap().as_deref(), Some(&value(41, 1)[..]));
    assert!(db.get(key(40)).is_err());
    put_all(&db, 40..42, 3, &mut state);
    db.compact_range(..).unwrap();
    check_reads(&db, &state, &[]).unwrap();
    assert!(!dump(&fs).contains_key(&name), "nothing refers to it any more");
}

#[test]
fn a_table_of_values_that_is_missing_or_another_is_refused() {
    let config = config(LogIo::Map);
    let fs = SimFs::new(1);
    let db = config.sim(fs.clone()).open().unwrap();
    put_all(&db, 0..30, 1, &mut State::new());
    db.flush().unwrap();
    put_all(&db, 30..60, 1, &mut State::new());
    db.flush().unwrap();
    db.close().unwrap();
    let (name, _) = place_of(&fs, &value(40, 1));
    let (other, _) = place_of(&fs, &value(20, 1));
    let (disk, files) = (fs.kill(), dump(&fs));
    disk.remove(&dir().join(&name)).unwrap();
    let error = config.sim(disk).open().unwrap_err();
    assert!(matches!(&error, Error::MissingFile { file } if **file == *name), "{error}");
    let disk = fs.kill();
    write_file(&disk, &name, &files[&other]);
    assert!(config.sim(disk).open().unwrap_err().is_corruption());
}

/// Readers of every kind while values die and are moved under them, on a real disk.
#[test]
fn readers_beside_merges_that_move_values() {
    let root = tempfile::tempdir().unwrap();
    let config = Config { merge_threads: 2, ..config(LogIo::Map) };
    let db = config.real(root.path()).open().unwrap();
    let keys = 60;
    // A value is its version, many times.
    let put = |n: usize, version: u64| db.put(key(n), version.to_le_bytes().repeat(400)).unwrap();
    let version_of = |value: &[u8]| {
        let version: [u8; 8] = value[..8].try_into().unwrap();
        assert!(value.len() == 3200 && value.chunks(8).all(|chunk| chunk == version), "a torn value");
        u64::from_le_bytes(version)
    };
    (0..keys).for_each(|n| put(n, 0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                let (mut rng, mut seen) = (Rng(reader), vec![0; keys]);
                while !done.load(Ordering::Relaxed) {
                    let n = rng.below(keys);
                    let found = version_of(&db.get(key(n)).unwrap().unwrap());
                    assert!(found >= seen[n], "key {n} went back from {} to {found}", seen[n]);
                    seen[n] = found;
                    if rng.one_in(20) {
                        let snapshot = db.snapshot();
                        let entries = || snapshot.iter(&db.default_keyspace()).unwrap();
                        let version = |entry: pebble_db::Result<(Key, Value)>| version_of(&entry.unwrap().1);
                        let there: Vec<_> = entries().map(version).collect();
                        let mut back: Vec<_> = entries().rev().map(version).collect();
                        back.reverse();
                        assert!(there.len() == keys && there == back, "a snapshot that changes");
                    }
                }
            });
        }
        let mut rng = Rng(99);
        for version in 1..=400 {
            (0..20).for_each(|_| put(rng.below(keys), version));
            if version % 25 == 0 {
                db.flush().unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    db.compact_range(..).unwrap();
    let stats = db.stats();
    assert!(stats.value_dead_bytes * 2 <= stats.value_bytes, "{stats:?}");
    db.verify().unwrap();
    db.close().unwrap();
}

#[test]
fn a_process_that_reads_alone_sees_values_that_lie_apart() {
    let fs = SimFs::new(1);
    let config = config(LogIo::Map);
    let db = config.sim(fs.clone()).open().unwrap();
    let mut state = State::new();
    put_all(&db, 0..60, 1, &mut state);
    db.flush().unwrap();
    put_all(&db, 0..9, 2, &mut state);
    drop(db);
    let db = config.sim_with(Arc::new(fs.kill()), Executor::Inline).read_only(true).open().unwrap();
    check_reads(&db, &state, &[]).unwrap();
}
