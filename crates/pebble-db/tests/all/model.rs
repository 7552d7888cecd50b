//! Random operations against a map with versions. A failing case prints its seed and is shrunk to few operations.
//!
//! ```text
//!     seed ──► configuration, operations ──► database and model, step by step, every answer compared
//!                        ▲                          │ differ
//!                        └──── leave some out ◄─────┘
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use pebble_db::{Builder, Db, Iter, Key, Snapshot, Value, WriteBatch, WriteOptions};
use pebble_vfs::SimFs;

use crate::support::{Config, Map, Rng, State, bytes, check_reads, env_number, keyspace, message, short};

const KEYSPACES: [&str; 3] = ["default", "users", "\u{fc}nicode \u{2713}"];

/// One of the writes of a batch: keyspace, key, and value unless it is a delete.
type Write = (usize, Vec<u8>, Option<Vec<u8>>);

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// A step of an iterator.
#[derive(Clone, Debug)]
enum Step {
    Next,
    NextBack,
    Seek(Vec<u8>),
    SeekForPrev(Vec<u8>),
}

#[derive(Clone, Debug)]
enum Op {
    Put { space: usize, key: Vec<u8>, value: Vec<u8>, sync: bool },
    Delete { space: usize, key: Vec<u8>, sync: bool },
    Batch { writes: Vec<Write>, sync: bool },
    Get { space: usize, key: Vec<u8>, snapshot: Option<usize> },
    Scan { space: usize, bounds: Bounds, snapshot: Option<usize>, backward: bool },
    Prefix { space: usize, prefix: Vec<u8>, snapshot: Option<usize> },
    Walk { space: usize, bounds: Bounds, steps: Vec<Step> },
    Snapshot,
    DropSnapshot(usize),
    OpenIter { space: usize, bounds: Bounds },
    StepIter { iter: usize, back: bool },
    HoldValue { space: usize, key: Vec<u8> },
    CheckHeld,
    Flush,
    Compact,
    Persist,
    Verify,
    Reopen { config: Config, close: bool },
}

