//! Replay: which frames count, and whether what does not is a crash's tail or damage.
//!
//! ```text
//!    first                                  stop
//!    [header frame frame] [header frame frame ✗ ....  ] [header ....]     segments, in order
//!     └──────────── counts ───────────────────┘ └──── scanned ────┘
//!                                               stop < max(promise seen anywhere, floor)  ──►  damage
//!                                               otherwise                                 ──►  a crash's tail
//! ```
//!
//! Threading: [`recover`] is a plain function, [`Recovered`] plain data. Nothing is written.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use pebble_format::log::{
    FRAME_HEADER_LEN, FrameHeader, LOG_VERSION, LogPosition, SEGMENT_HEADER_LEN, SEGMENT_MAGIC,
    SegmentHeader, segment_epoch,
};
use pebble_format::{AppendRegion, Corruption, Error, FileName, Result};
use pebble_vfs::Fs;
use zerocopy::FromBytes;

use crate::options::LogIo;
use crate::scan::{Evidence, scan};
use crate::segment::{Segment, in_segment};

/// What to do about a log that is damaged below a point that was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Refuse it.
    Strict,
    /// Take the whole prefix before the damage, and tell of it in [`Recovered::damage`].
    PointInTime,
    /// Write nothing, pass over what is damaged, and serve the rest. [`recover`] refuses as if strict: what is left of
    /// a damaged log is then for [`salvage`](crate::salvage()) to say.
    SalvageReadOnly,
}

/// A log as it was found.
#[derive(Debug)]
pub struct Recovered {
    /// Those that count, oldest first, filled up to the end of their last frame.
    pub(crate) segments: VecDeque<Segment>,
    /// Behind the last frame that counts, or behind the header of a segment without one. (first, 0) if no segment
    /// counts.
    pub end: LogPosition,
    /// Whether the last thing in the log is a seal: it was closed cleanly, and all before the seal was durable.
    pub sealed: bool,
    /// Bytes behind [`Recovered::end`] up to the last whole frame found there, over all segments; 0 after a clean
    /// close.
    pub dropped_bytes: u64,
    /// The highest promise seen in any frame.
    pub promise: LogPosition,
    /// A segment number larger than any in the directory and than the floor's, and at least `first`.
    pub next_segment: u32,
    /// The damage that [`Recovery::PointInTime`] stopped at.
    pub damage: Option<Error>,
    floor: LogPosition,
    /// Numbers of the files that do not count.
    pub(crate) debris: Vec<u32>,
    /// Whether frames may follow in the last segment.
    pub(crate) goes_on: bool,
}

/// A frame of a recovered log.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The bytes of the frame's segment, to be kept by whoever points into it.
    pub region: &'a Arc<AppendRegion>,
    /// Offset of the payload in the region.
    pub offset: usize,
    /// What was appended.
    pub payload: &'a [u8],
    /// The count that was appended with it.
    pub count: u32,
    /// The log's position behind the frame.
    pub end: LogPosition,
}

impl Recovered {
    /// All frames, oldest first; seals are left out. Nothing is checked again, and nothing copied.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.segments.iter().flat_map(|segment| Frames { segment, offset: SEGMENT_HEADER_LEN })
    }

    /// Numbers of the segments that count, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = u32> {
        self.segments.iter().map(Segment::number)
    }

    /// How far the log is known durable.
    pub fn durable(&self) -> LogPosition {
        self.promise.max(self.floor).min(self.end)
    }
}

/// The frames of one segment.
struct Frames<'a> {
    segment: &'a Segment,
    offset: usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let region = self.segment.region();
        loop {
            let (header, rest) = FrameHeader::read_from_prefix(region.tail(self.offset)?).ok()?;
            let payload = rest.get(..usize::try_from(header.len.get()).ok()?)?;
            let offset = self.offset + FRAME_HEADER_LEN;
            self.offset = offset + payload.len();
            let count = header.count.get();
            if count > 0 {
                let end = LogPosition::new(self.segment.number(), u32::try_from(self.offset).ok()?);
                return Some(Frame { region, offset, payload, count, end });
            }
        }
    }
}

