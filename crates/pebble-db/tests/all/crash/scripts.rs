//! The scripts, and the writes that they are made of.

use pebble_db::{Db, LogIo, Snapshot};

use super::scripted::{COUNTER, Change, KEYS, Scripted, Write, lock};
use crate::support::{bytes, kind, mix};

pub fn key(n: u64) -> Vec<u8> {
    format!("key-{:02}", mix(n) % KEYS).into_bytes()
}

pub fn put(name: &'static str, n: u64, len: usize) -> Write {
    (name, key(n), Change::Put([&n.to_be_bytes()[..], &bytes(n, len)].concat()))
}

pub fn delete(name: &'static str, n: u64) -> Write {
    (name, key(n), Change::Delete)
}

/// A range of the keys, now and then all of them; the counter is never among them.
pub fn delete_range(name: &'static str, n: u64) -> Write {
    let end = if mix(n).is_multiple_of(3) { b"key-~".to_vec() } else { key(n + 1) };
    (name, key(n).min(end.clone()), Change::DeleteRange(end))
}

/// A batch over three keyspaces: puts, a delete, and an equal value under one key in each.
pub fn everywhere(n: u64) -> Vec<Write> {
    let mut writes = vec![put("a", n, 30), put("b", n + 1, 500), delete("a", n + 2)];
    for name in ["default", "a", "b"] {
        writes.push((name, b"equal".to_vec(), Change::Put(n.to_be_bytes().to_vec())));
    }
    writes
}

pub type Script = fn(&mut Scripted);

