//! Loom models of the engine: its own types, in every interleaving and every order that the memory model allows.
//!
//! The disk is simulated and does each call in one step. A picture is swapped by the stand-in of `pebble_format`, and
//! no wait times out (`stand_in.rs`). Models of a whole [`Core`] drive its methods from the model's threads, so that
//! what is not meant does not run.
//!
//! Threading: loom's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::model::Builder;
use loom::thread;
use pebble_format::log::LogPosition;
use pebble_format::{HeadPrefix, InternalKey, KeyspaceId, Kind, Seqno, Trailer, record};
use pebble_manifest::Version;
use pebble_memtable::{Memtable, MemtableWriter};
use pebble_vfs::fault::{Fault, FaultFs, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{Fs, ManualClock, SimFs};
use pebble_wal::{LogIo, LogOptions, LogWriter};

use crate::commit::Write;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::open;
use crate::options::{Components, Durability, Executor, Options, ReadMode, SEALED_MAX};
use crate::snapshots::Snapshots;
use crate::state::{ReadState, Sealed, State, Tree, Visible};
use crate::work;

/// So long that two values fill a memtable of the smallest budget.
const LARGE: usize = 40 << 10;

/// `bound` preemptions, or `PEBBLE_LOOM_BOUND`.
fn check(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    let from_env = std::env::var("PEBBLE_LOOM_BOUND").ok().and_then(|bound| bound.parse().ok());
    builder.preemption_bound = Some(from_env.unwrap_or(bound));
    builder.max_branches = 200_000;
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions");
    assert!(executions > 1, "a model that does not branch models nothing");
}

/// A log and the memtable over it, as the committer has them.
struct Writer {
    log: LogWriter,
    memtable: MemtableWriter,
}

impl Writer {
    fn new() -> Self {
        let options = LogOptions {
            io: LogIo::Write,
            segment_len_min: 4096,
            segment_len_max: 4096,
            ..LogOptions::new([1; 16])
        };
        let fs: Arc<dyn Fs> = Arc::new(SimFs::new(1));
        let log = LogWriter::create(fs, Path::new("/"), options, 1, LogPosition::ZERO).unwrap();
        Self { log, memtable: Memtable::new(HeadPrefix::none()).0 }
    }

    fn put(&mut self, key: u8, seqno: u64, value: &[u8]) {
        let trailer = Trailer::new(Seqno(seqno), Kind::Put);
        let len = record::encoded_len(1, value.len());
        let encode = |to: &mut [u8]| _ = record::encode(to, KeyspaceId(0), &[key], trailer, value).unwrap();
        let appended = self.log.append(len, 1, encode).unwrap();
        self.memtable.attach(self.log.region()).unwrap();
        self.memtable.insert(appended.offset).unwrap();
    }

    /// The next memtable and segment; the old memtable, sealed.
    fn rotate(&mut self, last: u64) -> Arc<Sealed> {
        self.log.rotate().unwrap();
        let full = std::mem::replace(&mut self.memtable, Memtable::new(HeadPrefix::none()).0);
        Arc::new(Sealed {
            memtable: Arc::clone(full.shared()),
            last_seqno: Seqno(last),
            next_segment: self.log.segment(),
        })
    }
}

fn empty_tree() -> Arc<Tree> {
    Arc::new(Tree::new(Arc::new(Version::default()), Vec::new(), Vec::new()))
}

fn lookup(key: &u8, seqno: Seqno) -> InternalKey<'_> {
    InternalKey::lookup(KeyspaceId(0), std::slice::from_ref(key), seqno)
}

fn seqno_in(state: &ReadState, key: u8, seqno: Seqno) -> Option<u64> {
    state.memtables().find_map(|memtable| Some(memtable.get(lookup(&key, seqno))?.seqno().0))
}

/// A memtable is sealed between two commits: a picture and a number that agree show every commit up to the number, and
/// a lone picture shows what was there before.
#[test]
fn rotation_against_readers() {
    check(3, || {
        let mut writer = Writer::new();
        writer.put(1, 1, b"");
        let first = ReadState {
            memtable: Arc::clone(writer.memtable.shared()),
            sealed: Vec::new(),
            tree: empty_tree(),
        };
        let shared = Arc::new((State::new(first), Visible::new(Seqno(1))));
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (state, visible) = &*shared;
                let (picture, number) = state.consistent(visible);
                for seqno in 1..=number.0 {
                    let key = u8::try_from(seqno).unwrap();
                    assert_eq!(seqno_in(&picture, key, number), Some(seqno), "{seqno} of {}", number.0);
                }
                assert!(number <= visible.get(), "the number only rises");
            })
        };
        let (state, visible) = &*shared;
        let sealed = writer.rotate(1);
        state.replace(|old| ReadState {
            memtable: Arc::clone(writer.memtable.shared()),
            sealed: vec![sealed],
            tree: Arc::clone(&old.tree),
        });
        writer.put(2, 2, b"");
        visible.raise(Seqno(2));
        reader.join().unwrap();
    });
}