fn key(rng: &mut Rng) -> Vec<u8> {
    let small = |rng: &mut Rng, alphabet: &[u8]| {
        let len = rng.below(5);
        (0..len).map(|_| rng.pick(alphabet)).collect::<Vec<u8>>()
    };
    match rng.below(64) {
        0..32 => small(rng, b"abc"),
        32..44 => small(rng, &[0, 0xfe, 0xff]),
        44..52 => [vec![b'p'; 200], small(rng, b"xyz")].concat(),
        52..62 => format!("user/{:03}", rng.below(200)).into_bytes(),
        62 => vec![0xff; rng.below(64)],
        _ => {
            let mut key = vec![rng.pick(b"ak"); 65_535];
            *key.last_mut().unwrap() = rng.pick(b"12");
            key
        }
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let seed = rng.next();
    match rng.below(32) {
        0..3 => Vec::new(),
        3..18 => bytes(seed, 1 + rng.below(24)),
        18..28 => bytes(seed, 50 + rng.below(200)),
        28..30 => vec![b'r'; 300 + rng.below(2000)],
        30 => bytes(seed, 2000 + rng.below(4000)),
        _ => bytes(seed, 10_000 + rng.below(30_000)),
    }
}

fn bound(rng: &mut Rng) -> Bound<Vec<u8>> {
    match rng.below(4) {
        0 => Bound::Unbounded,
        1 => Bound::Excluded(key(rng)),
        _ => Bound::Included(key(rng)),
    }
}

fn bounds(rng: &mut Rng) -> Bounds {
    if rng.one_in(4) { (Bound::Unbounded, Bound::Unbounded) } else { (bound(rng), bound(rng)) }
}

/// Steps from one end or from both. Seeks are mixed with steps of their own end alone: what a seek behind the
/// other end gives is not promised.
fn steps(rng: &mut Rng) -> Vec<Step> {
    let shape = rng.below(3);
    let count = 1 + rng.below(24);
    (0..count)
        .map(|_| match (shape, rng.below(3)) {
            (0, 0) => Step::Seek(key(rng)),
            (0, _) => Step::Next,
            (1, 0) => Step::SeekForPrev(key(rng)),
            (1, _) => Step::NextBack,
            (_, 0) => Step::NextBack,
            (_, _) => Step::Next,
        })
        .collect()
}

fn op(rng: &mut Rng) -> Op {
    let space = rng.below(KEYSPACES.len());
    let snapshot = if rng.one_in(3) { Some(rng.below(8)) } else { None };
    let sync = rng.one_in(12);
    match rng.below(1000) {
        0..330 => Op::Put { space, key: key(rng), value: value(rng), sync },
        330..440 => Op::Delete { space, key: key(rng), sync },
        440..520 => {
            let count = rng.below(8);
            let write = |rng: &mut Rng| {
                let value = if rng.one_in(4) { None } else { Some(value(rng)) };
                (rng.below(KEYSPACES.len()), key(rng), value)
            };
            Op::Batch { writes: (0..count).map(|_| write(rng)).collect(), sync }
        }
        520..660 => Op::Get { space, key: key(rng), snapshot },
        660..720 => Op::Scan { space, bounds: bounds(rng), snapshot, backward: rng.one_in(2) },
        720..750 => {
            let mut prefix = key(rng);
            prefix.truncate(rng.below(4));
            Op::Prefix { space, prefix, snapshot }
        }
        750..820 => Op::Walk { space, bounds: bounds(rng), steps: steps(rng) },
        820..850 => Op::Snapshot,
        850..875 => Op::DropSnapshot(rng.below(8)),
        875..890 => Op::OpenIter { space, bounds: bounds(rng) },
        890..940 => Op::StepIter { iter: rng.below(4), back: rng.one_in(3) },
        940..955 => Op::HoldValue { space, key: key(rng) },
        955..960 => Op::CheckHeld,
        960..975 => Op::Flush,
        975..981 => Op::Compact,
        981..986 => Op::Persist,
        986..989 => Op::Verify,
        _ => Op::Reopen { config: Config::random(rng), close: rng.one_in(2) },
    }
}

/// What the database should hold.
#[derive(Clone, Default)]
struct Model {
    spaces: [Map; KEYSPACES.len()],
}

impl Model {
    fn apply(&mut self, space: usize, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => _ = self.spaces[space].insert(key.to_vec(), value.to_vec()),
            None => _ = self.spaces[space].remove(key),
        }
    }

    fn state(&self) -> State {
        let named = KEYSPACES.iter().zip(&self.spaces).filter(|(_, map)| !map.is_empty());
        named.map(|(name, map)| ((*name).to_owned(), map.clone())).collect()
    }
}

fn select(map: &Map, (low, high): &Bounds) -> Vec<(Vec<u8>, Vec<u8>)> {
    let above = |key: &Vec<u8>| match low {
        Bound::Unbounded => true,
        Bound::Included(low) => key >= low,
        Bound::Excluded(low) => key > low,
    };
    let below = |key: &Vec<u8>| match high {
        Bound::Unbounded => true,
        Bound::Included(high) => key <= high,
        Bound::Excluded(high) => key < high,
    };
    let entries = map.iter().filter(|(key, _)| above(key) && below(key));
    entries.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// An iterator over what it should give: the entries `front..back` of a list are to come.
struct ModelIter {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    front: usize,
    back: usize,
}

impl ModelIter {
    fn new(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Self { front: 0, back: entries.len(), entries }
    }

    fn step(&mut self, step: &Step) -> Option<Option<(Vec<u8>, Vec<u8>)>> {
        match step {
            Step::Seek(key) => {
                self.front = self.entries.partition_point(|(found, _)| found < key);
                None
            }
            Step::SeekForPrev(key) => {
                self.back = self.entries.partition_point(|(found, _)| found <= key);
                None
            }
            Step::Next if self.front < self.back => {
                self.front += 1;
                Some(Some(self.entries[self.front - 1].clone()))
            }
            Step::NextBack if self.front < self.back => {
                self.back -= 1;
                Some(Some(self.entries[self.back].clone()))
            }
            Step::Next | Step::NextBack => Some(None),
        }
    }
}

fn same(found: Option<pebble_db::Result<(Key, Value)>>, wanted: Option<(Vec<u8>, Vec<u8>)>, what: &str) {
    let found = found.map(|entry| entry.unwrap());
    let found = found.map(|(key, value)| (short(&key), short(&value)));
    let wanted = wanted.map(|(key, value)| (short(&key), short(&value)));
    assert_eq!(found, wanted, "{what}");
}

/// Database and model side by side.
struct Run<'a> {
    open: &'a dyn Fn(&Config) -> Builder,
    db: Db,
    model: Model,
    snapshots: Vec<(Snapshot, Model)>,
    iters: Vec<(Iter, ModelIter)>,
    held: Vec<(Value, Vec<u8>)>,
}

