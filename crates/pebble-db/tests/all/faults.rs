//! Failing calls: the n-th of each kind, for all n of a script, in every way; then the contract's rows one by one.
//!
//! After each run the disk below the faults is opened again as a kill, and as a power cut, would leave it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pebble_db::{Db, Error, Executor, LogIo, ReadMode, WriteBatch, WriteOptions};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, SimFs};

use crate::support::{
    Config, LOG_MODES, State, assert_none, attempt, bytes, check_reads, dump, keyspace, kind, scan,
};

/// What a run has been told, commit by commit. See `crash.rs`.
struct Ledger {
    /// What the commits that may be there make; all but the last `unknown` ones are acknowledged.
    states: Vec<State>,
    acknowledged: usize,
    durable: usize,
    attempts: u64,
    /// A commit was unknown, and no open since: nothing may be acknowledged.
    stopped: bool,
    errors: Vec<String>,
}

const COUNTER: &[u8] = b"!counter";

fn number(db: &Db) -> pebble_db::Result<usize> {
    let counter = db.get(COUNTER)?;
    Ok(counter.map_or(0, |value| usize::try_from(u64::from_be_bytes((*value).try_into().unwrap())).unwrap()))
}

impl Ledger {
    fn new() -> Self {
        Self {
            states: vec![State::new()],
            acknowledged: 0,
            durable: 0,
            attempts: 0,
            stopped: false,
            errors: Vec::new(),
        }
    }

    /// Every error that a failing disk may become. Damage it is not.
    fn note(&mut self, what: &str, error: &Error) {
        self.errors.push(format!("{what}: {error}"));
        assert!(
            matches!(kind(error), "Io" | "NoSpace" | "ReadOnly" | "CommitUnknown"),
            "{what} gave {}: {error}",
            kind(error)
        );
    }

    fn open(&mut self, config: &Config, fs: &FaultFs) -> Option<Db> {
        for _ in 0..2 {
            match config.sim(fs.clone()).open() {
                Ok(db) => {
                    self.stopped = false;
                    // A commit that was unknown is decided now.
                    if let Some(found) = self.read("counter", number(&db)) {
                        assert!((self.acknowledged..self.states.len()).contains(&found), "found {found}");
                        self.states.truncate(found + 1);
                        self.acknowledged = found;
                        return Some(db);
                    }
                }
                Err(error) => self.note("open", &error),
            }
        }
        None
    }

    fn read<T>(&mut self, what: &str, outcome: pebble_db::Result<T>) -> Option<T> {
        outcome.map_err(|error| self.note(what, &error)).ok()
    }

