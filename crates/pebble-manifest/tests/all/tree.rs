//! The tree against a naive one: a list of tables, each a set of points of a small universe of keys.

use std::ops::Bound;

use pebble_format::manifest::{LAST_LEVEL, LEVEL_COUNT};
use pebble_format::{InternalKey, KeyspaceId, Kind, OwnedKey, Seqno, Trailer};
use pebble_manifest::{Edit, ManifestLog, ManifestState, NewRun, TableMeta, Version};

use crate::model::{DIR, Rng, UUID, disk, recover, shared};

const LETTERS: u64 = 12;

/// The points of the universe, ascending: in three keyspaces twelve letters, each alone, with one zero behind it and
/// with two, so that there is a point between any two bounds that tables have; and one near the keyspace's end.
fn points() -> Vec<(KeyspaceId, Vec<u8>)> {
    let letters = (0..LETTERS as u8)
        .flat_map(|n| (0..3).map(move |zeros| [&[b'a' + n][..], &[0; 2][..zeros]].concat()));
    let keys: Vec<Vec<u8>> = letters.chain([vec![0xff; 20]]).collect();
    (0..3).flat_map(|keyspace| keys.iter().map(move |key| (KeyspaceId(keyspace), key.clone()))).collect()
}

/// Which points a table may say something about, bit by bit.
fn mask(points: &[(KeyspaceId, Vec<u8>)], table: &TableMeta) -> u128 {
    let (first, last) = (table.first.as_ref(), table.last.as_ref());
    let covers = |keyspace: KeyspaceId, key: &[u8]| {
        let reached = table.reach.as_ref().is_some_and(|reach| reach.is_empty() || *key < **reach);
        (first.keyspace, first.user_key) <= (keyspace, key)
            && ((keyspace, key) <= (last.keyspace, last.user_key) || keyspace == last.keyspace && reached)
    };
    points
        .iter()
        .enumerate()
        .fold(0, |mask, (bit, (keyspace, key))| mask | u128::from(covers(*keyspace, key)) << bit)
}

/// A table of up to `width` letters, often with a reach.
fn any_table(number: u64, seqno: u64, width: u64, rng: &mut Rng) -> TableMeta {
    let places = 3 * LETTERS;
    let first = rng.below(places);
    let last = (first + rng.below(width)).min(places - 1);
    let key = |place: u64| {
        let trailer = Trailer::new(Seqno(seqno), Kind::RangeDelete);
        let (keyspace, user_key) =
            (KeyspaceId((place / LETTERS) as u16), &[b'a' + (place % LETTERS) as u8][..]);
        OwnedKey::new(InternalKey { keyspace, user_key, trailer })
    };
    let letter = b'a' + (last % LETTERS) as u8;
    let reach: Option<Box<[u8]>> = match rng.below(8) {
        0 => Some(Box::new([])),
        1 => Some([letter, 0].into()),
        2 | 3 => Some([letter + 1 + rng.below(2) as u8].into()),
        _ => None,
    };
    TableMeta {
        number,
        len: 1 + rng.below(100),
        footer_crc: 1,
        count: 1 + rng.below(9),
        tombstones: 1,
        first: key(first),
        last: key(last),
        reach,
        seqno_min: Seqno(seqno),
        seqno_max: Seqno(seqno),
        apart: 0,
    }
}

/// Tables that overlap none of one another, ascending.
fn apart(points: &[(KeyspaceId, Vec<u8>)], mut tables: Vec<TableMeta>) -> Vec<TableMeta> {
    let mut taken = 0;
    tables.retain(|table| {
        let mask = mask(points, table);
        let free = taken & mask == 0;
        taken |= if free { mask } else { 0 };
        free
    });
    tables.sort_by(|a, b| a.first.cmp(&b.first));
    tables
}

/// The naive tree: each table with its level and run.
#[derive(Clone, Default)]
struct Naive {
    points: Vec<(KeyspaceId, Vec<u8>)>,
    members: Vec<(u8, u64, TableMeta)>,
}

impl Naive {
    fn new() -> Self {
        Self { points: points(), members: Vec::new() }
    }

