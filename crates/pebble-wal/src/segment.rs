//! One segment: its file, its memory, and the bytes at its front. The only file of the crate with `unsafe`.
//!
//! ```text
//!    Map     file pages ◄── mapping ── AppendRegion       a store is in the kernel's hands at once
//!    Write   file ◄── positioned write ── heap ── AppendRegion
//! ```
//!
//! Threading: a segment belongs to the writer; its region is shared with readers, its file with the group commit.

#![allow(unsafe_code)]

use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pebble_format::log::{FRAME_HEADER_LEN, FrameFields, LogPosition, SEGMENT_HEADER_LEN, SegmentHeader};
use pebble_format::{AppendRegion, Appender, Corruption, Error, FileName, Result};
use pebble_vfs::{File, Fs, MapMut, Open, is_no_space};
use zerocopy::{FromBytes, IntoBytes};

use crate::frame::Bytes;
use crate::options::{LogIo, PAGE};

/// Offsets within a segment are 32 bits wide; what a file holds behind this is not looked at.
const SEGMENT_LEN_MAX: usize = (u32::MAX - 3) as usize;

/// Where a segment's file is.
pub(crate) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(FileName::Log(number.into()).to_string())
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Segment {
    number: u32,
    epoch: u32,
    file: Arc<dyn File>,
    appender: Appender,
    /// The mapping, in [`LogIo::Map`].
    map: Option<Arc<MapMut>>,
    /// How far appends were given pages ahead.
    paged: usize,
    /// Where appends come near enough to that for the next part.
    next_pages_at: usize,
}

/// Memory of a mapped segment that appends will come to soon and that may have no pages yet.
#[derive(Debug)]
pub struct PagesAhead {
    map: Arc<MapMut>,
    from: usize,
    len: usize,
}

impl PagesAhead {
    /// Has the pages made, on a thread that has the time: an append that comes to a page first makes it itself, which
    /// costs many times the append.
    pub fn populate(self) {
        // A hint: without it the pages come one by one.
        self.map.populate(self.from, self.len).ok();
    }
}

/// How far ahead of the appends pages are made: as much as half of what a segment holds already, so that a fast writer
/// does not overtake a thread that waits for a core, and a slow one is given little. What is made and not filled is
/// written to the device by the next sync all the same.
const AHEAD: RangeInclusive<usize> = 4 << 20..=16 << 20;

/// Removes a segment's file; says whether it is gone. One that stays is in nobody's way: its number is not used
/// again.
pub(crate) fn remove(fs: &dyn Fs, dir: &Path, number: u32) -> bool {
    match fs.remove(&path(dir, number)) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(%error, "a log segment that nobody needs stays");
            false
        }
    }
}

/// A region over a mapping.
fn map_region(map: Arc<MapMut>) -> Appender {
    let (base, len) = (map.base(), map.len());
    // SAFETY: `MapMut` promises `len` initialised bytes at `base`, readable and writable, that stay where they are
    // until it is dropped, and a count of it moves into the region; no mapping is longer than `isize::MAX`. Nobody else
    // in this process touches them: the directory's exclusive lock, which the caller of this crate holds, makes this
    // log the only user of the file; the log maps a segment once, never writes a mapped segment through its file,
    // and never reads it back that way.
    unsafe { AppendRegion::from_raw(base, len, 0, Box::new(map)) }
}

impl Segment {
    /// A new file with real blocks for `len` bytes, and no header yet. `io` says how it is to be written; where the
    /// file system cannot do that, the segment's own [`Segment::io`] says how it is.
    ///
    /// Errors: those of the calls; no file is left behind then.
    pub(crate) fn create(fs: &dyn Fs, dir: &Path, number: u32, len: usize, io: LogIo) -> io::Result<Self> {
        let file = fs.open(&path(dir, number), Open::CreateNew)?;
        let memory = Self::allocate(&*file, len, io);
        match memory {
            Ok((appender, map)) => {
                Ok(Self { number, epoch: 0, file, appender, map, paged: 0, next_pages_at: 0 })
            }
            Err(error) => {
                drop(file);
                remove(fs, dir, number);
                Err(error)
            }
        }
    }

    fn allocate(file: &dyn File, len: usize, io: LogIo) -> io::Result<(Appender, Option<Arc<MapMut>>)> {
        let unsupported = |error: &io::Error| error.kind() == io::ErrorKind::Unsupported;
        match file.allocate(u64::try_from(len).unwrap_or(u64::MAX)) {
            Ok(()) if io == LogIo::Map => match file.map_mut() {
                Ok(map) if map.len() >= len => {
                    let map = Arc::new(map);
                    return Ok((map_region(Arc::clone(&map)), Some(map)));
                }
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if unsupported(&error) => {}
                Err(error) => return Err(error),
            },
            Ok(()) => {}
            // A length without blocks: the file can be gone on with later, and a full disk is an error of the
            // write.
            Err(error) if unsupported(&error) => file.truncate(u64::try_from(len).unwrap_or(u64::MAX))?,
            Err(error) => return Err(error),
        }
        Ok((AppendRegion::heap(len), None))
    }

