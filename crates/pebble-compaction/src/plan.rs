//! What to merge next: a pure function of the version. No I/O, no clock, nothing remembered.
//!
//! ```text
//!   L0 r9   [────][────]   [──]        flushes, cut where tables of the last level begin
//!   L0 r8   [────][────]
//!   L1 r5   [────]                     tiers: what was merged above, several runs
//!   L6 r1   [─][─][──][───][──][──]    one run, most of the bytes
//!           └ a ─┘└─ b ───┘└─c ┘       components: what overlaps, and so merges together or not at all
//! ```
//!
//! Of two runs with one key, the newer (in a lower level, or of a larger number) has the newer versions. Every plan
//! keeps that: what it moves down has nothing older above its new place.
//!
//! The rules, the first that finds something decides (`plan/rules.rs`); `docs/design/compaction.md` says why each is
//! there and what it costs.
//!
//! 1. Nothing older below it: it moves to the last level, and no byte is written.
//! 2. A range has grown above the last level: it merges down into it.
//! 3. Too many runs of one level: they merge into one of the next.
//! 4. Tombstones, or a user, ask for it.
//! 5. Nobody writes: towards one run.
//! 6. A table refers to tables of values that are mostly dead: it is written anew, with what is alive in them.
//! 7. Many tiny neighbours in the last level become one.
//!
//! Threading: pure.

mod component;
mod cuts;
mod policy;
mod pressure;
mod range;
mod rules;

use std::collections::HashSet;
use std::fmt;

use pebble_format::{KeyspaceId, Seqno};
use pebble_manifest::Version;

use component::Sweep;
use rules::Rules;

pub use cuts::{cuts, cuts_for, splits};
pub use policy::{Policy, UPPER_LEVELS};
pub use pressure::{Pressure, pressure};
pub use range::{RangePlan, plan_range};

/// The next thing to do, if one is due.
///
/// Several plans may be carried out at once, if each plan's tables are in `busy` from the moment it is made until its
/// outcome is in the version that the next call sees.
///
/// Cost: O(n log n) in the number of tables; some milliseconds for ten thousand.
pub fn plan(version: &Version, busy: &Busy, policy: &Policy, hints: &Hints<'_>) -> Option<Plan> {
    let sweep = Sweep::new(version, busy);
    Rules::new(&sweep, policy, hints).next()
}

/// What to do. The numbers are those of the version that was planned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The tables go to another level as they are. They do not overlap one another, nor anything there.
    Move {
        /// The tables' numbers, ascending by key; at least one.
        tables: Vec<u64>,
        /// The level. In the last one they join the run that is there; in any other they become its newest run.
        to: u8,
    },
    /// The inputs become one sorted run.
    Merge {
        /// What is merged, newest run first; at least one.
        inputs: Vec<Input>,
        /// The level of the outcome. In the last one it joins the run that is there, in any other it is its newest.
        to: u8,
        /// Whether tombstones have nothing left to hide: no older table overlaps the keys between the inputs' first
        /// and last.
        bottom: bool,
        /// Which rule asked for it.
        reason: Reason,
    },
}

/// Tables of one run that take part in a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The run's number.
    pub run: u64,
    /// Its level.
    pub level: u8,
    /// The tables' numbers, ascending by key; at least one.
    pub tables: Vec<u64>,
}

/// Why a merge is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The bytes above the last level have grown.
    Grown,
    /// Too many runs of one level hold one key.
    Deep,
    /// Tombstones are many, old or in readers' way.
    Tombstones,
    /// A user asked for it.
    Asked,
    /// There was nothing else to do.
    Idle,
    /// Tables of values are mostly dead.
    Values,
    /// Many tiny neighbours.
    Crumbs,
}

