//! What a policy costs, told before a byte is written: the planner on an abstract tree.
//!
//! ```text
//!   Workload ─► flush: densities over a line of cells ─► plan ─► merge: expected distinct keys ─► plan … ─► Report
//! ```
//!
//! The real [`plan`](crate::plan()) and [`cuts`](crate::cuts()) decide; only records are missing. The key space is a
//! line of cells, a table is an interval of them, and of each cell it knows which share of the keys it holds. A merge
//! of independent shares `a` and `b` holds `a + (1 - a) b`. Merges take no time: what is due is done before the next
//! flush, so the figures are those of a machine that keeps up.
//!
//! A tree of any size takes seconds, because two things are scaled, and the report says by how much. Tables grow so
//! that the last level has some hundreds. And where there would be too many flushes, those are elided whose levels
//! every policy fills alike: what arrives is then a run of a deeper level, and what it cost to come there is counted.
//!
//! Threading: pure; no clock, no I/O, one seed, the same answer everywhere.

mod report;
mod tree;

use pebble_format::manifest::LAST_LEVEL;

use crate::plan::{Busy, Hints, Plan, Policy, plan};
use tree::Tree;

pub use report::{Comparison, LevelShape, Report, Scale, Shape, Step};

/// Cells of the key space.
const CELLS: u16 = 4096;

/// Tables of the last level at most, about.
const LAST_TABLES_MAX: u64 = 128;

/// Flushes that are simulated at most, about.
const FLUSHES_MAX: u64 = 2000;

/// Steps that a report keeps at most.
const STEPS_MAX: u64 = 200;

/// What is written to the tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Bytes of all keys, each with one value.
    pub live_bytes: u64,
    /// Bytes that are written.
    pub total_bytes: u64,
    /// Bytes of one flush.
    pub flush_bytes: u64,
    /// Bytes of a record.
    pub record_bytes: u64,
    /// Which keys are written.
    pub keys: Keys,
    /// Deletes among the writes, in percent.
    pub delete_percent: u32,
    /// Whether all keys are in the last level at the start. Otherwise the tree is empty.
    pub loaded: bool,
    /// Bytes at which a table is ended.
    pub table_bytes: u64,
    /// Bytes that a table of a flush should have, at least.
    pub cut_bytes_min: u64,
    /// Of the lengths of the flushes: a memtable is not always full.
    pub seed: u64,
}

/// Which keys are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keys {
    /// Each as likely as any other.
    Uniform,
    /// A contiguous share of the keys has another share of the writes; otherwise uniform.
    Hot {
        /// Percent of the keys.
        keys_percent: u32,
        /// Percent of the writes.
        writes_percent: u32,
    },
    /// One after the other, from the start again when all have been written.
    Rising,
}

impl Workload {
    /// Random overwrites of all keys of a loaded tree, ten times: 100-byte values, flushes of 64 MiB, tables of 32 MiB.
    pub fn overwrites(live_bytes: u64) -> Self {
        Self {
            live_bytes,
            total_bytes: live_bytes.saturating_mul(10),
            flush_bytes: 64 << 20,
            record_bytes: 144,
            keys: Keys::Uniform,
            delete_percent: 0,
            loaded: true,
            table_bytes: 32 << 20,
            cut_bytes_min: 4 << 20,
            seed: 1,
        }
    }
}

/// Lets `workload` run under `policy`. A length of 0 counts as 1.
///
/// Cost: well below a second for gigabytes, some seconds for a petabyte (in a release build).
pub fn simulate(workload: &Workload, policy: &Policy) -> Report {
    let scale = scale(workload, policy);
    let mut run = Run::new(workload, policy, scale);
    run.load();
    let flushes = (workload.total_bytes / scale.flush_bytes.max(1)).max(1);
    // Odd, so that it does not beat with a fan-out.
    let sample_every = flushes.div_ceil(STEPS_MAX) | 1;
    for at in 1..=flushes {
        run.flush();
        run.settle(false);
        if at.is_multiple_of(sample_every) || at == flushes {
            run.sample();
        }
    }
    run.end()
}

/// Several policies under one workload, side by side.
pub fn compare(workload: &Workload, policies: &[(&str, Policy)]) -> Comparison {
    let reports = policies.iter().map(|(name, policy)| ((*name).to_owned(), simulate(workload, policy)));
    Comparison { workload: *workload, reports: reports.collect() }
}

