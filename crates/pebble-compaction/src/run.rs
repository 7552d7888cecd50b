//! The data mover: a cursor in, tables out. A flush, a merge and a recovery are this with different inputs.
//!
//! ```text
//!   input ─► Collapse: does this version stay? ─► Mover ─► TableWriter, verbatim ─► Outputs
//!                └─► range deletes that stay ──────┘ cut between user keys, range deletes cut with them
//!   a block in which nothing is to be decided ─────┘ as it is stored
//!                                                    long values into tables of their own: apart.rs
//! ```
//!
//! Threading: runs on the caller's thread, holds no lock, and installs nothing.

use std::io::{self, Write};

use pebble_cursor::{Cursor, RangeDeletes};
use pebble_format::{Error, InternalKey, KeyspaceId, OwnedKey, Result, Seqno};
use pebble_manifest::TableMeta;
use pebble_sstable::{TableInfo, TableOptions};

use crate::apart::Apart;
use crate::collapse::Collapse;
use crate::mover::Mover;

/// How often, in records, a run asks whether to stop.
const STOP_EVERY: u64 = 4096;

/// What is to be written, and what may be left out.
pub struct Job<'a> {
    /// The live snapshots, ascending.
    pub snapshots: &'a [Seqno],
    /// The range deletes of the input, wherever they reach.
    pub range_deletes: &'a RangeDeletes,
    /// Whether no run older than the input may hold its keys, so that tombstones have nothing left to hide.
    pub bottom: bool,
    /// The user keys to be moved: from the first one's on, and before the second one's. A merge is parted that way.
    pub range: (Option<&'a OwnedKey>, Option<&'a OwnedKey>),
    /// How tables are written, and at what length one is ended; the number is set for each.
    pub table: TableOptions,
    /// What is done with long values. With `None` all stay in their records, and references as they are.
    pub apart: Option<Apart<'a>>,
    /// Keys, ascending, before which a new table begins, so that later merges find aligned borders. Their trailers
    /// do not count: the newest version of such a key stands before the version that made the border.
    pub cut_at: &'a [OwnedKey],
    /// Bytes of data that a table has at least before a cut ends it, so that cuts make no slivers.
    pub cut_len_min: u64,
    /// Asked now and then; true ends the run with an `Io` error of kind `Interrupted`.
    pub stop: &'a dyn Fn() -> bool,
}

/// Where tables go: names, files and their syncing are the caller's business.
pub trait Outputs {
    /// What a table is written to.
    type Writer: Write;

    /// Begins a table, and gives its number.
    fn create(&mut self) -> Result<(u64, Self::Writer)>;

    /// Ends a table that was begun here: everything is written. It must be durable when [`Outputs::settle`] returns.
    fn finish(&mut self, writer: Self::Writer, info: &TableInfo) -> Result<()>;