/// A snapshot is in the list that a merge took, or what it sees is at least what was visible then.
#[test]
fn snapshots_against_commits_and_merges() {
    check(3, || {
        let shared = Arc::new((Arc::new(Snapshots::default()), Visible::new(Seqno(1))));
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.0.register(|| shared.1.get()))
        };
        let committer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.raise(Seqno(2));
                shared.1.raise(Seqno(3));
            })
        };
        let newest = shared.1.get();
        let list = shared.0.list();
        let snapshot = reader.join().unwrap();
        committer.join().unwrap();
        let seen = snapshot.seqno();
        assert!(list.contains(&seen) || seen >= newest, "{seen:?} not in {list:?}, {newest:?} visible");
        assert_eq!((shared.0.oldest(), shared.0.count()), (Some(seen), 1));
        drop(snapshot);
        assert_eq!(shared.0.count(), 0);
    });
}

/// A flushed memtable leaves the picture and its segment is given back, while a reader may hold the picture, or only a
/// value: what it holds stays as it was, though the next commits want the memory.
#[test]
fn a_segment_recycled_against_readers_that_pin_it() {
    check(3, || {
        let mut writer = Writer::new();
        writer.put(1, 1, &[1; 3000]);
        let sealed = writer.rotate(1);
        let first = ReadState {
            memtable: Arc::clone(writer.memtable.shared()),
            sealed: vec![Arc::clone(&sealed)],
            tree: empty_tree(),
        };
        let state = Arc::new(State::new(first));
        let reader = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let picture = state.load_full();
                let found = picture.memtables().find_map(|table| table.get_pinned(lookup(&1, Seqno(1))));
                drop(picture);
                let Some(value) = found.map(|record| record.into_value()) else { return };
                for _ in 0..2 {
                    state.load();
                    assert!(value.iter().all(|byte| *byte == 1), "pinned, so the same");
                }
            })
        };
        state.replace(|old| ReadState {
            memtable: Arc::clone(&old.memtable),
            sealed: Vec::new(),
            tree: Arc::clone(&old.tree),
        });
        let next = sealed.next_segment;
        drop(sealed);
        writer.log.retire(next);
        writer.put(2, 2, &[2; 3000]);
        writer.log.rotate().unwrap();
        writer.put(3, 3, &[3; 3000]);
        reader.join().unwrap();
    });
}

fn core_on(fs: impl Fs, executor: Executor) -> Arc<Core> {
    let mut options = Options::default();
    options.memory_budget = 1 << 20;
    options.log_io = LogIo::Write;
    options.read_mode = ReadMode::Pread;
    (options.segment_len_min, options.segment_len_max) = (4096, 64 << 10);
    options.merge_threads = 1;
    let components = Components { fs: Arc::new(fs), clock: Arc::new(ManualClock::new()), executor };
    open::open(Path::new("/db"), options, components).unwrap()
}

fn put(core: &Core, key: u8, value: &[u8], durability: Durability) -> Result<()> {
    let write = Write::One { keyspace: KeyspaceId::DEFAULT, key: &[key], kind: Kind::Put, value };
    core.commit(write, durability)
}

fn get(core: &Core, key: u8) -> Option<Vec<u8>> {
    core.get(KeyspaceId::DEFAULT, &[key], None).unwrap().map(|value| value.to_vec())
}

/// A database whose next write has to wait for a flush, and a writer that does.
fn with_a_waiter(faults: &FaultFs) -> (Arc<Core>, thread::JoinHandle<Result<()>>) {
    let core = core_on(faults.clone(), Executor::Threads);
    for key in 0..=SEALED_MAX {
        put(&core, u8::try_from(key).unwrap(), &[0; LARGE], Durability::Buffered).unwrap();
    }
    let waiter = Arc::clone(&core);
    (core, thread::spawn(move || put(&waiter, 9, &[9; LARGE], Durability::Buffered)))
}

