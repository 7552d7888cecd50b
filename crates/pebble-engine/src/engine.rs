//! The handle: what the facade calls, and what ends the engine when the last handle goes.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use pebble_compaction::KeyRange;
use pebble_format::{KeyspaceId, Kind, Pinned, RecordBatch, Seqno};
use pebble_manifest::Edit;
use pebble_sstable::VerifyReport;

use crate::commit::{Patience, SEGMENTS_MAX, Write};
use crate::compact::{CompactProgress, Step};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::estimate::SizeEstimate;
use crate::health::Health;
use crate::iter::{Bounds, Iter};
use crate::options::{Components, Durability, Executor, Options};
use crate::recover::RecoveryReport;
use crate::snapshots::SnapshotGuard;
use crate::stats::Stats;
use crate::survey::VerifyProgress;
use crate::sync::thread::JoinHandle;
use crate::sync::{Mutex, lock};
use crate::verify::Verification;
use crate::{open, work};

/// Bytes of log that a clean close leaves to the next open instead of writing a table: replaying them takes a few
/// milliseconds, and a program that opens, writes a little and closes does not leave a table each time.
const CLOSE_KEEPS: usize = 1 << 20;

/// An open database. Cloning shares it; dropping the last handle closes it.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
    _last_will: Arc<LastWill>,
}

/// Ends the threads and closes the log, once.
struct LastWill {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A past state of the database that stays readable. Owned: it borrows nothing and may be kept anywhere.
#[derive(Clone)]
pub struct Snapshot(Arc<SnapshotGuard>);

impl Snapshot {
    /// The last sequence number that it sees.
    pub fn seqno(&self) -> Seqno {
        self.0.seqno()
    }
}

impl Engine {
    /// Opens the database in `dir`, or makes one there.
    pub fn open(dir: &Path, options: Options, components: Components) -> Result<Self> {
        let core = open::open(dir, options, components)?;
        let threads = match core.executor {
            Executor::Threads => work::start(&core)?,
            Executor::Inline => Vec::new(),
        };
        let last_will = LastWill { core: Arc::clone(&core), threads: Mutex::new(threads) };
        Ok(Self { core, _last_will: Arc::new(last_will) })
    }

    /// Sets `key` to `value`.
    #[inline]
    pub fn put(&self, keyspace: KeyspaceId, key: &[u8], value: &[u8], durability: Durability) -> Result<()> {
        self.core.commit(Write::One { keyspace, key, kind: Kind::Put, value }, durability)
    }

    /// Removes `key`.
    pub fn delete(&self, keyspace: KeyspaceId, key: &[u8], durability: Durability) -> Result<()> {
        self.core.commit(Write::One { keyspace, key, kind: Kind::Delete, value: b"" }, durability)
    }

    /// Removes every key from `start` up to `end`, which is excluded; an empty `end` means the end of the keyspace.
    /// Cost: as one put.
    pub fn delete_range(
        &self,
        keyspace: KeyspaceId,
        start: &[u8],
        end: &[u8],
        durability: Durability,
    ) -> Result<()> {
        let mut batch = RecordBatch::new();
        batch.delete_range(keyspace, start, end)?;
        self.core.commit(Write::Batch(&batch), durability)
    }

    /// Removes every key of a keyspace. Cost: as one put. Errors: `InvalidArgument` for one that was dropped.
    pub fn clear(&self, keyspace: KeyspaceId, durability: Durability) -> Result<()> {
        self.core.commit(Write::One { keyspace, key: b"", kind: Kind::RangeDelete, value: b"" }, durability)
    }

    /// Applies a batch whole.
    pub fn write(&self, batch: &RecordBatch, durability: Durability) -> Result<()> {
        self.core.commit(Write::Batch(batch), durability)
    }

    /// As [`Engine::write`], but where that would have to wait for flushes or merges it gives `Stalled` with the
    /// reason, at once and with nothing changed. A wait for a sync is no such wait.
    pub fn try_write(&self, batch: &RecordBatch, durability: Durability) -> Result<()> {
        self.core.commit_with(Write::Batch(batch), durability, Patience::Refuses)
    }

    /// The value of `key`, now or in `snapshot`.
    #[inline]
    pub fn get(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        snapshot: Option<&Snapshot>,
    ) -> Result<Option<Pinned>> {
        self.core.get(keyspace, key, snapshot.map(Snapshot::seqno))
    }

    /// The entries of a keyspace within bounds, as they are now or in `snapshot`.
    pub fn iter(&self, keyspace: KeyspaceId, bounds: Bounds, snapshot: Option<&Snapshot>) -> Result<Iter> {
        self.core.status.check_open()?;
        let (state, seqno) = match snapshot {
            Some(snapshot) => (self.core.state.load_full(), snapshot.seqno()),
            None => self.core.state.consistent(&self.core.visible),
        };
        Ok(Iter::new(state, Arc::downgrade(&self.core), keyspace, sane(bounds), seqno))
    }

    /// The present state, to be read later.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Arc::new(self.core.snapshots.register(|| self.core.visible.get())))
    }

    /// The keyspace with this name, made if it is not there.
    pub fn keyspace(&self, name: &str) -> Result<KeyspaceId> {
        self.core.keyspace(name)
    }

