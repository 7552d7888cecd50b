//! Failing calls: the n-th of each kind, for all n of a script, in every way; and in `rows`, the contract's rows one
//! by one.
//!
//! After each run the disk below the faults is opened again as a kill, and as a power cut, would leave it.

mod rows;

use pebble_db::{Db, Error, LogIo, ReadMode, WriteBatch, WriteOptions};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, SimFs};

use crate::campaign;
use crate::support::{Config, State, assert_none, attempt, bytes, check_reads, dump, keyspace, kind};

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
    campaign::count(&["I1", "I2", "I3", "I4", "I6", "I7", "I9"], "faults", runs);
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
    campaign::count(&["I4", "I8", "read-error"], "faults", runs);
}