    /// An existing file as it is, with nothing filled: [`Segment::recognise`] comes next.
    ///
    /// A file that may only be read, or that cannot be mapped, is read into memory.
    pub(crate) fn open(fs: &dyn Fs, dir: &Path, number: u32, io: LogIo) -> io::Result<Self> {
        use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
        let path = path(dir, number);
        let (file, io) = match fs.open(&path, Open::ReadWrite) {
            Ok(file) => (file, io),
            Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => {
                (fs.open(&path, Open::Read)?, LogIo::Write)
            }
            Err(error) => return Err(error),
        };
        if io == LogIo::Map {
            match file.map_mut() {
                Ok(map) => {
                    let map = Arc::new(map);
                    let appender = map_region(Arc::clone(&map));
                    return Ok(Self {
                        number,
                        epoch: 0,
                        appender,
                        file,
                        map: Some(map),
                        paged: 0,
                        next_pages_at: 0,
                    });
                }
                // A crash may have left it without real blocks, and replay must not give it any.
                Err(error) if matches!(error.kind(), Unsupported | InvalidInput) => {}
                Err(error) => return Err(error),
            }
        }
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(SEGMENT_LEN_MAX);
        let mut appender = AppendRegion::heap(len);
        file.read_exact_at(appender.spare(), 0)?;
        Ok(Self { number, epoch: 0, file, appender, map: None, paged: 0, next_pages_at: 0 })
    }

    /// Reads the header of an opened segment and takes it in, if `check` lets it.
    pub(crate) fn recognise(
        &mut self,
        check: impl FnOnce(&SegmentHeader) -> Result<()>,
    ) -> Result<SegmentHeader> {
        let spare = self.appender.spare();
        let Ok((header, _)) = SegmentHeader::read_from_prefix(spare) else {
            let (expected, got) = (SEGMENT_HEADER_LEN as u64, spare.len() as u64);
            return Err(Corruption::new("log segment length", 0, expected, got).into());
        };
        check(&header)?;
        self.epoch = header.epoch.get();
        self.appender.fill(SEGMENT_HEADER_LEN);
        Ok(header)
    }

    /// Prepares a segment without a header that counts for [`Segment::unfilled`].
    pub(crate) fn expect_epoch(&mut self, epoch: u32) {
        self.epoch = epoch;
    }