    /// Drops the keyspace with this name and all that is in it; false if there is none. Durable on return. Later
    /// writes to it are refused with `InvalidArgument`, until the name is made anew, with another number. Cost: a
    /// flush.
    pub fn drop_keyspace(&self, name: &str) -> Result<bool> {
        self.core.drop_keyspace(name)
    }

    /// The names of all keyspaces, sorted.
    pub fn keyspace_names(&self) -> Vec<String> {
        self.core.keyspaces.names()
    }

    /// Makes every commit so far durable.
    pub fn persist(&self) -> Result<()> {
        self.core.persist()
    }

    /// Writes everything that lies in memtables to tables.
    pub fn flush(&self) -> Result<()> {
        self.core.flush_all().map(|_| ())
    }

    /// Flushes, and merges what lies in a range of keys (`None`: everything) into one run, without what no reader
    /// needs. `watch` is told how far it is, now and then, and may end it: what was merged by then stays so. It must
    /// not wait for a compaction or a close: in its own thread either gives `InvalidArgument`.
    pub fn compact(
        &self,
        range: Option<&KeyRange>,
        watch: &mut (dyn FnMut(CompactProgress) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        self.core.compact_range(range, watch)
    }

    /// Carries out one planned merge where the caller is the executor; says whether there was one. With `idle`, also
    /// one that only pays while no writes come.
    pub fn step(&self, idle: bool) -> Result<bool> {
        self.core.compact_planned(idle).map(Step::is_done)
    }

    /// What lies within bounds of a keyspace, more or less. Cost: a few binary searches, whatever the range.
    pub fn estimate(&self, keyspace: KeyspaceId, bounds: Bounds) -> Result<SizeEstimate> {
        self.core.estimate(keyspace, &sane(bounds))
    }

    /// Reads and checks every table; a report for each. Errors: the first damage.
    pub fn verify(&self) -> Result<Vec<VerifyReport>> {
        self.core.verify_tables()
    }

    /// Reads and checks every byte of tables, log and manifest, and says all that is wrong. `watch` is told how far it
    /// is, and may end it.
    pub fn verify_with(
        &self,
        watch: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
    ) -> Result<Verification> {
        self.core.verify_with(watch)
    }

    /// Whether it takes writes, and what could not be read so far.
    pub fn health(&self) -> Health {
        self.core.health()
    }

    /// Figures, now.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// What stopped writing, if anything did.
    pub fn stopped(&self) -> Option<Arc<Error>> {
        self.core.status.stopped()
    }

    /// What the open found.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.core.recovery
    }

    /// Whether both are handles of one open database.
    pub fn same_as(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    /// Ends the threads, seals the log and releases the directory. Later calls on any handle give `Closed`. Errors:
    /// `InvalidArgument`, and nothing is closed, within the `watch` of a compaction.
    pub fn close(&self) -> Result<()> {
        self.core.merges.check_may_wait()?;
        self._last_will.carry_out()
    }
}

/// An empty range for bounds that are the wrong way round, which the cursors need not cope with.
fn sane(bounds: Bounds) -> Bounds {
    let crossed = match (&bounds.0, &bounds.1) {
        (Bound::Included(lo), Bound::Included(hi)) => lo > hi,
        (Bound::Included(lo) | Bound::Excluded(lo), Bound::Included(hi) | Bound::Excluded(hi)) => lo >= hi,
        _ => false,
    };
    if crossed { (Bound::Excluded(Box::default()), Bound::Excluded(Box::default())) } else { bounds }
}

impl LastWill {
    fn carry_out(&self) -> Result<()> {
        let mut threads = lock(&self.threads);
        let core = &self.core;
        if core.status.check_open().is_err() {
            return Ok(());
        }
        core.work.stop();
        for thread in threads.drain(..) {
            // A panic in it was caught and has stopped writing already.
            drop(thread.join());
        }
        if core.options.read_only {
            core.status.close();
            drop(lock(&core.lock).take());
            return Ok(());
        }
        // A merge that a user's thread runs is told to stop too, and waited for here.
        core.merges.close();
        let closed = core.close_log();
        core.refuse_everything();
        let _no_flush = lock(&core.flushing);
        drop(lock(&core.lock).take());
        closed
    }
}

impl Drop for LastWill {
    fn drop(&mut self) {
        if let Err(error) = self.carry_out() {
            tracing::error!(%error, "closing the database failed; the next open recovers it");
        }
    }
}

impl Core {
    /// Leaves the directory so that the next open has next to nothing to do: a large memtable in tables, a small
    /// one in the log, the log sealed, and the seal's place in the manifest.
    fn close_log(&self) -> Result<()> {
        let state = self.state.load_full();
        let few_segments = self.lock_commit()?.segments < SEGMENTS_MAX / 2;
        if !state.sealed.is_empty() || state.memtable.log_bytes() > CLOSE_KEEPS || !few_segments {
            self.flush_all()?;
        }
        let mut manifest = self.lock_manifest()?;
        let sealed_at = {
            let mut committer = self.lock_commit()?;
            self.status.close();
            committer.log.seal()?
        };
        self.record(&mut manifest, Edit { log_floor: Some(sealed_at), ..Edit::default() })
    }

    /// The end of all writing. Whoever holds a lock of the write side has finished before, whoever takes one later is
    /// refused, and whoever waits is woken.
    pub(crate) fn refuse_everything(&self) {
        let _no_install = lock(&self.manifest);
        let _no_commit = lock(&self.commit);
        self.status.close();
        self.room.notify_all();
    }
}