    fn commit(&mut self, db: &Db, names: &[&'static str], len: usize, sync: bool) {
        self.attempts += 1;
        let number = self.states.len() as u64;
        let mut state = self.states.last().unwrap().clone();
        let mut batch = WriteBatch::new();
        let mut put = |name: &str, key: Vec<u8>, value: Vec<u8>| {
            let Ok(space) = keyspace(db, name) else { return false };
            batch.put(&space, &key, &value);
            state.entry(name.into()).or_default().insert(key, value);
            true
        };
        let mut complete = put("default", COUNTER.to_vec(), number.to_be_bytes().to_vec());
        for name in names {
            let key = format!("key-{}", self.attempts % 5).into_bytes();
            complete &= put(name, key, bytes(self.attempts, len));
        }
        if complete {
            self.write(db, batch, state, sync);
        }
    }

    /// Deletes all of a keyspace by one range.
    fn clear(&mut self, db: &Db, name: &'static str) {
        self.attempts += 1;
        let number = self.states.len() as u64;
        let mut state = self.states.last().unwrap().clone();
        let mut batch = WriteBatch::new();
        let Ok(space) = keyspace(db, name) else { return };
        batch.delete_range(&space, ..).put(&db.default_keyspace(), COUNTER, number.to_be_bytes());
        state.remove(name);
        state.entry("default".into()).or_default().insert(COUNTER.to_vec(), number.to_be_bytes().to_vec());
        self.write(db, batch, state, false);
    }

    fn write(&mut self, db: &Db, batch: WriteBatch, state: State, sync: bool) {
        let options = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
        let outcome = db.write_with(batch, &options);
        match &outcome {
            Ok(()) => {
                assert!(!self.stopped, "acknowledged after {:?}", self.errors);
                self.states.push(state);
                self.acknowledged = self.states.len() - 1;
                if sync {
                    self.durable = self.acknowledged;
                }
            }
            Err(error) => {
                self.note("write", error);
                if matches!(error, Error::CommitUnknown { .. }) {
                    assert!(!self.stopped, "unknown twice");
                    self.stopped = true;
                    self.states.push(state);
                }
            }
        }
        self.look(db);
    }

    /// What is visible is what was acknowledged, or the read fails.
    fn look(&mut self, db: &Db) {
        let expected = self.states[self.acknowledged].clone();
        let outcome = check_reads(db, &expected, &[b"absent"]);
        self.read("read", outcome);
    }

    fn call(&mut self, what: &str, outcome: pebble_db::Result<()>) -> bool {
        self.read(what, outcome).is_some()
    }
}

/// All kinds of work, twice, with a reopen between.
fn script(config: &Config, fs: &FaultFs, ledger: &mut Ledger) {
    for round in 0..2 {
        let Some(db) = ledger.open(config, fs) else { return };
        ledger.commit(&db, &["default"], 30, false);
        let made = db.keyspace("a").map(|_| ());
        ledger.call("keyspace", made);
        ledger.commit(&db, &["default", "a"], 100, true);
        ledger.commit(&db, &["a"], 1500, false);
        ledger.commit(&db, &["default"], 3000, round == 1);
        ledger.call("flush", db.flush());
        ledger.commit(&db, &["default", "a"], 10, true);
        if ledger.call("persist", db.persist()) {
            ledger.durable = ledger.acknowledged;
        }
        ledger.call("flush", db.flush());
        ledger.call("compact", db.compact_range(..));
        let verified = db.verify().map(|_| ());
        ledger.call("verify", verified);
        ledger.clear(&db, "a");
        ledger.call("flush", db.flush());
        // Of an empty keyspace only, so that no commit sees a difference whatever a failure leaves of it.
        if !ledger.states[ledger.acknowledged].contains_key("a") {
            let dropped = db.drop_keyspace("a").map(|_| ());
            ledger.call("drop", dropped);
        }
        let made = db.keyspace("a").map(|_| ());
        ledger.call("keyspace", made);
        ledger.commit(&db, &["a"], 40, false);
        if ledger.call("close", db.close()) {
            ledger.durable = ledger.acknowledged;
        }
    }
}

/// Opens what is left and holds it against the ledger.
fn check_left(config: &Config, image: SimFs, ledger: &Ledger, floor: usize, what: &str) {
    let db = config.sim(image).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = number(&db).unwrap();
    let last = ledger.states.len() - 1;
    assert!((floor..=last).contains(&found), "{what}: {found} commits of {floor}..={last}");
    check_reads(&db, &ledger.states[found], &[b"absent"]).unwrap();
    db.put_with("again", "writable", &WriteOptions::sync()).unwrap();
    db.close().unwrap();
}

const OPS: [Op; 16] = [
    Op::Open,
    Op::Create,
    Op::CreateDir,
    Op::Read,
    Op::Write,
    Op::Allocate,
    Op::Truncate,
    Op::Sync,
    Op::SyncDir,
    Op::Rename,
    Op::Remove,
    Op::Map,
    Op::MapMut,
    Op::Lock,
    Op::List,
    Op::Metadata,
];

/// The ways in which a kind of call may fail.
fn kinds(op: Op) -> Vec<FaultKind> {
    let mut kinds = vec![FaultKind::Io];
    match op {
        Op::Open | Op::Lock | Op::List => kinds.push(FaultKind::TooManyFiles),
        Op::Create => kinds.extend([FaultKind::TooManyFiles, FaultKind::NoSpace]),
        Op::Write => kinds.extend([FaultKind::NoSpace, FaultKind::ShortWrite, FaultKind::Interrupted]),
        Op::Sync => kinds.extend([FaultKind::NoSpace, FaultKind::LyingSync]),
        Op::Allocate | Op::Truncate | Op::CreateDir | Op::SyncDir | Op::Rename => {
            kinds.push(FaultKind::NoSpace);
        }
        _ => {}
    }
    kinds
}

/// Says which run it was when a check panics.
struct Context(String);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0);
        }
    }
}

