//! [`LogWriter`]: appends frames, begins segments, gives old ones another life, and seals the log.
//!
//! ```text
//!    older (oldest first)          current            spares
//!    [3] [4] [5]  ──retire──►      [6 ──►│  ]   ◄──   [1] [2]      a spare is renamed to the next number
//! ```
//!
//! Threading: one owner, `&mut self`. Nothing here waits for a sync except [`LogWriter::seal`].

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pebble_format::limits::BATCH_LEN_MAX;
use pebble_format::log::{
    FRAME_HEADER_LEN, LOG_VERSION, LogPosition, SEGMENT_HEADER_LEN, SEGMENT_MAGIC, SegmentHeader,
    segment_epoch,
};
use pebble_format::{AppendRegion, Error, Result};
use pebble_vfs::{Fs, is_no_space};

use crate::durable::LogSync;
use crate::options::{LogIo, LogOptions, PAGE};
use crate::recover::Recovered;
use crate::segment::{PagesAhead, Segment, frame_len, path, remove};
use crate::spare::Spares;

/// Where a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the payload in [`LogWriter::region`].
    pub offset: usize,
    /// The log's end behind the frame; what [`LogSync::wait_durable`] takes.
    pub end: LogPosition,
    /// The frame is the first of its segment, so [`LogWriter::region`] is not the one of the frame before.
    pub new_segment: bool,
}

/// The one writer of a log.
#[derive(Debug)]
pub struct LogWriter {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: LogOptions,
    io: LogIo,
    current: Segment,
    /// Whether `current` takes another frame; not after an unclean end or a failed write.
    appendable: bool,
    /// Whether the last frame is a seal.
    sealed: bool,
    /// Sealed by this writer: nothing more is appended.
    closed: bool,
    /// A call of this writer, not a sync, ended the log.
    ended_log: bool,
    older: VecDeque<Segment>,
    spares: Spares,
    /// Segments up to this number were replayed, not made here. They are never recycled: what an earlier writer of this
    /// process handed out may still be read through a mapping of the same file.
    inherited: u32,
    next_number: u32,
    next_len: usize,
    sync: Arc<LogSync>,
}

impl LogWriter {
    /// Begins a log in `dir` with the segment `first`, which must not exist. `previous_end` is where an earlier log
    /// of the same database ended, or [`LogPosition::ZERO`]; what lies before it counts as durable.
    ///
    /// Errors: `InvalidArgument` for options out of range; `Io` when the segment cannot be made, and then no file
    /// is left behind.
    pub fn create(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: LogOptions,
        first: u32,
        previous_end: LogPosition,
    ) -> Result<Self> {
        options.check()?;
        let sync = LogSync::new(Arc::clone(&fs), dir.to_path_buf(), previous_end);
        let len = usize_of(options.segment_len_min);
        let plan = Plan { number: first, len, io: options.io, previous_end };
        let current =
            plan.make(&*fs, dir, &options.uuid, &mut Spares::default()).map_err(|failure| failure.error)?;
        let writer = Self {
            io: current.io(),
            appendable: true,
            sealed: false,
            closed: false,
            ended_log: false,
            older: VecDeque::new(),
            spares: Spares::default(),
            inherited: 0,
            next_number: successor(first)?,
            next_len: grown(len, &options),
            sync: Arc::new(sync),
            fs,
            dir: dir.to_path_buf(),
            options,
            current,
        };
        writer.announce(previous_end);
        Ok(writer)
    }

    /// Goes on with a log that was replayed: behind the seal of a clean close, or in a new segment if the log did
    /// not end with one. In that case the segment is made by the first append or [`LogWriter::rotate`], so a full
    /// disk does not keep a database from being opened.
    ///
    /// What was replayed and is not known durable is synced by the first sync. After a failed sync in an earlier
    /// life the page cache may claim more than the disk holds: who must survive that writes the replayed data
    /// elsewhere before the first acknowledgement, unless the log was [sealed](Recovered::sealed).
    ///
    /// Errors: as [`LogWriter::create`].
    pub fn resume(fs: Arc<dyn Fs>, dir: &Path, options: LogOptions, recovered: Recovered) -> Result<Self> {
        options.check()?;
        let durable = recovered.durable();
        let Recovered { mut segments, end, sealed, next_segment, debris, goes_on, .. } = recovered;
        let Some(current) = segments.pop_back() else {
            let mut writer = Self::create(fs, dir, options, next_segment, end)?;
            writer.spares = Spares::with_debris(debris);
            return Ok(writer);
        };
        let sync = LogSync::new(Arc::clone(&fs), dir.to_path_buf(), durable);
        let mut previous_end = durable;
        for segment in segments.iter().chain([&current]) {
            if segment.end() > durable || segment.number() == current.number() {
                sync.begin_file(segment.number(), previous_end, Arc::clone(segment.file()));
            }
            previous_end = segment.end();
        }
        sync.wrote(end);
        let wanted = current.io() == LogIo::Write || options.io == LogIo::Map;
        let appendable = goes_on && wanted && current.reserve().is_ok();
        Ok(Self {
            io: options.io,
            appendable,
            sealed,
            closed: false,
            ended_log: false,
            next_number: next_segment,
            next_len: grown(current.capacity(), &options),
            older: segments,
            spares: Spares::with_debris(debris),
            inherited: current.number(),
            sync: Arc::new(sync),
            fs,
            dir: dir.to_path_buf(),
            options,
            current,
        })
    }

