//! Threads on a real disk, with memtables so small that flushes and merges never rest.
//!
//! Every test is a fixed amount of work, never a span of time, and holds whatever the schedule.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use pebble_db::{Db, Keyspace, LogIo, ReadMode, WriteBatch, WriteOptions};

use crate::support::{Config, LOG_MODES, Rng, bytes, mix};

/// A database with small everything in a directory that goes when the guard does.
fn opened(log_io: LogIo, read_mode: ReadMode) -> (tempfile::TempDir, Config, Db) {
    let root = tempfile::tempdir().unwrap();
    let config = Config { block_len: 512, table_len: 16 << 10, read_mode, ..Config::tiny(log_io) };
    let db = config.real(&root.path().join("db")).open().unwrap();
    (root, config, db)
}

fn number(value: Option<pebble_db::Value>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value[..8].try_into().unwrap()))
}

/// Accounts over two keyspaces between which transfers move money: every snapshot sees the same sum, however its
/// entries are read, and twice the same.
#[test]
fn a_snapshot_sees_batches_whole_and_never_changes() {
    const ACCOUNTS: u64 = 16;
    const EACH: u64 = 1000;
    for (log_io, read_mode) in LOG_MODES.into_iter().zip([ReadMode::Map, ReadMode::Pread]) {
        let (_root, _, db) = opened(log_io, read_mode);
        let spaces = [db.keyspace("left").unwrap(), db.keyspace("right").unwrap()];
        let key = |account: u64| format!("account {account:02}");
        let balance = |amount: u64, seed: u64| [&amount.to_be_bytes()[..], &bytes(seed, 400)].concat();
        let mut batch = WriteBatch::new();
        for account in 0..ACCOUNTS {
            for space in &spaces {
                batch.put(space, key(account), balance(EACH, account));
            }
        }
        db.write(batch).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let (spaces, done, db) = (&spaces, &done, &db);
            let writers: Vec<_> = (0..2_u64)
                .map(|writer| {
                    scope.spawn(move || {
                        let mut rng = Rng(writer);
                        // Each writer has accounts of its own, so that reading them before writing is no race.
                        let own = |rng: &mut Rng| rng.next() % (ACCOUNTS / 2) * 2 + writer;
                        for n in 0..600 {
                            let (from, to) = (own(&mut rng), own(&mut rng));
                            let (a, b) = (&spaces[0], &spaces[1]);
                            let (have, has) =
                                (number(a.get(key(from)).unwrap()), number(b.get(key(to)).unwrap()));
                            let moved = rng.next() % (have + 1);
                            let mut batch = WriteBatch::new();
                            batch.put(a, key(from), balance(have - moved, n));
                            batch.put(b, key(to), balance(has + moved, n));
                            if rng.one_in(3) {
                                // And back, in the same commit: the later one wins.
                                batch.put(a, key(from), balance(have, n)).put(b, key(to), balance(has, n));
                            }
                            db.write(batch).unwrap();
                        }
                    })
                })
                .collect();
            for reader in 0..2 {
                scope.spawn(move || {
                    let mut rounds = 0;
                    while rounds < 20 || !done.load(SeqCst) {
                        let snapshot = db.snapshot();
                        let read = |backward: bool| -> Vec<u64> {
                            let mut amounts = Vec::new();
                            for space in spaces {
                                let iter = snapshot.iter(space).unwrap();
                                let amount =
                                    |entry: pebble_db::Result<(pebble_db::Key, pebble_db::Value)>| {
                                        number(Some(entry.unwrap().1))
                                    };
                                let mut part: Vec<u64> = if backward {
                                    iter.rev().map(amount).collect()
                                } else {
                                    iter.map(amount).collect()
                                };
                                if backward {
                                    part.reverse();
                                }
                                amounts.extend(part);
                            }
                            amounts
                        };
                        let first = read(reader == 0);
                        assert_eq!(first.iter().sum::<u64>(), 2 * ACCOUNTS * EACH);
                        thread::yield_now();
                        assert_eq!(read(reader != 0), first, "a snapshot changed");
                        for account in 0..ACCOUNTS {
                            let found = number(snapshot.get(&spaces[0], key(account)).unwrap());
                            assert_eq!(found, first[usize::try_from(account).unwrap()]);
                        }
                        rounds += 1;
                    }
                });
            }
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, SeqCst);
        });
        db.flush().unwrap();
        assert!(db.stats().flushes > 2, "the memtables were not small enough: {:?}", db.stats());
        db.verify().unwrap();
    }
}

