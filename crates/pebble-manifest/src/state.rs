//! The state that a manifest describes: the version and the few facts beside it.
//!
//! Threading: plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pebble_format::log::LogPosition;
use pebble_format::manifest::KEYSPACE_NAME_LEN_MAX;
use pebble_format::{KeyspaceId, Result, Seqno};

use crate::broken::{Broken, ensure};
use crate::edit::{Edit, NewRun};
use crate::tables::TableSet;
use crate::version::Version;

/// Everything that a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestState {
    /// The database.
    pub uuid: [u8; 16],
    /// The tree.
    pub version: Arc<Version>,
    /// The keyspaces that were made, by number. The default keyspace exists without being made.
    pub keyspaces: BTreeMap<KeyspaceId, Box<str>>,
    /// The first log segment that still matters.
    pub log_first: u32,
    /// The position before which all of the log is there, and the segment it lies in too.
    pub log_floor: LogPosition,
    /// Every record up to this sequence number lies in a table, or was not worth keeping.
    pub flushed_seqno: Seqno,
    /// File numbers from here on were never given out.
    pub next_file: u64,
}

impl ManifestState {
    /// The state of a new database: an empty tree, log segments from 1 on, file numbers from 1 on.
    pub fn new(uuid: [u8; 16]) -> Self {
        Self {
            uuid,
            version: Arc::default(),
            keyspaces: BTreeMap::new(),
            log_first: 1,
            log_floor: LogPosition::ZERO,
            flushed_seqno: Seqno::ZERO,
            next_file: 1,
        }
    }

    /// The state after `edit`. This one stays as it is.
    ///
    /// Errors: `InvalidArgument`: as [`Version::apply`]; and when a number falls that may only rise, a keyspace's
    /// number or name is in use, its name is too short or too long, a dropped one is not there, a table's number is
    /// not below `next_file`, or its records are newer than `flushed_seqno`.
    ///
    /// Cost: as [`Version::apply`] if the edit touches the tree, else a copy of the keyspaces' names.
    pub fn apply(&self, edit: &Edit) -> Result<Self> {
        let leaves_tree =
            edit.added_runs.is_empty() && edit.added_values.is_empty() && edit.removed.is_empty();
        let version =
            if leaves_tree { Arc::clone(&self.version) } else { Arc::new(self.version.apply(edit)?) };
        let mut facts = Facts::of(self);
        facts.apply(edit)?;
        Ok(facts.state(version)?)
    }

    /// The edit that leads from [`ManifestState::new`] to this state.
    pub(crate) fn whole(&self) -> Edit {
        let added_runs = self.version.runs().map(|run| NewRun {
            level: run.level(),
            run: run.id(),
            tables: run.tables().iter().map(|table| (**table).clone()).collect(),
        });
        Edit {
            added_runs: added_runs.collect(),
            added_values: self.version.values().map(|table| (**table).clone()).collect(),
            removed: Vec::new(),
            log_first: Some(self.log_first),
            log_floor: Some(self.log_floor),
            flushed_seqno: Some(self.flushed_seqno),
            next_file: Some(self.next_file),
            keyspaces: self.keyspaces.iter().map(|(id, name)| (*id, name.clone())).collect(),
            dropped_keyspaces: Vec::new(),
        }
    }
}

/// The replay of a manifest: edits in, one state out. An edit costs what it says.
#[derive(Debug)]
pub(crate) struct Replay {
    tables: TableSet,
    facts: Facts,
}

impl Replay {
    pub(crate) fn new(uuid: [u8; 16]) -> Self {
        Self { tables: TableSet::default(), facts: Facts::of(&ManifestState::new(uuid)) }
    }

    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), Broken> {
        self.tables.apply(edit)?;
        self.facts.apply(edit)
    }

    pub(crate) fn finish(self) -> Result<ManifestState, Broken> {
        self.facts.state(Arc::new(self.tables.build()?))
    }
}

/// All of a state but the version.
#[derive(Debug)]
struct Facts {
    state: ManifestState,
    names: BTreeSet<Box<str>>,
}

impl Facts {
    fn of(state: &ManifestState) -> Self {
        Self { state: state.clone(), names: state.keyspaces.values().cloned().collect() }
    }

    fn apply(&mut self, edit: &Edit) -> Result<(), Broken> {
        let state = &mut self.state;
        raise(&mut state.next_file, edit.next_file, "next file number falls", |n| n)?;
        raise(&mut state.log_first, edit.log_first, "first log segment falls", u64::from)?;
        raise(&mut state.log_floor, edit.log_floor, "floor of the log falls", |position| position.0)?;
        raise(&mut state.flushed_seqno, edit.flushed_seqno, "flushed sequence number falls", |seqno| {
            seqno.0
        })?;
        ensure(
            state.flushed_seqno <= Seqno::MAX,
            "flushed sequence number",
            Seqno::MAX.0,
            state.flushed_seqno.0,
        )?;
        for id in &edit.dropped_keyspaces {
            let dropped = state.keyspaces.remove(id);
            let name = dropped.ok_or(Broken::new("dropped keyspace does not exist", 0, u64::from(id.0)))?;
            self.names.remove(&name);
        }
        for (id, name) in &edit.keyspaces {
            let number = u64::from(id.0);
            let (max, len) = (KEYSPACE_NAME_LEN_MAX, name.len());
            ensure((1..=max).contains(&len), "length of a keyspace's name", max as u64, len as u64)?;
            ensure(*id != KeyspaceId::DEFAULT, "default keyspace made again", 0, number)?;
            ensure(self.names.insert(name.clone()), "keyspace name used twice", number, number)?;
            let known = state.keyspaces.insert(*id, name.clone());
            ensure(known.is_none(), "keyspace number used twice", number, number)?;
        }
        Ok(())
    }

    fn state(self, version: Arc<Version>) -> Result<ManifestState, Broken> {
        let state = self.state;
        for table in version.tables().chain(version.values()) {
            let (next, number) = (state.next_file, table.number);
            ensure(number < next, "table number was never given out", next, number)?;
            let (flushed, newest) = (state.flushed_seqno, table.seqno_max);
            ensure(newest <= flushed, "table newer than what was flushed", flushed.0, newest.0)?;
        }
        Ok(ManifestState { version, ..state })
    }
}

/// Sets a number that may only rise.
fn raise<T: Copy + Ord>(
    to: &mut T,
    new: Option<T>,
    what: &'static str,
    number: fn(T) -> u64,
) -> Result<(), Broken> {
    if let Some(new) = new {
        ensure(new >= *to, what, number(*to), number(new))?;
        *to = new;
    }
    Ok(())
}
