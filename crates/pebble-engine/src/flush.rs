//! Flush: the oldest sealed memtable becomes a run of tables, through the same data mover as a merge.
//!
//! ```text
//!   Sealed ─► wait until all of it is visible ─► compaction::run ─► install { add run, log_first, flushed_seqno }
//! ```
//!
//! It waits for visibility because versions are dropped by what a reader may still ask for: were a version dropped
//! in favour of one whose sync is pending, a reader would find neither.
//!
//! Threading: one flush at a time, oldest first, under `Core::flushing`; so runs are added in the order of time,
//! and the log is given back from its old end.

use std::ops::Bound;
use std::sync::Arc;

use pebble_compaction::cuts;
use pebble_cursor::Cursor;
use pebble_format::Seqno;
use pebble_format::log::LogPosition;
use pebble_manifest::{Edit, NewRun, TableMeta, Version};
use pebble_memtable::Memtable;
use pebble_sstable::Compression;

use crate::core::Core;
use crate::covered::Covered;
use crate::error::{Error, Result};
use crate::heat;
use crate::install::InstallError;
use crate::options::Executor;
use crate::state::Sealed;
use crate::sync::lock;
use crate::tables::{KeyRange, NewTables, RunRules, Written};

/// The part of a full memtable that is worth a table of its own when no more writes come.
const REST_PART: usize = 16;

impl Core {
    /// Flushes the oldest sealed memtable, if there is one; says whether there was.
    pub(crate) fn flush_oldest(&self) -> Result<bool> {
        let flushed = self.flush_one();
        if !matches!(flushed, Ok(false)) {
            // Who waits for room is woken either way: to go on, or to return the error. That includes one that came
            // before the flush began: writing may have stopped while this waited for its turn. The lock keeps a wake-up
            // from falling between a waiter's look and its wait.
            drop(self.commit.lock());
            self.room.notify_all();
        }
        flushed
    }

    fn flush_one(&self) -> Result<bool> {
        let _one_at_a_time = lock(&self.flushing);
        self.status.check_writable()?;
        let Some(sealed) = self.state.load().sealed.last().cloned() else { return Ok(false) };
        let flushed = self.flush_sealed(&sealed);
        let next_segment = sealed.next_segment;
        drop(sealed);
        if flushed.is_ok() {
            self.retire_log(next_segment);
        }
        self.status.set_flush_blocked(flushed.as_ref().err().cloned());
        flushed.map(|()| true)
    }

    fn flush_sealed(&self, sealed: &Arc<Sealed>) -> Result<()> {
        if self.visible.get() < sealed.last_seqno {
            let end = self.lock_commit()?.sync_end;
            self.wait_durable(end)?;
            self.visible.raise(sealed.last_seqno);
        }
        let begun = self.clock.now();
        let tree = Arc::clone(&self.state.load().tree);
        let memtable = &sealed.memtable;
        let log_bytes = memtable.log_bytes() as u64;
        let snapshots = self.snapshots.list();
        let cut_len_min = self.options.cut_len_min(0);
        let rules = RunRules {
            snapshots: &snapshots,
            range_deletes: &memtable.range_deletes().unwrap_or_default(),
            // A merge that runs beside it only takes records down, to where this looks too.
            bottom: is_clear(&tree.version, memtable),
            compression: Compression::None,
            // A memtable holds no reference.
            fetch: None,
            cut_at: &cuts(&tree.version, log_bytes, cut_len_min),
            cut_len_min,
            stop: &|| false,
            wrote: &|_| (),
            cached: heat::is_read(&tree),
        };
        let (written, outputs) = self.write_run(&mut memtable.cursor(), &rules, (None, None))?;
        let bytes = written.len();
        let (tables, added_values) = written.into_metas();
        let edit = Edit {
            added_runs: new_run(0, self.tables.new_number(), tables),
            added_values,
            log_first: Some(sealed.next_segment),
            // Its name is durable when the edit is: see `install`. So its absence will be damage, not a crash's
            // trace.
            log_floor: Some(LogPosition::new(sealed.next_segment, 0)),
            flushed_seqno: Some(sealed.last_seqno),
            ..Edit::default()
        };
        self.install_or_clean(|_| Ok(edit), Some(sealed), outputs)?;
        self.counters.flushed(bytes);
        self.pace.flushed(log_bytes, self.clock.now().saturating_sub(begun));
        self.drop_covered_if_any(Covered::WhollyOrMostly);
        self.wake_after_change();
        if self.executor == Executor::Inline {
            self.merge_inline();
        }
        Ok(())
    }

