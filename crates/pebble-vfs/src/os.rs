//! The real file system: thin over the system calls, with their traps closed.
//!
//! Every method is a system call or two and holds no lock of its own. Traps: an open that hangs on a
//! pipe, a symbolic link where a file was, a short write, a signal in the middle, an `fallocate` that is
//! emulated by writing zeros.

use std::fs::{DirBuilder, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::direct::is_aligned;
use crate::error::Context;
use crate::fs::{Entry, File, Fs, Lock, LockKind, Open, same_directory};
use crate::map::{Map, MapMut};
use crate::retry::{uninterrupted, write_all};

/// Owner alone may read and write.
const FILE_MODE: u32 = 0o600;
/// Owner alone may list, enter and change.
const DIR_MODE: u32 = 0o700;

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFs;

/// Opens what must be a regular file. `O_NONBLOCK` keeps a pipe from hanging the open; on a regular file
/// it has no effect. The check comes after the open and on the handle, so nothing can be swapped between.
fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<std::fs::File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = uninterrupted(|| options.mode(FILE_MODE).custom_flags(flags).open(path))?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

fn entry(name: &std::ffi::OsStr, metadata: &std::fs::Metadata) -> Entry {
    let is_file = metadata.is_file();
    Entry { name: name.to_os_string(), len: if is_file { metadata.len() } else { 0 }, is_file }
}

impl Fs for OsFs {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            Open::Read => {}
            Open::ReadWrite => _ = options.write(true),
            Open::CreateNew => _ = options.write(true).create_new(true),
        }
        let op = if mode == Open::CreateNew { "create" } else { "open" };
        let file = open_regular(path, &mut options).context(op, path)?;
        Ok(Arc::new(OsFile { file, path: path.to_path_buf(), direct: OnceLock::new() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        same_directory(from, to).and_then(|()| std::fs::rename(from, to)).context("rename", from)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path).context("remove", path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for item in std::fs::read_dir(dir).context("list", dir)? {
            let item = item.context("list", dir)?;
            match item.metadata() {
                Ok(metadata) => entries.push(entry(&item.file_name(), &metadata)),
                // Removed by someone else between the two calls: as if it had been gone before.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("list", &item.path()),
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(entry(path.file_name().unwrap_or_default(), &metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("metadata", path),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).context("create-dir", path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // The empty path is the parent of a bare relative name.
        let target = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC);
        let handle = uninterrupted(|| options.open(target)).context("sync-dir", dir)?;
        uninterrupted(|| handle.sync_all()).context("sync-dir", dir)
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        let mut options = OpenOptions::new();
        options.read(true);
        if kind == LockKind::Exclusive {
            options.write(true).create(true).truncate(false);
        }
        let file = open_regular(path, &mut options).context("lock", path)?;
        let taken = match kind {
            LockKind::Exclusive => file.try_lock(),
            LockKind::Shared => file.try_lock_shared(),
        };
        match taken {
            Ok(()) => Ok(Box::new(OsLock { file })),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::from(io::ErrorKind::WouldBlock)).context("lock", path)
            }
            Err(TryLockError::Error(error)) => Err(error).context("lock", path),
        }
    }

    #[cfg(target_os = "linux")]
    fn spare_memory(&self) -> u64 {
        let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        sys::free_space(dir).context("free-space", dir)
    }
}

/// A lock belongs to its open file description. A process that is being started holds a copy of that for a moment,
/// until its `exec`; so the lock is let go by name, not left to the last copy.
#[derive(Debug)]
struct OsLock {
    file: std::fs::File,
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // What cannot be unlocked is unlocked when the descriptor is closed, right after.
        self.file.unlock().ok();
    }
}

impl Lock for OsLock {}

/// An open regular file.
#[derive(Debug)]
struct OsFile {
    file: std::fs::File,
    path: PathBuf,
    /// The same file, opened past the page cache when that is first asked for; `None` where that cannot be.
    direct: OnceLock<Option<std::fs::File>>,
}

impl OsFile {
    /// What goes past the cache, if this transfer can.
    fn direct(&self, bytes: &[u8], offset: u64) -> Option<&std::fs::File> {
        let opened = is_aligned(bytes, offset).then(|| self.direct.get_or_init(|| self.open_direct()))?;
        opened.as_ref()
    }

    #[cfg(target_os = "linux")]
    fn open_direct(&self) -> Option<std::fs::File> {
        use std::os::unix::fs::MetadataExt;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let opened =
            options.write(true).open(&self.path).or_else(|_| options.write(false).open(&self.path)).ok()?;
        // The name may be another file's by now.
        let (one, other) = (opened.metadata().ok()?, self.file.metadata().ok()?);
        (one.ino() == other.ino() && one.dev() == other.dev()).then_some(opened)
    }

    #[cfg(not(target_os = "linux"))]
    fn open_direct(&self) -> Option<std::fs::File> {
        None
    }
}

impl File for OsFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().context("len", &self.path)?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        uninterrupted(|| self.file.read_at(buf, offset)).context("read", &self.path)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_all(bytes, offset, |part, at| self.file.write_at(part, at)).context("write", &self.path)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        uninterrupted(|| sys::allocate(&self.file, len)).context("allocate", &self.path)
    }

    fn written(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let len = self.len()?;
        if from >= len {
            return Ok(None);
        }
        // A file system that cannot tell has written all of it.
        Ok(sys::written(&self.file, from).unwrap_or(Some(from..len)))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        uninterrupted(|| self.file.set_len(len)).context("truncate", &self.path)
    }

    fn sync_data(&self) -> io::Result<()> {
        // No retry loop: a sync that failed must not be repeated, and std deals with EINTR.
        self.file.sync_data().context("sync", &self.path)
    }

    fn map(&self) -> io::Result<Map> {
        if self.len()? == 0 {
            return Ok(Map::empty());
        }
        Map::of_file(&self.file).context("map", &self.path)
    }

    fn map_mut(&self) -> io::Result<MapMut> {
        if self.len()? == 0 {
            return Ok(MapMut::empty());
        }
        MapMut::of_file(&self.file).context("map-mut", &self.path)
    }

    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.direct(bytes, offset).map(|direct| uninterrupted(|| direct.write_at(bytes, offset))) {
            Some(Ok(written)) if written == bytes.len() => Ok(()),
            // A short one, or a device with rules of its own: what is wrong with it, the other way says too.
            _ => self.write_at(bytes, offset),
        }
    }

    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(direct) = self.direct(buf, offset)
            && let Ok(read) = uninterrupted(|| direct.read_at(buf, offset))
        {
            return Ok(read);
        }
        self.read_at(buf, offset)
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        sys::write_back(&self.file, offset, len).context("write-back", &self.path)
    }
}