impl<'a> Run<'a> {
    fn new(open: &'a dyn Fn(&Config) -> Builder, config: &Config) -> Self {
        let db = open(config).open().unwrap();
        Self { open, db, model: Model::default(), snapshots: Vec::new(), iters: Vec::new(), held: Vec::new() }
    }

    fn space(&self, space: usize) -> pebble_db::Keyspace {
        keyspace(&self.db, KEYSPACES[space]).unwrap()
    }

    fn options(sync: bool) -> WriteOptions {
        if sync { WriteOptions::sync() } else { WriteOptions::buffered() }
    }

    /// The snapshot that was asked for, or another, or the present.
    fn at(&self, snapshot: Option<usize>) -> (Option<&Snapshot>, &Model) {
        match snapshot.and_then(|at| self.snapshots.get(at % self.snapshots.len().max(1))) {
            Some((snapshot, model)) => (Some(snapshot), model),
            None => (None, &self.model),
        }
    }

    fn range(&self, space: usize, bounds: &Bounds, snapshot: Option<&Snapshot>) -> Iter {
        let space = self.space(space);
        match snapshot {
            Some(snapshot) => snapshot.range(&space, bounds.clone()).unwrap(),
            None => space.range(bounds.clone()).unwrap(),
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Put { space, key, value, sync } => {
                self.space(*space).put_with(key, value, &Self::options(*sync)).unwrap();
                self.model.apply(*space, key, Some(value));
            }
            Op::Delete { space, key, sync } => {
                self.space(*space).delete_with(key, &Self::options(*sync)).unwrap();
                self.model.apply(*space, key, None);
            }
            Op::Batch { writes, sync } => self.batch(writes, *sync),
            Op::Get { space, key, snapshot } => {
                let (snapshot, model) = self.at(*snapshot);
                let space_of = self.space(*space);
                let found = match snapshot {
                    Some(snapshot) => snapshot.get(&space_of, key).unwrap(),
                    None => space_of.get(key).unwrap(),
                };
                let wanted = model.spaces[*space].get(key).map(|value| short(value));
                assert_eq!(found.as_deref().map(short), wanted);
            }
            Op::Scan { space, bounds, snapshot, backward } => {
                let (snapshot, model) = self.at(*snapshot);
                let mut wanted = select(&model.spaces[*space], bounds);
                let mut found = self.range(*space, bounds, snapshot);
                if *backward {
                    wanted.reverse();
                }
                let mut wanted = wanted.into_iter();
                loop {
                    let entry = if *backward { found.next_back() } else { found.next() };
                    let ended = entry.is_none();
                    same(entry, wanted.next(), "scan");
                    if ended {
                        break;
                    }
                }
                assert!(found.next().is_none() && found.next_back().is_none(), "fused");
            }
            Op::Prefix { space, prefix, snapshot } => {
                let (snapshot, model) = self.at(*snapshot);
                let space_of = self.space(*space);
                let mut found = match snapshot {
                    Some(snapshot) => snapshot.prefix(&space_of, prefix).unwrap(),
                    None => space_of.prefix(prefix).unwrap(),
                };
                for (key, value) in model.spaces[*space].iter().filter(|(key, _)| key.starts_with(prefix)) {
                    same(found.next(), Some((key.clone(), value.clone())), "prefix");
                }
                same(found.next(), None, "prefix");
            }
            Op::Walk { space, bounds, steps } => {
                let mut wanted = ModelIter::new(select(&self.model.spaces[*space], bounds));
                let mut found = self.range(*space, bounds, None);
                for step in steps {
                    step_both(&mut found, &mut wanted, step);
                }
            }
            Op::Snapshot => {
                if self.snapshots.len() < 6 {
                    self.snapshots.push((self.db.snapshot(), self.model.clone()));
                }
            }
            Op::DropSnapshot(at) => {
                if !self.snapshots.is_empty() {
                    self.snapshots.remove(at % self.snapshots.len());
                }
            }
            Op::OpenIter { space, bounds } => {
                let wanted = ModelIter::new(select(&self.model.spaces[*space], bounds));
                let found = self.range(*space, bounds, None);
                if self.iters.len() >= 4 {
                    self.iters.remove(0);
                }
                self.iters.push((found, wanted));
            }
            Op::StepIter { iter, back } => {
                let count = self.iters.len();
                if let Some((found, wanted)) = self.iters.get_mut(iter % count.max(1)) {
                    step_both(found, wanted, if *back { &Step::NextBack } else { &Step::Next });
                }
            }
            Op::HoldValue { space, key } => {
                if let Some(value) = self.space(*space).get(key).unwrap() {
                    let wanted = self.model.spaces[*space][key].clone();
                    assert_eq!(value, wanted[..]);
                    self.held.push((value, wanted));
                }
                if self.held.len() > 8 {
                    self.held.remove(0);
                }
            }
            Op::CheckHeld => self.check_held(),
            Op::Flush => self.db.flush().unwrap(),
            Op::Compact => self.db.compact_range(..).unwrap(),
            Op::Persist => self.db.persist().unwrap(),
            Op::Verify => _ = self.db.verify().unwrap(),
            Op::Reopen { config, close } => self.reopen(config, *close),
        }
    }

