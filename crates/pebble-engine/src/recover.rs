//! Recovery: from the files of a directory to the ends of the log, of the memtable and of the order.
//!
//! ```text
//!   1  manifest    CURRENT ─► edits ─► ManifestState          torn tail dropped; damage refused
//!   2  tables      each one of the version opened and identified
//!   3  log         frames from log_first on, checked to be commits 1..k without a hole
//!   4a clean       a new manifest; the memtable indexes the mapped segments where they lie
//!   4b unclean     what was replayed goes to new, synced tables; a new manifest; then a new log begins
//!   5  orphans     files of ours that nothing refers to are removed: only now that nothing can be refused any more
//! ```
//!
//! Steps 1 to 3 write nothing, so a refused open leaves the directory as it was. A crash in 4b leaves tables that
//! no edit names, and the log as it was: the next recovery does the same again.
//!
//! Why 4b: after a crash the page cache may hold log bytes that a failed fsync never brought to the device (Rebello
//! et al., ATC'20). Served from memory and then built upon, they would vanish with the next power cut. In a table
//! of its own, synced, they are durable before anything refers to them. The new manifest of 4a and 4b is there for the
//! same reason: what `CURRENT` and the last edits say was read back, and step 5 removes files on their word.
//!
//! A log counts as clean if it ends with a seal, and exactly where the manifest says that it was sealed.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use pebble_format::log::LogPosition;
use pebble_format::{Corruption, FileName, HeadPrefix, KeyspaceId, RecordRef, Seqno, record};
use pebble_manifest::{Edit, ManifestState, NewRun, TableMeta};
use pebble_memtable::{Memtable, MemtableWriter};
use pebble_sstable::Compression;
use pebble_vfs::Fs;
use pebble_wal::{Frame, LogIo, LogOptions, LogWriter, Recovered};

use crate::commit::Committer;
use crate::damage::Damage;
use crate::error::Result;
use crate::flush::new_run;
use crate::gathered::Gathered;
use crate::options::{MemtableLen, Options};
use crate::pace::Owed;
use crate::tables::{NewTables, RunRules, Tables};

/// What an open found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the database had been closed cleanly, or is new.
    pub clean: bool,
    /// Records replayed from the log.
    pub replayed: u64,
    /// Bytes behind the last whole commit of the log and of the manifest: a crash's tail, dropped.
    pub dropped_bytes: u64,
    /// The last sequence number recovered.
    pub last_seqno: u64,
    /// Files that nothing referred to, removed; left where they are by whoever only reads.
    pub orphans: u64,
    /// What [`Recovery::SalvageReadOnly`](pebble_wal::Recovery) passed over.
    pub skipped: Vec<Damage>,
}

/// The outcome of steps 3 and 4.
pub(crate) struct Replayed {
    pub(crate) committer: Committer,
    pub(crate) last_seqno: Seqno,
    pub(crate) records: u64,
}

/// Where the log is, how it is written, and how much of it a memtable takes.
pub(crate) struct LogPlace<'a> {
    pub(crate) fs: &'a Arc<dyn Fs>,
    pub(crate) dir: &'a Path,
    pub(crate) options: LogOptions,
    pub(crate) memtable_len: MemtableLen,
}

/// Step 4a: the log goes on where it was sealed.
pub(crate) fn resume(place: LogPlace<'_>, recovered: Recovered, mut order: Order) -> Result<Replayed> {
    let mut filling = Filling::new(place.memtable_len);
    let mut offsets = Vec::new();
    for frame in recovered.frames() {
        if filling.segment != Some(frame.end.segment()) {
            filling.index(&mut offsets)?;
            filling.attach(&frame)?;
        }
        order.take(&frame, |offset, _| {
            offsets.push(offset);
            Ok(())
        })?;
    }
    filling.index(&mut offsets)?;
    let log = LogWriter::resume(Arc::clone(place.fs), place.dir, place.options, recovered)?;
    // The log may go on in a segment that holds nothing but a seal, and so was not attached for a frame.
    filling.writer.attach(log.region())?;
    filling.segments += 1;
    Ok(order.replayed(log, filling))
}