/// How far the workload is scaled. A level that takes along what it finds, up to j times what arrives, writes a byte
/// (j + 2) / 2 times and gives away j + 2 arrivals at once; a tiered one once, and its fan-out.
fn scale(workload: &Workload, policy: &Policy) -> Scale {
    let table_bytes = workload.table_bytes.max(workload.live_bytes / LAST_TABLES_MAX).max(1);
    let mut scale = Scale {
        table_bytes,
        flush_bytes: workload.flush_bytes.max(1),
        first_level: 0,
        elided_writes: 0.0,
        elided_runs: 0.0,
    };
    if workload.keys == Keys::Rising {
        // Nothing overlaps, so no level fills, and flushes may be of any length.
        scale.flush_bytes = scale.flush_bytes.max(workload.total_bytes / FLUSHES_MAX);
    }
    let joins = f64::from(policy.joins_percent) / 100.0;
    while workload.total_bytes / scale.flush_bytes > FLUSHES_MAX && scale.first_level + 1 < LAST_LEVEL {
        let fan_out = policy.fan_out(scale.first_level) as u64;
        let is_leveled = scale.first_level > 0 && joins > 0.0;
        let (arrivals, writes, runs) = if is_leveled {
            (u64::from(policy.joins_percent) / 100 + 2, (joins + 2.0) / 2.0, 1.0)
        } else {
            (fan_out, 1.0, (fan_out - 1) as f64 / 2.0)
        };
        scale.flush_bytes = scale.flush_bytes.saturating_mul(arrivals);
        scale.first_level += 1;
        scale.elided_writes += writes;
        scale.elided_runs += runs;
    }
    scale
}