    /// Appends a frame: `fill` is given exactly `len` bytes and must write all of them (they may hold anything
    /// before), then they are checksummed where they lie and become readable. `len` is a positive multiple of 4 up
    /// to 2 GiB; padding is the caller's. `count`, not 0, is stored beside them. In [`LogIo::Map`] no system call
    /// is made unless a segment begins.
    ///
    /// Errors: nothing was appended then. `InvalidArgument` for such a length or count, and after
    /// [`LogWriter::seal`]. `Io` when a new segment cannot be made: the writer is as before, and a later call tries
    /// again. `Io` for a failed write in [`LogIo::Write`]: for lack of space the next append begins a new segment,
    /// any other ends the log. A frame that is whole in the file although space ran out is appended. The kept error of
    /// a log that ended so, or by a failed sync.
    #[inline]
    pub fn append(&mut self, len: usize, count: u32, fill: impl FnOnce(&mut [u8])) -> Result<Appended> {
        let payload = match u32::try_from(len) {
            Ok(payload) if len.is_multiple_of(4) && len > 0 && len <= BATCH_LEN_MAX && count > 0 => payload,
            _ => return Err(Error::invalid(format!("log frame of {len} bytes and count {count}"))),
        };
        self.check_open()?;
        self.make_room(frame_len(payload))?;
        let new_segment = self.current.is_fresh();
        let offset = self.write_frame(payload, count, fill)?;
        self.sealed = false;
        Ok(Appended { offset, end: self.end(), new_segment })
    }

    fn check_open(&self) -> Result<()> {
        match self.sync.failed() {
            Some(error) => Err(error),
            None if self.closed => Err(Error::invalid("the log is sealed")),
            None => Ok(()),
        }
    }

    /// Whether an append of `len` bytes would begin a new segment.
    #[inline]
    pub fn begins_segment(&self, len: usize) -> bool {
        let needed = len.saturating_add(2 * FRAME_HEADER_LEN);
        !self.appendable || self.current.room() < needed
    }

    /// Sees to a current segment that takes a frame of this length and a seal behind it.
    #[inline]
    fn make_room(&mut self, frame_len: usize) -> Result<()> {
        if !self.begins_segment(frame_len - FRAME_HEADER_LEN) {
            return Ok(());
        }
        self.begin_segment(frame_len.saturating_add(FRAME_HEADER_LEN))
    }

    #[inline]
    fn write_frame(&mut self, len: u32, count: u32, fill: impl FnOnce(&mut [u8])) -> Result<usize> {
        match self.current.append(len, count, self.sync.durable(), fill) {
            Ok(offset) => {
                self.sync.wrote(self.current.end());
                Ok(offset)
            }
            Err(error) => {
                self.appendable = false;
                let full = is_no_space(&error);
                let error = Error::from(error);
                if !full {
                    self.end_log(&error);
                }
                Err(error)
            }
        }
    }

    /// Makes `needed` bytes of room by a new segment. The writer is unchanged after an error, but for a number that may
    /// be used up.
    fn begin_segment(&mut self, needed: usize) -> Result<()> {
        let number = self.next_number;
        self.next_number = successor(number)?;
        let needed = needed.saturating_add(SEGMENT_HEADER_LEN).next_multiple_of(PAGE);
        let plan = Plan { number, len: needed.max(self.next_len), io: self.io, previous_end: self.end() };
        let segment = match plan.make(&*self.fs, &self.dir, &self.options.uuid, &mut self.spares) {
            Ok(segment) => segment,
            Err(failure) => {
                if failure.ends_log {
                    self.end_log(&failure.error);
                }
                // A writer that tries again and again on a full disk is not to use up the numbers.
                if failure.is_unused {
                    self.next_number = number;
                }
                return Err(failure.error);
            }
        };
        self.io = segment.io();
        self.older.push_back(std::mem::replace(&mut self.current, segment));
        self.next_len = grown(self.next_len, &self.options);
        self.appendable = true;
        self.sealed = false;
        self.announce(plan.previous_end);
        Ok(())
    }

