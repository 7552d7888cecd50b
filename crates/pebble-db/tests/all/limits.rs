//! What a caller may ask for and what not: names, options, creation, locks, closing.

use std::io::Read;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pebble_db::{
    CompactionPolicy, Compression, Db, Error, Executor, Iter, Keyspace, LogIo, Snapshot, Value, WriteBatch,
    WriteOptions,
};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, Fs, SimFs};

use crate::support::{Config, LOG_MODES, bytes, dir, dump, kind, mix, scan};

const OTHER: &str = "PEBBLE_TEST_OPEN";

fn tiny() -> Db {
    Config::tiny(LogIo::Map).sim(SimFs::new(1)).open().unwrap()
}

fn refused<T: std::fmt::Debug>(outcome: pebble_db::Result<T>) {
    let error = outcome.unwrap_err();
    assert_eq!(kind(&error), "InvalidArgument", "{error}");
}

#[test]
fn handles_may_go_anywhere() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Db>();
    shared::<Keyspace>();
    shared::<Snapshot>();
    shared::<Value>();
    shared::<Error>();
    sent::<Iter>();
}

/// The block cache has what memtables leave of the budget, and gives it back when they need it.
#[test]
fn the_budget_is_shared_between_cache_and_memtables() {
    const BUDGET: u64 = 8 << 20;
    let root = tempfile::tempdir().unwrap();
    let builder = Db::builder(root.path().join("db")).memory_budget(BUDGET).compression(Compression::Lz4);
    let db = builder.open().unwrap();
    // Compressed by half, so that a block is expanded into the cache.
    let value = |n| [bytes(n, 500), vec![0; 500]].concat();
    let key = |n: u64| mix(n).to_be_bytes();
    let put_all = || (0..10_000).for_each(|n| db.put(key(n), value(n)).unwrap());
    put_all();
    db.flush().unwrap();
    db.compact_range(..).unwrap();
    (0..10_000).for_each(|n| assert_eq!(db.get(key(n)).unwrap().unwrap(), value(n)[..]));
    let read = db.stats();
    assert!(read.cache_bytes > BUDGET / 2 && read.memory_bytes <= BUDGET, "{read:?}");
    // Small records, whose index is large, while the large ones are read.
    let (mut most, mut index_most) = (0, 0);
    for n in 0..300_000_u64 {
        db.put(key(n + 10_000), b"").unwrap();
        assert!(db.get(key(mix(n) % 10_000)).unwrap().is_some());
        if n % 1_000 == 0 {
            let stats = db.stats();
            assert!(stats.memory_bytes <= BUDGET, "{stats:?}");
            most = most.max(stats.memory_bytes);
            index_most = index_most.max(stats.memtable_index_bytes as u64);
        }
    }
    assert!(most > BUDGET * 3 / 4 && index_most > BUDGET / 8, "nothing was scarce: {most} {index_most}");
}

#[test]
fn batches_may_be_empty_reused_and_must_be_of_one_database() {
    let (db, other) = (tiny(), tiny());
    let before = db.stats().visible_seqno;
    db.write(WriteBatch::new()).unwrap();
    db.write_with(WriteBatch::new(), &WriteOptions::sync()).unwrap();
    assert_eq!(db.stats().visible_seqno, before, "an empty batch is no commit");
    let mut batch = WriteBatch::new();
    batch.put(&db.default_keyspace(), "k", "1").delete(&db.default_keyspace(), "k");
    batch.put(&db.default_keyspace(), "k", "3");
    db.write(batch.clone()).unwrap();
    assert_eq!(db.get("k").unwrap().unwrap(), "3", "the later one wins");
    refused(other.write(batch.clone()));
    batch.put(&other.default_keyspace(), "k", "4");
    refused(db.write(batch.clone()));
    assert_eq!(db.get("k").unwrap().unwrap(), "3");
    assert_eq!(other.get("k").unwrap(), None);
    batch.clear();
    assert!(batch.is_empty());
    batch.put(&other.default_keyspace(), "k", "5");
    other.write(batch).unwrap();
    assert_eq!(other.get("k").unwrap().unwrap(), "5");
}

