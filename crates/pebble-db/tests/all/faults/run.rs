//! A run of a script on a disk that fails, and the ledger of what it has been told.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use pebble_db::{Components, Db, Error, Executor, Keyspace, WriteBatch, WriteOptions};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{Clock, FaultFs, SimFs};

use super::expect;
use crate::support::{Config, State, bytes, check_reads, dump, keyspace, kind, message, mix};

/// Every commit sets it to the commit's number.
const COUNTER: &[u8] = b"!counter";
const ABSENT: &[&[u8]] = &[b"absent"];

pub fn number(db: &Db) -> pebble_db::Result<usize> {
    let counter = db.get(COUNTER)?;
    Ok(counter.map_or(0, |value| usize::try_from(u64::from_be_bytes((*value).try_into().unwrap())).unwrap()))
}

/// How a clock goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Jump {
    /// A hundred years on, for good.
    Ahead,
    /// Back to zero, and on from there.
    Back,
    /// Ahead for one answer.
    AheadAndBack,
}

const CENTURY: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;

/// A clock that a microsecond passes on at each look, and that jumps at the n-th.
#[derive(Debug, Default)]
pub struct JumpClock {
    looks: AtomicU64,
    jumps_at: AtomicU64,
    jump: AtomicU64,
    slept: AtomicU64,
}

impl JumpClock {
    pub fn set(&self, nth: u64, jump: Jump) {
        self.jumps_at.store(nth, SeqCst);
        self.jump.store(1 + jump as u64, SeqCst);
    }

    pub fn calls(&self) -> u64 {
        self.looks.load(SeqCst)
    }

    fn jumped(&self) -> bool {
        self.jump.load(SeqCst) > 0 && self.calls() > self.jumps_at.load(SeqCst)
    }
}

impl Clock for JumpClock {
    fn now(&self) -> Duration {
        let look = self.looks.fetch_add(1, SeqCst);
        let (at, jump) = (self.jumps_at.load(SeqCst), self.jump.load(SeqCst));
        let nanos = 3_600_000_000_000 + look * 1000 + self.slept.load(SeqCst);
        Duration::from_nanos(match jump {
            1 if look >= at => nanos + CENTURY,
            2 if look >= at => (look - at) * 1000,
            3 if look == at => nanos + CENTURY,
            _ => nanos,
        })
    }

    fn sleep(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap();
        let slept = self.slept.fetch_add(nanos, SeqCst) + nanos;
        assert!(slept < 3_600_000_000_000, "sleeps for {duration:?} because a clock jumped");
    }
}

/// See the module.
pub struct Run {
    pub config: Config,
    pub sim: SimFs,
    pub fs: FaultFs,
    pub clock: Arc<JumpClock>,
    pub fault: Option<Fault>,
    pub db: Option<Db>,
    /// What the commits that may be there make; all but the last `unknown` one are acknowledged.
    states: Vec<State>,
    acknowledged: usize,
    durable: usize,
    attempts: u64,
    /// A commit is unknown, and no open since: nothing may be acknowledged.
    unknown: bool,
    /// The calls that the script made, by kind; what comes after it meets no fault.
    pub made: Vec<(Op, u64)>,
    /// The looks at the clock that it made.
    pub looks: u64,
    /// The disk is full by script.
    full: bool,
    pub errors: Vec<String>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("fault", &self.fault).field("errors", &self.errors).finish()
    }
}

impl Run {
    pub fn new(config: &Config, fault: Option<Fault>) -> Self {
        let sim = SimFs::new(3);
        let fs = FaultFs::over_sim(sim.clone());
        if let Some(fault) = &fault {
            fs.inject(fault.clone());
        }
        Self {
            config: config.clone(),
            sim,
            fs,
            clock: Arc::default(),
            fault,
            db: None,
            states: vec![State::new()],
            acknowledged: 0,
            durable: 0,
            attempts: 0,
            unknown: false,
            made: Vec::new(),
            looks: 0,
            full: false,
            errors: Vec::new(),
        }
    }

    /// What is visible now.
    pub fn expected(&self) -> State {
        self.states[self.acknowledged].clone()
    }

    /// Whether there was something to stand.
    pub fn met(&self) -> bool {
        self.clock.jumped() || !self.fs.hits().is_empty()
    }