    fn batch(&mut self, writes: &[Write], sync: bool) {
        let mut batch = WriteBatch::new();
        for (space, key, value) in writes {
            let space = self.space(*space);
            match value {
                Some(value) => batch.put(&space, key, value),
                None => batch.delete(&space, key),
            };
        }
        assert_eq!(batch.len(), writes.len());
        self.db.write_with(batch, &Self::options(sync)).unwrap();
        for (space, key, value) in writes {
            self.model.apply(*space, key, value.as_deref());
        }
    }

    fn check_held(&self) {
        for (value, wanted) in &self.held {
            assert_eq!(short(value), short(wanted), "a value that is held");
        }
    }

    /// Snapshots and iterators hold the database open, so they go first; values stay.
    fn reopen(&mut self, config: &Config, close: bool) {
        self.snapshots.clear();
        self.iters.clear();
        if close {
            self.db.close().unwrap();
        } else {
            // The handle must be gone before the next open takes the lock, so that another stands in for it.
            let other = (self.open)(config).components(elsewhere()).open().unwrap();
            drop(std::mem::replace(&mut self.db, other));
        }
        self.db = (self.open)(config).open().unwrap();
        self.check_held();
        check_reads(&self.db, &self.model.state(), &[]).unwrap();
    }

    fn finish(&mut self) {
        check_reads(&self.db, &self.model.state(), &[]).unwrap();
        for (snapshot, model) in &self.snapshots {
            for (space, map) in model.spaces.iter().enumerate() {
                let mut found = snapshot.iter(&self.space(space)).unwrap();
                for (key, value) in map {
                    same(found.next(), Some((key.clone(), value.clone())), "snapshot");
                }
                same(found.next(), None, "snapshot");
            }
        }
        self.db.verify().unwrap();
        self.check_held();
        self.snapshots.clear();
        self.db.close().unwrap();
        for (found, wanted) in &mut self.iters {
            step_both(found, wanted, &Step::Next);
        }
        self.check_held();
    }
}

/// A disk of its own, for a database that only stands in for another.
fn elsewhere() -> pebble_db::Components {
    pebble_db::Components {
        fs: std::sync::Arc::new(SimFs::new(0)),
        clock: std::sync::Arc::new(pebble_vfs::ManualClock::new()),
        executor: pebble_db::Executor::Inline,
    }
}

fn step_both(found: &mut Iter, wanted: &mut ModelIter, step: &Step) {
    let wanted = wanted.step(step);
    let found = match step {
        Step::Next => found.next(),
        Step::NextBack => found.next_back(),
        Step::Seek(key) => {
            found.seek(key);
            return;
        }
        Step::SeekForPrev(key) => {
            found.seek_for_prev(key);
            return;
        }
    };
    same(found, wanted.unwrap(), "walk");
}

/// Runs the operations; `Err` holds what was not as it should be.
fn run(open: &dyn Fn(&Config) -> Builder, config: &Config, ops: &[Op]) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(open, config);
        for (at, op) in ops.iter().enumerate() {
            let step = catch_unwind(AssertUnwindSafe(|| run.step(op)));
            step.map_err(|panic| format!("operation {at}: {}", message(&*panic)))?;
        }
        run.finish();
        Ok(())
    }));
    outcome.unwrap_or_else(|panic| Err(format!("at the end: {}", message(&*panic))))
}

