//! Power cuts and kills at every state-changing event of a set of scripts, on the simulated disk.
//!
//! ```text
//!     script ── event 0 ── event 1 ── event 2 ── ... ── end
//!                  │          │
//!                  ├─ kill    ├─ kill                       each image: open, compare with the history,
//!                  ├─ nothing ├─ nothing                    write, reopen, compare; one in ten is crashed
//!                  ├─ all     ├─ all                        again at every event of its own recovery
//!                  ├─ but one ├─ but one
//!                  └─ ...     └─ ...
//! ```
//!
//! The images of one moment are all different: what a kind of power cut leaves that another left already is not
//! counted, and what a moment has few of is not made up by repeating.
//!
//! Commit `n` sets the counter to `n` and derives its other writes from `n`, so a recovered database says itself
//! which commits it holds, and the history says what they make.

mod scripts;
mod sequences;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pebble_db::{Db, LogIo, WriteBatch, WriteOptions};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{Effect, FaultFs, Fs, Op, SimFs};

use crate::campaign;
use crate::support::{
    Config, Rng, State, assert_none, attempt, check_reads, dir, env_number, keyspace, message, mix,
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

/// How closely a moment is looked at.
#[derive(Clone, Copy)]
struct Depth {
    /// Images of one moment at most, the kill among them.
    images: usize,
    /// One image in so many is crashed again while it recovers.
    again: u64,
    /// After a failure nothing more is looked at.
    to_the_first: bool,
}

/// For the scripts: all images that differ, but for the last of very many.
const CLOSE: Depth = Depth { images: 18, again: 10, to_the_first: false };
/// Images of one moment of a recovery.
const IMAGES_IN_RECOVERY: usize = 3;

/// The figures of one script.
#[derive(Default)]
struct Tally {
    events: u64,
    /// The events at which images were taken, by the kind of call.
    looked: BTreeMap<Op, u64>,
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
    /// What the database calls, on the way to the disk: no call fails, but each is counted.
    calls: FaultFs,
    config: Config,
    db: Option<Db>,
    shared: Shared,
    /// One moment in so many is looked at.
    thin: u64,
    depth: Depth,
    /// The events of an earlier disk, if the script went on with another.
    before: BTreeMap<Op, u64>,
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

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn open(&mut self) {
        self.db = Some(self.config.sim(self.calls.clone()).open().unwrap());
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
            look(&self.fs, self.fs.events(), "after a commit", self.depth, &self.config, history, tally);
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

/// Ways in which the power may fail now, the plainest first; `seed` draws the random ones.
fn cuts(fs: &SimFs, seed: u64) -> Vec<CrashImage> {
    let mut cuts = vec![
        CrashImage::NothingUnsynced,
        CrashImage::EverythingUnsynced,
        CrashImage::NamesOnly,
        CrashImage::DataOnly,
        CrashImage::ZeroedTail,
    ];
    // Of many things, those that come last are the ones that the others build on.
    let things = fs.unsynced();
    for thing in things.saturating_sub(6)..things {
        cuts.extend([CrashImage::AllBut(thing), CrashImage::Only(thing)]);
    }
    cuts.extend((0..4).map(|n| CrashImage::TornTail(seed + (n << 32))));
    cuts.extend((0..8).map(|n| CrashImage::Random(seed + (n << 32))));
    cuts
}

/// The images of one moment: the process dies, or the power fails in one of several ways that differ.
fn images(fs: &SimFs, event: u64, most: usize) -> Vec<(String, bool, SimFs)> {
    let mut images = vec![("kill".to_owned(), true, fs.kill())];
    let mut seen = Vec::new();
    let mut cuts = cuts(fs, event);
    if most < cuts.len() {
        // Never the same ones at every moment.
        let by = Rng(event).below(cuts.len());
        cuts.rotate_left(by);
    }
    for cut in cuts {
        if images.len() >= most {
            break;
        }
        let image = fs.crash_with(cut);
        let contents = image.contents();
        if !seen.contains(&contents) {
            seen.push(contents);
            images.push((format!("{cut:?}"), false, image));
        }
    }
    images
}

/// As [`images`], for the moments of a recovery: the kill, and some of the others.
fn some_images(fs: &SimFs, seed: u64) -> Vec<(String, bool, SimFs)> {
    let mut images = vec![("kill".to_owned(), true, fs.kill())];
    let mut cuts = cuts(fs, seed);
    let mut rng = Rng(seed);
    while images.len() < IMAGES_IN_RECOVERY {
        let cut = cuts.swap_remove(rng.below(cuts.len()));
        images.push((format!("{cut:?}"), false, fs.crash_with(cut)));
    }
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
    image.on_event(move |fs, event| sink.lock().unwrap().extend(some_images(fs, mix(seed) ^ event)));
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
    fn watch_instead(&mut self, fs: SimFs) {
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
    fn assert_nothing_missed(&self) {
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

/// Takes the images of this moment and visits each.
fn look(
    fs: &SimFs,
    event: u64,
    script: &str,
    depth: Depth,
    config: &Config,
    history: &History,
    tally: &mut Tally,
) {
    for (what, kill, image) in images(fs, event, depth.images) {
        if depth.to_the_first && !tally.failures.is_empty() {
            return;
        }
        let floor = if kill { history.acknowledged } else { history.durable };
        tally.images += 1;
        let recover_again = mix(tally.images).is_multiple_of(depth.again);
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

/// Images, those of recoveries included, that the parts of the enumeration come to at least.
const PARTS: [u64; 5] = [60_000, 60_000, 75_000, 90_000, 60_000];
const _: () = assert!(PARTS[0] + PARTS[1] + PARTS[2] + PARTS[3] + PARTS[4] >= 250_000);

/// Calls that change a disk and that the engine never makes: it cuts no file.
const NEVER_MADE: [Op; 1] = [Op::Truncate];

impl Tally {
    fn add(&mut self, other: &mut Self) {
        self.events += other.events;
        self.images += other.images;
        self.recoveries += other.recoveries;
        self.failures.append(&mut other.failures);
        for (op, count) in &other.looked {
            *self.looked.entry(*op).or_default() += count;
        }
    }

    /// Prints the figures, holds them against the least there must be, and fails with the first failure.
    fn close(&self, what: &str, least: u64) {
        let (events, images, recoveries) = (self.events, self.images, self.recoveries);
        println!("crash, {what}: {events} events, {images} images, {recoveries} images of recoveries");
        println!("crash, {what}: {:?}", self.looked);
        campaign::count(
            &[
                "I1",
                "I2",
                "I3",
                "I5",
                "I7",
                "acknowledged",
                "killed",
                "power-lost",
                "mixed",
                "kill",
                "power-loss",
            ],
            "images",
            images + recoveries,
        );
        assert_none(&self.failures);
        assert!(images + recoveries >= least, "{what}: only {images} + {recoveries} images");
    }
}

/// One half of the scripts, so that both modes and both halves can run at once.
fn run_half(log_io: LogIo, half: usize) {
    let mut total = Tally::default();
    for (name, script) in SCRIPTS.iter().skip(half).step_by(2) {
        let mut run = Scripted::new(Config::tiny(log_io));
        run.watch(name);
        script(&mut run);
        run.fs.clear_on_event();
        run.assert_nothing_missed();
        // The moment after the last event, and what dropping the handle leaves.
        let shared = Arc::clone(&run.shared);
        let (history, tally) = &mut *lock(&shared);
        look(&run.fs, run.fs.events(), name, CLOSE, &run.config, history, tally);
        total.add(tally);
    }
    for op in Op::ALL.into_iter().filter(|op| op.effect() != Effect::None) {
        let looked = total.looked.get(&op).copied().unwrap_or(0);
        assert_eq!(looked == 0, NEVER_MADE.contains(&op), "{op:?}: {looked} moments");
    }
    let part = half + if log_io == LogIo::Map { 0 } else { 2 };
    total.close(&format!("{log_io:?}, half {half} of {} scripts", SCRIPTS.len()), PARTS[part]);
}

/// Runs the scripts up to the first failure: how many images, and what it was.
pub fn first_failure(config: &Config) -> (u64, Option<String>) {
    let mut images = 0;
    for (name, script) in SCRIPTS {
        let mut run = Scripted::new(config.clone());
        run.depth.to_the_first = true;
        run.watch(name);
        let mut failures = Vec::new();
        attempt(&mut failures, || format!("{name:?}"), || script(&mut run));
        run.fs.clear_on_event();
        let (_, tally) = &mut *lock(&run.shared);
        images += tally.images + tally.recoveries;
        tally.failures.append(&mut failures);
        if !tally.failures.is_empty() {
            return (images, Some(tally.failures.swap_remove(0)));
        }
    }
    (images, None)
}

#[test]
fn every_event_with_a_mapped_log_of_one_half() {
    run_half(LogIo::Map, 0);
}

#[test]
fn every_event_with_a_mapped_log_of_the_other_half() {
    run_half(LogIo::Map, 1);
}

#[test]
fn every_event_with_a_written_log_of_one_half() {
    run_half(LogIo::Write, 0);
}

#[test]
fn every_event_with_a_written_log_of_the_other_half() {
    run_half(LogIo::Write, 1);
}

/// A manifest of a megabyte is begun anew while the database is in use, not only at an open. It is grown unseen.
#[test]
fn a_manifest_that_has_grown_is_begun_anew_in_use() {
    let mut run = Scripted::new(Config::tiny(LogIo::Map));
    run.open();
    run.commit(true, |n| vec![put("default", n, 100)]);
    let manifest = |fs: &SimFs| {
        let mut files = fs.list(dir()).unwrap().into_iter();
        let file = files.find(|file| file.name.to_str().unwrap().starts_with("MANIFEST")).unwrap();
        (file.name, file.len)
    };
    let (before, mut n) = (manifest(&run.fs).0, 0);
    while manifest(&run.fs).1 < (1 << 20) - 1200 {
        let name = format!("{n:0>250}");
        run.db().keyspace(&name).unwrap();
        run.db().drop_keyspace(&name).unwrap();
        n += 1;
    }
    assert_eq!(manifest(&run.fs).0, before, "begun anew too early to be seen");
    run.watch("a roll");
    let grown = run.fs.events();
    for name in 'a'..'g' {
        run.keyspace(&name.to_string().repeat(250));
        run.commit(name == 'b', |n| vec![put("default", n, 100)]);
    }
    assert_ne!(manifest(&run.fs).0, before, "not begun anew");
    run.fs.clear_on_event();
    let shared = Arc::clone(&run.shared);
    let (_, tally) = &mut *lock(&shared);
    assert_eq!(grown + tally.events, run.fs.events(), "an event was missed");
    tally.close("a roll of the manifest", 1_000);
}

const RANDOM_SCRIPTS: usize = 12;

/// Scripts that nobody thought of, under random layouts. One moment in four is looked at.
#[test]
fn random_scripts() {
    let seeds = env_number("PEBBLE_CRASH_SEEDS", RANDOM_SCRIPTS);
    let first = env_number("PEBBLE_SEED", 1);
    let mut total = Tally::default();
    for seed in first..first + seeds {
        let mut rng = Rng(seed as u64);
        // Large segments would only make large images.
        let config = Config { segments: (4096, 16384), ..Config::random(&mut rng) };
        let mut run = Scripted::new(config);
        run.thin = 4;
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
        for failure in &mut tally.failures {
            failure.insert_str(0, &format!("seed {seed}: "));
        }
        total.add(tally);
    }
    let least = if seeds < RANDOM_SCRIPTS { 0 } else { PARTS[4] };
    total.close(&format!("{seeds} random scripts"), least);
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