    /// The row of the contract that this run is a case of, if its fault was met.
    pub fn row(&self) -> Option<&'static str> {
        if self.clock.jumped() {
            return Some("clock-jump");
        }
        let hits = self.fs.hits();
        let (op, path) = hits.first()?;
        expect::row(*op, path, self.fault.as_ref()?.kind)
    }

    /// Bounds the disk, or lifts the bound.
    pub fn full(&mut self, bytes: Option<u64>) {
        self.sim.set_capacity(bytes);
        self.full = bytes.is_some();
    }

    fn note(&mut self, what: &str, error: &Error) {
        if self.full && kind(error) == "NoSpace" {
            return;
        }
        self.errors.push(format!("{what}: {error}"));
        let fault = self.fault.as_ref().unwrap_or_else(|| panic!("{what} without a fault: {error}"));
        expect::allowed_error(what, fault, error);
    }

    /// Makes a call; a panic in it is the fault's, or the test's end. `None` if it failed.
    fn call<T>(&mut self, what: &str, call: impl FnOnce(&Db) -> pebble_db::Result<T>) -> Option<T> {
        let db = self.db.as_ref()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| call(db)));
        let outcome = self.caught(what, outcome)?;
        outcome.map_err(|error| self.note(what, &error)).ok()
    }

    fn caught<T>(&mut self, what: &str, outcome: std::thread::Result<T>) -> Option<T> {
        outcome
            .map_err(|panic| {
                let text = message(&*panic);
                assert!(text.contains("injected fault"), "{what} panicked: {text}");
                self.errors.push(format!("{what} panicked"));
            })
            .ok()
    }

    /// Opens the database, or tries once more. Scripts go on without one.
    pub fn open(&mut self) {
        assert!(self.db.is_none(), "open twice");
        for _ in 0..2 {
            let before = self.flips().then(|| dump(&self.sim));
            let fs = self.config.seam(Arc::new(self.fs.clone()));
            let components = Components {
                fs,
                clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                executor: Executor::Inline,
            };
            let builder = self.config.sim(self.sim.clone()).components(components);
            let outcome = catch_unwind(AssertUnwindSafe(|| builder.open()));
            match self.caught("open", outcome) {
                Some(Ok(db)) => {
                    self.unknown = false;
                    // A commit that was unknown is decided now.
                    self.db = Some(db);
                    let Some(found) = self.call("counter", number) else {
                        self.db = None;
                        continue;
                    };
                    let known = self.acknowledged..self.states.len();
                    assert!(known.contains(&found), "found {found} of {known:?}");
                    self.states.truncate(found + 1);
                    self.acknowledged = found;
                    return;
                }
                Some(Err(error)) => {
                    if let Some(before) = before.filter(|_| kind(&error) == "Corruption") {
                        assert_eq!(dump(&self.sim), before, "a refused open changed the directory");
                    }
                    self.note("open", &error);
                }
                None => {}
            }
        }
    }

    fn flips(&self) -> bool {
        matches!(self.fault, Some(Fault { kind: FaultKind::FlipBit { .. }, .. }))
    }

    /// The next commit: its counter, and a value of `len` bytes under one of a few keys in each of the keyspaces.
    pub fn commit(&mut self, names: &[&'static str], len: usize, sync: bool) {
        self.write(sync, |attempt| {
            let key = format!("key-{:02}", mix(attempt) % 9).into_bytes();
            names.iter().map(|name| (*name, key.clone(), Some(bytes(attempt, len)))).collect()
        });
    }

    /// Deletes one of the keys.
    pub fn delete(&mut self, name: &'static str) {
        self.write(false, |attempt| vec![(name, format!("key-{:02}", attempt % 9).into_bytes(), None)]);
    }

    /// Deletes all of a keyspace by one range.
    pub fn clear(&mut self, name: &'static str) {
        let Some(space) = self.space(name) else { return };
        let mut state = self.next_state();
        state.remove(name);
        let mut batch = WriteBatch::new();
        batch.delete_range(&space, ..);
        self.send(batch, state, false);
    }

    /// Deletes some of the keys by a range.
    pub fn delete_range(&mut self, name: &'static str, from: &[u8], to: &[u8]) {
        let Some(space) = self.space(name) else { return };
        let mut state = self.next_state();
        if let Some(map) = state.get_mut(name) {
            map.retain(|key, _| &key[..] < from || &key[..] >= to);
        }
        let mut batch = WriteBatch::new();
        batch.delete_range(&space, from..to);
        self.send(batch, state, false);
    }

    fn next_state(&mut self) -> State {
        self.attempts += 1;
        self.states.last().unwrap().clone()
    }

    fn write(
        &mut self,
        sync: bool,
        changes: impl FnOnce(u64) -> Vec<(&'static str, Vec<u8>, Option<Vec<u8>>)>,
    ) {
        let mut state = self.next_state();
        let mut batch = WriteBatch::new();
        for (name, key, value) in changes(self.attempts) {
            let Some(space) = self.space(name) else { return };
            let map = state.entry(name.into()).or_default();
            match value {
                Some(value) => {
                    batch.put(&space, &key, &value);
                    map.insert(key, value);
                }
                None => {
                    batch.delete(&space, &key);
                    map.remove(&key);
                }
            }
        }
        self.send(batch, state, sync);
    }

    /// Sends a batch that makes `state`, with the counter in both, and holds the outcome against the contract.
    fn send(&mut self, mut batch: WriteBatch, mut state: State, sync: bool) {
        let Some(db) = &self.db else { return };
        let number = self.states.len();
        let counter = (number as u64).to_be_bytes();
        batch.put(&db.default_keyspace(), COUNTER, counter);
        state.entry("default".into()).or_default().insert(COUNTER.to_vec(), counter.to_vec());
        state.retain(|_, map| !map.is_empty());
        let options = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
        let was_stopped = db.stopped().is_some();
        let outcome = catch_unwind(AssertUnwindSafe(|| db.write_with(batch, &options)));
        let stopped = db.stopped().is_some();
        match self.caught("write", outcome) {
            Some(Ok(())) => {
                assert!(!self.unknown && !was_stopped, "acknowledged after {:?}", self.errors);
                self.states.push(state);
                self.acknowledged = number;
                if sync {
                    self.durable = number;
                }
            }
            Some(Err(error)) => {
                self.note("write", &error);
                match kind(&error) {
                    _ if was_stopped => assert!(matches!(kind(&error), "ReadOnly" | "Background"), "{error}"),
                    "CommitUnknown" => {
                        assert!(sync && stopped && !self.unknown, "{error}");
                        self.unknown = true;
                        self.states.push(state);
                    }
                    _ => {}
                }
            }
            None => self.settle(number, state),
        }
        self.check_stopped("write");
        self.look();
    }

    /// A commit panicked. It is there, and the reads say so; or it may be in the log, and then nothing may come after
    /// it; or it never came that far, and never will be there. A flush tells the last two apart.
    fn settle(&mut self, number: usize, state: State) {
        let Some(db) = &self.db else { return };
        let there = self::number(db).ok() == Some(number);
        _ = catch_unwind(AssertUnwindSafe(|| db.flush().is_ok()));
        let stopped = db.stopped().is_some();
        if there || stopped {
            self.states.push(state);
        }
        if there {
            self.acknowledged = number;
        }
        self.unknown = !there && stopped;
    }

    /// Nothing stops a database for good but what the contract names.
    fn check_stopped(&self, what: &str) {
        let Some(cause) = self.db.as_ref().and_then(Db::stopped) else { return };
        let fault = self.fault.as_ref().unwrap_or_else(|| panic!("{what}: stopped without a fault: {cause}"));
        let hits = self.fs.hits();
        assert!(expect::may_stop(&hits, fault.kind), "{what}: {hits:?} ended writing: {cause}");
    }

    /// What is visible is what was acknowledged, or the read fails, and it fails only if the fault is one of reading.
    pub fn look(&mut self) {
        let expected = self.expected();
        self.call("read", |db| check_reads(db, &expected, ABSENT));
    }

    /// A snapshot, and an iterator that is walked later.
    pub fn hold(&mut self, later: impl FnOnce(&mut Self)) {
        let expected = self.expected();
        let Some(db) = &self.db else { return };
        let snapshot = db.snapshot();
        later(self);
        self.call("snapshot", |db| {
            for (name, map) in &expected {
                let mut wanted = map.iter();
                let mut iter = snapshot.iter(&keyspace(db, name)?)?;
                while let Some(entry) = iter.next() {
                    let Ok((key, value)) = entry else {
                        assert!(iter.next().is_some_and(|again| again.is_err()), "an error that goes away");
                        return Err(entry.unwrap_err());
                    };
                    assert_eq!(Some((&key.to_vec(), &value.to_vec())), wanted.next(), "{name}");
                }
                assert_eq!(wanted.next(), None, "{name} ended early");
            }
            Ok(())
        });
    }

    pub fn keyspace(&mut self, name: &str) {
        self.space(name);
    }

    /// The keyspace with this name, made if it is not there: a call that may fail like any other.
    fn space(&mut self, name: &str) -> Option<Keyspace> {
        let space = self.call("keyspace", |db| keyspace(db, name));
        self.check_stopped("keyspace");
        space
    }

    /// Of an empty keyspace only, so that no commit sees a difference whatever a failure leaves of it.
    pub fn drop_keyspace(&mut self, name: &str) {
        if !self.states.last().unwrap().contains_key(name) {
            self.call("drop", |db| db.drop_keyspace(name));
            self.check_stopped("drop");
        }
    }

    pub fn flush(&mut self) {
        self.call("flush", Db::flush);
        self.check_stopped("flush");
        self.look();
    }

    pub fn compact(&mut self) {
        self.call("compact", |db| db.compact_range(..));
        self.check_stopped("compact");
        self.look();
    }

    pub fn verify(&mut self) {
        self.call("verify", |db| db.verify().map(drop));
    }

    pub fn persist(&mut self) {
        if self.call("persist", Db::persist).is_some() {
            assert!(!self.unknown, "a sync after {:?} proves nothing", self.errors);
            self.durable = self.acknowledged;
        }
        self.check_stopped("persist");
    }

    pub fn close(&mut self) {
        if self.call("close", Db::close).is_some() {
            self.durable = self.acknowledged;
        }
        self.drop_db();
    }

    /// A panic in the drop is the fault's too.
    pub fn drop_db(&mut self) {
        let db = self.db.take();
        let outcome = catch_unwind(AssertUnwindSafe(|| drop(db)));
        self.caught("drop", outcome);
    }

    /// The disk is healthy again: a database that was not stopped takes writes, one that was says so, and both read.
    /// Then what is left is opened as a kill, and as power cuts, would leave it.
    pub fn finish(&mut self) {
        self.made = Op::ALL.map(|op| (op, self.fs.calls(op))).to_vec();
        self.looks = self.clock.calls();
        self.fs.clear();
        if let Some(db) = &self.db {
            let stopped = db.stopped().is_some() || self.unknown;
            let before = self.acknowledged;
            self.commit(&["default"], 20, false);
            // A panic in a call of this thread's own may be noticed by the next call only.
            let panicked = self.fault.as_ref().is_some_and(|fault| fault.kind == FaultKind::Panic);
            let stopped = stopped || panicked && self.db.as_ref().is_some_and(|db| db.stopped().is_some());
            assert_eq!(self.acknowledged > before, !stopped, "healthy again, after {:?}", self.errors);
            if !self.flips() {
                let expected = self.expected();
                check_reads(self.db.as_ref().unwrap(), &expected, ABSENT).unwrap();
            }
        }
        if let Some(fault) = &self.fault {
            expect::whole_run(fault, &self.errors);
        }
        let trouble = self.errors.join("; ");
        self.check_left(self.sim.kill(), self.acknowledged, &format!("killed after {trouble}"));
        let drawn = mix(self.attempts ^ self.sim.events());
        let other = match drawn % 4 {
            0 => CrashImage::EverythingUnsynced,
            1 => CrashImage::AllBut(drawn % self.sim.unsynced().max(1)),
            _ => CrashImage::Random(drawn),
        };
        for cut in [CrashImage::NothingUnsynced, other] {
            let what = format!("{cut:?} after {trouble}");
            self.check_left(self.sim.crash_with(cut), self.durable, &what);
        }
    }

    /// Opens what is left and holds it against the ledger.
    fn check_left(&self, image: SimFs, floor: usize, what: &str) {
        image.set_capacity(None);
        let db = self.config.sim(image).open().unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = number(&db).unwrap();
        let last = self.states.len() - 1;
        assert!((floor..=last).contains(&found), "{what}: {found} commits of {floor}..={last}");
        check_reads(&db, &self.states[found], ABSENT).unwrap();
        db.put_with("again", "writable", &WriteOptions::sync()).unwrap();
        db.close().unwrap();
    }
}
