//! A whole tree of real tables in memory, driven by real plans and the real data mover, read as the engine reads; and
//! the bugs that this must catch.
//!
//! ```text
//!   writes ─► flush ─► run() ─► tables in memory ◄── plan() ─► run() ◄── a bug bends what these are given
//!                                     │
//!               get, scans at every snapshot, compared with a map for each
//! ```
//!
//! Without a bug nothing may differ, over many seeds; with one, every seed must convict it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use pebble_compaction::{
    Busy, Hints, Job, KeyRange, Outputs, Plan, Policy, RangePlan, cuts, cuts_for, plan, plan_range, run,
    splits, table_meta,
};
use pebble_cursor::{Concat, Cursor, Layers, Merge, RangeDeletes, Veil, Visible, WholeBlock};
use pebble_format::{InternalKey, KeyspaceId, Kind, OwnedKey, PinnedRecord, RecordRef, Result, Seqno};
use pebble_manifest::{Edit, NewRun, TableMeta, Version};
use pebble_sstable::{Table, TableInfo, TableOptions, TableReadOptions, TableRun};

use crate::model::{Walk, encoded, encoded_range, range_deletes, sort};

const KEYS: u8 = 24;
const KEYSPACES: u16 = 2;
const SNAPSHOTS_MAX: usize = 4;

/// What is bent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// A merge does not see the tombstones among its input.
    DropsTombstones,
    /// A merge or flush does not see the range deletes.
    DropsRangeDeletes,
    /// A merge takes itself for the oldest, whatever lies below.
    AlwaysBottom,
    /// A run that comes to a level counts as its oldest.
    InvertsRuns,
    /// The snapshots are taken to be one number earlier, or later, than they are.
    StripesTooLow,
    StripesTooHigh,
    /// The oldest snapshot is not known to merges.
    ForgetsASnapshot,
    /// A run between the newest and the oldest one of a merge is left where it is.
    SkipsARun,
    /// The second part of a merge begins behind the key that parts it.
    LosesTheBorder,
}

const BUGS: [Bug; 9] = [
    Bug::DropsTombstones,
    Bug::DropsRangeDeletes,
    Bug::AlwaysBottom,
    Bug::InvertsRuns,
    Bug::StripesTooLow,
    Bug::StripesTooHigh,
    Bug::ForgetsASnapshot,
    Bug::SkipsARun,
    Bug::LosesTheBorder,
];

/// splitmix64 (Steele et al. 2014).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn byte(&mut self, bound: u8) -> u8 {
        u8::try_from(self.below(u64::from(bound))).unwrap()
    }
}

/// Passes over tombstones of keys, if told to; forward only.
struct Blind<'a> {
    cursor: &'a mut dyn Cursor,
    to_tombstones: bool,
}

impl Blind<'_> {
    fn settle(&mut self) -> Result<()> {
        let is_passed = |record: RecordRef<'_>| record.is_tombstone() && !record.is_range_delete();
        while self.to_tombstones && self.cursor.record().is_some_and(is_passed) {
            self.cursor.next()?;
        }
        Ok(())
    }
}

impl Cursor for Blind<'_> {
    fn first(&mut self) -> Result<()> {
        self.cursor.first()?;
        self.settle()
    }

    fn last(&mut self) -> Result<()> {
        panic!("a run only goes forward")
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.cursor.seek(target)?;
        self.settle()
    }

    fn seek_before(&mut self, _: InternalKey<'_>) -> Result<()> {
        panic!("a run only goes forward")
    }

    fn next(&mut self) -> Result<()> {
        self.cursor.next()?;
        self.settle()
    }

    fn prev(&mut self) -> Result<()> {
        panic!("a run only goes forward")
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.cursor.record()
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.cursor.pinned()
    }

    fn block(&self) -> Option<WholeBlock<'_>> {
        self.cursor.block().filter(|_| !self.to_tombstones)
    }

    fn skip_block(&mut self) -> Result<()> {
        self.cursor.skip_block()?;
        self.settle()
    }
}

/// New tables, opened as soon as they are finished.
struct Written<'a> {
    number: &'a mut u64,
    tables: Vec<Arc<Table>>,
}

