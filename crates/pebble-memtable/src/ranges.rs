//! The range deletes of a memtable, beside the tree that holds them as records too.
//!
//! ```text
//!   insert ──► tree: a tombstone of its first key        get, cursor: find it there
//!         └──► RangeDeletes, copied, some more ──► Arc ──► range_deletes: one load while there is none
//! ```
//!
//! Range deletes are few and asked all the time, so the whole small structure is copied for each insert that brings
//! some, and a reader takes a reference to it once per get or cursor. A batch may bring many: they come in one copy.
//!
//! Threading: one writer ([`Ranges::add`]); any number of readers, no lock, no waiting.

use std::sync::Arc;

use pebble_cursor::{RangeDelete, RangeDeletes};

use crate::sync::ArcSwapOption;
use crate::sync::totals::{AtomicUsize, Ordering};

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Ranges {
    deletes: ArcSwapOption<RangeDeletes>,
    /// How many there are: what a reader asks first, and nearly always last.
    count: AtomicUsize,
    memory: AtomicUsize,
}

impl Ranges {
    /// Adds some, to be called by the one writer. Readers find them once this returns. Cost: a copy of all others.
    #[inline]
    pub(crate) fn add(&self, deletes: Vec<RangeDelete>) {
        if !deletes.is_empty() {
            self.add_some(deletes);
        }
    }

    /// Apart from its callers, who seldom come here: sorting takes kilobytes of stack.
    #[cold]
    #[inline(never)]
    fn add_some(&self, mut deletes: Vec<RangeDelete>) {
        let current = self.deletes.load_full();
        let mut next = current.map_or_else(RangeDeletes::default, |current| RangeDeletes::clone(&current));
        match deletes.as_slice() {
            [delete] if next.seqno_max().is_none_or(|newest| newest < delete.seqno) => {
                deletes.drain(..).for_each(|delete| next.push(delete));
            }
            _ => next = next.iter().cloned().chain(deletes).collect(),
        }
        let (count, memory) = (next.len(), next.memory());
        self.deletes.store(Some(Arc::new(next)));
        self.memory.store(memory, Ordering::Relaxed);
        // Last: whoever reads this number finds as many.
        self.count.store(count, Ordering::Release);
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<Arc<RangeDeletes>> {
        if self.count() == 0 { None } else { self.deletes.load_full() }
    }

    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Bytes of memory, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }
}
