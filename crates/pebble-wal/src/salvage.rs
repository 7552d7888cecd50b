//! A damaged log, read for what is left of it: every frame that is whole, wherever it stands.
//!
//! ```text
//!    [header frame frame ✗✗✗✗✗ frame frame ....zeros....]
//!                         └ lost ┘              └ the end: no whole frame behind
//! ```
//!
//! Replay stops at the first frame that does not count, since what comes behind a hole is no prefix of the commits.
//! Here the hole is told, with what can be said of its content, and the rest is given. A frame's place, segment and
//! database are in its checksum, so a whole frame is one that was written there.
//!
//! Threading: plain functions and data. Nothing is written; a segment is read into memory.

use std::path::Path;
use std::sync::Arc;

use pebble_format::log::{
    FRAME_HEADER_LEN, FrameHeader, LOG_VERSION, LogPosition, SEGMENT_HEADER_LEN, SegmentHeader, segment_epoch,
};
use pebble_format::single_byte::{differ_in_one_byte, single_byte_errors};
use pebble_format::{AppendRegion, Corruption, Error, FileName, Result};
use pebble_vfs::{Fs, Open, read_what_is_readable};
use zerocopy::FromBytes;

use crate::frame::{Bytes, EPOCH_AT, Valid};
use crate::recover::{check_header, segment_numbers};
use crate::segment::{in_segment, path};

/// Bytes that a frame's checksum covers before those of the frame: its place.
const PLACE_LEN: usize = 8;

/// How often, at most, a byte is checksummed in the search for frames. What lies behind the place where bytes that were
/// made to waste time have used that up is lost in one part.
const PASSES_MAX: usize = 4;

/// One segment, as far as it can be read.
#[derive(Debug)]
pub struct SegmentRemains {
    /// The segment's number.
    pub number: u32,
    /// The whole file.
    pub region: Arc<AppendRegion>,
    /// What is wrong with the header, if anything is.
    pub header: Option<Error>,
    /// Whole frames, ascending; seals are left out.
    pub frames: Vec<FrameSpan>,
    /// What lies between and before them, and is no frame.
    pub lost: Vec<LostFrames>,
    /// Behind the last whole frame, a seal included, or behind what is known to be missing there.
    pub end: usize,
}

/// Where a whole frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSpan {
    /// Offset of the frame.
    pub start: usize,
    /// Offset behind it.
    pub end: usize,
    /// The count that was appended with it.
    pub count: u32,
}

impl FrameSpan {
    /// Offset of the payload.
    pub fn payload(&self) -> usize {
        self.start + FRAME_HEADER_LEN
    }
}

/// Bytes that were one frame or several.
#[derive(Debug)]
pub struct LostFrames {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last one.
    pub end: usize,
    /// What is wrong.
    pub error: Error,
    /// What the payload may have been: if one byte is wrong, one of these is what was written; else there is one, the
    /// bytes as they are.
    pub payloads: Vec<Box<[u8]>>,
    /// Whether one of the payloads is what was written, should there be no more than one byte wrong.
    pub is_one_byte: bool,
}

/// Reads what is left of the log in `dir`: the segments from `first` on. `floor` is as for
/// [`recover`](crate::recover()).
///
/// Errors: `UnsupportedVersion`; `Io`, other than of bytes that the device cannot give. Damage is none.
pub fn salvage(
    fs: &dyn Fs,
    dir: &Path,
    uuid: &[u8; 16],
    first: u32,
    floor: LogPosition,
) -> Result<Vec<SegmentRemains>> {
    let mut segments = Vec::new();
    let (mut limits, mut begins) = (vec![floor], Vec::new());
    for number in segment_numbers(fs, dir)?.into_iter().filter(|number| *number >= first) {
        let (segment, seen) = read(fs, dir, uuid, number)?;
        limits.push(seen.promise);
        begins.extend(seen.previous_end);
        segments.push(segment);
    }
    limits.extend(begins);
    for segment in &mut segments {
        let here = limits.iter().filter(|limit| limit.segment() == segment.number);
        let limit = here.map(|limit| usize::try_from(limit.offset()).unwrap_or_default()).max();
        segment.miss_up_to(limit.unwrap_or_default(), segment_epoch(uuid, segment.number));
    }
    Ok(segments)
}

