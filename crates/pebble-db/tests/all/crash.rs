//! Power cuts and kills at every state-changing event of a set of scripts, on the simulated disk.
//!
//! ```text
//!     script ── event 0 ── event 1 ── event 2 ── ... ── end
//!                  │          │
//!                  ├─ kill    ├─ kill                       each image: open, compare with the history,
//!                  ├─ nothing ├─ nothing                    write, reopen, compare; one in ten is crashed
//!                  ├─ all     ├─ all                        again at every event of its own recovery
//!                  └─ ...     └─ ...
//! ```
//!
//! Commit `n` sets the counter to `n` and derives its other writes from `n`, so a recovered database says itself
//! which commits it holds, and the history says what they make.

mod scripts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pebble_db::{Db, LogIo, WriteBatch, WriteOptions};
use pebble_vfs::SimFs;
use pebble_vfs::sim::CrashImage;

use crate::campaign;
use crate::support::{
    Config, LOG_MODES, Rng, State, assert_none, attempt, check_reads, env_number, keyspace, message, mix,
};
use scripts::{SCRIPTS, delete, delete_range, everywhere, key, put};

const COUNTER: &[u8] = b"!counter";
/// Keys of the commits; few enough that later commits overwrite and delete earlier ones.
const KEYS: u64 = 12;

/// What has been done so far, and what a crash now may not lose.
struct History {
    /// `states[k]` is what commits 1..k make.
    states: Vec<State>,
    /// Commits that returned ok.
    acknowledged: usize,
    /// Commits that a power cut may not lose.
    durable: usize,
    /// Keyspaces whose creation returned ok, and those that were asked for.
    keyspaces: Vec<String>,
    asked: Vec<String>,
    /// Attempts at any commit: the content differs between two attempts at the same number.
    attempts: u64,
}

/// The figures of one script.
#[derive(Default)]
struct Tally {
    events: u64,
    images: u64,
    recoveries: u64,
    /// What did not hold, and in which image. A script goes on after it: the others are of interest too.
    failures: Vec<String>,
}

type Shared = Arc<Mutex<(History, Tally)>>;

fn lock(shared: &Shared) -> MutexGuard<'_, (History, Tally)> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the writes of a commit: keyspace, key, and what becomes of it.
type Write = (&'static str, Vec<u8>, Change);

#[derive(Clone)]
enum Change {
    Put(Vec<u8>),
    Delete,
    /// All keys from this one on and before the other.
    DeleteRange(Vec<u8>),
}

/// A database that is written by script.
struct Scripted {
    fs: SimFs,
    config: Config,
    db: Option<Db>,
    shared: Shared,
    /// One moment in so many is looked at.
    thin: u64,
}

impl Scripted {
    fn new(config: Config) -> Self {
        let history = History {
            states: vec![State::new()],
            acknowledged: 0,
            durable: 0,
            keyspaces: vec!["default".into()],
            asked: vec!["default".into()],
            attempts: 0,
        };
        let shared = Arc::new(Mutex::new((history, Tally::default())));
        Self { fs: SimFs::new(7), config, db: None, shared, thin: 1 }
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn open(&mut self) {
        self.db = Some(self.config.sim(self.fs.clone()).open().unwrap());
    }

    fn keyspace(&self, name: &str) {
        lock(&self.shared).0.asked.push(name.into());
        keyspace(self.db(), name).unwrap();
        lock(&self.shared).0.keyspaces.push(name.into());
    }

    /// The next commit: its counter, and `writes` made from its number. Says whether it was acknowledged.
    fn try_commit(&self, sync: bool, writes: impl FnOnce(u64) -> Vec<Write>) -> pebble_db::Result<()> {
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
            look(&self.fs, self.fs.events(), "after a commit", &self.config, history, tally);
        }
        outcome
    }

    fn commit(&self, sync: bool, writes: impl FnOnce(u64) -> Vec<Write>) {
        self.try_commit(sync, writes).unwrap();
    }

    /// Everything acknowledged is durable from now on.
    fn all_durable(&self) {
        let (history, _) = &mut *lock(&self.shared);
        history.durable = history.acknowledged;
    }

    fn persist(&self) {
        self.db().persist().unwrap();
        self.all_durable();
    }

    fn flush(&self) {
        self.db().flush().unwrap();
    }

    /// Of a keyspace that is empty already, so that no commit sees a difference.
    fn drop_keyspace(&self, name: &str) {
        lock(&self.shared).0.keyspaces.retain(|known| known != name);
        assert!(self.db().drop_keyspace(name).unwrap());
    }

    fn compact(&self) {
        self.db().compact_range(..).unwrap();
    }

    fn close(&mut self) {
        let db = self.db.take().unwrap();
        db.close().unwrap();
        self.all_durable();
    }

    /// As if closed, says the contract.
    fn drop_db(&mut self) {
        self.db = None;
        self.all_durable();
    }

    fn check(&self) {
        let expected = lock(&self.shared).0.states.last().unwrap().clone();
        check_reads(self.db(), &expected, &[]).unwrap();
    }
}

/// The images of one moment: the process dies, or the power fails in one of several ways.
fn images(fs: &SimFs, event: u64) -> Vec<(String, bool, SimFs)> {
    let cuts = [
        CrashImage::NothingUnsynced,
        CrashImage::EverythingUnsynced,
        CrashImage::NamesOnly,
        CrashImage::DataOnly,
        CrashImage::ZeroedTail,
        CrashImage::TornTail(event),
        CrashImage::Random(event),
        CrashImage::Random(event + (1 << 32)),
    ];
    let mut images = vec![("kill".to_owned(), true, fs.kill())];
    images.extend(cuts.map(|cut| (format!("{cut:?}"), false, fs.crash_with(cut))));
    images
}

/// Opens an image and holds it against the history: the commits it has are at least `floor`, at most all, and
/// make exactly what they should. Gives the number of commits back.
fn check_image(db: &Db, history: &History, floor: usize) -> usize {
    let counter = db.get(COUNTER).unwrap();
    let found = counter.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()));
    let found = usize::try_from(found).unwrap();
    let last = history.states.len() - 1;
    assert!((floor..=last).contains(&found), "recovered {found} commits of {floor}..={last}");
    let mut absent = vec![b"absent".to_vec()];
    absent.extend((0..KEYS).map(key));
    let absent: Vec<&[u8]> = absent.iter().map(Vec::as_slice).collect();
    check_reads(db, &history.states[found], &absent).unwrap();
    let names = db.keyspaces();
    assert!(names.iter().all(|name| history.asked.contains(name)), "keyspaces {names:?}");
    if found > 0 || floor > 0 {
        assert!(history.keyspaces.iter().all(|name| names.contains(name)), "keyspaces {names:?}");
    }
    found
}