fn one_run(config: &Config, fault: Option<Fault>) -> FaultFs {
    let sim = SimFs::new(3);
    let fs = FaultFs::over_sim(sim.clone());
    if let Some(fault) = &fault {
        fs.inject(fault.clone());
    }
    let mut ledger = Ledger::new();
    script(config, &fs, &mut ledger);
    if fault.is_none() {
        assert_eq!(ledger.errors, [""; 0], "without a fault");
    }
    let acknowledged = ledger.acknowledged;
    let trouble = ledger.errors.join("; ");
    check_left(config, sim.kill(), &ledger, acknowledged, &format!("killed after {trouble}"));
    for cut in
        [CrashImage::NothingUnsynced, CrashImage::EverythingUnsynced, CrashImage::Random(acknowledged as u64)]
    {
        let what = format!("{cut:?} after {trouble}");
        check_left(config, sim.crash_with(cut), &ledger, ledger.durable, &what);
    }
    fs
}

fn every_call_fails(config: &Config) {
    let whole = one_run(config, None);
    let mut runs = 0;
    let mut failures = Vec::new();
    for op in OPS {
        for nth in 0..whole.calls(op) {
            for fault in kinds(op) {
                let once = Fault::once(op, nth, fault);
                for fault in [once.clone(), once.sticky()] {
                    let name = || format!("{:?}, {fault:?}", config.log_io);
                    attempt(&mut failures, name, || _ = one_run(config, Some(fault.clone())));
                    runs += 1;
                }
            }
        }
    }
    println!("faults, {:?}, {:?}: {runs} runs", config.log_io, config.read_mode);
    assert_none(&failures);
}

#[test]
fn every_call_fails_with_a_mapped_log() {
    every_call_fails(&Config::tiny(LogIo::Map));
}

#[test]
fn every_call_fails_with_a_written_log_and_positioned_reads() {
    every_call_fails(&Config { read_mode: ReadMode::Pread, ..Config::tiny(LogIo::Write) });
}

/// A flipped bit on the way from the disk is an error of that call and leaves nothing behind.
#[test]
fn every_read_flips_a_bit() {
    let mut runs = 0;
    for (log_io, read_mode) in [(LogIo::Map, ReadMode::Map), (LogIo::Write, ReadMode::Pread)] {
        let config = Config { read_mode, ..Config::tiny(log_io) };
        let sim = SimFs::new(3);
        let mut ledger = Ledger::new();
        script(&config, &FaultFs::over_sim(sim.clone()), &mut ledger);
        let expected = &ledger.states[ledger.acknowledged];
        let before = dump(&sim);
        let read = |fs: &FaultFs| -> pebble_db::Result<()> {
            let db = config.sim(fs.clone()).open()?;
            check_reads(&db, expected, &[b"absent"])?;
            db.verify().map(|_| ())
        };
        for op in [Op::Read, Op::Map] {
            let whole = FaultFs::over_sim(sim.kill());
            read(&whole).unwrap();
            for nth in 0..whole.calls(op) {
                for bit in [0, 77, 100_003, 1_234_577, u64::MAX / 3] {
                    let _context = Context(format!("{log_io:?}, {op:?} {nth}, bit {bit}"));
                    let disk = sim.kill();
                    let fs = FaultFs::over_sim(disk.clone());
                    fs.inject(Fault::once(op, nth, FaultKind::FlipBit { bit }));
                    let refused = config.sim(fs.clone()).open().map(drop).is_err();
                    if refused {
                        assert_eq!(dump(&disk), before, "a refused open changed the directory");
                    }
                    fs.clear();
                    let disk = sim.kill();
                    let fs = FaultFs::over_sim(disk.clone());
                    fs.inject(Fault::once(op, nth, FaultKind::FlipBit { bit }));
                    if let Err(error) = read(&fs) {
                        let allowed =
                            matches!(kind(&error), "Corruption" | "MissingFile" | "UnsupportedVersion");
                        assert!(allowed, "{error}");
                    }
                    fs.clear();
                    read(&fs).unwrap();
                    runs += 1;
                }
            }
        }
    }
    println!("faults: {runs} flipped reads");
}

