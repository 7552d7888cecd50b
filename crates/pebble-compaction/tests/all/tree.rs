//! A tree in memory whose merges really merge, driven by random flushes and by plans that overtake one another.
//!
//! After every step: at each key the versions from the newest run to the oldest descend, the newest one is the last
//! that was written (or a tombstone that has gone), and nothing that was deleted comes back.

use std::collections::BTreeMap;

use pebble_compaction::{
    Busy, Hints, KeyRange, Plan, Policy, RangePlan, Wanted, cuts, cuts_for, plan, plan_range, pressure,
    splits,
};
use pebble_format::manifest::LAST_LEVEL;
use pebble_format::{InternalKey, KeyspaceId, Kind, OwnedKey, Seqno, Trailer};
use pebble_manifest::{Edit, NewRun, TableMeta, Version};
use proptest::prelude::*;

use crate::model::cases;

const KEYS: u8 = 60;
const RECORD_LEN: u64 = 100;

/// What a table says of one key. A range delete stands here as what it says of each key of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Says {
    seqno: u64,
    is_there: bool,
    /// A range delete says it: the key is not among the table's records.
    ranged: bool,
}

type Content = BTreeMap<u8, Says>;

fn meta(content: &Content, number: u64) -> TableMeta {
    let key = |key: u8, seqno: u64| {
        let trailer = Trailer::new(Seqno(seqno), Kind::Put);
        OwnedKey::new(InternalKey { keyspace: KeyspaceId::DEFAULT, user_key: &[key], trailer })
    };
    let seqnos = || content.values().map(|says| says.seqno);
    let (first, end) = (content.first_key_value().unwrap(), content.last_key_value().unwrap());
    // The first key of a range delete is a record.
    let last = content.iter().rev().find(|(_, says)| !says.ranged).unwrap_or(first);
    TableMeta {
        number,
        len: content.len() as u64 * RECORD_LEN,
        footer_crc: 0,
        count: content.len() as u64,
        tombstones: content.values().filter(|says| !says.is_there).count() as u64,
        first: key(*first.0, first.1.seqno),
        last: key(*last.0, last.1.seqno),
        reach: (end.0 > last.0).then(|| [end.0 + 1].into()),
        seqno_min: Seqno(seqnos().min().unwrap()),
        seqno_max: Seqno(seqnos().max().unwrap()),
        apart: 0,
    }
}

/// The tables of a run: at most `max` records each, and cut at `cuts`.
fn parted(content: &Content, cuts: &[OwnedKey], max: usize) -> Vec<Content> {
    let mut parts: Vec<Content> = Vec::new();
    let mut passed = 0;
    for (key, says) in content {
        let lookup = InternalKey::lookup(KeyspaceId::DEFAULT, std::slice::from_ref(key), Seqno::MAX);
        let before = cuts.partition_point(|cut| cut.as_ref().cmp_user(&lookup).is_le());
        if before > passed || parts.last().is_none_or(|part| part.len() >= max) {
            parts.push(Content::new());
        }
        passed = before;
        parts.last_mut().unwrap().insert(*key, *says);
    }
    parts
}

struct Tree {
    policy: Policy,
    oldest_reader: Seqno,
    version: Version,
    tables: BTreeMap<u64, Content>,
    busy: Busy,
    /// Plans under way, with what they will write.
    under_way: Vec<(Plan, Vec<Content>)>,
    /// What was written last to each key.
    written: Content,
    seqno: u64,
    number: u64,
}

impl Tree {
    fn new(policy: Policy, oldest_reader: u64) -> Self {
        Self {
            policy,
            oldest_reader: Seqno(oldest_reader),
            version: Version::default(),
            tables: BTreeMap::new(),
            busy: Busy::default(),
            under_way: Vec::new(),
            written: Content::new(),
            seqno: 0,
            number: 0,
        }
    }