impl Outputs for Written<'_> {
    type Writer = Vec<u8>;

    fn create(&mut self) -> Result<(u64, Vec<u8>)> {
        *self.number += 1;
        Ok((*self.number, Vec::new()))
    }

    fn finish(&mut self, writer: Vec<u8>, info: &TableInfo) -> Result<()> {
        let table = Table::from_bytes(writer, "memory", TableReadOptions::default())?;
        table.verify()?;
        assert_eq!(table.info(), info);
        self.tables.push(table);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// By keyspace and key, the value.
type Map = BTreeMap<(u16, Vec<u8>), Vec<u8>>;

/// What was not as it should be.
type Outcome<T = ()> = std::result::Result<T, String>;

/// A merge that was begun: what it takes, and what it has written.
struct UnderWay {
    plan: Plan,
    outputs: Vec<Arc<Table>>,
}

struct Tree {
    bug: Option<Bug>,
    rng: Rng,
    policy: Policy,
    table_len: u64,
    version: Version,
    tables: BTreeMap<u64, Arc<Table>>,
    busy: Busy,
    under_way: Vec<UnderWay>,
    map: Map,
    snapshots: Vec<(Seqno, Map)>,
    seqno: u64,
    number: u64,
    /// The last key written, and whether a snapshot was taken since: the next write should meet it.
    last_key: (u16, u8),
    fresh_snapshot: bool,
    merges: usize,
    /// How many runs have lain over one another.
    runs_max: usize,
}

impl Tree {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = Rng(seed);
        let small = |shape: Policy, fan_out: u16| Policy {
            fan_out: [fan_out, 3, 2, 2, 2, 2],
            tombstones_min: 4,
            crumbs: 3,
            crumb_bytes: 400,
            ..shape
        };
        // Above the last level several runs, so that a merge has something below it: tiers, or a lazy last level.
        let policy = match rng.below(3) {
            0 => small(Policy::tiered(2), 2),
            1 => Policy { last_percent: 400, merge_bytes_max: 4000, ..small(Policy::lazy(), 3) },
            // What comes joins a run that is no larger than it, so that a level has several at times.
            _ => Policy { joins_percent: 100, last_percent: 300, ..small(Policy::leveled(), 2) },
        };
        let table_len = [300, 800, 3000][usize::try_from(rng.below(3)).unwrap()];
        Self {
            bug,
            rng,
            policy,
            table_len,
            version: Version::default(),
            tables: BTreeMap::new(),
            busy: Busy::default(),
            under_way: Vec::new(),
            map: Map::new(),
            snapshots: Vec::new(),
            seqno: 0,
            number: 1_000_000,
            last_key: (0, 0),
            fresh_snapshot: false,
            merges: 0,
            runs_max: 0,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The numbers of the snapshots, as merges are told.
    fn told_snapshots(&self) -> Vec<Seqno> {
        let shift = |seqno: u64| match self.bug {
            Some(Bug::StripesTooLow) => seqno.saturating_sub(1),
            Some(Bug::StripesTooHigh) => seqno + 1,
            _ => seqno,
        };
        let mut told: Vec<Seqno> = self.snapshots.iter().map(|(seqno, _)| Seqno(shift(seqno.0))).collect();
        told.sort();
        told.dedup();
        if self.has(Bug::ForgetsASnapshot) && !told.is_empty() {
            told.remove(0);
        }
        told
    }

    fn hints(&self, idle: bool) -> Hints<'static> {
        let newest = Seqno(self.seqno);
        let oldest_reader = self.snapshots.iter().map(|(seqno, _)| *seqno).min().unwrap_or(newest);
        Hints { idle, newest, oldest_reader, ..Hints::default() }
    }

    fn open(&self, numbers: &[u64]) -> Vec<Arc<Table>> {
        numbers.iter().map(|number| Arc::clone(&self.tables[number])).collect()
    }

    fn key(&mut self) -> (u16, u8) {
        if std::mem::take(&mut self.fresh_snapshot) && self.rng.below(2) == 0 {
            return self.last_key;
        }
        let keyspace = u16::from(self.rng.byte(4) == 0);
        (keyspace, self.rng.byte(KEYS))
    }

    /// A flush of some writes.
    fn write(&mut self) -> Outcome {
        let mut records = Vec::new();
        for _ in 0..=self.rng.below(10) {
            self.seqno += 1;
            let (keyspace, n) = self.key();
            self.last_key = (keyspace, n);
            let key = vec![b'a' + n];
            match self.rng.below(10) {
                0..6 => {
                    self.map.insert((keyspace, key.clone()), format!("v{}", self.seqno).into_bytes());
                    records.push(encoded(keyspace, &key, self.seqno, Kind::Put));
                }
                6..8 => {
                    self.map.remove(&(keyspace, key.clone()));
                    records.push(encoded(keyspace, &key, self.seqno, Kind::Delete));
                }
                _ => {
                    let len = if self.rng.below(4) == 0 { self.rng.byte(KEYS) } else { 1 + self.rng.byte(5) };
                    let end = if n + len < KEYS { vec![b'a' + n + len.max(1)] } else { Vec::new() };
                    let covers = |other: &[u8]| *other >= *key && (end.is_empty() || *other < *end);
                    self.map.retain(|(of, other), _| *of != keyspace || !covers(other));
                    records.push(encoded_range(keyspace, &key, &end, self.seqno));
                }
            }
        }
        sort(&mut records);
        let bytes = records.iter().map(|record| record.len() as u64).sum();
        let cut_at = cuts(&self.version, bytes, 100);
        let deletes = range_deletes(&records);
        let bottom = self.version.is_empty();
        let written = self.move_records(&mut Walk::new(&records), &deletes, bottom, &cut_at, &[])?;
        self.install(0, written, Vec::new())
    }

    /// Moves records into tables, in parts if there are borders.
    fn move_records(
        &mut self,
        input: &mut dyn Cursor,
        deletes: &RangeDeletes,
        bottom: bool,
        cut_at: &[OwnedKey],
        borders: &[OwnedKey],
    ) -> Outcome<Vec<Arc<Table>>> {
        let snapshots = self.told_snapshots();
        let none = RangeDeletes::default();
        let (bug, table_len) = (self.bug, self.table_len);
        let mut input = Blind { cursor: input, to_tombstones: bug == Some(Bug::DropsTombstones) };
        let mut outputs = Written { number: &mut self.number, tables: Vec::new() };
        let behind: Vec<OwnedKey> = borders.iter().map(behind).collect();
        let lows = if bug == Some(Bug::LosesTheBorder) { &behind[..] } else { borders };
        let lows = std::iter::once(None).chain(lows.iter().map(Some));
        for range in lows.zip(borders.iter().map(Some).chain([None])) {
            let job = Job {
                snapshots: &snapshots,
                range_deletes: if bug == Some(Bug::DropsRangeDeletes) { &none } else { deletes },
                bottom: bottom || bug == Some(Bug::AlwaysBottom),
                range,
                table: TableOptions { block_len: 64, table_len, ..TableOptions::default() },
                apart: None,
                cut_at,
                cut_len_min: 60,
                stop: &|| false,
            };
            run(&mut input, &mut outputs, &job).map_err(|error| format!("run: {error}"))?;
        }
        Ok(outputs.tables)
    }

    fn start(&mut self, mut plan: Plan) -> Outcome {
        let mut outputs = Vec::new();
        if let Plan::Merge { inputs, bottom, .. } = &mut plan {
            if self.has(Bug::SkipsARun) && inputs.len() > 2 {
                inputs.remove(1);
            }
            let runs: Vec<_> = inputs.iter().map(|input| self.open(&input.tables)).collect();
            let deletes: RangeDeletes =
                runs.iter().flatten().flat_map(|table| table.range_deletes().iter().cloned()).collect();
            let bottom = *bottom;
            let cut_at = cuts_for(&self.version, &plan, 100);
            let borders = splits(&plan, &self.version, 1 + usize::from(self.rng.byte(3)));
            let mut input =
                Merge::new(runs.into_iter().map(|run| Concat::new(TableRun(run.into()))).collect());
            outputs = self.move_records(&mut input, &deletes, bottom, &cut_at, &borders)?;
            self.merges += 1;
        }
        self.busy.insert(&plan);
        self.under_way.push(UnderWay { plan, outputs });
        Ok(())
    }

    fn finish(&mut self, at: usize) -> Outcome {
        let UnderWay { plan, outputs } = self.under_way.remove(at);
        self.busy.remove(&plan);
        let removed: Vec<u64> = plan.tables().collect();
        match plan {
            Plan::Move { tables, to } => {
                let outputs = self.open(&tables);
                self.install(to, outputs, removed)
            }
            Plan::Merge { to, .. } => self.install(to, outputs, removed),
        }
    }

    fn install(&mut self, level: u8, outputs: Vec<Arc<Table>>, removed: Vec<u64>) -> Outcome {
        let refused = |error: pebble_format::Error| format!("version: {error}");
        for number in &removed {
            self.tables.remove(number);
        }
        let without =
            self.version.apply(&Edit { removed: removed.clone(), ..Edit::default() }).map_err(refused)?;
        let metas: Vec<TableMeta> = outputs.iter().map(|table| table_meta(table.info().clone())).collect();
        let joined = if level == 0 { None } else { without.place(level, &metas) };
        let run = joined.unwrap_or_else(|| {
            self.number += 1;
            // Smaller than any other: below level 0, where the version itself would refuse it.
            if level > 0 && self.bug == Some(Bug::InvertsRuns) {
                2_000_000 - self.number
            } else {
                self.number
            }
        });
        let tables = metas;
        let added_runs = if tables.is_empty() { Vec::new() } else { vec![NewRun { level, run, tables }] };
        let edit = Edit { added_runs, removed, ..Edit::default() };
        self.version = self.version.apply(&edit).map_err(refused)?;
        self.tables.extend(outputs.into_iter().map(|table| (table.number(), table)));
        self.runs_max = self.runs_max.max(self.version.runs().len());
        Ok(())
    }

    fn step(&mut self) -> Outcome {
        match self.rng.below(20) {
            0..6 => self.write()?,
            6..11 => {
                let idle = self.rng.below(4) == 0;
                let next = plan(&self.version, &self.busy, &self.policy, &self.hints(idle));
                if let Some(plan) = next.filter(|_| self.under_way.len() < 3) {
                    self.start(plan)?;
                }
            }
            11 => {
                let start: [u8; 1] = [b'a' + self.rng.byte(KEYS)];
                let end: [u8; 1] = [start[0] + 1 + self.rng.byte(6)];
                let keyspace = KeyspaceId(u16::from(self.rng.byte(2)));
                let range = KeyRange { keyspace, start: start.into(), end: end.into() };
                let upto = Seqno(self.seqno);
                let hints = self.hints(false);
                let next = plan_range(&self.version, &self.busy, &hints, Some(&range), upto);
                if let RangePlan::Next { plan, .. } = next {
                    self.start(plan)?;
                }
            }
            12..17 if !self.under_way.is_empty() => {
                let at = usize::try_from(self.rng.below(self.under_way.len() as u64)).unwrap();
                self.finish(at)?;
            }
            17 | 18 if self.snapshots.len() < SNAPSHOTS_MAX => {
                self.snapshots.push((Seqno(self.seqno), self.map.clone()));
                self.fresh_snapshot = true;
            }
            19 if !self.snapshots.is_empty() => {
                let at = usize::try_from(self.rng.below(self.snapshots.len() as u64)).unwrap();
                self.snapshots.remove(at);
            }
            _ => return Ok(()),
        }
        self.check()
    }

    fn check(&self) -> Outcome {
        let now = (Seqno(self.seqno), &self.map);
        for (seqno, map) in self.snapshots.iter().map(|(seqno, map)| (*seqno, map)).chain([now]) {
            for keyspace in (0..KEYSPACES).map(KeyspaceId) {
                let wanted: BTreeMap<&[u8], &[u8]> = map
                    .iter()
                    .filter(|((of, _), _)| *of == keyspace.0)
                    .map(|((_, key), value)| (&key[..], &value[..]))
                    .collect();
                let told = |what: &str| format!("{what} at {} in {}", seqno.0, keyspace.0);
                for n in 0..KEYS {
                    let key = [b'a' + n];
                    let found = self.get(InternalKey::lookup(keyspace, &key, seqno));
                    let found = found.as_ref().map(|found| found.record().value());
                    if found != wanted.get(&key[..]).copied() {
                        return Err(told(&format!("get of {}", key.escape_ascii())));
                    }
                }
                self.check_scans(keyspace, seqno, &wanted).map_err(told)?;
            }
        }
        Ok(())
    }

    /// As the engine reads a key: the first run that says anything decides.
    fn get(&self, lookup: InternalKey<'_>) -> Option<PinnedRecord> {
        for run in self.version.runs() {
            let Some(at) = run.find(lookup) else { continue };
            let table = &self.tables[&run.tables()[at].number];
            let found = table.get(lookup).unwrap();
            let deletes = table.range_deletes();
            let covering = deletes.covering(lookup.keyspace, lookup.user_key, lookup.trailer.seqno());
            match (found, covering) {
                (Some(found), covering) => {
                    let record = found.record();
                    let hidden = covering.is_some_and(|delete| delete.seqno > record.seqno());
                    return (!hidden && !record.is_tombstone()).then_some(found);
                }
                (None, Some(_)) => return None,
                (None, None) => {}
            }
        }
        None
    }

    fn check_scans(
        &self,
        keyspace: KeyspaceId,
        seqno: Seqno,
        wanted: &BTreeMap<&[u8], &[u8]>,
    ) -> std::result::Result<(), &'static str> {
        let (mut layers, mut veils) = (Vec::new(), Vec::new());
        for run in self.version.runs() {
            let numbers: Vec<u64> = run.tables().iter().map(|table| table.number).collect();
            let tables = self.open(&numbers);
            let deletes = tables.iter().flat_map(|table| table.range_deletes().iter().cloned());
            let deletes: Arc<RangeDeletes> = Arc::new(deletes.collect());
            if !deletes.is_empty() {
                veils.push(Veil { deletes, layer: layers.len(), whole: false });
            }
            layers.push(Concat::new(TableRun(tables.into())));
        }
        let all = || (Bound::Unbounded, Bound::Unbounded);
        let (low, high) = all();
        let mut view = Visible::new(Merge::new(layers), keyspace, low, high, seqno).below(veils);
        view.first().unwrap();
        walk(&mut view, wanted.iter(), Visible::next).ok_or("scan")?;
        view.last().unwrap();
        walk(&mut view, wanted.iter().rev(), Visible::prev).ok_or("scan backward")
    }
}

