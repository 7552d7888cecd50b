//! From what a survey found to a whole database: which tables stay, which are put together anew, and in which order.
//!
//! ```text
//!   manifest believed   every table stays in its level and run; a damaged one is replaced there by what is left of it
//!   not believed        tables by their ranges of sequence numbers
//!                         ranges apart, or keys apart           runs of level 0, as they are
//!                         both overlap                          merged into one run, record by record
//!   log                 the newest run
//!   tables of values    as they are, if something refers to them; from a damaged one what is left is written anew
//! ```
//!
//! The order is right because every record has its number: of two runs of level 0 made here, all numbers of one are
//! above all of the other, and where that cannot be had by placing tables it is had by merging them. Tombstones stay.
//!
//! Threading: one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use pebble_cursor::{Cursor, Merge, RangeDelete, RangeDeletes};
use pebble_format::manifest::LAST_LEVEL;
use pebble_format::{FileName, OwnedKey, Seqno};
use pebble_manifest::{Edit, ManifestLog, ManifestState, NewRun, TableMeta};
use pebble_sstable::{Compression, TableInfo};
use pebble_vfs::{Fs, Open};

use crate::doubt::{Doubts, Hole, tombstones};
use crate::error::Result;
use crate::followed::{Followed, Following};
use crate::options::Options;
use crate::sorted::Sorted;
use crate::survey::{Found, Survey};
use crate::tables::{NewTables, RunRules, Tables, Written};

/// Bytes that are copied at a time.
const COPY_LEN: usize = 1 << 20;

/// Where the whole database goes.
pub(crate) struct Target<'a> {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: &'a Path,
    /// It is the surveyed directory itself, on a file system that keeps what is written to itself.
    pub(crate) in_place: bool,
}

/// What was made.
pub(crate) struct Built {
    pub(crate) doubts: Doubts,
    /// Tables taken over as they are.
    pub(crate) kept: Vec<u64>,
    /// Tables written.
    pub(crate) written: u64,
}

/// What the tables of a run are made of.
#[derive(Default)]
struct Source<'a> {
    found: Vec<&'a Found>,
    lost: Vec<&'a TableMeta>,
}

impl Source<'_> {
    /// The one table that can be taken over as it is, with what it refers to.
    fn as_it_is(&self, survey: &Survey) -> Option<&Found> {
        match &self.found[..] {
            [found] if self.lost.is_empty() && survey.is_taken_over(found) => Some(found),
            _ => None,
        }
    }
}

/// A run to be, newest first among its like.
struct Placed<'a> {
    level: u8,
    run: u64,
    /// Ascending, by key.
    sources: Vec<Source<'a>>,
}

/// Makes a whole database of what a survey found. With `older`, keys in doubt show the newest version that is left.
///
/// A failure, or a crash, on the way leaves a target without `CURRENT`, which no open takes for a database.
pub(crate) fn rebuild(survey: &Survey, target: &Target<'_>, options: &Options, older: bool) -> Result<Built> {
    let runs = match &survey.state {
        Some(state) => placed_as_before(survey, state),
        None => placed_by_number(survey),
    };
    let next_file = survey.next_file.saturating_add(runs.len() as u64);
    let tables = Tables::new(Arc::clone(&target.fs), target.dir.into(), survey.uuid, options, next_file);
    let mut builder = Builder {
        survey,
        target,
        options,
        older,
        tables: &tables,
        following: Following::new(&survey.values, older),
        referred: BTreeSet::new(),
        added_values: Vec::new(),
        kept: Vec::new(),
        written: 0,
    };
    let mut outputs = NewTables::new(&tables, true);
    let mut added_runs = Vec::new();
    for (at, placed) in runs.iter().enumerate() {
        let before = survey.state.as_ref().and_then(|_| runs.get(..at));
        let metas = builder.run(placed, before, &mut outputs)?;
        if !metas.is_empty() {
            added_runs.push(NewRun { level: placed.level, run: placed.run, tables: metas });
        }
    }
    let log = builder.log(&mut outputs)?;
    if !log.is_empty() {
        added_runs.push(NewRun { level: 0, run: tables.new_number(), tables: log });
    }
    builder.keep_values()?;
    let Builder { kept, written, added_values, following, .. } = builder;
    outputs.keep();
    begin(survey, target, &tables, Edit { added_runs, added_values, ..Edit::default() }, &kept)?;
    let doubts = Doubts { values: following.lost(), ..doubts_of(survey) };
    Ok(Built { doubts, kept, written })
}

