//! An edit: one step of the tree, all or nothing. Plain data; what it may say is checked where it is applied.
//!
//! ```text
//!   removed 4, 5    added_runs { level 1, run 9: 4 }, { level 6, run 2: 7, 8 }
//!
//!   4 moves to run 9 of level 1; 5 is gone; 7 and 8 are new, and join run 2 of the last level
//! ```
//!
//! Threading: plain data.

use std::collections::HashSet;

use pebble_format::log::LogPosition;
use pebble_format::{KeyspaceId, Seqno};

use crate::table::TableMeta;

/// What changes, in one atomic step. The default edit changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Tables that join the tree, after `removed` has left it, by the run that they join.
    pub added_runs: Vec<NewRun>,
    /// Tables of values that join the tree. The tables of runs refer to them; see [`Version::values`](crate::Version).
    pub added_values: Vec<TableMeta>,
    /// Numbers of the tables, of runs or of values, that leave their place. One that `added_runs` names too is a move:
    /// it is the same table in all but its level and its run. A run whose last table leaves is gone, and its number
    /// free to be given again.
    pub removed: Vec<u64>,
    /// The first log segment that still matters. Never falls.
    pub log_first: Option<u32>,
    /// The position before which all of the log is there, and in whose segment it goes on: behind the seal of a clean
    /// close, or the start of a segment whose name was durable first. Never falls.
    pub log_floor: Option<LogPosition>,
    /// Every record up to this sequence number lies in a table of the tree, or was not worth keeping. Never falls.
    pub flushed_seqno: Option<Seqno>,
    /// File numbers from here on were never given out. Never falls.
    pub next_file: Option<u64>,
    /// Keyspaces that exist from now on: numbers and names that are not in use; a name has 1 to 255 bytes.
    pub keyspaces: Vec<(KeyspaceId, Box<str>)>,
    /// Keyspaces that exist no more. Their numbers must not come back while a record of them may be left.
    pub dropped_keyspaces: Vec<KeyspaceId>,
}

impl Edit {
    /// Numbers of the tables that are part of the tree no more: those removed and not moved.
    pub fn gone(&self) -> Vec<u64> {
        let added = self.added_runs.iter().flat_map(|run| &run.tables);
        let added: HashSet<u64> = added.map(|table| table.number).collect();
        self.removed.iter().copied().filter(|number| !added.contains(number)).collect()
    }
}

/// Tables that join a run. The run is made if the tree does not have it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// The level, below [`LEVEL_COUNT`](pebble_format::manifest::LEVEL_COUNT). A run that the tree has lies on this
    /// level.
    pub level: u8,
    /// The run's number, unique in the tree; within a level, a larger one is newer.
    pub run: u64,
    /// At least one table; ascending, no user key in two of them, nor in one of them and in a table that the run has
    /// and keeps. A table's [reach](TableMeta::reach) counts.
    pub tables: Vec<TableMeta>,
}