impl Plan {
    /// The numbers of all tables that it takes.
    pub fn tables(&self) -> impl Iterator<Item = u64> + '_ {
        let (moved, inputs) = match self {
            Self::Move { tables, .. } => (tables.as_slice(), [].as_slice()),
            Self::Merge { inputs, .. } => ([].as_slice(), inputs.as_slice()),
        };
        moved.iter().chain(inputs.iter().flat_map(|input| &input.tables)).copied()
    }

    /// The level that it leads to.
    pub fn to(&self) -> u8 {
        match self {
            Self::Move { to, .. } | Self::Merge { to, .. } => *to,
        }
    }
}

/// One line, each table by its number: `merge into L6, bottom, grown: L0 r9 #12 #13, L6 r1 #3`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Move { tables, to } => {
                write!(f, "move to L{to}:")?;
                tables.iter().try_for_each(|table| write!(f, " #{table}"))
            }
            Self::Merge { inputs, to, bottom, reason } => {
                write!(f, "merge into L{to}, {}{reason}:", if *bottom { "bottom, " } else { "" })?;
                for (at, input) in inputs.iter().enumerate() {
                    write!(f, "{} {input}", if at == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{} r{}", self.level, self.run)?;
        self.tables.iter().try_for_each(|table| write!(f, " #{table}"))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grown => "grown",
            Self::Deep => "deep",
            Self::Tombstones => "tombstones",
            Self::Asked => "asked",
            Self::Idle => "idle",
            Self::Values => "values",
            Self::Crumbs => "crumbs",
        })
    }
}

/// The tables that plans under way have taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    tables: HashSet<u64>,
}

impl Busy {
    /// Takes the plan's tables.
    pub fn insert(&mut self, plan: &Plan) {
        self.tables.extend(plan.tables());
    }

    /// Gives them back: the plan is installed, or given up.
    pub fn remove(&mut self, plan: &Plan) {
        for table in plan.tables() {
            self.tables.remove(&table);
        }
    }

    /// Takes all tables of another one too.
    pub fn join(&mut self, other: &Self) {
        self.tables.extend(&other.tables);
    }

    /// Whether a plan under way has this table.
    pub fn contains(&self, table: u64) -> bool {
        self.tables.contains(&table)
    }

    /// Whether no plan is under way.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

impl FromIterator<u64> for Busy {
    /// The tables with these numbers.
    fn from_iter<I: IntoIterator<Item = u64>>(tables: I) -> Self {
        Self { tables: tables.into_iter().collect() }
    }
}

/// What the tree itself cannot say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints<'a> {
    /// No writes come.
    pub idle: bool,
    /// The newest sequence number that was given out.
    pub newest: Seqno,
    /// No reader looks below this number: the oldest live snapshot's, or `newest`. A tombstone above it may have to
    /// stay, so that merging for its sake alone could go on for ever.
    pub oldest_reader: Seqno,
    /// Ranges that somebody would like to have merged.
    pub wanted: &'a [Wanted],
    /// Numbers of tables, ascending, that refer to tables of values of which most is dead: a merge of them takes what
    /// is alive along, and their space comes back.
    pub wasteful: &'a [u64],
    /// Numbers of tables, ascending, that count as busy and never come free: what they hold cannot be read.
    pub set_aside: &'a [u64],
}

impl Default for Hints<'_> {
    /// Writes come, there are no snapshots, nothing is wanted, wasteful or set aside.
    fn default() -> Self {
        Self {
            idle: false,
            newest: Seqno::ZERO,
            oldest_reader: Seqno::MAX,
            wanted: &[],
            wasteful: &[],
            set_aside: &[],
        }
    }
}

/// A range that somebody would like to have merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The range.
    pub range: KeyRange,
    /// A user asked for it: it is merged whatever it costs. Otherwise readers skipped many tombstones in it, and the
    /// cost is bounded by [`Policy::care_factor`].
    pub by_user: bool,
}

/// The keys of one keyspace from `start` on, up to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The first key.
    pub start: Box<[u8]>,
    /// The first key behind the range; empty: it reaches to the keyspace's end.
    pub end: Box<[u8]>,
}