/// The same number is another keyspace in another database, or none.
#[test]
fn a_snapshot_reads_the_keyspaces_of_its_own_database() {
    let (db, other) = (tiny(), tiny());
    let (own, foreign) = (db.keyspace("own").unwrap(), other.keyspace("foreign").unwrap());
    own.put("k", "1").unwrap();
    let snapshot = db.snapshot();
    for foreign in [&foreign, &other.default_keyspace()] {
        refused(snapshot.get(foreign, "k"));
        refused(snapshot.contains(foreign, "k"));
        refused(snapshot.iter(foreign).map(drop));
        refused(snapshot.range(foreign, "a".."z").map(drop));
        refused(snapshot.prefix(foreign, "k").map(drop));
    }
    assert_eq!(snapshot.get(&db.clone().keyspace("own").unwrap(), "k").unwrap().unwrap(), "1");
}

#[test]
fn keyspaces_have_names() {
    let fs = SimFs::new(1);
    let config = Config::tiny(LogIo::Map);
    let db = config.sim(fs.clone()).open().unwrap();
    refused(db.keyspace(""));
    refused(db.keyspace(&"n".repeat(256)));
    let long = "n".repeat(255);
    for name in ["a", "a/b", "..", "\0", " ", "\u{2713} \u{e9}", &long] {
        db.keyspace(name).unwrap().put("name", name).unwrap();
    }
    db.keyspace("default").unwrap().put("name", "default").unwrap();
    assert_eq!(db.get("name").unwrap().unwrap(), "default", "the default keyspace has that name");
    let mut names = db.keyspaces();
    assert!(names.is_sorted());
    assert_eq!(names.len(), 8);
    drop(db);
    let db = config.sim(fs).open().unwrap();
    assert_eq!(db.keyspaces(), names);
    for name in names.drain(..) {
        assert_eq!(db.keyspace(&name).unwrap().get("name").unwrap().unwrap(), *name);
    }
}

#[test]
fn options_that_make_no_sense_create_nothing() {
    let fs = SimFs::new(1);
    let config = Config::tiny(LogIo::Map);
    for (at, wrong) in [
        config.sim(fs.clone()).memory_budget(0),
        config.sim(fs.clone()).block_len(0),
        config.sim(fs.clone()).block_len(usize::MAX),
        config.sim(fs.clone()).table_len(0),
        config.sim(fs.clone()).merge_threads(0),
        config.sim(fs.clone()).sync_interval(Some(Duration::ZERO)),
        config.sim(fs.clone()).sync_interval(Some(Duration::from_micros(999))),
        config.sim(fs.clone()).segment_len(0, 0),
        config.sim(fs.clone()).segment_len(8192, 4096),
        config.sim(fs.clone()).point_index(pebble_db::PointIndex::Bloom { bits_per_key: 0 }),
        config.sim(fs.clone()).point_index(pebble_db::PointIndex::Bloom { bits_per_key: 255 }),
    ]
    .into_iter()
    .enumerate()
    {
        let error = wrong.open().map(drop).expect_err(&format!("wrong option {at}"));
        assert_eq!(kind(&error), "InvalidArgument", "wrong option {at}: {error}");
        assert!(fs.metadata(dir()).unwrap().is_none(), "wrong option {at}: something was created");
    }
}

#[test]
fn without_leave_to_create_nothing_is_created() {
    let fs = SimFs::new(1);
    let config = Config::tiny(LogIo::Map);
    let open = || config.sim(fs.clone()).create_if_missing(false).open();
    assert_eq!(kind(&open().unwrap_err()), "NotADatabase");
    assert!(fs.list(std::path::Path::new("/")).unwrap().is_empty());
    fs.create_dir(dir()).unwrap();
    assert_eq!(kind(&open().unwrap_err()), "NotADatabase");
    assert!(dump(&fs).is_empty());
    crate::support::write_file(&fs, "notes.txt", b"mine");
    assert_eq!(kind(&open().unwrap_err()), "NotADatabase");
    assert_eq!(dump(&fs).len(), 1);
    drop(config.sim(fs.clone()).open().unwrap());
    drop(open().unwrap());
}

