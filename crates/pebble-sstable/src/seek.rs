//! Seeks: from a key to its block by the seek index, and to its slot by the block's heads.
//!
//! ```text
//!   seek index, in memory ──► block ──► { first record, heads, places }  asked for at once ──► record
//! ```
//!
//! So a seek into a mapped table waits for memory twice, once for what tells where the record is and once for the
//! record, whatever the number of steps of the searches in between. Threading: as [`Table`], shared by all.

use pebble_format::prefetch::prefetch_lines;
use pebble_format::table::{Codec, block_tail_len};
use pebble_format::{InternalKey, Result};

use crate::block::Block;
use crate::meta::BlockPlace;
use crate::source::usize_of;
use crate::table::Table;

impl Table {
    /// The first record at or after `target`: its block's number, its block, its slot.
    pub(crate) fn lower_bound(&self, target: InternalKey<'_>) -> Result<Option<(u32, Block, u16)>> {
        let number = self.blocks_starting_before(target)?.saturating_sub(1);
        let block = self.block(number)?;
        let slot = block.lower_bound(target).map_err(|found| self.in_block(number, found))?;
        if slot < block.count() {
            return Ok(Some((number, block, slot)));
        }
        let next = number + 1;
        if next >= self.meta().info.blocks {
            return Ok(None);
        }
        // The key before it is smaller than `target`, and the key at it is not: so it begins the next block.
        Ok(Some((next, self.block(next)?, 0)))
    }

    /// Asks for what a seek to `target` will read of the block it leads to, if that block lies in the map: its first
    /// record, and all of the heads and places behind its records. A hint, and a search of the seek index.
    pub(crate) fn prefetch_seek(&self, target: InternalKey<'_>) {
        let heads = self.meta().seek_index();
        let head = self.meta().prefix.head(target.keyspace, target.user_key);
        let number = u32_of(heads.partition_point(|found| found.get() < head).saturating_sub(1));
        if let (Ok(place), Some(whole)) = (self.meta().block(number), self.in_place())
            && place.codec == Codec::None
        {
            prefetch_search(whole, &place);
        }
    }

    /// How many blocks have a first key before `target`. They are the first ones.
    pub(crate) fn blocks_starting_before(&self, target: InternalKey<'_>) -> Result<u32> {
        let heads = self.meta().seek_index();
        let head = self.meta().prefix.head(target.keyspace, target.user_key);
        let mut low = heads.partition_point(|found| found.get() < head);
        let equal = heads.get(low..).unwrap_or_default();
        let mut high = low + equal.partition_point(|found| found.get() == head);
        while low < high {
            let middle = low + (high - low) / 2;
            let number = u32_of(middle);
            let block = self.block(number)?;
            let first = block.record(0).map_err(|found| self.in_block(number, found))?;
            if first.internal_key() < target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(u32_of(low))
    }
}

/// Asks for all that a search of a block reads before the record that it finds: one miss instead of one for each.
#[inline]
pub(crate) fn prefetch_search(whole: &[u8], place: &BlockPlace) {
    let start = usize_of(place.offset);
    let tail = block_tail_len(usize::from(place.count));
    prefetch_lines(whole, start, 1);
    prefetch_lines(whole, start + place.raw_len.saturating_sub(tail), tail);
}

/// The number of a block, of which there are fewer than 2^32.
#[inline]
fn u32_of(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
