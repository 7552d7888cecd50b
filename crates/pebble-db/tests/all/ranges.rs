//! Ranges, keyspaces and the space they leave; writers that do not wait; and a tree at rest.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pebble_db::{
    CompactionPolicy, Components, Db, Error, Executor, LogIo, StallReason, WriteBatch, WriteOptions,
};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::{FaultFs, SimFs};

use crate::campaign;
use crate::support::{Config, LOG_MODES, State, check_reads, dir, keyspace};

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn keys(iter: pebble_db::Iter) -> Vec<u32> {
    iter.map(|entry| u32::from_be_bytes((*entry.unwrap().0).try_into().unwrap())).collect()
}

fn table_bytes(db: &Db) -> u64 {
    db.stats().levels.iter().map(|level| level.bytes).sum()
}

/// Nine tenths of the keys go with one record: nothing else is written for them, their tables leave unread, and what
/// is left is found from both sides.
#[test]
fn a_range_delete_is_one_record_and_its_tables_leave_unread() {
    const COUNT: u32 = 60_000;
    let config = Config { table_len: 65_536, block_len: 1024, ..Config::tiny(LogIo::Map) };
    let db = config.sim(SimFs::new(1)).open().unwrap();
    for n in 0..COUNT {
        db.put(key(n), [7; 40]).unwrap();
    }
    db.compact_range(..).unwrap();
    let before = (db.stats(), table_bytes(&db));
    db.delete_range(key(COUNT / 20)..key(COUNT / 20 * 19)).unwrap();
    assert_eq!(db.stats().records_written, before.0.records_written + 1);

    let left: Vec<u32> = (0..COUNT / 20).chain(COUNT / 20 * 19..COUNT).collect();
    let check = |when: &str| {
        assert!(keys(db.iter().unwrap()) == left, "{when}, forward");
        let mut backward = keys_back(&db);
        backward.reverse();
        assert!(backward == left, "{when}, backward");
        assert!(db.get(key(COUNT / 2)).unwrap().is_none(), "{when}");
        assert!(db.get(key(0)).unwrap().is_some(), "{when}");
    };
    check("in the memtable");
    db.flush().unwrap();
    check("in a table");
    let after = db.stats();
    assert!(
        after.covered_bytes_dropped * 10 > before.1 * 8,
        "{} of {}",
        after.covered_bytes_dropped,
        before.1
    );
    let read = after.compaction_bytes_read - before.0.compaction_bytes_read;
    assert!(read * 10 < before.1, "{read} of {} bytes were read to free the space", before.1);
    assert!(table_bytes(&db) * 10 < before.1 * 2, "{} of {}", table_bytes(&db), before.1);
    db.compact_range(..).unwrap();
    check("merged");
    assert_eq!(db.stats().range_deletes, 0, "nothing is left for it to hide");
    assert_eq!(db.default_keyspace().approximate_len().unwrap(), left.len() as u64);
    db.verify().unwrap();
}

fn keys_back(db: &Db) -> Vec<u32> {
    let back = db.iter().unwrap().rev();
    back.map(|entry| u32::from_be_bytes((*entry.unwrap().0).try_into().unwrap())).collect()
}

/// What a snapshot sees stays, whatever is deleted over it, and goes with the snapshot.
#[test]
fn a_snapshot_keeps_what_lies_under_a_range_delete() {
    for log_io in LOG_MODES {
        let db = Config::tiny(log_io).sim(SimFs::new(2)).open().unwrap();
        for n in 0..2_000 {
            db.put(key(n), b"old").unwrap();
        }
        db.flush().unwrap();
        let snapshot = db.snapshot();
        db.delete_range(..).unwrap();
        db.put(key(5), b"new").unwrap();
        for step in 0..3 {
            match step {
                0 => {}
                1 => db.flush().unwrap(),
                _ => db.compact_range(..).unwrap(),
            }
            assert_eq!(keys(db.iter().unwrap()), [5], "step {step}");
            let seen = keys(snapshot.iter(&db.default_keyspace()).unwrap());
            assert_eq!(seen.len(), 2_000, "step {step}");
        }
        assert_eq!(db.stats().covered_bytes_dropped, 0);
        drop(snapshot);
        db.compact_range(..).unwrap();
        assert_eq!(db.stats().levels.iter().map(|level| level.records).sum::<u64>(), 1);
    }
}