/// What a segment says of the log around it.
#[derive(Default)]
struct Seen {
    promise: LogPosition,
    previous_end: Option<LogPosition>,
}

fn read(fs: &dyn Fs, dir: &Path, uuid: &[u8; 16], number: u32) -> Result<(SegmentRemains, Seen)> {
    let file = fs.open(&path(dir, number), Open::Read)?;
    let len = usize::try_from(file.len()?.min(u64::from(u32::MAX - 3))).unwrap_or_default();
    let mut appender = AppendRegion::heap(len);
    let unread = read_what_is_readable(&*file, appender.spare())?;
    appender.fill(len);
    let region = Arc::clone(appender.region());
    let mut seen = Seen::default();
    let header = match SegmentHeader::read_from_prefix(region.bytes()) {
        Ok((header, _)) => match check_header(&header, number, uuid) {
            Ok(()) => {
                seen.previous_end = Some(LogPosition(header.previous_end.get()));
                None
            }
            Err(error @ Error::UnsupportedVersion { .. }) => {
                // The version is under the checksum of the header: if that holds for ours, its bytes are the damage.
                let ours = SegmentHeader { version: LOG_VERSION.into(), ..header };
                if check_header(&ours, number, uuid).is_err() {
                    return Err(error);
                }
                seen.previous_end = Some(LogPosition(header.previous_end.get()));
                let found = header.version.get().into();
                Some(in_segment(number, Corruption::new("log version", 8, LOG_VERSION.into(), found)))
            }
            Err(error) => Some(in_segment(number, error)),
        },
        Err(_) => {
            let short = Corruption::new("log segment length", 0, SEGMENT_HEADER_LEN as u64, len as u64);
            Some(in_segment(number, short))
        }
    };
    let end = SEGMENT_HEADER_LEN.min(len);
    let mut remains = SegmentRemains { number, region, header, frames: vec![], lost: vec![], end };
    let epoch = segment_epoch(uuid, number);
    remains.walk(epoch, &mut seen);
    // Nobody knows whether there were frames at the end.
    remains.miss_up_to(unread.last().map_or(0, |last| last.end), epoch);
    Ok((remains, seen))
}

impl SegmentRemains {
    fn walk(&mut self, epoch: u32, seen: &mut Seen) {
        let region = Arc::clone(&self.region);
        let bytes = Bytes { bytes: region.bytes(), base: 0, number: self.number, epoch };
        let mut budget = bytes.bytes.len().saturating_mul(PASSES_MAX);
        loop {
            match next_frame(&bytes, self.end, &mut budget) {
                Ok(Some((start, frame))) => {
                    self.miss_up_to(start, epoch);
                    seen.promise = seen.promise.max(frame.promise);
                    if !frame.is_seal() {
                        self.frames.push(FrameSpan { start, end: frame.end, count: frame.count });
                    }
                    self.end = frame.end;
                }
                Ok(None) => return,
                Err(Spent) => return self.miss_up_to(bytes.bytes.len(), epoch),
            }
        }
    }

    /// Notes that there were frames up to `limit`, of which none is whole.
    fn miss_up_to(&mut self, limit: usize, epoch: u32) {
        let start = self.end;
        if start >= limit {
            return;
        }
        // A file that was cut has fewer bytes than were written.
        let end = limit.min(self.region.filled()).max(start);
        let lost = self.region.bytes().get(start..end).unwrap_or_default();
        let wrong = Bytes { bytes: lost, base: start, number: self.number, epoch }.frame(start).err();
        let wrong =
            wrong.unwrap_or_else(|| Corruption::new("log frame", start as u64, limit as u64, start as u64));
        let healed = payloads(lost, start, epoch);
        let as_it_is = lost.get(FRAME_HEADER_LEN..).unwrap_or_default();
        self.lost.push(LostFrames {
            start,
            end,
            error: in_segment(self.number, wrong),
            is_one_byte: !healed.is_empty(),
            payloads: if healed.is_empty() { vec![as_it_is.into()] } else { healed },
        });
        self.end = limit;
    }

    /// The name of the segment's file.
    pub fn file(&self) -> String {
        FileName::Log(self.number.into()).to_string()
    }
}

/// The budget of a segment is used up.
struct Spent;

