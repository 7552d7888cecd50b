//! Headers of the write-ahead log. The whole format, and when a frame counts, is told in `docs/format/log.md`.
//!
//! ```text
//!   segment = SegmentHeader (64 B), frame*, stale or zero bytes to the end of the file
//!   frame   = FrameHeader (24 B), payload (a multiple of 4 bytes)
//!   seal    = a frame without payload and count: the log was closed cleanly here
//! ```

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{crc32c, crc32c_of_words};

/// First bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"pebl\x00log";

/// The format version of the log that this build writes, and the newest that it reads.
pub const LOG_VERSION: u32 = 1;

/// A position in the log over all segments: segment number in the upper half, byte offset in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl LogPosition {
    /// Before every frame.
    pub const ZERO: Self = Self(0);

    /// The position `offset` bytes into `segment`.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self((segment as u64) << 32 | offset as u64)
    }

    /// The segment's number.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The byte offset in the segment.
    pub const fn offset(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }
}

impl std::fmt::Display for LogPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}

/// The start of a segment.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SegmentHeader {
    /// [`SEGMENT_MAGIC`].
    pub magic: [u8; 8],
    /// [`LOG_VERSION`].
    pub version: U32,
    /// Differs between all lives of one file, so stale frames of a recycled segment never validate.
    pub epoch: U32,
    /// Which database the segment belongs to.
    pub uuid: [u8; 16],
    /// Where the log ended when this segment was begun: the end of its predecessor's last frame.
    pub previous_end: U64,
    /// The segment's number: the number in its file name.
    pub number: U32,
    /// Zero.
    pub reserved: [u8; 16],
    /// CRC-32C of the 60 bytes before.
    pub crc: U32,
}

/// Bytes of [`SegmentHeader`]; the first frame starts here.
pub const SEGMENT_HEADER_LEN: usize = size_of::<SegmentHeader>();

impl SegmentHeader {
    /// The checksum that the header should carry.
    pub fn checksum(&self) -> u32 {
        let bytes = self.as_bytes();
        crc32c(0, bytes.get(..SEGMENT_HEADER_LEN - 4).unwrap_or_default())
    }
}

/// The start of a frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    /// CRC-32C of the rest of the frame, begun with its epoch and offset: see [`FrameHeader::checksum`].
    pub crc: U32,
    /// Bytes of the payload.
    pub len: U32,
    /// Records in the payload; 0 marks a seal.
    pub count: U32,
    /// The segment's epoch.
    pub epoch: U32,
    /// How far the log, over all segments, was known durable when the frame was written.
    pub promise: U64,
}

/// Bytes of [`FrameHeader`].
pub const FRAME_HEADER_LEN: usize = size_of::<FrameHeader>();

impl FrameHeader {
    /// The checksum of a frame that starts `offset` bytes into its segment.
    #[inline]
    pub fn checksum(&self, offset: u32, payload: &[u8]) -> u32 {
        let fields = FrameFields {
            len: self.len.get(),
            count: self.count.get(),
            epoch: self.epoch.get(),
            promise: LogPosition(self.promise.get()),
        };
        fields.checksum(offset, payload)
    }
}

/// What a [`FrameHeader`] says, in numbers, for the writer: from them to the header's place without a copy on the way.
#[derive(Clone, Copy, Debug)]
pub struct FrameFields {
    /// See [`FrameHeader::len`].
    pub len: u32,
    /// See [`FrameHeader::count`].
    pub count: u32,
    /// See [`FrameHeader::epoch`].
    pub epoch: u32,
    /// See [`FrameHeader::promise`].
    pub promise: LogPosition,
}

impl FrameFields {
    /// Epoch and offset are mixed in, so a frame of an earlier life or at another place does not validate.
    #[inline]
    fn checksum(self, offset: u32, payload: &[u8]) -> u32 {
        let words =
            [pair(self.epoch, offset), pair(self.len, self.count), pair(self.epoch, self.promise.offset())];
        crc32c_of_words(words, self.promise.segment(), payload)
    }

    /// Writes the header, checksum included, of a frame that starts `offset` bytes into its segment.
    ///
    /// Whole words, because the header is not read back: one made elsewhere in fields of four bytes, and copied, is
    /// loaded in wider pieces than it was stored, and waits for the payload's stores to leave the processor.
    #[inline]
    pub fn write(self, to: &mut [u8; FRAME_HEADER_LEN], offset: u32, payload: &[u8]) {
        let crc = self.checksum(offset, payload);
        let (words, _) = to.as_chunks_mut::<8>();
        for (to, word) in
            words.iter_mut().zip([pair(crc, self.len), pair(self.count, self.epoch), self.promise.0])
        {
            *to = word.to_le_bytes();
        }
    }
}

/// Two numbers as they stand on disk, in one word.
#[inline]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The epoch of a segment: different for every number and database, never zero.
pub fn segment_epoch(uuid: &[u8; 16], number: u32) -> u32 {
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(uuid, u64::from(number));
    // Folding is wanted here: any 32 bits of the hash do.
    ((hash ^ hash >> 32) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_at_another_place_or_of_another_life_has_another_checksum() {
        let header = |epoch: u32| FrameHeader {
            crc: 0.into(),
            len: 4.into(),
            count: 1.into(),
            epoch: epoch.into(),
            promise: 9.into(),
        };
        let base = header(1).checksum(64, b"data");
        assert_ne!(base, header(1).checksum(68, b"data"));
        assert_ne!(base, header(2).checksum(64, b"data"));
        assert_ne!(base, header(1).checksum(64, b"date"));
        assert_eq!(base, header(1).checksum(64, b"data"));
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let fields = FrameFields {
            len: 0x0403_0201,
            count: 0x0807_0605,
            epoch: 0x0c0b_0a09,
            promise: LogPosition(0x1413_1211_100f_0e0d),
        };
        let mut bytes = [0; FRAME_HEADER_LEN];
        fields.write(&mut bytes, 64, b"payload");
        assert!(bytes.iter().skip(4).copied().eq(1..=20));
        let header = FrameHeader::read_from_bytes(&bytes).unwrap();
        assert_eq!(header.crc.get(), header.checksum(64, b"payload"));
        // Byte by byte as docs/format/log.md has it.
        let place = [9, 10, 11, 12, 64, 0, 0, 0];
        let whole = [&place, &bytes[4..], b"payload"].concat();
        assert_eq!(header.crc.get(), crc32c(0, &whole));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_shows() {
        for len in (0..=300).step_by(4) {
            let mut frame = vec![0x5a; FRAME_HEADER_LEN + len];
            let (head, payload) = frame.split_first_chunk_mut().unwrap();
            let promise = LogPosition::new(2, 4);
            FrameFields { len: len as u32, count: 1, epoch: 7, promise }.write(head, 64, payload);
            let holds = |frame: &[u8]| {
                let (header, payload) = FrameHeader::read_from_prefix(frame).unwrap();
                header.crc.get() == header.checksum(64, payload)
            };
            assert!(holds(&frame));
            for bit in 0..frame.len() * 8 {
                frame[bit / 8] ^= 1 << (bit % 8);
                assert!(!holds(&frame), "bit {bit} of {len}");
                frame[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn positions_order_by_segment_then_offset() {
        assert!(LogPosition::new(1, u32::MAX) < LogPosition::new(2, 0));
        let position = LogPosition::new(7, 9);
        assert_eq!((position.segment(), position.offset()), (7, 9));
    }
}
