//! Walks over blocks of many records, where an iterator goes by stretches: with runs above runs, snapshots, bounds,
//! seeks in the middle of a stretch, both ends in turn, entries lent and owned.

use std::collections::BTreeMap;
use std::ops::Bound;

use pebble_db::{Iter, Snapshot};
use pebble_vfs::SimFs;

use crate::campaign;
use crate::support::{Config, LOG_MODES, Map, Rng, bytes, env_number};

const KEYS: usize = 600;

fn key(n: usize) -> Vec<u8> {
    format!("key/{n:05}").into_bytes()
}

/// A map's entries between bounds, with a place at either end, as [`Iter`] has.
struct Model {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// What is left lies in `front..back`, nothing where they have crossed; a seek may widen it again.
    front: usize,
    back: usize,
}

impl Model {
    fn next(&mut self, backward: bool) -> Option<(Vec<u8>, Vec<u8>)> {
        if self.front >= self.back {
            return None;
        }
        if backward {
            self.back -= 1;
            return Some(self.entries[self.back].clone());
        }
        self.front += 1;
        Some(self.entries[self.front - 1].clone())
    }
}

fn next(iter: &mut Iter, backward: bool, lent: bool) -> Option<(Vec<u8>, Vec<u8>)> {
    if lent {
        let entry = if backward { iter.next_back_lent() } else { iter.next_lent() };
        return entry.map(|entry| entry.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec()));
    }
    let entry = if backward { iter.next_back() } else { iter.next() };
    entry.map(|entry| entry.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec()))
}

fn bound(rng: &mut Rng) -> Bound<Vec<u8>> {
    let at = key(rng.below(KEYS + 20));
    match rng.below(4) {
        0 => Bound::Included(at),
        1 => Bound::Excluded(at),
        _ => Bound::Unbounded,
    }
}

/// Compares one walk of `steps` steps, each way at random, with the map.
fn walk(rng: &mut Rng, snapshot: &Snapshot, db: &pebble_db::Db, map: &Map, steps: usize) {
    let (mut lo, mut hi) = (bound(rng), bound(rng));
    if let (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) =
        (&lo, &hi)
        && from >= to
    {
        (lo, hi) = (Bound::Unbounded, Bound::Unbounded);
    }
    let entries: Vec<_> = map.range((lo.clone(), hi.clone())).map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut model = Model { front: 0, back: entries.len(), entries };
    let mut iter = snapshot.range(&db.default_keyspace(), (lo, hi)).unwrap();
    let (one_way, way) = (rng.one_in(2), rng.one_in(2));
    for _ in 0..steps {
        let backward = if one_way { way } else { rng.one_in(3) };
        if rng.one_in(23) {
            let target = key(rng.below(KEYS));
            if backward {
                iter.seek_for_prev(&target);
                model.back = model.entries.partition_point(|(key, _)| *key <= target);
            } else {
                iter.seek(&target);
                model.front = model.entries.partition_point(|(key, _)| *key < target);
            }
        }
        let expected = model.next(backward);
        assert_eq!(next(&mut iter, backward, rng.one_in(2)), expected, "backward: {backward}");
    }
}

/// One database: a few runs of different density, some with tombstones or several versions, and a memtable.
fn one_database(seed: u64, steps: &mut u64) {
    let mut rng = Rng(seed);
    let config = Config {
        block_len: rng.pick(&[256, 1024, 4096]),
        table_len: rng.pick(&[4096, 65536]),
        ..Config::random(&mut rng)
    };
    let db = config.sim(SimFs::new(seed)).open().unwrap();
    let other = db.keyspace("other").unwrap();
    let mut map = Map::new();
    let mut pictures: Vec<(Snapshot, BTreeMap<_, _>)> = Vec::new();
    for round in 0..2 + rng.below(4) {
        let thin = rng.pick(&[1, 1, 2, 7, 60]);
        for n in (0..KEYS).filter(|n| (n + round) % thin == 0) {
            if rng.one_in(40) && round > 0 {
                db.delete(key(n)).unwrap();
                map.remove(&key(n));
                continue;
            }
            let value = bytes(rng.next(), rng.below(40));
            db.put(key(n), &value).unwrap();
            map.insert(key(n), value);
        }
        // Neighbours in the order: a walk must not leave its keyspace.
        other.put(key(round), b"of the other").unwrap();
        if rng.one_in(3) {
            let from = rng.below(KEYS);
            let (from, to) = (key(from), key(from + rng.below(30) + 1));
            db.delete_range(&from[..]..&to[..]).unwrap();
            map.retain(|key, _| *key < from || *key >= to);
        }
        pictures.push((db.snapshot(), map.clone()));
        if rng.one_in(2) {
            pictures.remove(0);
        }
        match rng.below(4) {
            0 => db.compact_range(..).unwrap(),
            1 | 2 => db.flush().unwrap(),
            _ => {}
        }
    }
    pictures.push((db.snapshot(), map));
    for (snapshot, map) in &pictures {
        for _ in 0..6 {
            let length = rng.pick(&[20, 200, 2 * KEYS]);
            walk(&mut rng, snapshot, &db, map, length);
            *steps += length as u64;
        }
    }
}

#[test]
fn a_walk_gives_what_a_map_gives() {
    let (first, seeds) = (env_number("PEBBLE_SEED", 1), env_number("PEBBLE_SCAN_SEEDS", 150));
    let mut steps = 0;
    for seed in first..first + seeds {
        println!("seed {seed}");
        one_database(seed as u64, &mut steps);
    }
    campaign::count(&["I4", "I5"], "operations", steps);
}

/// Half of a stretch is taken, then the table that it lies in is merged away and its file removed.
#[test]
fn a_stretch_outlives_its_table() {
    for log_io in LOG_MODES {
        let config = Config { block_len: 4096, table_len: 1 << 20, ..Config::tiny(log_io) };
        let db = config.sim(SimFs::new(1)).open().unwrap();
        let put_all = |version: &str| (0..KEYS).for_each(|n| db.put(key(n), version).unwrap());
        put_all("old");
        db.flush().unwrap();
        let mut iter = db.iter().unwrap();
        for n in 0..20 {
            assert_eq!(next(&mut iter, false, true), Some((key(n), b"old".to_vec())));
        }
        put_all("new");
        db.compact_range(..).unwrap();
        for n in 20..KEYS {
            assert_eq!(next(&mut iter, false, n % 2 == 0), Some((key(n), b"old".to_vec())));
        }
        assert_eq!(next(&mut iter, false, true), None);
    }
}

/// One version of each key, but half of them are newer than the reader.
#[test]
fn a_snapshot_does_not_go_through_a_stretch_that_is_too_new() {
    let config = Config { block_len: 4096, table_len: 1 << 20, ..Config::tiny(LOG_MODES[0]) };
    let db = config.sim(SimFs::new(1)).open().unwrap();
    (0..KEYS).step_by(2).for_each(|n| db.put(key(n), "seen").unwrap());
    let snapshot = db.snapshot();
    (1..KEYS).step_by(2).for_each(|n| db.put(key(n), "too new").unwrap());
    db.compact_range(..).unwrap();
    for backward in [false, true] {
        let mut iter = snapshot.iter(&db.default_keyspace()).unwrap();
        let found: Vec<_> = std::iter::from_fn(|| next(&mut iter, backward, true)).collect();
        assert_eq!(found.len(), KEYS.div_ceil(2));
        assert!(found.iter().all(|(_, value)| value == b"seen"));
    }
}
