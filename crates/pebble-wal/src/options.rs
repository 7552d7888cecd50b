//! How a log is laid out and written. Plain values; no threading rule.

use pebble_format::{Error, Result};

/// Largest segment length that may be asked for; a payload that needs more still gets a segment of its own.
const SEGMENT_LEN_LIMIT: u32 = 1 << 30;

/// Segments are whole pages.
pub(crate) const PAGE: usize = 4096;

/// How bytes reach the segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogIo {
    /// Through a mapping of the file: an append is a copy and a checksum, with no system call.
    Map,
    /// Through one positioned write per append, from memory of the process. Chosen by the user, or by a file system
    /// that offers no real blocks or no mapping.
    Write,
}

/// Options of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// How bytes reach the file. [`LogIo::Map`] falls back to [`LogIo::Write`] where the file system cannot do it.
    pub io: LogIo,
    /// Bytes of the first segment; each one after it is twice as long. At least a page.
    pub segment_len_min: u32,
    /// Bytes at which segments stop growing. At most 1 GiB.
    pub segment_len_max: u32,
    /// How many retired segments are kept for another life.
    pub spare_max: usize,
    /// Which database the segments belong to.
    pub uuid: [u8; 16],
}

impl LogOptions {
    /// Mapped segments of 256 KiB growing to 64 MiB, four of them spare.
    pub fn new(uuid: [u8; 16]) -> Self {
        Self { io: LogIo::Map, segment_len_min: 256 << 10, segment_len_max: 64 << 20, spare_max: 4, uuid }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let (min, max) = (self.segment_len_min, self.segment_len_max);
        if usize::try_from(min).is_ok_and(|min| min < PAGE) || min > max || max > SEGMENT_LEN_LIMIT {
            return Err(Error::invalid(format!(
                "log segments of {min} to {max} bytes; from {PAGE} to {SEGMENT_LEN_LIMIT} are possible"
            )));
        }
        Ok(())
    }
}