/// An iterator is one state of its keyspace: within it, all entries of a batch have the same number.
#[test]
fn an_iterator_sees_batches_whole() {
    let (_root, _, db) = opened(LogIo::Map, ReadMode::Map);
    let space = db.keyspace("equal").unwrap();
    let write = |n: u64| {
        let mut batch = WriteBatch::new();
        for key in 0..20_u8 {
            batch.put(&space, [key], [&n.to_be_bytes()[..], &bytes(n, 100)].concat());
        }
        db.write(batch).unwrap();
    };
    write(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for backward in [false, true] {
            let (space, done) = (&space, &done);
            scope.spawn(move || {
                let mut last = 0;
                let mut rounds = 0;
                while rounds < 20 || !done.load(SeqCst) {
                    let iter = space.iter().unwrap();
                    let entries: Vec<_> = if backward { iter.rev().collect() } else { iter.collect() };
                    let numbers: Vec<u64> =
                        entries.into_iter().map(|entry| number(Some(entry.unwrap().1))).collect();
                    assert_eq!(numbers.len(), 20);
                    assert!(numbers.iter().all(|n| *n == numbers[0]), "a batch was torn: {numbers:?}");
                    assert!(numbers[0] >= last, "time went back");
                    last = numbers[0];
                    rounds += 1;
                }
            });
        }
        for n in 1..=800 {
            write(n);
        }
        done.store(true, SeqCst);
    });
    db.flush().unwrap();
    assert!(db.stats().flushes > 2);
}

/// What a thread was told is done, it reads; and what others were told before it began to read.
#[test]
fn every_thread_reads_what_was_acknowledged() {
    for log_io in LOG_MODES {
        let (_root, config, db) = opened(log_io, ReadMode::Map);
        let told: [AtomicU64; 4] = Default::default();
        thread::scope(|scope| {
            for writer in 0..4_usize {
                let (db, told) = (db.clone(), &told);
                scope.spawn(move || {
                    let key = |of: usize| format!("counter {of}");
                    for n in 1..=400_u64 {
                        let value = [&n.to_be_bytes()[..], &bytes(n, 200)].concat();
                        let options =
                            if n % 50 == 0 { WriteOptions::sync() } else { WriteOptions::buffered() };
                        db.put_with(key(writer), value, &options).unwrap();
                        told[writer].store(n, SeqCst);
                        assert_eq!(number(db.get(key(writer)).unwrap()), n, "its own write");
                        let other = usize::try_from(mix(n) % 4).unwrap();
                        let floor = told[other].load(SeqCst);
                        assert!(number(db.get(key(other)).unwrap()) >= floor, "another's write");
                        if n % 100 == 0 && writer == 0 {
                            db.flush().unwrap();
                        }
                        if n % 133 == 0 && writer == 1 {
                            db.compact_range(..).unwrap();
                        }
                    }
                });
            }
        });
        db.close().unwrap();
        let db = config.real(&_root.path().join("db")).open().unwrap();
        for writer in 0..4 {
            assert_eq!(number(db.get(format!("counter {writer}")).unwrap()), 400);
        }
    }
}

/// A memtable that finds its keys' prefix late is replaced by one that knows it: a reader, an iterator and a snapshot
/// that were there before go on with what they had, and every get finds what was acknowledged before it.
#[test]
fn a_memtable_that_learns_its_prefix_loses_nobody() {
    let key = |n: u64| format!("a prefix that is longer than heads are, and then a number: {n:012}");
    for round in 0..20_u64 {
        let root = tempfile::tempdir().unwrap();
        let db = Db::open(root.path().join("db")).unwrap();
        (0..50).for_each(|n| db.put(key(n * 1_000), n.to_be_bytes()).unwrap());
        let (snapshot, mut iter) = (db.snapshot(), db.iter().unwrap());
        assert_eq!(number(Some(iter.next().unwrap().unwrap().1)), 0);
        let told = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=4_000 {
                    db.put(key(n), n.to_be_bytes()).unwrap();
                    told.store(n, SeqCst);
                }
            });
            for thread in 0..2 {
                let (db, told) = (&db, &told);
                scope.spawn(move || {
                    let mut asked = 0;
                    while asked < 4_000 {
                        asked = told.load(SeqCst);
                        let n = if asked == 0 { continue } else { 1 + mix(round + thread + asked) % asked };
                        assert_eq!(number(db.get(key(n)).unwrap()), n);
                        assert_eq!(number(db.get(key(asked)).unwrap()), asked);
                    }
                });
            }
        });
        assert_eq!(iter.count(), 49);
        assert_eq!(snapshot.iter(&db.default_keyspace()).unwrap().count(), 50);
        assert_eq!(db.iter().unwrap().count(), 4_000 + 46);
        db.close().unwrap();
    }
}