/// Step 4b: what was replayed becomes tables, and a new log begins. Returns the edit that makes it so, not yet
/// recorded.
pub(crate) fn flush_replayed(
    recovered: &Recovered,
    order: &mut Order,
    tables: &Tables,
    outputs: &mut NewTables<'_>,
    bottom: bool,
    memtable_len: MemtableLen,
) -> Result<Edit> {
    let mut added_runs: Vec<NewRun> = Vec::new();
    let mut added_values: Vec<TableMeta> = Vec::new();
    let mut flush = |gathered: &mut Gathered| -> Result<()> {
        let run = gathered.run()?;
        let rules = RunRules {
            snapshots: &[],
            range_deletes: run.range_deletes(),
            bottom: bottom && added_runs.is_empty(),
            compression: Compression::None,
            fetch: None,
            cut_at: &[],
            cut_len_min: 0,
            stop: &|| false,
            wrote: &|_| (),
            // Nobody reads yet.
            cached: false,
        };
        let written = tables.write_run(&mut run.cursor(), outputs, &rules, (None, None))?;
        let (metas, mut values) = written.into_metas();
        added_runs.extend(new_run(0, tables.new_number(), metas));
        added_values.append(&mut values);
        gathered.clear();
        Ok(())
    };
    let mut gathered = Gathered::default();
    for frame in recovered.frames() {
        if gathered.is_full(memtable_len, frame.payload.len()) {
            flush(&mut gathered)?;
        }
        gathered.attach(frame.region);
        order.take(&frame, |offset, record| gathered.take(offset, record))?;
    }
    if !gathered.is_empty() {
        flush(&mut gathered)?;
    }
    Ok(Edit {
        added_runs,
        added_values,
        log_first: Some(recovered.next_segment),
        flushed_seqno: Some(order.last()),
        ..Edit::default()
    })
}

/// A new log behind `recovered`, and an empty memtable for it.
pub(crate) fn begin_log(
    place: LogPlace<'_>,
    first: u32,
    previous_end: LogPosition,
    order: Order,
) -> Result<Replayed> {
    let log = LogWriter::create(Arc::clone(place.fs), place.dir, place.options, first, previous_end)?;
    Ok(order.replayed(log, Filling::new(place.memtable_len)))
}

/// A memtable that is being filled from the log.
struct Filling {
    writer: MemtableWriter,
    /// The segment that is attached.
    segment: Option<u32>,
    /// How many were.
    segments: usize,
}

impl Filling {
    fn new(len: MemtableLen) -> Self {
        let (writer, _) = Memtable::with_filter(HeadPrefix::none(), len.keys());
        Self { writer, segment: None, segments: 0 }
    }

    /// Indexes the records at these offsets of the segment that is attached, where there are any.
    fn index(&mut self, offsets: &mut Vec<usize>) -> Result<()> {
        match offsets.is_empty() {
            true => Ok(()),
            false => Ok(self.writer.insert_each(offsets.drain(..))?),
        }
    }

    fn attach(&mut self, frame: &Frame<'_>) -> Result<()> {
        self.writer.attach(frame.region)?;
        self.segment = Some(frame.end.segment());
        self.segments += 1;
        Ok(())
    }
}

/// Checks that the frames hold the commits in order, without a hole, and of known keyspaces.
pub(crate) struct Order {
    next: Seqno,
    records: u64,
    keyspaces: BTreeSet<KeyspaceId>,
}

impl Order {
    /// For the log of a database with this manifest.
    pub(crate) fn of(state: &ManifestState) -> Self {
        let keyspaces = state.keyspaces.keys().copied().chain([KeyspaceId::DEFAULT]).collect();
        Self { next: Seqno(state.flushed_seqno.0 + 1), records: 0, keyspaces }
    }

    fn last(&self) -> Seqno {
        Seqno(self.next.0 - 1)
    }

