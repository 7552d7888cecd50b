//! The knobs of the plan: one scheme from leveled over lazy leveling to tiered.
//!
//! ```text
//!             fan_out           joins_percent   last_percent
//!   lazy      [20, 6, 6, …]     0               60              tiers above, one run below       (Dostoevsky, 2018)
//!   leveled   [4, 2, 2, …]      1000            10              one run a level, ten times the one above
//!   tiered    [8, 8, 8, …]      0               never           the last level is touched when level 5 is full
//! ```
//!
//! Threading: plain data.

use pebble_format::manifest::LAST_LEVEL;

/// The levels above the last one.
pub const UPPER_LEVELS: usize = LAST_LEVEL as usize;

/// When merging pays. `docs/design/compaction.md` has the formulas, and what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// By level: how many of its runs may hold one key before they are merged and go one level down. 1 means that a
    /// run goes down as soon as it is there, so that the level is not used; 0 counts as 1.
    pub fan_out: [u16; UPPER_LEVELS],
    /// What goes one level down takes the run it finds there along, while that run's bytes in the range are at most
    /// this many percent of the arriving ones. 0: never, the level is tiered. With 1000 and a fan-out of 2 it is
    /// leveled with a factor of ten.
    pub joins_percent: u32,
    /// A range goes down into the last level once its bytes above are this many percent of its bytes there; a tombstone
    /// counts as what it may hide. That step writes `100 / last_percent` bytes for each byte that overwrites another,
    /// one more for each that is new, and the tree holds up to `1 + last_percent / 100` times the last level.
    /// [`Policy::NEVER`]: only when level 5 has reached its fan-out.
    pub last_percent: u32,
    /// Tombstones are dense when they are this many percent of all records of a range: what a reader of it skips.
    pub tombstone_percent: u32,
    /// Fewer tombstones than this above the last level are not worth a merge of their own.
    pub tombstones_min: u64,
    /// A merge for the sake of tombstones rewrites at most this many bytes of the last level for each byte above, or
    /// that they may hide.
    pub care_factor: u32,
    /// A merge of an idle tree rewrites at most this many bytes of the last level for each byte above.
    pub idle_factor: u32,
    /// A merge of more bytes than this leaves the newest levels out, where that makes it smaller.
    pub merge_bytes_max: u64,
    /// So many neighbours in the last level, each of at most `crumb_bytes` and of one size, are merged into one.
    pub crumbs: u16,
    /// Tables of the last level larger than this are never crumbs. At most half of the length at which a merge ends a
    /// table, or merging them could leave as many.
    pub crumb_bytes: u64,
}

impl Policy {
    /// A `last_percent` that is never reached.
    pub const NEVER: u32 = u32::MAX;

    /// Lazy leveling, the default: tiers above, one run below. Most bytes lie in the last level, so merging above it
    /// buys readers little and costs writers much (Dayan and Idreos, "Dostoevsky", SIGMOD 2018).
    pub const fn lazy() -> Self {
        Self {
            fan_out: [20, 6, 6, 6, 6, 6],
            joins_percent: 0,
            last_percent: 60,
            tombstone_percent: 30,
            tombstones_min: 512,
            care_factor: 8,
            idle_factor: 32,
            merge_bytes_max: 4 << 30,
            crumbs: 16,
            crumb_bytes: 8 << 20,
        }
    }

    /// One run a level, each about ten times the one above: reads and space at their best, writes at their worst.
    pub const fn leveled() -> Self {
        Self { fan_out: [4, 2, 2, 2, 2, 2], joins_percent: 1000, last_percent: 10, ..Self::lazy() }
    }

    /// `runs` runs a level, and a last level that is rewritten only when all levels above are full: writes at their
    /// best, reads and space at their worst.
    pub const fn tiered(runs: u16) -> Self {
        Self { fan_out: [runs; UPPER_LEVELS], last_percent: Self::NEVER, ..Self::lazy() }
    }

    /// The fan-out of a level above the last one.
    pub(crate) fn fan_out(&self, level: u8) -> usize {
        usize::from(self.fan_out.get(usize::from(level)).copied().unwrap_or(u16::MAX)).max(1)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::lazy()
    }
}
