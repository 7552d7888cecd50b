//! Reading a table once, from front to back, past the page cache: what a merge does with tables that nobody else reads.
//!
//! ```text
//!   file ──512 KiB──► part in use │ part ahead, read by a helper      a block lies in one of them, whole, pinned there
//! ```
//!
//! A page of the cache that is fresh costs many times the copy into it, and one that is taken from a reader's table
//! costs him a miss; a merge needs each byte once. Threading: one cursor's own, but for the part that a helper reads.

use std::io;
use std::sync::Arc;

use pebble_cursor::Source;
use pebble_format::{Corruption, InternalKey, Pinned, Result};
use pebble_vfs::{DIRECT_ALIGN, DirectBuffer, File, Helpers, Transfer};

use crate::block::Block;
use crate::cursor::TableCursor;
use crate::meta::BlockPlace;
use crate::source::usize_of;
use crate::sync::{Mutex, lock};
use crate::table::Table;

/// Bytes per read: enough for the device, and for the one who reads ahead to be woken seldom.
const CHUNK: usize = 512 << 10;

/// A table's file and the parts of it that were read last.
#[derive(Debug)]
pub(crate) struct Stream {
    file: Arc<dyn File>,
    helpers: Arc<dyn Helpers>,
    part: Part,
    next: Next,
}

/// What becomes of the memory beside the part in use.
#[derive(Debug)]
enum Next {
    /// It may still be pinned.
    Idle(Part),
    Ahead(Transfer<Part>),
}

#[derive(Debug)]
struct Part {
    /// None before the first read.
    buffer: Option<Arc<DirectBuffer>>,
    start: u64,
    len: usize,
}

impl Part {
    const EMPTY: Self = Self { buffer: None, start: 0, len: 0 };

    fn holds(&self, offset: u64, len: usize) -> Option<Pinned> {
        let from = usize_of(offset.checked_sub(self.start)?);
        let end = from.checked_add(len).filter(|end| *end <= self.len)?;
        let whole = Pinned::new(Arc::clone(self.buffer.as_ref()?), |buffer| buffer.bytes());
        Some(whole.into_slice(from..end))
    }

    /// Reads `wanted` bytes from `start` on, or fewer if the file ends before; the memory is used again if nothing is
    /// pinned in it.
    fn read(mut self, file: &dyn File, helpers: &dyn Helpers, start: u64, wanted: usize) -> io::Result<Self> {
        let mut buffer = match self.buffer.take().and_then(Arc::into_inner) {
            Some(buffer) if buffer.bytes().len() >= wanted => buffer,
            _ => helpers.lend(wanted)?,
        };
        let mut len = 0;
        while let Some(rest) = buffer.bytes_mut().get_mut(len..wanted).filter(|rest| !rest.is_empty()) {
            match file.read_past_cache(rest, start + len as u64)? {
                0 => break,
                read => len += read,
            }
        }
        Ok(Self { buffer: Some(Arc::new(buffer)), start, len })
    }
}

impl Stream {
    /// A stream that has begun to read the start of its table.
    fn begin(table: &Table, file: Arc<dyn File>, helpers: Arc<dyn Helpers>) -> Self {
        let mut stream = Self { file, helpers, part: Part::EMPTY, next: Next::Idle(Part::EMPTY) };
        if let Ok(first) = table.meta().block(0) {
            stream.send_for(table, &first);
        }
        stream
    }

    /// A block, checked, and its bytes as they are stored.
    pub(crate) fn block(&mut self, table: &Table, number: u32) -> Result<(Block, Pinned)> {
        let place = table.meta().block(number).map_err(|corruption| table.corrupt(corruption))?;
        let padded = match self.part.holds(place.offset, place.padded_len) {
            Some(found) => {
                self.read_ahead(table, number);
                found
            }
            None => self.turn(table, &place)?,
        };
        let stored = padded.slice(0..place.stored_len);
        Ok((table.expand_block(padded, number, &place)?, stored))
    }

    /// Has a helper read what follows the part in use. Not before its second block: the cursor held a block of the part
    /// before until then.
    fn read_ahead(&mut self, table: &Table, number: u32) {
        if matches!(self.next, Next::Ahead(_)) {
            return;
        }
        let end = self.part.start + self.part.len as u64;
        let places = (number + 1..table.info().blocks).map_while(|next| table.meta().block(next).ok());
        let beyond = |place: &BlockPlace| place.offset + place.padded_len as u64 > end;
        if let Some(place) = places.into_iter().find(beyond) {
            self.send_for(table, &place);
        }
    }

