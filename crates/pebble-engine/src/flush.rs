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

use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::Seqno;
use pebble_format::log::LogPosition;
use pebble_manifest::{Edit, NewRun, TableMeta};
use pebble_sstable::{Compression, TableInfo};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::install::InstallError;
use crate::state::Sealed;
use crate::sync::lock;
use crate::tables::{NewTables, RunRules};

impl Core {
    /// Flushes the oldest sealed memtable, if there is one; says whether there was.
    pub(crate) fn flush_oldest(&self) -> Result<bool> {
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
        // Waiters are woken either way: to go on, or to return the error. The lock keeps a wake-up from falling
        // between a waiter's look and its wait.
        drop(self.commit.lock());
        self.room.notify_all();
        flushed.map(|()| true)
    }

    fn flush_sealed(&self, sealed: &Arc<Sealed>) -> Result<()> {
        if self.visible.get() < sealed.last_seqno {
            let end = self.lock_commit()?.sync_end;
            self.wait_durable(end)?;
            self.visible.raise(sealed.last_seqno);
        }
        let bottom = self.state.load().tree.runs.is_empty();
        let mut cursor = sealed.memtable.cursor();
        let snapshots = self.snapshots.list();
        let rules =
            RunRules { snapshots: &snapshots, bottom, compression: Compression::None, stop: &|| false };
        let (written, outputs) = self.write_run(&mut cursor, &rules)?;
        let bytes = written.iter().map(|table| table.len).sum();
        let edit = Edit {
            added_runs: new_run(0, self.tables.new_number(), written),
            log_first: Some(sealed.next_segment),
            // Its name is durable when the edit is: see `install`. So its absence will be damage, not a crash's
            // trace.
            log_floor: Some(LogPosition::new(sealed.next_segment, 0)),
            flushed_seqno: Some(sealed.last_seqno),
            ..Edit::default()
        };
        self.install_or_clean(edit, Some(sealed), outputs)?;
        self.counters.flushed(bytes);
        self.work.wake_compaction();
        Ok(())
    }

    /// Writes a run. One whose sync fails is written once more, under new numbers; after a second failure nothing
    /// more is written at all.
    pub(crate) fn write_run(
        &self,
        input: &mut dyn Cursor,
        rules: &RunRules<'_>,
    ) -> Result<(Vec<TableInfo>, NewTables<'_>)> {
        let mut outputs = NewTables::new(&self.tables);
        let mut written = self.tables.write_run(input, &mut outputs, rules);
        if written.is_err() && outputs.sync_failed() {
            outputs = NewTables::new(&self.tables);
            written = self.tables.write_run(input, &mut outputs, rules);
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
        edit: Edit,
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

fn table_meta(info: TableInfo) -> TableMeta {
    TableMeta {
        number: info.number,
        len: info.len,
        footer_crc: info.footer_crc,
        count: info.count,
        tombstones: info.tombstones,
        first: info.first,
        last: info.last,
        reach: None,
        seqno_min: info.seqno_min,
        seqno_max: info.seqno_max,
    }
}

/// The edit's part that adds `tables` as one run; nothing when every record was dropped.
pub(crate) fn new_run(level: u8, run: u64, tables: Vec<TableInfo>) -> Vec<NewRun> {
    if tables.is_empty() {
        return Vec::new();
    }
    vec![NewRun { level, run, tables: tables.into_iter().map(table_meta).collect() }]
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
