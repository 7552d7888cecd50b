//! Merging: ask the plan, move the records, install the outcome.
//!
//! ```text
//!   next_merge ─► Move ────────────────────────────────────────────────► install: the tables change their level
//!              └► Merge ─► parts by key range, one a core ─► run ─► join ─► install: the outcome replaces its inputs
//! ```
//!
//! Threading: several merges at a time, beside flushes; [`Merges`](crate::merges::Merges) keeps them apart. A flush
//! adds a run that is newer than everything; a merge takes all that is older than its newest input at every key that
//! it takes, down to where its outcome goes. So neither disturbs the order of the other.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pebble_compaction::{
    Hints, Input, KeyRange, Plan, RangePlan, Reason, cuts_for, plan, plan_range, splits,
};
use pebble_cursor::{Concat, Merge, RangeDeletes};
use pebble_format::manifest::LAST_LEVEL;
use pebble_format::{HeadPrefix, OwnedKey, PinnedRecord, RecordRef, Reference};
use pebble_manifest::{Edit, NewRun, TableMeta, Version};
use pebble_sstable::{Compression, OpenFile, StreamedRun, Table};

use crate::core::Core;
use crate::covered::Covered;
use crate::error::{Error, Result};
use crate::heat;
use crate::install::InstallError;
use crate::merges::Running;
use crate::options::{Executor, SEALED_MAX};
use crate::pace::MergeProgress;
use crate::state::{RunTables, Tree};
use crate::sync::{Mutex, lock, spawn_scoped, thread};
use crate::tables::{NewTables, RunRules, Written};
use crate::values::refers_to;

/// How long a merge holds before it looks again whether flushes have caught up.
const YIELD: Duration = Duration::from_millis(1);

/// Full tables of input from which a merge is parted over the cores.
const PART_TABLES_MIN: u64 = 2;

/// What became of the next planned merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There was none.
    Nothing,
    /// It was carried out.
    Done,
    /// It was for a rest, and writes came.
    GivenUp,
}

/// How far a compaction that a user asked for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactProgress {
    /// Bytes of tables that were merged so far.
    pub done_bytes: u64,
    /// Bytes of tables that are still to be merged, as known now.
    pub left_bytes: u64,
}

impl Step {
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }
}

