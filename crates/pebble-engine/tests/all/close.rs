//! Closing beside work in flight, and writing on after a flush that failed.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pebble_engine::{Components, Durability, Engine, Error};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::{Entry, FaultFs, File, Fs, Lock, LockKind, Open, SimFs};

use crate::{KEYS, dir, open, options};

/// A disk on which the making of the next table waits for leave.
#[derive(Clone, Debug)]
struct Gate {
    disk: SimFs,
    armed: Arc<AtomicBool>,
    reached: Arc<AtomicBool>,
    leave: Arc<AtomicBool>,
}

impl Fs for Gate {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        let is_new_table = mode == Open::CreateNew && path.extension().is_some_and(|name| name == "sst");
        if is_new_table && self.armed.swap(false, Ordering::SeqCst) {
            self.reached.store(true, Ordering::SeqCst);
            while !self.leave.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
        self.disk.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.disk.metadata(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path, kind)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_space(dir)
    }
}

/// A merge that a user's thread runs is in the middle when another thread closes: the directory stays locked until the
/// merge has ended, and the next owner finds everything.
#[test]
fn close_waits_for_a_merge_of_another_thread() {
    let disk = SimFs::new(1);
    let gate =
        Gate { disk: disk.clone(), armed: Arc::default(), reached: Arc::default(), leave: Arc::default() };
    let engine = open(gate.clone()).unwrap();
    for round in 0..3_u32 {
        engine.put(KEYS, &round.to_be_bytes(), b"v", Durability::Sync).unwrap();
        engine.put(KEYS, b"every round", b"v", Durability::Sync).unwrap();
        engine.flush().unwrap();
    }
    gate.armed.store(true, Ordering::SeqCst);
    let merging = thread::spawn({
        let engine = engine.clone();
        move || engine.compact(None, &mut |_| ControlFlow::Continue(()))
    });
    while !gate.reached.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    let closing = thread::spawn(move || engine.close());
    // Long enough for a close that does not wait to be done; one that waits passes whatever the time.
    for _ in 0..50 {
        assert!(matches!(open(disk.clone()), Err(Error::Locked { .. })), "let go while a merge is running");
        thread::sleep(Duration::from_millis(2));
    }
    gate.leave.store(true, Ordering::SeqCst);
    // Whether the merge came to its end or was told to stop is a matter of time.
    merging.join().unwrap().ok();
    closing.join().unwrap().unwrap();

    let next = open(disk).unwrap();
    for round in 0..3_u32 {
        assert!(next.get(KEYS, &round.to_be_bytes(), None).unwrap().is_some(), "{round}");
    }
    next.verify().unwrap();
}

/// A flush finds no space, later there is some: writes go on without another call.
#[test]
fn writes_resume_when_space_returns() {
    let fs = FaultFs::over_sim(SimFs::new(3));
    let mut options = options();
    options.memory_budget = 1 << 20;
    let components = Components {
        fs: Arc::new(fs.clone()),
        executor: pebble_engine::Executor::Inline,
        ..Components::default()
    };
    let engine = Engine::open(dir(), options, components).unwrap();
    fs.inject(Fault::once(Op::Create, 0, FaultKind::NoSpace).sticky().on(".sst"));
    let put = |at: u32| engine.put(KEYS, &at.to_be_bytes(), &[0; 1000], Durability::Buffered);
    let refused = (0..10_000).find_map(|at| put(at).err()).expect("memtables fill up");
    assert!(matches!(refused, Error::NoSpace(_)), "{refused}");
    assert!(matches!(put(0), Err(Error::NoSpace(_))));
    fs.clear();
    for at in 0..5 {
        put(at).unwrap();
    }
}
