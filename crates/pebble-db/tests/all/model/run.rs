//! The model and several databases side by side: each operation on all of them, every answer compared.
//!
//! Threading: one run's own; a database may have threads of its own.

use std::fmt::Debug;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use pebble_db::{
    Builder, Db, Error, Executor, Iter, Key, Keyspace, Snapshot, Value, WriteBatch, WriteOptions,
};

use super::ops::{Bounds, End, NAMES, Op, Step, Write};
use super::world::{Bytes, Expected, Map, World, select, within};
use crate::support::{Config, Rng, keyspace, message, mix, short};

/// Longer than what the engine takes for a rest.
const REST: Duration = Duration::from_millis(70);

const SNAPSHOTS_MAX: usize = 6;
const ITERS_MAX: usize = 4;
const HELD_MAX: usize = 8;

/// What was not as it should be.
pub type Outcome<T = ()> = Result<T, String>;

/// One of the databases: how it is laid out, who merges, and which bug is planted between the test and it.
#[derive(Clone, Debug)]
pub struct Layout {
    pub config: Config,
    pub executor: Executor,
    pub bug: Option<Bug>,
}

/// A bug in front of the database, to see that the comparison is not blind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A tombstone is lost.
    LosesDeletes,
    LosesRangeDeletes,
    /// A range delete takes the first key behind it along.
    EndsIncluded,
    /// The first write of a batch for a key wins.
    ReversesBatches,
    /// A snapshot sees what comes later.
    SeesThePresent,
    /// The first entry from the back is left out.
    LosesTheLast,
}

/// What the databases did, so that a run that meets nothing is not taken for a good one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Operations, once for each layout.
    pub ops: usize,
    pub flushes: u64,
    pub merges: u64,
    /// Bytes of tables that were dropped unread below a range delete.
    pub covered_bytes: u64,
    pub runs_max: usize,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.flushes += other.flushes;
        self.merges += other.merges;
        self.covered_bytes += other.covered_bytes;
        self.runs_max = self.runs_max.max(other.runs_max);
    }
}

/// Where the databases lie, each by the number of its layout.
pub trait Disks {
    fn open(&self, number: usize, layout: &Layout) -> Builder;

    /// What is opened from now on is what a kill of the process leaves at this moment.
    fn kill(&self, _number: usize) {}
}

fn equal<T: PartialEq + Debug>(found: &T, wanted: &T, what: &str) -> Outcome {
    if found == wanted { Ok(()) } else { Err(format!("{what}: found {found:?}, wanted {wanted:?}")) }
}

fn done<T>(result: pebble_db::Result<T>, what: &str) -> Outcome<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn same(
    found: Option<pebble_db::Result<(Key, Value)>>,
    wanted: Option<(&[u8], &[u8])>,
    what: &str,
) -> Outcome {
    let found = done(found.transpose(), what)?;
    let pair = found.as_ref().map(|(key, value)| (&key[..], &value[..]));
    if pair == wanted {
        return Ok(());
    }
    let tell = |pair: Option<(&[u8], &[u8])>| pair.map(|(key, value)| (short(key), short(value)));
    Err(format!("{what}: found {:?}, wanted {:?}", tell(pair), tell(wanted)))
}

fn same_value(found: Option<&Value>, wanted: Option<&Bytes>, what: &str) -> Outcome {
    let (found, wanted) = (found.map(|value| &value[..]), wanted.map(|value| &value[..]));
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: found {:?}, wanted {:?}", found.map(short), wanted.map(short)))
}

/// Every entry of a walk from one end, in order, and then none from either.
fn same_entries<'a>(
    mut iter: Iter,
    wanted: impl DoubleEndedIterator<Item = (&'a Bytes, &'a Bytes)>,
    backward: bool,
    what: &str,
) -> Outcome {
    let mut wanted = wanted.map(|(key, value)| (&key[..], &value[..]));
    loop {
        let (entry, next) = match backward {
            true => (iter.next_back(), wanted.next_back()),
            false => (iter.next(), wanted.next()),
        };
        same(entry, next, what)?;
        if next.is_none() {
            same(iter.next(), None, "fused")?;
            return same(iter.next_back(), None, "fused");
        }
    }
}

