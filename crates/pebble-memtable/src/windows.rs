//! Positions: one `u32` for a record in any of the regions that a memtable refers to.
//!
//! ```text
//!   position u32 = window (8 bits) | granule of 4 bytes (24 bits)
//!
//!   window     0          1         2         3          4
//!          ├ region A ┼──── region B, 150 MiB ────────┼ region C ┤ …      256 windows of 64 MiB
//! ```
//!
//! A region takes as many consecutive windows as its capacity fills, at least one, so a record's position is a sum.
//!
//! Threading: one thread attaches; a window is set once, before the first position in it is handed out, so whoever
//! got a position finds its window.

use std::sync::{Arc, OnceLock};

use pebble_format::limits::RECORD_ALIGN;
use pebble_format::prefetch::prefetch_lines;
use pebble_format::record::RECORD_HEADER_LEN;
use pebble_format::{AppendRegion, RecordRef};

const GRANULE_BITS: u32 = 24;
const WINDOWS: usize = 1 << (32 - GRANULE_BITS);
/// Bytes of a window: 64 MiB.
const WINDOW_LEN: usize = RECORD_ALIGN << GRANULE_BITS;

/// Header and key of a usual record, which lie across two cache lines as often as not.
const HEAD_LEN: usize = RECORD_HEADER_LEN + 24;

/// A region, and the position of its first byte.
struct Window {
    region: Arc<AppendRegion>,
    base: u32,
}

/// See the [module](self).
pub struct Windows {
    table: Box<[OnceLock<Window>; WINDOWS]>,
}

impl Windows {
    /// A table without a region.
    pub fn new() -> Self {
        Self { table: Box::new(std::array::from_fn(|_| OnceLock::new())) }
    }

    /// Whether the region is larger than all windows together.
    pub fn never_holds(region: &AppendRegion) -> bool {
        region.capacity() > WINDOW_LEN * WINDOWS
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.table)
    }

    /// Position of the region's first byte; `None` when the windows that are left do not hold the region. A region
    /// that is attached already keeps its windows.
    pub fn attach(&self, region: &Arc<AppendRegion>) -> Option<u32> {
        let mut free = 0;
        while let Some(window) = self.table.get(free).and_then(OnceLock::get) {
            if Arc::ptr_eq(&window.region, region) {
                return Some(window.base);
            }
            free += 1;
        }
        let count = region.capacity().div_ceil(WINDOW_LEN).max(1);
        let slots = self.table.get(free..free.checked_add(count)?)?;
        let base = u32::try_from(free).ok()? << GRANULE_BITS;
        for slot in slots {
            slot.set(Window { region: Arc::clone(region), base }).ok()?;
        }
        Some(base)
    }

    /// Attaches the regions of another table, each at the same position as there. This one must be empty.
    pub fn attach_all(&self, other: &Self) {
        let theirs = other.table.iter().map_while(OnceLock::get);
        for (slot, window) in self.table.iter().zip(theirs) {
            slot.get_or_init(|| Window { region: Arc::clone(&window.region), base: window.base });
        }
    }

    /// The record at a position that was handed out, and the region it lies in.
    #[inline]
    pub fn find(&self, position: u32) -> (&Arc<AppendRegion>, usize) {
        match self.table[(position >> GRANULE_BITS) as usize].get() {
            Some(window) => (&window.region, (position - window.base) as usize * RECORD_ALIGN),
            None => unreachable!("a position lies in a window that is attached"),
        }
    }

    /// The record at a position that was handed out.
    #[inline]
    pub fn record(&self, position: u32) -> RecordRef<'_> {
        let (region, offset) = self.find(position);
        record_at(region, offset)
    }

    /// Asks for the head of the record at a position, as far as its key is likely to go. A hint.
    #[inline]
    pub fn prefetch(&self, position: u32) {
        let (region, offset) = self.find(position);
        if let Some(tail) = region.tail(offset) {
            prefetch_lines(tail, 0, 1);
            prefetch_lines(tail, HEAD_LEN - 1, 1);
        }
    }
}

/// The record at an offset where one was found when it was indexed. Filled bytes of a region never change, so it is
/// there still.
#[inline]
pub fn record_at(region: &AppendRegion, offset: usize) -> RecordRef<'_> {
    match region.tail(offset).map(RecordRef::parse) {
        Some(Ok(record)) => record,
        _ => unreachable!("an indexed record was parsed where it lies"),
    }
}