/// The first whole frame at or behind `from`, with its place. Only places that carry the segment's epoch are checked,
/// and what is checked is taken from the segment's `budget`.
fn next_frame(bytes: &Bytes<'_>, from: usize, budget: &mut usize) -> Result<Option<(usize, Valid)>, Spent> {
    let epoch = bytes.epoch.to_le_bytes();
    let mut at = from.next_multiple_of(4);
    loop {
        *budget = budget.checked_sub(bytes.claimed(at)).ok_or(Spent)?;
        if let Ok(frame) = bytes.frame(at) {
            return Ok(Some((at, frame)));
        }
        at += 4;
        let (words, _) = bytes.bytes.get(at + EPOCH_AT..).unwrap_or_default().as_chunks::<4>();
        match words.iter().position(|word| *word == epoch) {
            Some(before) => at += 4 * before,
            None => return Ok(None),
        }
    }
}

/// The payloads that make one frame of `lost`, with one of its bytes changed.
fn payloads(lost: &[u8], start: usize, epoch: u32) -> Vec<Box<[u8]>> {
    let Ok((header, payload)) = FrameHeader::read_from_prefix(lost) else { return Vec::new() };
    let Ok(place) = u32::try_from(start) else { return Vec::new() };
    let covered =
        [&epoch.to_le_bytes()[..], &place.to_le_bytes(), lost.get(4..).unwrap_or_default()].concat();
    let (stored, own) = (header.crc.get(), pebble_format::checksum::crc32c(0, &covered));
    let is_frame = |covered: &[u8]| {
        let field = |at: usize| covered.get(at..at + 4).and_then(|field| field.first_chunk().copied());
        let len = field(PLACE_LEN).map(u32::from_le_bytes).and_then(|len| usize::try_from(len).ok());
        len == Some(payload.len()) && field(PLACE_LEN + 8) == Some(epoch.to_le_bytes())
    };
    let mut found = Vec::new();
    if differ_in_one_byte(stored, own) && is_frame(&covered) {
        found.push(payload.into());
    }
    for error in single_byte_errors(covered.len(), stored, own) {
        let mut healed = covered.clone();
        if let Some(byte) = healed.get_mut(error.at).filter(|_| error.at >= PLACE_LEN) {
            *byte ^= error.delta;
        }
        if error.at >= PLACE_LEN && is_frame(&healed) {
            found.push(healed.get(PLACE_LEN + FRAME_HEADER_LEN - 4..).unwrap_or_default().into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use pebble_format::log::FrameFields;

    use super::*;

    /// Headers that claim nearly all of the rest, and a whole seal now and then.
    #[test]
    fn bytes_made_to_waste_time_are_checked_a_few_times() {
        const LEN: usize = 1 << 20;
        let epoch = 0x1234_5678;
        let mut appender = AppendRegion::heap(LEN);
        let (frames, _) = appender.spare()[SEGMENT_HEADER_LEN..].as_chunks_mut::<FRAME_HEADER_LEN>();
        for (nth, to) in frames.iter_mut().enumerate() {
            let at = SEGMENT_HEADER_LEN + nth * FRAME_HEADER_LEN;
            let is_seal = nth % 5 == 4;
            let len = if is_seal { 0 } else { (LEN - at - FRAME_HEADER_LEN) as u32 / 4 * 4 };
            let fields = FrameFields { len, count: u32::from(!is_seal), epoch, promise: LogPosition::ZERO };
            fields.write(to, at as u32, &[]);
        }
        appender.fill(LEN);
        let region = Arc::clone(appender.region());
        let (header, frames, end) = (None, vec![], SEGMENT_HEADER_LEN);
        let mut remains = SegmentRemains { number: 1, region, header, frames, lost: vec![], end };
        remains.walk(epoch, &mut Seen::default());

        let bytes = Bytes { bytes: remains.region.bytes(), base: 0, number: 1, epoch };
        let rest = remains.lost.last().unwrap();
        assert_eq!((rest.end, remains.end), (LEN, LEN));
        let searched = (SEGMENT_HEADER_LEN..rest.start).step_by(FRAME_HEADER_LEN);
        let checked = searched.map(|at| bytes.claimed(at)).sum::<usize>();
        let lost = remains.lost.iter().map(|lost| lost.end - lost.start).sum::<usize>();
        assert!(checked + lost <= 8 * LEN, "{checked} bytes checked in the search");
    }
}