#[test]
fn a_first_open_on_a_full_disk_can_be_made_later() {
    for log_io in LOG_MODES {
        let config = Config::tiny(log_io);
        let (mut refused, mut capacity) = (0, 0);
        loop {
            let fs = SimFs::new(1);
            fs.set_capacity(Some(capacity));
            let opened = config.sim(fs.clone()).open().map(|db| db.close());
            fs.set_capacity(None);
            if let Err(error) = &opened {
                assert_eq!(kind(error), "NoSpace", "{capacity} bytes: {error}");
                refused += 1;
            }
            for image in [fs.kill(), fs.crash(capacity)] {
                let db = config.sim(image).open().unwrap_or_else(|error| panic!("{capacity} bytes: {error}"));
                assert!(scan(&db).unwrap().is_empty());
                db.put("k", "v").unwrap();
            }
            if opened.is_ok() {
                break;
            }
            capacity += if capacity < 600 { 1 } else { 64 };
        }
        assert!(refused > 0);
    }
}

#[test]
fn a_first_open_that_fails_at_any_call_can_be_made_later() {
    for log_io in LOG_MODES {
        let config = Config::tiny(log_io);
        for nth in 0.. {
            let sim = SimFs::new(1);
            let fs = FaultFs::over_sim(sim.clone());
            fs.inject(Fault::once(Op::Any, nth, FaultKind::Io).sticky());
            drop(config.sim(fs.clone()).open());
            for image in [sim.kill(), sim.crash(nth)] {
                let db = config.sim(image).open().unwrap_or_else(|error| panic!("call {nth}: {error}"));
                assert!(scan(&db).unwrap().is_empty());
                db.put("k", "v").unwrap();
            }
            if fs.fired() == 0 {
                break;
            }
        }
    }
}

/// The directory's own name must be durable before anything in it is called so, whoever made the directory.
#[test]
fn a_directory_that_was_there_already_is_durable_as_well() {
    for log_io in LOG_MODES {
        let fs = SimFs::new(1);
        fs.create_dir(dir()).unwrap();
        let db = Config::tiny(log_io).sim(fs.clone()).open().unwrap();
        db.put_with("synced", "1", &WriteOptions::sync()).unwrap();
        let cut = fs.crash_with(CrashImage::NothingUnsynced);
        let db = Config::tiny(log_io).sim(cut).open().unwrap();
        assert_eq!(db.get("synced").unwrap().as_deref(), Some(&b"1"[..]), "{log_io:?}");
    }
}

/// A process that is being started has a copy of every descriptor until it becomes its program. The lock must not
/// live on in such a copy: who has closed a database can open it again.
#[cfg(unix)]
#[test]
fn a_close_lets_go_while_other_threads_start_processes() {
    let root = tempfile::tempdir().unwrap();
    let config = Config::tiny(LogIo::Map);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                Command::new("true").status().unwrap();
            }
        });
        let mut locked = 0;
        for n in 0..200_u64 {
            match config.real(&root.path().join("db")).open() {
                Ok(db) => {
                    db.put("k", n.to_be_bytes()).unwrap();
                    db.close().unwrap();
                }
                Err(error) => {
                    assert_eq!(kind(&error), "Locked", "{error}");
                    locked += 1;
                }
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(locked, 0, "opens that found nobody's lock");
    });
}

/// What another process gets when it opens the database, and how long that took it.
pub fn open_in_a_child(path: &std::path::Path) -> (String, Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["limits::child_that_opens", "--exact", "--nocapture"])
        .env(OTHER, path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    let (_, answer) = output.split_once("answer <").unwrap();
    let (answer, rest) = answer.split_once('>').unwrap();
    let took = rest.split_whitespace().nth(1).unwrap().parse().unwrap();
    (answer.to_owned(), Duration::from_micros(took))
}

