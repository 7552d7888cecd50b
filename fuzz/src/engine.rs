//! The engine: a database on a simulated disk beside a map, with crashes, kills and faults.
//!
//! ```text
//!   input = layout, then operations: choice u8 and what it needs
//! ```
//!
//! Oracle: every read is what the map says, or, once a call was made to fail, an error. What an open finds is one of
//! the commits that were made, none before it missing: at least those that the crash may not take, and a commit whose
//! fate is unknown whole or not at all. Errors are of the kinds that the fault allows.
//!
//! Threading: as every body; the engine works in the caller.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use pebble_db::{
    Builder, CompactionPolicy, Components, Compression, Db, Error, Executor, Keyspace, LogIo, PointIndex,
    ReadMode, Result, Snapshot, WriteBatch, WriteOptions,
};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, Fs, ManualClock, SimFs};

use crate::disk::DIR;
use crate::guard::bounded;
use crate::input::Input;
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "engine", run, repair: None, seeds, rounds: 1_000 };

/// Most operations of an input.
const OPS_MAX: usize = 160;

/// What a database with the smallest budget, its disk, the history and the images of it may hold: about ten times what
/// the longest inputs were seen to take.
const MEMORY_MAX: usize = 64 << 20;

/// The keyspaces, by name.
const NAMES: [&str; 2] = ["default", "users"];

/// What both keyspaces hold.
pub(crate) type State = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

/// Options of a small database.
pub(crate) fn builder(input: &mut Input<'_>, fs: Arc<dyn Fs>) -> Builder {
    let components = Components { fs, clock: Arc::new(ManualClock::new()), executor: Executor::Inline };
    let fan_out = input.pick(&[1_u16, 2, 3]);
    let policy = CompactionPolicy {
        fan_out: [fan_out; 6],
        crumbs: 4,
        crumb_bytes: 2048,
        tombstones_min: 4,
        ..CompactionPolicy::lazy()
    };
    Db::builder(Path::new(DIR))
        .components(components)
        .sync_interval(None)
        .log_io(input.pick(&[LogIo::Map, LogIo::Write]))
        .read_mode(input.pick(&[ReadMode::Map, ReadMode::Pread]))
        .compression(input.pick(&[Compression::None, Compression::Lz4]))
        .point_index(input.pick(&[
            PointIndex::Location,
            PointIndex::Bloom { bits_per_key: 4 },
            PointIndex::None,
        ]))
        .values_apart(input.pick(&[None, Some(64)]))
        .block_len(input.pick(&[64, 256]))
        .table_len(input.pick(&[1024, 4096]))
        .segment_len(4096, input.pick(&[4096, 16384]))
        .compaction(policy)
        .merge_threads(1)
        .memory_budget(1 << 20)
}

/// Both keyspaces of a database.
pub(crate) fn keyspaces(db: &Db) -> Result<[Keyspace; 2]> {
    Ok([db.default_keyspace(), db.keyspace(NAMES[1])?])
}

