//! Where readers had to pass many records that they could not be shown: key ranges for which a merge would pay.
//!
//! Threading: a short list under a lock that readers only try, so that none of them ever waits.

use std::collections::VecDeque;
use std::sync::Mutex;

use crossbeam_channel::Sender;
use pebble_compaction::{KeyRange, Wanted};

use crate::sync::lock;

/// Ranges remembered; the oldest goes first.
const WANTED_MAX: usize = 16;

/// The list, and who is to be woken when it grows. An iterator holds nothing else of an open database.
pub(crate) struct WantedRanges {
    list: Mutex<VecDeque<Wanted>>,
    bell: Sender<()>,
}

impl WantedRanges {
    /// An empty list; `bell` wakes those who merge.
    pub(crate) fn new(bell: Sender<()>) -> Self {
        Self { list: Mutex::default(), bell }
    }

    /// Adds a range, unless it is known already, or somebody else is at the list.
    pub(crate) fn add(&self, range: KeyRange) {
        let Ok(mut list) = self.list.try_lock() else { return };
        if list.iter().any(|known| known.range == range) {
            return;
        }
        if list.len() == WANTED_MAX {
            list.pop_front();
        }
        list.push_back(Wanted { range, by_user: false });
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
