//! The tables of a version while edits are applied to it: any order in, a [`Version`] out.
//!
//! One path for an edit in memory and for the replay of a million of them: an edit costs what it says, and not what
//! the tree holds; the rules that span the tree are checked once, at the end.
//!
//! Threading: plain data.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pebble_format::manifest::{LAST_LEVEL, LEVEL_COUNT};

use crate::broken::{Broken, ensure};
use crate::edit::{Edit, NewRun};
use crate::run::Run;
use crate::table::{TableMeta, check_tables};
use crate::version::Version;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct TableSet {
    by_number: HashMap<u64, Member>,
    values: BTreeMap<u64, Arc<TableMeta>>,
    runs: HashMap<u64, Place>,
}

/// Where a run lies.
#[derive(Debug)]
struct Place {
    level: u8,
    /// How many tables it still has.
    tables: usize,
}

#[derive(Debug)]
struct Member {
    level: u8,
    run: u64,
    meta: Arc<TableMeta>,
}

impl TableSet {
    /// The tables of `version`.
    pub(crate) fn of(version: &Version) -> Self {
        let mut set = Self::default();
        for run in version.runs() {
            set.runs.insert(run.id(), Place { level: run.level(), tables: run.tables().len() });
            for meta in run.tables() {
                let member = Member { level: run.level(), run: run.id(), meta: Arc::clone(meta) };
                set.by_number.insert(meta.number, member);
            }
        }
        set.values = version.values().map(|meta| (meta.number, Arc::clone(meta))).collect();
        set
    }

    /// Applies one edit. After an error the set is of no more use.
    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), Broken> {
        let mut left: HashMap<u64, Arc<TableMeta>> = HashMap::new();
        for number in &edit.removed {
            if self.values.remove(number).is_some() {
                continue;
            }
            let removed = self.by_number.remove(number);
            let member = removed.ok_or(Broken::new("removed table is not in the tree", *number, *number))?;
            if let Some(place) = self.runs.get_mut(&member.run) {
                place.tables -= 1;
                if place.tables == 0 {
                    self.runs.remove(&member.run);
                }
            }
            left.insert(*number, member.meta);
        }
        let removed: HashSet<u64> = edit.removed.iter().copied().collect();
        for table in &edit.added_values {
            let known = self.values.insert(table.number, Arc::new(table.clone()));
            let is_new = known.is_none() && !removed.contains(&table.number);
            ensure(is_new, "table number used twice", table.number, table.number)?;
        }
        edit.added_runs.iter().try_for_each(|run| self.add(run, &left))
    }

    /// Adds tables to a run. One that has just `left` its place moves, and its description goes on being shared.
    fn add(&mut self, new: &NewRun, left: &HashMap<u64, Arc<TableMeta>>) -> Result<(), Broken> {
        ensure(new.level < LEVEL_COUNT, "level of a run", u64::from(LAST_LEVEL), u64::from(new.level))?;
        ensure(!new.tables.is_empty(), "run without tables", 1, 0)?;
        check_tables(&new.tables)?;
        let place = self.runs.entry(new.run).or_insert(Place { level: new.level, tables: 0 });
        ensure(place.level == new.level, "run on two levels", u64::from(place.level), u64::from(new.level))?;
        place.tables += new.tables.len();
        for table in &new.tables {
            let number = table.number;
            let meta = match left.get(&number) {
                Some(meta) => {
                    ensure(**meta == *table, "moved table is not the same", number, number)?;
                    Arc::clone(meta)
                }
                None => Arc::new(table.clone()),
            };
            let known = self.by_number.insert(number, Member { level: new.level, run: new.run, meta });
            ensure(known.is_none(), "table number used twice", number, number)?;
        }
        Ok(())
    }

    /// The version that the edits lead to.
    pub(crate) fn build(self) -> Result<Version, Broken> {
        let mut runs: BTreeMap<(u8, Reverse<u64>), Vec<Arc<TableMeta>>> = BTreeMap::new();
        for member in self.by_number.into_values() {
            runs.entry((member.level, Reverse(member.run))).or_default().push(member.meta);
        }
        let runs = runs.into_iter().map(|((level, Reverse(id)), mut tables)| {
            tables.sort_by(|a, b| a.first.cmp(&b.first));
            Arc::new(Run::new(level, id, tables.into()))
        });
        let version = Version::new(runs.collect(), self.values.into_values().collect());
        version.check_rules()?;
        Ok(version)
    }
}