fn step_as(iter: &mut Iter, step: &Step, wanted: Option<&(Bytes, Bytes)>) -> Outcome {
    let found = match step {
        Step::Next => iter.next(),
        Step::NextBack => iter.next_back(),
        Step::Seek(key) => {
            iter.seek(key);
            return Ok(());
        }
        Step::SeekForPrev(key) => {
            iter.seek_for_prev(key);
            return Ok(());
        }
    };
    same(found, wanted.map(|(key, value)| (&key[..], &value[..])), &format!("walk, {step:?}"))
}

/// One database, with what the test holds of it: in the order of what the model holds.
struct Side<'a> {
    number: usize,
    layout: Layout,
    disks: &'a dyn Disks,
    /// None while it is closed between two opens.
    db: Option<Db>,
    /// By the model's number of the keyspace.
    spaces: Vec<Keyspace>,
    snapshots: Vec<Snapshot>,
    iters: Vec<Iter>,
    held: Vec<Value>,
    tally: Tally,
}

impl<'a> Side<'a> {
    fn new(number: usize, layout: &Layout, disks: &'a dyn Disks) -> Outcome<Self> {
        let mut side = Self {
            number,
            layout: layout.clone(),
            disks,
            db: None,
            spaces: Vec::new(),
            snapshots: Vec::new(),
            iters: Vec::new(),
            held: Vec::new(),
            tally: Tally::default(),
        };
        side.db = Some(done(disks.open(number, layout).open(), "open")?);
        Ok(side)
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn has(&self, bug: Bug) -> bool {
        self.layout.bug == Some(bug)
    }

    /// Opens the keyspaces that the model has made meanwhile.
    fn make_spaces(&mut self, world: &World) -> Outcome {
        let have = self.spaces.len();
        let mut new: Vec<_> = world.existing().filter(|(_, number)| *number >= have).collect();
        new.sort_by_key(|(_, number)| *number);
        for (name, number) in new {
            equal(&self.spaces.len(), &number, "keyspaces are made one by one")?;
            self.spaces.push(done(keyspace(self.db(), NAMES[name]), "keyspace")?);
        }
        Ok(())
    }

    fn write(&self, space: usize, write: &Write, sync: bool) -> Outcome {
        let (space, options) = (&self.spaces[space], options(sync));
        let result = match write {
            Write::Delete { .. } if self.has(Bug::LosesDeletes) => Ok(()),
            Write::DeleteRange { .. } if self.has(Bug::LosesRangeDeletes) => Ok(()),
            Write::Put { key, value, .. } => space.put_with(key, value, &options),
            Write::Delete { key, .. } => space.delete_with(key, &options),
            Write::DeleteRange { bounds, .. } => space.delete_range_with(self.deleted(bounds), &options),
            Write::DeletePrefix { prefix, .. } => space.delete_prefix(prefix),
        };
        done(result, "write")
    }

    fn deleted(&self, bounds: &Bounds) -> Bounds {
        match bounds.clone() {
            (low, Bound::Excluded(high)) if self.has(Bug::EndsIncluded) => (low, Bound::Included(high)),
            bounds => bounds,
        }
    }

    fn batch(&self, spaces: &[usize], writes: &[Write], sync: bool) -> Outcome {
        let mut batch = WriteBatch::new();
        let mut order: Vec<_> = spaces.iter().zip(writes).collect();
        if self.has(Bug::ReversesBatches) {
            order.reverse();
        }
        for (space, write) in order {
            let space = &self.spaces[*space];
            match write {
                Write::Put { key, value, .. } => batch.put(space, key, value),
                Write::Delete { key, .. } => batch.delete(space, key),
                Write::DeleteRange { bounds, .. } => batch.delete_range(space, self.deleted(bounds)),
                Write::DeletePrefix { prefix, .. } => batch.delete_prefix(space, prefix),
            };
        }
        if batch.len() > writes.len() {
            return Err(format!("a batch of {} writes counts {}", writes.len(), batch.len()));
        }
        done(self.db().write_with(batch, &options(sync)), "batch")
    }

    fn at(&self, snapshot: Option<usize>) -> Option<&Snapshot> {
        snapshot.filter(|_| !self.has(Bug::SeesThePresent)).map(|at| &self.snapshots[at])
    }

    fn get(&self, space: usize, key: &[u8], snapshot: Option<usize>) -> Outcome<Option<Value>> {
        let space = &self.spaces[space];
        let found = match self.at(snapshot) {
            Some(snapshot) => snapshot.get(space, key),
            None => space.get(key),
        };
        done(found, "get")
    }

    fn range(&self, space: usize, bounds: &Bounds, snapshot: Option<usize>) -> Outcome<Iter> {
        let space = &self.spaces[space];
        let found = match self.at(snapshot) {
            Some(snapshot) => snapshot.range(space, bounds.clone()),
            None => space.range(bounds.clone()),
        };
        let mut found = done(found, "range")?;
        if self.has(Bug::LosesTheLast) {
            found.next_back();
        }
        Ok(found)
    }

    fn prefix(&self, space: usize, prefix: &[u8], snapshot: Option<usize>) -> Outcome<Iter> {
        let space = &self.spaces[space];
        let found = match self.at(snapshot) {
            Some(snapshot) => snapshot.prefix(space, prefix),
            None => space.prefix(prefix),
        };
        done(found, "prefix")
    }

    fn check_held(&self, world: &World) -> Outcome {
        let mut pairs = self.held.iter().zip(&world.held);
        pairs.try_for_each(|(value, wanted)| same_value(Some(value), Some(wanted), "a value that is held"))
    }

    fn compact(&self, part: Option<&(usize, Bounds)>, breaks: Option<usize>) -> Outcome {
        let mut asked = 0;
        let watch = |_| {
            asked += 1;
            if breaks.is_some_and(|at| asked > at) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let result = match part {
            None => self.db().compact_range_with(.., watch),
            Some((space, bounds)) => self.spaces[*space].compact_range_with(bounds.clone(), watch),
        };
        done(result, "compaction")
    }

    /// After a compaction of everything with no reader of the past: nothing is left but what is there.
    fn check_compacted(&self, world: &World) -> Outcome {
        let reports = done(self.db().verify(), "verify")?;
        let keys: u64 = reports.iter().map(|report| report.keys).sum();
        let dead: u64 =
            reports.iter().map(|report| report.tombstones + u64::from(report.range_deletes)).sum();
        let live: usize = world.existing().map(|(_, number)| world.now.space(number).len()).sum();
        equal(&(keys, dead), &(live as u64, 0), "keys and tombstones after a compaction of everything")
    }

    fn estimate(&self, space: usize, bounds: &Bounds, world: &World) -> Outcome {
        let fresh = world.is_fresh(space);
        let space = &self.spaces[space];
        let part = done(space.size_estimate(bounds.clone()), "estimate")?;
        let whole = done(space.approximate_len(), "approximate length")?;
        if part.keys.max(whole) > if fresh { 0 } else { world.written } {
            return Err(format!("{part:?}, {whole} keys of {} records", world.written));
        }
        Ok(())
    }

    /// Every way of reading everything, and the snapshots.
    fn check(&self, world: &World) -> Outcome {
        let mut names: Vec<_> = world.existing().map(|(name, _)| NAMES[name].to_owned()).collect();
        names.push(NAMES[0].to_owned());
        names.sort();
        names.dedup();
        equal(&self.db().keyspaces(), &names, "names")?;
        for (_, number) in world.existing() {
            let map = world.now.space(number);
            let all = (Bound::Unbounded, Bound::Unbounded);
            for backward in [false, true] {
                same_entries(self.range(number, &all, None)?, map.iter(), backward, "everything")?;
            }
            for (key, value) in &*map {
                same_value(self.get(number, key, None)?.as_ref(), Some(value), "get")?;
            }
            for (place, state) in world.snapshots.iter().enumerate() {
                let map: Arc<Map> = state.space(number);
                let found = self.range(number, &all, Some(place))?;
                same_entries(found, map.iter(), place % 2 == 0, "a snapshot")?;
            }
        }
        self.check_held(world)
    }

    /// Counts what was done since the open.
    fn count(&mut self) {
        let stats = self.db().stats();
        let (flushes, merges) = (stats.flushes, stats.compactions);
        let covered_bytes = stats.covered_bytes_dropped;
        self.tally.add(&Tally { flushes, merges, covered_bytes, ..Tally::default() });
    }

    fn reopen(&mut self, world: &World, seed: u64, end: End) -> Outcome {
        self.count();
        if end == End::Kill {
            self.disks.kill(self.number);
        }
        // They hold the database open, so they go first; values stay.
        self.snapshots.clear();
        self.iters.clear();
        self.spaces.clear();
        if end == End::Close {
            done(self.db().close(), "close")?;
        }
        drop(self.db.take());
        let shape = self.layout.config.compaction;
        self.layout.config = Config::random(&mut Rng(mix(seed ^ self.number as u64)));
        self.layout.config.compaction = shape;
        self.db = Some(done(self.disks.open(self.number, &self.layout).open(), "reopen")?);
        self.make_spaces(world)?;
        self.check(world)
    }
}

fn options(sync: bool) -> WriteOptions {
    if sync { WriteOptions::sync() } else { WriteOptions::buffered() }
}

/// The model, and the databases that should be like it.
struct Run<'a> {
    world: World,
    sides: Vec<Side<'a>>,
}

impl<'a> Run<'a> {
    fn new(layouts: &[Layout], disks: &'a dyn Disks) -> Outcome<Self> {
        let sides = layouts.iter().enumerate().map(|(number, layout)| Side::new(number, layout, disks));
        Ok(Self { world: World::default(), sides: sides.collect::<Outcome<_>>()? })
    }