    /// After the tree or the memtables changed: memory is shared anew, merges are looked for, and writers paced anew.
    pub(crate) fn wake_after_change(&self) {
        self.share_memory();
        self.update_pace();
        self.work.wake_compaction();
    }

    /// Writes a run. One whose sync fails is written once more, under new numbers; after a second failure nothing
    /// more is written at all.
    pub(crate) fn write_run(
        &self,
        input: &mut impl Cursor,
        rules: &RunRules<'_>,
        range: KeyRange<'_>,
    ) -> Result<(Written, NewTables<'_>)> {
        let mut outputs = NewTables::new(&self.tables, rules.cached);
        let mut written = self.tables.write_run(input, &mut outputs, rules, range);
        if written.is_err() && outputs.sync_failed() {
            outputs = NewTables::new(&self.tables, rules.cached);
            written = self.tables.write_run(input, &mut outputs, rules, range);
            if let Err(error) = &written
                && outputs.sync_failed()
            {
                self.status.stop(error);
            }
        }
        Ok((written?, outputs))
    }

    /// Installs, and decides what becomes of the new tables when that fails.
    pub(crate) fn install_or_clean(
        &self,
        edit: impl FnOnce(&Version) -> Result<Edit>,
        flushed: Option<&Arc<Sealed>>,
        outputs: NewTables<'_>,
    ) -> Result<()> {
        let numbers = outputs.keep();
        self.install(edit, flushed).map_err(|failed| {
            if let InstallError::NotInstalled(_) = failed {
                self.tables.remove(&numbers);
            }
            failed.into_cause()
        })
    }

    /// What a rest is used for first: a memtable that is worth a table goes into one, and one that deletes ranges,
    /// so that their space comes back. Says whether it flushed.
    pub(crate) fn flush_at_rest(&self) -> Result<bool> {
        let memtable = Arc::clone(&self.state.load().memtable);
        let worth = memtable.log_bytes() >= self.memtable_len.log / REST_PART;
        if !worth && (memtable.range_delete_count() == 0 || self.state.load().tree.version.is_empty()) {
            return Ok(false);
        }
        drop(memtable);
        self.flush_all().inspect_err(|error| self.flush_failed(error))?;
        Ok(true)
    }

    /// Seals what the memtable holds and flushes everything sealed. Returns the last sequence number that lies in
    /// tables.
    pub(crate) fn flush_all(&self) -> Result<Seqno> {
        let last = {
            let mut committer = self.lock_commit()?;
            let last = Seqno(committer.next_seqno.0 - 1);
            if !committer.memtable.shared().is_empty() {
                self.seal_memtable(&mut committer)?;
            }
            last
        };
        while self.state.load().sealed.last().is_some_and(|sealed| sealed.last_seqno <= last) {
            self.flush_oldest()?;
        }
        Ok(last)
    }
}

/// Whether no table may hold a key that the memtable holds.
fn is_clear(version: &Version, memtable: &Memtable) -> bool {
    let (Some(first), Some(last)) = (memtable.first(), memtable.last()) else { return version.is_empty() };
    if memtable.range_delete_count() > 0 {
        return version.is_empty();
    }
    let [low, high] = [first, last].map(|key| Bound::Included((key.keyspace, key.user_key)));
    version.runs().all(|run| run.overlapping(low, high).is_empty())
}