    fn end_log(&mut self, error: &Error) {
        self.ended_log = true;
        self.sync.fail(error.clone());
    }

    /// Whether a call of this writer ended the log, rather than a sync.
    pub fn ended_log(&self) -> bool {
        self.ended_log
    }

    /// Tells the group commit of a new current segment, and then of its header.
    fn announce(&self, previous_end: LogPosition) {
        self.sync.begin_file(self.current.number(), previous_end, Arc::clone(self.current.file()));
        self.sync.wrote(self.end());
    }

    /// Lets the next append go to a new segment, which is made now; does nothing while the current one holds no
    /// frame.
    ///
    /// Errors: as those of [`LogWriter::append`] that concern a new segment.
    pub fn rotate(&mut self) -> Result<()> {
        self.check_open()?;
        if self.appendable && self.current.is_fresh() {
            return Ok(());
        }
        self.begin_segment(0)
    }

    /// The next part of the current segment that appends will come to soon and that has no pages yet, for somebody else
    /// to [populate](PagesAhead::populate). Each part is given once; none of a small or a recycled segment. Cost: a
    /// comparison, where there is none.
    #[inline]
    pub fn pages_ahead(&mut self) -> Option<PagesAhead> {
        self.current.pages_ahead()
    }

    /// Makes the next segment ahead, so that the append that needs it does not have to; does nothing if there is a
    /// spare.
    ///
    /// Errors: as those of [`LogWriter::append`] that concern a new segment.
    pub fn prepare_next(&mut self) -> Result<()> {
        self.check_open()?;
        if self.spares.has(self.next_len) {
            return Ok(());
        }
        let number = self.next_number;
        self.next_number = successor(number)?;
        let segment = Segment::create(&*self.fs, &self.dir, number, self.next_len, self.io)?;
        self.spares.keep(segment);
        Ok(())
    }

    /// Declares the segments numbered below `before` obsolete: everything in them is durable elsewhere. Those that
    /// nobody reads are kept for another life, up to [`LogOptions::spare_max`]; the files of the others are
    /// removed. The current segment is never among them.
    ///
    /// A file that cannot be removed is no error: it is tried again at the next call, and replay does not mind it.
    pub fn retire(&mut self, before: u32) {
        let before = before.min(self.current.number());
        self.sync.retire(before);
        while let Some(mut segment) = self.older.pop_front() {
            if segment.number() >= before {
                self.older.push_front(segment);
                break;
            }
            if self.is_worth_keeping(&segment) && segment.recycle() && segment.reserve().is_ok() {
                self.spares.keep(segment);
            } else if !remove(&*self.fs, &self.dir, segment.number()) {
                self.spares.discard(segment.number());
            }
        }
        self.spares.clean(&*self.fs, &self.dir, &self.options.uuid, before);
    }

    fn is_worth_keeping(&self, segment: &Segment) -> bool {
        let lengths = self.next_len..=usize_of(self.options.segment_len_max);
        segment.number() > self.inherited
            && self.spares.len() < self.options.spare_max
            && segment.io() == self.io
            && lengths.contains(&segment.capacity())
    }

    /// Closes the log cleanly: syncs everything, writes the seal, syncs it, and gives the position behind it.
    /// Whoever notes that position durably can pass it to [`recover`](crate::recover()) as `floor`, and all of the
    /// log is known whole then. Spares are removed. Nothing can be appended afterwards; a log that ends with a seal
    /// already gets no other.
    ///
    /// Errors: as [`LogWriter::append`] and [`LogSync::persist`]; the log is not sealed then, and the call may be
    /// repeated.
    pub fn seal(&mut self) -> Result<LogPosition> {
        if self.closed {
            return Ok(self.end());
        }
        self.check_open()?;
        if !self.sealed {
            if !self.appendable || self.current.room() < FRAME_HEADER_LEN {
                self.begin_segment(FRAME_HEADER_LEN)?;
            }
            self.sync.persist()?;
            self.write_frame(0, 0, |_| ())?;
            self.sealed = true;
        }
        self.sync.persist()?;
        self.closed = true;
        self.spares.clear(&*self.fs, &self.dir);
        Ok(self.end())
    }

