//! The write-ahead log of PebbleTree: mapped segments, group commit and replay.
//!
//! The log knows nothing of records or sequence numbers. A frame is opaque bytes, a multiple of four long, with a
//! count; what was appended is read in place for as long as somebody holds its region, so an index may point into
//! the log.
//!
//! ```text
//!    LogWriter ── append: one pass over memory, no system call ──► segment (mapped, real blocks behind it)
//!        │                                                             ▲
//!        │ end                                                         │ fdatasync, one for all that wait
//!        └──────────────► LogSync ◄── wait_durable, persist ───────────┘
//!
//!    recover ──► Recovered ── frames ──► the same regions, read in place
//!                    └── LogWriter::resume ──► goes on
//! ```
//!
//! - [`LogWriter`] appends, rotates, retires and seals.
//! - [`LogSync`] makes what was appended durable, one sync for all that wait.
//! - [`recover`] replays the segments of a directory and tells a crash's torn tail from damage.
//!
//! The bytes, and when a frame counts, are told in `docs/format/log.md`.
//!
//! Threading: a [`LogWriter`] has one owner (`&mut self`); a [`LogSync`] is shared by any number of threads;
//! regions are read by any number of threads while the writer goes on. No thread is started here.
//!
//! The caller holds the directory's exclusive lock from [`recover`] until the writer is dropped: two writers over the
//! same segments would write each other's memory. Regions may be read for longer, also while a later writer goes on
//! with the same files: it only appends behind what they show, and recycles no segment that it did not make.
//!
//! ```
//! # fn main() -> pebble_format::Result<()> {
//! use std::{path::Path, sync::Arc};
//! use pebble_format::log::LogPosition;
//! use pebble_vfs::{Fs, OsFs};
//! use pebble_wal::{LogOptions, LogWriter};
//!
//! let dir = tempfile::tempdir()?;
//! let fs: Arc<dyn Fs> = Arc::new(OsFs);
//! let mut log = LogWriter::create(fs, dir.path(), LogOptions::new([7; 16]), 1, LogPosition::ZERO)?;
//! let appended = log.append(8, 1, |payload| payload.copy_from_slice(b"8 bytes!"))?;
//! log.sync_handle().wait_durable(appended.end)?;
//! assert_eq!(log.region().tail(appended.offset), Some(&b"8 bytes!"[..]));
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod bell;
mod durable;
mod frame;
mod group;
mod options;
mod recover;
mod salvage;
mod scan;
mod segment;
mod spare;
mod sync;
mod writer;

pub use durable::LogSync;
pub use options::{LogIo, LogOptions};
pub use pebble_format::log::LogPosition;
pub use recover::{Frame, Recovered, Recovery, recover};
pub use salvage::{FrameSpan, LostFrames, SegmentRemains, salvage};
pub use segment::PagesAhead;
pub use writer::{Appended, LogWriter};

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
