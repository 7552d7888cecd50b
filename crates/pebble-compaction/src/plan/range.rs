//! Merging a range of keys on demand, step by step, until it lies in the last level.
//!
//! Threading: pure.

use pebble_format::Seqno;
use pebble_manifest::Version;

use super::component::{Component, Sweep};
use super::policy::Policy;
use super::rules::Rules;
use super::{Busy, Hints, KeyRange, Plan, Reason};
use pebble_format::manifest::LAST_LEVEL;

/// The next step towards a range that lies in the last level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangePlan {
    /// To be carried out, and then to be asked again.
    Next {
        /// What to do.
        plan: Plan,
        /// Bytes of all tables that are still to be merged, those of this plan included.
        left_bytes: u64,
    },
    /// What is left is in the hands of plans under way: to be asked again when one of them is done.
    Wait,
    /// The range is one run in the last level, and has no tombstone that could go, nor values that are wasteful.
    Done,
}

/// The next step that brings `range` (`None`: the whole tree) to one run in the last level, without tombstones that
/// no reader needs or what [`Hints::wasteful`] names. What was written after `upto` is left alone, so that it ends
/// while others write.
///
/// Cost: as [`plan`](super::plan()).
pub fn plan_range(
    version: &Version,
    busy: &Busy,
    hints: &Hints<'_>,
    range: Option<&KeyRange>,
    upto: Seqno,
) -> RangePlan {
    let sweep = Sweep::new(version, busy);
    let policy = Policy::default();
    let rules = Rules::new(&sweep, &policy, hints);
    let whole = rules.whole();
    let overlapping = range.map_or(0..whole.len(), |range| sweep.overlapping(whole, range));
    let is_due = |component: &&Component| {
        let mut tables = sweep.members(component).filter_map(|at| sweep.place(at));
        if component.upper.tables > 0 {
            return tables.any(|place| place.level < LAST_LEVEL && place.table.seqno_min <= upto);
        }
        rules.is_worth_asking(component) && tables.all(|place| place.table.seqno_max <= upto)
    };
    let due: Vec<&Component> = whole.get(overlapping).unwrap_or_default().iter().filter(is_due).collect();
    let left_bytes = due.iter().map(|component| component.bytes()).fold(0, u64::saturating_add);
    let Some(next) = due.iter().find(|component| !component.busy) else {
        return if due.is_empty() { RangePlan::Done } else { RangePlan::Wait };
    };
    let is_plain = next.has_one_run() && next.upper.tables > 0 && next.upper.tombstones == 0;
    let plan = if is_plain {
        let tables = sweep.members(next).filter_map(|at| sweep.place(at)).map(|place| place.table.number);
        Plan::Move { tables: tables.collect(), to: LAST_LEVEL }
    } else {
        rules.merge_down(next, Reason::Asked)
    };
    RangePlan::Next { plan, left_bytes }
}