    /// Hands out the records of one frame, each with its offset in the frame's region.
    fn take(
        &mut self,
        frame: &Frame<'_>,
        mut to: impl FnMut(usize, RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let file = || FileName::Log(u64::from(frame.end.segment())).to_string();
        let base = frame.offset as u64;
        let mut count = 0;
        for found in record::records(frame.payload) {
            let (at, record) = found.map_err(|corruption| corruption.at(base).in_file(&file()))?;
            if record.seqno() != self.next {
                let offset = base + at as u64;
                let gap = Corruption::new("log sequence", offset, self.next.0, record.seqno().0);
                return Err(gap.in_file(&file()).into());
            }
            // A reference leads to a table, and stands in none but tables.
            if record.is_reference() {
                let (offset, kind) = (base + at as u64, record.trailer().kind_byte());
                return Err(Corruption::new("log record kind", offset, 0, kind.into())
                    .in_file(&file())
                    .into());
            }
            // A name is durable before the first record of its keyspace is: one without a name is a lost edit.
            if !self.keyspaces.contains(&record.keyspace()) {
                let (offset, keyspace) = (base + at as u64, u64::from(record.keyspace().0));
                return Err(Corruption::new("keyspace without a name", offset, 0, keyspace)
                    .in_file(&file())
                    .into());
            }
            to(frame.offset + at, record)?;
            self.next = Seqno(self.next.0 + 1);
            count += 1;
        }
        if count != frame.count {
            let miscounted = Corruption::new("frame count", base, u64::from(frame.count), u64::from(count));
            return Err(miscounted.in_file(&file()).into());
        }
        self.records += u64::from(count);
        Ok(())
    }

    fn replayed(self, log: LogWriter, filling: Filling) -> Replayed {
        let Filling { writer: memtable, segments, .. } = filling;
        let (next_seqno, sync_end) = (self.next, LogPosition::ZERO);
        Replayed {
            last_seqno: self.last(),
            records: self.records,
            committer: Committer {
                log,
                memtable,
                next_seqno,
                segments,
                sync_end,
                dropped: BTreeSet::new(),
                owed: Owed::default(),
            },
        }
    }
}

/// Step 5: removes files of ours that nothing refers to, and says how many. Foreign files are left alone.
pub(crate) fn remove_orphans(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    state: &ManifestState,
    manifest: u64,
) -> Result<u64> {
    let log_first = u64::from(state.log_first);
    let version = &state.version;
    let tables: HashSet<u64> = version.tables().chain(version.values()).map(|meta| meta.number).collect();
    let mut removed = 0;
    for entry in fs.list(dir)?.into_iter().filter(|entry| entry.is_file) {
        let Some(name) = entry.name.to_str().and_then(FileName::parse) else { continue };
        let live = match name {
            FileName::Lock | FileName::Current => true,
            FileName::CurrentTemp => false,
            FileName::Manifest(number) => number == manifest,
            FileName::Log(number) => number >= log_first,
            FileName::Table(number) => tables.contains(&number),
        };
        if !live {
            match fs.remove(&dir.join(&entry.name)) {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!(%error, "a file that nothing refers to stays"),
            }
        }
    }
    Ok(removed)
}

/// Segments kept for another life where they are memory of the process, of the budget.
pub(crate) const SPARES_OF_HEAP: usize = 1;

/// How the log of a database with these options is written.
pub(crate) fn log_options(options: &Options, memtable_len: MemtableLen, uuid: [u8; 16]) -> LogOptions {
    let cap = u32::try_from(memtable_len.log).unwrap_or(u32::MAX).max(options.segment_len_min);
    LogOptions {
        io: options.log_io,
        segment_len_min: options.segment_len_min,
        segment_len_max: options.segment_len_max.min(cap),
        spare_max: match options.log_io {
            LogIo::Map => LogOptions::new(uuid).spare_max,
            LogIo::Write => SPARES_OF_HEAP,
        },
        ..LogOptions::new(uuid)
    }
}