/// How a recovered database ends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Close,
    Kill,
    PowerCut,
}

const AFTERWARDS: [Then; 3] = [Then::Close, Then::Kill, Then::PowerCut];

/// All that an image must stand: it opens, holds a prefix, takes a synced write, and has all of that the next time.
fn visit(image: &SimFs, history: &History, floor: usize, config: &Config, then: Then) {
    image.set_capacity(None);
    let db = config.sim(image.clone()).open().unwrap();
    let found = check_image(&db, history, floor);
    let mut state = history.states[found].clone();
    db.put_with(b"after", b"1", &WriteOptions::sync()).unwrap();
    state.entry("default".into()).or_default().insert(b"after".to_vec(), b"1".to_vec());
    let again = match then {
        Then::Close => {
            db.close().unwrap();
            image.clone()
        }
        Then::Kill => image.kill(),
        Then::PowerCut => image.crash_with(CrashImage::NothingUnsynced),
    };
    drop(db);
    let db = config.sim(again).open().unwrap_or_else(|error| panic!("reopened after {then:?}: {error}"));
    let reads = catch_unwind(AssertUnwindSafe(|| check_reads(&db, &state, &[b"absent"]).unwrap()));
    reads.unwrap_or_else(|panic| panic!("reopened after {then:?}: {}", message(&*panic)));
    assert_eq!(db.recovery().clean, then == Then::Close);
}

/// Crashes the recovery of an image at every event of its own, and recovers from that. Gives the number of images.
fn crash_recovery(image: &SimFs, history: &History, floor: usize, config: &Config, seed: u64) -> u64 {
    image.set_capacity(None);
    let taken: Arc<Mutex<Vec<(String, bool, SimFs)>>> = Arc::default();
    let sink = Arc::clone(&taken);
    let take = move |fs: &SimFs, event: u64| {
        let mut all = images(fs, seed + event);
        let drawn = all.swap_remove(1 + usize::try_from(mix(seed + event) % 8).unwrap());
        sink.lock().unwrap().extend([all.swap_remove(0), drawn]);
    };
    image.on_event(take);
    drop(config.sim(image.clone()).open().unwrap());
    image.clear_on_event();
    let taken = std::mem::take(&mut *taken.lock().unwrap());
    let count = taken.len() as u64;
    for (what, kill, image) in taken {
        // Recovery from a kill may itself lose power, and what was only buffered with it.
        let floor = if kill { floor } else { floor.min(history.durable) };
        let db = config.sim(image).open().unwrap_or_else(|error| panic!("{what} in recovery: {error}"));
        check_image(&db, history, floor);
    }
    count
}

impl Scripted {
    /// Takes images at every event of the disk.
    fn watch(&self, script: &'static str) {
        let shared = Arc::clone(&self.shared);
        let (config, thin) = (self.config.clone(), self.thin);
        self.fs.on_event(move |fs, event| {
            if std::thread::panicking() {
                return;
            }
            let (history, tally) = &mut *lock(&shared);
            tally.events += 1;
            if !mix(event).is_multiple_of(thin) {
                return;
            }
            look(fs, event, script, &config, history, tally);
        });
    }

