//! An edit: one step of the tree, all or nothing. Plain data; what it may say is checked where it is applied.

use pebble_format::log::LogPosition;
use pebble_format::{KeyspaceId, Seqno};

use crate::version::TableMeta;

/// What changes, in one atomic step. The default edit changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Runs that join the tree, after `removed` has left it.
    pub added_runs: Vec<NewRun>,
    /// Numbers of the tables that leave the tree. A run whose last table leaves is gone.
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

/// A run that joins the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// The level, below [`LEVEL_COUNT`](pebble_format::manifest::LEVEL_COUNT).
    pub level: u8,
    /// The run's number, unique in the tree; within a level, a larger one is newer.
    pub run: u64,
    /// At least one table; ascending, no user key in two of them.
    pub tables: Vec<TableMeta>,
}
