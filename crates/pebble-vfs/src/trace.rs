//! A wrapper that writes down what was asked of a file system, for golden tests.
//!
//! One line per call that opens, changes, syncs, maps or locks something, in the order in which the calls
//! returned. Calls that only look (read, length, list, metadata, free space) are not written down. A call
//! that failed has its kind of error behind it:
//!
//! ```text
//!     create-dir .            write 000003.log 0+4096      rename CURRENT.tmp CURRENT
//!     lock LOCK               sync 000003.log              remove 000002.log
//!     create 000003.log       sync-dir .                   allocate 000004.log 65536 ! StorageFull
//! ```
//!
//! Threading: any number of threads; one lock around the lines, not held during the calls.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::{Entry, File, Fs, Lock, LockKind, Open};
use crate::map::{Map, MapMut};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// A file system with a transcript. A clone has the same transcript.
#[derive(Debug, Clone)]
pub struct TraceFs {
    inner: Arc<dyn Fs>,
    lines: Arc<Lines>,
}

/// The transcript so far, and the directory that its paths are relative to.
#[derive(Debug)]
struct Lines {
    root: PathBuf,
    text: Mutex<String>,
}

impl Lines {
    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name<'p>(&self, path: &'p Path) -> std::path::Display<'p> {
        let short = path.strip_prefix(&self.root).unwrap_or(path);
        if short.as_os_str().is_empty() { Path::new(".").display() } else { short.display() }
    }

    /// Writes down a call and hands its result on.
    fn note<T>(&self, op: &str, path: &Path, rest: &str, result: io::Result<T>) -> io::Result<T> {
        let mut text = self.text();
        let fail = result.as_ref().err().map(|error| format!(" ! {:?}", error.kind())).unwrap_or_default();
        // Writing to a string cannot fail.
        _ = writeln!(text, "{op} {}{rest}{fail}", self.name(path));
        result
    }
}

impl TraceFs {
    /// Writes down what is asked of `inner`, with paths relative to `root`.
    pub fn new(inner: Arc<dyn Fs>, root: impl Into<PathBuf>) -> Self {
        let lines = Lines { root: root.into(), text: Mutex::default() };
        Self { inner, lines: Arc::new(lines) }
    }

    /// What was written down so far, a line per call.
    pub fn transcript(&self) -> String {
        self.lines.text().clone()
    }

    /// Begins a new transcript.
    pub fn clear(&self) {
        self.lines.text().clear();
    }
}

impl Fs for TraceFs {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        let op = match mode {
            Open::Read => "open",
            Open::ReadWrite => "open-rw",
            Open::CreateNew => "create",
        };
        let inner = self.lines.note(op, path, "", self.inner.open(path, mode))?;
        Ok(Arc::new(TraceFile { inner, lines: Arc::clone(&self.lines) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let rest = format!(" {}", self.lines.name(to));
        self.lines.note("rename", from, &rest, self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lines.note("remove", path, "", self.inner.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(dir)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.inner.metadata(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.lines.note("create-dir", path, "", self.inner.create_dir(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.lines.note("sync-dir", dir, "", self.inner.sync_dir(dir))
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        let op = match kind {
            LockKind::Exclusive => "lock",
            LockKind::Shared => "lock-shared",
        };
        self.lines.note(op, path, "", self.inner.lock(path, kind))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_space(dir)
    }
}

/// An open file whose calls are written down.
#[derive(Debug)]
struct TraceFile {
    inner: Arc<dyn File>,
    lines: Arc<Lines>,
}

impl TraceFile {
    fn note<T>(&self, op: &str, rest: &str, result: io::Result<T>) -> io::Result<T> {
        self.lines.note(op, self.inner.path(), rest, result)
    }
}

impl File for TraceFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let rest = format!(" {offset}+{}", bytes.len());
        self.note("write", &rest, self.inner.write_at(bytes, offset))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.note("allocate", &format!(" {len}"), self.inner.allocate(len))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.note("truncate", &format!(" {len}"), self.inner.truncate(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note("sync", "", self.inner.sync_data())
    }

    fn map(&self) -> io::Result<Map> {
        self.note("map", "", self.inner.map())
    }

    fn map_mut(&self) -> io::Result<MapMut> {
        self.note("map-mut", "", self.inner.map_mut())
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.note("write-back", &format!(" {offset}+{len}"), self.inner.write_back(offset, len))
    }
}
