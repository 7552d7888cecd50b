//! [`LogSync`]: how a commit becomes durable. The protocol is in `group.rs`; here are the files it syncs.
//!
//! Threading: shared by all committers; every method may be called from any thread.

use std::path::PathBuf;
use std::sync::Arc;

use pebble_format::log::LogPosition;
use pebble_format::{Error, Result};
use pebble_vfs::{File, Fs};

use crate::group::{Disk, Group};

/// The files of a log, as the group commit sees them.
struct LogDir {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
}

impl Disk for LogDir {
    type File = Arc<dyn File>;

    fn sync_names(&self) -> Result<()> {
        Ok(self.fs.sync_dir(&self.dir)?)
    }

    fn sync_file(&self, file: &Self::File) -> Result<()> {
        Ok(file.sync_data()?)
    }
}

/// Makes a log durable, with one sync for all that wait.
///
/// Order within a sync: the directory, if it has new segments; then the segments, oldest to newest, only those that
/// hold something new. After a failed sync, or one that panicked, every call gives that error and nothing is synced
/// again.
pub struct LogSync(Group<LogDir>);

impl LogSync {
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: PathBuf, durable: LogPosition) -> Self {
        Self(Group::new(LogDir { fs, dir }, durable))
    }

    pub(crate) fn begin_file(&self, number: u32, previous_end: LogPosition, file: Arc<dyn File>) {
        self.0.begin_file(number, previous_end, file);
    }

    #[inline]
    pub(crate) fn wrote(&self, end: LogPosition) {
        self.0.wrote(end);
    }

    pub(crate) fn retire(&self, before: u32) {
        self.0.retire(before);
    }

    pub(crate) fn fail(&self, error: Error) {
        self.0.fail(error);
    }

    /// Returns once everything before `position` is durable. Cost when it is already: one load.
    ///
    /// One of those who wait syncs for all; who comes during a sync belongs to the next one, which first gives those of
    /// the last one some tens of microseconds to come back.
    ///
    /// Errors: the error of the sync that failed, now or earlier; whether `position` will be there after a crash is
    /// unknown then. What was durable before a failure stays so and is not an error. `InvalidArgument` for a
    /// position behind the end of the log.
    #[inline]
    pub fn wait_durable(&self, position: LogPosition) -> Result<()> {
        self.0.wait(position)
    }

    /// Makes everything durable that was appended so far. Errors as [`LogSync::wait_durable`], and after a failure
    /// always.
    pub fn persist(&self) -> Result<()> {
        match self.failed() {
            Some(error) => Err(error),
            None => self.0.wait(self.0.written()),
        }
    }

    /// Everything before this position is durable.
    #[inline]
    pub fn durable(&self) -> LogPosition {
        self.0.durable()
    }

    /// The error that ended this log, if one did.
    #[inline]
    pub fn failed(&self) -> Option<Error> {
        self.0.failed()
    }

    /// How many groups were synced.
    pub fn syncs(&self) -> u64 {
        self.0.groups()
    }
}

impl std::fmt::Debug for LogSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogSync(durable {}, written {})", self.0.durable(), self.0.written())
    }
}
