//! Makes a failing case small: fewer databases, fewer operations, simpler ones, short keys and values.
//!
//! Every step is kept if the case still fails, whatever it then fails with. Threading: one caller's own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::ops::{Bounds, Op, Step, Write};
use super::run::{Failure, Layout, Tally};
use crate::support::Config;

/// Runs after which the case is as small as it gets.
const RUNS_MAX: usize = 6_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Case {
    pub layouts: Vec<Layout>,
    pub ops: Vec<Op>,
}

struct Shrink<'a> {
    best: Case,
    run: &'a dyn Fn(&Case) -> Result<Tally, Failure>,
    runs: usize,
}

/// A case that fails as well, and is as small as could be found.
pub fn shrink(case: Case, run: &dyn Fn(&Case) -> Result<Tally, Failure>) -> Case {
    let mut shrink = Shrink { best: case, run, runs: 0 };
    shrink.layouts();
    shrink.end();
    shrink.pieces();
    loop {
        let before = shrink.runs;
        let changed = shrink.simplify() | shrink.rename();
        if !changed || shrink.runs == before {
            break;
        }
        shrink.pieces();
    }
    shrink.configs();
    shrink.best
}

impl Shrink<'_> {
    /// Keeps the case if it fails too.
    fn keep(&mut self, case: Case) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let fails = (self.run)(&case).is_err();
        if fails {
            self.best = case;
        }
        fails
    }

    fn keep_ops(&mut self, ops: Vec<Op>) -> bool {
        let layouts = self.best.layouts.clone();
        self.keep(Case { layouts, ops })
    }

    fn layouts(&mut self) {
        for layout in self.best.layouts.clone() {
            let ops = self.best.ops.clone();
            if self.keep(Case { layouts: vec![layout], ops }) {
                return;
            }
        }
    }

    /// Nothing behind the operation that fails.
    fn end(&mut self) {
        let Err(failure) = (self.run)(&self.best) else { return };
        let mut ops = self.best.ops.clone();
        ops.truncate(failure.at + 1);
        self.keep_ops(ops);
    }

    /// Leaves out as many operations as the failure allows, in ever smaller pieces.
    fn pieces(&mut self) {
        let mut piece = (self.best.ops.len() / 2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.ops.len() {
                let mut fewer = self.best.ops.clone();
                fewer.drain(at..(at + piece).min(fewer.len()));
                if !self.keep_ops(fewer) {
                    at += piece;
                }
            }
            if piece == 1 {
                return;
            }
            piece /= 2;
        }
    }

    /// Each operation by itself, as simple as the failure allows.
    fn simplify(&mut self) -> bool {
        let mut changed = false;
        for at in 0..self.best.ops.len() {
            loop {
                let mut candidates = simpler(&self.best.ops[at]).into_iter();
                let better = candidates.any(|op| {
                    let mut ops = self.best.ops.clone();
                    ops[at] = op;
                    self.keep_ops(ops)
                });
                if !better {
                    break;
                }
                changed = true;
            }
        }
        changed
    }

    /// All keys at once become short ones in the same order; or one of them does, in all places where it stands.
    fn rename(&mut self) -> bool {
        let mut keys: BTreeSet<Vec<u8>> = BTreeSet::new();
        self.best.ops.clone().iter_mut().for_each(|op| each_key(op, &mut |key| _ = keys.insert(key.clone())));
        let short =
            |n: usize| vec![b'a' + u8::try_from(n / 26 % 26).unwrap(), b'a' + u8::try_from(n % 26).unwrap()];
        let mut names: BTreeMap<Vec<u8>, Vec<u8>> =
            keys.iter().enumerate().map(|(n, key)| (key.clone(), short(n))).collect();
        names.retain(|key, name| key != name);
        if names.is_empty() {
            return false;
        }
        let renamed = |ops: &[Op], names: &BTreeMap<Vec<u8>, Vec<u8>>| {
            let mut ops = ops.to_vec();
            let mut rename = |key: &mut Vec<u8>| {
                if let Some(name) = names.get(key) {
                    key.clone_from(name);
                }
            };
            ops.iter_mut().for_each(|op| each_key(op, &mut rename));
            ops
        };
        let ops = renamed(&self.best.ops, &names);
        if self.keep_ops(ops) {
            return true;
        }
        let mut changed = false;
        for key in keys.iter().filter(|key| key.len() > 4) {
            let one = BTreeMap::from([(key.clone(), key[..4].to_vec())]);
            let ops = renamed(&self.best.ops, &one);
            changed |= self.keep_ops(ops);
        }
        changed
    }

    /// Each option as [`Config::tiny`] has it.
    fn configs(&mut self) {
        for at in 0..self.best.layouts.len() {
            let changes: [fn(&mut Config, &Config); 8] = [
                |config, tiny| config.log_io = tiny.log_io,
                |config, tiny| config.read_mode = tiny.read_mode,
                |config, tiny| config.compression = tiny.compression,
                |config, tiny| config.index = tiny.index,
                |config, tiny| config.block_len = tiny.block_len,
                |config, tiny| config.table_len = tiny.table_len,
                |config, tiny| config.segments = tiny.segments,
                |config, tiny| config.compaction = tiny.compaction,
            ];
            let tiny = Config::tiny(pebble_db::LogIo::Map);
            for change in changes {
                let mut case = self.best.clone();
                change(&mut case.layouts[at].config, &tiny);
                self.keep(case);
            }
        }
    }
}

