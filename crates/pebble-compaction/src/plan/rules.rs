//! The rules of the plan, in the order in which they are asked.
//!
//! Why merges of several components may run at once: a merge reads all tables of its levels that hang together, so
//! their intervals leave no gap, and whatever is flushed into them meanwhile overlaps one of them and waits with
//! them. Outputs stay within the inputs' hull. So nothing older ever appears below a merge that was `bottom`, and
//! nothing that overlaps it joins the last level before it.
//!
//! A merge that takes tables of the next level along reaches beyond its own level's component: what goes to that level
//! beside it waits for it, and it takes nothing along that such a one is on its way to.
//!
//! Threading: pure.

use std::cmp::Ordering;

use super::component::{Component, Place, Sweep};
use super::policy::Policy;
use super::{Hints, Plan, Reason};
use pebble_format::manifest::LAST_LEVEL;
use pebble_manifest::TableMeta;

/// Crumbs are of one size when they are of one power of this.
const CRUMB_CLASS: u64 = 16;

/// See the [module](self).
pub(super) struct Rules<'a> {
    sweep: &'a Sweep<'a>,
    policy: &'a Policy,
    hints: &'a Hints<'a>,
    /// The components over all levels.
    whole: Vec<Component>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(sweep: &'a Sweep<'a>, policy: &'a Policy, hints: &'a Hints<'a>) -> Self {
        Self { sweep, policy, hints, whole: sweep.components(0..=LAST_LEVEL) }
    }

    /// The first rule's plan that has one.
    pub(super) fn next(&self) -> Option<Plan> {
        self.moved()
            .or_else(|| self.grown())
            .or_else(|| self.deep())
            .or_else(|| self.tombstones())
            .or_else(|| self.idle())
            .or_else(|| self.wasteful())
            .or_else(|| self.crumbs())
    }

    /// Rule 1. All tables that have nothing older below them, at once. Only ever to the last level: a move that ends
    /// above an older run would save no reader a probe, and would hide from rule 3 that the runs pile up.
    ///
    /// A table full of tombstones is not moved, because the last level would keep them: rule 2 rewrites it, and they
    /// are gone.
    fn moved(&self) -> Option<Plan> {
        let mut taken = vec![false; self.sweep.places().len()];
        let mut free: Vec<usize> = Vec::new();
        for at in self.sweep.oldest_first() {
            let Some(place) = self.sweep.place(at) else { continue };
            let Some(cells) = taken.get_mut(at..place.until) else { continue };
            let may_move = place.level < LAST_LEVEL && !place.busy && !self.is_dense(place.table);
            if may_move && !cells.contains(&true) {
                free.push(at);
            }
            cells.fill(true);
        }
        free.sort_unstable();
        let tables: Vec<u64> =
            free.iter().filter_map(|at| self.sweep.place(*at)).map(|place| place.table.number).collect();
        (!tables.is_empty()).then_some(Plan::Move { tables, to: LAST_LEVEL })
    }

    /// Rule 2. A component goes down once it has grown to `last_percent` of the last level by itself; and the best of
    /// all, once the tree has on the whole.
    fn grown(&self) -> Option<Plan> {
        let percent =
            if self.tree_has_grown() { self.policy.last_percent / 2 } else { self.policy.last_percent };
        let due = self.whole.iter().filter(|component| {
            let open = !component.busy || self.is_large(component);
            open && component.upper.free_bytes() > 0 && component.has_percent(percent)
                || !component.busy && component.last.tables == 0
        });
        let part = self.best_part(due.collect())?;
        let alone = part.last.tables == 0 && part.upper.tables == 1;
        Some(self.merge_down(&part, if alone { Reason::Tombstones } else { Reason::Grown }))
    }

    /// The component that pays best and is not in the hands of running merges, or its best part.
    fn best_part(&self, mut components: Vec<&Component>) -> Option<Component> {
        components.sort_by(|a, b| b.cmp_gain(a));
        components.into_iter().find_map(|component| self.refined(component))
    }

    /// Whether the tree on the whole holds as much above the last level as it does when its components, each merged
    /// at `last_percent`, are spread evenly over the way there: half of it, and a little more when they are few.
    ///
    /// Without this, components that are written to evenly would all fall due at once: a burst of merges, and the
    /// most space and runs everywhere at the same time.
    fn tree_has_grown(&self) -> bool {
        let (mut upper, mut last, mut squares) = (0_f64, 0_f64, 0_f64);
        for component in &self.whole {
            let bytes = component.last.bytes as f64;
            upper += if component.busy { component.upper.free_bytes() } else { component.weight() } as f64;
            last += bytes;
            squares += bytes * bytes;
        }
        // 1 + 1/n, for n components of one size.
        let few = 1.0 + squares / (last * last);
        self.policy.last_percent != Policy::NEVER
            && last > 0.0
            && upper * 200.0 >= f64::from(self.policy.last_percent) * last * few
    }

    fn is_large(&self, component: &Component) -> bool {
        component.is_large(self.policy)
    }

    /// The component itself; of a large one the best part of it that is left when its newest levels stay where they
    /// are, as long as that leaves at least half of what lies above the last level. Level 0 is cut coarsely, because
    /// a flush is small beside the tree, and so large tables of the last level hang together by it.
    fn refined(&self, component: &Component) -> Option<Component> {
        let mut best = (!component.busy).then(|| component.clone());
        for lowest in 1..LAST_LEVEL {
            if best.as_ref().is_some_and(|best| !self.is_large(best)) {
                break;
            }
            let parts = self.sweep.components_in(component.span.clone(), lowest..=LAST_LEVEL);
            let upper: u64 = parts.iter().map(|part| part.weight()).fold(0, u64::saturating_add);
            if upper < component.weight().div_ceil(2) {
                break;
            }
            let open = parts.into_iter().filter(|part| !part.busy && part.upper.tables > 0);
            best = open.max_by(Component::cmp_gain).or(best);
        }
        best
    }

    /// Rule 3. The deepest level, measured by its fan-out, becomes shallow: all its tables that hang together become
    /// one run of the next level. Depth is counted at the key where it is greatest and not over the component, where
    /// short runs that lie side by side would make a chain look deep.
    fn deep(&self) -> Option<Plan> {
        let mut due: Vec<Component> = Vec::new();
        for level in 0..LAST_LEVEL {
            let fan_out = self.policy.fan_out(level);
            let components = self.sweep.components(level..=level);
            due.extend(
                components.into_iter().filter(|component| !component.busy && component.depth >= fan_out),
            );
        }
        let fan_out = |component: &Component| self.policy.fan_out(*component.levels.start());
        due.sort_by(|a, b| {
            let by_depth = (b.depth * fan_out(a)).cmp(&(a.depth * fan_out(b)));
            by_depth.then_with(|| b.levels.start().cmp(a.levels.start())).then_with(|| b.cmp_age(a))
        });
        due.into_iter().find_map(|component| self.down(&component))
    }

    /// One level's component goes down; not, if a merge that is under way is in its way.
    fn down(&self, component: &Component) -> Option<Plan> {
        let level = *component.levels.start();
        if level + 1 == LAST_LEVEL {
            let lowest = self.sweep.components_in(0..self.sweep.places().len(), level..=LAST_LEVEL);
            let part = Sweep::containing(&lowest, component.span.start).filter(|part| !part.busy)?;
            return Some(self.merge_down(part, Reason::Deep));
        }
        // Half of the way to where rule 2 would merge it: then one more tier would only be written to be read again.
        if let Some(whole) = Sweep::containing(&self.whole, component.span.start)
            && !whole.busy
            && !self.is_large(whole)
            && whole.has_percent(self.policy.last_percent / 2)
            && self.policy.last_percent != Policy::NEVER
        {
            return Some(self.merge_down(whole, Reason::Deep));
        }
        let mut members: Vec<usize> = self.sweep.members(component).collect();
        // A merge that has taken tables along ends in their level, with records that are older than these: it has to be
        // there first.
        if self.policy.joins_percent > 0 && self.sweep.is_busy_at(level + 1, self.sweep.hull(&members)) {
            return None;
        }
        let joined = self.joined(component, &members);
        if joined.is_empty() && component.has_one_run() {
            let tables =
                members.iter().filter_map(|at| self.sweep.place(*at)).map(|place| place.table.number);
            return Some(Plan::Move { tables: tables.collect(), to: level + 1 });
        }
        members.extend(joined);
        members.sort_unstable();
        let bottom = self.sweep.is_bottom(&members);
        let to = if bottom { LAST_LEVEL } else { level + 1 };
        Some(Plan::Merge { inputs: self.sweep.inputs(&members), to, bottom, reason: Reason::Deep })
    }

    /// The tables of the next level that a component of one level takes along: those below it, if they are of one run
    /// and small enough, and nothing that is newer than they are stays there or is on its way there.
    fn joined(&self, component: &Component, members: &[usize]) -> Vec<usize> {
        let level = component.levels.start() + 1;
        let below = |hull: std::ops::Range<usize>| {
            let places = self.sweep.places().iter().enumerate().take(hull.end);
            places.filter(move |(_, place)| place.level == level && place.until > hull.start)
        };
        let joined: Vec<usize> = below(self.sweep.hull(members)).map(|(at, _)| at).collect();
        let of_joined = || joined.iter().filter_map(|at| self.sweep.place(*at));
        let bytes: u64 = of_joined().map(|place| place.table.len).fold(0, u64::saturating_add);
        let rank = of_joined().map(|place| place.rank).max().unwrap_or_default();
        let is_light = u128::from(bytes) * 100
            <= u128::from(component.upper.bytes) * u128::from(self.policy.joins_percent);
        let stays = |(at, place): (usize, &super::component::Place<'_>)| {
            place.rank <= rank && joined.binary_search(&at).is_err()
        };
        let may_join = is_light
            && of_joined().all(|place| place.rank == rank && !place.busy)
            && !below(self.sweep.hull(&joined)).any(stays)
            && !self.sweep.is_busy_at(level - 1, self.sweep.hull(&joined));
        if may_join { joined } else { Vec::new() }
    }

    /// Rule 4. Components whose tombstones are dense, or old, or in the way of readers, and what users ask for.
    fn tombstones(&self) -> Option<Plan> {
        let mut wanted = vec![(false, false); self.whole.len()];
        for range in self.hints.wanted {
            let of_range = wanted.get_mut(self.sweep.overlapping(&self.whole, &range.range));
            for (by_reader, by_user) in of_range.into_iter().flatten() {
                *by_reader |= !range.by_user;
                *by_user |= range.by_user;
            }
        }
        let records: u64 = self
            .whole
            .iter()
            .map(|c| c.upper.records.saturating_add(c.last.records))
            .fold(0, u64::saturating_add);
        let is_due = |component: &Component, by_reader: bool, by_user: bool| {
            let upper = &component.upper;
            let asked = (by_reader || by_user) && self.is_worth_asking(component);
            if upper.tables == 0 {
                return asked || self.is_stale(component);
            }
            let dense = upper.tombstones >= self.policy.tombstones_min
                && percent_reached(upper.tombstones, all_records(component), self.policy.tombstone_percent);
            let cared_for = dense || self.is_old(component, records) || asked;
            by_user && asked || cared_for && component.reaches(self.policy.care_factor)
        };
        let due = self.whole.iter().zip(wanted).filter(|(component, (by_reader, by_user))| {
            !component.busy && is_due(component, *by_reader, *by_user)
        });
        let best =
            due.max_by(|(a, (_, a_user)), (b, (_, b_user))| a_user.cmp(b_user).then_with(|| a.cmp_gain(b)));
        let (component, (_, by_user)) = best?;
        Some(self.merge_down(component, if by_user { Reason::Asked } else { Reason::Tombstones }))
    }

    /// Whether merging it would change anything: several runs, or tombstones or values that can go.
    pub(super) fn is_worth_asking(&self, component: &Component) -> bool {
        !component.has_one_run()
            || component.upper.tombstones > 0
            || self.frees_tombstones(component)
            || self.sweep.members(component).any(|at| self.is_wasteful(at))
    }

    fn is_wasteful(&self, at: usize) -> bool {
        let number = self.sweep.place(at).map(|place| place.table.number);
        number.is_some_and(|number| self.hints.wasteful.binary_search(&number).is_ok())
    }

    /// Whether it lies in the last level alone, and has tombstones that no reader needs any more.
    fn frees_tombstones(&self, component: &Component) -> bool {
        let mut tables = self.sweep.members(component).filter_map(|at| self.sweep.place(at));
        component.upper.tables == 0
            && component.last.tombstones > 0
            && tables.all(|place| place.table.seqno_max <= self.hints.oldest_reader)
    }

    /// Whether tombstones that a snapshot held are dense in the last level, and it is gone.
    fn is_stale(&self, component: &Component) -> bool {
        let last = &component.last;
        last.tombstones >= self.policy.tombstones_min
            && percent_reached(last.tombstones, last.records, self.policy.tombstone_percent)
            && self.frees_tombstones(component)
    }

    /// Whether a tombstone above the last level has seen as many writes as the tree has records.
    fn is_old(&self, component: &Component, records: u64) -> bool {
        let mut tables = self.sweep.members(component).filter_map(|at| self.sweep.place(at));
        component.upper.tombstones > 0
            && tables.any(|place| {
                let age = self.hints.newest.0.saturating_sub(place.table.seqno_max.0);
                place.level < LAST_LEVEL && place.table.tombstones > 0 && age > records
            })
    }

    /// Rule 5.
    fn idle(&self) -> Option<Plan> {
        let due = self.whole.iter().filter(|component| {
            self.hints.idle
                && (!component.busy || self.is_large(component))
                && component.upper.free_bytes() > 0
                && component.reaches(self.policy.idle_factor)
        });
        self.best_part(due.collect()).map(|part| self.merge_down(&part, Reason::Idle))
    }

    /// Rule 6. Tables of the last level, one at a time, in their place, while nothing else is merged: it moves much
    /// for its own length, and the other rules wait for what is busy. Those above it come there by themselves.
    fn wasteful(&self) -> Option<Plan> {
        let merges = |place: &Place<'_>| {
            place.busy && self.hints.set_aside.binary_search(&place.table.number).is_err()
        };
        if self.hints.wasteful.is_empty() || self.sweep.places().iter().any(merges) {
            return None;
        }
        let is_last = |at: usize| self.sweep.place(at).is_some_and(|place| place.level == LAST_LEVEL);
        let at = (0..self.sweep.places().len()).find(|at| is_last(*at) && self.is_wasteful(*at))?;
        let (inputs, bottom) = (self.sweep.inputs(&[at]), self.sweep.is_bottom(&[at]));
        Some(Plan::Merge { inputs, to: LAST_LEVEL, bottom, reason: Reason::Values })
    }

    /// Rule 7. Moves may leave tiny tables side by side in the last level, one for each flush of a trickle of rising
    /// keys. Only neighbours of one size are merged, so each record is rewritten a few times and not with every
    /// sixteenth flush.
    fn crumbs(&self) -> Option<Plan> {
        let least = usize::from(self.policy.crumbs).max(2);
        let last: Vec<Component> = self.sweep.components(LAST_LEVEL..=LAST_LEVEL);
        let mut class = self.policy.crumb_bytes.max(1);
        while class / CRUMB_CLASS > 4096 {
            class /= CRUMB_CLASS;
        }
        while class <= self.policy.crumb_bytes {
            let groups = last.chunk_by(|a, b| is_crumb(a, class) && is_crumb(b, class));
            let groups = groups.filter(|group| group.len() >= least).map(|group| {
                group.iter().flat_map(|component| self.sweep.members(component)).collect::<Vec<usize>>()
            });
            // What is on its way into the last level might come to lie between two of them.
            let open = groups.filter(|members| !self.sweep.is_busy_within(self.sweep.hull(members)));
            if let Some(members) = open.max_by_key(Vec::len) {
                let bottom = self.sweep.is_bottom(&members);
                let inputs = self.sweep.inputs(&members);
                return Some(Plan::Merge { inputs, to: LAST_LEVEL, bottom, reason: Reason::Crumbs });
            }
            class = class.saturating_mul(CRUMB_CLASS);
        }
        None
    }

    /// Whether so many of a table's records are tombstones that it should not be moved as it is.
    fn is_dense(&self, table: &TableMeta) -> bool {
        table.tombstones > 0 && percent_reached(table.tombstones, table.count, self.policy.tombstone_percent)
    }

    /// The merge of a component that reaches down to the last level: nothing older is left beside it.
    pub(super) fn merge_down(&self, component: &Component, reason: Reason) -> Plan {
        let members: Vec<usize> = self.sweep.members(component).collect();
        let inputs = self.sweep.inputs(&members);
        Plan::Merge { inputs, to: LAST_LEVEL, bottom: true, reason }
    }

    pub(super) fn whole(&self) -> &[Component] {
        &self.whole
    }
}

fn all_records(component: &Component) -> u64 {
    component.upper.records.saturating_add(component.last.records)
}

fn is_crumb(component: &Component, bytes: u64) -> bool {
    !component.busy && component.last.bytes <= bytes
}

fn percent_reached(part: u64, whole: u64, percent: u32) -> bool {
    (u128::from(part) * 100).cmp(&(u128::from(whole) * u128::from(percent))) != Ordering::Less
}