/// A writer waits for a flush, which ends well or for lack of space: it goes on, or gets the reason.
#[test]
fn a_flush_against_its_waiter() {
    for full in [false, true] {
        check(2, move || {
            let faults = FaultFs::over_sim(SimFs::new(1));
            let (core, waiter) = with_a_waiter(&faults);
            if full {
                faults.inject(Fault::once(Op::Create, 0, FaultKind::NoSpace).on(".sst").sticky());
            }
            let flushed = core.flush_oldest();
            let written = waiter.join().unwrap();
            if full {
                assert!(matches!(flushed, Err(Error::NoSpace(_))));
                assert!(matches!(written, Err(Error::NoSpace(_))), "{written:?}");
            } else {
                assert!(flushed.is_ok_and(|done| done) && written.is_ok());
            }
        });
    }
}

/// A writer waits for a flush, and the thread that would do it panics.
#[test]
fn a_panic_against_a_waiter() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"a model's panic") {
            report(info);
        }
    }));
    check(3, || {
        let (core, waiter) = with_a_waiter(&FaultFs::over_sim(SimFs::new(1)));
        let background = work::spawn(&core, "model", |_| panic!("a model's panic")).unwrap();
        let written = waiter.join().unwrap();
        assert!(matches!(written, Err(Error::ReadOnly { .. })), "{written:?}");
        background.join().unwrap();
        assert!(core.status.stopped().is_some() && core.status.check_open().is_ok());
    });
}

/// A writer waits for a flush, and the database is closed.
#[test]
fn a_close_against_a_waiter() {
    check(3, || {
        let (core, waiter) = with_a_waiter(&FaultFs::over_sim(SimFs::new(1)));
        core.work.stop();
        core.merges.close();
        core.refuse_everything();
        let written = waiter.join().unwrap();
        assert!(matches!(written, Err(Error::Closed)), "{written:?}");
        assert!(matches!(core.status.check_writable(), Err(Error::Closed)));
    });
}

/// Two sync commits and one buffered one, and a sync that fails: what was acknowledged or seen is on the device, and
/// the first cause is what every later write gets.
#[test]
fn a_failing_sync_against_commits_and_readers() {
    for fails_at in [None, Some(0), Some(1)] {
        check(2, move || {
            let disk = SimFs::new(1);
            let faults = FaultFs::over_sim(disk.clone());
            let core = core_on(faults.clone(), Executor::Inline);
            if let Some(nth) = fails_at {
                faults.inject(Fault::once(Op::Sync, nth, FaultKind::LyingSync).on(".log").sticky());
            }
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || put(&core, 1, b"1", Durability::Sync))
            };
            let mine = put(&core, 2, b"2", Durability::Sync);
            let seen = core.visible.get();
            let other = other.join().unwrap();
            assert!(fails_at.is_some() || mine.is_ok() && other.is_ok());
            assert!(mine.is_ok() == (get(&core, 2).is_some()) && other.is_ok() == get(&core, 1).is_some());
            assert_eq!(core.status.stopped().is_some(), mine.is_err() || other.is_err());
            let after = core_on(disk.crash_with(CrashImage::NothingUnsynced), Executor::Inline);
            assert!(after.visible.get() >= seen, "seen, so there after a power cut");
            assert!(mine.is_err() || get(&after, 2).is_some(), "acknowledged, so there after a power cut");
            assert!(other.is_err() || get(&after, 1).is_some(), "acknowledged, so there after a power cut");
        });
    }
}

/// A flush and the merge behind it replace a table and remove its file, while a reader may hold the version that it is
/// in.
#[test]
fn tables_removed_against_a_reader() {
    check(2, || {
        let disk = SimFs::new(1);
        let core = core_on(disk.clone(), Executor::Inline);
        put(&core, 1, b"1", Durability::Buffered).unwrap();
        core.flush_all().unwrap();
        put(&core, 1, b"2", Durability::Buffered).unwrap();
        let tables = || -> Vec<_> {
            let names = disk.list(Path::new("/db")).unwrap().into_iter().map(|entry| entry.name);
            names.filter(|name| name.to_string_lossy().ends_with(".sst")).collect()
        };
        let first = tables();
        assert_eq!(first.len(), 1);
        let reader = {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                let picture = core.state.load_full();
                assert_eq!(get(&core, 1), Some(b"2".to_vec()));
                assert!(
                    picture.tree.tables().map(|table| table.verify().unwrap()).count() > 0,
                    "held, so whole"
                );
            })
        };
        core.flush_all().unwrap();
        reader.join().unwrap();
        assert!(tables().len() == 1 && tables() != first, "merged, and the old one removed");
        assert_eq!(get(&core, 1), Some(b"2".to_vec()));
    });
}
