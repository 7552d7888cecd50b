//! The commit path: how a write becomes durable, ordered and visible. The only way in.
//!
//! ```text
//!   put, delete, write
//!        │ lock                                                          commits are ordered by this lock
//!        ├─ make_room ........ seals a full memtable, waits when too many are sealed
//!        ├─ MemtableWriter::approach . the key's place is asked for
//!        ├─ LogWriter::append . encodes the records in the mapped segment: the one copy, no system call
//!        ├─ MemtableWriter::insert_approached, insert_all: an index entry that points into the segment
//!        └ unlock
//!        ├─ publish .......... buffered: at once.   sync: when the log is durable up to here (one fdatasync for all)
//!        └─ sleep_off ........ when flushes or merges are behind: see pace.rs
//! ```
//!
//! # What is visible, and when
//!
//! Commits become visible in their order, and never before they can be acknowledged. So a buffered commit that
//! comes behind a sync commit whose `fdatasync` is still running waits for it: if that sync fails, neither was ever
//! seen. A load without sync commits never waits.
//!
//! # When something fails
//!
//! - Flushes or merges are so far behind that the write would have to wait: it does, or is refused, as the caller
//!   chose.
//! - The append finds no space, or no descriptor for the next segment: nothing was written to the memtable, nothing
//!   is visible; the next write tries again.
//! - The sync fails: everything from the last durable commit on stays invisible, its callers get `CommitUnknown`,
//!   and writing stops until the next open (a second fsync after a failed one proves nothing: Rebello et al.,
//!   ATC'20).
//! - A panic inside the lock stops writing too: the commit may be half in the memtable, and stays invisible.

use std::collections::BTreeSet;
use std::sync::Arc;

use pebble_format::log::LogPosition;
use pebble_format::{InternalKey, KeyspaceId, Kind, RecordBatch, Seqno, Trailer, record};
use pebble_memtable::{Approach, Memtable, MemtableWriter};
use pebble_wal::LogWriter;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::options::{Durability, Executor, RANGE_DELETES_MAX, SEALED_MAX};
use crate::pace::Owed;
use crate::state::{ReadState, Sealed};
use crate::stats::StallReason;
use crate::sync::MutexGuard;

/// Log segments that one memtable may point into: half of what it has positions for, so that the one oversized
/// segment of a huge batch always fits behind them.
pub(crate) const SEGMENTS_MAX: usize = 128;

/// What one commit writes.
#[derive(Clone, Copy)]
pub(crate) enum Write<'a> {
    /// One record, encoded straight into the log.
    One { keyspace: KeyspaceId, key: &'a [u8], kind: Kind, value: &'a [u8] },
    /// Records that are encoded already; they get their sequence numbers while they are copied.
    Batch(&'a RecordBatch),
    /// A range delete of all that is in a keyspace that is being dropped: what no other write may touch any more.
    Clear(KeyspaceId),
}

impl Write<'_> {
    /// Bytes in the log, and number of records. Refuses what is over a limit.
    fn size(&self) -> Result<(usize, u32)> {
        match self {
            Self::One { key, value, .. } => {
                record::check_lengths(key, value)?;
                Ok((record::encoded_len(key.len(), value.len()), 1))
            }
            Self::Batch(batch) => Ok((batch.bytes().len(), batch.count())),
            Self::Clear(_) => Ok((record::encoded_len(0, 0), 1)),
        }
    }

    /// Whether it writes to one of these keyspaces.
    fn any_in(&self, dropped: &BTreeSet<KeyspaceId>) -> bool {
        match self {
            Self::One { keyspace, .. } => dropped.contains(keyspace),
            Self::Batch(batch) => {
                let records = record::records(batch.bytes()).filter_map(std::result::Result::ok);
                records.into_iter().any(|(_, record)| dropped.contains(&record.keyspace()))
            }
            Self::Clear(_) => false,
        }
    }

    /// The key that it has as number `first`, if it is one record.
    fn key(&self, first: Seqno) -> Option<InternalKey<'_>> {
        match *self {
            Self::One { keyspace, key, kind, .. } => {
                Some(InternalKey { keyspace, user_key: key, trailer: Trailer::new(first, kind) })
            }
            Self::Batch(_) | Self::Clear(_) => None,
        }
    }

    /// Lays the records out in `to`, numbered from `first` on. `to` has the length that [`Write::size`] gave.
    fn encode(&self, to: &mut [u8], first: Seqno) {
        match *self {
            Self::One { keyspace, key, kind, value } => {
                let encoded = record::encode(to, keyspace, key, Trailer::new(first, kind), value);
                debug_assert!(encoded.is_ok(), "the lengths were checked by `size`");
            }
            Self::Batch(batch) => batch.copy_stamped(to, first),
            Self::Clear(keyspace) => {
                let encoded = record::encode(to, keyspace, b"", Trailer::new(first, Kind::RangeDelete), b"");
                debug_assert!(encoded.is_ok(), "the lengths were given by `size`");
            }
        }
    }
}