/// Puts the tree in force: the last step.
fn begin(survey: &Survey, target: &Target<'_>, tables: &Tables, tree: Edit, kept: &[u64]) -> Result<()> {
    if target.in_place {
        for name in survey.files.keys() {
            let goes = match FileName::parse(name) {
                Some(FileName::Table(number)) => !kept.contains(&number),
                Some(FileName::Lock) | None => false,
                Some(_) => true,
            };
            if goes {
                target.fs.remove(&target.dir.join(name))?;
            }
        }
    }
    let manifest = tables.new_number();
    let of_runs = tree.added_runs.iter().flat_map(|run| &run.tables);
    let of_tables = of_runs.chain(&tree.added_values).map(|meta| meta.seqno_max);
    let newest = of_tables.max().unwrap_or(Seqno::ZERO).max(survey.log.last_seqno);
    let known = survey.manifest.as_ref().map_or(Seqno::ZERO, |found| found.state.flushed_seqno);
    let edit = Edit {
        flushed_seqno: Some(newest.max(known)),
        next_file: Some(tables.next_number()),
        keyspaces: survey.keyspaces()?.into_iter().collect(),
        ..tree
    };
    let state = ManifestState::new(survey.uuid).apply(&edit)?;
    target.fs.sync_dir(target.dir)?;
    ManifestLog::create(Arc::clone(&target.fs), target.dir, manifest, &state)?;
    Ok(())
}

/// What reads of the new database cannot vouch for.
fn doubts_of(survey: &Survey) -> Doubts {
    let parts = survey.tables.values().filter(|found| !found.remains.lost().is_empty());
    Doubts {
        parts: parts.map(|found| Arc::clone(&found.remains)).collect(),
        tables: survey.lost_tables.values().cloned().collect(),
        keys: survey.log.lost_keys.iter().cloned().collect(),
        ranges: survey.log.lost_ranges.clone(),
        values: BTreeMap::new(),
    }
}

fn placed_as_before<'a>(survey: &'a Survey, state: &ManifestState) -> Vec<Placed<'a>> {
    let source = |meta: &Arc<TableMeta>| Source {
        found: survey.tables.get(&meta.number).into_iter().collect(),
        lost: survey.lost_tables.get(&meta.number).into_iter().collect(),
    };
    let runs = state.version.runs();
    runs.map(|run| Placed {
        level: run.level(),
        run: run.id(),
        sources: run.tables().iter().map(source).collect(),
    })
    .collect()
}

/// A table, and what is left of it.
type Candidate<'a> = (&'a TableMeta, Option<&'a Found>);