    /// Everything behind what is filled, to be checked for frames.
    pub(crate) fn unfilled(&mut self) -> Bytes<'_> {
        let (base, number, epoch) = (self.filled(), self.number, self.epoch);
        let spare = self.appender.spare();
        let len = spare.len().min(SEGMENT_LEN_MAX.saturating_sub(base));
        Bytes { bytes: spare.get(..len).unwrap_or_default(), base, number, epoch }
    }

    /// The parts behind what is filled that were ever written, ascending; all of it, where the file system does not
    /// tell.
    pub(crate) fn written(&self) -> Vec<Range<usize>> {
        let whole = self.filled()..usize::MAX;
        let mut parts = Vec::new();
        let mut from = whole.start as u64;
        loop {
            match self.file.written(from) {
                Ok(None) => return parts,
                Ok(Some(part)) if part.end > from => {
                    let [start, end] =
                        [part.start, part.end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
                    parts.push(start..end);
                    from = part.end;
                }
                Ok(Some(_)) | Err(_) => {
                    parts.clear();
                    parts.push(whole);
                    return parts;
                }
            }
        }
    }

    /// Takes in the bytes up to the offset `end`, which [`Segment::unfilled`] showed to be whole frames.
    pub(crate) fn accept(&mut self, end: usize) {
        self.appender.fill(end.saturating_sub(self.filled()));
    }

    /// Begins a life: writes the header into an empty segment. The segment is of no use after an error.
    pub(crate) fn begin(&mut self, header: &SegmentHeader) -> io::Result<()> {
        self.number = header.number.get();
        self.epoch = header.epoch.get();
        let spare = self.appender.spare();
        let to = spare.get_mut(..SEGMENT_HEADER_LEN).ok_or(io::ErrorKind::InvalidInput)?;
        to.copy_from_slice(header.as_bytes());
        if self.map.is_none() {
            self.file.write_at(to, 0)?;
        }
        self.appender.fill(SEGMENT_HEADER_LEN);
        Ok(())
    }

    /// Appends a frame of `len` payload bytes and gives the payload's offset. The caller has seen to
    /// [`Segment::room`].
    ///
    /// Errors: those of the write, in [`LogIo::Write`]; part of the frame may then be in the file, so no other may
    /// follow it. After one for lack of space the file does not hold the whole frame, and never will.
    #[inline]
    pub(crate) fn append(
        &mut self,
        len: u32,
        count: u32,
        promise: LogPosition,
        fill: impl FnOnce(&mut [u8]),
    ) -> io::Result<usize> {
        let offset = self.appender.filled();
        let place = u32::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let frame_len = frame_len(len);
        let frame = self.appender.spare().get_mut(..frame_len).ok_or(io::ErrorKind::InvalidInput)?;
        let (head, payload) = frame.split_first_chunk_mut().ok_or(io::ErrorKind::InvalidInput)?;
        fill(payload);
        FrameFields { len, count, epoch: self.epoch, promise }.write(head, place, payload);
        if self.map.is_none() {
            write_frame(&*self.file, frame, place.into())?;
        }
        self.appender.fill(frame_len);
        self.appender.prefetch();
        Ok(offset + FRAME_HEADER_LEN)
    }

    /// Bytes that frames may still take.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.capacity().saturating_sub(self.filled())
    }

    /// Whether there is no frame yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.filled() == SEGMENT_HEADER_LEN
    }

    /// Where the segment's frames end.
    #[inline]
    pub(crate) fn end(&self) -> LogPosition {
        // What is filled never exceeds the capacity, which is cut to 32 bits.
        LogPosition::new(self.number, u32::try_from(self.filled()).unwrap_or(u32::MAX))
    }

    /// Empties the segment for another life, if nobody reads it any more; says whether it did.
    pub(crate) fn recycle(&mut self) -> bool {
        let recycled = self.appender.recycle();
        if recycled {
            // What was filled once has its pages.
            self.next_pages_at = usize::MAX;
        }
        recycled
    }

    /// The next part of a large, fresh, mapped segment that appends have come near to. Each part is given once.
    #[inline]
    pub(crate) fn pages_ahead(&mut self) -> Option<PagesAhead> {
        if self.filled() < self.next_pages_at { None } else { self.next_pages() }
    }

    #[cold]
    fn next_pages(&mut self) -> Option<PagesAhead> {
        let capacity = self.capacity();
        let from = self.paged.max(self.filled()) / PAGE * PAGE;
        let len = (self.filled() / 2 / PAGE * PAGE).clamp(*AHEAD.start(), *AHEAD.end());
        let len = len.min(capacity.saturating_sub(from));
        let wanted = self.map.as_ref().filter(|_| capacity >= *AHEAD.start() && len > 0);
        let Some(map) = wanted.map(Arc::clone) else {
            self.next_pages_at = usize::MAX;
            return None;
        };
        self.paged = from + len;
        self.next_pages_at = from + len / 2;
        Some(PagesAhead { map, from, len })
    }

    /// Makes sure that all of the segment has real blocks, so that no store can run out of space.
    pub(crate) fn reserve(&self) -> io::Result<()> {
        match self.file.allocate(u64::try_from(self.appender.region().capacity()).unwrap_or(u64::MAX)) {
            Err(error) if self.map.is_none() && error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    #[inline]
    pub(crate) fn filled(&self) -> usize {
        self.appender.filled()
    }

    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.appender.region().capacity().min(SEGMENT_LEN_MAX)
    }

    #[inline]
    pub(crate) fn region(&self) -> &Arc<AppendRegion> {
        self.appender.region()
    }

    pub(crate) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn io(&self) -> LogIo {
        if self.map.is_some() { LogIo::Map } else { LogIo::Write }
    }
}

/// Writes a frame. One that ran out of space may be whole all the same: the file holds zeros where nothing was
/// written, and the frame may too. Replay would count it, so it is no error.
fn write_frame(file: &dyn File, frame: &[u8], offset: u64) -> io::Result<()> {
    let written = file.write_at(frame, offset);
    match &written {
        Err(error) if is_no_space(error) && holds(file, frame, offset)? => Ok(()),
        _ => written,
    }
}

/// Whether a file holds `bytes` at `offset`.
fn holds(file: &dyn File, bytes: &[u8], mut offset: u64) -> io::Result<bool> {
    let mut page = [0; PAGE];
    for part in bytes.chunks(PAGE) {
        let stored = page.get_mut(..part.len()).unwrap_or_default();
        file.read_exact_at(stored, offset)?;
        if stored != part {
            return Ok(false);
        }
        offset += part.len() as u64;
    }
    Ok(true)
}

/// Bytes of a frame with a payload of `len` bytes.
#[inline]
pub(crate) fn frame_len(len: u32) -> usize {
    // A usize has at least 32 bits on every system that has memory maps; a sum that is too large fits in no
    // segment.
    usize::try_from(len).unwrap_or(usize::MAX).saturating_add(FRAME_HEADER_LEN)
}

/// The error of bytes in a segment's file, with the file named.
pub(crate) fn in_segment(number: u32, error: impl Into<Error>) -> Error {
    error.into().in_file(&FileName::Log(number.into()).to_string())
}
