//! The sweep: all tables in the order of their first keys, and which of them hang together.
//!
//! ```text
//!   key ────────────────────────────►
//!   L0 r9   [0────────]    [4──────]          a place is a table's rank by its first key
//!   L0 r8      [1──]         [5──]            until: the first place that begins behind the table's end
//!   L6 r1   [2───][3──]    [6───][7]
//!           └component┘    └component┘         no overlap, so neither merge sees the other
//! ```
//!
//! Keys are compared once, to sort and to find each `until`. From then on a table is an interval of whole numbers,
//! and two tables overlap where their intervals do. A table's range deletes count as part of it, as far as they
//! reach.
//!
//! Cost: O(n log n) comparisons of keys, most of them of eight bytes; each list of components O(n).
//!
//! Threading: pure.

use std::cmp::Reverse;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use pebble_format::{HeadPrefix, KeyspaceId, Seqno};
use pebble_manifest::{Run, TableMeta, Version};

use super::policy::Policy;
use super::{Busy, Input, KeyRange};
use pebble_format::manifest::LAST_LEVEL;

/// A table in the sweep.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) table: &'a TableMeta,
    /// The place of its run in the order of time, 0 the newest.
    pub(super) rank: usize,
    pub(super) level: u8,
    pub(super) busy: bool,
    /// The first place whose table begins behind this one's end.
    pub(super) until: usize,
    head: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Sweep<'a> {
    places: Vec<Place<'a>>,
    runs: Vec<&'a Arc<Run>>,
}

/// Sums over some tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) tables: usize,
    pub(super) bytes: u64,
    pub(super) busy_bytes: u64,
    /// Bytes of values in tables of values that they refer to.
    pub(super) apart: u64,
    pub(super) records: u64,
    pub(super) tombstones: u64,
}

impl Share {
    fn add(&mut self, place: &Place<'_>) {
        self.tables += 1;
        self.bytes = self.bytes.saturating_add(place.table.len);
        self.busy_bytes = self.busy_bytes.saturating_add(if place.busy { place.table.len } else { 0 });
        self.apart = self.apart.saturating_add(place.table.apart);
        self.records = self.records.saturating_add(place.table.count);
        self.tombstones = self.tombstones.saturating_add(place.table.tombstones);
    }

    /// Bytes that no running merge reads.
    pub(super) fn free_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.busy_bytes)
    }
}

/// A maximal set of tables of some levels that hang together by overlapping.
#[derive(Clone, Debug)]
pub(super) struct Component {
    /// The places from its first to its last; those of other levels between them are no members.
    pub(super) span: Range<usize>,
    pub(super) levels: RangeInclusive<u8>,
    /// The tables above the last level.
    pub(super) upper: Share,
    /// The tables of the last level.
    pub(super) last: Share,
    /// The ranks of its newest and its oldest run.
    pub(super) ranks: RangeInclusive<usize>,
    /// How many of its runs hold one key, at the key where they are most.
    pub(super) depth: usize,
    /// The oldest sequence number.
    pub(super) oldest: Seqno,
    /// Whether a running merge has one of its tables.
    pub(super) busy: bool,
}

impl Component {
    pub(super) fn bytes(&self) -> u64 {
        self.upper.bytes.saturating_add(self.last.bytes)
    }

    /// Whether it is too large for one merge, so that parts of it are merged by themselves.
    pub(super) fn is_large(&self, policy: &Policy) -> bool {
        self.bytes() > policy.merge_bytes_max
    }

    pub(super) fn has_one_run(&self) -> bool {
        self.ranks.start() == self.ranks.end()
    }

    /// What merging it down would set free, about: its bytes above the last level, and for each tombstone among them a
    /// record of the last level. Otherwise tombstones of large values would weigh nothing, and what they hide would
    /// stay.
    pub(super) fn weight(&self) -> u64 {
        let (last, tombstones) = (u128::from(self.last.bytes), u128::from(self.upper.tombstones));
        let hidden = (last * tombstones / u128::from(self.last.records.max(1))).min(last);
        self.upper.free_bytes().saturating_add(u64::try_from(hidden).unwrap_or(u64::MAX))
    }