    /// The runs in order, each with its tables in order.
    fn runs(&self) -> Vec<(u8, u64, Vec<TableMeta>)> {
        let mut ids: Vec<_> = self.members.iter().map(|(level, run, _)| (*level, u64::MAX - run)).collect();
        ids.sort_unstable();
        ids.dedup();
        let tables = |level, run| {
            let mut tables: Vec<_> =
                self.members.iter().filter(|m| (m.0, m.1) == (level, run)).map(|m| m.2.clone()).collect();
            tables.sort_by(|a, b| a.first.cmp(&b.first));
            tables
        };
        ids.into_iter()
            .map(|(level, flipped)| (level, u64::MAX - flipped, tables(level, u64::MAX - flipped)))
            .collect()
    }

    /// The tree after an edit, if the edit breaks no rule.
    fn apply(&self, edit: &Edit) -> Option<Self> {
        let (mut next, mut left) = (self.clone(), Vec::new());
        for number in &edit.removed {
            let at = next.members.iter().position(|(.., table)| table.number == *number)?;
            left.push(next.members.remove(at).2);
        }
        for new in &edit.added_runs {
            let elsewhere = next.members.iter().any(|(level, run, _)| *run == new.run && *level != new.level);
            let ascend = new.tables.is_sorted_by(|a, b| a.first < b.first);
            if elsewhere || !ascend || new.tables.is_empty() || new.level >= LEVEL_COUNT {
                return None;
            }
            for table in &new.tables {
                let known = next.members.iter().any(|(.., other)| other.number == table.number);
                let changed = left.iter().any(|other| other.number == table.number && other != table);
                if known || changed {
                    return None;
                }
                next.members.push((new.level, new.run, table.clone()));
            }
        }
        next.holds().then_some(next)
    }

    fn holds(&self) -> bool {
        let runs = self.runs();
        let disjoint = runs.iter().all(|(.., tables)| {
            let masks: Vec<_> = tables.iter().map(|table| mask(&self.points, table)).collect();
            masks.iter().fold(0, |sum: u128, mask| sum | mask).count_ones()
                == masks.iter().map(|m| m.count_ones()).sum()
        });
        let seqnos = |tables: &[TableMeta]| tables.iter().map(|table| table.seqno_min).collect::<Vec<_>>();
        let level_0: Vec<_> = runs.iter().filter(|run| run.0 == 0).map(|run| seqnos(&run.2)).collect();
        let in_time = level_0.windows(2).all(|pair| pair[0].iter().min() > pair[1].iter().max());
        disjoint && in_time && runs.iter().filter(|run| run.0 == LAST_LEVEL).count() <= 1
    }

    /// As [`Version::place`], point by point.
    fn place(&self, level: u8, tables: &[TableMeta]) -> Option<u64> {
        let taken = tables.iter().fold(0, |taken, table| taken | mask(&self.points, table));
        let mut found = None;
        for (_, run, tables) in self.runs().into_iter().filter(|run| run.0 == level) {
            if tables.iter().any(|table| mask(&self.points, table) & taken != 0) {
                break;
            }
            found = Some(run);
        }
        found
    }

    fn random_edit(&self, number: u64, rng: &mut Rng) -> Edit {
        let runs = self.runs();
        let any_run = |rng: &mut Rng| match rng.below(runs.len() as u64 + 1) as usize {
            at if at < runs.len() => (runs[at].0, runs[at].1),
            _ => ([0, 1, 1, 2, LAST_LEVEL, LEVEL_COUNT][rng.below(6) as usize], number + 1_000),
        };
        let new = |count: u64, rng: &mut Rng| {
            let tables = (0..count).map(|n| any_table(number + n, number, 4, rng)).collect();
            // Now and then whatever came, to be refused or not.
            if rng.below(8) == 0 { tables } else { apart(&self.points, tables) }
        };
        let mut edit = Edit::default();
        let (level, run) = any_run(rng);
        match rng.below(4) {
            0 => {
                let tables = new(1 + rng.below(3), rng);
                edit.added_runs.push(NewRun { level: 0, run: number + 1_000, tables });
            }
            1 => {
                let tables = new(1 + rng.below(2), rng);
                edit.added_runs.push(NewRun { level, run, tables });
            }
            _ if !self.members.is_empty() => {
                let mut tables: Vec<_> = (0..1 + rng.below(2))
                    .map(|_| self.members[rng.below(self.members.len() as u64) as usize].2.clone())
                    .collect();
                tables.sort_by_key(|table| table.number);
                tables.dedup_by_key(|table| table.number);
                edit.removed = tables.iter().map(|table| table.number).collect();
                match rng.below(16) {
                    0 => drop(edit.removed.pop()),
                    1 => tables[0].len += 1,
                    2 => tables.clear(),
                    3..6 => tables.extend(new(1, rng)),
                    _ => tables.sort_by(|a, b| a.first.cmp(&b.first)),
                }
                let place = [Some(run), self.place(level, &tables)][rng.below(2) as usize];
                edit.added_runs.push(NewRun { level, run: place.unwrap_or(number + 1_000), tables });
                if rng.below(6) == 0 {
                    edit.added_runs.clear();
                }
            }
            _ => {}
        }
        edit
    }
}