/// What the commit lock guards: the ends of the log, of the memtable and of the order.
pub(crate) struct Committer {
    pub(crate) log: LogWriter,
    pub(crate) memtable: MemtableWriter,
    pub(crate) next_seqno: Seqno,
    /// Log segments that the memtable points into.
    pub(crate) segments: usize,
    /// Where the last sync commit ends. Behind it nothing is visible before the log is durable up to it.
    pub(crate) sync_end: LogPosition,
    /// Keyspaces that were dropped since the open, whose handles may still be about.
    pub(crate) dropped: BTreeSet<KeyspaceId>,
    pub(crate) owed: Owed,
}

/// What a write does where it would have to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It waits.
    Waits,
    /// It gives the reason instead, and changes nothing.
    Refuses,
}

impl Core {
    /// Commits one write. Returns when it is acknowledged as `durability` says, and visible.
    #[inline]
    pub(crate) fn commit(&self, write: Write<'_>, durability: Durability) -> Result<()> {
        self.commit_with(write, durability, Patience::Waits)
    }

    /// As [`Core::commit`], or refused with `Stalled` where that would have to wait for flushes or merges.
    pub(crate) fn commit_with(
        &self,
        write: Write<'_>,
        durability: Durability,
        patience: Patience,
    ) -> Result<()> {
        let (len, count) = write.size()?;
        if count == 0 {
            // No commit of its own, but a sync one still makes every earlier one durable.
            return match durability {
                Durability::Buffered => self.status.check_writable(),
                Durability::Sync => self.persist(),
            };
        }
        let committer = self.lock_commit()?;
        if patience == Patience::Refuses
            && let Some(reason) = self.would_stall(&committer.owed)
        {
            return Err(Error::Stalled { reason });
        }
        let mut committer = self.make_room(committer, len, patience)?;
        // Not before: who waits for room gives the lock away, and a keyspace may be dropped meanwhile.
        if !committer.dropped.is_empty() && write.any_in(&committer.dropped) {
            return Err(Error::invalid("the keyspace was dropped"));
        }
        let first = committer.next_seqno;
        let last = first.checked_add(u64::from(count) - 1).filter(|last| *last < Seqno::MAX);
        let last = last.ok_or_else(|| Error::invalid("sequence numbers are used up"))?;

        // Its place in the memtable is on its way from memory while the record is laid out.
        let approach = write.key(first).map(|key| committer.memtable.approach(key));
        let appended = committer.log.append(len, count, |to| write.encode(to, first));
        let appended = appended.map_err(|error| self.log_failed(&committer.log, error))?;
        self.status.log_goes_on();
        if let Some(ahead) = committer.log.pages_ahead()
            && self.executor == Executor::Threads
        {
            self.work.make_pages(ahead);
        }
        committer.next_seqno = Seqno(last.0 + 1);
        let indexed = committer.index(appended.offset, appended.new_segment, approach.as_ref());
        if let Err(error) = indexed {
            self.status.stop(&error);
            return Err(error);
        }
        self.counters.committed(count, len);
        let slept = self.charge(&mut committer.owed, len);
        self.publish(committer, last, appended.end, durability)?;
        // Who must not be held up leaves it to others, and is refused until then.
        if let Some(until) = slept
            && patience == Patience::Waits
        {
            self.sleep_off(until);
        }
        Ok(())
    }