/// A simulated disk with rules over it, and a database that has a synced and a buffered commit.
fn prepared(log_io: LogIo) -> (SimFs, FaultFs, Db) {
    let sim = SimFs::new(5);
    let fs = FaultFs::over_sim(sim.clone());
    let db = Config::tiny(log_io).sim(fs.clone()).open().unwrap();
    db.put_with("synced", "1", &WriteOptions::sync()).unwrap();
    db.put("buffered", "2").unwrap();
    (sim, fs, db)
}

/// The two commits are there, and what else `extra` says.
fn assert_prepared(db: &Db, extra: &[(&str, &str)]) {
    let mut map = crate::support::Map::new();
    for (key, value) in [("synced", "1"), ("buffered", "2")].iter().chain(extra) {
        map.insert((*key).into(), (*value).into());
    }
    check_reads(db, &[("default".to_owned(), map)].into(), &[b"lost", b"next"]).unwrap();
}

#[test]
fn a_failed_log_sync_is_an_unknown_commit_and_the_end_of_writing() {
    for log_io in LOG_MODES {
        for fault in [FaultKind::Io, FaultKind::LyingSync, FaultKind::NoSpace] {
            let (sim, fs, db) = prepared(log_io);
            fs.inject(Fault::once(Op::Sync, 0, fault).on(".log"));
            let snapshot = db.snapshot();
            let error = db.put_with("lost", "?", &WriteOptions::sync()).unwrap_err();
            assert_eq!(kind(&error), "CommitUnknown", "{log_io:?}, {fault:?}: {error}");
            assert!(!error.is_retryable());
            for _ in 0..2 {
                assert_prepared(&db, &[]);
                assert!(!snapshot.contains(&db.default_keyspace(), "lost").unwrap());
                assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly");
                assert_eq!(kind(&db.delete("synced").unwrap_err()), "ReadOnly");
                let sync = db.put_with("next", "", &WriteOptions::sync()).unwrap_err();
                assert_eq!(kind(&sync), "ReadOnly");
                assert!(db.persist().is_err());
                assert!(db.stopped().is_some());
            }
            drop((snapshot, db));
            let db = Config::tiny(log_io).sim(sim.kill()).open().unwrap();
            let unknown: &[_] = if db.contains("lost").unwrap() { &[("lost", "?")] } else { &[] };
            assert_prepared(&db, unknown);
            let cut = sim.crash_with(CrashImage::NothingUnsynced);
            let db = Config::tiny(log_io).sim(cut).open().unwrap();
            assert_eq!(db.get("synced").unwrap().as_deref(), Some(&b"1"[..]));
            db.put("next", "").unwrap();
        }
    }
}

#[test]
fn a_failed_persist_is_the_end_of_writing() {
    for log_io in LOG_MODES {
        let (sim, fs, db) = prepared(log_io);
        fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync).on(".log"));
        assert!(db.persist().is_err());
        assert!(db.persist().is_err(), "a second sync proves nothing");
        assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly");
        assert_prepared(&db, &[]);
        drop(db);
        assert_prepared(&Config::tiny(log_io).sim(sim.kill()).open().unwrap(), &[]);
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    for log_io in LOG_MODES {
        let (sim, _, db) = prepared(log_io);
        let used: usize = dump(&sim).values().map(Vec::len).sum();
        sim.set_capacity(Some(used as u64));
        let mut map = scan(&db).unwrap();
        let mut refused = 0;
        for n in 0..40_u64 {
            let (key, value) = (format!("key-{n:02}").into_bytes(), bytes(n, 500));
            match db.put(&key, &value) {
                Ok(()) => _ = map.get_mut("default").unwrap().insert(key, value),
                Err(error) => {
                    assert_eq!(kind(&error), "NoSpace", "{error}");
                    assert!(error.is_retryable());
                    refused += 1;
                }
            }
            check_reads(&db, &map, &[b"key-39"]).unwrap();
        }
        assert!(refused > 20, "{log_io:?}: only {refused} refused");
        let mut batch = WriteBatch::new();
        batch.put(&db.default_keyspace(), "x", bytes(1, 3000)).put(
            &db.default_keyspace(),
            "y",
            bytes(1, 3000),
        );
        assert_eq!(kind(&db.write(batch).unwrap_err()), "NoSpace");
        assert!(!db.contains("x").unwrap() && !db.contains("y").unwrap());
        sim.set_capacity(None);
        db.put_with("resumed", "", &WriteOptions::sync()).unwrap();
        map.get_mut("default").unwrap().insert(b"resumed".to_vec(), Vec::new());
        check_reads(&db, &map, &[]).unwrap();
        for image in [sim.kill(), sim.crash_with(CrashImage::NothingUnsynced)] {
            let db = Config::tiny(log_io).sim(image).open().unwrap();
            check_reads(&db, &map, &[b"x", b"y"]).unwrap();
        }
    }
}