    /// Goes on with another disk: its events are added to those seen so far.
    fn watch_instead(&mut self, fs: SimFs) {
        assert_eq!(lock(&self.shared).1.events, self.fs.events());
        self.fs.clear_on_event();
        self.db = None;
        self.fs = fs;
        lock(&self.shared).1.events = 0;
        self.watch("killed, and on");
    }
}

/// Takes the images of this moment and visits each.
fn look(fs: &SimFs, event: u64, script: &str, config: &Config, history: &History, tally: &mut Tally) {
    for (what, kill, image) in images(fs, event) {
        let floor = if kill { history.acknowledged } else { history.durable };
        tally.images += 1;
        let recover_again = mix(tally.images).is_multiple_of(10);
        let way = usize::try_from((event + tally.images) % 3).unwrap();
        let recoveries = &mut tally.recoveries;
        let name = || format!("{script:?}, {:?}, event {event}, image {what}, floor {floor}", config.log_io);
        attempt(&mut tally.failures, name, || {
            if recover_again {
                *recoveries += crash_recovery(&image.kill(), history, floor, config, event);
            }
            // What only a kill leaves, the kernel's unsynced pages, is looked at in all ways.
            let ways = if kill { &AFTERWARDS[..] } else { &AFTERWARDS[way..=way] };
            for then in ways {
                visit(&image.kill(), history, floor, config, *then);
            }
        });
    }
}

fn run_all(log_io: LogIo) {
    let mut total = Tally::default();
    for (name, script) in SCRIPTS {
        let mut run = Scripted::new(Config::tiny(log_io));
        run.watch(name);
        script(&mut run);
        run.fs.clear_on_event();
        // The moment after the last event, and what dropping the handle leaves.
        let shared = Arc::clone(&run.shared);
        let (history, tally) = &mut *lock(&shared);
        assert_eq!(tally.events, run.fs.events(), "{name}: an event was missed");
        look(&run.fs, run.fs.events(), name, &run.config, history, tally);
        total.events += tally.events;
        total.images += tally.images;
        total.recoveries += tally.recoveries;
        total.failures.append(&mut tally.failures);
    }
    println!(
        "crash, {log_io:?}: {} scripts, {} events, {} images, {} images of recoveries",
        SCRIPTS.len(),
        total.events,
        total.images,
        total.recoveries
    );
    campaign::count(
        &["I1", "I2", "I3", "I5", "I7", "killed", "power-lost"],
        "images",
        total.images + total.recoveries,
    );
    assert_none(&total.failures);
}

#[test]
fn every_event_with_a_mapped_log() {
    run_all(LOG_MODES[0]);
}

#[test]
fn every_event_with_a_written_log() {
    run_all(LOG_MODES[1]);
}

/// Scripts that nobody thought of, under random layouts. One moment in twelve is looked at.
#[test]
fn random_scripts() {
    let seeds = env_number("PEBBLE_CRASH_SEEDS", 8);
    let first = env_number("PEBBLE_SEED", 1);
    let mut total = Tally::default();
    for seed in first..first + seeds {
        let mut rng = Rng(seed as u64);
        // Large segments would only make large images.
        let config = Config { segments: (4096, 16384), ..Config::random(&mut rng) };
        let mut run = Scripted::new(config);
        run.thin = 12;
        run.open();
        for name in ["a", "b"] {
            run.keyspace(name);
        }
        run.watch("random");
        let opened = run.fs.events();
        for _ in 0..40 {
            random_step(&mut run, &mut rng);
        }
        run.fs.clear_on_event();
        let shared = Arc::clone(&run.shared);
        let (_, tally) = &mut *lock(&shared);
        assert_eq!(opened + tally.events, run.fs.events(), "seed {seed}: an event was missed");
        total.events += tally.events;
        total.images += tally.images;
        total.recoveries += tally.recoveries;
        total.failures.extend(tally.failures.drain(..).map(|failure| format!("seed {seed}: {failure}")));
    }
    println!(
        "crash, {seeds} random scripts: {} events, {} images, {} images of recoveries",
        total.events, total.images, total.recoveries
    );
    assert_none(&total.failures);
}

fn random_step(run: &mut Scripted, rng: &mut Rng) {
    let sync = rng.one_in(5);
    match rng.below(20) {
        0 => run.flush(),
        1 => run.compact(),
        2 => run.persist(),
        3 => {
            run.close();
            run.open();
            run.check();
        }
        4 => {
            run.drop_db();
            run.open();
            run.check();
        }
        5 => run.commit(sync, everywhere),
        _ => {
            let mut rng = rng.clone();
            run.commit(sync, move |n| {
                let write = |rng: &mut Rng, n: u64| {
                    let name = rng.pick(&["default", "a", "b"]);
                    let len = rng.pick(&[0, 10, 10, 100, 100, 600, 1800, 1800, 9000, 30_000]);
                    match rng.below(12) {
                        0 => delete_range(name, n),
                        1..=4 => delete(name, n),
                        _ => put(name, n, len),
                    }
                };
                (0..1 + rng.next() % 3).map(|of| write(&mut rng, n * 4 + of)).collect()
            });
        }
    }
    rng.next();
}