fn borrowed(bound: &Bound<(KeyspaceId, Vec<u8>)>) -> Bound<(KeyspaceId, &[u8])> {
    match bound {
        Bound::Included((keyspace, key)) => Bound::Included((*keyspace, key)),
        Bound::Excluded((keyspace, key)) => Bound::Excluded((*keyspace, key)),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Everything that can be asked of a version, asked of the naive tree too.
fn check_queries(naive: &Naive, version: &Version, rng: &mut Rng) {
    let points = &naive.points;
    let runs = naive.runs();
    assert_eq!(runs.len(), version.runs().len());
    let total = |of: fn(&TableMeta) -> u64| naive.members.iter().map(|member| of(&member.2)).sum::<u64>();
    assert_eq!((version.len_bytes(), version.count()), (total(|t| t.len), total(|t| t.count)));
    let bound = |rng: &mut Rng| {
        // Behind a point with two zeros, and before the next, there is none that would be missed in a table.
        let bounds: Vec<_> = (0..points.len()).filter(|at| points[*at].1.len() <= 2).collect();
        let at = bounds[rng.below(bounds.len() as u64) as usize];
        [Bound::Included(at), Bound::Excluded(at), Bound::Unbounded][rng.below(5).min(2) as usize]
    };
    for ((level, id, tables), run) in runs.iter().zip(version.runs()) {
        assert_eq!((*level, *id), (run.level(), run.id()));
        assert!(tables.iter().eq(run.tables().iter().map(|table| &**table)));
        assert_eq!(run.len_bytes(), tables.iter().map(|table| table.len).sum::<u64>());
        let masks: Vec<_> = tables.iter().map(|table| mask(points, table)).collect();
        for (bit, (keyspace, key)) in points.iter().enumerate() {
            let found = run.find(InternalKey::lookup(*keyspace, key, Seqno(rng.below(99))));
            assert_eq!(found, masks.iter().position(|mask| mask >> bit & 1 == 1), "{keyspace:?} {key:?}");
        }
        for _ in 0..20 {
            let (lo, hi) = (bound(rng), bound(rng));
            let range: u128 = (0..points.len())
                .filter(|at| std::ops::RangeBounds::contains(&(lo, hi), at))
                .map(|at| 1 << at)
                .sum();
            let [lo, hi] = [lo, hi].map(|bound| bound.map(|at| points[at].clone()));
            let found = run.overlapping(borrowed(&lo), borrowed(&hi));
            let naive: Vec<_> = (0..masks.len()).filter(|at| masks[*at] & range != 0).collect();
            if range == 0 {
                assert!(naive.is_empty());
            } else {
                assert_eq!(found.collect::<Vec<_>>(), naive, "{lo:?} {hi:?}");
            }
        }
    }
    let masks: Vec<_> = naive.members.iter().map(|(.., table)| (table, mask(points, table))).collect();
    for (a, a_mask) in &masks {
        for (b, b_mask) in &masks {
            assert_eq!(a.overlaps(b), a_mask & b_mask != 0);
        }
        for (bit, (keyspace, key)) in points.iter().enumerate() {
            assert_eq!(a.ends_before(*keyspace, key), a_mask >> bit == 0);
        }
    }
}

#[test]
fn a_tree_under_random_edits_is_as_the_naive_one() {
    let (mut accepted, mut moved, mut joined) = (0, 0, 0);
    let mut refused = 0;
    for seed in 0..30 {
        let mut rng = Rng(seed);
        let (mut naive, mut version, mut edits) = (Naive::new(), Version::default(), Vec::new());
        for number in (1..).step_by(10).take(60) {
            let edit = naive.random_edit(number, &mut rng);
            match (naive.apply(&edit), version.apply(&edit)) {
                (Some(next), Ok(applied)) => {
                    accepted += 1;
                    moved += edit.removed.len() - edit.gone().len();
                    joined += edit
                        .added_runs
                        .iter()
                        .filter(|new| version.runs().any(|run| run.id() == new.run))
                        .count();
                    (naive, version) = (next, applied);
                    edits.push(edit);
                }
                (None, Err(_)) => refused += 1,
                (next, applied) => panic!("seed {seed}: naive {}, {applied:?}, {edit:?}", next.is_some()),
            }
            check_queries(&naive, &version, &mut rng);
        }
        check_read_back(&version, edits);
    }
    assert!(
        accepted > 800 && refused > 300 && moved > 200 && joined > 200,
        "{accepted} {refused} {moved} {joined}"
    );
}

/// The edits lead to the same version by way of a manifest.
fn check_read_back(version: &Version, edits: Vec<Edit>) {
    let sim = disk();
    let dir = std::path::Path::new(DIR);
    let mut log = ManifestLog::create(shared(&sim), dir, 1, &ManifestState::new(UUID)).unwrap();
    log.append(&Edit { next_file: Some(10_000), flushed_seqno: Some(Seqno(10_000)), ..Edit::default() })
        .unwrap();
    edits.iter().filter(|edit| **edit != Edit::default()).for_each(|edit| log.append(edit).unwrap());
    let state = recover(&sim).unwrap().unwrap().state;
    assert_eq!(*state.version, *version);
    log.roll(2, &state).unwrap();
    assert_eq!(recover(&sim).unwrap().unwrap().state, state);
}

/// Data that comes in the order of time, placed where [`Version::place`] says, while older data leaves.
#[test]
fn tables_placed_in_the_order_of_time_lie_newest_first_at_every_key() {
    let mut most = 0;
    for seed in 0..20 {
        let mut rng = Rng(seed);
        let (mut naive, mut version) = (Naive::new(), Version::default());
        for number in (1..).step_by(10).take(80) {
            let tables = (0..1 + rng.below(3)).map(|n| any_table(number + n, number, 4, &mut rng)).collect();
            let tables = apart(&naive.points, tables);
            let place = version.place(1, &tables);
            assert_eq!(place, naive.place(1, &tables));
            // Whatever is oldest at all its keys may leave: a merge took it further down.
            let all = || naive.members.iter().map(|member| &member.2);
            let oldest =
                |table: &TableMeta| !all().any(|b| b.seqno_max < table.seqno_min && b.overlaps(table));
            let leaving =
                all().filter(|table| oldest(table) && !tables.iter().any(|new| new.overlaps(table)));
            let removed: Vec<_> = leaving.map(|table| table.number).filter(|_| rng.below(8) == 0).collect();
            // A run that `place` has named may lose all its tables in the edit; its number serves for a new one then.
            let run = place.unwrap_or(number + 1_000);
            let edit =
                Edit { removed, added_runs: vec![NewRun { level: 1, run, tables }], ..Edit::default() };
            (naive, version) = (naive.apply(&edit).unwrap(), version.apply(&edit).unwrap());
            most = most.max(version.runs().len());
            for (keyspace, key) in &naive.points {
                let lookup = InternalKey::lookup(*keyspace, key, Seqno(1));
                let found = version.runs().filter_map(|run| Some(&run.tables()[run.find(lookup)?]));
                let seqnos: Vec<_> = found.map(|table| table.seqno_max).collect();
                assert!(seqnos.is_sorted_by(|newer, older| newer > older), "seed {seed}: {seqnos:?}");
            }
        }
    }
    assert!(most > 4, "{most} runs at most");
}

#[test]
fn a_level_without_a_run_or_with_an_overlapping_newest_one_gets_a_new_run() {
    let mut rng = Rng(1);
    let tables = [any_table(1, 1, 1, &mut rng)];
    let version = Version::default();
    assert_eq!(version.place(1, &tables), None);
    let run = NewRun { level: 1, run: 5, tables: tables.to_vec() };
    let version = version.apply(&Edit { added_runs: vec![run], ..Edit::default() }).unwrap();
    assert_eq!((version.place(1, &tables), version.place(2, &tables)), (None, None));
    assert_eq!(version.place(1, &[]), Some(5));
}