    fn hints(&self, idle: bool) -> Hints<'static> {
        Hints { idle, newest: Seqno(self.seqno), oldest_reader: self.oldest_reader, ..Hints::default() }
    }

    fn plan(&self, idle: bool) -> Option<Plan> {
        plan(&self.version, &self.busy, &self.policy, &self.hints(idle))
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn flush(&mut self, writes: &[(u8, u8)]) {
        let mut flushed = Content::new();
        for (key, what) in writes {
            self.seqno += 1;
            // Most are puts, some deletes, a few delete a range.
            let len = if *what < 220 { 1 } else { (*what - 215) % 12 + 1 };
            for at in *key..KEYS.min(*key + len) {
                let says = Says { seqno: self.seqno, is_there: *what < 180, ranged: at > *key };
                flushed.insert(at, says);
                self.written.insert(at, says);
            }
        }
        if flushed.is_empty() {
            return;
        }
        let cuts = cuts(&self.version, flushed.len() as u64 * RECORD_LEN, 3 * RECORD_LEN);
        let before = pressure(&self.version, &Busy::default(), &self.policy);
        self.install(0, parted(&flushed, &cuts, 20), Vec::new());
        let after = pressure(&self.version, &Busy::default(), &self.policy);
        assert!(after.debt_bytes >= before.debt_bytes, "{before:?} {after:?}");
        assert!(after.runs_max >= before.runs_max);
        self.check();
    }

    fn start(&mut self, plan: Plan) {
        assert!(plan.tables().all(|number| !self.busy.contains(number)), "{plan}");
        let mut merged = Content::new();
        if let Plan::Merge { inputs, bottom, .. } = &plan {
            assert!(inputs.iter().all(|input| input.level <= plan.to()));
            for number in inputs.iter().rev().flat_map(|input| &input.tables) {
                merged.extend(&self.tables[number]);
            }
            check_splits(&plan, &self.version, &merged);
            // What a snapshot may still see below a tombstone needs the tombstone.
            merged.retain(|_, says| !*bottom || says.is_there || Seqno(says.seqno) > self.oldest_reader);
        }
        let cuts = cuts_for(&self.version, &plan, 5 * RECORD_LEN);
        self.busy.insert(&plan);
        self.under_way.push((plan, parted(&merged, &cuts, 8)));
    }

    fn finish(&mut self, at: usize) {
        let (plan, outputs) = self.under_way.remove(at);
        self.busy.remove(&plan);
        let removed: Vec<u64> = plan.tables().collect();
        match plan {
            Plan::Move { tables, to } => {
                let outputs = tables.iter().map(|number| self.tables[number].clone()).collect();
                self.install(to, outputs, removed);
            }
            Plan::Merge { to, .. } => self.install(to, outputs, removed),
        }
        self.check();
    }

    fn install(&mut self, level: u8, outputs: Vec<Content>, removed: Vec<u64>) {
        for number in &removed {
            self.tables.remove(number);
        }
        let without = self.version.apply(&Edit { removed, ..Edit::default() }).unwrap();
        let tables: Vec<TableMeta> =
            outputs.iter().map(|content| meta(content, self.next_number())).collect();
        for (table, content) in tables.iter().zip(outputs) {
            self.tables.insert(table.number, content);
        }
        // A flush is a run of its own: runs of level 0 do not interleave in time.
        let joined = if level == 0 { None } else { without.place(level, &tables) };
        let run = joined.unwrap_or_else(|| self.next_number());
        let added_runs = if tables.is_empty() { Vec::new() } else { vec![NewRun { level, run, tables }] };
        self.version = without.apply(&Edit { added_runs, ..Edit::default() }).unwrap();
    }

    fn check(&self) {
        for key in 0..KEYS {
            let of_run = self.version.runs().filter_map(|run| {
                run.tables().iter().find_map(|table| self.tables[&table.number].get(&key).copied())
            });
            let found: Vec<Says> = of_run.collect();
            assert!(found.is_sorted_by(|newer, older| newer.seqno > older.seqno), "{key}: {found:?}");
            let written = self.written.get(&key);
            match (found.first(), written) {
                (Some(found), Some(written)) => assert_eq!(found.seqno, written.seqno, "{key}"),
                (None, Some(written)) => assert!(!written.is_there, "{key} is lost"),
                (None, None) => {}
                (Some(_), None) => panic!("{key} was never written"),
            }
        }
    }

    /// Carries out what is due, one plan after another; gives how many there were.
    fn settle(&mut self, idle: bool) -> usize {
        while !self.under_way.is_empty() {
            self.finish(0);
        }
        let mut count = 0;
        while let Some(plan) = self.plan(idle) {
            count += 1;
            assert!(count < 300, "no end: {plan}");
            self.start(plan);
            self.finish(0);
        }
        count
    }
}