/// Keyspaces that many threads ask for at once are one keyspace each.
#[test]
fn a_keyspace_is_made_once() {
    let (_root, _, db) = opened(LogIo::Map, ReadMode::Map);
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let db = db.clone();
            scope.spawn(move || {
                for n in 0..8 {
                    db.keyspace(&format!("space {n}")).unwrap().put([thread], [thread]).unwrap();
                }
            });
        }
    });
    assert_eq!(db.keyspaces().len(), 9);
    for n in 0..8 {
        assert_eq!(db.keyspace(&format!("space {n}")).unwrap().iter().unwrap().count(), 4);
    }
}

/// Values, iterators and snapshots that are held while everything under them is flushed, merged and closed.
#[test]
fn what_is_held_keeps_its_bytes() {
    for (log_io, read_mode) in LOG_MODES.into_iter().zip([ReadMode::Map, ReadMode::Pread]) {
        let (_root, _, db) = opened(log_io, read_mode);
        let space = db.keyspace("held").unwrap();
        let key = |n: u64| format!("{:03}", n % 100);
        let mut held = Vec::new();
        let mut iters = Vec::new();
        for n in 0..2000_u64 {
            space.put(key(n), bytes(n, 300)).unwrap();
            if n % 37 == 0 {
                held.push((n, space.get(key(n)).unwrap().unwrap()));
            }
            if n % 500 == 499 {
                iters.push((n, space.iter().unwrap(), space.iter().unwrap().rev()));
            }
        }
        db.flush().unwrap();
        held.push((1999, space.get(key(1999)).unwrap().unwrap()));
        db.compact_range(..).unwrap();
        db.close().unwrap();
        drop((space, db));
        for (n, value) in held {
            assert!(value == bytes(n, 300)[..], "value {n}");
        }
        for (last, forward, backward) in iters {
            let wanted: Vec<_> = (last - 99..=last).map(|n| (key(n).into_bytes(), bytes(n, 300))).collect();
            let owned = |entry: pebble_db::Result<(pebble_db::Key, pebble_db::Value)>| {
                let (key, value) = entry.unwrap();
                (key.to_vec(), value.to_vec())
            };
            assert!(forward.map(owned).eq(wanted.iter().cloned()), "iterator at {last}");
            assert!(backward.map(owned).eq(wanted.into_iter().rev()), "reverse iterator at {last}");
        }
    }
}

/// Close while others write and read: each call is done or says that the database is closed, and what was
/// acknowledged is there afterwards.
#[test]
fn a_close_among_writers_loses_nothing() {
    for round in 0..6_u64 {
        let (root, config, db) = opened(LOG_MODES[(round % 2) as usize], ReadMode::Map);
        let told: [AtomicU64; 3] = Default::default();
        thread::scope(|scope| {
            for writer in 0..3 {
                let (db, told) = (db.clone(), &told[writer]);
                scope.spawn(move || {
                    for n in 1_u64.. {
                        let value = [&n.to_be_bytes()[..], &[0; 200]].concat();
                        match db.put(writer.to_string(), value) {
                            Ok(()) => told.store(n, SeqCst),
                            Err(error) => {
                                assert_eq!(crate::support::kind(&error), "Closed", "{error}");
                                break;
                            }
                        }
                    }
                });
            }
            while told.iter().any(|told| told.load(SeqCst) < 100 * round) {
                thread::yield_now();
            }
            db.close().unwrap();
        });
        let reopened = config.real(&root.path().join("db")).open().unwrap();
        for (writer, told) in told.iter().enumerate() {
            assert_eq!(number(reopened.get(writer.to_string()).unwrap()), told.load(SeqCst));
        }
    }
}

/// The last handle that is dropped closes: a keyspace, a snapshot or a batch may be it, on any thread.
#[test]
fn a_drop_without_close_is_a_close() {
    let (root, config, db) = opened(LogIo::Map, ReadMode::Map);
    let path = root.path().join("db");
    let space: Keyspace = db.keyspace("a").unwrap();
    for n in 0..500_u64 {
        space.put(n.to_be_bytes(), bytes(n, 500)).unwrap();
    }
    drop(db);
    let snapshot = space.db().snapshot();
    drop(space);
    thread::spawn(move || drop(snapshot)).join().unwrap();
    let db = config.real(&path).open().unwrap();
    assert!(db.recovery().clean, "{:?}", db.recovery());
    let entries = db.keyspace("a").unwrap().iter().unwrap();
    for (n, entry) in (0..500_u64).zip(entries) {
        let (key, value) = entry.unwrap();
        assert_eq!(*key, n.to_be_bytes());
        assert!(value == bytes(n, 500)[..]);
    }
}