/// The system calls that the standard library does not offer.
mod sys {
    use std::ffi::CString;
    use std::fs::File;
    use std::io;
    use std::mem::MaybeUninit;
    use std::ops::Range;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    #[cfg(target_os = "linux")]
    fn offset(value: u64) -> io::Result<i64> {
        i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    #[cfg(target_os = "linux")]
    fn check(result: libc::c_int) -> io::Result<()> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// `fallocate`, not `posix_fallocate`: the latter is emulated by writing zeros where the file system
    /// has no support, over bytes that another thread may be writing.
    #[cfg(target_os = "linux")]
    pub(super) fn allocate(file: &File, len: u64) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        if copies_on_write(magic(file)?) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        check(unsafe { libc::fallocate64(file.as_raw_fd(), 0, 0, offset(len)?) }).map_err(|error| match error
            .raw_os_error()
        {
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => io::Error::new(io::ErrorKind::Unsupported, error),
            _ => error,
        })
    }

    /// Whether a file system, by its magic number, gives new blocks to bytes that are written again: btrfs, ZFS and
    /// bcachefs. Their `fallocate` succeeds and promises the first write at most.
    #[cfg(target_os = "linux")]
    fn copies_on_write(magic: u32) -> bool {
        matches!(magic, 0x9123_683e | 0x2fc1_2fc1 | 0xca45_1a4e)
    }

    /// The magic number of the file system that a file is on.
    #[cfg(target_os = "linux")]
    fn magic(file: &File) -> io::Result<u32> {
        use std::os::fd::AsRawFd;
        let mut stat = MaybeUninit::<libc::statfs64>::uninit();
        // SAFETY: the descriptor is open for as long as `file` is borrowed; `stat` is memory of the right size.
        check(unsafe { libc::fstatfs64(file.as_raw_fd(), stat.as_mut_ptr()) })?;
        // SAFETY: the call returned 0 and so has filled `stat`.
        let stat = unsafe { stat.assume_init() };
        // Of all widths and signs that the field has on the systems there are, the number is the lower 32 bits.
        Ok(stat.f_type as u32)
    }

    /// Other systems have no call that promises blocks without changing bytes.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn allocate(_file: &File, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The file's own position moves, which nothing here reads: all other calls say theirs.
    #[cfg(target_os = "linux")]
    pub(super) fn written(file: &File, from: u64) -> io::Result<Option<Range<u64>>> {
        use std::os::fd::AsRawFd;
        let seek = |from: u64, whence| {
            // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
            let found = unsafe { libc::lseek64(file.as_raw_fd(), offset(from)?, whence) };
            u64::try_from(found).map_err(|_| io::Error::last_os_error())
        };
        match seek(from, libc::SEEK_DATA) {
            Ok(start) => Ok(Some(start..seek(start, libc::SEEK_HOLE)?)),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn written(_file: &File, _from: u64) -> io::Result<Option<Range<u64>>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(target_os = "linux")]
    pub(super) fn write_back(file: &File, from: u64, len: u64) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let (from, len) = (offset(from)?, offset(len)?);
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        check(unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn write_back(_file: &File, _from: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    #[allow(clippy::useless_conversion, reason = "the fields' widths differ between systems")]
    pub(super) fn free_space(dir: &Path) -> io::Result<u64> {
        let path = CString::new(dir.as_os_str().as_bytes())?;
        let mut stat = MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` is a C string and `stat` is memory of the right size, both alive over the call.
        if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned 0 and so has filled `stat`.
        let stat = unsafe { stat.assume_init() };
        Ok(u64::from(stat.f_bavail).saturating_mul(u64::from(stat.f_frsize)))
    }

    #[cfg(all(test, target_os = "linux"))]
    mod tests {
        use super::*;

        #[test]
        fn a_file_system_that_copies_on_write_promises_no_blocks() {
            for magic in [0x9123_683e, 0x2fc1_2fc1, 0xca45_1a4e] {
                assert!(copies_on_write(magic), "{magic:x}");
            }
            // ext4, XFS, tmpfs and f2fs.
            for magic in [0xef53, 0x5846_5342, 0x0102_1994, 0xf2f5_2010] {
                assert!(!copies_on_write(magic), "{magic:x}");
            }
            let proc = File::open("/proc/self/stat").unwrap();
            assert_eq!(magic(&proc).unwrap(), 0x9fa0);
        }
    }
}
