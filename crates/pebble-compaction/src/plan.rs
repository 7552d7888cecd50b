//! What to merge next: a pure function of the version. No I/O, no clock, nothing remembered.
//!
//! Runs of similar size pile up at the new end of level 0 and are merged together once there are too many, so that a
//! record is rewritten about once each time the tree grows by the number of runs allowed (size-tiered merging; Lakshman
//! and Malik, "Cassandra", 2010).
//!
//! ```text
//!   newest ──────────────► oldest            more than `runs_max`: 5 of at most 4
//!   [8] [8] [9] [7] [40]
//!   └─── merged ───┘                         40 is larger than the four together: it stays
//! ```
//!
//! Only neighbours in time are merged, so the order of the runs stays the order of their records.
//!
//! Threading: pure.

use pebble_manifest::Version;

/// When merging pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Runs that may stand before a merge is planned.
    pub runs_max: usize,
    /// A run joins those before it while its size is at most this many percent of theirs together.
    pub joins_percent: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { runs_max: 8, joins_percent: 100 }
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
    let runs: Vec<(u64, u64)> = version.runs().map(|run| (run.id(), run.len_bytes())).collect();
    if runs.len() <= policy.runs_max.max(1) {
        return None;
    }
    let joined = newest_of_similar_size(&runs, policy.joins_percent);
    let range = if joined >= 2 { 0..joined } else { lightest_pair(&runs) };
    let bottom = range.end == runs.len();
    Some(Plan { runs: runs.get(range)?.iter().map(|(id, _)| *id).collect(), bottom })
}

/// How many runs from the newest on join into one group.
fn newest_of_similar_size(runs: &[(u64, u64)], joins_percent: u64) -> usize {
    let mut total = 0_u64;
    let joined = runs.iter().take_while(|(_, bytes)| {
        let joins = total == 0 || bytes.saturating_mul(100) <= total.saturating_mul(joins_percent);
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