    /// Whether its weight, times `factor`, reaches the bytes of the last level.
    pub(super) fn reaches(&self, factor: u32) -> bool {
        self.weighs(u128::from(factor), self.last.bytes, 1)
    }

    /// Whether its weight is `percent` of the bytes of the last level.
    pub(super) fn has_percent(&self, percent: u32) -> bool {
        self.weighs(100, self.last.free_bytes(), u128::from(percent))
    }

    /// Whether `times` its weight reaches `parts` of `last`, which is of the last level: as it is, or with the values
    /// that lie apart on both sides. For a merge reads and writes the one, and what it sets free is the other; a
    /// few long values would weigh nothing beside many short ones, and as many old versions of them would stay as there
    /// may be runs.
    fn weighs(&self, times: u128, last: u64, parts: u128) -> bool {
        let (weight, last) = (u128::from(self.weight()), u128::from(last));
        let (weight_apart, last_apart) = (u128::from(self.upper.apart), u128::from(self.last.apart));
        weight * times >= last * parts
            || weight_apart > 0 && (weight + weight_apart) * times >= (last + last_apart) * parts
    }

    /// The order by weight over the bytes of the last level, then by age: the greatest pays best.
    pub(super) fn cmp_gain(&self, other: &Self) -> std::cmp::Ordering {
        let gain = |above: &Self, below: &Self| {
            u128::from(above.weight().max(1)) * u128::from(below.last.free_bytes())
        };
        gain(self, other).cmp(&gain(other, self)).then_with(|| self.cmp_age(other))
    }

    /// The order by age: the greatest is the oldest.
    pub(super) fn cmp_age(&self, other: &Self) -> std::cmp::Ordering {
        other.oldest.cmp(&self.oldest).then_with(|| other.span.start.cmp(&self.span.start))
    }
}

impl<'a> Sweep<'a> {
    pub(super) fn new(version: &'a Version, busy: &Busy) -> Self {
        let runs: Vec<&Arc<Run>> = version.runs().collect();
        let firsts = runs.iter().filter_map(|run| run.tables().first()).map(|table| table.first.as_ref());
        let lasts = runs.iter().filter_map(|run| run.tables().last()).map(|table| table.last.as_ref());
        let prefix = match (firsts.min(), lasts.max()) {
            (Some(first), Some(last)) => HeadPrefix::between(first, last),
            _ => HeadPrefix::none(),
        };
        let mut places = Vec::with_capacity(runs.iter().map(|run| run.tables().len()).sum());
        for (rank, run) in runs.iter().enumerate() {
            places.extend(run.tables().iter().map(|table| {
                let (keyspace, user_key) = table.starts();
                let head = prefix.head(keyspace, user_key);
                let busy = busy.contains(table.number);
                Place { table, rank, level: run.level(), busy, until: 0, head }
            }));
        }
        // The runs are sorted, and a stable sort merges what it finds sorted.
        places.sort_by(|a, b| a.head.cmp(&b.head).then_with(|| a.table.starts().cmp(&b.table.starts())));
        let mut sweep = Self { places, runs };
        for at in 0..sweep.places.len() {
            let until = sweep.end_of(at);
            if let Some(place) = sweep.places.get_mut(at) {
                place.until = until;
            }
        }
        sweep.close_gaps();
        sweep
    }

    /// Makes two neighbours of the last level that are busy hang together: if one merge has both, its outcome may
    /// cover the gap between them, and nothing else may come to lie there.
    fn close_gaps(&mut self) {
        let mut before: Option<usize> = None;
        for at in 0..self.places.len() {
            let Some((level, busy)) = self.place(at).map(|place| (place.level, place.busy)) else { continue };
            if level < LAST_LEVEL {
                continue;
            }
            if busy && let Some(place) = before.and_then(|before| self.places.get_mut(before)) {
                place.until = place.until.max(at);
            }
            before = busy.then_some(at);
        }
    }

