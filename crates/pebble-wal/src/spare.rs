//! What is left of segments that nobody needs: memory and files for another life, and names to remove.
//!
//! A spare keeps its old name until it is used: then the file is renamed, and its new header makes all old frames
//! void (their epoch is another). A crash before that leaves a file numbered below the first that matters, which
//! replay does not open.
//!
//! Threading: belongs to the writer.

use std::path::Path;

use pebble_format::log::{SEGMENT_HEADER_LEN, SegmentHeader};
use pebble_vfs::{Fs, Open};
use zerocopy::FromBytes;

use crate::segment::{Segment, path, remove};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Spares {
    segments: Vec<Segment>,
    /// Numbers of files to remove.
    debris: Vec<u32>,
}

impl Spares {
    /// With files of earlier processes, to be removed once they are obsolete.
    pub(crate) fn with_debris(debris: Vec<u32>) -> Self {
        Self { segments: Vec::new(), debris }
    }

    /// A spare of at least `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Option<Segment> {
        let index = self.segments.iter().position(|segment| segment.capacity() >= len)?;
        Some(self.segments.swap_remove(index))
    }

    /// Whether there is a spare of at least `len` bytes.
    pub(crate) fn has(&self, len: usize) -> bool {
        self.segments.iter().any(|segment| segment.capacity() >= len)
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn keep(&mut self, segment: Segment) {
        self.segments.push(segment);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// Notes a file whose segment is gone.
    pub(crate) fn discard(&mut self, number: u32) {
        self.debris.push(number);
    }

    /// Removes the noted files numbered below `before`. What cannot be removed is tried again the next time.
    pub(crate) fn clean(&mut self, fs: &dyn Fs, dir: &Path, uuid: &[u8; 16], before: u32) {
        self.debris.retain(|number| {
            *number >= before || !is_ours(fs, dir, *number, uuid) || !remove(fs, dir, *number)
        });
    }

    /// Removes the files of all spares.
    pub(crate) fn clear(&mut self, fs: &dyn Fs, dir: &Path) {
        for segment in self.segments.drain(..) {
            if !remove(fs, dir, segment.number()) {
                self.debris.push(segment.number());
            }
        }
    }
}

/// Whether a file may be removed: not if a whole header says that it belongs to another database.
fn is_ours(fs: &dyn Fs, dir: &Path, number: u32, uuid: &[u8; 16]) -> bool {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    let Ok(file) = fs.open(&path(dir, number), Open::Read) else { return false };
    match (file.read_exact_at(&mut bytes, 0), SegmentHeader::read_from_bytes(&bytes)) {
        (Ok(()), Ok(header)) => header.crc.get() != header.checksum() || header.uuid == *uuid,
        (Err(error), _) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        (Ok(()), Err(_)) => false,
    }
}
