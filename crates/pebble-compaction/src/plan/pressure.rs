//! How much merging a tree waits for: what writers are paced by.
//!
//! Threading: pure.

use pebble_manifest::Version;

use super::Busy;
use super::component::{Component, Sweep};
use super::policy::Policy;
use pebble_format::manifest::LAST_LEVEL;

/// How far a tree is behind its policy. Another run in level 0 never lowers any of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Bytes that merges would have to read and write until rules 2 and 3 let go: 0 where nothing is due. An estimate
    /// from sums, so that it moves evenly while runs come and merges end.
    pub debt_bytes: u64,
    /// Ranges of one level that have more runs than its fan-out allows.
    pub deep: usize,
    /// Runs that hold one key, at the key where they are most: what a point lookup may have to probe.
    pub runs_max: usize,
}

/// See [`Pressure`].
///
/// The debt has two parts. Level by level, the bytes of each component that is too deep are read and written once.
/// And of the bytes above the last level, those beyond half of `last_percent` of it are merged into it, each with its
/// share of the last level: that is where rule 2 begins to. That part is not taken component by component: a run that
/// joins two components could then lower it.
///
/// Components with a table of `out_of_reach` are left out: no merge will take them, and writers would be slowed more
/// and more for what slowing them does not bring. Large ones count as ever, since parts of them are merged by
/// themselves.
///
/// Cost: as [`plan`](super::plan()).
pub fn pressure(version: &Version, out_of_reach: &Busy, policy: &Policy) -> Pressure {
    let sweep = Sweep::new(version, out_of_reach);
    let in_reach = |component: &&Component| !component.busy || component.is_large(policy);
    let whole = sweep.components(0..=LAST_LEVEL);
    let runs_max = whole.iter().map(|component| component.depth).max().unwrap_or_default();

    let mut pressure = Pressure { runs_max, ..Pressure::default() };
    for level in 0..LAST_LEVEL {
        let fan_out = policy.fan_out(level);
        let components = sweep.components(level..=level);
        for component in components.iter().filter(in_reach).filter(|component| component.depth >= fan_out) {
            pressure.deep += 1;
            pressure.debt_bytes = pressure.debt_bytes.saturating_add(component.upper.bytes.saturating_mul(2));
        }
    }
    let sum =
        |share: fn(&Component) -> u64| whole.iter().filter(in_reach).map(share).fold(0, u64::saturating_add);
    let (upper, last) = (sum(|component| component.upper.bytes), sum(|component| component.last.bytes));
    let percent = u128::from(policy.last_percent.max(1));
    let allowed = u64::try_from(u128::from(last) * percent / 200).unwrap_or(u64::MAX);
    let over = u128::from(upper.saturating_sub(allowed));
    let merged = u64::try_from(over * 2 * (percent + 100) / percent).unwrap_or(u64::MAX);
    if last > 0 {
        pressure.debt_bytes = pressure.debt_bytes.saturating_add(merged);
    }
    pressure
}