/// One simulation under way.
struct Run<'a> {
    workload: &'a Workload,
    policy: &'a Policy,
    scale: Scale,
    tree: Tree,
    /// Share of the writes that goes to each cell.
    rates: Vec<f64>,
    /// The next cell of rising keys.
    rising: u16,
    random: u64,
    report: Report,
    user_bytes: f64,
    tree_bytes_written: f64,
    /// Of each cell's keys: the share that is there.
    live: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(workload: &'a Workload, policy: &'a Policy, scale: Scale) -> Self {
        let keys = workload.live_bytes as f64 / workload.record_bytes.max(1) as f64;
        Self {
            workload,
            policy,
            scale,
            tree: Tree::new(keys / f64::from(CELLS), workload.record_bytes.max(1) as f64),
            rates: rates(workload.keys),
            rising: 0,
            random: workload.seed,
            report: Report { scale, ..Report::default() },
            user_bytes: 0.0,
            tree_bytes_written: 0.0,
            live: vec![if workload.loaded { 1.0 } else { 0.0 }; usize::from(CELLS)],
        }
    }

    fn load(&mut self) {
        if self.workload.loaded {
            let all = (0..CELLS).map(|_| (1.0, 0.0)).collect();
            self.tree.install(LAST_LEVEL, Vec::new(), self.tree.cut(0, all, &[], self.scale.table_bytes));
        }
    }

    /// A flush, or what comes to the first level that is simulated.
    fn flush(&mut self) {
        // Within an eighth of its length, up and down.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let jitter = (self.random >> 40) as f64 / (1_u64 << 24) as f64 / 4.0 + 0.875;
        let deletes = f64::from(self.workload.delete_percent.min(100)) / 100.0;
        let (start, cells, writes) = match self.workload.keys {
            Keys::Rising => self.rising_cells(deletes),
            Keys::Uniform | Keys::Hot { .. } => {
                let writes =
                    self.scale.flush_bytes as f64 * jitter / self.workload.record_bytes.max(1) as f64;
                let keys = self.tree.keys_per_cell();
                let cells = self.rates.iter().map(|rate| {
                    let hit = 1.0 - (-writes * rate / keys).exp();
                    (hit * (1.0 - deletes), hit * deletes)
                });
                (0, cells.collect(), writes)
            }
        };
        self.tree.advance(writes);
        for (live, (puts, deletes)) in self.live.iter_mut().skip(usize::from(start)).zip(&cells) {
            *live = *live * (1.0 - puts - deletes) + puts;
        }
        self.user_bytes += writes * self.workload.record_bytes.max(1) as f64;
        let bytes = self.tree.bytes(&cells);
        self.tree_bytes_written += bytes * (1.0 + self.scale.elided_writes);
        let min =
            if self.scale.first_level == 0 { self.workload.cut_bytes_min } else { self.merge_cut_min() };
        let cuts = crate::plan::cuts(self.tree.version(), bytes as u64, min);
        let tables = self.tree.cut(start, cells, &cuts, self.scale.table_bytes);
        self.tree.install(self.scale.first_level, Vec::new(), tables);
        self.note_space(0.0);
    }

    /// Whole cells, so that two flushes never share one.
    fn rising_cells(&mut self, deletes: f64) -> (u16, Vec<(f64, f64)>, f64) {
        let share = self.scale.flush_bytes as f64 / self.workload.live_bytes.max(1) as f64;
        let count = ((share * f64::from(CELLS)).round() as u16).clamp(1, CELLS - self.rising);
        let start = self.rising;
        self.rising = (start + count) % CELLS;
        let writes = f64::from(count) * self.tree.keys_per_cell();
        (start, vec![(1.0 - deletes, deletes); usize::from(count)], writes)
    }

    /// Carries out what is due.
    fn settle(&mut self, idle: bool) {
        loop {
            let hints = Hints { idle, newest: self.tree.newest(), ..Hints::default() };
            let Some(plan) = plan(self.tree.version(), &Busy::default(), self.policy, &hints) else { break };
            match &plan {
                Plan::Move { tables, to } => {
                    self.report.moves += 1;
                    self.tree.relocate(tables, *to);
                }
                Plan::Merge { inputs, to, bottom, .. } => {
                    let cuts = crate::plan::cuts_for(self.tree.version(), &plan, self.merge_cut_min());
                    let (start, cells, read) = self.tree.merged(inputs, *bottom);
                    let bytes = self.tree.bytes(&cells);
                    let tables = self.tree.cut(start, cells, &cuts, self.scale.table_bytes);
                    self.tree_bytes_written += bytes;
                    self.report.merges += 1;
                    self.report.merge_bytes_max = self.report.merge_bytes_max.max(read);
                    // Before the inputs go, the outputs are there as well.
                    self.note_space(bytes);
                    self.tree.install(*to, plan.tables().collect(), tables);
                }
            }
        }
    }

    /// Bytes that a table of a merge should have, at least; a larger table of the scaled tree stands for several.
    fn merge_cut_min(&self) -> u64 {
        self.workload.table_bytes / 2
    }

    fn note_space(&mut self, more: f64) {
        let space = (self.tree.len_bytes() as f64 + more) / self.live_bytes().max(1.0);
        self.report.space_max = self.report.space_max.max(space);
        self.report.tables_max = self.report.tables_max.max(self.tree.version().tables().count());
    }

    fn live_bytes(&self) -> f64 {
        let keys: f64 = self.live.iter().sum::<f64>() * self.tree.keys_per_cell();
        keys * self.workload.record_bytes.max(1) as f64
    }

    fn shape(&self) -> Shape {
        let (levels, runs_mean, runs_max) = self.tree.runs();
        Shape {
            levels,
            space: self.tree.len_bytes() as f64 / self.live_bytes().max(1.0),
            runs_mean,
            runs_max,
        }
    }

    fn sample(&mut self) {
        let mut shape = self.shape();
        shape.runs_mean += self.scale.elided_runs;
        shape.runs_max += (self.scale.elided_runs * 2.0) as usize;
        self.report.runs_max = self.report.runs_max.max(shape.runs_max);
        let write_amp = self.tree_bytes_written / self.user_bytes.max(1.0);
        self.report.steps.push(Step { written_bytes: self.user_bytes as u64, write_amp, shape });
    }

    fn end(mut self) -> Report {
        let count = self.report.steps.len().max(1) as f64;
        self.report.runs_mean =
            self.report.steps.iter().map(|step| step.shape.runs_mean).sum::<f64>() / count;
        self.report.write_amp = self.tree_bytes_written / self.user_bytes.max(1.0);
        self.settle(true);
        self.report.rested = self.shape();
        self.report.rested_write_amp = self.tree_bytes_written / self.user_bytes.max(1.0);
        self.report
    }
}

fn rates(keys: Keys) -> Vec<f64> {
    let cells = usize::from(CELLS);
    let (hot, of_hot) = match keys {
        Keys::Hot { keys_percent, writes_percent } => {
            let hot = (cells * keys_percent.min(100) as usize / 100).clamp(1, cells - 1);
            (hot, f64::from(writes_percent.min(100)) / 100.0)
        }
        Keys::Uniform | Keys::Rising => (cells / 2, 0.5),
    };
    // In the middle, so that it has cold neighbours on both sides.
    let start = (cells - hot) / 2;
    let rate = |cell| {
        if (start..start + hot).contains(&cell) {
            of_hot / hot as f64
        } else {
            (1.0 - of_hot) / (cells - hot) as f64
        }
    };
    (0..cells).map(rate).collect()
}