/// In a batch the order counts: what comes behind a range delete stays.
#[test]
fn a_later_write_of_the_batch_wins_over_a_range_delete() {
    let db = Config::tiny(LogIo::Map).sim(SimFs::new(3)).open().unwrap();
    let space = db.keyspace("other").unwrap();
    space.put("b", "before").unwrap();
    db.put("b", "untouched").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&space, "a", "1").put(&space, "c", "1").delete_range(&space, "a".."c").put(&space, "b", "2");
    batch.delete_prefix(&space, "c").delete_range(&space, (Bound::Excluded("x"), Bound::Included("x")));
    assert_eq!(batch.len(), 5, "an empty range adds nothing");
    db.write(batch).unwrap();
    for reopened in [false, true] {
        let entries: Vec<_> = space.iter().unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(entries.len(), 1, "{reopened}");
        assert_eq!((&*entries[0].0, &*entries[0].1), (&b"b"[..], &b"2"[..]));
        assert_eq!(db.get("b").unwrap().as_deref(), Some(&b"untouched"[..]));
        db.flush().unwrap();
    }
}

/// The name of a dropped keyspace comes back empty, in this process and after every kind of end.
#[test]
fn a_dropped_keyspace_never_has_its_old_records_back() {
    for log_io in LOG_MODES {
        for flushed in [false, true] {
            let fs = SimFs::new(4);
            let config = Config::tiny(log_io);
            let db = config.sim(fs.clone()).open().unwrap();
            let old = db.keyspace("users").unwrap();
            for n in 0..500 {
                old.put(key(n), b"old").unwrap();
            }
            if flushed {
                db.compact_range(..).unwrap();
            }
            let snapshot = db.snapshot();
            assert!(db.drop_keyspace("users").unwrap());
            assert!(!db.drop_keyspace("users").unwrap(), "it is gone already");
            assert_eq!(db.keyspaces(), ["default"]);
            assert_eq!(keys(old.iter().unwrap()), []);
            assert_eq!(keys(snapshot.iter(&old).unwrap()).len(), 500);
            for refused in [old.put("k", "v"), old.delete("k"), old.delete_range(..)] {
                assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
            }
            let mut batch = WriteBatch::new();
            batch.put(&db.default_keyspace(), "k", "v").put(&old, "k", "v");
            assert!(matches!(db.write(batch), Err(Error::InvalidArgument(_))));
            assert!(db.get("k").unwrap().is_none(), "nothing of the batch was applied");
            drop(snapshot);

            let new = db.keyspace("users").unwrap();
            assert_eq!(keys(new.iter().unwrap()), []);
            new.put(key(1), b"new").unwrap();
            db.drop_keyspace("users").unwrap();
            drop((old, new));
            // Killed here; a new life may give the name the number that it had.
            let image = fs.kill();
            let db = config.sim(image).open().unwrap();
            assert_eq!(db.keyspaces(), ["default"]);
            let again = db.keyspace("users").unwrap();
            assert_eq!(keys(again.iter().unwrap()), []);
            again.put(key(2), b"newest").unwrap();
            db.compact_range(..).unwrap();
            assert_eq!(keys(again.iter().unwrap()), [2]);
        }
    }
    let db = Config::tiny(LogIo::Map).sim(SimFs::new(4)).open().unwrap();
    assert!(matches!(db.drop_keyspace("default"), Err(Error::InvalidArgument(_))));
    assert!(!db.drop_keyspace("never made").unwrap());
    campaign::count(&["dropped-keyspace", "I5"], "cases", 4);
}

/// Clearing one keyspace leaves its neighbours alone.
#[test]
fn clearing_ends_at_the_keyspace() {
    let db = Config::tiny(LogIo::Map).sim(SimFs::new(5)).open().unwrap();
    let mut expected = State::new();
    for name in ["default", "a", "b", "c"] {
        let space = keyspace(&db, name).unwrap();
        for n in 0..300 {
            space.put(key(n), name).unwrap();
            expected.entry(name.into()).or_default().insert(key(n).to_vec(), name.into());
        }
    }
    db.keyspace("b").unwrap().clear().unwrap();
    expected.remove("b");
    for step in 0..3 {
        check_reads(&db, &expected, &[&key(7)]).unwrap();
        match step {
            0 => db.flush().unwrap(),
            _ => db.compact_range(..).unwrap(),
        }
    }
}