/// Space that ends in a flush or a compaction: what they made so far goes, what they read stays.
#[test]
fn a_full_disk_in_a_flush_or_a_compaction_loses_nothing() {
    for log_io in LOG_MODES {
        for step in 0..40 {
            let (sim, _, db) = prepared(log_io);
            for n in 0..20_u64 {
                db.put(format!("key-{n:02}"), bytes(n, 200)).unwrap();
                if n % 7 == 6 && step % 2 == 1 {
                    db.flush().unwrap();
                }
            }
            let map = scan(&db).unwrap();
            let used: usize = dump(&sim).values().map(Vec::len).sum();
            sim.set_capacity(Some(used as u64 + step * 200));
            let outcome = db.flush().and_then(|()| db.compact_range(..));
            if let Err(error) = &outcome {
                assert_eq!(kind(error), "NoSpace", "{error}");
            }
            check_reads(&db, &map, &[]).unwrap();
            assert!(db.stopped().is_none(), "a full disk stopped the database for good");
            sim.set_capacity(None);
            db.flush().unwrap();
            db.compact_range(..).unwrap();
            db.put("resumed", "").unwrap();
            db.delete("resumed").unwrap();
            check_reads(&db, &map, &[]).unwrap();
            let db = Config::tiny(log_io).sim(sim.kill()).open().unwrap();
            check_reads(&db, &map, &[]).unwrap();
        }
    }
}

#[test]
fn a_failed_sync_of_the_manifest_or_the_directory_ends_writing() {
    for log_io in LOG_MODES {
        for fault in [
            Fault::once(Op::Sync, 0, FaultKind::LyingSync).on("MANIFEST"),
            Fault::once(Op::SyncDir, 0, FaultKind::Io),
        ] {
            let (sim, fs, db) = prepared(log_io);
            fs.inject(fault.clone());
            let outcome = db.flush();
            if fs.fired() == 0 {
                continue;
            }
            assert!(outcome.is_err(), "{fault:?}");
            assert_prepared(&db, &[]);
            assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly", "{fault:?}");
            assert_prepared(&db, &[]);
            drop(db);
            assert_prepared(&Config::tiny(log_io).sim(sim.kill()).open().unwrap(), &[]);
        }
    }
}

#[test]
fn a_table_whose_sync_fails_is_written_once_more() {
    for log_io in LOG_MODES {
        let (sim, fs, db) = prepared(log_io);
        fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync).on(".sst"));
        db.flush().unwrap();
        assert_eq!(fs.fired(), 1);
        db.put_with("more", "3", &WriteOptions::sync()).unwrap();
        let cut = sim.crash_with(CrashImage::NothingUnsynced);
        assert_prepared(&Config::tiny(log_io).sim(cut).open().unwrap(), &[("more", "3")]);

        let (sim, fs, db) = prepared(log_io);
        fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync).on(".sst").sticky());
        assert!(db.flush().is_err());
        assert_prepared(&db, &[]);
        assert_eq!(kind(&db.put("next", "").unwrap_err()), "ReadOnly");
        assert_prepared(&Config::tiny(log_io).sim(sim.kill()).open().unwrap(), &[]);
    }
}

#[test]
fn no_file_descriptors_is_an_error_of_that_call_alone() {
    for log_io in LOG_MODES {
        for op in [Op::Create, Op::Open] {
            let (sim, fs, db) = prepared(log_io);
            fs.inject(Fault::once(op, 0, FaultKind::TooManyFiles).on(".sst"));
            if let Err(error) = db.flush() {
                assert_eq!(kind(&error), "Io", "{error}");
            }
            assert_eq!(fs.fired(), 1, "{op:?}");
            db.flush().unwrap();
            db.put("more", "3").unwrap();
            assert_prepared(&db, &[("more", "3")]);
            assert_prepared(&Config::tiny(log_io).sim(sim.kill()).open().unwrap(), &[("more", "3")]);
        }
    }
}