    /// The first place behind the end of the table at `at`. In steps that double: most ends are near.
    fn end_of(&self, at: usize) -> usize {
        let rest = self.places.get(at + 1..).unwrap_or_default();
        let Some(place) = self.places.get(at) else { return at };
        let reached = |other: &Place<'_>| {
            let (keyspace, user_key) = other.table.starts();
            !place.table.ends_before(keyspace, user_key)
        };
        let mut step = 1;
        while rest.get(step - 1).is_some_and(reached) {
            step *= 2;
        }
        let (low, high) = (step / 2, step.min(rest.len()));
        at + 1 + low + rest.get(low..high).unwrap_or_default().partition_point(reached)
    }

    pub(super) fn places(&self) -> &[Place<'a>] {
        &self.places
    }

    pub(super) fn place(&self, at: usize) -> Option<&Place<'a>> {
        self.places.get(at)
    }

    /// The components of the tables of these levels, in the order of keys.
    pub(super) fn components(&self, levels: RangeInclusive<u8>) -> Vec<Component> {
        self.components_in(0..self.places.len(), levels)
    }

    /// The components of the tables of these levels among the places of `span`.
    pub(super) fn components_in(&self, span: Range<usize>, levels: RangeInclusive<u8>) -> Vec<Component> {
        let start = span.start;
        let depths = self.depths(span.clone(), &levels);
        let (mut found, mut until): (Vec<Component>, usize) = (Vec::new(), 0);
        for at in span {
            let Some(place) = self.places.get(at).filter(|place| levels.contains(&place.level)) else {
                continue;
            };
            let depth = depths.get(at - start).copied().unwrap_or_default();
            match found.last_mut() {
                Some(component) if at < until => component.add(at, depth, place),
                _ => {
                    let mut component = Component {
                        span: at..at,
                        levels: levels.clone(),
                        upper: Share::default(),
                        last: Share::default(),
                        ranks: place.rank..=place.rank,
                        depth: 0,
                        oldest: place.table.seqno_min,
                        busy: false,
                    };
                    component.add(at, depth, place);
                    found.push(component);
                }
            }
            until = until.max(place.until);
        }
        found
    }

    /// By place: how many tables hold its first key. No two of a run do.
    fn depths(&self, span: Range<usize>, levels: &RangeInclusive<u8>) -> Vec<usize> {
        let mut changes = vec![0_isize; span.len() + 1];
        for at in span.clone() {
            let Some(place) = self.places.get(at).filter(|place| levels.contains(&place.level)) else {
                continue;
            };
            let until = place.until.min(span.end);
            for (at, change) in [(at, 1), (until, -1)] {
                if let Some(sum) = changes.get_mut(at - span.start) {
                    *sum += change;
                }
            }
        }
        let depths = changes.into_iter().scan(0_isize, |depth, change| {
            *depth += change;
            Some(depth.unsigned_abs())
        });
        depths.collect()
    }

    /// The places of a component's tables, ascending.
    pub(super) fn members<'s>(&'s self, component: &'s Component) -> impl Iterator<Item = usize> + 's {
        let of_levels =
            |at: &usize| self.place(*at).is_some_and(|place| component.levels.contains(&place.level));
        component.span.clone().filter(of_levels)
    }

    /// The component among `components` that has the table at `at`, or whose span it lies in.
    pub(super) fn containing(components: &[Component], at: usize) -> Option<&Component> {
        let index = components.partition_point(|component| component.span.end <= at);
        components.get(index).filter(|component| component.span.contains(&at))
    }

    /// The components among `components` that overlap `range`, as a range of indices.
    pub(super) fn overlapping(&self, components: &[Component], range: &KeyRange) -> Range<usize> {
        let begins = |at: usize| self.place(at).map(|place| place.table.starts());
        let first = (range.keyspace, &*range.start);
        let is_behind = |key: Option<(KeyspaceId, &[u8])>| {
            key.is_some_and(|(keyspace, user_key)| match keyspace.cmp(&range.keyspace) {
                std::cmp::Ordering::Equal => !range.end.is_empty() && user_key >= &*range.end,
                order => order.is_gt(),
            })
        };
        let high = components.partition_point(|component| !is_behind(begins(component.span.start)));
        let low = components
            .partition_point(|component| begins(component.span.start).is_some_and(|key| key < first));
        let reaches = |component: &Component| {
            let (keyspace, user_key) = first;
            self.members(component)
                .filter_map(|at| self.place(at))
                .any(|place| !place.table.ends_before(keyspace, user_key))
        };
        let before = low.checked_sub(1).filter(|at| components.get(*at).is_some_and(reaches));
        let low = before.unwrap_or(low);
        low..high.max(low)
    }

    /// Where the tables at `members` begin and end.
    pub(super) fn hull(&self, members: &[usize]) -> Range<usize> {
        let until = members.iter().filter_map(|at| self.place(*at)).map(|place| place.until).max();
        members.iter().copied().min().unwrap_or_default()..until.unwrap_or_default()
    }

    /// Whether nothing is left below the tables at `members` (ascending): no other table that overlaps their hull is
    /// older than the newest of them.
    pub(super) fn is_bottom(&self, members: &[usize]) -> bool {
        let hull = self.hull(members);
        let newest =
            members.iter().filter_map(|at| self.place(*at)).map(|place| place.rank).min().unwrap_or_default();
        let in_hull = self.places.iter().enumerate().take(hull.end);
        let mut others = in_hull.filter(|(at, place)| {
            place.until > hull.start && place.rank >= newest && members.binary_search(at).is_err()
        });
        others.next().is_none()
    }

    /// Whether a table that a running merge has overlaps this hull.
    pub(super) fn is_busy_within(&self, hull: Range<usize>) -> bool {
        let places = self.places.iter().take(hull.end);
        places.filter(|place| place.busy).any(|place| place.until > hull.start)
    }

    /// Whether a table of this level that a running merge has overlaps this hull.
    pub(super) fn is_busy_at(&self, level: u8, hull: Range<usize>) -> bool {
        let places = self.places.iter().take(hull.end);
        places.filter(|place| place.busy && place.level == level).any(|place| place.until > hull.start)
    }

    /// The tables at `members` (ascending) by run, newest first.
    pub(super) fn inputs(&self, members: &[usize]) -> Vec<Input> {
        let mut by_rank: Vec<(usize, u64)> = members
            .iter()
            .filter_map(|at| self.place(*at))
            .map(|place| (place.rank, place.table.number))
            .collect();
        by_rank.sort_by_key(|(rank, _)| *rank);
        let chunks = by_rank.chunk_by(|(a, _), (b, _)| a == b);
        let inputs = chunks.filter_map(|chunk| {
            let run = self.runs.get(chunk.first()?.0)?;
            let tables = chunk.iter().map(|(_, number)| *number).collect();
            Some(Input { run: run.id(), level: run.level(), tables })
        });
        inputs.collect()
    }

    /// All places, the oldest run's first.
    pub(super) fn oldest_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.places.len()).collect();
        order.sort_by_key(|at| Reverse(self.place(*at).map(|place| place.rank)));
        order
    }
}

impl Component {
    fn add(&mut self, at: usize, depth: usize, place: &Place<'_>) {
        self.span.end = at + 1;
        if place.level == LAST_LEVEL { &mut self.last } else { &mut self.upper }.add(place);
        self.ranks = *self.ranks.start().min(&place.rank)..=*self.ranks.end().max(&place.rank);
        self.depth = self.depth.max(depth);
        self.oldest = self.oldest.min(place.table.seqno_min);
        self.busy |= place.busy;
    }
}