/// What a scan of both keyspaces gives, forward, and checked backward.
pub(crate) fn scan(spaces: &[Keyspace; 2]) -> Result<State> {
    let mut state = State::default();
    for (map, space) in state.iter_mut().zip(spaces) {
        let mut last: Option<Vec<u8>> = None;
        for entry in space.iter()? {
            let (key, value) = entry?;
            assert!(last.as_deref() < Some(&key), "keys out of order");
            last = Some(key.to_vec());
            map.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(state)
}

struct World {
    sim: SimFs,
    fs: FaultFs,
    /// `None` only between two lives.
    db: Option<(Db, [Keyspace; 2])>,
    /// What each commit of this life made, from what was found on.
    history: Vec<State>,
    /// The last of them that a power cut may not take.
    durable: usize,
    /// A commit of which nobody knows.
    unknown: Option<State>,
    /// Whether errors are allowed: a call was to fail, or the disk to be full.
    faulty: bool,
    snapshots: Vec<(Snapshot, State)>,
    values: u64,
}

fn run(bytes: &[u8]) {
    bounded(MEMORY_MAX, || {
        let mut input = Input(bytes);
        let sim = SimFs::new(3);
        let mut world = World {
            fs: FaultFs::over_sim(sim.clone()),
            sim,
            db: None,
            history: vec![State::default()],
            durable: 0,
            unknown: None,
            faulty: false,
            snapshots: Vec::new(),
            values: 0,
        };
        world.open(&mut input, 0);
        for _ in 0..OPS_MAX {
            if input.is_empty() {
                break;
            }
            world.step(&mut input);
        }
        world.check_all();
        world.restart(&mut input, Ending::Kill);
        world.check_all();
    });
}

/// How a life of the database ends.
#[derive(Clone, Copy)]
enum Ending {
    Close,
    Drop,
    Kill,
    Crash(CrashImage),
}

impl World {
    fn spaces(&self) -> &[Keyspace; 2] {
        &self.db.as_ref().unwrap().1
    }

    fn db(&self) -> &Db {
        &self.db.as_ref().unwrap().0
    }

    fn now(&self) -> &State {
        self.history.last().unwrap()
    }

    /// An error is one that a fault allows.
    fn assert_allowed(&self, error: &Error) {
        assert!(self.faulty, "without a fault: {error}");
        let kind = matches!(
            error,
            Error::Io(_) | Error::NoSpace(_) | Error::ReadOnly { .. } | Error::CommitUnknown { .. }
        );
        assert!(kind, "a failed call gave {error}");
    }

    fn allow<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.assert_allowed(&error)).ok()
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        match choice % 32 {
            0..=9 => self.commit(input, 1),
            10..=12 => self.commit(input, 4),
            13 => {
                if self.allow(self.db().persist()).is_some() {
                    self.durable = self.history.len() - 1;
                }
            }
            14..=16 => _ = self.allow(self.db().flush()),
            17 => _ = self.allow(self.db().compact_range(..)),
            18 => {
                let (a, b) = (input.key(), input.key());
                _ = self.allow(self.spaces()[input.below(2)].compact_range(a..b));
            }
            19 => {
                if self.snapshots.len() < 4 {
                    self.snapshots.push((self.db().snapshot(), self.now().clone()));
                }
            }
            20 => _ = self.snapshots.pop(),
            21 | 22 => self.check_key(input),
            23 | 24 => self.check_range(input),
            25 => self.check_all(),
            26 => self.restart(input, if choice & 0x80 == 0 { Ending::Close } else { Ending::Drop }),
            27 => self.restart(input, Ending::Kill),
            28 => {
                let seed = u64::from(input.u8());
                let image = [
                    CrashImage::NothingUnsynced,
                    CrashImage::EverythingUnsynced,
                    CrashImage::NamesOnly,
                    CrashImage::DataOnly,
                    CrashImage::ZeroedTail,
                    CrashImage::TornTail(seed),
                    CrashImage::Random(seed),
                ];
                let image = input.pick(&image);
                self.restart(input, Ending::Crash(image));
            }
            29 => self.fail(input),
            30 => self.clear(input),
            _ => {
                let used: usize = crate::disk::dump(&self.sim).values().map(Vec::len).sum();
                let full = choice & 0x80 == 0;
                self.sim.set_capacity(full.then(|| used as u64 + 256 * u64::from(input.u8())));
                self.faulty |= full;
            }
        }
    }

    /// Some later call will fail.
    fn fail(&mut self, input: &mut Input<'_>) {
        let op = input.pick(&[
            Op::Any,
            Op::Open,
            Op::Create,
            Op::Read,
            Op::Write,
            Op::Allocate,
            Op::Sync,
            Op::SyncDir,
            Op::Rename,
            Op::Remove,
            Op::Map,
            Op::MapMut,
        ]);
        let kind = input.pick(&[
            FaultKind::Io,
            FaultKind::NoSpace,
            FaultKind::ShortWrite,
            FaultKind::Interrupted,
            FaultKind::TooManyFiles,
            FaultKind::LyingSync,
        ]);
        let fault = Fault::once(op, u64::from(input.u8() % 16), kind);
        self.fs.inject(if input.u8().is_multiple_of(4) { fault.sticky() } else { fault });
        self.faulty = true;
    }

    /// One batch of up to `most` writes.
    fn commit(&mut self, input: &mut Input<'_>, most: usize) {
        let mut next = self.now().clone();
        let mut batch = WriteBatch::new();
        let spaces = self.spaces().clone();
        let flags = input.u8();
        for _ in 0..1 + usize::from(flags & 7) % most {
            let choice = input.u8();
            let at = usize::from(choice >> 7);
            let (map, space) = (&mut next[at], &spaces[at]);
            let key = input.key();
            match choice % 8 {
                0..=4 => {
                    self.values += 1;
                    let len = if choice & 0x40 == 0 {
                        usize::from(choice >> 3 & 7)
                    } else {
                        16 * usize::from(input.u8())
                    };
                    let mut value = self.values.to_le_bytes().to_vec();
                    value.resize(8 + len, choice);
                    batch.put(space, &key, &value);
                    map.insert(key, value);
                }
                5 | 6 => {
                    batch.delete(space, &key);
                    map.remove(&key);
                }
                _ => {
                    let end = input.key();
                    let bounds = (
                        Bound::Included(&key),
                        if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&end) },
                    );
                    batch.delete_range(space, bounds);
                    map.retain(|own, _| *own < key || !end.is_empty() && *own >= end);
                }
            }
        }
        let wanted = flags & 0x80 != 0;
        let options = if wanted { WriteOptions::sync() } else { WriteOptions::buffered() };
        // An empty batch is no commit, so it makes nothing durable either.
        let sync = wanted && !batch.is_empty();
        let done = self.db().write_with(batch, &options);
        self.committed(done, next, sync);
    }

    fn clear(&mut self, input: &mut Input<'_>) {
        let at = input.below(2);
        let mut next = self.now().clone();
        next[at].clear();
        let done = self.spaces()[at].clear();
        self.committed(done, next, false);
    }

    fn committed(&mut self, done: Result<()>, next: State, sync: bool) {
        match done {
            Ok(()) => {
                assert!(self.unknown.is_none(), "acknowledged behind a commit that nobody knows of");
                self.history.push(next);
                if sync {
                    self.durable = self.history.len() - 1;
                }
            }
            Err(error) => {
                self.assert_allowed(&error);
                if matches!(error, Error::CommitUnknown { .. }) {
                    self.unknown = Some(next);
                }
            }
        }
    }

    fn check_key(&self, input: &mut Input<'_>) {
        let (at, key) = (input.below(2), input.key());
        let found = self.allow(self.spaces()[at].get(&key));
        if let Some(found) = found {
            assert_eq!(found.as_deref(), self.now()[at].get(&key).map(Vec::as_slice));
        }
        for (snapshot, state) in &self.snapshots {
            if let Some(found) = self.allow(snapshot.get(&self.spaces()[at], &key)) {
                assert_eq!(found.as_deref(), state[at].get(&key).map(Vec::as_slice));
            }
        }
    }

    /// A walk from both ends, with seeks, against the map.
    fn check_range(&self, input: &mut Input<'_>) {
        let (at, lo, hi) = (input.below(2), input.key(), input.key());
        let space = &self.spaces()[at];
        let bounds =
            (Bound::Included(&lo), if hi.is_empty() { Bound::Unbounded } else { Bound::Excluded(&hi) });
        let (iter, state) = match self.snapshots.last() {
            Some((snapshot, state)) if input.u8().is_multiple_of(2) => (snapshot.range(space, bounds), state),
            _ => (space.range(bounds), self.now()),
        };
        let Some(mut iter) = self.allow(iter) else { return };
        let mut model: std::collections::VecDeque<_> =
            state[at].iter().filter(|(key, _)| **key >= lo && (hi.is_empty() || **key < hi)).collect();
        for _ in 0..40 {
            let back = input.u8() % 2 == 1;
            let (found, wanted) =
                if back { (iter.next_back(), model.pop_back()) } else { (iter.next(), model.pop_front()) };
            let done = found.is_none();
            match found.transpose() {
                Ok(found) => {
                    let found = found.as_ref().map(|(key, value)| (&**key, &**value));
                    assert_eq!(found, wanted.map(|(key, value)| (key.as_slice(), value.as_slice())));
                }
                Err(error) => {
                    self.assert_allowed(&error);
                    assert!(
                        iter.next().is_none_or(|next| next.is_err()),
                        "an iterator went on behind an error"
                    );
                    return;
                }
            }
            if done {
                return;
            }
        }
    }

    fn check_all(&self) {
        if let Some(found) = self.allow(scan(self.spaces())) {
            assert!(found == *self.now(), "a scan gives {found:?}, not {:?}", self.now());
        }
        for (space, map) in self.spaces().iter().zip(self.now()) {
            let Some(iter) = self.allow(space.iter()) else { continue };
            let mut model = map.iter().rev();
            for entry in iter.rev() {
                let Some((key, value)) = self.allow(entry) else { break };
                assert_eq!(
                    Some((&*key, &*value)),
                    model.next().map(|(key, value)| (key.as_slice(), value.as_slice()))
                );
            }
            for (key, value) in map {
                if let Some(found) = self.allow(space.get(key)) {
                    assert_eq!(found.as_deref(), Some(value.as_slice()));
                }
            }
        }
        if let Err(error) = self.db().verify() {
            self.assert_allowed(&error);
        }
    }

    /// Ends this life and begins the next.
    fn restart(&mut self, input: &mut Input<'_>, ending: Ending) {
        self.snapshots.clear();
        let (db, spaces) = self.db.take().unwrap();
        let last = self.history.len() - 1;
        let mut floor = last;
        match ending {
            Ending::Close => _ = self.allow(db.close()),
            Ending::Drop => {}
            Ending::Kill => self.sim = self.sim.kill(),
            Ending::Crash(image) => {
                self.sim = self.sim.crash_with(image);
                floor = self.durable;
            }
        }
        drop((spaces, db));
        self.sim.set_capacity(None);
        if !matches!(ending, Ending::Close | Ending::Drop) || !input.u8().is_multiple_of(4) {
            self.fs = FaultFs::over_sim(self.sim.clone());
            self.faulty = false;
        }
        self.open(input, floor);
    }

    /// Opens, and finds one of the commits from `floor` on.
    fn open(&mut self, input: &mut Input<'_>, floor: usize) {
        let layout = input.clone();
        let opened = builder(input, Arc::new(self.fs.clone())).open().and_then(|db| {
            let spaces = keyspaces(&db)?;
            let found = scan(&spaces)?;
            Ok((db, spaces, found))
        });
        let (db, spaces, found) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.assert_allowed(&error);
                self.fs.clear();
                self.sim.set_capacity(None);
                let db = builder(&mut layout.clone(), Arc::new(self.fs.clone())).open().unwrap();
                let spaces = keyspaces(&db).unwrap();
                let found = scan(&spaces).unwrap();
                (db, spaces, found)
            }
        };
        let known = self.history[floor..].contains(&found) || self.unknown.as_ref() == Some(&found);
        assert!(known, "found {found:?}, of {:?} and {:?}", &self.history[floor..], self.unknown);
        self.db = Some((db, spaces));
        self.history = vec![found];
        self.durable = 0;
        self.unknown = None;
    }
}

fn seeds() -> Vec<Seed> {
    let layout = [1, 0, 0, 0, 0, 0, 0, 0];
    let put = |space: u8, key: u8, sync: u8| [0, sync, space << 7, 3, key];
    let mut simple = layout.to_vec();
    simple.extend([put(0, 1, 0), put(1, 2, 0x80), put(0, 3, 0)].concat());
    simple.extend([14, 5, 0, 7, 1, 1, 2, 2, 25, 26, 0]);
    simple.extend(layout);
    simple.extend([put(0, 1, 0), put(1, 9, 0)].concat());
    simple.extend([28, 3, 6]);
    simple.extend(layout);
    let mut faulty = layout.to_vec();
    faulty.extend(
        [put(0, 1, 0x80), [29, 6, 0, 0, 1], put(0, 2, 0x80), put(0, 3, 0), [25, 27, 0, 0, 0]].concat(),
    );
    let mut rng = crate::Rng(9);
    let mut random = |len| [layout.to_vec(), rng.bytes(len)].concat();
    vec![
        ("simple", simple),
        ("faulty", faulty),
        ("random_1", random(300)),
        ("random_2", random(500)),
        ("random_3", random(500)),
    ]
}