/// Replays the log in `dir`, writing nothing at all.
///
/// - `uuid`: whose segments they must be.
/// - `first`: the first segment that still matters; older ones are not opened.
/// - `floor`: everything before it must be there, and so must the segment it lies in: the position that a
///   [seal](crate::LogWriter::seal) gave and that was noted durably; or the start of a segment whose name was durable
///   before that was noted; or [`LogPosition::ZERO`].
/// - `io`: [`LogIo::Map`] maps the segments; [`LogIo::Write`] reads them into memory, as does a file system without
///   maps.
///
/// A directory without the segment `first` is an empty log, unless `floor`, or a promise in a later segment, says
/// that there was something in it: the crash came before the segment's name was durable, and nothing in it was
/// acknowledged as durable. So a database whose creation was cut short opens, and so does one whose first segment
/// is to come.
///
/// Cost: one checksum of every frame, and a pass over the words of what was written behind the last one: what was only
/// allocated is not looked at, where the file system tells.
///
/// Errors: `Corruption` or `MissingFile` for damage below what was durable, in [`Recovery::Strict`];
/// `UnsupportedVersion` for a segment of a newer format; `Io`.
pub fn recover(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    uuid: [u8; 16],
    first: u32,
    floor: LogPosition,
    mode: Recovery,
    io: LogIo,
) -> Result<Recovered> {
    let numbers = segment_numbers(&**fs, dir)?;
    // Where the floor's segment is gone, what goes on behind the damage must not end below the floor.
    let named = numbers.last().copied().max((floor > LogPosition::ZERO).then(|| floor.segment()));
    let next_segment = match named {
        Some(last) => last.checked_add(1).ok_or_else(|| {
            in_segment(last, Corruption::new("log segment number", 0, u32::MAX.into(), last.into()))
        })?,
        None => 0,
    }
    .max(first);

    let mut replay = Replay::new(uuid, first);
    for number in numbers.iter().copied().filter(|number| *number >= first) {
        replay.take(Segment::open(&**fs, dir, number, io)?)?;
    }
    replay.scan_rest();

    let limit = replay.promise.max(floor);
    let first_is_gone = floor.segment() >= first && !numbers.contains(&first);
    let damage = if replay.end < limit || first_is_gone {
        Some(replay.explain(limit, &numbers))
    } else {
        replay.hopeless.take()
    };
    let damage = match damage {
        Some(error) if mode != Recovery::PointInTime => return Err(error),
        damage => damage,
    };
    let newest = replay.segments.back().map(Segment::number) == numbers.last().copied();
    let goes_on = replay.sealed && newest && replay.dropped_bytes == 0 && damage.is_none();
    Ok(Recovered {
        end: replay.end,
        sealed: replay.sealed,
        dropped_bytes: replay.dropped_bytes,
        promise: replay.promise,
        next_segment,
        damage,
        floor,
        goes_on,
        debris: numbers.into_iter().filter(|n| !replay.segments.iter().any(|s| s.number() == *n)).collect(),
        segments: replay.segments,
    })
}