/// Newest first.
fn placed_by_number(survey: &Survey) -> Vec<Placed<'_>> {
    let found = survey.tables.values().map(|found| (&found.meta, Some(found)));
    let lost = survey.lost_tables.values().map(|meta| (meta, None));
    let mut all: Vec<Candidate<'_>> = found.chain(lost).collect();
    all.sort_by_key(|(meta, _)| (meta.seqno_min, meta.seqno_max));
    let mut groups: Vec<(Seqno, Vec<Candidate<'_>>)> = Vec::new();
    for (meta, found) in all {
        match groups.last_mut().filter(|(newest, _)| *newest >= meta.seqno_min) {
            Some((newest, group)) => {
                *newest = (*newest).max(meta.seqno_max);
                group.push((meta, found));
            }
            None => groups.push((meta.seqno_max, vec![(meta, found)])),
        }
    }
    let placed = (1..).zip(groups).map(|(run, (_, mut group))| {
        group.sort_by(|(a, _), (b, _)| a.first.cmp(&b.first));
        let apart = group.windows(2).all(|pair| match pair {
            [(before, _), (after, _)] => {
                let (keyspace, key) = after.starts();
                before.ends_before(keyspace, key)
            }
            _ => true,
        });
        let mut sources: Vec<Source<'_>> = Vec::new();
        for (meta, found) in group {
            // Where keys overlap, all of them are one source.
            if apart || sources.is_empty() {
                sources.push(Source::default());
            }
            if let Some(source) = sources.last_mut() {
                match found {
                    Some(found) => source.found.push(found),
                    None => source.lost.push(meta),
                }
            }
        }
        Placed { level: 0, run, sources }
    });
    let mut placed: Vec<_> = placed.collect();
    placed.reverse();
    placed
}

struct Builder<'a> {
    survey: &'a Survey,
    target: &'a Target<'a>,
    options: &'a Options,
    older: bool,
    tables: &'a Tables,
    following: Rc<Following>,
    /// Tables of values that those made so far refer to.
    referred: BTreeSet<u64>,
    added_values: Vec<TableMeta>,
    kept: Vec<u64>,
    written: u64,
}

