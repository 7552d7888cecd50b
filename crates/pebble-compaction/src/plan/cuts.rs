//! Where runs are cut, so that merges stay small, and where a merge is split, so that several cores can share it.
//!
//! ```text
//!   borders of the last level   0   1   2   3   4   5   6   7      the first keys of its tables
//!   zeros below their hash      0   2   0   1   0   0   3   1
//!   a large merge               0───1───2───3───4───5───6───7──
//!   a flush                         1───────3───────────6───7──    at least 1
//!   a small flush                   1───────────────────6──────    at least 2
//! ```
//!
//! A border is chosen by a hash of its own key, as a skip list chooses its towers and PebblesDB its guards (Raju et
//! al., SOSP 2017). So the cuts of a small run are among those of a large one, and those that stay do not move when
//! other borders come and go: runs that were cut at different times still part at the same keys.
//!
//! Threading: pure.

use std::cmp::Ordering;
use std::ops::Range;

use pebble_format::hash::key_hash;
use pebble_format::{InternalKey, KeyspaceId, OwnedKey, Seqno};
use pebble_manifest::Version;

use super::component::Sweep;
use super::{Busy, Plan, Reason};
use pebble_format::manifest::LAST_LEVEL;

/// The keys at which a run of `bytes` bytes, spread over the whole tree, begins new tables: borders of the last
/// level, so many that a table has `table_len_min` bytes or more in expectation. Ascending, without the first border;
/// versions are ignored: each is the place before all versions of its user key.
///
/// Cost: O(n) in the number of tables of the last level, one hash each.
pub fn cuts(version: &Version, bytes: u64, table_len_min: u64) -> Vec<OwnedKey> {
    let tables = version.level(LAST_LEVEL).flat_map(|run| run.tables());
    chosen(tables.skip(1).map(|table| table.starts()), bytes, table_len_min)
}

/// [`cuts`] for the output of a merge: its bytes are spread over its own range. None for a merge of tiny tables, whose
/// borders are what it is to remove.
pub fn cuts_for(version: &Version, plan: &Plan, table_len_min: u64) -> Vec<OwnedKey> {
    if matches!(plan, Plan::Merge { reason: Reason::Crumbs, .. }) {
        return Vec::new();
    }
    let Some(taken) = Taken::new(version, plan) else { return Vec::new() };
    let bytes = taken.bytes();
    let places = taken.sweep.places().iter().take(taken.hull.end).skip(taken.hull.start + 1);
    let borders: Vec<_> =
        places.filter(|place| place.level == LAST_LEVEL).map(|place| place.table.starts()).collect();
    chosen(borders.into_iter(), bytes, table_len_min)
}

fn chosen<'a>(
    borders: impl Iterator<Item = (KeyspaceId, &'a [u8])> + Clone,
    bytes: u64,
    table_len_min: u64,
) -> Vec<OwnedKey> {
    if bytes / 2 < table_len_min {
        return Vec::new();
    }
    let pieces = borders.clone().count() as u128 + 1;
    // With each step, half of the borders are left.
    let zeros = (0..u64::BITS)
        .find(|zeros| u128::from(bytes) << zeros >= pieces * u128::from(table_len_min))
        .unwrap_or(u64::BITS);
    let chosen = borders.filter(|(keyspace, key)| key_hash(*keyspace, key).trailing_zeros() >= zeros);
    chosen.map(|(keyspace, key)| before_all_versions(keyspace, key)).collect()
}

/// User keys that part a merge into at most `parts` pieces of about equal bytes: ascending, each the first key of an
/// input and none of them the merge's first, so that no piece is empty. Each is the place before all versions of its
/// user key.
///
/// Cost: as [`plan`](super::plan()).
pub fn splits(plan: &Plan, version: &Version, parts: usize) -> Vec<OwnedKey> {
    let Some(taken) = Taken::new(version, plan) else { return Vec::new() };
    let places = taken.sweep.places();
    // The members' distinct first keys, and for each member how many of them begin within it.
    let mut borders: Vec<usize> = Vec::new();
    for at in &taken.members {
        let key = |at: &usize| places.get(*at).map(|place| place.table.starts());
        if borders.last().and_then(key) != key(at) {
            borders.push(*at);
        }
    }
    let mut changes = vec![0_f64; borders.len() + 1];
    for at in &taken.members {
        let Some(place) = places.get(*at) else { continue };
        let first = borders.partition_point(|border| border <= at).saturating_sub(1);
        let until = borders.partition_point(|border| *border < place.until);
        let share = place.table.len.max(1) as f64 / until.saturating_sub(first).max(1) as f64;
        for (at, change) in [(first, share), (until, -share)] {
            if let Some(sum) = changes.get_mut(at) {
                *sum += change;
            }
        }
    }
    let weights = changes.iter().take(borders.len()).scan(0.0, |weight, change| {
        *weight += change;
        Some(*weight)
    });
    let weights: Vec<f64> = weights.collect();
    let part = weights.iter().sum::<f64>() / parts.max(1) as f64;
    let (mut splits, mut sum) = (Vec::new(), 0.0);
    for (border, weight) in borders.iter().zip(weights) {
        // The border that lies nearest to a whole number of parts.
        let next = (splits.len() + 1) as f64 * part;
        if sum > 0.0 && splits.len() + 1 < parts && sum + weight / 2.0 >= next {
            splits.extend(places.get(*border).map(|place| place.table.starts()));
        }
        sum += weight;
    }
    splits.into_iter().map(|(keyspace, key)| before_all_versions(keyspace, key)).collect()
}

fn before_all_versions(keyspace: KeyspaceId, user_key: &[u8]) -> OwnedKey {
    OwnedKey::new(InternalKey::lookup(keyspace, user_key, Seqno::MAX))
}

/// The tables of a plan within a version.
struct Taken<'a> {
    sweep: Sweep<'a>,
    members: Vec<usize>,
    hull: Range<usize>,
}

impl<'a> Taken<'a> {
    /// None when the version has none of them.
    fn new(version: &'a Version, plan: &Plan) -> Option<Self> {
        let mut busy = Busy::default();
        busy.insert(plan);
        let sweep = Sweep::new(version, &busy);
        let members = sweep.places().iter().enumerate().filter(|(_, place)| place.busy).map(|(at, _)| at);
        let members: Vec<usize> = members.collect();
        let hull = sweep.hull(&members);
        (hull.len().cmp(&0) == Ordering::Greater).then_some(Self { sweep, members, hull })
    }

    fn bytes(&self) -> u64 {
        let tables = self.members.iter().filter_map(|at| self.sweep.place(*at));
        tables.map(|place| place.table.len).fold(0, u64::saturating_add)
    }
}