/// The numbers of all segments in the directory, ascending.
pub(crate) fn segment_numbers(fs: &dyn Fs, dir: &Path) -> Result<Vec<u32>> {
    let entries = fs.list(dir)?;
    let number = |entry: &pebble_vfs::Entry| match FileName::parse(entry.name.to_str()?)? {
        FileName::Log(number) if entry.is_file => u32::try_from(number).ok(),
        _ => None,
    };
    let mut numbers: Vec<u32> = entries.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A segment that may be evidence, but does not count.
struct Later {
    segment: Segment,
    /// From its header, or what is wrong with that.
    previous_end: Result<LogPosition>,
}

/// The state of a replay, between two segments.
struct Replay {
    uuid: [u8; 16],
    first: u32,
    segments: VecDeque<Segment>,
    /// Segments behind the last that counts.
    later: Vec<Later>,
    end: LogPosition,
    sealed: bool,
    promise: LogPosition,
    dropped_bytes: u64,
    /// Why the bytes at `end` are no frame.
    stop: Option<Error>,
    /// A tail that cannot be judged.
    hopeless: Option<Error>,
}

impl Replay {
    fn new(uuid: [u8; 16], first: u32) -> Self {
        Self {
            uuid,
            first,
            segments: VecDeque::new(),
            later: Vec::new(),
            end: LogPosition::new(first, 0),
            sealed: false,
            promise: LogPosition::ZERO,
            dropped_bytes: 0,
            stop: None,
            hopeless: None,
        }
    }

    /// Replays the next segment in ascending order.
    ///
    /// Errors: `UnsupportedVersion`. Damage is no error yet.
    fn take(&mut self, mut segment: Segment) -> Result<()> {
        let number = segment.number();
        let uuid = self.uuid;
        let header = match segment.recognise(|header| check_header(header, number, &uuid)) {
            Ok(header) => header,
            Err(error @ Error::UnsupportedVersion { .. }) => return Err(error),
            Err(error) => {
                // Its frames need no header to be recognised: the epoch follows from the number.
                segment.expect_epoch(segment_epoch(&uuid, number));
                self.later.push(Later { segment, previous_end: Err(in_segment(number, error)) });
                return Ok(());
            }
        };
        let previous_end = LogPosition(header.previous_end.get());
        if number != self.first && previous_end != self.end {
            self.later.push(Later { segment, previous_end: Ok(previous_end) });
            return Ok(());
        }
        // What was begun at the very end of the replayed log is its continuation; files between were given up
        // before that.
        self.later.clear();
        self.sealed = false;
        let bytes = segment.unfilled();
        let mut end = bytes.base;
        let stop = loop {
            match bytes.frame(end) {
                Ok(frame) => {
                    self.promise = self.promise.max(frame.promise);
                    self.sealed = frame.is_seal();
                    end = frame.end;
                }
                Err(stop) => break stop,
            }
        };
        segment.accept(end);
        self.stop = Some(in_segment(number, stop));
        self.end = segment.end();
        self.segments.push_back(segment);
        Ok(())
    }

    /// Looks for evidence behind the end.
    fn scan_rest(&mut self) {
        let rest =
            self.segments.back_mut().into_iter().chain(self.later.iter_mut().map(|later| &mut later.segment));
        for segment in rest {
            let (number, written) = (segment.number(), segment.written());
            let bytes = segment.unfilled();
            match scan(bytes, written) {
                Ok(Evidence { promise, end }) => {
                    self.promise = self.promise.max(promise);
                    self.dropped_bytes += end.map_or(0, |end| (end - bytes.base) as u64);
                }
                Err(corruption) => {
                    self.hopeless.get_or_insert(in_segment(number, corruption));
                }
            }
        }
    }

    /// What is wrong with a log that ends before `limit`, as precisely as it can be told.
    fn explain(&mut self, limit: LogPosition, present: &[u32]) -> Error {
        let here = self.end.segment();
        let absent = |number: u32| {
            let file = FileName::Log(number.into()).to_string().into();
            (!present.contains(&number)).then_some(Error::MissingFile { file })
        };
        if self.segments.is_empty()
            && let Some(error) = absent(self.first)
        {
            return error;
        }
        // The next segment tells where this one ended.
        let next_begins = self.later.iter().find_map(|later| later.previous_end.as_ref().ok()).copied();
        let ends_here = limit.segment() == here || next_begins.is_some_and(|begins| begins.segment() == here);
        if ends_here && let Some(stop) = self.stop.take() {
            return stop;
        }
        let within = |later: &&Later| later.segment.number() <= limit.segment();
        if let Some(Later { previous_end: Err(error), .. }) = self.later.first().filter(within) {
            return error.clone();
        }
        let expected = next_begins.map(LogPosition::segment).into_iter().chain([limit.segment()]);
        if let Some(error) = expected.filter(|number| *number > here).find_map(absent) {
            return error;
        }
        let stop = self.stop.take();
        stop.unwrap_or_else(|| {
            in_segment(here, Corruption::new("log end", self.end.offset().into(), limit.0, self.end.0))
        })
    }
}

/// Whether a segment's header counts.
pub(crate) fn check_header(header: &SegmentHeader, number: u32, uuid: &[u8; 16]) -> Result<()> {
    let wrong = |what, offset: u64, expected: u64, got: u64| -> Result<()> {
        Err(Corruption::new(what, offset, expected, got).into())
    };
    if header.magic != SEGMENT_MAGIC {
        return wrong("log magic", 0, u64::from_le_bytes(SEGMENT_MAGIC), u64::from_le_bytes(header.magic));
    }
    let version = header.version.get();
    if version > LOG_VERSION {
        let file = FileName::Log(number.into()).to_string().into();
        return Err(Error::UnsupportedVersion { file, found: version, max: LOG_VERSION });
    }
    if version != LOG_VERSION {
        return wrong("log version", 8, LOG_VERSION.into(), version.into());
    }
    let crc = header.checksum();
    if crc != header.crc.get() {
        return wrong("log segment header checksum", 60, crc.into(), header.crc.get().into());
    }
    if header.uuid != *uuid {
        let half =
            |uuid: &[u8; 16]| u64::from_le_bytes(std::array::from_fn(|i| uuid.get(i).copied().unwrap_or(0)));
        return wrong("log segment owner", 16, half(uuid), half(&header.uuid));
    }
    if header.number.get() != number {
        return wrong("log segment number", 40, number.into(), header.number.get().into());
    }
    let epoch = segment_epoch(uuid, number);
    if header.epoch.get() != epoch {
        return wrong("log segment epoch", 12, epoch.into(), header.epoch.get().into());
    }
    Ok(())
}
