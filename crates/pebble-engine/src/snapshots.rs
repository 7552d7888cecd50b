//! The live snapshots: which past states flushes and compactions must keep readable.
//!
//! A snapshot is a sequence number in this list and nothing else. It holds no memtable, table or segment; what it
//! needs stays because no merge drops a version that a listed number can see.
//!
//! Threading: registering reads the visible number under the list's lock, and a merge takes the list under the same
//! lock. So a snapshot is either in the list that a merge took, or its number is at least what was visible then,
//! and such a reader sees only the newest version of anything that the merge was given.

use std::collections::BTreeMap;
use std::sync::Arc;

use pebble_format::Seqno;

use crate::sync::{Mutex, lock};

/// All live snapshots, with how many hold each number.
#[derive(Default)]
pub(crate) struct Snapshots {
    live: Mutex<BTreeMap<Seqno, usize>>,
}

impl Snapshots {
    /// A snapshot of what `visible` gives, read under the lock.
    pub(crate) fn register(self: &Arc<Self>, visible: impl FnOnce() -> Seqno) -> SnapshotGuard {
        let mut live = lock(&self.live);
        let seqno = visible();
        *live.entry(seqno).or_default() += 1;
        SnapshotGuard { seqno, list: Arc::clone(self) }
    }

    /// The distinct live numbers, ascending.
    pub(crate) fn list(&self) -> Vec<Seqno> {
        lock(&self.live).keys().copied().collect()
    }

    /// The smallest live number.
    pub(crate) fn oldest(&self) -> Option<Seqno> {
        lock(&self.live).keys().next().copied()
    }

    /// How many snapshots are alive.
    pub(crate) fn count(&self) -> usize {
        lock(&self.live).values().sum()
    }
}

/// One live snapshot; dropping it lets the merges drop what only it could see.
pub(crate) struct SnapshotGuard {
    seqno: Seqno,
    list: Arc<Snapshots>,
}

impl SnapshotGuard {
    pub(crate) fn seqno(&self) -> Seqno {
        self.seqno
    }
}

impl Drop for SnapshotGuard {
    fn drop(&mut self) {
        let mut live = lock(&self.list.live);
        if let Some(holders) = live.get_mut(&self.seqno) {
            *holders -= 1;
            if *holders == 0 {
                live.remove(&self.seqno);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_listed_until_its_last_snapshot_goes() {
        let list = Arc::new(Snapshots::default());
        let first = list.register(|| Seqno(5));
        let second = list.register(|| Seqno(5));
        let third = list.register(|| Seqno(3));
        assert_eq!((list.list(), list.count()), (vec![Seqno(3), Seqno(5)], 3));
        drop(first);
        drop(third);
        assert_eq!((list.list(), list.count()), (vec![Seqno(5)], 1));
        drop(second);
        assert_eq!(list.list(), []);
    }
}
