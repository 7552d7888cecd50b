//! A directory that is read from a file system and written in memory: whoever works on it changes nothing.
//!
//! ```text
//!   open, list, metadata ──► in memory?  removed?  else the base, for reading
//!   create, write, rename, remove, sync ──► in memory
//! ```
//!
//! What opens a database for reading stands on this: the code that recovers one may write, and none of it arrives. It
//! covers one directory; what lies elsewhere is not found. Whatever is written takes heap memory, and is gone with the
//! last handle.
//!
//! Threading: any number of threads; one lock for the names that are hidden, none while a file is read or written.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Context;
use crate::fs::{Entry, File, Fs, Lock, LockKind, Open};
use crate::map::{Map, MapMut};
use crate::sim::SimFs;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Where the directory lies in memory.
const UPPER: &str = "/overlay";

/// One directory of a file system for reading, and memory for all that is written to it.
#[derive(Debug)]
pub struct OverlayFs {
    base: Arc<dyn Fs>,
    dir: PathBuf,
    upper: SimFs,
    /// Names of the base that were removed or replaced.
    hidden: Mutex<BTreeSet<OsString>>,
}

impl OverlayFs {
    /// An overlay over one directory of `base`. Nothing is read yet.
    pub fn new(base: Arc<dyn Fs>, dir: &Path) -> io::Result<Self> {
        let upper = SimFs::new(0);
        upper.create_dir(Path::new(UPPER))?;
        Ok(Self { base, dir: dir.into(), upper, hidden: Mutex::default() })
    }

    fn hidden(&self) -> MutexGuard<'_, BTreeSet<OsString>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a file of the directory, and its place in memory.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(&'p OsStr, PathBuf)> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if parent == self.dir => Ok((name, Path::new(UPPER).join(name))),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether the base may be asked for this name.
    fn shows(&self, name: &OsStr) -> bool {
        !self.hidden().contains(name)
    }

    fn open_at(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        let (name, upper) = self.place(path)?;
        if self.upper.metadata(&upper)?.is_some() {
            return Ok(Arc::new(OverlayFile(self.upper.open(&upper, mode)?)));
        }
        let in_base = self.shows(name) && self.base.metadata(path)?.is_some();
        match mode {
            Open::Read if in_base => self.base.open(path, Open::Read),
            // As for a file that may only be read.
            Open::ReadWrite if in_base => Err(io::ErrorKind::PermissionDenied.into()),
            Open::CreateNew if in_base => Err(io::ErrorKind::AlreadyExists.into()),
            Open::CreateNew => Ok(Arc::new(OverlayFile(self.upper.open(&upper, mode)?))),
            Open::Read | Open::ReadWrite => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_at(&self, path: &Path) -> io::Result<()> {
        let (name, upper) = self.place(path)?;
        let in_upper = self.upper.metadata(&upper)?.is_some();
        if in_upper {
            self.upper.remove(&upper)?;
        }
        let in_base = self.shows(name) && self.base.metadata(path)?.is_some();
        if in_base {
            self.hidden().insert(name.into());
        }
        if in_upper || in_base { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn rename_at(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (_, upper_from) = self.place(from)?;
        let (name, upper_to) = self.place(to)?;
        // What lies in the base cannot move: only what was made here has another name before it has its own.
        if self.upper.metadata(&upper_from)?.is_none() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.upper.rename(&upper_from, &upper_to)?;
        self.hidden().insert(name.into());
        Ok(())
    }
}

impl Fs for OverlayFs {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        self.open_at(path, mode).context("open", path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_at(from, to).context("rename", from)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.remove_at(path).context("remove", path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        if dir != self.dir {
            return Err(io::Error::from(io::ErrorKind::NotFound)).context("list", dir);
        }
        let mut entries = self.upper.list(Path::new(UPPER))?;
        let made: BTreeSet<OsString> = entries.iter().map(|entry| entry.name.clone()).collect();
        let hidden = self.hidden();
        let base = self.base.list(dir)?.into_iter();
        entries.extend(base.filter(|entry| !hidden.contains(&entry.name) && !made.contains(&entry.name)));
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        let Ok((name, upper)) = self.place(path) else { return self.base.metadata(path) };
        match self.upper.metadata(&upper)? {
            None if self.shows(name) => self.base.metadata(path),
            found => Ok(found),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path == self.dir {
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::PermissionDenied)).context("create-dir", path)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Always free: who else may use the base is for its own lock to say.
    fn lock(&self, _path: &Path, _kind: LockKind) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// See [`OverlayFs`]'s `lock`.
#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

/// A file in memory, which nothing needs to make durable.
#[derive(Debug)]
struct OverlayFile(Arc<dyn File>);

impl File for OverlayFile {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn map(&self) -> io::Result<Map> {
        self.0.map()
    }

    fn map_mut(&self) -> io::Result<MapMut> {
        self.0.map_mut()
    }

    fn write_back(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_above_stays_above() {
        let disk = SimFs::new(1);
        let dir = Path::new("/db");
        disk.create_dir(dir).unwrap();
        for name in ["a", "b"] {
            disk.open(&dir.join(name), Open::CreateNew).unwrap().write_at(name.as_bytes(), 0).unwrap();
        }
        let before = disk.events();
        let over = OverlayFs::new(Arc::new(disk.clone()), dir).unwrap();
        let names = |fs: &dyn Fs| {
            let entries = fs.list(dir).unwrap().into_iter();
            entries.map(|entry| entry.name.into_string().unwrap()).collect::<Vec<_>>()
        };
        over.remove(&dir.join("a")).unwrap();
        assert_eq!(over.open(&dir.join("a"), Open::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
        let read_write = over.open(&dir.join("b"), Open::ReadWrite).unwrap_err();
        assert_eq!(read_write.kind(), io::ErrorKind::PermissionDenied);
        let made = over.open(&dir.join("c"), Open::CreateNew).unwrap();
        made.write_at(b"made", 0).unwrap();
        made.sync_data().unwrap();
        over.rename(&dir.join("c"), &dir.join("b")).unwrap();
        over.sync_dir(dir).unwrap();
        assert_eq!(names(&over), ["b"]);
        let mut bytes = [0; 4];
        over.open(&dir.join("b"), Open::Read).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"made");
        assert_eq!(&*over.open(&dir.join("b"), Open::Read).unwrap().map().unwrap(), b"made");
        assert_eq!((disk.events(), names(&disk)), (before, vec!["a".to_owned(), "b".to_owned()]));
    }
}