/// A memtable that fills up is flushed by a thread; when that panics, writers are told and readers see nothing of it.
#[test]
fn a_panic_in_the_background_is_an_error_and_reads_go_on() {
    for log_io in LOG_MODES {
        let sim = SimFs::new(5);
        let fs = FaultFs::over_sim(sim.clone());
        let config = Config::tiny(log_io);
        let db = config.sim_with(Arc::new(fs.clone()), Executor::Threads).open().unwrap();
        fs.inject(Fault::once(Op::Create, 0, FaultKind::Panic).on(".sst"));
        let mut map = crate::support::Map::new();
        let error = loop {
            let n = map.len() as u64;
            match db.put(key_of(n), bytes(n, 8000)) {
                Ok(()) => _ = map.insert(key_of(n), bytes(n, 8000)),
                Err(error) => break error,
            }
        };
        assert_eq!(fs.fired(), 1);
        let mut expected: State = [("default".to_owned(), map)].into();
        assert!(matches!(kind(&error), "Background" | "ReadOnly"), "{error}");
        check_reads(&db, &expected, &[b"absent"]).unwrap();
        assert!(matches!(kind(&db.put("next", "").unwrap_err()), "Background" | "ReadOnly"));
        assert!(matches!(kind(&db.flush().unwrap_err()), "Background" | "ReadOnly"));
        assert!(db.stopped().is_some());
        check_reads(&db, &expected, &[b"next"]).unwrap();
        drop(db);
        let db = config.sim(sim.kill()).open().unwrap();
        check_reads(&db, &expected, &[b"next"]).unwrap();
        db.put("next", "1").unwrap();
        expected.get_mut("default").unwrap().insert(b"next".to_vec(), b"1".to_vec());
        check_reads(&db, &expected, &[]).unwrap();
    }
}

/// A panic in a caller's own thread reaches that caller; it poisons nothing for the others.
#[test]
fn a_panic_in_a_call_poisons_nothing() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::Map, Op::SyncDir, Op::Allocate, Op::MapMut] {
        for nth in 0..4 {
            let _context = Context(format!("{op:?} {nth}"));
            let (sim, fs, db) = prepared(LogIo::Map);
            fs.inject(Fault::once(op, nth, FaultKind::Panic));
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                db.flush().and_then(|()| db.keyspace("new").map(drop)).and_then(|()| db.persist())
            }));
            fs.clear();
            assert_prepared(&db, &[]);
            if outcome.is_ok_and(|outcome| outcome.is_ok()) {
                db.put("more", "3").unwrap();
                assert_prepared(&db, &[("more", "3")]);
                db.delete("more").unwrap();
            } else {
                // Whether writes go on is the engine's choice; that the call ends is not.
                let ended = catch_unwind(AssertUnwindSafe(|| db.put("more", "3")));
                let applied = ended.unwrap_or_else(|_| panic!("{op:?} {nth}: a panic was passed on")).is_ok();
                assert_prepared(&db, if applied { &[("more", "3")] } else { &[] });
                if applied {
                    db.delete("more").unwrap();
                }
            }
            let closed = catch_unwind(AssertUnwindSafe(|| db.close()));
            assert!(closed.is_ok(), "{op:?} {nth}: the close panicked");
            drop(db);
            assert_prepared(&Config::tiny(LogIo::Map).sim(sim.kill()).open().unwrap(), &[]);
        }
    }
}

