//! What to merge next: a pure function of the version. No I/O, no clock, nothing remembered.
//!
//! Runs of similar size pile up in level 0. Once there are too many, the newest group of neighbours of similar size
//! becomes one run, so that a record is rewritten about as often as the tree has sizes of runs (size-tiered merging;
//! Lakshman and Malik, "Cassandra", 2010).
//!
//! ```text
//!   newest ──────────────► oldest            more than `runs_max`: 6 of at most 5
//!   [1] [8] [8] [9] [7] [40]
//!       └─── merged ───┘                     1 has no neighbour of its size yet; 40 is larger than the four together
//! ```
//!
//! The group may begin behind the newest run. Were it bound to begin there, a newest run a little smaller than the
//! next would leave only the merge of two, each time, and every record would be rewritten with nearly every flush.
//!
//! Only neighbours in time are merged, so the order of the runs stays the order of their records.
//!
//! Threading: pure.

use pebble_manifest::Version;

/// When merging pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Runs of level 0 that may stand before a merge is planned.
    pub runs_max: usize,
    /// A run joins a group while its size is at most this many percent of the group's newer runs together. Above 100,
    /// so that runs of about one size join whatever their order.
    pub joins_percent: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { runs_max: 8, joins_percent: 150 }
    }
}

/// A merge to be carried out: these runs become one, at the place of the newest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The runs' numbers, newest first; neighbours in [`Version::runs`], at least two.
    pub runs: Vec<u64>,
    /// Whether the oldest run is among them, so that tombstones have nothing left to hide.
    pub bottom: bool,
}

/// The next merge, if one is due.
pub fn plan(version: &Version, policy: &Policy) -> Option<Plan> {
    let runs: Vec<(u64, u64)> = version.level(0).map(|run| (run.id(), run.len_bytes())).collect();
    if runs.len() <= policy.runs_max.max(1) {
        return None;
    }
    let groups = (0..runs.len()).map(|start| {
        let from_here = runs.get(start..).unwrap_or_default();
        start..start + joined(from_here, policy.joins_percent)
    });
    let range = groups.into_iter().find(|group| group.len() >= 2).unwrap_or_else(|| lightest_pair(&runs));
    let bottom = range.end == version.runs().len();
    Some(Plan { runs: runs.get(range)?.iter().map(|(id, _)| *id).collect(), bottom })
}

/// How many runs from the first of these on join into one group.
fn joined(runs: &[(u64, u64)], joins_percent: u64) -> usize {
    let mut total = 0_u64;
    let joined = runs.iter().enumerate().take_while(|(index, (_, bytes))| {
        let joins = *index == 0 || bytes.saturating_mul(100) <= total.saturating_mul(joins_percent);
        total = total.saturating_add(*bytes);
        joins
    });
    joined.count()
}

/// Where nothing joins, the two neighbours that cost least.
fn lightest_pair(runs: &[(u64, u64)]) -> std::ops::Range<usize> {
    let pairs = runs.windows(2).enumerate();
    let weight = |pair: &[(u64, u64)]| pair.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
    let lightest = pairs.min_by_key(|(_, pair)| weight(pair)).map_or(0, |(at, _)| at);
    lightest..lightest + 2
}