    /// The same on every database; what differs is told with its number.
    fn each(&mut self, mut act: impl FnMut(&mut Side<'a>, &World) -> Outcome) -> Outcome {
        for side in &mut self.sides {
            act(side, &self.world).map_err(|why| format!("layout {}: {why}", side.number))?;
        }
        Ok(())
    }

    /// The model's number of a keyspace, which exists from then on.
    fn space(&mut self, name: usize) -> Outcome<usize> {
        let number = self.world.number(name);
        self.each(Side::make_spaces)?;
        Ok(number)
    }

    fn step(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Write { write, sync } => {
                let space = self.space(write.space())?;
                self.world.apply(write);
                self.each(|side, _| side.write(space, write, *sync))
            }
            Op::Batch { writes, sync } => {
                let spaces = writes.iter().map(|write| self.space(write.space()));
                let spaces: Vec<usize> = spaces.collect::<Outcome<_>>()?;
                writes.iter().for_each(|write| self.world.apply(write));
                self.each(|side, _| side.batch(&spaces, writes, *sync))
            }
            Op::Clear { space } => {
                let number = self.space(*space)?;
                self.world.clear(*space);
                self.each(|side, _| done(side.spaces[number].clear(), "clear"))
            }
            Op::DropSpace { space } => self.drop_space(*space),
            Op::Past { which, key, snapshot } => self.past(*which, key, *snapshot),
            Op::Get { space, key, snapshot } => {
                let space = self.space(*space)?;
                let (snapshot, state) = self.world.at(*snapshot);
                let wanted = state.space(space).get(&key[..]).cloned();
                self.each(|side, _| {
                    same_value(side.get(space, key, snapshot)?.as_ref(), wanted.as_ref(), "get")
                })
            }
            Op::Scan { space, bounds, snapshot, backward } => {
                let space = self.space(*space)?;
                let (snapshot, state) = self.world.at(*snapshot);
                let wanted = select(&state.space(space), |key| within(bounds, key));
                self.each(|side, _| {
                    let found = side.range(space, bounds, snapshot)?;
                    same_entries(found, wanted.iter().map(|(key, value)| (key, value)), *backward, "scan")
                })
            }
            Op::Prefix { space, prefix, snapshot, backward } => {
                let space = self.space(*space)?;
                let (snapshot, state) = self.world.at(*snapshot);
                let wanted = select(&state.space(space), |key| key.starts_with(prefix));
                self.each(|side, _| {
                    let found = side.prefix(space, prefix, snapshot)?;
                    same_entries(found, wanted.iter().map(|(key, value)| (key, value)), *backward, "prefix")
                })
            }
            Op::Walk { space, bounds, snapshot, steps } => {
                let space = self.space(*space)?;
                let (snapshot, state) = self.world.at(*snapshot);
                let mut wanted = Expected::new(select(&state.space(space), |key| within(bounds, key)));
                let wanted: Vec<_> = steps.iter().map(|step| wanted.step(step)).collect();
                self.each(|side, _| {
                    let mut found = side.range(space, bounds, snapshot)?;
                    let mut steps = steps.iter().zip(&wanted);
                    steps.try_for_each(|(step, wanted)| step_as(&mut found, step, wanted.as_ref()))
                })
            }
            Op::Estimate { space, bounds } => {
                let space = self.space(*space)?;
                self.each(|side, world| side.estimate(space, bounds, world))
            }
            Op::Snapshot if self.world.snapshots.len() < SNAPSHOTS_MAX => {
                self.world.snapshots.push(self.world.now.clone());
                self.each(|side, _| {
                    side.snapshots.push(side.db().snapshot());
                    Ok(())
                })
            }
            Op::DropSnapshot(at) if !self.world.snapshots.is_empty() => {
                let at = at % self.world.snapshots.len();
                self.world.snapshots.remove(at);
                self.each(|side, _| {
                    drop(side.snapshots.remove(at));
                    Ok(())
                })
            }
            Op::Snapshot | Op::DropSnapshot(_) => Ok(()),
            Op::OpenIter { space, bounds, snapshot } => self.open_iter(*space, bounds, *snapshot),
            Op::StepIter { iter, back, count } => {
                let number = self.world.iters.len();
                let Some(expected) = self.world.iters.get_mut(iter % number.max(1)) else { return Ok(()) };
                let step = if *back { Step::NextBack } else { Step::Next };
                let wanted: Vec<_> = (0..*count).map(|_| expected.step(&step)).collect();
                self.each(|side, _| {
                    let found = &mut side.iters[iter % number];
                    wanted.iter().try_for_each(|wanted| step_as(found, &step, wanted.as_ref()))
                })
            }
            Op::HoldValue { space, key } => {
                let space = self.space(*space)?;
                let Some(wanted) = self.world.now.space(space).get(&key[..]).cloned() else { return Ok(()) };
                let full = self.world.held.len() >= HELD_MAX;
                if full {
                    self.world.held.remove(0);
                }
                self.world.held.push(wanted.clone());
                self.each(|side, _| {
                    if full {
                        drop(side.held.remove(0));
                    }
                    let found = side.get(space, key, None)?;
                    same_value(found.as_ref(), Some(&wanted), "get")?;
                    side.held.extend(found);
                    Ok(())
                })
            }
            Op::CheckHeld => self.each(|side, world| side.check_held(world)),
            Op::Flush => self.each(|side, _| done(side.db().flush(), "flush")),
            Op::Compact { part, breaks } => self.compact(part.as_ref(), *breaks),
            Op::Persist => self.each(|side, _| done(side.db().persist(), "persist")),
            Op::Verify => self.each(|side, _| {
                let runs = side.db().stats().levels.iter().map(|level| level.runs).sum();
                side.tally.runs_max = side.tally.runs_max.max(runs);
                done(side.db().verify(), "verify").map(|_| ())
            }),
            Op::Rest => {
                if self.sides.iter().any(|side| side.layout.executor == Executor::Threads) {
                    std::thread::sleep(REST);
                }
                Ok(())
            }
            Op::Reopen { seed, end } => {
                self.world.reopen();
                self.each(|side, world| side.reopen(world, *seed, *end))
            }
        }
    }