/// A part of the tree is merged, the rest left alone; progress is told, and a watcher ends it.
#[test]
fn a_range_is_compacted_alone_and_can_be_ended() {
    let policy = CompactionPolicy {
        fan_out: [1000; 6],
        last_percent: CompactionPolicy::NEVER,
        ..CompactionPolicy::default()
    };
    let config = Config { compaction: policy, ..Config::tiny(LogIo::Map) };
    let db = config.sim(SimFs::new(6)).open().unwrap();
    let (left, right) = (db.keyspace("left").unwrap(), db.keyspace("right").unwrap());
    for round in 0..4_u8 {
        for n in 0..400 {
            left.put(key(n), [round; 30]).unwrap();
            right.put(key(n), [round; 30]).unwrap();
        }
        db.flush().unwrap();
    }
    let told = std::sync::Mutex::new(Vec::new());
    left.compact_range_with(.., |progress| {
        told.lock().unwrap().push((progress.done_bytes, progress.left_bytes));
        ControlFlow::Continue(())
    })
    .unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.len() > 1 && told[0].0 == 0 && told[0].1 > 0, "{told:?}");
    assert_eq!(left.size_estimate(..).unwrap().keys.div_ceil(10), 40, "to the exactness of a block or two");
    let stand = db.stats();
    db.compact_range_with(.., |_| ControlFlow::Break(())).unwrap();
    assert_eq!(db.stats().compactions, stand.compactions, "ended before it began");
    db.compact_range(..).unwrap();
    assert_eq!(right.size_estimate(..).unwrap().keys.div_ceil(10), 40);
    let levels: Vec<_> = db.stats().levels.iter().map(|level| (level.level, level.runs)).collect();
    assert_eq!(levels, [(6, 1)]);
}

/// A writer that must not wait is told why it would have to, and goes on when the reason is gone.
#[test]
fn a_write_that_would_wait_is_refused_with_the_reason() {
    let fs = FaultFs::over_sim(SimFs::new(7));
    let config = Config::tiny(LogIo::Map);
    let db = config.sim_with(Arc::new(fs.clone()), Executor::Threads).open().unwrap();
    let space = db.default_keyspace();
    // No table can be made, so memtables fill up behind the flush.
    fs.inject(Fault::once(Op::Create, 0, FaultKind::TooManyFiles).sticky().on(".sst"));
    let mut written = 0_u32;
    let refused = loop {
        let mut batch = WriteBatch::new();
        batch.put(&space, key(written), [3; 2_000]);
        match db.try_write(&batch, &WriteOptions::default()) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100_000, "memtables take everything");
    };
    assert!(matches!(refused, Error::Stalled { reason: StallReason::Flush }), "{refused:?}");
    assert!(refused.is_retryable());
    fs.clear();
    let begun = Instant::now();
    loop {
        let mut batch = WriteBatch::new();
        batch.put(&space, key(written), [3; 2_000]);
        match db.try_write(&batch, &WriteOptions::default()) {
            Ok(()) => break,
            Err(Error::Stalled { .. }) => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never goes on");
    }
    assert_eq!(keys(db.iter().unwrap()), (0..=written).collect::<Vec<_>>());
    campaign::count(&["stalled", "I9"], "cases", 1);
}

/// Nobody writes: the tree comes to one run by itself, and what was loaded in random order reads like what was loaded
/// in order.
#[test]
fn a_tree_at_rest_comes_to_one_run() {
    let home = tempfile::tempdir().unwrap();
    let config = Config { compaction: CompactionPolicy::default(), ..Config::tiny(LogIo::Map) };
    let db = config.real(home.path()).open().unwrap();
    for n in 0..20_000_u32 {
        db.put(key(n.wrapping_mul(2_654_435_761)), [9; 50]).unwrap();
    }
    await_one_run(&db);
    assert_eq!(db.iter().unwrap().count(), 20_000);
}