    /// The commit lock. After a panic of a holder writing has stopped: its commit may be half done.
    pub(crate) fn lock_commit(&self) -> Result<MutexGuard<'_, Committer>> {
        match self.commit.lock() {
            Ok(committer) => self.status.check_writable().map(|()| committer),
            Err(_) => {
                self.status.stop(&Error::Background { what: "a commit".into() });
                self.status.check_writable()?;
                Err(Error::Closed)
            }
        }
    }

    /// Sees to it that the memtable can take `len` more bytes, and takes them well: puts another in its place where its
    /// heads tell keys apart badly, seals it when it is full, and waits while too many are sealed.
    fn make_room<'a>(
        &'a self,
        mut committer: MutexGuard<'a, Committer>,
        len: usize,
        patience: Patience,
    ) -> Result<MutexGuard<'a, Committer>> {
        if committer.memtable.reads_much() {
            self.relearn_memtable(&mut committer)?;
        }
        loop {
            let full = self.memtable_len.is_reached(committer.memtable.shared(), len)
                || committer.fills_its_segment(len, self.memtable_len.log)
                || committer.memtable.shared().range_delete_count() >= RANGE_DELETES_MAX;
            if !full && committer.segments < SEGMENTS_MAX {
                return Ok(committer);
            }
            if self.state.load().sealed.len() < SEALED_MAX {
                self.seal_memtable(&mut committer)?;
                self.update_flush_pace();
                return Ok(committer);
            }
            if patience == Patience::Refuses && self.executor == Executor::Threads {
                self.work.wake_flush();
                return Err(Error::Stalled { reason: StallReason::Flush });
            }
            committer = self.wait_for_flush(committer)?;
        }
    }

    /// Puts a memtable whose heads tell keys apart in the place of one whose heads do not, if that can be had.
    #[cold]
    fn relearn_memtable(&self, committer: &mut Committer) -> Result<()> {
        if let Some(relearned) = committer.memtable.relearned()? {
            self.state.replace(|old| ReadState {
                memtable: Arc::clone(relearned.shared()),
                sealed: old.sealed.clone(),
                tree: Arc::clone(&old.tree),
            });
            committer.memtable = relearned;
        }
        Ok(())
    }

    /// Waits until a sealed memtable was flushed; where the caller is the executor, flushes one.
    fn wait_for_flush<'a>(
        &'a self,
        committer: MutexGuard<'a, Committer>,
    ) -> Result<MutexGuard<'a, Committer>> {
        let _stalled = self.counters.stall(&*self.clock, StallReason::Flush);
        match self.executor {
            Executor::Inline => {
                drop(committer);
                self.flush_oldest()?;
                self.lock_commit()
            }
            Executor::Threads => {
                self.work.wake_flush();
                if let Some(cause) = self.status.flush_blocked() {
                    return Err(cause);
                }
                match self.room.wait(committer) {
                    Ok(committer) => self.status.check_writable().map(|()| committer),
                    Err(_) => self.lock_commit(),
                }
            }
        }
    }

    /// Makes the memtable a sealed one and begins the next, with the next log segment.
    pub(crate) fn seal_memtable(&self, committer: &mut Committer) -> Result<()> {
        let rotated = committer.log.rotate();
        rotated.map_err(|error| self.log_failed(&committer.log, error))?;
        let prefix = committer.memtable.shared().learned_prefix();
        let (writer, shared) = Memtable::with_filter(prefix, self.memtable_len.keys());
        let full = std::mem::replace(&mut committer.memtable, writer);
        committer.segments = 0;
        let sealed = Arc::new(Sealed {
            memtable: Arc::clone(full.shared()),
            last_seqno: Seqno(committer.next_seqno.0 - 1),
            next_segment: committer.log.segment(),
        });
        self.state.replace(|old| ReadState {
            memtable: shared,
            sealed: std::iter::once(sealed).chain(old.sealed.iter().cloned()).collect(),
            tree: Arc::clone(&old.tree),
        });
        self.share_memory();
        self.work.wake_flush();
        Ok(())
    }

    /// Makes a commit visible, as soon as everything before it and it itself may be.
    fn publish(
        &self,
        mut committer: MutexGuard<'_, Committer>,
        last: Seqno,
        end: LogPosition,
        durability: Durability,
    ) -> Result<()> {
        if durability == Durability::Sync {
            committer.sync_end = end;
        }
        let barrier = committer.sync_end;
        if self.log_sync.durable() >= barrier {
            self.visible.raise(last);
            return Ok(());
        }
        drop(committer);
        self.wait_durable(barrier)?;
        self.visible.raise(last);
        Ok(())
    }

    /// Waits until the log is durable up to `position`; a failure stops writing, and so does a panic in the sync.
    pub(crate) fn wait_durable(&self, position: LogPosition) -> Result<()> {
        let outcome =
            self.status.stopped_by_panic("a sync of the log", || self.log_sync.wait_durable(position));
        outcome.map_err(|error| {
            let cause = Error::from(error);
            self.status.stop(&cause);
            Error::CommitUnknown { cause: Arc::new(cause) }
        })
    }

    /// What a failed append means: where it or a sync ended the log, writing stops. Where only a segment could not be
    /// made, or the disk is full, the log is as before, and so is the database.
    fn log_failed(&self, log: &LogWriter, error: pebble_format::Error) -> Error {
        let error = Error::from(error);
        match self.log_sync.failed() {
            // The leader of the sync has yet to tell: this write did not fail, it comes too late.
            Some(cause) if !log.ended_log() => {
                self.status.stop(&Error::from(cause));
                return self.status.check_writable().err().unwrap_or(error);
            }
            Some(_) => self.status.stop(&error),
            None if matches!(error, Error::NoSpace(_)) => self.status.set_log_blocked(error.clone()),
            None => {}
        }
        error
    }
}

impl Committer {
    /// Whether the memtable ends with a full-grown segment that has no room for `len` more bytes. It is sealed there,
    /// so that it lies in one segment and the next one begins with another, recycled whole.
    #[inline]
    fn fills_its_segment(&self, len: usize, full_grown: usize) -> bool {
        self.log.begins_segment(len)
            && self.log.region().capacity() >= full_grown
            && !self.memtable.shared().is_empty()
    }

    /// Points the memtable at what was appended at `offset`: one record whose key was approached, or several.
    fn index(&mut self, offset: usize, new_segment: bool, approach: Option<&Approach<'_>>) -> Result<()> {
        if new_segment {
            self.memtable.attach(self.log.region())?;
            self.segments += 1;
        }
        match approach {
            Some(approach) => self.memtable.insert_approached(offset, approach)?,
            None => self.memtable.insert_all(offset)?,
        }
        Ok(())
    }
}