pub const SCRIPTS: [(&str, Script); 23] = [
    ("create", |run| run.open()),
    ("puts, buffered", |run| {
        run.open();
        for _ in 0..10 {
            run.commit(false, |n| vec![put("default", n, 100)]);
        }
        run.check();
    }),
    ("puts, sync and persist between", |run| {
        run.open();
        for round in 0..12 {
            run.commit(round % 3 == 1, |n| vec![put("default", n, 60), delete("default", n + 1)]);
            if round == 6 {
                run.persist();
            }
        }
    }),
    ("keyspaces and batches", |run| {
        run.open();
        run.keyspace("a");
        run.commit(false, |n| vec![put("a", n, 40)]);
        run.keyspace("b");
        for round in 0..6 {
            run.commit(round % 3 == 2, everywhere);
        }
        run.check();
    }),
    ("rotation and flush", |run| {
        run.open();
        for round in 0..12 {
            run.commit(round % 4 == 3, |n| vec![put("default", n, 2500)]);
        }
        run.flush();
        run.commit(true, |n| vec![put("default", n, 10)]);
        run.commit(false, |n| vec![put("default", n, 10)]);
        run.check();
    }),
    ("mixed durability across a rotation", |run| {
        run.open();
        run.commit(true, |n| vec![put("default", n, 1000)]);
        for round in 0..9 {
            run.commit(round == 5 || round == 8, |n| vec![put("default", n, 1900)]);
        }
        run.commit(false, |n| vec![put("default", n, 20_000)]);
        run.commit(false, |n| vec![put("default", n, 10)]);
        run.persist();
        run.commit(false, |n| vec![put("default", n, 10)]);
    }),
    ("several flushes", |run| {
        run.open();
        run.keyspace("a");
        run.keyspace("b");
        for round in 0..4 {
            run.commit(false, everywhere);
            run.commit(round == 2, |n| vec![delete("b", n), put("default", n, 80)]);
            run.flush();
        }
        run.check();
    }),
    ("a memtable that fills up", |run| {
        run.open();
        for round in 0..9 {
            run.commit(round == 4, |n| vec![put("default", n, 40_000)]);
        }
        run.check();
    }),
    ("snapshot, delete, compact", |run| {
        run.open();
        for _ in 0..8 {
            run.commit(false, |n| vec![put("default", n, 100)]);
        }
        run.flush();
        let before = lock(&run.shared).0.states.last().unwrap().clone();
        let snapshot = run.db().snapshot();
        for n in 0..KEYS {
            run.commit(false, |_| vec![delete("default", n)]);
        }
        run.flush();
        run.compact();
        assert_eq!(held(run.db(), &snapshot), before["default"]);
        drop(snapshot);
        run.commit(true, |n| vec![put("default", n, 10)]);
        run.compact();
        run.check();
    }),
    ("ranges, flushed and merged", |run| {
        run.open();
        run.keyspace("a");
        for round in 0..4 {
            for _ in 0..6 {
                run.commit(false, |n| vec![put("default", n, 200), put("a", n + 7, 200)]);
            }
            run.commit(round == 1, |n| vec![delete_range("default", n), put("default", n, 30)]);
            run.commit(false, |n| vec![delete_range("a", n)]);
            run.flush();
        }
        run.compact();
        run.check();
    }),
    ("a range over whole tables", |run| {
        run.open();
        for _ in 0..10 {
            run.commit(false, |n| vec![put("default", n, 1500)]);
        }
        run.flush();
        run.compact();
        run.commit(false, |_| vec![("default", b"key-".to_vec(), Change::DeleteRange(b"key-~".to_vec()))]);
        run.flush();
        assert!(run.db().stats().covered_bytes_dropped > 0, "no table left unread");
        run.commit(true, |n| vec![put("default", n, 10)]);
        run.check();
    }),
    ("a keyspace dropped, and made again", |run| {
        run.open();
        run.keyspace("a");
        run.keyspace("b");
        for _ in 0..3 {
            run.commit(false, everywhere);
        }
        run.flush();
        run.commit(false, everywhere);
        run.commit(false, |_| vec![("b", Vec::new(), Change::DeleteRange(b"~".to_vec()))]);
        run.drop_keyspace("b");
        run.commit(false, |n| vec![put("a", n, 10)]);
        run.close();
        run.open();
        run.keyspace("b");
        run.commit(true, |n| vec![put("b", n, 10)]);
        run.check();
    }),
    ("reopen three times", |run| {
        for round in 0..4 {
            run.open();
            run.check();
            run.commit(false, |n| vec![put("default", n, 300)]);
            run.commit(round == 1, |n| vec![put("default", n, 30), delete("default", n + 1)]);
            match round {
                0 => run.close(),
                1 => {
                    run.flush();
                    run.drop_db();
                }
                _ => run.close(),
            }
        }
    }),
    ("clean close, then a crash", |run| {
        run.open();
        for _ in 0..5 {
            run.commit(false, |n| vec![put("default", n, 700)]);
        }
        run.close();
    }),
    ("dropped, then a crash", |run| {
        run.open();
        for _ in 0..5 {
            run.commit(false, |n| vec![put("default", n, 700)]);
        }
        run.drop_db();
    }),
    ("killed, and on over what is left", |run| {
        run.open();
        for round in 0..6 {
            run.commit(round == 2, |n| vec![put("default", n, 900)]);
        }
        let left = run.fs.kill();
        // The process is gone: what its handle still does happens to a disk that nobody looks at any more.
        run.watch_instead(left);
        run.open();
        run.check();
        for round in 0..4 {
            run.commit(round == 1, |n| vec![put("default", n, 900)]);
        }
        run.flush();
        run.close();
    }),
    ("disk full, then space again", |run| {
        run.open();
        run.commit(true, |n| vec![put("default", n, 100)]);
        let used: usize = crate::support::dump(&run.fs).values().map(Vec::len).sum();
        run.fs.set_capacity(Some(used as u64 + 9000));
        let mut refused = 0;
        for _ in 0..12 {
            if let Err(error) = run.try_commit(false, |n| vec![put("default", n, 1800)]) {
                assert_eq!(kind(&error), "NoSpace", "{error}");
                refused += 1;
                run.check();
            }
        }
        assert!(refused > 0, "the disk was never full");
        run.fs.set_capacity(None);
        for round in 0..4 {
            run.commit(round == 2, |n| vec![put("default", n, 1800)]);
        }
        run.check();
        run.flush();
        run.close();
    }),
    ("large values over segments of their own", |run| {
        run.open();
        for (round, len) in [30_000, 10, 70_000, 500, 17_000, 16_384].into_iter().enumerate() {
            run.commit(round == 2, |n| vec![put("default", n, len), delete("default", n + 3)]);
        }
        run.flush();
        run.commit(false, |n| vec![put("default", n, 40_000)]);
        run.check();
        run.compact();
        run.persist();
    }),
    ("merges of many small runs", |run| {
        run.open();
        run.keyspace("a");
        for round in 0..9 {
            run.commit(round % 4 == 1, |n| vec![put("default", n, 150), put("a", n, 900)]);
            run.commit(false, |n| vec![delete("a", n + 1), put("default", n + 2, 20)]);
            run.flush();
        }
        run.compact();
        run.check();
        run.close();
    }),
    ("the other log mode at each reopen", |run| {
        for round in 0..4 {
            run.open();
            run.check();
            for _ in 0..3 {
                run.commit(round == 1, |n| vec![put("default", n, 800), delete("default", n + 1)]);
            }
            if round % 2 == 0 {
                run.drop_db();
            } else {
                run.close();
            }
            run.config.log_io = if run.config.log_io == LogIo::Map { LogIo::Write } else { LogIo::Map };
            run.watch("the other log mode");
        }
    }),
    ("disk full in a flush, then space again", |run| {
        run.open();
        for _ in 0..6 {
            run.commit(false, |n| vec![put("default", n, 900)]);
        }
        let used: usize = crate::support::dump(&run.fs).values().map(Vec::len).sum();
        run.fs.set_capacity(Some(used as u64 + 2000));
        let error = run.db().flush().and_then(|()| run.db().compact_range(..)).unwrap_err();
        assert_eq!(kind(&error), "NoSpace", "{error}");
        run.check();
        run.fs.set_capacity(None);
        run.flush();
        run.commit(true, |n| vec![put("default", n, 900)]);
        run.compact();
        run.check();
    }),
    ("iterators and values held over flushes and merges", |run| {
        run.open();
        for _ in 0..6 {
            run.commit(false, |n| vec![put("default", n, 700)]);
        }
        let before = lock(&run.shared).0.states.last().unwrap()["default"].clone();
        let mut iter = run.db().iter().unwrap();
        let value = run.db().get(COUNTER).unwrap().unwrap();
        for round in 0..5 {
            run.commit(round == 3, |n| vec![put("default", n, 1900), delete("default", n + 1)]);
            run.flush();
        }
        run.compact();
        let walked: Vec<_> = iter.by_ref().map(|entry| entry.unwrap().0.to_vec()).collect();
        assert_eq!(walked, before.into_keys().collect::<Vec<_>>());
        assert_eq!(*value, 6_u64.to_be_bytes());
        drop((iter, value));
        run.commit(false, |n| vec![put("default", n, 10)]);
        run.check();
    }),
    ("values that die and are moved", |run| {
        run.open();
        for round in 0..5 {
            for _ in 0..5 {
                run.commit(false, |n| vec![put("default", n, 300), put("default", n + 3, 30)]);
            }
            run.commit(round == 2, |n| vec![put("default", n, 90)]);
            run.flush();
        }
        run.compact();
        let stats = run.db().stats();
        assert!(stats.value_dead_bytes * 2 <= stats.value_bytes, "dead values stay: {stats:?}");
        run.check();
    }),
];

/// The default keyspace as a snapshot sees it.
fn held(db: &Db, snapshot: &Snapshot) -> crate::support::Map {
    let entries = snapshot.iter(&db.default_keyspace()).unwrap();
    entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}