fn check_splits(plan: &Plan, version: &Version, merged: &Content) {
    for parts in 1..6 {
        let splits = splits(plan, version, parts);
        assert!(splits.len() < parts);
        let splits: Vec<u8> = splits.iter().map(|split| split.as_ref().user_key[0]).collect();
        assert!(splits.is_sorted_by(|a, b| a < b), "{splits:?}");
        let mut start = 0;
        for split in splits.into_iter().chain([u8::MAX]) {
            assert!(merged.range(start..split).next().is_some(), "nothing from {start} to {split}");
            start = split;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Flush(Vec<(u8, u8)>),
    Start { idle: bool },
    StartRange(u8, u8),
    Finish(usize),
    Settle,
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = (0..KEYS, 1..KEYS, 0_usize..25, any::<u64>()).prop_map(|(start, span, count, seed)| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u8
        };
        let writes = (0..count).map(|_| ((start + next() % span).min(KEYS - 1), next()));
        writes.collect::<Vec<_>>()
    });
    let step = prop_oneof![
        4 => writes.prop_map(Step::Flush),
        3 => any::<bool>().prop_map(|idle| Step::Start { idle }),
        1 => (0..KEYS, 0..KEYS).prop_map(|(start, end)| Step::StartRange(start, end)),
        3 => (0_usize..4).prop_map(Step::Finish),
        1 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..60)
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let shape =
        prop_oneof![Just(Policy::lazy()), Just(Policy::leveled()), (2_u16..4).prop_map(Policy::tiered)];
    (shape, 1_u16..5, 1_u16..4, 0_u64..4000, 1_u64..20).prop_map(
        |(shape, first, fan_out, max, tombstones)| {
            let fan_out = [first, fan_out, fan_out, fan_out, fan_out, fan_out];
            Policy {
                fan_out,
                merge_bytes_max: max,
                tombstones_min: tombstones,
                crumbs: 3,
                crumb_bytes: 300,
                ..shape
            }
        },
    )
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn plans_keep_the_order_of_time_and_come_to_rest(
        policy in any_policy(), steps in any_steps(), oldest_reader in prop_oneof![Just(u64::MAX), 0_u64..200],
    ) {
        let mut tree = Tree::new(policy, oldest_reader);
        for step in steps {
            match step {
                Step::Flush(writes) => tree.flush(&writes),
                Step::Start { idle } => {
                    if tree.under_way.len() < 4 && let Some(plan) = tree.plan(idle) {
                        tree.start(plan);
                    }
                }
                Step::StartRange(start, end) => {
                    let range = KeyRange {
                        keyspace: KeyspaceId::DEFAULT,
                        start: [start].into(),
                        end: if end > start { [end].into() } else { [].into() },
                    };
                    let next = plan_range(&tree.version, &tree.busy, &tree.hints(false), Some(&range), Seqno::MAX);
                    if let RangePlan::Next { plan, left_bytes } = next {
                        prop_assert!(left_bytes > 0);
                        tree.start(plan);
                    }
                }
                Step::Finish(at) => {
                    if at < tree.under_way.len() {
                        tree.finish(at);
                    }
                }
                Step::Settle => {
                    tree.settle(false);
                    let pressure = pressure(&tree.version, &Busy::default(), &policy);
                    prop_assert_eq!((pressure.debt_bytes, pressure.deep), (0, 0));
                }
            }
        }
        tree.settle(false);
        tree.settle(true);
        // Whatever the factor has left alone, a user can still ask for.
        let wanted = KeyRange { keyspace: KeyspaceId::DEFAULT, start: [].into(), end: [].into() };
        let wanted = [Wanted { range: wanted, by_user: true }];
        let mut count = 0;
        while let Some(plan) = plan(
            &tree.version, &tree.busy, &policy, &Hints { wanted: &wanted, ..tree.hints(true) },
        ) {
            count += 1;
            prop_assert!(count < 300, "no end: {}", plan);
            tree.start(plan);
            tree.finish(0);
        }
        prop_assert!(tree.version.runs().len() <= 1);
        prop_assert!(tree.version.runs().all(|run| run.level() == LAST_LEVEL));
        let next = plan_range(&tree.version, &tree.busy, &tree.hints(false), None, Seqno::MAX);
        prop_assert_eq!(next, RangePlan::Done);
        let kept = tree.version.tables().flat_map(|table| tree.tables[&table.number].values());
        let oldest_reader = tree.oldest_reader;
        for says in kept {
            // A table whose tombstones may not all go is left as it is.
            prop_assert!(says.is_there || oldest_reader != Seqno::MAX);
        }
    }

    #[test]
    fn a_range_that_was_asked_for_is_merged_step_by_step(
        policy in any_policy(), flushes in prop::collection::vec(any_steps(), 1..3), start in 0..KEYS, len in 1..KEYS,
    ) {
        let mut tree = Tree::new(policy, u64::MAX);
        for step in flushes.into_iter().flatten() {
            match step {
                Step::Flush(writes) => tree.flush(&writes),
                Step::Start { .. } | Step::Settle => _ = tree.settle(false),
                Step::StartRange(..) | Step::Finish(..) => {}
            }
        }
        let end = start.saturating_add(len).min(KEYS);
        let range =
            KeyRange { keyspace: KeyspaceId::DEFAULT, start: [start].into(), end: [end].into() };
        let upto = Seqno(tree.seqno);
        let mut last_left = u64::MAX;
        loop {
            match plan_range(&tree.version, &tree.busy, &tree.hints(false), Some(&range), upto) {
                RangePlan::Next { plan, left_bytes } => {
                    prop_assert!(left_bytes < last_left, "{} of {}", left_bytes, last_left);
                    last_left = left_bytes;
                    tree.start(plan);
                    tree.finish(0);
                }
                RangePlan::Wait => prop_assert!(false, "nothing is under way"),
                RangePlan::Done => break,
            }
        }
        for key in start..end {
            let mut of_key = tree.version.runs().flat_map(|run| {
                let tables = run.tables().iter().map(|table| (run.level(), &tree.tables[&table.number]));
                tables.filter_map(|(level, content)| content.get(&key).map(|says| (level, says.is_there)))
            });
            let found = of_key.next();
            prop_assert!(matches!(found, None | Some((LAST_LEVEL, true))), "{}: {:?}", key, found);
            prop_assert!(of_key.next().is_none());
        }
    }
}
