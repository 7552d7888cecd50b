//! A model of the group commit: every interleaving of committers and a writer, with syncs that succeed or fail.
//!
//! The protocol is compiled here a second time, over loom's primitives. Run with `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, reason = "tests; not every method is driven")]

#[path = "../src/bell.rs"]
mod bell;
#[path = "../src/group.rs"]
mod group;

/// Loom's primitives in the place of the standard ones.
mod sync {
    pub(crate) use crate::bell::Bell;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::PoisonError;

    /// Loom chooses who runs without being asked.
    pub(crate) fn give_way() {}
}

use group::{Disk, Group};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
use loom::thread;
use pebble_format::log::LogPosition;
use pebble_format::{Error, Result};

/// A disk whose state is one number: how far a file's bytes are safe.
struct Model {
    /// Bytes in the cache, as the writer left them.
    cached: AtomicU64,
    /// Bytes that a sync has made safe.
    safe: AtomicU64,
    names: AtomicU64,
    syncs: AtomicU64,
    /// The sync, counted from 1, that fails.
    fails_at: u64,
}

/// A position in the one segment of the model.
fn at(offset: u32) -> LogPosition {
    LogPosition::new(1, offset)
}

#[derive(Clone)]
struct Handle(Arc<Model>);

impl Disk for Handle {
    type File = ();

    fn sync_names(&self) -> Result<()> {
        self.0.names.fetch_add(1, SeqCst);
        Ok(())
    }

    fn sync_file(&self, _: &()) -> Result<()> {
        assert_eq!(self.0.names.load(SeqCst), 1, "names come first, once");
        let number = self.0.syncs.fetch_add(1, SeqCst) + 1;
        let cached = self.0.cached.load(SeqCst);
        if self.0.fails_at > 0 {
            assert!(number <= self.0.fails_at, "nothing is synced after a failure");
        }
        if number == self.0.fails_at {
            return Err(Error::invalid("the sync fails"));
        }
        self.0.safe.store(cached, SeqCst);
        Ok(())
    }
}

/// The one writer, as a committer drives it under the commit lock.
struct Writer(u32);

fn run(committers: usize, fails_at: u64) {
    let mut builder = loom::model::Builder::new();
    let bound = std::env::var("PEBBLE_LOOM_BOUND").ok().and_then(|bound| bound.parse().ok());
    builder.preemption_bound = Some(bound.unwrap_or(3));
    builder.check(move || {
        let disk = Arc::new(Model {
            cached: AtomicU64::new(0),
            safe: AtomicU64::new(0),
            names: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            fails_at,
        });
        let group = Arc::new(Group::new(Handle(Arc::clone(&disk)), LogPosition::ZERO));
        group.begin_file(1, LogPosition::ZERO, ());
        let writer = Arc::new(loom::sync::Mutex::new(Writer(0)));
        let commit = move |group: &Group<Handle>, disk: &Model, writer: &loom::sync::Mutex<Writer>| {
            let position = {
                let mut writer = writer.lock().unwrap();
                writer.0 += 1;
                let position = at(writer.0);
                disk.cached.store(position.0, SeqCst);
                group.wrote(position);
                position
            };
            let result = group.wait(position);
            match &result {
                Ok(()) => {
                    assert!(disk.safe.load(SeqCst) >= position.0, "acknowledged, so safe");
                    assert!(group.durable() >= position);
                }
                Err(_) => {
                    assert!(fails_at > 0 && group.failed().is_some());
                    assert!(group.wait(position).is_err(), "the error stays");
                }
            }
        };
        let threads: Vec<_> = (1..committers)
            .map(|_| {
                let (group, disk, writer) = (Arc::clone(&group), Arc::clone(&disk), Arc::clone(&writer));
                thread::spawn(move || commit(&group, &disk, &writer))
            })
            .collect();
        commit(&group, &disk, &writer);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(group.durable().0 <= disk.safe.load(SeqCst), "published after the sync that it tells of");
        let syncs = disk.syncs.load(SeqCst);
        assert!(syncs >= 1 && syncs <= committers as u64);
    });
}

#[test]
fn two_committers() {
    run(2, 0);
}

#[test]
fn three_committers() {
    run(3, 0);
}

#[test]
fn the_first_sync_fails() {
    run(3, 1);
}

#[test]
fn the_second_sync_fails() {
    run(3, 2);
}

/// A failure that is declared from elsewhere (a write that failed) reaches those who wait.
#[test]
fn a_failure_from_the_writer() {
    loom::model(|| {
        let model = Model {
            cached: AtomicU64::new(at(1).0),
            safe: AtomicU64::new(0),
            names: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            fails_at: 0,
        };
        let disk = Arc::new(model);
        let group = Arc::new(Group::new(Handle(Arc::clone(&disk)), LogPosition::ZERO));
        group.begin_file(1, LogPosition::ZERO, ());
        group.wrote(at(1));
        let waiter = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.wait(at(1)))
        };
        group.fail(Error::invalid("a write failed"));
        let waited = waiter.join().unwrap();
        assert_eq!(waited.is_ok(), disk.safe.load(SeqCst) == at(1).0);
        assert!(group.failed().is_some());
    });
}