#[test]
fn a_failed_read_is_an_error_of_that_call_and_an_iterator_repeats_it() {
    let config = Config { read_mode: ReadMode::Pread, ..Config::tiny(LogIo::Map) };
    let sim = SimFs::new(5);
    let fs = FaultFs::over_sim(sim);
    let db = config.sim(fs.clone()).open().unwrap();
    for n in 0..50_u64 {
        db.put(key_of(n), bytes(n, 300)).unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
    let mut met = 0;
    for nth in 0..60 {
        let db = config.sim(fs.clone()).open().unwrap();
        fs.inject(Fault::once(Op::Read, nth, FaultKind::Io).on(".sst"));
        let mut iter = db.iter().unwrap();
        let mut n = 0_u64;
        loop {
            match iter.next() {
                Some(Ok((key, value))) => {
                    assert_eq!((key.to_vec(), value.to_vec()), (key_of(n), bytes(n, 300)));
                    n += 1;
                }
                Some(Err(error)) => {
                    met += 1;
                    assert_eq!(kind(&error), "Io", "{error}");
                    for _ in 0..3 {
                        assert_eq!(kind(&iter.next().unwrap().unwrap_err()), "Io");
                        assert_eq!(kind(&iter.next_back().unwrap().unwrap_err()), "Io");
                    }
                    break;
                }
                None => {
                    assert_eq!(n, 50, "ended early");
                    break;
                }
            }
        }
        fs.clear();
        check_all(&db);
        db.put("healthy", "").unwrap();
        db.delete("healthy").unwrap();
        db.close().unwrap();
    }
    assert!(met > 0, "no read failed");
}

fn key_of(n: u64) -> Vec<u8> {
    format!("key-{n:02}").into_bytes()
}

fn check_all(db: &Db) {
    for n in 0..50_u64 {
        let value = db.get(key_of(n)).unwrap();
        assert_eq!(value.as_deref(), Some(&bytes(n, 300)[..]));
    }
}

/// Writers that share a sync share its failure: none of that group is seen, all before it are there after a power
/// cut, and nobody is told a thing twice.
#[test]
fn a_group_whose_sync_fails_is_unknown_to_every_writer() {
    for nth in 0..12 {
        let sim = SimFs::new(nth);
        let fs = FaultFs::over_sim(sim.clone());
        let config = Config::tiny(if nth % 2 == 0 { LogIo::Map } else { LogIo::Write });
        let db = config.sim_with(Arc::new(fs.clone()), Executor::Threads).open().unwrap();
        fs.inject(Fault::once(Op::Sync, nth, FaultKind::LyingSync).on(".log"));
        let told: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4_u8)
                .map(|writer| {
                    let db = &db;
                    scope.spawn(move || {
                        for n in 1..=30_u64 {
                            let outcome = db.put_with([writer], n.to_be_bytes(), &WriteOptions::sync());
                            if let Err(error) = outcome {
                                assert!(matches!(kind(&error), "CommitUnknown" | "ReadOnly"), "{error}");
                                return n - 1;
                            }
                        }
                        30
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(fs.fired(), 1);
        let counter = |db: &Db, writer: usize| {
            let value = db.get([u8::try_from(writer).unwrap()]).unwrap();
            value.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()))
        };
        for (writer, told) in told.iter().enumerate() {
            assert_eq!(
                counter(&db, writer),
                *told,
                "sync {nth}: what is visible was acknowledged, and the reverse"
            );
        }
        assert!(db.stopped().is_some());
        drop(db);
        for image in [sim.kill(), sim.crash_with(CrashImage::NothingUnsynced), sim.crash(nth)] {
            let db = config.sim(image).open().unwrap();
            for (writer, told) in told.iter().enumerate() {
                let found = counter(&db, writer);
                assert!((*told..=told + 1).contains(&found), "sync {nth}: {found} of {told}");
            }
        }
    }
}

/// What a manifest's failed sync left in the page cache is no ground to build on: the next open may read it, but the
/// edits behind it must not be all that becomes durable. Where the sectors lie decides, so the lengths vary.
#[test]
fn a_manifest_whose_sync_failed_is_not_appended_to_after_a_reopen() {
    let mut failures = Vec::new();
    for log_io in LOG_MODES {
        for pad in (1..250).step_by(12) {
            let (sim, fs, db) = prepared(log_io);
            db.keyspace(&"p".repeat(pad)).unwrap();
            fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync).on("MANIFEST"));
            assert!(db.flush().is_err());
            drop(db);
            attempt(
                &mut failures,
                || format!("{log_io:?}, {pad}"),
                || {
                    let db = Config::tiny(log_io).sim(fs.clone()).open().unwrap();
                    db.put_with("more", "3", &WriteOptions::sync()).unwrap();
                    for name in ["x", "y"] {
                        db.keyspace(&name.repeat(255)).unwrap();
                    }
                    db.flush().unwrap();
                    let cut = sim.crash_with(CrashImage::NothingUnsynced);
                    let db = Config::tiny(log_io).sim(cut).open().unwrap();
                    assert_prepared(&db, &[("more", "3")]);
                },
            );
        }
    }
    assert_none(&failures);
}