impl Core {
    /// Carries out the next planned merge. With `idle`, merges that only pay while no writes come count too, and end
    /// early when some do.
    pub(crate) fn compact_planned(&self, idle: bool) -> Result<Step> {
        let policy = self.options.policy();
        let written = self.visible.get();
        let wanted = self.wanted.list();
        let set_aside = self.merges.set_aside();
        let is_alone = self.merges.running() == 0;
        let next = self.next_merge(|tree, busy| {
            let wasteful = tree.wasteful_tables(policy.crumb_bytes, &set_aside, false);
            let set_aside = &set_aside;
            let hints = Hints { idle, wanted: &wanted, wasteful: &wasteful, set_aside, ..self.hints() };
            plan(&tree.version, busy, &policy, &hints)
        })?;
        let Some(running) = next else {
            // What is wanted may be what another merge has; it rings when it ends.
            if is_alone && self.merges.running() == 0 {
                self.wanted.forget(&wanted);
            }
            return Ok(Step::Nothing);
        };
        // There may be another one for another worker.
        self.work.wake_compaction();
        let only_idle = matches!(running.plan, Plan::Merge { reason: Reason::Idle, .. });
        let stop = || self.work.is_stopping() || only_idle && self.visible.get() != written;
        match self.carry_out_noted(running, &stop) {
            // Given up because writes came: what it was for can wait.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted && only_idle => {
                Ok(Step::GivenUp)
            }
            done => done.map(|()| Step::Done),
        }
    }

    /// Carries out what is due, where the caller of a flush is the executor. A merge that fails leaves the tree as
    /// it was, and is planned again after the next flush.
    pub(crate) fn merge_inline(&self) {
        loop {
            match self.compact_planned(false) {
                Ok(Step::Done) => {}
                Ok(Step::Nothing | Step::GivenUp) => return,
                Err(error) => {
                    return tracing::warn!(%error, "merge failed; it is tried again after the next flush");
                }
            }
        }
    }

    /// Merges everything in a range of keys that was written so far into one run of the last level. Errors:
    /// `InvalidArgument` within a `watch`.
    pub(crate) fn compact_range(
        &self,
        range: Option<&KeyRange>,
        watch: &mut (dyn FnMut(CompactProgress) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        self.merges.check_may_wait()?;
        let upto = self.flush_all()?;
        let crumb_bytes = self.options.policy().crumb_bytes;
        let mut progress = CompactProgress { done_bytes: 0, left_bytes: 0 };
        let mut in_vain = 0;
        loop {
            let mut waits = false;
            let set_aside = self.merges.set_aside();
            let next = self.next_merge(|tree, busy| {
                let wasteful = tree.wasteful_tables(crumb_bytes, &set_aside, true);
                let hints = Hints { wasteful: &wasteful, ..self.hints() };
                match plan_range(&tree.version, busy, &hints, range, upto) {
                    RangePlan::Next { plan, left_bytes } => {
                        progress.left_bytes = left_bytes;
                        Some(plan)
                    }
                    RangePlan::Wait => {
                        waits = true;
                        None
                    }
                    RangePlan::Done => None,
                }
            })?;
            if next.is_none() && !waits {
                return Ok(());
            }
            if self.merges.tell(|| watch(progress)).is_break() {
                return Ok(());
            }
            match next {
                None if self.merges.wait_for_one() => in_vain = 0,
                // Nothing runs that could free the tables it waits for, or what did has just ended.
                None => {
                    in_vain += 1;
                    if let Some(damage) = self.merges.first_set_aside().filter(|_| in_vain > 1) {
                        return Err(damage);
                    }
                }
                Some(running) => {
                    let bytes = running.len_bytes();
                    let watch = Mutex::new(&mut *watch);
                    let told = || self.merges.tell(|| lock(&watch)(progress));
                    let stop = || self.work.is_stopping() || told().is_break();
                    match self.carry_out_noted(running, &stop) {
                        Err(Error::Io(error))
                            if error.kind() == io::ErrorKind::Interrupted && !self.work.is_stopping() =>
                        {
                            return Ok(());
                        }
                        done => done?,
                    }
                    progress.done_bytes += bytes;
                }
            }
        }
    }

    /// What the planner has to know beside the tree.
    pub(crate) fn hints(&self) -> Hints<'static> {
        let newest = self.visible.get();
        Hints { newest, oldest_reader: self.snapshots.oldest().unwrap_or(newest), ..Hints::default() }
    }

    /// As [`Core::carry_out`]; damage that it meets is noted, and the table it lies in set aside.
    fn carry_out_noted(&self, running: Running<'_>, stop: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        self.carry_out(running, stop).inspect_err(|error| {
            let given_up = matches!(error, Error::Io(cause) if cause.kind() == io::ErrorKind::Interrupted);
            if !given_up {
                self.met.note(error);
            }
            self.merges.set_table_aside(error);
        })
    }

    /// Carries out a plan. `stop` is asked now and then whether to give up, with an error of kind `Interrupted`.
    pub(crate) fn carry_out(&self, running: Running<'_>, stop: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        // What it promised of the debt stands until the debt is looked at again.
        let progress = self.pace.progress(running.len_bytes());
        match &running.plan {
            Plan::Move { tables, to } => self.relocate(&running, tables, *to),
            Plan::Merge { inputs, to, bottom, .. } => {
                self.merge(&running, inputs, *to, *bottom, &progress, stop)
            }
        }?;
        // What this merge had was not looked at while it had it.
        self.drop_covered_if_any(Covered::WhollyOrMostly);
        self.wake_after_change();
        Ok(())
    }

    /// The tables go to another level as they are.
    fn relocate(&self, running: &Running<'_>, numbers: &[u64], to: u8) -> Result<()> {
        let by_number: HashMap<u64, _> =
            running.tree.version.tables().map(|meta| (meta.number, meta)).collect();
        let found = numbers.iter().filter_map(|number| by_number.get(number));
        let tables: Vec<TableMeta> = found.map(|meta| (***meta).clone()).collect();
        let edit = |version: &Version| self.outcome(version, numbers.to_vec(), to, tables);
        self.install(edit, None).map_err(InstallError::into_cause)
    }

    fn merge(
        &self,
        running: &Running<'_>,
        inputs: &[Input],
        to: u8,
        bottom: bool,
        progress: &MergeProgress<'_>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<()> {
        let tree = &running.tree;
        let runs: Vec<RunTables> = inputs.iter().map(|input| tables_of(tree, input)).collect();
        let read: u64 = runs.iter().flat_map(|run| run.iter()).map(|table| table.len()).sum();
        let deletes = runs.iter().flat_map(|run| run.iter()).flat_map(|table| table.range_deletes().iter());
        let range_deletes: RangeDeletes = deletes.cloned().collect();
        // Where the borders of the last level are, so that later merges find them again.
        let cut_len_min = self.options.cut_len_min(to);
        let cut_at = cuts_for(&tree.version, &running.plan, if to == LAST_LEVEL { 0 } else { cut_len_min });
        let begun = self.clock.now();
        let snapshots = self.snapshots.list();
        let cached = heat::are_read(runs.iter().flat_map(|run| run.iter()));
        let wasteful = tree.wasteful_values(self.options.policy().crumb_bytes, &self.merges.set_aside());
        let fetched = AtomicU64::new(0);
        let fetch = |record: RecordRef<'_>| Ok(self.fetch(tree, &wasteful, record, &fetched));
        let moves_values = runs.iter().flat_map(|run| run.iter()).any(|table| refers_to(table, &wasteful));
        let rules = RunRules {
            snapshots: &snapshots,
            range_deletes: &range_deletes,
            bottom,
            compression: if bottom { self.options.compression } else { Compression::None },
            fetch: if moves_values { Some(&fetch) } else { None },
            cut_at: &cut_at,
            cut_len_min,
            stop: &|| self.must_yield(stop),
            wrote: &|bytes| progress.wrote(bytes),
            cached,
        };
        let is_large = read >= self.options.table_len.saturating_mul(PART_TABLES_MIN);
        let parts = if is_large { self.options.merge_threads } else { 1 };
        let borders = splits(&running.plan, &tree.version, parts);
        let (written, outputs) = self.move_in_parts(&runs, &borders, &rules)?;
        let bytes = written.len();
        let (tables, added_values) = written.into_metas();
        let removed: Vec<u64> = running.plan.tables().collect();
        let edit = |version: &Version| {
            let edit = self.outcome(version, removed, to, tables)?;
            Ok(Edit { added_values, ..edit })
        };
        self.install_or_clean(edit, None, outputs)?;
        let read = read + fetched.into_inner();
        self.counters.compacted(read, bytes);
        self.pace.merged(read, self.clock.now().saturating_sub(begun));
        Ok(())
    }

    /// The record that one refers to, if its table of values is among the wasteful ones. A value that cannot be read
    /// stays where it is, and so do those beside it in later merges: it is no reason to give one up.
    fn fetch(
        &self,
        tree: &Tree,
        wasteful: &[u64],
        record: RecordRef<'_>,
        fetched: &AtomicU64,
    ) -> Option<PinnedRecord> {
        let number = Reference::read(record.value()).ok()?.table.get();
        wasteful.binary_search(&number).ok()?;
        match tree.values.follow_once(record) {
            Ok(found) => {
                fetched.fetch_add(found.record().raw().len() as u64, Ordering::Relaxed);
                Some(found)
            }
            Err(error) => {
                let error = self.met(error);
                tracing::warn!(%error, "a value stays where it is");
                self.merges.set_values_aside(number, error);
                None
            }
        }
    }

    /// Moves the records of `runs`, in as many parts as the borders make, each with a thread of its own.
    fn move_in_parts<'a>(
        &'a self,
        runs: &[RunTables],
        borders: &[OwnedKey],
        rules: &RunRules<'_>,
    ) -> Result<(Written, NewTables<'a>)> {
        let lows = std::iter::once(None).chain(borders.iter().map(Some));
        let highs = borders.iter().map(Some).chain([None]);
        let parts: Vec<_> = lows.zip(highs).collect();
        let open = |table: &Table| self.open_stream(table);
        let one = |range| self.write_run(&mut self.merge_of(runs, &open), rules, range);
        let done: Vec<Result<_>> = match self.executor {
            Executor::Threads if parts.len() > 1 => thread::scope(|scope| {
                // Where no thread is to be had the part is done here, once the others are on their way.
                let spawned: Vec<_> = parts
                    .iter()
                    .map(|range| spawn_scoped(scope, || one(*range)).map_err(|_| range))
                    .collect();
                let done = spawned.into_iter().map(|part| match part {
                    Ok(thread) => thread.join().unwrap_or_else(|_| Err(self.part_panicked())),
                    Err(range) => one(*range),
                });
                done.collect()
            }),
            _ => parts.iter().map(|range| one(*range)).collect(),
        };
        let mut all = Written::default();
        let mut outputs = NewTables::new(&self.tables, rules.cached);
        for part in done {
            let (written, created) = part?;
            all.join(written);
            outputs.join(created);
        }
        Ok((all, outputs))
    }

    /// All records of these runs, in order.
    fn merge_of<'a>(&self, runs: &[RunTables], open: OpenFile<'a>) -> Merge<Concat<StreamedRun<'a>>> {
        let bounds = || runs.iter().flat_map(|run| run.iter());
        let first = bounds().map(|table: &Arc<Table>| table.first()).min();
        let last = bounds().map(|table| table.last()).max();
        let prefix = first.zip(last).map(|(first, last)| HeadPrefix::between(first.as_ref(), last.as_ref()));
        let helpers = || Arc::clone(&self.tables.transfers) as _;
        let stream = |run: &RunTables| Concat::new(StreamedRun::new(Arc::clone(run), open, helpers()));
        Merge::with_prefix(runs.iter().map(stream).collect(), prefix.unwrap_or_default())
    }

    /// A panic stops writing, as one in any background thread does.
    fn part_panicked(&self) -> Error {
        let panic = Error::Background { what: "a part of a merge".into() };
        self.status.stop(&panic);
        panic
    }

    /// Asked by a merge now and then: whether to give up. It holds the merge while flushes are behind, for they go
    /// first where cores are few; a flush that cannot go on is not waited for, since a merge may free the space that
    /// it lacks.
    fn must_yield(&self, stop: &(dyn Fn() -> bool + Sync)) -> bool {
        while self.executor == Executor::Threads
            && self.state.load().sealed.len() >= SEALED_MAX
            && self.status.flush_blocked().is_none()
            && self.status.check_writable().is_ok()
            && !stop()
        {
            self.clock.sleep(YIELD);
        }
        stop()
    }

    /// The edit that puts `tables` in the place of `removed`.
    fn outcome(&self, version: &Version, removed: Vec<u64>, to: u8, tables: Vec<TableMeta>) -> Result<Edit> {
        if tables.is_empty() {
            return Ok(Edit { removed, ..Edit::default() });
        }
        let rest = version.apply(&Edit { removed: removed.clone(), ..Edit::default() })?;
        let run = rest.place(to, &tables).unwrap_or_else(|| self.tables.new_number());
        Ok(Edit { added_runs: vec![NewRun { level: to, run, tables }], removed, ..Edit::default() })
    }
}

/// The open tables of an input.
fn tables_of(tree: &Tree, input: &Input) -> RunTables {
    let run = tree.version.runs().zip(&tree.runs).find(|(run, _)| run.id() == input.run);
    let tables = run.map(|(_, tables)| &**tables).unwrap_or_default();
    let taken: HashSet<u64> = input.tables.iter().copied().collect();
    tables.iter().filter(|table| taken.contains(&table.number())).cloned().collect()
}