fn await_one_run(db: &Db) {
    let begun = Instant::now();
    loop {
        let stats = db.stats();
        let levels: Vec<_> = stats.levels.iter().map(|level| (level.level, level.runs)).collect();
        if levels == [(6, 1)] && stats.sealed_memtables == 0 && stats.merges_running == 0 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{levels:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// 5,000 keys in one run.
fn loaded_and_at_rest(home: &Path) -> Db {
    let db = Config::tiny(LogIo::Map).real(home).open().unwrap();
    for n in 0..5_000 {
        db.put(key(n), [9; 100]).unwrap();
    }
    db.flush().unwrap();
    await_one_run(&db);
    db
}

/// Nothing but the first ten keys is left of them, in tables either, though nobody writes.
fn await_the_space(db: &Db) {
    let begun = Instant::now();
    while table_bytes(db) > 20_000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} bytes", table_bytes(db));
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(keys(db.iter().unwrap()), (0..10).collect::<Vec<_>>());
}

/// A rest also frees the space under a range delete that still lies in the memtable.
#[test]
fn a_rest_frees_the_space_of_a_range() {
    let home = tempfile::tempdir().unwrap();
    let db = loaded_and_at_rest(home.path());
    assert!(table_bytes(&db) > 400_000);
    db.delete_range(key(10)..).unwrap();
    await_the_space(&db);
}

/// Limits of ranges, and ranges on a database that takes nothing any more.
#[test]
fn ranges_have_the_limits_of_keys() {
    let db = Config::tiny(LogIo::Map).sim(SimFs::new(8)).open().unwrap();
    db.put("k", "v").unwrap();
    let long = vec![b'z'; 65_536];
    for wrong in [db.delete_range(&long[..]..), db.delete_range(..&long[..])] {
        assert!(matches!(wrong, Err(Error::InvalidArgument(_))), "{wrong:?}");
    }
    db.delete_range("z".."a").unwrap();
    db.delete_range(.."").unwrap();
    assert!(db.contains("k").unwrap());
    let longest = vec![b'z'; 65_535];
    db.put(&longest, "v").unwrap();
    db.delete_range(..=&longest[..]).unwrap();
    assert_eq!(db.iter().unwrap().count(), 0);
    db.close().unwrap();
    assert!(matches!(db.delete_range(..), Err(Error::Closed)));
    assert!(matches!(db.drop_keyspace("k"), Err(Error::Closed)));
}

/// Each range delete copies the list that a memtable holds: so the list is short, and a full one is flushed.
#[test]
fn many_small_range_deletes_are_bounded_by_flushes() {
    let components =
        Components { fs: Arc::new(SimFs::new(9)), executor: Executor::Inline, ..Components::default() };
    let db = Db::builder(Path::new(dir())).sync_interval(None).components(components).open().unwrap();
    for n in 0..6_000 {
        db.put(key(n), b"v").unwrap();
    }
    for n in (0..6_000).step_by(2) {
        db.delete_range(key(n)..key(n + 1)).unwrap();
    }
    let stats = db.stats();
    assert!(stats.flushes + stats.sealed_memtables as u64 >= 2, "a memtable holds a bounded number of them");
    assert_eq!(keys(db.iter().unwrap()), (0..6_000).filter(|n| n % 2 == 1).collect::<Vec<_>>());
    assert!(db.get(key(4_000)).unwrap().is_none() && db.get(key(4_001)).unwrap().is_some());
}

/// One batch may bring any number of them: they cost their own list once, not once each.
#[test]
fn a_batch_of_range_deletes_is_taken_at_once() {
    const COUNT: u32 = 40_000;
    let db = Config::tiny(LogIo::Map).sim(SimFs::new(10)).open().unwrap();
    let (mut puts, mut deletes) = (WriteBatch::new(), WriteBatch::new());
    let keyspace = db.default_keyspace();
    for n in 0..COUNT {
        puts.put(&keyspace, key(n), b"v");
        if n % 2 == 0 {
            deletes.delete_range(&keyspace, key(n)..key(n + 1));
        }
    }
    db.write(puts).unwrap();
    db.write(deletes).unwrap();
    assert_eq!(db.stats().range_deletes, COUNT as usize / 2);
    for _ in 0..2 {
        assert!(db.get(key(4_000)).unwrap().is_none() && db.get(key(4_001)).unwrap().is_some());
        assert_eq!(db.iter().unwrap().count(), COUNT as usize / 2);
        db.flush().unwrap();
    }
}

/// A snapshot keeps what lies under a range delete. Nobody writes any more when it goes, and the space comes back.
#[test]
fn the_space_of_a_range_comes_back_when_the_last_snapshot_goes() {
    let home = tempfile::tempdir().unwrap();
    let db = loaded_and_at_rest(home.path());
    let snapshot = db.snapshot();
    db.delete_range(key(10)..).unwrap();
    db.flush().unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(table_bytes(&db) > 400_000, "the snapshot sees it");
    assert_eq!(snapshot.iter(&db.default_keyspace()).unwrap().count(), 5_000);
    drop(snapshot);
    await_the_space(&db);
}
