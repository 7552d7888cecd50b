//! Opening for reading: shared, and without a trace on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pebble_db::{Db, Error, LogIo, ReadMode, WriteBatch, WriteOptions};
use pebble_vfs::{Fs, SimFs};

use crate::campaign;
use crate::support::{Config, LOG_MODES, State, bytes, check_reads, dir, dump, kind, scan};

/// All that a directory and its files show to who looks at them.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    inode: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: Option<Vec<u8>>,
}

fn shown(path: &Path) -> BTreeMap<String, Shown> {
    let of = |path: &Path| {
        let metadata = fs::symlink_metadata(path).unwrap();
        Shown {
            inode: metadata.ino(),
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            bytes: metadata.is_file().then(|| fs::read(path).unwrap()),
        }
    };
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let mut all: BTreeMap<_, _> =
        files.map(|entry| (entry.file_name().into_string().unwrap(), of(&entry.path()))).collect();
    all.insert(".".into(), of(path));
    all
}

fn fill(db: &Db) -> State {
    let users = db.keyspace("users").unwrap();
    for n in 0..40_u64 {
        db.put(format!("key-{n:02}"), bytes(n, 50)).unwrap();
    }
    db.flush().unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&users, "ann", "1").delete(&db.default_keyspace(), "key-03");
    db.write_with(batch, &WriteOptions::sync()).unwrap();
    db.delete_range("key-10".."key-20").unwrap();
    db.put("log", "only").unwrap();
    scan(db).unwrap()
}

fn read_everything(db: &Db, expected: &State) {
    check_reads(db, expected, &[b"key-03", b"key-12", b"absent"]).unwrap();
    let snapshot = db.snapshot();
    assert_eq!(snapshot.get(&db.default_keyspace(), "log").unwrap().as_deref(), Some(&b"only"[..]));
    assert!(db.verify().unwrap().iter().all(|report| report.records > 0));
    assert!(db.verify_with(|_| std::ops::ControlFlow::Continue(())).unwrap().damage.is_empty());
    _ = (db.stats(), db.health(), db.recovery());
}

fn refuses_writes(db: &Db) {
    let users = db.keyspace("users").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&users, "bob", "2");
    let tried = [
        db.put("k", "v"),
        db.delete("key-01"),
        db.delete_range("a".."b"),
        users.put("k", "v"),
        users.clear(),
        db.write(batch.clone()),
        db.write(WriteBatch::new()),
        db.try_write(&batch, &WriteOptions::sync()),
        db.flush(),
        db.persist(),
        db.compact_range(..),
        db.compact_range("a".."z"),
        db.keyspace("new").map(|_| ()),
        db.drop_keyspace("users").map(|_| ()),
    ];
    for (number, tried) in tried.into_iter().enumerate() {
        let error = tried.unwrap_err();
        assert!(matches!(error, Error::ReadOnly { .. }), "write {number}: {error}");
    }
}

#[test]
fn a_real_directory_is_byte_for_byte_and_stamp_for_stamp_as_it_was() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for read_mode in [ReadMode::Map, ReadMode::Pread] {
            for is_closed in [true, false] {
                for has_lock in [true, false] {
                    let temp = tempfile::tempdir().unwrap();
                    let (origin, path) = (temp.path().join("origin"), temp.path().join("db"));
                    let config = Config { read_mode, ..Config::tiny(log_io) };
                    let db = config.real(&origin).open().unwrap();
                    let expected = fill(&db);
                    if is_closed {
                        db.close().unwrap();
                    }
                    // As a kill would leave it.
                    fs::create_dir(&path).unwrap();
                    for (name, file) in shown(&origin).into_iter().filter(|(name, _)| name != ".") {
                        if has_lock || name != "LOCK" {
                            fs::write(path.join(name), file.bytes.unwrap()).unwrap();
                        }
                    }
                    fs::write(path.join("notes.txt"), "mine").unwrap();
                    let before = shown(&path);
                    let open = || config.real(&path).read_only(true).open().unwrap();
                    let (one, two) = (open(), open());
                    read_everything(&one, &expected);
                    refuses_writes(&one);
                    one.close().unwrap();
                    read_everything(&two, &expected);
                    assert_eq!(two.recovery().clean, is_closed);
                    drop(two);
                    assert!(shown(&path) == before, "{config:?}, closed: {is_closed}, lock: {has_lock}");
                    cases += 1;
                }
            }
        }
    }
    campaign::count(&["second-open", "I8"], "cases", cases);
}

#[test]
fn a_simulated_disk_sees_no_event() {
    for log_io in LOG_MODES {
        let fs = SimFs::new(1);
        let config = Config::tiny(log_io);
        let db = config.sim(fs.clone()).open().unwrap();
        let expected = fill(&db);
        for image in [fs.kill(), fs.crash(1), fs.crash(2)] {
            let (before, events) = (dump(&image), image.events());
            let db = config.sim(image.clone()).read_only(true).open().unwrap();
            if !scan(&db).unwrap().get("default").is_some_and(|map| map.contains_key(&b"log"[..])) {
                // A power cut took what was not synced.
                assert!(scan(&db).unwrap()["default"].contains_key(&b"key-01"[..]));
            } else {
                read_everything(&db, &expected);
            }
            refuses_writes(&db);
            db.close().unwrap();
            assert_eq!((dump(&image), image.events()), (before, events));
        }
    }
    campaign::count(&["second-open", "I8"], "images", 6);
}

#[test]
fn readers_share_and_a_writer_excludes_them() {
    let fs = SimFs::new(1);
    let config = Config::tiny(LogIo::Map);
    let read = || config.sim(fs.clone()).read_only(true).open();
    let write = || config.sim(fs.clone()).open();
    assert_eq!(kind(&read().unwrap_err()), "NotADatabase");
    assert!(fs.metadata(dir()).unwrap().is_none(), "a read-only open made the directory");
    let writer = write().unwrap();
    writer.put("k", "v").unwrap();
    assert_eq!(kind(&read().unwrap_err()), "Locked");
    writer.put("k", "w").unwrap();
    writer.close().unwrap();
    let readers = [read().unwrap(), read().unwrap()];
    assert_eq!(kind(&write().unwrap_err()), "Locked");
    for reader in &readers {
        assert_eq!(reader.get("k").unwrap().as_deref(), Some(&b"w"[..]));
    }
    let [first, second] = readers;
    first.close().unwrap();
    assert_eq!(kind(&first.get("k").unwrap_err()), "Closed");
    assert_eq!(kind(&write().unwrap_err()), "Locked");
    drop(second);
    write().unwrap().close().unwrap();
    campaign::count(&["second-open"], "cases", 1);
}
