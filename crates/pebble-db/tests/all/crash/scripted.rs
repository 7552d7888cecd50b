//! A database that is written by script, the history of its commits, and the events of its disk that are looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pebble_db::{Db, LogIo, WriteBatch, WriteOptions};
use pebble_vfs::{Effect, FaultFs, Op, SimFs};

use super::tally::Tally;
use super::visit::{CLOSE, Depth, look};
use crate::support::{Config, State, check_reads, keyspace, mix};

pub const COUNTER: &[u8] = b"!counter";
/// Keys of the commits; few enough that later commits overwrite and delete earlier ones.
pub const KEYS: u64 = 12;

/// What has been done so far, and what a crash now may not lose.
pub struct History {
    /// `states[k]` is what commits 1..k make.
    pub states: Vec<State>,
    /// Commits that returned ok.
    pub acknowledged: usize,
    /// Commits that a power cut may not lose.
    pub durable: usize,
    /// Keyspaces whose creation returned ok, and those that were asked for.
    pub keyspaces: Vec<String>,
    pub asked: Vec<String>,
    /// Attempts at any commit: the content differs between two attempts at the same number.
    attempts: u64,
}

pub type Shared = Arc<Mutex<(History, Tally)>>;

pub fn lock(shared: &Shared) -> MutexGuard<'_, (History, Tally)> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the writes of a commit: keyspace, key, and what becomes of it.
pub type Write = (&'static str, Vec<u8>, Change);

#[derive(Clone)]
pub enum Change {
    Put(Vec<u8>),
    Delete,
    /// All keys from this one on and before the other.
    DeleteRange(Vec<u8>),
}

/// A database that is written by script.
pub struct Scripted {
    pub fs: SimFs,
    /// What the database calls, on the way to the disk: no call fails, but each is counted.
    calls: FaultFs,
    pub config: Config,
    db: Option<Db>,
    pub shared: Shared,
    /// One moment in so many is looked at.
    pub thin: u64,
    pub depth: Depth,
    /// The events of an earlier disk, if the script went on with another.
    before: BTreeMap<Op, u64>,
}

impl Scripted {
    pub fn new(config: Config) -> Self {
        let history = History {
            states: vec![State::new()],
            acknowledged: 0,
            durable: 0,
            keyspaces: vec!["default".into()],
            asked: vec!["default".into()],
            attempts: 0,
        };
        let shared = Arc::new(Mutex::new((history, Tally::default())));
        let fs = SimFs::new(7);
        Self {
            calls: FaultFs::over_sim(fs.clone()),
            fs,
            config,
            db: None,
            shared,
            thin: 1,
            depth: CLOSE,
            before: BTreeMap::new(),
        }
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    pub fn open(&mut self) {
        self.db = Some(self.config.sim(self.calls.clone()).open().unwrap());
    }

    pub fn keyspace(&self, name: &str) {
        lock(&self.shared).0.asked.push(name.into());
        keyspace(self.db(), name).unwrap();
        lock(&self.shared).0.keyspaces.push(name.into());
    }

    /// The next commit: its counter, and `writes` made from its number. Says whether it was acknowledged.
    pub fn try_commit(&self, sync: bool, writes: impl FnOnce(u64) -> Vec<Write>) -> pebble_db::Result<()> {
        let (number, writes) = {
            let (history, _) = &mut *lock(&self.shared);
            let number = history.states.len() as u64;
            history.attempts += 1;
            let mut all = writes(history.attempts);
            all.push(("default", COUNTER.to_vec(), Change::Put(number.to_be_bytes().to_vec())));
            let mut state = history.states.last().unwrap().clone();
            for (name, key, change) in &all {
                let map = state.entry((*name).into()).or_default();
                match change {
                    Change::Put(value) => _ = map.insert(key.clone(), value.clone()),
                    Change::Delete => _ = map.remove(key),
                    Change::DeleteRange(end) => map.retain(|other, _| other < key || other >= end),
                }
            }
            state.retain(|_, map| !map.is_empty());
            history.states.push(state);
            (history.states.len() - 1, all)
        };
        let mut batch = WriteBatch::new();
        for (name, key, change) in &writes {
            let space = keyspace(self.db(), name).unwrap();
            match change {
                Change::Put(value) => batch.put(&space, key, value),
                Change::Delete => batch.delete(&space, key),
                Change::DeleteRange(end) => batch.delete_range(&space, &key[..]..&end[..]),
            };
        }
        let options = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
        let outcome = self.db().write_with(batch, &options);
        let (history, tally) = &mut *lock(&self.shared);
        match &outcome {
            Ok(()) => {
                history.acknowledged = number;
                if sync {
                    history.durable = number;
                }
            }
            Err(_) => _ = history.states.pop(),
        }
        if self.config.log_io == LogIo::Map && mix(history.attempts).is_multiple_of(self.thin) {
            // A commit to mapped memory is no event of the disk; the moment after it is one of its own.
            look(&self.fs, self.fs.events(), "after a commit", self.depth, &self.config, history, tally);
        }
        outcome
    }

    pub fn commit(&self, sync: bool, writes: impl FnOnce(u64) -> Vec<Write>) {
        self.try_commit(sync, writes).unwrap();
    }

    /// Everything acknowledged is durable from now on.
    pub fn all_durable(&self) {
        let (history, _) = &mut *lock(&self.shared);
        history.durable = history.acknowledged;
    }

    pub fn persist(&self) {
        self.db().persist().unwrap();
        self.all_durable();
    }

    pub fn flush(&self) {
        self.db().flush().unwrap();
    }

    /// Of a keyspace that is empty already, so that no commit sees a difference.
    pub fn drop_keyspace(&self, name: &str) {
        lock(&self.shared).0.keyspaces.retain(|known| known != name);
        assert!(self.db().drop_keyspace(name).unwrap());
    }

    pub fn compact(&self) {
        self.db().compact_range(..).unwrap();
    }

    pub fn close(&mut self) {
        let db = self.db.take().unwrap();
        db.close().unwrap();
        self.all_durable();
    }

    /// As if closed, says the contract.
    pub fn drop_db(&mut self) {
        self.db = None;
        self.all_durable();
    }

    pub fn check(&self) {
        let expected = lock(&self.shared).0.states.last().unwrap().clone();
        check_reads(self.db(), &expected, &[]).unwrap();
    }
}

impl Scripted {
    /// Takes images at every event of the disk.
    pub fn watch(&self, script: &'static str) {
        let shared = Arc::clone(&self.shared);
        let (config, thin, depth) = (self.config.clone(), self.thin, self.depth);
        self.fs.on_event(move |fs, event| {
            if std::thread::panicking() {
                return;
            }
            let (history, tally) = &mut *lock(&shared);
            tally.events += 1;
            *tally.looked.entry(fs.announced().unwrap()).or_default() += 1;
            if !mix(event).is_multiple_of(thin) {
                return;
            }
            look(fs, event, script, depth, &config, history, tally);
        });
    }

    /// Goes on with another disk: its events are added to those seen so far.
    pub fn watch_instead(&mut self, fs: SimFs) {
        self.assert_nothing_missed();
        self.fs.clear_on_event();
        self.db = None;
        self.calls = FaultFs::over_sim(fs.clone());
        self.fs = fs;
        lock(&self.shared).1.events = 0;
        self.before = lock(&self.shared).1.looked.clone();
        self.watch("killed, and on");
    }

    /// Every call that changes the disk was an event at which images were taken, kind by kind.
    pub fn assert_nothing_missed(&self) {
        let (_, tally) = &*lock(&self.shared);
        assert_eq!(tally.events, self.fs.events(), "an event was missed");
        for op in Op::ALL {
            let count = |looked: &BTreeMap<Op, u64>| looked.get(&op).copied().unwrap_or(0);
            let (looked, calls) = (count(&tally.looked) - count(&self.before), self.calls.calls(op));
            match op.effect() {
                Effect::Always => assert_eq!(looked, calls, "{op:?} was missed"),
                Effect::Sometimes => assert!(looked <= calls, "{op:?}"),
                Effect::None => assert_eq!(looked, 0, "{op:?} changes the disk"),
            }
        }
    }
}
