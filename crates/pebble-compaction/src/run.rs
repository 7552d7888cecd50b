//! The data mover: a cursor in, tables out. A flush, a merge and a recovery are this with different inputs.
//!
//! ```text
//!   input ─► Collapse: does this version stay? ─► TableWriter::add, verbatim ─► cut between user keys ─► Outputs
//! ```
//!
//! Threading: runs on the caller's thread, holds no lock, and installs nothing.

use std::io::{self, Write};

use pebble_cursor::Cursor;
use pebble_format::{KeyspaceId, OwnedKey, RecordRef, Result, Seqno};
use pebble_sstable::{TableInfo, TableOptions, TableWriter};

use crate::collapse::Collapse;

/// How often, in records, a run asks whether to stop.
const STOP_EVERY: u64 = 4096;

/// What is to be written, and what may be left out.
pub struct Job<'a> {
    /// The live snapshots, ascending.
    pub snapshots: &'a [Seqno],
    /// Whether no run older than the input may hold its keys, so that tombstones have nothing left to hide.
    pub bottom: bool,
    /// How tables are written, and at what length one is ended; the number is set for each.
    pub table: TableOptions,
    /// Keys, ascending, before which a new table begins, so that later merges find aligned borders. Their trailers
    /// do not count: the newest version of such a key stands before the version that made the border.
    pub cut_at: &'a [OwnedKey],
    /// Asked now and then; true ends the run with an `Io` error of kind `Interrupted`.
    pub stop: &'a dyn Fn() -> bool,
}

/// Where tables go: names, files and their syncing are the caller's business.
pub trait Outputs {
    /// What a table is written to.
    type Writer: Write;

    /// Begins a table, and gives its number.
    fn create(&mut self) -> Result<(u64, Self::Writer)>;

    /// Ends a table that was begun here: everything is written, and it must be durable when this returns.
    fn finish(&mut self, writer: Self::Writer, info: &TableInfo) -> Result<()>;
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunResult {
    /// The tables, ascending by key, without overlap: a sorted run. Empty when no record stayed.
    pub tables: Vec<TableInfo>,
    /// Records read.
    pub read: u64,
    /// Records written; the difference was dropped.
    pub written: u64,
    /// Bytes of the records read.
    pub read_bytes: u64,
    /// Bytes of the records written.
    pub written_bytes: u64,
}

/// Moves every record of `input` that stays into tables. A table ends between two user keys only, so all versions of
/// a key lie in one.
///
/// Errors: the input's and the outputs' own. Tables that were begun are then the caller's to remove; it knows them
/// from [`Outputs::create`].
pub fn run<O: Outputs>(input: &mut dyn Cursor, outputs: &mut O, job: &Job<'_>) -> Result<RunResult> {
    let mut mover = Mover { outputs, job, cuts: job.cut_at, open: None, done: RunResult::default() };
    let mut collapse = Collapse::new(job.snapshots, job.bottom);
    let mut key = LastKey::default();
    input.first()?;
    while let Some(record) = input.record() {
        if mover.done.read.is_multiple_of(STOP_EVERY) && (job.stop)() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the merge was told to stop").into());
        }
        mover.done.read += 1;
        mover.done.read_bytes += record.raw().len() as u64;
        let new_key = key.replace(record);
        if new_key {
            collapse.next_key();
        }
        // Of a key of which anything stays, the newest version does: so a cut at a new key parts no versions.
        if collapse.keeps(record) {
            mover.write(record, new_key)?;
        }
        input.next()?;
    }
    mover.end_table()?;
    Ok(mover.done)
}

/// The table that is being written, and those that are done.
struct Mover<'a, O: Outputs> {
    outputs: &'a mut O,
    job: &'a Job<'a>,
    /// The cuts that are still ahead.
    cuts: &'a [OwnedKey],
    open: Option<TableWriter<O::Writer>>,
    done: RunResult,
}

impl<O: Outputs> Mover<'_, O> {
    fn write(&mut self, record: RecordRef<'_>, new_key: bool) -> Result<()> {
        if new_key {
            let passed =
                self.cuts.partition_point(|cut| cut.as_ref().cmp_user(&record.internal_key()).is_le());
            let (_, ahead) = self.cuts.split_at(passed);
            self.cuts = ahead;
            if passed > 0 || self.open.as_ref().is_some_and(TableWriter::is_full) {
                self.end_table()?;
            }
        }
        let writer = match &mut self.open {
            Some(writer) => writer,
            None => {
                let (number, to) = self.outputs.create()?;
                let options = TableOptions { number, ..self.job.table.clone() };
                self.open.insert(TableWriter::new(to, options)?)
            }
        };
        self.done.written += 1;
        self.done.written_bytes += record.raw().len() as u64;
        writer.add(record)
    }

    fn end_table(&mut self) -> Result<()> {
        if let Some(writer) = self.open.take() {
            let (to, info) = writer.finish()?;
            self.outputs.finish(to, &info)?;
            self.done.tables.push(info);
        }
        Ok(())
    }
}

/// The key of the record before, so that versions of one key can be told from the next key.
#[derive(Default)]
struct LastKey {
    keyspace: KeyspaceId,
    user_key: Vec<u8>,
    any: bool,
}

impl LastKey {
    /// Whether `record` is of another key than the one before; remembers it.
    fn replace(&mut self, record: RecordRef<'_>) -> bool {
        if self.any && self.keyspace == record.keyspace() && self.user_key == record.key() {
            return false;
        }
        self.any = true;
        self.keyspace = record.keyspace();
        self.user_key.clear();
        self.user_key.extend_from_slice(record.key());
        true
    }
}
