//! Reading a table once, from front to back, past the page cache: what a merge does with tables that nobody else reads.
//!
//! ```text
//!   file ──256 KiB──► buffer 0 │ buffer 1      a block lies in one of them, whole, and is pinned there
//! ```
//!
//! A page of the cache that is fresh costs many times the copy into it, and one that is taken from a reader's table
//! costs him a miss; a merge needs each byte once. Threading: one cursor's own.

use std::sync::Arc;

use pebble_cursor::Source;
use pebble_format::{Corruption, InternalKey, Pinned, Result};
use pebble_vfs::{DIRECT_ALIGN, DirectBuffer, File};

use crate::block::Block;
use crate::cursor::TableCursor;
use crate::meta::BlockPlace;
use crate::source::usize_of;
use crate::table::Table;

/// Bytes per read.
const CHUNK: usize = 256 << 10;

/// A table's file and the parts of it that were read last.
#[derive(Debug)]
pub(crate) struct Stream {
    file: Arc<dyn File>,
    /// The part in use, and the one before, which is used again once nothing is pinned in it.
    parts: [Part; 2],
}

#[derive(Debug)]
struct Part {
    buffer: Arc<DirectBuffer>,
    start: u64,
    len: usize,
}

impl Part {
    fn new() -> Self {
        Self { buffer: Arc::new(DirectBuffer::new(0)), start: 0, len: 0 }
    }

    fn holds(&self, offset: u64, len: usize) -> Option<Pinned> {
        let from = usize_of(offset.checked_sub(self.start)?);
        let end = from.checked_add(len).filter(|end| *end <= self.len)?;
        let whole = Pinned::new(Arc::clone(&self.buffer), |buffer| buffer.bytes());
        Some(whole.into_slice(from..end))
    }
}

impl Stream {
    pub(crate) fn new(file: Arc<dyn File>) -> Self {
        Self { file, parts: [Part::new(), Part::new()] }
    }

    /// A block, checked, and its bytes as they are stored.
    pub(crate) fn block(&mut self, table: &Table, number: u32) -> Result<(Block, Pinned)> {
        let place = table.meta().block(number).map_err(|corruption| table.corrupt(corruption))?;
        let padded = self.read(table, &place)?;
        let stored = padded.slice(0..place.stored_len);
        Ok((table.expand_block(padded, number, &place)?, stored))
    }

    /// The bytes of a block with the zeros behind them.
    fn read(&mut self, table: &Table, place: &BlockPlace) -> Result<Pinned> {
        if let Some(found) = self.parts[0].holds(place.offset, place.padded_len) {
            return Ok(found);
        }
        self.parts.swap(0, 1);
        let start = place.offset - place.offset % DIRECT_ALIGN as u64;
        let needed = usize_of(place.offset - start) + place.padded_len;
        let left = usize_of(table.info().data_len.saturating_sub(start));
        let wanted = needed.max(CHUNK.min(left)).next_multiple_of(DIRECT_ALIGN);
        let part = &mut self.parts[0];
        (part.start, part.len) = (start, 0);
        match Arc::get_mut(&mut part.buffer) {
            Some(buffer) if buffer.bytes().len() >= wanted => {}
            _ => part.buffer = Arc::new(DirectBuffer::new(wanted)),
        }
        let buffer = Arc::get_mut(&mut part.buffer).map(DirectBuffer::bytes_mut).unwrap_or_default();
        while part.len < needed {
            let rest = buffer.get_mut(part.len..wanted).unwrap_or_default();
            let read = self.file.read_past_cache(rest, start + part.len as u64)?;
            if read == 0 {
                let (expected, got) = (needed as u64, part.len as u64);
                return Err(table.corrupt(Corruption::new("table length", start, expected, got)));
            }
            part.len += read;
        }
        part.holds(place.offset, place.padded_len).ok_or_else(|| {
            table.corrupt(Corruption::new("table length", start, needed as u64, part.len as u64))
        })
    }
}

/// How the files of a [`StreamedRun`] are found: `None` for a table that is better read where it is.
pub type OpenFile<'a> = &'a (dyn Fn(&Table) -> Result<Option<Arc<dyn File>>> + Send + Sync);

/// As [`TableRun`](crate::TableRun), for a walk from front to back over tables that nobody else reads.
pub struct StreamedRun<'a> {
    tables: Arc<[Arc<Table>]>,
    open: OpenFile<'a>,
}

impl<'a> StreamedRun<'a> {
    /// Tables in ascending order, without overlap, and how to get at their files.
    pub fn new(tables: Arc<[Arc<Table>]>, open: OpenFile<'a>) -> Self {
        Self { tables, open }
    }
}

impl Source for StreamedRun<'_> {
    type Cursor = TableCursor;

    fn len(&self) -> usize {
        self.tables.len()
    }

    fn first_key(&self, index: usize) -> InternalKey<'_> {
        self.tables[index].first().as_ref()
    }

    fn last_key(&self, index: usize) -> InternalKey<'_> {
        self.tables[index].last().as_ref()
    }

    fn open(&self, index: usize) -> Result<TableCursor> {
        let table = &self.tables[index];
        Ok(match (self.open)(table)? {
            Some(file) => TableCursor::streaming(Arc::clone(table), file),
            None => table.cursor(),
        })
    }
}