fn each_key(op: &mut Op, act: &mut dyn FnMut(&mut Vec<u8>)) {
    let bound = |bound: &mut Bound<Vec<u8>>, act: &mut dyn FnMut(&mut Vec<u8>)| match bound {
        Bound::Unbounded => {}
        Bound::Included(key) | Bound::Excluded(key) => act(key),
    };
    let both = |bounds: &mut Bounds, act: &mut dyn FnMut(&mut Vec<u8>)| {
        bound(&mut bounds.0, act);
        bound(&mut bounds.1, act);
    };
    let written = |write: &mut Write, act: &mut dyn FnMut(&mut Vec<u8>)| match write {
        Write::Put { key, .. } | Write::Delete { key, .. } => act(key),
        Write::DeleteRange { bounds, .. } => both(bounds, act),
        // A prefix is no key: it stays what it is.
        Write::DeletePrefix { .. } => {}
    };
    match op {
        Op::Write { write, .. } => written(write, act),
        Op::Batch { writes, .. } => writes.iter_mut().for_each(|write| written(write, act)),
        Op::Past { key, .. } | Op::Get { key, .. } | Op::HoldValue { key, .. } => act(key),
        Op::Scan { bounds, .. } | Op::Estimate { bounds, .. } | Op::OpenIter { bounds, .. } => {
            both(bounds, act)
        }
        Op::Compact { part: Some((_, bounds)), .. } => both(bounds, act),
        Op::Walk { bounds, steps, .. } => {
            both(bounds, act);
            for step in steps {
                if let Step::Seek(key) | Step::SeekForPrev(key) = step {
                    act(key);
                }
            }
        }
        _ => {}
    }
}

fn without<T: Clone>(all: &[T], at: usize) -> Vec<T> {
    let mut fewer = all.to_vec();
    fewer.remove(at);
    fewer
}

fn simpler_write(write: &Write) -> Vec<Write> {
    match write {
        Write::Put { space, key, value } => {
            let put =
                |space: usize, value: &[u8]| Write::Put { space, key: key.clone(), value: value.to_vec() };
            let mut simpler = Vec::new();
            if value.len() > 1 {
                simpler.extend([put(*space, b"v"), put(*space, &value[..value.len() / 2])]);
            }
            if *space > 0 {
                simpler.push(put(0, value));
            }
            simpler
        }
        Write::DeleteRange { space, bounds } => {
            let bounds = simpler_bounds(bounds).into_iter();
            bounds.map(|bounds| Write::DeleteRange { space: *space, bounds }).collect()
        }
        Write::Delete { .. } | Write::DeletePrefix { .. } => Vec::new(),
    }
}

fn simpler_bounds((low, high): &Bounds) -> Vec<Bounds> {
    let mut simpler = Vec::new();
    if *low != Bound::Unbounded {
        simpler.push((Bound::Unbounded, high.clone()));
    }
    if *high != Bound::Unbounded {
        simpler.push((low.clone(), Bound::Unbounded));
    }
    simpler
}

/// Operations that are simpler by one thing each; the largest step first. None of them leads back.
fn simpler(op: &Op) -> Vec<Op> {
    match op.clone() {
        Op::Write { write, sync } => {
            let mut simpler: Vec<_> =
                simpler_write(&write).into_iter().map(|write| Op::Write { write, sync }).collect();
            if sync {
                simpler.push(Op::Write { write, sync: false });
            }
            simpler
        }
        Op::Batch { writes, sync } => {
            let mut simpler: Vec<_> =
                (0..writes.len()).map(|at| Op::Batch { writes: without(&writes, at), sync }).collect();
            if let [write] = &writes[..] {
                simpler.push(Op::Write { write: write.clone(), sync });
            }
            for (at, write) in writes.iter().enumerate() {
                simpler.extend(simpler_write(write).into_iter().map(|write| {
                    let mut writes = writes.clone();
                    writes[at] = write;
                    Op::Batch { writes, sync }
                }));
            }
            simpler
        }
        Op::Scan { space, bounds, snapshot, backward } => {
            let wider = simpler_bounds(&bounds).into_iter();
            let mut simpler: Vec<_> =
                wider.map(|bounds| Op::Scan { space, bounds, snapshot, backward }).collect();
            if snapshot.is_some() {
                simpler.push(Op::Scan { space, bounds, snapshot: None, backward });
            }
            simpler
        }
        Op::Walk { space, bounds, snapshot, steps } => {
            let fewer = (0..steps.len()).map(|at| without(&steps, at));
            let walk = |bounds, snapshot, steps| Op::Walk { space, bounds, snapshot, steps };
            let mut simpler: Vec<_> = fewer.map(|steps| walk(bounds.clone(), snapshot, steps)).collect();
            let wider = simpler_bounds(&bounds).into_iter();
            simpler.extend(wider.map(|bounds| walk(bounds, snapshot, steps.clone())));
            if snapshot.is_some() {
                simpler.push(walk(bounds, None, steps));
            }
            simpler
        }
        Op::Get { space, key, snapshot: Some(_) } => vec![Op::Get { space, key, snapshot: None }],
        Op::Compact { part, breaks } => {
            let mut simpler = Vec::new();
            if breaks.is_some() {
                simpler.push(Op::Compact { part: part.clone(), breaks: None });
            }
            if part.is_some() {
                simpler.push(Op::Compact { part: None, breaks });
            }
            simpler
        }
        Op::Reopen { seed, end } if seed != 0 => vec![Op::Reopen { seed: 0, end }],
        _ => Vec::new(),
    }
}
