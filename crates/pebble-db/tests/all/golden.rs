//! Databases that were written once and stay as they are, under `testdata/`: each is opened as a copy, and holds what
//! its listing says, or gives the kind of error that it was frozen with.
//!
//! ```text
//!     testdata/<formats>/<name>/db/           the directory of a database
//!                              /listing.txt   what is in it: a line for a keyspace, one for each entry
//!                              /error.txt     instead: the kind of error that opening or reading it gives
//! ```
//!
//! `PEBBLE_GOLDEN=<formats> cargo test -p pebble-db --features zstd --test all make_a_new_set -- --ignored` makes a set
//! for a new format. What is there is never written again.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pebble_db::{
    Components, Compression, Db, Executor, LogIo, PointIndex, ReadMode, WriteBatch, WriteOptions,
};
use pebble_vfs::{ManualClock, OsFs};

use crate::campaign;
use crate::support::{Config, State, bytes, check_reads, kind, scan};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A keyspace's name, then its entries, each with everything but plain ASCII escaped.
fn listing(state: &State) -> String {
    let mut text = String::new();
    for (name, entries) in state {
        writeln!(text, "keyspace {}", name.escape_default()).unwrap();
        for (key, value) in entries {
            writeln!(text, "  {} = {}", key.escape_ascii(), value.escape_ascii()).unwrap();
        }
    }
    text
}

fn open(path: &Path, read_mode: ReadMode, log_io: LogIo) -> pebble_db::Result<Db> {
    let config = Config { read_mode, ..Config::tiny(log_io) };
    let components =
        Components { fs: Arc::new(OsFs), clock: Arc::new(ManualClock::new()), executor: Executor::Inline };
    config.apply(Db::builder(path)).sync_interval(None).components(components).create_if_missing(false).open()
}

/// Every way to open and read it; each on a copy of its own.
fn whole(golden: &Path, expected: &str) {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        for log_io in [LogIo::Map, LogIo::Write] {
            let root = tempfile::tempdir().unwrap();
            let copy = root.path().join("db");
            copy_files(&golden.join("db"), &copy);
            let db = open(&copy, read_mode, log_io).unwrap_or_else(|error| panic!("{golden:?}: {error}"));
            let state = scan(&db).unwrap();
            assert!(listing(&state) == expected, "{golden:?}: not as it was:\n{}", listing(&state));
            check_reads(&db, &state, &[b"absent"]).unwrap();
            db.verify().unwrap();
            // It is a database like any other: written to, merged into what this build writes, opened again.
            db.put_with("a new key", "1", &WriteOptions::sync()).unwrap();
            db.compact_range(..).unwrap();
            db.delete("a new key").unwrap();
            db.close().unwrap();
            let db = open(&copy, read_mode, log_io).unwrap();
            assert!(listing(&scan(&db).unwrap()) == expected, "{golden:?}: changed by merges");
        }
    }
}

/// The first error that opening, a scan or a verification gives; the files stay as they are if it is the open's.
fn damaged(golden: &Path, expected: &str) {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let root = tempfile::tempdir().unwrap();
        let copy = root.path().join("db");
        copy_files(&golden.join("db"), &copy);
        let error = match open(&copy, read_mode, LogIo::Map) {
            Ok(db) => scan(&db).and_then(|_| db.verify()).expect_err("damage that is not told"),
            Err(refused) => {
                for entry in std::fs::read_dir(golden.join("db")).unwrap() {
                    let name = entry.unwrap().file_name();
                    let was = std::fs::read(golden.join("db").join(&name)).unwrap();
                    assert!(std::fs::read(copy.join(&name)).unwrap() == was, "{golden:?}: {name:?} changed");
                }
                refused
            }
        };
        assert_eq!(kind(&error), expected.trim(), "{golden:?}: {error}");
    }
}

#[test]
fn databases_of_every_format_hold_what_they_held() {
    let (mut good, mut bad) = (0, 0);
    for golden in directories(&testdata()).iter().flat_map(|set| directories(set)) {
        let needs_zstd = golden.ends_with("zstd") && !cfg!(feature = "zstd");
        let text = |name: &str| std::fs::read_to_string(golden.join(name)).ok();
        match (text("listing.txt"), text("error.txt")) {
            (Some(_), None) if needs_zstd => {
                damaged(&golden, "UnsupportedCodec");
                campaign::count(&["no-codec", "I8"], "cases", 2);
            }
            (Some(expected), None) => {
                whole(&golden, &expected);
                good += 1;
            }
            (None, Some(expected)) => {
                damaged(&golden, &expected);
                bad += 1;
            }
            _ => panic!("{golden:?} needs a listing or an error"),
        }
    }
    println!("golden: {good} databases as they were, {bad} damaged ones told");
    assert!(good >= 4 && bad >= 6, "{good} good ones, {bad} damaged ones");
    campaign::count(&["I4", "I8"], "cases", 4 * good + 2 * bad);
}

struct Maker {
    set: PathBuf,
}

