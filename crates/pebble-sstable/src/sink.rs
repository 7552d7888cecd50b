//! A [`File`] as an [`io::Write`], in chunks that are large enough for the page cache to use large folios.
//!
//! Threading: one writer owns its sink.

use std::io::{self, Write};
use std::sync::Arc;

use pebble_vfs::File;

/// Bytes per write. The kernel backs a file by folios no larger than the writes that made it, and a mapped
/// read of a 2 MiB folio costs a fraction of the page walks.
const CHUNK: usize = 2 << 20;

/// Appends to a file from its start. Call [`Write::flush`] (as
/// [`TableWriter::finish`](crate::TableWriter::finish) does) and then [`File::sync_data`]: the sink itself
/// promises no durability, and nothing is written when it is dropped.
#[derive(Debug)]
pub struct FileSink {
    file: Arc<dyn File>,
    offset: u64,
    chunk: Vec<u8>,
}

impl FileSink {
    /// A sink over a new, empty file. Takes up to 2 MiB of memory.
    pub fn new(file: Arc<dyn File>) -> Self {
        Self { file, offset: 0, chunk: Vec::new() }
    }

    /// The file that is written.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// The file that was written.
    pub fn into_file(self) -> Arc<dyn File> {
        self.file
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() >= CHUNK {
            let from = self.offset;
            self.flush()?;
            // Each chunk is on its way to the device while the next is filled, so that the sync at the end finds
            // little, and dirty pages never pile up to where the kernel stops the world. A hint: its failure means
            // nothing.
            self.file.write_back(from, self.offset - from).ok();
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.chunk, self.offset)?;
        self.offset += u64::try_from(self.chunk.len()).map_err(io::Error::other)?;
        self.chunk.clear();
        Ok(())
    }
}