/// The edit's part that adds `tables` as one run; nothing when every record was dropped.
pub(crate) fn new_run(level: u8, run: u64, tables: Vec<TableMeta>) -> Vec<NewRun> {
    if tables.is_empty() { Vec::new() } else { vec![NewRun { level, run, tables }] }
}

impl Core {
    /// What a background thread does with a flush that failed: a full disk passes, the rest stops writing.
    pub(crate) fn flush_failed(&self, error: &Error) {
        match error {
            Error::NoSpace(_) | Error::Io(_) => tracing::warn!(%error, "flush failed; it is tried again"),
            _ => self.status.stop(error),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Duration;

    use pebble_format::{KeyspaceId, Kind};
    use pebble_vfs::SimFs;
    use pebble_wal::LogIo;

    use super::*;
    use crate::commit::{Patience, Write};
    use crate::open::open;
    use crate::options::{Components, Durability, Options};
    use crate::work;

    /// A database whose small memtables are all full, without a thread that flushes them.
    fn full() -> Result<Arc<Core>> {
        let options = Options { log_io: LogIo::Write, memory_budget: 1 << 20, ..Options::default() };
        let fs = Arc::new(SimFs::new(1));
        let components = Components { fs, executor: Executor::Threads, ..Components::default() };
        let core = open(Path::new("/db"), options, components)?;
        while put(&core, KeyspaceId::DEFAULT, Patience::Refuses).is_ok() {}
        Ok(core)
    }

    fn put(core: &Core, keyspace: KeyspaceId, patience: Patience) -> Result<()> {
        let write = Write::One { keyspace, key: b"k", kind: Kind::Put, value: &[7; 10_000] };
        core.commit_with(write, Durability::Buffered, patience)
    }

    /// Puts into a keyspace on a thread of its own, which waits for room by the time this returns.
    fn waiting_put(core: &Arc<Core>, keyspace: KeyspaceId) -> Receiver<Result<()>> {
        let (tell, told) = channel();
        let core = Arc::clone(core);
        thread::spawn(move || tell.send(put(&core, keyspace, Patience::Waits)));
        thread::sleep(Duration::from_millis(100));
        told
    }

    /// A writer waits for a flush, the flush for its turn, and meanwhile writing stops for another reason.
    #[test]
    fn who_waits_for_a_flush_is_woken_when_writing_stops() {
        let core = full().unwrap();
        let turn = core.flushing.lock().unwrap();
        let threads = work::start(&core).unwrap();
        let told = waiting_put(&core, KeyspaceId::DEFAULT);
        core.status.stop(&Error::Background { what: "a test".into() });
        drop(turn);
        let outcome = told.recv_timeout(Duration::from_secs(20)).expect("the writer waits for ever");
        assert!(matches!(outcome, Err(Error::ReadOnly { .. })), "{outcome:?}");
        core.work.stop();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    /// A writer waits for a flush, and meanwhile its keyspace is dropped. Its record would come behind the range delete
    /// that empties the keyspace.
    #[test]
    fn who_waits_for_a_flush_does_not_write_to_what_was_dropped_meanwhile() {
        let core = full().unwrap();
        let keyspace = core.keyspace("k").unwrap();
        let turn = core.flushing.lock().unwrap();
        let told = waiting_put(&core, keyspace);
        let dropper = Arc::clone(&core);
        let dropped = thread::spawn(move || dropper.drop_keyspace("k"));
        while core.commit.lock().unwrap().dropped.is_empty() {
            thread::yield_now();
        }
        drop(turn);
        let outcome = told.recv_timeout(Duration::from_secs(20)).expect("the writer waits for ever");
        assert!(matches!(outcome, Err(Error::InvalidArgument(_))), "{outcome:?}");
        assert!(dropped.join().unwrap().unwrap());
    }
}