/// Leaves out as many operations as the failure allows, in ever smaller pieces.
fn shrink(config: &Config, mut ops: Vec<Op>) -> Vec<Op> {
    let fails = |ops: &[Op]| run_sim(config, ops).is_err();
    let mut piece = ops.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + piece).min(ops.len()));
            if fails(&fewer) {
                ops = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    ops
}

fn run_sim(config: &Config, ops: &[Op]) -> Result<(), String> {
    let fs = SimFs::new(1);
    run(&|config| config.sim(fs.clone()), config, ops)
}

fn case(seed: u64, count: usize) -> (Config, Vec<Op>) {
    let mut rng = Rng(seed);
    let config = Config::random(&mut rng);
    (config, (0..count).map(|_| op(&mut rng)).collect())
}

fn tell(op: &Op) -> String {
    let text = format!("{op:?}");
    if text.len() <= 400 { text } else { format!("{}.. ({} characters)", &text[..400], text.len()) }
}

#[test]
fn any_operations_on_the_simulated_disk() {
    let seeds = env_number("PEBBLE_SEEDS", 40);
    let first = env_number("PEBBLE_SEED", 1);
    let count = env_number("PEBBLE_OPS", 1200);
    for seed in first..first + seeds {
        let (config, ops) = case(seed as u64, count);
        let Err(why) = run_sim(&config, &ops) else { continue };
        let ops = shrink(&config, ops);
        let again = run_sim(&config, &ops).unwrap_err();
        let listing: Vec<String> = ops.iter().map(tell).collect();
        panic!("PEBBLE_SEED={seed}: {why}\nshrunk: {again}\n{config:?}\n{}", listing.join("\n"));
    }
    println!("model: {} operations on the simulated disk", seeds * count);
}

#[test]
fn any_operations_on_a_real_disk_with_threads() {
    let (seeds, count) = (6, 1000);
    for seed in 1000..1000 + seeds {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db");
        let (config, ops) = case(seed, count);
        // A stand-in has components of its own, so the path says nothing.
        let open = |config: &Config| config.real(Path::new(&path));
        if let Err(why) = run(&open, &config, &ops) {
            let listing: Vec<String> = ops.iter().map(tell).collect();
            panic!("seed {seed}: {why}\n{config:?}\n{}", listing.join("\n"));
        }
    }
    println!("model: {} operations on a real disk", usize::try_from(seeds).unwrap() * count);
}

/// The same operations under every layout give the same answers, and the same content in the end.
#[test]
fn every_layout_gives_the_same_answers() {
    for seed in 500..506 {
        let (_, ops) = case(seed, 400);
        let mut rng = Rng(seed);
        for _ in 0..5 {
            let config = Config::random(&mut rng);
            if let Err(why) = run_sim(&config, &ops) {
                panic!("seed {seed}: {why}\n{config:?}");
            }
        }
    }
}

/// A seek makes an entry the next one from its end, whatever is asked of the other end in between.
#[test]
fn a_seek_keeps_its_end_while_the_other_end_moves() {
    let db = Config::tiny(pebble_db::LogIo::Map).sim(SimFs::new(1)).open().unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        db.put(key, "").unwrap();
    }
    let rest = |iter: Iter| iter.map(|entry| entry.unwrap().0.to_vec()).collect::<Vec<_>>();

    let mut iter = db.iter().unwrap();
    iter.seek("c");
    let mut back = Vec::new();
    while let Some(entry) = iter.next_back() {
        back.push(entry.unwrap().0.to_vec());
    }
    assert_eq!(back, [b"e", b"d", b"c"], "a sought entry that nobody took is still there from behind");

    let mut iter = db.iter().unwrap();
    iter.seek("b");
    iter.seek_for_prev("d");
    assert_eq!(rest(iter), [b"b", b"c", b"d"], "a seek of one end does not undo the other's");

    let mut iter = db.iter().unwrap();
    iter.seek_for_prev("d");
    iter.seek("b");
    let found: BTreeMap<_, _> = iter.rev().map(|entry| (entry.unwrap().0.to_vec(), ())).collect();
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [b"b", b"c", b"d"]);
}