    /// Waits until every table that was ended is durable.
    fn settle(&mut self) -> Result<()>;
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunResult {
    /// The tables, ascending by key, without overlap: a sorted run. Empty when no record stayed.
    pub tables: Vec<TableInfo>,
    /// The tables of values, to which records of `tables` refer.
    pub values: Vec<TableInfo>,
    /// Records read.
    pub read: u64,
    /// Records written. The difference was dropped, but for range deletes, which may be parted or joined.
    pub written: u64,
    /// Bytes of the records read.
    pub read_bytes: u64,
    /// Bytes of the records written, but for values that went apart.
    pub written_bytes: u64,
    /// Blocks that were handed on as they were stored; their records count as read and as written.
    pub whole_blocks: u64,
}

/// Moves every record of `input` that stays into tables. A table ends between two user keys only, so all versions of
/// a key lie in one.
///
/// Errors: the input's and the outputs' own. Tables that were begun are then the caller's to remove; it knows them
/// from [`Outputs::create`].
pub fn run<C: Cursor + ?Sized, O: Outputs>(
    input: &mut C,
    outputs: &mut O,
    job: &Job<'_>,
) -> Result<RunResult> {
    let mut collapse = Collapse::new(job.snapshots, job.range_deletes, job.bottom);
    let mut mover = Mover::new(outputs, job, collapse.range_deletes());
    let (mut previous, mut dropped) = (Previous::None, KeyCopy::default());
    // Whether no version of the key was written yet: a cut falls before the first that is, and so parts none.
    let mut first_kept = true;
    let moves_blocks = job.apart.as_ref().is_none_or(|apart| apart.fetch.is_none());
    match job.range.0 {
        None => input.first()?,
        Some(from) => input.seek(before(from))?,
    }
    let end = job.range.1.map(OwnedKey::as_ref);
    let mut ask_at = 0;
    while let Some(record) = input.record() {
        let key = record.internal_key();
        if end.is_some_and(|end| key.cmp_user(&end).is_ge()) {
            break;
        }
        if mover.done.read >= ask_at {
            ask_at = mover.done.read + STOP_EVERY;
            if (job.stop)() {
                return Err(interrupted());
            }
        }
        // A range delete goes its own way, by `Collapse::range_deletes`; what it hides of its key, that hides too.
        if !record.is_range_delete() {
            let new_key = match previous {
                Previous::None => true,
                Previous::Written => mover.is_new(key),
                Previous::Dropped => !dropped.is_of(key),
            };
            if new_key {
                collapse.next_key();
                first_kept = true;
                if moves_blocks
                    && input.block_last().is_some()
                    && move_block(input, end, &collapse, &mut mover)?
                {
                    previous = Previous::Written;
                    input.skip_block()?;
                    continue;
                }
            }
            previous = if collapse.keeps(record) {
                mover.write(record, first_kept)?;
                first_kept = false;
                Previous::Written
            } else {
                dropped.set(key);
                Previous::Dropped
            };
        }
        mover.done.read += 1;
        mover.done.read_bytes += record.raw().len() as u64;
        input.next()?;
    }
    mover.finish()
}

/// Hands the block under the cursor on, if that may be; says whether. It begins with a key's newest version.
#[inline(never)]
fn move_block<C: Cursor + ?Sized, O: Outputs>(
    input: &C,
    end: Option<InternalKey<'_>>,
    collapse: &Collapse<'_>,
    mover: &mut Mover<'_, O>,
) -> Result<bool> {
    let Some(block) = input.block() else { return Ok(false) };
    let first = block.first()?.internal_key();
    let ends = end.is_none_or(|end| block.last.internal_key().cmp_user(&end).is_lt());
    if !ends || !collapse.keeps_all(&block, first) || !mover.write_block(&block, first)? {
        return Ok(false);
    }
    mover.done.read += u64::from(block.count);
    mover.done.read_bytes += block.records.len() as u64;
    Ok(true)
}

fn interrupted() -> Error {
    io::Error::new(io::ErrorKind::Interrupted, "the merge was told to stop").into()
}

/// Before every version of the key.
pub(crate) fn before(key: &OwnedKey) -> InternalKey<'_> {
    let key = key.as_ref();
    InternalKey::lookup(key.keyspace, key.user_key, Seqno::MAX)
}

/// Where the key of the record before is, so that versions of one key can be told from the next key.
enum Previous {
    None,
    /// It is the last one in the open table.
    Written,
    /// It was dropped, so it is kept here.
    Dropped,
}

/// A user key in memory that is used again.
#[derive(Default)]
struct KeyCopy {
    keyspace: KeyspaceId,
    user_key: Vec<u8>,
}

impl KeyCopy {
    fn set(&mut self, key: InternalKey<'_>) {
        self.keyspace = key.keyspace;
        self.user_key.clear();
        self.user_key.extend_from_slice(key.user_key);
    }

    fn is_of(&self, key: InternalKey<'_>) -> bool {
        InternalKey::lookup(self.keyspace, &self.user_key, Seqno::MAX).same_key(&key)
    }
}

/// What the manifest says of a table that was written.
pub fn table_meta(info: TableInfo) -> TableMeta {
    TableMeta {
        number: info.number,
        len: info.len,
        footer_crc: info.footer_crc,
        count: info.count,
        tombstones: info.tombstones,
        first: info.first,
        last: info.last,
        reach: info.reach,
        seqno_min: info.seqno_min,
        seqno_max: info.seqno_max,
        apart: info.referred.iter().map(|referred| referred.bytes).fold(0, u64::saturating_add),
    }
}
