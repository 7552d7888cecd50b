//! What is kept from callers and strangers: a second open, what is longer than a limit, the content of a database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pebble_db::{Components, Db, Error, Executor, LogIo, WriteBatch, WriteOptions, limits};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::{ManualClock, SimFs};

use super::bench::Bench;
use super::listen;
use crate::support::{Config, LOG_MODES, dir, dump, kind, scan, write_file};
use crate::{campaign, limits as calls};

/// In this process and in another, at once, and without a trace; the first one goes on.
#[test]
fn second_open() {
    let fs = SimFs::new(1);
    let clock = Arc::new(ManualClock::new());
    let components =
        || Components { fs: Arc::new(fs.clone()), clock: clock.clone(), executor: Executor::Inline };
    let db = Db::builder(dir()).components(components()).open().unwrap();
    db.put("k", "v").unwrap();
    let (before, events, files) = (pebble_vfs::Clock::now(&*clock), fs.events(), dump(&fs));
    for create in [true, false] {
        let second = Db::builder(dir()).components(components()).create_if_missing(create).open();
        assert_eq!(kind(&second.unwrap_err()), "Locked");
    }
    assert_eq!(pebble_vfs::Clock::now(&*clock), before, "it waited");
    assert_eq!(fs.events(), events, "it wrote");
    assert!(dump(&fs) == files);
    db.put("k", "w").unwrap();
    db.close().unwrap();
    let again = Db::builder(dir()).components(components()).open().unwrap();
    assert_eq!(again.get("k").unwrap().unwrap(), "w", "a close lets go while a handle is held");
    assert_eq!(kind(&db.get("k").unwrap_err()), "Closed");

    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = Db::open(&path).unwrap();
    db.put("k", "v").unwrap();
    // The least of a few tries: what a busy machine adds is not the database's.
    let here = (0..5).map(|_| {
        let begun = Instant::now();
        assert_eq!(kind(&Db::open(&path).unwrap_err()), "Locked");
        begun.elapsed()
    });
    let there = (0..3).map(|_| {
        let (answer, took) = calls::open_in_a_child(&path);
        assert_eq!(answer, "Locked");
        took
    });
    for least in [here.min(), there.min()] {
        assert!(least < Some(Duration::from_millis(100)), "{least:?}");
    }
    db.put("k", "w").unwrap();
    db.close().unwrap();
    assert_eq!(calls::open_in_a_child(&path).0, "w");
    assert_eq!(Db::open(&path).unwrap().get("k").unwrap().unwrap(), "w");
    campaign::count(&["second-open"], "cases", 11);
}

#[test]
fn limits() {
    let db = Config::tiny(LogIo::Map).sim(SimFs::new(1)).open().unwrap();
    let space = db.default_keyspace();
    let refused = |outcome: pebble_db::Result<()>| {
        let error = outcome.unwrap_err();
        assert_eq!(kind(&error), "InvalidArgument", "{error}");
    };
    let (longest, longer) = (vec![7; limits::KEY_LEN_MAX], vec![7; limits::KEY_LEN_MAX + 1]);
    assert_eq!((longest.len(), limits::VALUE_LEN_MAX, limits::BATCH_LEN_MAX), (65_535, 1 << 30, 2 << 30));
    db.put(&longest, "fits").unwrap();
    assert_eq!(db.get(&longest).unwrap().unwrap(), "fits");
    let before = (scan(&db).unwrap(), db.stats().visible_seqno);
    refused(db.put(&longer, ""));
    refused(db.delete(&longer));
    // Zeros that nobody touches are not in memory.
    let huge = vec![0; limits::VALUE_LEN_MAX + 1];
    refused(db.put("huge", &huge));
    refused(db.put_with("huge", &huge, &WriteOptions::sync()));
    for over in [
        WriteBatch::new().put(&space, "first", "1").put(&space, &longer, "").put(&space, "third", "3"),
        WriteBatch::new().put(&space, "first", "1").put(&space, "huge", &huge),
        WriteBatch::new().put(&space, "first", "1").delete(&space, &longer),
    ] {
        refused(db.write(over.clone()));
    }
    assert_eq!((scan(&db).unwrap(), db.stats().visible_seqno), before);
    assert!(db.stopped().is_none());
    // What cannot be there is not found, or not allowed to be asked for.
    match db.get(&longer) {
        Ok(found) => assert_eq!(found, None),
        Err(error) => assert_eq!(kind(&error), "InvalidArgument"),
    }
    db.put("", "").unwrap();
    assert_eq!(db.get("").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(db.iter().unwrap().next().unwrap().unwrap().0, "");
    campaign::count(&["limits"], "cases", 7);
}

/// Modes of a real directory; and what is told, in errors and in the log, of databases that hold nothing but secrets.
#[test]
fn private() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/db");
        let db = Db::open(&path).unwrap();
        db.put("k", "v").unwrap();
        db.flush().unwrap();
        db.close().unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&root.path().join("deep"))), (0o700, 0o700));
        let mut files = 0;
        for entry in std::fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            files += 1;
        }
        assert!(files >= 5, "{files} files");
    }
    let secret = "s3cr3t";
    let told = listen::to(|| {
        let mut errors = Vec::new();
        for log_io in LOG_MODES {
            let bench = Bench::new(Config::tiny(log_io));
            let fill = |n: u64| bench.db.put(format!("{secret}-{n}"), secret.repeat(40)).unwrap();
            (0..20).for_each(fill);
            bench.fs.inject(Fault::once(Op::Sync, 0, FaultKind::Io).on(".sst"));
            bench.db.flush().unwrap();
            (20..30).for_each(fill);
            let long = secret.repeat(20_000);
            errors.extend(bench.db.put(&long, secret).err());
            bench.fs.inject(Fault::once(Op::Sync, 0, FaultKind::Io).on(".log"));
            errors.extend(bench.db.put_with(secret, secret, &WriteOptions::sync()).err());
            errors.extend(bench.db.put(secret, secret).err());
            let files = dump(&bench.sim.kill());
            for (name, bytes) in files.iter().filter(|(name, _)| *name != "LOCK") {
                for at in (0..bytes.len().min(6000)).step_by(53) {
                    let disk = bench.sim.kill();
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 1;
                    write_file(&disk, name, &bytes);
                    match bench.config.sim(disk).open() {
                        Err(error) => errors.push(error),
                        Ok(db) => {
                            errors.extend(scan(&db).err());
                            errors.extend(db.verify().err());
                        }
                    }
                }
            }
        }
        let told = |error: &Error| format!("{error}\n{error:?}\n");
        assert!(errors.len() > 100, "{} errors", errors.len());
        errors.iter().map(told).collect::<String>()
    });
    assert!(told.contains("opened"), "nothing was heard: {told}");
    for hidden in [secret.to_owned(), format!("{:?}", secret.as_bytes()).replace(['[', ']'], "")] {
        let found = told.lines().find(|line| line.contains(&hidden));
        assert_eq!(found, None, "a key or a value was told");
    }
    campaign::count(&["private"], "cases", told.lines().count() as u64);
}
