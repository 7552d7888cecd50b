//! The traits that everything above is written against: [`Fs`], [`File`] and [`Lock`].
//!
//! They are object safe and used as `Arc<dyn Fs>` and `Arc<dyn File>`. Every method may be called from
//! any thread. What is *durable* is stated per method; everything else may vanish, in any order and any
//! part, when the power fails:
//!
//! ```text
//!     write_at, a store through map_mut ──► sync_data ──► the bytes are durable
//!     CreateNew, rename, remove, create_dir ──► sync_dir(parent) ──► the name is durable
//! ```
//!
//! A file needs both: durable bytes under a name that is not durable are lost.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::Context;
use crate::map::{Map, MapMut};

/// How [`Fs::open`] opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A file that does not exist yet, for reading and writing; `AlreadyExists` otherwise.
    CreateNew,
}

/// Who else may hold a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// Nobody.
    Exclusive,
    /// Other holders of a shared lock.
    Shared,
}

/// What a directory says about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last component of the path; empty for a root directory.
    pub name: OsString,
    /// Bytes in the file; 0 if it is not a regular file.
    pub len: u64,
    /// Whether it is a regular file; a symbolic link is not followed and is none.
    pub is_file: bool,
}

/// A lock that is held until it is dropped, or until the process ends in whatever way.
pub trait Lock: fmt::Debug + Send + Sync + 'static {}

/// Refuses a rename that would leave the directory, the same way on every file system.
pub(crate) fn same_directory(from: &Path, to: &Path) -> io::Result<()> {
    if from.parent() == to.parent() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "rename across directories"))
}

/// A file system.
pub trait Fs: fmt::Debug + Send + Sync + 'static {
    /// Opens a regular file; a symbolic link, directory, pipe or device is refused, without waiting for
    /// anything. A new file belongs to its owner alone (0600). Its name is durable after [`Fs::sync_dir`].
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>>;

    /// Gives the file or directory `from` the name `to`, atomically replacing the file that had it. Both
    /// lie in the same directory (`InvalidInput` otherwise): only then is the change atomic for everyone.
    /// Durable after [`Fs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. The bytes live on until the last handle and map are gone. Without a
    /// [`Fs::sync_dir`] the name may be back after a crash.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// All names in a directory, in ascending order of their bytes.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// What is under a name, or `None` if there is nothing.
    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>>;

    /// Creates a directory and the missing ones above it, each for its owner alone (0700). It is no
    /// error if it exists. Each new directory is durable after a [`Fs::sync_dir`] of its parent.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes every earlier creation, rename and removal in this directory durable. After an error nothing is known
    /// about any of them, and a retry that succeeds proves nothing; but for a
    /// [lack of descriptors](crate::is_no_descriptors), after which it is as if there had been no call.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes a lock on a file, or fails at once with `WouldBlock` if another holder, in this process or
    /// any other, excludes it. An exclusive lock creates the file if it is missing; a shared one writes
    /// nothing at all, and a missing file is `NotFound`. A lock file is never to be removed.
    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>>;

    /// Bytes of memory that the system could give to a reader's pages without taking them from anyone; 0 where that is
    /// not known.
    fn spare_memory(&self) -> u64 {
        0
    }

    /// Bytes that an ordinary user may still write to the file system that holds `dir`.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. All input and output is positioned: there is no cursor, and so nothing to share.
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// The path that the file was opened under. It may have another name by now.
    fn path(&self) -> &Path;

    /// Bytes in the file now.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at most `buf.len()` bytes and says how many; fewer than asked does not mean the end, 0 for
    /// a non-empty `buf` does. Signals are dealt with inside.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buf`, or fails with `UnexpectedEof` and leaves its content unspecified.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut rest = buf;
        let mut offset = offset;
        while !rest.is_empty() {
            let got = self.read_at(rest, offset)?;
            let Some(left) = rest.get_mut(got..).filter(|_| got > 0) else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context("read", self.path());
            };
            rest = left;
            offset = offset.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Writes all of `bytes`, extending the file if it must; the gap, if any, reads as zeros. After an
    /// error any part may have been written. Signals and short writes are dealt with inside.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Puts real blocks behind bytes `0..len`, and extends the file to `len` if it is shorter; never
    /// shrinks it, never changes what it holds. After it no write or mapped store below `len` can run
    /// out of space. `Unsupported` where the file system cannot promise that, as one that copies on write.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// The first part of the file, at or behind `from`, that was written, as far as the file system can tell without
    /// a look at it; `None` when there is none. What lies in no part reads as zeros, and looking at it would cost a
    /// page of memory for each page of nothing.
    fn written(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let len = self.len()?;
        Ok((from < len).then_some(from..len))
    }

    /// Sets the length. Only for files that nobody has mapped: access to a page that was cut off is a
    /// SIGBUS.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable, stores through [`File::map_mut`] included. After an error
    /// nothing is known about any byte since the last success, and a retry that succeeds proves nothing:
    /// the file must not be used further.
    fn sync_data(&self) -> io::Result<()>;

    /// Maps the whole file as it is now, shared, for reading. An empty file gives an empty map. The map
    /// outlives the file, its name and its last handle.
    ///
    /// The caller promises what no type can: while a byte is borrowed from the map, nobody changes it, and
    /// while the map lives, nobody truncates the file. PebbleTree keeps that promise by holding the
    /// directory's lock, by never changing a byte once it is published, and by only ever unlinking.
    fn map(&self) -> io::Result<Map>;

    /// Maps the whole file as it is now, shared, for reading and writing. Call [`File::allocate`] first: a
    /// store to a page without a block behind it is a SIGBUS when the disk is full.
    fn map_mut(&self) -> io::Result<MapMut>;

    /// As [`File::write_at`], and leaves nothing in the page cache if the system can do that and the transfer is
    /// aligned as a [`DirectBuffer`](crate::DirectBuffer) is; else it is just that. A fresh page of the cache costs
    /// many times the copy into it; what nobody is going to read soon need not pay for one. Durable after
    /// [`File::sync_data`], as every write.
    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(bytes, offset)
    }

    /// As [`File::read_at`], past the page cache, under the same conditions.
    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buf, offset)
    }

    /// Asks the system to begin writing a range out, so that a later sync has less to do. A hint: it
    /// promises nothing about durability, and does nothing where the system has no such call.
    fn write_back(&self, offset: u64, len: u64) -> io::Result<()>;
}
