//! A [`File`] as an [`io::Write`], in chunks that are large enough for the page cache to use large folios, or to go
//! past it.
//!
//! Threading: one writer owns its sink.

use std::io::{self, Write};
use std::sync::Arc;

use pebble_vfs::{DirectBuffer, File};

/// Bytes per write. The kernel backs a file by folios no larger than the writes that made it, and a mapped
/// read of a 2 MiB folio costs a fraction of the page walks.
const CHUNK: usize = 2 << 20;

/// Bytes of the buffer at first: most tables of a small database are small.
const CHUNK_MIN: usize = 64 << 10;

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
    past_cache: bool,
}

impl FileSink {
    /// A sink over a new, empty file. Takes up to 2 MiB of memory.
    pub fn new(file: Arc<dyn File>) -> Self {
        Self { file, offset: 0, chunk: None, filled: 0, past_cache: false }
    }

    /// The same, but whole chunks leave nothing in the page cache, for what nobody is going to read soon. The last one
    /// does, and with it the indexes of a table, which are read when it is opened.
    pub fn past_cache(file: Arc<dyn File>) -> Self {
        Self { past_cache: true, ..Self::new(file) }
    }

    /// The file that is written.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// The file that was written.
    pub fn into_file(self) -> Arc<dyn File> {
        self.file
    }

    /// Writes the chunk, which is full.
    fn write_chunk(&mut self) -> io::Result<()> {
        let bytes = self.chunk.as_ref().map_or(&[][..], DirectBuffer::bytes);
        if self.past_cache {
            self.file.write_past_cache(bytes, self.offset)?;
        } else {
            self.file.write_at(bytes, self.offset)?;
            // Each chunk is on its way to the device while the next is filled, so that the sync at the end finds
            // little, and dirty pages never pile up to where the kernel stops the world. A hint: its failure means
            // nothing.
            self.file.write_back(self.offset, CHUNK as u64).ok();
        }
        self.offset += CHUNK as u64;
        self.filled = 0;
        Ok(())
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.filled == CHUNK {
            self.write_chunk()?;
        }
        let chunk = self.chunk.get_or_insert_with(|| DirectBuffer::new(CHUNK_MIN));
        if self.filled == chunk.bytes().len() {
            let mut larger = DirectBuffer::new(self.filled * 2);
            if let Some(to) = larger.bytes_mut().get_mut(..self.filled) {
                to.copy_from_slice(chunk.bytes());
            }
            *chunk = larger;
        }
        let room = chunk.bytes_mut().get_mut(self.filled..).unwrap_or_default();
        let taken = bytes.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..taken), bytes.get(..taken)) {
            to.copy_from_slice(from);
        }
        self.filled += taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let rest = self.chunk.as_ref().and_then(|chunk| chunk.bytes().get(..self.filled)).unwrap_or_default();
        self.file.write_at(rest, self.offset)?;
        self.offset += rest.len() as u64;
        self.filled = 0;
        Ok(())
    }
}
