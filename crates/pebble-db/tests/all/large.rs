//! Many records within a small memory budget, in a process of its own.
//!
//! Record `i` has a key that is a bijection of `i` and a value drawn from `i`, so that everything found says whether
//! it is right, and nothing has to be remembered.

use std::io::Write;
use std::time::Instant;

use pebble_db::{Db, WriteBatch};

use crate::campaign;
use crate::support::{Rng, child, env_number, mix};

const ROOT: &str = "PEBBLE_TEST_LARGE_DIR";
/// What a process needs beside the budget: code, stacks, the allocator's reserves, this test.
const SLACK: u64 = 24 << 20;

/// Records, the memory budget, and how many keys are asked for.
struct Size {
    records: u64,
    budget: u64,
    gets: u64,
}

fn size() -> Size {
    if env_number("PEBBLE_LARGE", 0) == 1 {
        Size { records: 10_000_000, budget: 256 << 20, gets: 4_000_000 }
    } else {
        Size { records: 200_000, budget: 8 << 20, gets: 60_000 }
    }
}

fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(i + 1).to_be_bytes());
    key[8..].copy_from_slice(&i.to_be_bytes());
    key
}

fn value(i: u64) -> [u8; 100] {
    let mut value = [0; 100];
    let mut rng = Rng(i);
    for chunk in value.chunks_mut(8) {
        chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
    }
    value
}

/// Anonymous memory of this process now.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
    kilobytes << 10
}

/// The most anonymous memory seen, and what is allowed.
struct Watch {
    most: u64,
    allowed: u64,
}

impl Watch {
    fn look(&mut self, db: &Db, doing: &str) {
        self.most = self.most.max(anonymous());
        assert!(
            self.most <= self.allowed,
            "{doing}: {} MiB of anonymous memory, {} allowed; {:?}",
            self.most >> 20,
            self.allowed >> 20,
            db.stats()
        );
        let stats = db.stats();
        assert!(stats.memory_bytes <= stats.memory_budget, "{doing}: over the budget: {stats:?}");
    }
}

/// The records in a random order, without remembering which were taken: a walk through `0..records` by a step that
/// has no divisor in common with it.
fn order(records: u64) -> impl Iterator<Item = u64> {
    let step = (records / 2 + 1..).find(|step| gcd(*step, records) == 1).unwrap();
    let start = mix(records) % records;
    (0..records).scan(start, move |at, _| {
        *at = (*at + step) % records;
        Some(*at)
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Checks entries one by one: right keys, right values, in order, all of them.
fn check_scan<'a>(
    entries: impl Iterator<Item = pebble_db::Result<(pebble_db::Key, pebble_db::Value)>> + 'a,
    records: u64,
    backward: bool,
    mut look: impl FnMut(),
) {
    let mut last: Option<[u8; 16]> = None;
    let mut count = 0;
    for entry in entries {
        let (found, given) = entry.unwrap();
        let found: [u8; 16] = (*found).try_into().unwrap();
        let i = u64::from_be_bytes(found[8..].try_into().unwrap());
        assert!(i < records && found == key(i) && given == value(i), "record {i}");
        assert!(last.is_none_or(|last| (last < found) != backward), "out of order at record {i}");
        last = Some(found);
        count += 1;
        if count % (1 << 16) == 0 {
            look();
        }
    }
    assert_eq!(count, records);
}

/// Asks for keys at random; one in eight is absent, next to one that is there.
fn check_gets(db: &Db, records: u64, gets: u64, mut look: impl FnMut()) {
    let mut rng = Rng(3);
    for n in 0..gets {
        let i = rng.next() % records;
        let found = db.get(key(i)).unwrap();
        assert!(found.is_some_and(|found| found == value(i)), "record {i}");
        if n % 8 == 0 {
            let mut absent = key(i);
            absent[15] ^= 1;
            assert!(!db.contains(absent).unwrap());
        }
        if n % (1 << 14) == 0 {
            look();
        }
    }
}

/// The process that does it; nothing by itself.
#[test]
fn child_within_its_budget() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let path = std::path::Path::new(&root).join("db");
    let Size { records, budget, gets } = size();
    let mut watch = Watch { most: 0, allowed: budget + SLACK };
    let mut figures = std::fs::File::create(std::path::Path::new(&root).join("figures")).unwrap();
    let mut tell = |what: &str, count: u64, since: Instant| {
        let each = since.elapsed().as_nanos() / u128::from(count);
        writeln!(figures, "large: {what}: {count} at {each} ns each").unwrap();
    };
    let open = || Db::builder(&path).memory_budget(budget).open().unwrap();

    let db = open();
    let begun = Instant::now();
    for (n, i) in (0..).zip(order(records)) {
        db.put(key(i), value(i)).unwrap();
        if n % (1 << 14) == 0 {
            watch.look(&db, "put");
        }
    }
    tell("random puts", records, begun);
    let begun = Instant::now();
    check_gets(&db, records, gets, || watch.look(&db, "get"));
    tell("random gets", gets, begun);
    let begun = Instant::now();
    check_scan(db.iter().unwrap(), records, false, || watch.look(&db, "scan"));
    tell("forward scan", records, begun);
    let begun = Instant::now();
    check_scan(db.iter().unwrap().rev(), records, true, || watch.look(&db, "scan back"));
    tell("backward scan", records, begun);
    db.close().unwrap();
    drop(db);
    let begun = Instant::now();
    let db = open();
    tell("reopen", 1, begun);
    check_gets(&db, records, gets, || watch.look(&db, "get after a reopen"));
    check_scan(db.iter().unwrap(), records, false, || watch.look(&db, "scan after a reopen"));
    let stats = db.stats();
    writeln!(
        figures,
        "large: most anonymous memory {} MiB of {} MiB budget and {} MiB slack; levels {:?}",
        watch.most >> 20,
        budget >> 20,
        SLACK >> 20,
        stats.levels
    )
    .unwrap();
    db.close().unwrap();
}

#[test]
fn many_records_stay_within_the_budget() {
    let root = tempfile::tempdir().unwrap();
    let stderr = root.path().join("stderr");
    let dir = root.path().to_str().unwrap();
    let status = child("large::child_within_its_budget", &[(ROOT, dir)], Some(&stderr)).wait().unwrap();
    let errors = std::fs::read_to_string(&stderr).unwrap();
    print!("{}", std::fs::read_to_string(root.path().join("figures")).unwrap_or_default());
    assert!(status.success(), "{errors}");
    // Puts, gets and two scans, and gets and a scan after a reopen.
    campaign::count(&["I10"], "cases", 6);
}

/// A batch over its limit. The limit is 2 GiB, and so is the memory that this takes: `PEBBLE_LARGE=1` only.
#[test]
fn a_batch_beyond_its_limit_is_refused() {
    if env_number("PEBBLE_LARGE", 0) != 1 {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let db = Db::open(root.path().join("db")).unwrap();
    let value = vec![0; (1 << 30) - 100];
    let mut batch = WriteBatch::new();
    for n in 0..3_u8 {
        batch.put(&db.default_keyspace(), [n], &value);
    }
    let error = db.write(batch).unwrap_err();
    assert_eq!(crate::support::kind(&error), "InvalidArgument", "{error}");
    assert_eq!(db.iter().unwrap().count(), 0);
    db.put("k", "v").unwrap();
}
