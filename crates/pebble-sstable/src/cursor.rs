//! The cursor over one table: forward, backward, by key.
//!
//! ```text
//!   block ── verified, held ──► slot ──► offset (from the block's own array) ──► record, in place
//! ```
//!
//! A step within a block reads one offset and touches no record, so that the next record's line loads while
//! this one is looked at; on a long way forward it also asks for lines of the block behind, if they are in memory.
//! The contract (C1 to C6) is told in [`pebble_cursor`]. Threading: one thread at a time.

use std::sync::Arc;

use pebble_cursor::{Cursor, Direction, Stretch, WholeBlock};
use pebble_format::prefetch::prefetch_lines;
use pebble_format::table::{Codec, FLAG_UNIQUE_USER_KEYS};
use pebble_format::{Error, InternalKey, Pinned, PinnedRecord, RecordRef, Result};

use crate::block::Block;
use crate::source::usize_of;
use crate::stream::Stream;
use crate::table::Table;

/// A position in a table; see [`Table::cursor`]. Keeps the table open and pins at most one block.
#[derive(Debug)]
pub struct TableCursor {
    table: Arc<Table>,
    /// The block and the slot under the cursor.
    place: Option<Place>,
    /// Where blocks come from on the way forward, if not from the table itself. Behind the block, which lies in its
    /// memory: that is given back when the cursor ends.
    stream: Option<Stream>,
    error: Option<Error>,
}

#[derive(Debug)]
struct Place {
    number: u32,
    block: Block,
    /// The bytes as they are stored, if they came from a stream.
    stored: Option<Pinned>,
    slot: u16,
    /// Where the lines lie in the file that are asked for when the cursor stands at the block's start. None are, at
    /// `usize::MAX`, before the cursor has come to its second block: it may have been for a few records only.
    ahead: usize,
}

impl Place {
    fn new(number: u32, block: Block, slot: u16) -> Self {
        Self { number, block, stored: None, slot, ahead: usize::MAX }
    }

    /// Asks for the lines of a record that lies [`AHEAD`] of the one under the cursor, also where that is in the part
    /// of a stream that is not read yet: a hint costs nothing there.
    #[inline]
    fn ask_ahead(&self, table: &Table) {
        let offset = self.block.record_offset(self.slot);
        match &self.stored {
            Some(stored) => prefetch_lines(stored, AHEAD + offset, RECORD_LEN),
            None => table.prefetch_data(self.ahead.saturating_add(offset)),
        }
    }
}

/// How far ahead of a cursor that goes forward lines are asked for, in bytes. Far enough for the next block to be at
/// hand when its checksum is computed, and near enough for a merge of dozens of tables to keep it all in the second
/// cache.
const AHEAD: usize = 16 << 10;

/// Bytes of a record of usual length: of longer ones the processor sees by itself where they go on.
pub(crate) const RECORD_LEN: usize = 192;

impl TableCursor {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self { table, stream: None, place: None, error: None }
    }

    /// A cursor whose steps forward read from `stream`, which is of the table's file.
    pub(crate) fn streaming(table: Arc<Table>, stream: Stream) -> Self {
        Self { stream: Some(stream), ..Self::new(table) }
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Moves by `find`, unless an error sticks; makes a new one stick.
    fn go(&mut self, find: impl FnOnce(&Table, &mut Option<Stream>) -> Result<Option<Place>>) -> Result<()> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        match find(&self.table, &mut self.stream) {
            Ok(place) => {
                self.place = place;
                Ok(())
            }
            Err(error) => {
                self.place = None;
                self.error = Some(error.clone());
                Err(error)
            }
        }
    }
}

/// The first record of a block; none behind the last block.
fn start_of(table: &Table, stream: &mut Option<Stream>, number: u32) -> Result<Option<Place>> {
    if number >= table.info().blocks {
        return Ok(None);
    }
    let Some(stream) = stream else { return Ok(Some(Place::new(number, table.block(number)?, 0))) };
    let (block, stored) = stream.block(table, number)?;
    Ok(Some(Place { stored: Some(stored), ..Place::new(number, block, 0) }))
}

/// As [`start_of`], for a cursor that comes from the block before, and so is likely to go through this one and on.
fn goes_on_in(table: &Table, stream: &mut Option<Stream>, number: u32) -> Result<Option<Place>> {
    let mut place = start_of(table, stream, number)?;
    if let Some(place) = place.as_mut().filter(|place| place.stored.is_none()) {
        let start = table.meta().block(number).map_or(usize::MAX, |entry| usize_of(entry.offset));
        place.ahead = start.saturating_add(AHEAD);
    }
    Ok(place)
}

/// The last record of the block before `number`; none before the first one.
fn end_before(table: &Table, number: u32) -> Result<Option<Place>> {
    let Some(number) = number.checked_sub(1) else { return Ok(None) };
    let block = table.block(number)?;
    let slot = block.count() - 1;
    Ok(Some(Place::new(number, block, slot)))
}

/// The block at `place`, to be handed on whole; `None` where that may not be, or its stored bytes are not at hand.
fn whole_block<'a>(table: &'a Table, place: &'a Place) -> Option<WholeBlock<'a>> {
    let (block, meta) = (&place.block, table.meta());
    let entry = meta.block(place.number).ok()?;
    if entry.codec == Codec::Zstd && meta.dictionary.is_some() {
        return None;
    }
    let stored = if entry.codec == Codec::None {
        block.bytes()
    } else if let Some(stored) = &place.stored {
        stored
    } else {
        let start = usize_of(entry.offset);
        table.in_place()?.get(start..start + entry.stored_len)?
    };
    let last = block.record(block.count() - 1).ok()?;
    let unique = meta.footer.flags.get() & FLAG_UNIQUE_USER_KEYS != 0;
    if !unique && goes_on(table, place.number, last) {
        return None;
    }
    let plain = unique && meta.info.tombstones == 0;
    Some(WholeBlock {
        stored,
        codec: entry.codec,
        crc: entry.crc,
        raw_len: u32::try_from(entry.raw_len).ok()?,
        count: entry.count,
        tombstones: if plain { 0 } else { block.tombstones_if_single()? },
        records: block.records(),
        last,
    })
}