    /// Has a helper read the part that begins with a block.
    fn send_for(&mut self, table: &Table, place: &BlockPlace) {
        if let Next::Idle(idle) = std::mem::replace(&mut self.next, Next::Idle(Part::EMPTY)) {
            let (start, wanted) = span(table, place);
            let (file, helpers) = (Arc::clone(&self.file), Arc::clone(&self.helpers));
            let read = move || idle.read(&*file, &*helpers, start, wanted);
            self.next = Next::Ahead(Transfer::begin(&*self.helpers, read));
        }
    }

    /// Goes to the part that begins with a block, and gives the block's bytes with the zeros behind them.
    fn turn(&mut self, table: &Table, place: &BlockPlace) -> Result<Pinned> {
        let found = |part: &Part| part.holds(place.offset, place.padded_len);
        let mut next = match std::mem::replace(&mut self.next, Next::Idle(Part::EMPTY)) {
            Next::Idle(part) => part,
            Next::Ahead(part) => part.wait()?,
        };
        if found(&next).is_none() {
            let (start, wanted) = span(table, place);
            next = next.read(&*self.file, &*self.helpers, start, wanted)?;
        }
        self.next = Next::Idle(std::mem::replace(&mut self.part, next));
        found(&self.part).ok_or_else(|| {
            let (needed, got) =
                (place.offset + place.padded_len as u64, self.part.start + self.part.len as u64);
            table.corrupt(Corruption::new("table length", place.offset, needed, got))
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let next = std::mem::replace(&mut self.next, Next::Idle(Part::EMPTY));
        let part = std::mem::replace(&mut self.part, Part::EMPTY);
        let idle = match next {
            Next::Idle(idle) => Some(idle),
            // One that nobody has begun need not be read.
            Next::Ahead(_) => None,
        };
        for part in idle.into_iter().chain([part]) {
            part.buffer
                .and_then(Arc::into_inner)
                .into_iter()
                .for_each(|memory| self.helpers.give_back(memory));
        }
    }
}

/// The part of the file that is read for the sake of a block, and of those behind it: where it begins, and its length.
fn span(table: &Table, place: &BlockPlace) -> (u64, usize) {
    let start = place.offset - place.offset % DIRECT_ALIGN as u64;
    let needed = usize_of(place.offset - start) + place.padded_len;
    let left = usize_of(table.info().data_len.saturating_sub(start));
    (start, needed.max(CHUNK.min(left)).next_multiple_of(DIRECT_ALIGN))
}

/// How the files of a [`StreamedRun`] are found: `None` for a table that is better read where it is.
pub type OpenFile<'a> = &'a (dyn Fn(&Table) -> Result<Option<Arc<dyn File>>> + Send + Sync);

/// As [`TableRun`](crate::TableRun), for a walk from front to back over tables that nobody else reads.
pub struct StreamedRun<'a> {
    tables: Arc<[Arc<Table>]>,
    open: OpenFile<'a>,
    helpers: Arc<dyn Helpers>,
    /// The table behind the one that was opened last, which its cursor will come to, and its start on the way.
    next: Mutex<Option<(usize, Stream)>>,
}

impl<'a> StreamedRun<'a> {
    /// Tables in ascending order, without overlap, how to get at their files, and who reads ahead: the first of them at
    /// once.
    pub fn new(tables: Arc<[Arc<Table>]>, open: OpenFile<'a>, helpers: Arc<dyn Helpers>) -> Self {
        let run = Self { tables, open, helpers, next: Mutex::new(None) };
        run.look_ahead(0);
        run
    }

    fn stream(&self, index: usize) -> Result<Option<Stream>> {
        let table = &self.tables[index];
        let file = (self.open)(table)?;
        Ok(file.map(|file| Stream::begin(table, file, Arc::clone(&self.helpers))))
    }

    /// Begins to read a table, if there is one. What is wrong with it is told when it is opened.
    fn look_ahead(&self, index: usize) {
        if index < self.tables.len() {
            let begun = self.stream(index).ok().flatten();
            *lock(&self.next) = begun.map(|stream| (index, stream));
        }
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
        let begun = lock(&self.next).take().filter(|(at, _)| *at == index);
        let stream = match begun {
            Some((_, stream)) => Some(stream),
            None => self.stream(index)?,
        };
        self.look_ahead(index + 1);
        Ok(match stream {
            Some(stream) => TableCursor::streaming(Arc::clone(table), stream),
            None => table.cursor(),
        })
    }
}
