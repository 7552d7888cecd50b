//! What of a table was found whole: each block's checksum and structure are checked on its first touch, and that is
//! remembered in a bit.
//!
//! ```text
//!   blocks    │ 0 │ 1 │    2    │ 3 │      a bit each
//!   pages     │    0    │    1    │ …      16 KiB of data each: set when every block that touches it is whole
//! ```
//!
//! A get that the point index leads to a record knows no block, only an offset: the page bit spares it the search for
//! the block. Threading: bits go from 0 to 1, and two threads may do the same check twice.

use pebble_format::checksum::crc32c;
use pebble_format::{Corruption, Pinned, Result};

use crate::block::Block;
use crate::meta::BlockPlace;
use crate::source::usize_of;
use crate::table::{PAGE_SHIFT, Table};

impl Table {
    /// Checks a block that lies in place, and remembers that it is whole.
    #[cold]
    pub(crate) fn verify_in_place(&self, raw: Pinned, number: u32, place: &BlockPlace) -> Result<Block> {
        self.check_crc(&raw, place)?;
        let block = self.verify_block(raw, number, place)?;
        self.note_verified(number, place);
        Ok(block)
    }

    /// Checks the structure of a block, whose checksum was found right. That both were is for the caller to remember.
    #[cold]
    pub(crate) fn verify_block(&self, raw: Pinned, number: u32, place: &BlockPlace) -> Result<Block> {
        let block = Block::open(raw, place.count)
            .and_then(|block| block.verify().map(|()| block))
            .map_err(|found| self.in_block(number, found))?;
        let first = block.record(0).map_err(|found| self.in_block(number, found))?;
        let head = self.meta.prefix.head(first.keyspace(), first.key());
        let expected = self.meta.seek_index().get(usize_of(number.into())).map_or(0, |found| found.get());
        if head != expected {
            return Err(self.in_block(number, Corruption::new("first head of a block", 0, 1, 0)));
        }
        Ok(block)
    }

    pub(crate) fn check_crc(&self, stored: &[u8], place: &BlockPlace) -> Result<()> {
        let crc = crc32c(0, stored);
        if crc == place.crc {
            return Ok(());
        }
        Err(self.corrupt(Corruption::new("block checksum", place.offset, place.crc.into(), crc.into())))
    }

    /// Makes sure that the block with the record at `offset` is verified.
    #[inline]
    pub(crate) fn verify_page(&self, offset: u64) -> Result<()> {
        let page = offset >> PAGE_SHIFT;
        if self.pages_verified.get(usize_of(page)) {
            Ok(())
        } else {
            self.verify_blocks_of_page(page, offset)
        }
    }

    /// Verifies the block with the record, which must succeed, and its neighbours on the page, which may not:
    /// then the page bit stays off and only the damaged block's records cannot be read.
    #[cold]
    fn verify_blocks_of_page(&self, page: u64, offset: u64) -> Result<()> {
        if offset >= self.meta.info.data_len {
            return Err(self.bad_location(offset));
        }
        let verified =
            |number: u32| self.blocks_verified.get(usize_of(number.into())) || self.block(number).is_ok();
        self.block(self.meta.block_at(offset))?;
        let first = self.meta.block_at(page << PAGE_SHIFT);
        let last = self.meta.block_at(((page + 1) << PAGE_SHIFT) - 1);
        if (first..=last).all(verified) {
            self.pages_verified.set(usize_of(page));
        }
        Ok(())
    }

    /// Remembers that a block in place is whole, and which pages are whole by that: a scan then spares the gets that
    /// follow their first look at each page. Two threads that come from both sides of a page may both leave it to
    /// [`Table::verify_blocks_of_page`].
    fn note_verified(&self, number: u32, place: &BlockPlace) {
        self.blocks_verified.set(usize_of(number.into()));
        let is_whole = |number: u32| self.blocks_verified.get(usize_of(number.into()));
        let starts_at = |number: u32| self.meta.block(number).map_or(u64::MAX, |place| place.offset);
        let (first, last) =
            (place.offset >> PAGE_SHIFT, (place.offset + place.raw_len as u64 - 1) >> PAGE_SHIFT);
        for page in first..=last {
            let (start, end) = (page << PAGE_SHIFT, (page + 1) << PAGE_SHIFT);
            let mut before = number;
            while before > 0 && starts_at(before) > start && is_whole(before - 1) {
                before -= 1;
            }
            let mut behind = number + 1;
            while starts_at(behind) < end && is_whole(behind) {
                behind += 1;
            }
            if (before == 0 || starts_at(before) <= start) && starts_at(behind) >= end {
                self.pages_verified.set(usize_of(page));
            }
        }
    }
}