    /// Gives the segments that are kept for another life back to the file system, for a log that rests.
    pub fn trim(&mut self) {
        self.spares.clear(&*self.fs, &self.dir);
    }

    /// Where the log ends now.
    #[inline]
    pub fn end(&self) -> LogPosition {
        self.current.end()
    }

    /// Number of the current segment.
    #[inline]
    pub fn segment(&self) -> u32 {
        self.current.number()
    }

    /// The current segment's bytes, at the offsets of its file; an append's payload is in it as long as no other
    /// append has begun a segment.
    #[inline]
    pub fn region(&self) -> &Arc<AppendRegion> {
        self.current.region()
    }

    /// What makes the log durable, to be shared with everybody who commits.
    pub fn sync_handle(&self) -> Arc<LogSync> {
        Arc::clone(&self.sync)
    }

    /// How bytes reach the file: what was asked for, or [`LogIo::Write`] if the file system could not do it.
    pub fn io(&self) -> LogIo {
        if self.appendable { self.current.io() } else { self.io }
    }

    /// Bytes of segments and spares that are mapped files.
    pub fn mapped_bytes(&self) -> u64 {
        self.bytes_of(|segment| segment.io() == LogIo::Map)
    }

    /// Bytes of segments and spares that are memory of this process.
    pub fn heap_bytes(&self) -> usize {
        usize::try_from(self.bytes_of(|segment| segment.io() == LogIo::Write)).unwrap_or(usize::MAX)
    }

    /// Bytes that the files of segments and spares take.
    pub fn disk_bytes(&self) -> u64 {
        self.bytes_of(|_| true)
    }

    fn bytes_of(&self, which: impl Fn(&Segment) -> bool) -> u64 {
        let segments = self.older.iter().chain([&self.current]).chain(self.spares.iter());
        segments.filter(|segment| which(segment)).map(|segment| segment.capacity() as u64).sum()
    }
}

/// A segment to be made.
#[derive(Clone, Copy)]
struct Plan {
    number: u32,
    len: usize,
    io: LogIo,
    previous_end: LogPosition,
}

/// Why a segment was not made, whether that ends the log, and whether its number is as free as before.
struct Failure {
    error: Error,
    ends_log: bool,
    is_unused: bool,
}

impl Plan {
    /// From a spare or a new file, with its header written. No file is left behind after an error.
    fn make(self, fs: &dyn Fs, dir: &Path, uuid: &[u8; 16], spares: &mut Spares) -> Result<Segment, Failure> {
        let gentle =
            |error: std::io::Error| Failure { error: error.into(), ends_log: false, is_unused: false };
        let mut segment = match spares.take(self.len) {
            Some(spare) => match fs.rename(&path(dir, spare.number()), &path(dir, self.number)) {
                Ok(()) => spare,
                Err(error) => {
                    spares.discard(spare.number());
                    return Err(gentle(error));
                }
            },
            None => Segment::create(fs, dir, self.number, self.len, self.io).map_err(|error| {
                let is_ours = error.kind() != ErrorKind::AlreadyExists;
                Failure { is_unused: is_ours && remove(fs, dir, self.number), ..gentle(error) }
            })?,
        };
        let mut header = SegmentHeader {
            magic: SEGMENT_MAGIC,
            version: LOG_VERSION.into(),
            epoch: segment_epoch(uuid, self.number).into(),
            uuid: *uuid,
            previous_end: self.previous_end.0.into(),
            number: self.number.into(),
            reserved: [0; 16],
            crc: 0.into(),
        };
        header.crc = header.checksum().into();
        segment.begin(&header).map_err(|error| {
            if !remove(fs, dir, self.number) {
                spares.discard(self.number);
            }
            Failure { ends_log: !is_no_space(&error), ..gentle(error) }
        })?;
        Ok(segment)
    }
}

fn successor(number: u32) -> Result<u32> {
    number.checked_add(1).ok_or_else(|| Error::invalid("the log has used up its segment numbers"))
}

fn usize_of(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// The length of the segment that follows one of `len` bytes.
fn grown(len: usize, options: &LogOptions) -> usize {
    len.saturating_mul(2).clamp(usize_of(options.segment_len_min), usize_of(options.segment_len_max))
}