impl Builder<'_> {
    /// The tables of a run, ascending. `before` are the runs that are newer, where that is known.
    fn run(
        &mut self,
        placed: &Placed<'_>,
        before: Option<&[Placed<'_>]>,
        outputs: &mut NewTables<'_>,
    ) -> Result<Vec<TableMeta>> {
        let mut metas = Vec::new();
        for (at, source) in placed.sources.iter().enumerate() {
            if let Some(found) = source.as_it_is(self.survey) {
                self.keep(found)?;
                self.note_referred(found.remains.table().info());
                metas.push(found.meta.clone());
                continue;
            }
            let next = placed.sources.get(at + 1).and_then(|next| {
                let found = next.found.iter().map(|found| &found.meta.first);
                found.chain(next.lost.iter().map(|meta| &meta.first)).min()
            });
            let dead = self.stand_ins(source, before)?;
            metas.extend(self.source(source, dead, placed.level, next, outputs)?);
        }
        Ok(metas)
    }

    /// Tombstones for what some tables may have lost.
    fn stand_ins(&self, source: &Source<'_>, before: Option<&[Placed<'_>]>) -> Result<Vec<Sorted>> {
        if self.older {
            return Ok(Vec::new());
        }
        let parts = source.found.iter().filter(|found| !found.remains.lost().is_empty());
        let holes = parts.map(|found| Hole::Part(&found.remains));
        let holes = holes.chain(source.lost.iter().map(|meta| Hole::Table(meta)));
        let newer = |runs: &[Placed<'_>]| {
            let sources = runs.iter().flat_map(|run| &run.sources);
            self.left_in(sources.flat_map(|source| source.found.iter().copied()))
        };
        holes.map(|hole| tombstones(&hole, &mut self.everything(), before.map(newer))).collect()
    }

    /// What is left of some tables, as new ones, with `dead` beside it.
    fn source(
        &mut self,
        source: &Source<'_>,
        dead: Vec<Sorted>,
        level: u8,
        next: Option<&OwnedKey>,
        outputs: &mut NewTables<'_>,
    ) -> Result<Vec<TableMeta>> {
        let dead = dead.iter().map(|dead| Box::new(dead.cursor()) as Box<dyn Cursor>);
        let mut children: Vec<_> = dead.collect();
        let mut deletes: Vec<RangeDelete> = Vec::new();
        for found in &source.found {
            children.push(Box::new(Followed::new(found.remains.cursor(), Rc::clone(&self.following))));
            deletes.extend(found.remains.table().range_deletes().iter().cloned());
        }
        let compression = if level == LAST_LEVEL { self.options.compression } else { Compression::None };
        self.write(Merge::new(children), &deletes.into_iter().collect(), compression, next, outputs)
    }

    /// The log, as the newest run.
    fn log(&mut self, outputs: &mut NewTables<'_>) -> Result<Vec<TableMeta>> {
        let log = &self.survey.log;
        // What a range delete of a lost frame says is as of the last number that was lost.
        let stand_ins = (!self.older).then_some(&log.stand_ins);
        let parts: Vec<_> = [&log.records].into_iter().chain(stand_ins).collect();
        if parts.iter().all(|part| part.is_empty()) {
            return Ok(Vec::new());
        }
        let records = parts.iter().flat_map(|part| part.records());
        let deletes = records.filter_map(|record| RangeDelete::of(record.record())).collect();
        let children = parts.iter().map(|part| Box::new(part.cursor()) as Box<dyn Cursor>).collect();
        self.write(Merge::new(children), &deletes, Compression::None, None, outputs)
    }

    fn write(
        &mut self,
        mut input: Merge<Box<dyn Cursor>>,
        range_deletes: &RangeDeletes,
        compression: Compression,
        next: Option<&OwnedKey>,
        outputs: &mut NewTables<'_>,
    ) -> Result<Vec<TableMeta>> {
        let rules = RunRules {
            snapshots: &[],
            range_deletes,
            // A tombstone may have something to hide in a table that nobody knows of any more.
            bottom: false,
            compression,
            fetch: None,
            cut_at: &[],
            cut_len_min: 0,
            stop: &|| false,
            wrote: &|_| (),
            cached: true,
        };
        let written = self.tables.write_run(&mut input, outputs, &rules, (None, next))?;
        Ok(self.enter(written))
    }

    /// Notes what was written; gives the run's tables.
    fn enter(&mut self, written: Written) -> Vec<TableMeta> {
        self.written += (written.tables.len() + written.values.len()) as u64;
        written.tables.iter().for_each(|info| self.note_referred(info));
        let (tables, mut values) = written.into_metas();
        self.added_values.append(&mut values);
        tables
    }

    fn note_referred(&mut self, info: &TableInfo) {
        self.referred.extend(info.referred.iter().map(|referred| referred.table));
    }

    /// Takes over the tables of values that something refers to. Those that were written are in the list already.
    fn keep_values(&mut self) -> Result<()> {
        for (number, found) in &self.survey.values {
            if self.referred.contains(number) {
                self.keep(found)?;
                self.added_values.push(found.meta.clone());
            }
        }
        Ok(())
    }

    /// All records that are left.
    fn everything(&self) -> Merge<Box<dyn Cursor>> {
        self.left_in(self.survey.tables.values())
    }

    /// All records that are left of some tables, and the log with what stands in for its lost frames.
    fn left_in<'f>(&self, tables: impl Iterator<Item = &'f Found>) -> Merge<Box<dyn Cursor>> {
        let mut children: Vec<Box<dyn Cursor>> =
            tables.map(|found| Box::new(found.remains.cursor()) as Box<dyn Cursor>).collect();
        children.push(Box::new(self.survey.log.records.cursor()));
        children.push(Box::new(self.survey.log.stand_ins.cursor()));
        Merge::new(children)
    }

    /// Takes a table over as it is.
    fn keep(&mut self, found: &Found) -> Result<()> {
        let number = found.meta.number;
        self.kept.push(number);
        if self.target.in_place {
            return Ok(());
        }
        let name = FileName::Table(number).to_string();
        let from = self.survey.fs.open(&self.survey.dir.join(&name), Open::Read)?;
        let to = self.target.fs.open(&self.target.dir.join(&name), Open::CreateNew)?;
        let mut buffer = vec![0; COPY_LEN];
        let (mut at, len) = (0, from.len()?);
        while at < len {
            let part = usize::try_from(len - at).unwrap_or(COPY_LEN).min(COPY_LEN);
            let Some(part) = buffer.get_mut(..part) else { break };
            from.read_exact_at(part, at)?;
            to.write_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(to.sync_data()?)
    }
}