/// None when the walk gives anything else.
fn walk<'a, C: Layers>(
    view: &mut Visible<C>,
    wanted: impl Iterator<Item = (&'a &'a [u8], &'a &'a [u8])>,
    step: fn(&mut Visible<C>) -> Result<()>,
) -> Option<()> {
    for (key, value) in wanted {
        let record = view.record()?;
        if record.key() != *key || record.value() != *value {
            return None;
        }
        step(view).unwrap();
    }
    view.record().is_none().then_some(())
}

/// The key right behind.
fn behind(key: &OwnedKey) -> OwnedKey {
    let key = key.as_ref();
    let user_key = [key.user_key, &[0]].concat();
    OwnedKey::new(InternalKey::lookup(key.keyspace, &user_key, Seqno::MAX))
}

/// Steps until something differs: how many there were, and what it was.
fn convicted(seed: u64, bug: Bug, steps: usize) -> Option<(usize, String)> {
    let mut tree = Tree::new(seed, Some(bug));
    (0..steps).find_map(|step| tree.step().err().map(|why| (step, why)))
}

#[test]
fn every_planted_bug_is_caught_by_every_seed() {
    for bug in BUGS {
        let mut last = 0;
        for seed in 1..=20 {
            let Some((step, _)) = convicted(seed, bug, 4_000) else {
                panic!("{bug:?} goes unseen, seed {seed}")
            };
            last = last.max(step);
        }
        println!("{bug:?}: caught by 20 seeds, after {last} steps at most");
    }
}

#[test]
fn without_a_bug_nothing_differs() {
    let (mut merges, mut runs_max) = (0, 0);
    for seed in 1..=40 {
        let mut tree = Tree::new(seed, None);
        for step in 0..400 {
            tree.step().unwrap_or_else(|why| panic!("seed {seed}, step {step}: {why}"));
        }
        assert!(tree.version.tables().all(|table| table.number == tree.tables[&table.number].number()));
        merges += tree.merges;
        runs_max = runs_max.max(tree.runs_max);
    }
    println!("{merges} merges, up to {runs_max} runs");
    assert!(merges > 1_500 && runs_max >= 6, "{merges} merges, {runs_max} runs: nothing is put to the test");
}
