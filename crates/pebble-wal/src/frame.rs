//! When a frame counts: the one check that replay and the scan behind it share. Pure functions over bytes, hostile
//! ones too.

use pebble_format::Corruption;
use pebble_format::log::{FRAME_HEADER_LEN, FrameHeader, LogPosition};
use zerocopy::FromBytes;

/// Offset of the epoch in a frame's header.
pub(crate) const EPOCH_AT: usize = 12;

/// Bytes of a segment, cut where offsets would leave 32 bits, and what its frames must match.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a> {
    pub(crate) bytes: &'a [u8],
    /// Offset of `bytes` in the segment.
    pub(crate) base: usize,
    pub(crate) number: u32,
    pub(crate) epoch: u32,
}

/// A frame that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Valid {
    pub(crate) count: u32,
    pub(crate) promise: LogPosition,
    /// Offset of the first byte behind it.
    pub(crate) end: usize,
}

impl Valid {
    pub(crate) fn is_seal(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Bytes<'a> {
    /// The header at a segment's offset and the bytes behind it.
    fn header(&self, offset: usize) -> Option<(FrameHeader, &'a [u8])> {
        let rest = self.bytes.get(offset.checked_sub(self.base)?..)?;
        FrameHeader::read_from_prefix(rest).ok()
    }

    /// Bytes that a check of the frame at `offset` reads: no payload, where the header alone shows that none counts.
    pub(crate) fn claimed(&self, offset: usize) -> usize {
        let payload = |(header, rest): (FrameHeader, &[u8])| {
            let len = usize::try_from(header.len.get()).ok();
            len.filter(|len| header.epoch.get() == self.epoch && *len <= rest.len())
        };
        self.header(offset).and_then(payload).unwrap_or(0).saturating_add(FRAME_HEADER_LEN)
    }

    /// The frame at a segment's offset, if it counts; otherwise what does not hold.
    pub(crate) fn frame(&self, offset: usize) -> Result<Valid, Corruption> {
        let at = u64::try_from(offset).unwrap_or(u64::MAX);
        let wrong = |what, expected: u64, got: u64| Err(Corruption::new(what, at, expected, got));
        let left = (self.base + self.bytes.len()).saturating_sub(offset);
        let (Some((header, rest)), Ok(place)) = (self.header(offset), u32::try_from(offset)) else {
            return wrong("log frame header", FRAME_HEADER_LEN as u64, left as u64);
        };
        let epoch = header.epoch.get();
        if epoch != self.epoch {
            return wrong("log frame epoch", self.epoch.into(), epoch.into());
        }
        let len = header.len.get();
        let payload =
            usize::try_from(len).ok().filter(|len| len.is_multiple_of(4)).and_then(|len| rest.get(..len));
        let Some(payload) = payload else {
            return wrong("log frame length", rest.len() as u64, len.into());
        };
        let count = header.count.get();
        if (count == 0) != (len == 0) {
            return wrong("log frame count", len.into(), count.into());
        }
        let promise = LogPosition(header.promise.get());
        let start = LogPosition::new(self.number, place);
        if promise > start {
            return wrong("log frame promise", start.0, promise.0);
        }
        let crc = header.checksum(place, payload);
        if crc != header.crc.get() {
            return wrong("log frame checksum", crc.into(), header.crc.get().into());
        }
        Ok(Valid { count, promise, end: offset + FRAME_HEADER_LEN + payload.len() })
    }
}