/// The other process of [`open_in_a_child`]; nothing by itself.
#[test]
fn child_that_opens() {
    let Some(path) = std::env::var_os(OTHER) else { return };
    let begun = Instant::now();
    let opened = Db::open(path);
    let took = begun.elapsed().as_micros();
    let answer = match opened {
        Ok(db) => String::from_utf8(db.get("k").unwrap().unwrap().to_vec()).unwrap(),
        Err(error) => kind(&error).to_owned(),
    };
    println!("answer <{answer}> after {took} microseconds");
}

/// Where a merge is told of, in whatever thread, nothing can wait for it.
#[test]
fn what_a_compaction_tells_cannot_wait_for_it() {
    for (merge_threads, executor) in [(1, Executor::Inline), (1, Executor::Threads), (3, Executor::Threads)] {
        let compaction = CompactionPolicy {
            fan_out: [1_000; 6],
            last_percent: CompactionPolicy::NEVER,
            ..CompactionPolicy::default()
        };
        let config = Config { merge_threads, compaction, table_len: 65_536, ..Config::tiny(LogIo::Map) };
        let db = config.sim_with(Arc::new(SimFs::new(1)), executor).open().unwrap();
        for n in 0..40_000_u64 {
            db.put(mix(n).to_be_bytes(), bytes(n, 40)).unwrap();
        }
        let (done, outcome) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let db = db.clone();
            move || {
                let told = std::sync::Mutex::new(std::collections::HashSet::new());
                let compacted = db.compact_range_with(.., |_| {
                    told.lock().unwrap().insert(std::thread::current().id());
                    refused(db.close());
                    refused(db.compact_range(..));
                    refused(db.default_keyspace().compact_range("a".."b"));
                    drop(db.clone());
                    ControlFlow::Continue(())
                });
                done.send(compacted.map(|()| told.into_inner().unwrap().len())).unwrap();
            }
        });
        let threads = outcome.recv_timeout(Duration::from_secs(60)).expect("it hangs").unwrap();
        assert_eq!(threads > 1, merge_threads > 1, "{threads} threads told");
        thread.join().unwrap();
        db.compact_range(..).unwrap();
        db.close().unwrap();
    }
}

#[test]
fn after_close_calls_say_so_and_what_is_held_goes_on() {
    for log_io in LOG_MODES {
        let fs = SimFs::new(1);
        let db = Config::tiny(log_io).sim(fs).open().unwrap();
        let users = db.keyspace("users").unwrap();
        for n in 0..30 {
            users.put(format!("{n:02}"), format!("value {n}")).unwrap();
            if n % 10 == 5 {
                db.flush().unwrap();
            }
        }
        let (iter, value, snapshot) =
            (users.iter().unwrap(), users.get("07").unwrap().unwrap(), db.snapshot());
        users.put("07", "another").unwrap();
        db.compact_range(..).unwrap();
        db.close().unwrap();
        db.close().unwrap();
        assert_eq!(value, "value 7");
        let found: Vec<_> = iter.map(|entry| entry.unwrap().1.to_vec()).collect();
        let wanted: Vec<_> = (0..30).map(|n| format!("value {n}").into_bytes()).collect();
        assert_eq!(found, wanted);
        let closed = |outcome: pebble_db::Result<()>| assert_eq!(kind(&outcome.unwrap_err()), "Closed");
        closed(db.put("k", ""));
        closed(users.delete("k"));
        closed(db.get("k").map(drop));
        closed(db.iter().map(drop));
        closed(snapshot.get(&users, "07").map(drop));
        closed(db.flush());
        closed(db.persist());
        closed(db.compact_range(..));
        closed(db.keyspace("new").map(drop));
        closed(db.verify().map(drop));
        let mut batch = WriteBatch::new();
        batch.put(&users, "k", "");
        closed(db.write(batch));
    }
}
