//! What readers learn of the tree: where they had to pass many records that they could not be shown.
//!
//! - Where nothing but deleted keys was found, the memtable remembers it, and later readers begin behind
//!   ([`mark_dead`](pebble_memtable::MemtableWriter::mark_dead)).
//! - Where the row was long, a merge would pay, and those who merge are told.
//!
//! Threading: a short list under a lock that readers only try, so that none of them ever waits.

use std::collections::VecDeque;
use std::sync::Arc;

use pebble_compaction::{KeyRange, Wanted};
use pebble_cursor::RangeDelete;
use pebble_format::Seqno;
use pebble_memtable::Memtable;

use crate::core::Core;
use crate::sync::{Mutex, MutexGuard, Sender, lock};

/// Records passed in one movement from which on a merge would pay.
const WORTH_A_MERGE: u32 = 256;

/// Ranges remembered; the oldest goes first.
const WANTED_MAX: usize = 16;

/// The list, and who is to be woken when it grows.
pub(crate) struct WantedRanges {
    list: Mutex<VecDeque<Wanted>>,
    bell: Sender<()>,
}

impl WantedRanges {
    /// An empty list; `bell` wakes those who merge.
    pub(crate) fn new(bell: Sender<()>) -> Self {
        Self { list: Mutex::default(), bell }
    }

    /// Adds a range in which so many records were passed, if that is worth a merge. Unless somebody else is at the
    /// list: a reader does not wait.
    pub(crate) fn add(&self, range: KeyRange, passed: u32) {
        if passed >= WORTH_A_MERGE
            && let Ok(list) = self.list.try_lock()
        {
            self.put(list, Wanted { range, by_user: false });
        }
    }

    /// Adds a range that is to be merged whatever that rewrites.
    pub(crate) fn add_whatever_it_costs(&self, range: KeyRange) {
        self.put(lock(&self.list), Wanted { range, by_user: true });
    }

    fn put(&self, mut list: MutexGuard<'_, VecDeque<Wanted>>, wanted: Wanted) {
        if list.contains(&wanted) {
            return;
        }
        if list.len() == WANTED_MAX {
            list.pop_front();
        }
        list.push_back(wanted);
        // A full channel means that the wake-up is on its way already.
        self.bell.try_send(()).ok();
    }

    /// The ranges, oldest first.
    pub(crate) fn list(&self) -> Vec<Wanted> {
        lock(&self.list).iter().cloned().collect()
    }

    /// Forgets ranges that were looked at.
    pub(crate) fn forget(&self, seen: &[Wanted]) {
        if !seen.is_empty() {
            lock(&self.list).retain(|range| !seen.contains(range));
        }
    }
}

impl Core {
    /// A reader at `seqno`, with `memtable` as the newest, found every key of a range deleted.
    pub(crate) fn found_dead(&self, memtable: &Arc<Memtable>, range: KeyRange, seqno: Seqno, passed: u32) {
        self.wanted.add(range.clone(), passed);
        // A writer that is busy now is not waited for: the next reader finds the same.
        if let Ok(mut committer) = self.commit.try_lock()
            && Arc::ptr_eq(committer.memtable.shared(), memtable)
        {
            // What this reader did not see must lie in the memtable, for only there is it looked for: a snapshot's
            // reader knows nothing of what was put between it and the memtable's first record.
            let next = committer.next_seqno;
            let first = committer.memtable.shared().seqno_range().map_or(next, |(first, _)| first);
            if seqno.0 + 1 < first.0 {
                return;
            }
            let now = Seqno(next.0 - 1);
            let (start, end) = (range.start.clone().into(), range.end.clone().into());
            committer.memtable.mark_dead(RangeDelete { keyspace: range.keyspace, start, end, seqno }, now);
        }
    }
}