impl Maker {
    /// A database of all that there is. `None` closes it, else what a kill leaves is kept.
    fn make(&self, name: &str, config: &Config, killed: bool) {
        let home = self.set.join(name);
        let components = Components {
            fs: Arc::new(OsFs),
            clock: Arc::new(ManualClock::new()),
            executor: Executor::Inline,
        };
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("db");
        let db = config.apply(Db::builder(&path)).sync_interval(None).components(components).open().unwrap();
        let (users, mails) = (db.keyspace("users").unwrap(), db.keyspace("mails \u{e9}").unwrap());
        // Even ones, then odd ones, so that there is something to merge.
        for n in (0..60_u64).step_by(2).chain((1..60).step_by(2)) {
            if n == 1 {
                db.flush().unwrap();
            }
            users.put(format!("user-{n:03}"), format!("name {n}, ").repeat(4)).unwrap();
            db.put(n.to_be_bytes(), bytes(n, 20)).unwrap();
        }
        mails.put("", "empty key").unwrap();
        mails.put("empty value", "").unwrap();
        mails.put("long", bytes(1, 3000)).unwrap();
        db.flush().unwrap();
        db.compact_range(..).unwrap();
        users.delete_range("user-010".."user-020").unwrap();
        users.delete("user-030").unwrap();
        users.put("user-015", "back again").unwrap();
        let dropped = db.keyspace("dropped").unwrap();
        dropped.put("gone", "gone").unwrap();
        db.drop_keyspace("dropped").unwrap();
        db.flush().unwrap();
        let mut batch = WriteBatch::new();
        batch.put(&users, "both", "1").put(&mails, "both", "2").delete(&users, "user-031");
        db.write_with(batch, &WriteOptions::sync()).unwrap();
        db.delete_prefix([0, 0, 0, 0, 0, 0, 0, 7]).unwrap();
        users.delete_prefix("user-05").unwrap();
        db.put("last", "in the log").unwrap();
        let state = scan(&db).unwrap();
        if !killed {
            db.close().unwrap();
        }
        copy_files(&path, &home.join("db"));
        std::fs::write(home.join("listing.txt"), listing(&state)).unwrap();
    }

    /// A copy of another one of the set, with damage done to it; the error's kind is written down as it is.
    fn damage(&self, name: &str, from: &str, damage: impl FnOnce(&Path)) {
        let home = self.set.join(name);
        copy_files(&self.set.join(from).join("db"), &home.join("db"));
        damage(&home.join("db"));
        let work = tempfile::tempdir().unwrap();
        copy_files(&home.join("db"), &work.path().join("db"));
        let told = open(&work.path().join("db"), ReadMode::Map, LogIo::Map).and_then(|db| {
            scan(&db)?;
            db.verify().map(drop)
        });
        std::fs::write(home.join("error.txt"), format!("{}\n", kind(&told.unwrap_err()))).unwrap();
    }
}

fn file_of(db: &Path, kind: &str) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(db).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().find(|path| path.to_str().unwrap().contains(kind)).unwrap()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Not a test: makes the set that `PEBBLE_GOLDEN` names, which must not be there.
#[test]
#[ignore = "makes files in the repository"]
fn make_a_new_set() {
    let name = std::env::var("PEBBLE_GOLDEN").expect("the name of the set");
    let maker = Maker { set: testdata().join(name) };
    std::fs::create_dir(&maker.set).expect("a set is made once");
    let mapped = Config { compression: Compression::Lz4, block_len: 512, ..Config::tiny(LogIo::Map) };
    let written = Config { index: PointIndex::Bloom { bits_per_key: 10 }, ..Config::tiny(LogIo::Write) };
    let plain = Config { index: PointIndex::None, block_len: 4096, ..Config::tiny(LogIo::Map) };
    maker.make("mapped-lz4-closed", &mapped, false);
    maker.make("mapped-lz4-killed", &mapped, true);
    maker.make("written-bloom-closed", &written, false);
    maker.make("written-bloom-killed", &written, true);
    maker.make("mapped-plain-closed", &plain, false);
    #[cfg(feature = "zstd")]
    {
        let compression = Compression::Zstd { level: 3, dictionary: false };
        maker.make("zstd", &Config { compression, ..mapped }, false);
    }
    maker.damage("damaged-current", "mapped-lz4-closed", |db| {
        change(&db.join("CURRENT"), |bytes| bytes[10] ^= 1);
    });
    maker.damage("damaged-manifest", "mapped-lz4-closed", |db| {
        change(&file_of(db, "MANIFEST"), |bytes| bytes[70] ^= 0x20);
    });
    maker.damage("damaged-table", "written-bloom-closed", |db| {
        change(&file_of(db, ".sst"), |bytes| bytes[100] ^= 4);
    });
    maker.damage("damaged-footer", "mapped-plain-closed", |db| {
        change(&file_of(db, ".sst"), |bytes| {
            let at = bytes.len() - 90;
            bytes[at] ^= 0x40;
        });
    });
    maker.damage("damaged-log", "written-bloom-closed", |db| {
        change(&file_of(db, ".log"), |bytes| bytes[130] ^= 1);
    });
    maker.damage("cut-table", "mapped-lz4-closed", |db| {
        change(&file_of(db, ".sst"), |bytes| bytes.truncate(bytes.len() - 64));
    });
    maker.damage("missing-table", "mapped-lz4-closed", |db| {
        std::fs::remove_file(file_of(db, ".sst")).unwrap();
    });
    maker.damage("missing-current", "written-bloom-killed", |db| {
        std::fs::remove_file(db.join("CURRENT")).unwrap();
    });
    maker.damage("missing-log", "mapped-plain-closed", |db| {
        std::fs::remove_file(file_of(db, ".log")).unwrap();
    });
    maker.damage("newer-log", "mapped-lz4-closed", |db| {
        change(&file_of(db, ".log"), |bytes| bytes[8] = 200);
    });
}
