//! A [`File`] as an [`io::Write`], in chunks that are large enough for the page cache to use large folios, or to go
//! past it.
//!
//! ```text
//!   write ──► chunk, 2 MiB ──full──► a helper ──► file, past the cache          one chunk is filled
//!                  ▲                    │                                      while the other is written
//!                  └────── empty ◄──────┘
//! ```
//!
//! Threading: one writer owns its sink.

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use pebble_vfs::{DIRECT_ALIGN, DirectBuffer, File, Helpers, NoHelpers, Transfer};

/// Bytes per write. The kernel backs a file by folios no larger than the writes that made it, and a mapped
/// read of a 2 MiB folio costs a fraction of the page walks.
const CHUNK: usize = 2 << 20;

/// Bytes of the buffer at first: most tables of a small database are small.
const CHUNK_MIN: usize = 64 << 10;

/// By how much it grows at a time.
const GROWTH: usize = 8;

/// Appends to a file from its start. Call [`Write::flush`] (as
/// [`TableWriter::finish`](crate::TableWriter::finish) does) and then [`File::sync_data`]: the sink itself
/// promises no durability, and nothing is written when it is dropped.
#[derive(Debug)]
pub struct FileSink {
    file: Arc<dyn File>,
    offset: u64,
    /// None before the first byte.
    chunk: Option<DirectBuffer>,
    filled: usize,
    /// The chunk before, on its way past the cache.
    behind: Option<Transfer<DirectBuffer>>,
    past_cache: bool,
    helpers: Arc<dyn Helpers>,
}

impl FileSink {
    /// A sink over a new, empty file. Takes up to 2 MiB of memory.
    pub fn new(file: Arc<dyn File>) -> Self {
        Self::begin(file, false, Arc::new(NoHelpers))
    }

    /// The same, but what is written before the first [`Write::flush`] leaves nothing in the page cache, for nobody is
    /// going to read it soon. What comes behind goes there: of a table, the indexes, which are read when it is opened.
    /// Takes up to 4 MiB of memory; an error of a write may come with the next one, or with the flush.
    pub fn past_cache(file: Arc<dyn File>, helpers: Arc<dyn Helpers>) -> Self {
        Self::begin(file, true, helpers)
    }

    fn begin(file: Arc<dyn File>, past_cache: bool, helpers: Arc<dyn Helpers>) -> Self {
        Self { file, offset: 0, chunk: None, filled: 0, behind: None, past_cache, helpers }
    }

    /// The file that is written.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// The file that was written.
    pub fn into_file(self) -> Arc<dyn File> {
        Arc::clone(&self.file)
    }

    /// Writes the chunk, which is full.
    fn write_chunk(&mut self) -> io::Result<()> {
        let offset = self.offset;
        if self.past_cache {
            self.wait()?;
            let file = Arc::clone(&self.file);
            self.behind = self.chunk.take().map(|full| {
                let write = move || {
                    let bytes = full.bytes().get(..CHUNK).unwrap_or_default();
                    file.write_past_cache(bytes, offset).map(|()| full)
                };
                Transfer::begin(&*self.helpers, write)
            });
        } else {
            let bytes = self.chunk.as_ref().and_then(|chunk| chunk.bytes().get(..CHUNK));
            self.file.write_at(bytes.unwrap_or_default(), offset)?;
            // Each chunk is on its way to the device while the next is filled, so that the sync at the end finds
            // little, and dirty pages never pile up to where the kernel stops the world. A hint: its failure means
            // nothing.
            self.file.write_back(offset, CHUNK as u64).ok();
        }
        self.offset += CHUNK as u64;
        self.filled = 0;
        Ok(())
    }

    /// Waits for the chunk before.
    fn wait(&mut self) -> io::Result<()> {
        if let Some(behind) = self.behind.take() {
            self.helpers.give_back(behind.wait()?);
        }
        Ok(())
    }

    /// What is free of the chunk: not nothing.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == CHUNK {
            self.write_chunk()?;
        }
        let chunk = match self.chunk.take() {
            // Whole once one was full; before, a small table is to cost little.
            None => self.helpers.lend(if self.offset == 0 { CHUNK_MIN } else { CHUNK })?,
            Some(full) if self.filled == full.bytes().len() => {
                // What it grew out of is not given back for others: they would keep as much again as a chunk.
                let mut larger = self.helpers.lend((self.filled * GROWTH).min(CHUNK))?;
                if let Some(to) = larger.bytes_mut().get_mut(..self.filled) {
                    to.copy_from_slice(full.bytes());
                }
                larger
            }
            Some(chunk) => chunk,
        };
        let end = chunk.bytes().len().min(CHUNK);
        Ok(self.chunk.insert(chunk).bytes_mut().get_mut(self.filled..end).unwrap_or_default())
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.helpers.give_back(chunk);
        }
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room()?;
        let taken = bytes.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..taken), bytes.get(..taken)) {
            to.copy_from_slice(from);
        }
        self.filled += taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let filled = mem::take(&mut self.filled);
        let mut rest = self.chunk.as_ref().and_then(|chunk| chunk.bytes().get(..filled)).unwrap_or_default();
        if self.past_cache {
            let (whole, part) = rest.split_at(filled - filled % DIRECT_ALIGN);
            if !whole.is_empty() {
                self.file.write_past_cache(whole, self.offset)?;
            }
            self.offset += whole.len() as u64;
            rest = part;
        }
        self.file.write_at(rest, self.offset)?;
        self.offset += rest.len() as u64;
        self.past_cache = false;
        self.wait()
    }
}