    fn drop_space(&mut self, name: usize) -> Outcome {
        if name == 0 {
            return self.each(|side, _| match side.db().drop_keyspace(NAMES[0]) {
                Err(Error::InvalidArgument(_)) => Ok(()),
                other => Err(format!("dropping the default keyspace: {other:?}")),
            });
        }
        let was_there = self.world.drop_space(name);
        self.each(|side, _| {
            equal(&done(side.db().drop_keyspace(NAMES[name]), "drop")?, &was_there, "whether it was there")?;
            equal(&done(side.db().drop_keyspace(NAMES[name]), "drop")?, &false, "whether it was there still")
        })
    }

    /// A keyspace that was dropped: a snapshot still sees what it held, and nothing is written to it any more.
    fn past(&mut self, which: usize, key: &[u8], snapshot: Option<usize>) -> Outcome {
        let count = self.world.dropped.len();
        let Some(space) = self.world.dropped.get(which % count.max(1)).copied() else { return Ok(()) };
        let (snapshot, state) = self.world.at(snapshot);
        let map = state.space(space);
        self.each(|side, _| {
            same_value(side.get(space, key, snapshot)?.as_ref(), map.get(key), "get of the past")?;
            let all = side.range(space, &(Bound::Unbounded, Bound::Unbounded), snapshot)?;
            same_entries(all, map.iter(), which.is_multiple_of(2), "scan of the past")?;
            let handle = &side.spaces[space];
            let mut batch = WriteBatch::new();
            batch.put(handle, key, "").delete_range(handle, ..);
            for refused in
                [handle.put(key, "late"), handle.delete_range(..), handle.clear(), side.db().write(batch)]
            {
                if !matches!(refused, Err(Error::InvalidArgument(_))) {
                    return Err(format!("a write to a keyspace that was dropped: {refused:?}"));
                }
            }
            Ok(())
        })
    }

