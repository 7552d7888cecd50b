//! Merging runs: ask the plan, move the records, install the outcome.
//!
//! Threading: one merge at a time, under `Core::compacting`, beside flushes. A flush adds a run that is newer than
//! all of a merge's inputs, and a merge replaces adjacent runs by one at the same place in time: so neither
//! disturbs the other.

use std::sync::Arc;

use pebble_compaction::{Plan, Policy, plan};
use pebble_cursor::Merge;
use pebble_format::HeadPrefix;
use pebble_manifest::Edit;
use pebble_sstable::Compression;

use crate::core::Core;
use crate::error::Result;
use crate::flush::new_run;
use crate::iter::Child;
use crate::sync::lock;
use crate::tables::RunRules;

impl Core {
    /// Carries out the next planned merge; says whether there was one.
    pub(crate) fn compact_planned(&self) -> Result<bool> {
        let _one_at_a_time = lock(&self.compacting);
        self.status.check_writable()?;
        let policy = Policy { runs_max: self.options.runs_max, ..Policy::default() };
        let Some(plan) = plan(&self.state.load().tree.version, &policy) else { return Ok(false) };
        self.merge(&plan)?;
        Ok(true)
    }

    /// Merges all runs into one.
    pub(crate) fn compact_all(&self) -> Result<()> {
        let _one_at_a_time = lock(&self.compacting);
        self.status.check_writable()?;
        let plan = {
            let state = self.state.load();
            let runs: Vec<u64> = state.tree.version.runs().map(|run| run.id()).collect();
            Plan { runs, bottom: true }
        };
        if plan.runs.is_empty() { Ok(()) } else { self.merge(&plan) }
    }

    fn merge(&self, plan: &Plan) -> Result<()> {
        let tree = Arc::clone(&self.state.load().tree);
        let inputs: Vec<_> =
            tree.version.runs().zip(&tree.runs).filter(|(run, _)| plan.runs.contains(&run.id())).collect();
        let removed: Vec<u64> =
            inputs.iter().flat_map(|(run, _)| run.tables()).map(|meta| meta.number).collect();
        let read: u64 = inputs.iter().flat_map(|(run, _)| run.tables()).map(|meta| meta.len).sum();
        let newest = inputs.iter().map(|(run, _)| run.id()).max().unwrap_or_default();

        let bounds =
            inputs.iter().flat_map(|(_, tables)| tables.iter()).map(|table| (table.first(), table.last()));
        let first = bounds.clone().map(|(first, _)| first).min();
        let last = bounds.map(|(_, last)| last).max();
        let prefix = first.zip(last).map(|(first, last)| HeadPrefix::between(first.as_ref(), last.as_ref()));
        let children = inputs.iter().map(|(_, tables)| Child::run(tables)).collect();
        let mut cursor = Merge::with_prefix(children, prefix.unwrap_or_default());
        let compression = if plan.bottom { self.options.compression } else { Compression::None };
        let snapshots = self.snapshots.list();
        let stop = || self.work.is_stopping();
        let rules = RunRules { snapshots: &snapshots, bottom: plan.bottom, compression, stop: &stop };
        let (written, outputs) = self.write_run(&mut cursor, &rules)?;
        let bytes = written.iter().map(|table| table.len).sum();
        let edit = Edit { added_runs: new_run(0, newest, written), removed, ..Edit::default() };
        self.install_or_clean(edit, None, outputs)?;
        self.counters.compacted(read, bytes);
        Ok(())
    }
}