/// Whether the block behind `number` begins with another version of its last record's key, or cannot be read. It is
/// read only if its head does not tell.
fn goes_on(table: &Table, number: u32, last: RecordRef<'_>) -> bool {
    let next = number + 1;
    let Some(head) = table.meta().seek_index().get(usize_of(next.into())) else { return false };
    if head.get() != table.meta().prefix.head(last.keyspace(), last.key()) {
        return false;
    }
    let differs = |block: Block| {
        block.record(0).is_ok_and(|first| !first.internal_key().same_key(&last.internal_key()))
    };
    !table.block(next).is_ok_and(differs)
}

impl Cursor for TableCursor {
    fn first(&mut self) -> Result<()> {
        self.go(|table, stream| start_of(table, stream, 0))
    }

    fn last(&mut self) -> Result<()> {
        self.go(|table, _| end_before(table, table.info().blocks))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.go(|table, _| {
            let found = table.lower_bound(target)?;
            Ok(found.map(|(number, block, slot)| Place::new(number, block, slot)))
        })
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.go(|table, _| {
            let Some(number) = table.blocks_starting_before(target)?.checked_sub(1) else {
                return Ok(None);
            };
            let block = table.block(number)?;
            let after = block.lower_bound(target).map_err(|found| table.in_block(number, found))?;
            // The first key of the block is before `target`, so at least one is.
            let slot = after.saturating_sub(1);
            Ok(Some(Place::new(number, block, slot)))
        })
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        match &mut self.place {
            Some(place) if place.slot + 1 < place.block.count() => {
                place.slot += 1;
                place.ask_ahead(&self.table);
                Ok(())
            }
            Some(place) => {
                let next = place.number + 1;
                self.go(|table, stream| goes_on_in(table, stream, next))
            }
            None => self.go(|_, _| Ok(None)),
        }
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        match &mut self.place {
            Some(place) if place.slot > 0 => {
                place.slot -= 1;
                Ok(())
            }
            Some(place) => {
                let number = place.number;
                self.go(|table, _| end_before(table, number))
            }
            None => self.go(|_, _| Ok(None)),
        }
    }

    #[inline]
    fn record(&self) -> Option<RecordRef<'_>> {
        let place = self.place.as_ref()?;
        // The block is verified, so every slot below its count holds a record. Where a device gives other bytes for a
        // mapped page than it did then, the scan ends (`docs/contract.md`, not promised): to tell that as damage, each
        // step would have to parse the record that it comes to.
        place.block.record(place.slot).ok()
    }

    #[inline]
    fn is_positioned(&self) -> bool {
        self.place.is_some()
    }

    #[inline]
    fn pinned(&self) -> Option<PinnedRecord> {
        let place = self.place.as_ref()?;
        place.block.pinned(place.slot).ok()
    }

    /// Not lent: a block with versions of one key or with a range delete, for whoever moves records has to decide of
    /// each; one that is stored compressed in a file that is not in memory, for its stored bytes are gone, unless the
    /// cursor is of a [`StreamedRun`](crate::StreamedRun), which keeps them; and one that was compressed with the
    /// table's dictionary, which another table does not have.
    #[inline]
    fn block(&self) -> Option<WholeBlock<'_>> {
        let place = self.place.as_ref().filter(|place| place.slot == 0)?;
        whole_block(&self.table, place)
    }

    #[inline]
    fn block_last(&self) -> Option<RecordRef<'_>> {
        let block = &self.place.as_ref().filter(|place| place.slot == 0)?.block;
        block.record(block.count() - 1).ok()
    }

    fn skip_block(&mut self) -> Result<()> {
        let next = self.place.as_ref().map(|place| place.number + 1);
        self.go(|table, stream| next.map_or(Ok(None), |next| goes_on_in(table, stream, next)))
    }

    /// Not lent from a table with tombstones or with versions of one key: each of its records has to be looked at.
    fn stretch(&self, direction: Direction) -> Option<Stretch> {
        let place = self.place.as_ref()?;
        let meta = self.table.meta();
        if meta.footer.flags.get() & FLAG_UNIQUE_USER_KEYS == 0 || meta.info.tombstones > 0 {
            return None;
        }
        let slots = match direction {
            Direction::Forward => place.slot..place.block.count(),
            Direction::Backward => 0..place.slot + 1,
        };
        let (first, last) = (self.table.first().as_ref().keyspace, self.table.last().as_ref().keyspace);
        let stretch = place.block.stretch(slots, direction, meta.info.seqno_max);
        Some(stretch.of_keyspace((first == last).then_some(first)).asked_for())
    }

    fn pass(&mut self, records: u16, direction: Direction) -> Result<()> {
        let Some(place) = self.place.as_mut() else { return Ok(()) };
        let slot = match direction {
            Direction::Forward => place.slot.checked_add(records).filter(|slot| *slot < place.block.count()),
            Direction::Backward => place.slot.checked_sub(records),
        };
        // What a stretch lends lies in the block.
        place.slot = slot.unwrap_or(place.slot);
        Ok(())
    }
}