    fn open_iter(&mut self, space: usize, bounds: &Bounds, snapshot: Option<usize>) -> Outcome {
        let space = self.space(space)?;
        let (snapshot, state) = self.world.at(snapshot);
        let wanted = Expected::new(select(&state.space(space), |key| within(bounds, key)));
        let full = self.world.iters.len() >= ITERS_MAX;
        if full {
            self.world.iters.remove(0);
        }
        self.world.iters.push(wanted);
        self.each(|side, _| {
            if full {
                drop(side.iters.remove(0));
            }
            let iter = side.range(space, bounds, snapshot)?;
            side.iters.push(iter);
            Ok(())
        })
    }

    fn compact(&mut self, part: Option<&(usize, Bounds)>, breaks: Option<usize>) -> Outcome {
        let part = match part {
            Some((name, bounds)) => Some((self.space(*name)?, bounds.clone())),
            None => None,
        };
        let whole = part.is_none() && breaks.is_none() && self.world.snapshots.is_empty();
        self.each(|side, world| {
            side.compact(part.as_ref(), breaks)?;
            if whole { side.check_compacted(world) } else { Ok(()) }
        })
    }

    fn finish(&mut self) -> Outcome {
        let next: Vec<_> = self.world.iters.iter_mut().map(|expected| expected.step(&Step::Next)).collect();
        self.each(|side, world| {
            side.check(world)?;
            done(side.db().verify(), "verify")?;
            side.count();
            side.snapshots.clear();
            done(side.db().close(), "close")?;
            for (iter, wanted) in side.iters.iter_mut().zip(&next) {
                step_as(iter, &Step::Next, wanted.as_ref())?;
            }
            side.check_held(world)
        })
    }
}

/// A failure: after how many operations, and why.
#[derive(Debug)]
pub struct Failure {
    pub at: usize,
    pub why: String,
}

/// Runs the operations on every layout.
pub fn run(layouts: &[Layout], ops: &[Op], disks: &dyn Disks) -> Result<Tally, Failure> {
    let mut at = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(layouts, disks)?;
        for op in ops {
            run.step(op)?;
            at += 1;
        }
        run.finish()?;
        let mut tally = Tally { ops: ops.len() * layouts.len(), ..Tally::default() };
        run.sides.iter().for_each(|side| tally.add(&side.tally));
        Ok(tally)
    }));
    let outcome = outcome.unwrap_or_else(|panic| Err(format!("panic: {}", message(&*panic))));
    outcome.map_err(|why| Failure { at, why })
}
