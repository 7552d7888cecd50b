//! A simulated disk in memory, for tests and simulation: it can lose power, or its process, at any call.
//!
//! ```text
//!     SimFs ── tree ── directories   live | pending changes | durable     sync_dir: live → durable
//!                        └── inodes  live | clean | durable               sync_data: live → durable
//!
//!     crash(seed) ─► a new disk: durable, and any legal part of what was not synced
//!     kill()      ─► a new disk: all of it (the kernel lived on), locks released
//! ```
//!
//! It keeps the contract of [`Fs`] and no more: what a call does not promise to be durable may be lost in
//! any part, and what must be allocated first must be. It is stricter than a kernel where a kernel would
//! send a signal: the length of a mapped file cannot change. It is all in memory, so a crash image costs a
//! comparison of the dirty files and a copy of those that differ.
//!
//! Threading: any number of threads. One lock for all names, one per file; no lock is held while the
//! [`SimFs::on_event`] hook runs, other than the hook's own.

mod crash;
mod inode;
mod memory;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::crash::CrashImage;
pub(crate) use self::memory::Memory;

use self::inode::Inode;
use self::tree::{Node, Tree};
use crate::error::Context;
use crate::fs::{Entry, File, Fs, Lock, LockKind, Open, same_directory};
use crate::map::{Map, MapMut};
use crate::op::Op;
use crate::sync::{Mutex, MutexGuard, PoisonError, ThreadId, thread};

/// Free space that a disk without a capacity claims to have.
const UNBOUNDED: u64 = u64::MAX;

type Hook = Box<dyn FnMut(&SimFs, u64) + Send>;

/// A disk in memory. A clone is the same disk; [`SimFs::crash`] and [`SimFs::kill`] give new ones.
///
/// Paths start at the disk's root whether they are absolute or not; `..` is refused. The root exists.
#[derive(Clone)]
pub struct SimFs {
    disk: Arc<Disk>,
}

struct Disk {
    seed: u64,
    tree: Mutex<Tree>,
    capacity: AtomicU64,
    spare_memory: AtomicU64,
    events: AtomicU64,
    hook: Mutex<Option<Hook>>,
    /// The thread that is inside the hook, and for which call.
    announced: Mutex<Option<(ThreadId, Op)>>,
}

/// A lock whose holder panicked is still a lock: the state behind it is valid between any two statements
/// that a test could make panic.
fn relock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimFs {
    /// An empty disk. The seed adds to that of every crash: two disks crash differently.
    pub fn new(seed: u64) -> Self {
        Self::from_parts(seed, Tree::new(), UNBOUNDED)
    }

    fn from_parts(seed: u64, tree: Tree, capacity: u64) -> Self {
        let disk = Disk {
            seed,
            tree: Mutex::new(tree),
            capacity: AtomicU64::new(capacity),
            spare_memory: AtomicU64::new(0),
            events: AtomicU64::new(0),
            hook: Mutex::new(None),
            announced: Mutex::new(None),
        };
        Self { disk: Arc::new(disk) }
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        relock(&self.disk.tree)
    }

    /// A new disk as it may stand after the power failed now; see [`CrashImage::Random`]. Handles, maps
    /// and locks stay with this one. Stores that other threads make through a map meanwhile are kept or
    /// not, word by word.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        self.crash_with(CrashImage::Random(seed))
    }

    /// A new disk as one particular kind of power failure would leave it.
    #[must_use]
    pub fn crash_with(&self, image: CrashImage) -> Self {
        let tree = self.tree().after_crash(image.on_disk(self.disk.seed));
        Self::from_parts(self.disk.seed, tree, self.disk.capacity.load(Relaxed))
    }

    /// A new disk as it stands after the process died now: all is there, what was not synced still is
    /// not, and no lock is held.
    #[must_use]
    pub fn kill(&self) -> Self {
        let tree = self.tree().after_kill();
        Self::from_parts(self.disk.seed, tree, self.disk.capacity.load(Relaxed))
    }

    /// Bounds the bytes in all files together: what would exceed it fails with ENOSPC. `None` lifts the
    /// bound. Bytes of a removed file are free once its last handle and map are gone.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.capacity.store(bytes.unwrap_or(UNBOUNDED), Relaxed);
    }

    /// What [`Fs::spare_memory`] says; 0 at first, and on each new disk.
    pub fn set_spare_memory(&self, bytes: u64) {
        self.disk.spare_memory.store(bytes, Relaxed);
    }

    /// How many state-changing calls were made: create, write, allocate, truncate, sync, rename, remove,
    /// create-dir, sync-dir, and the lock that creates its file.
    pub fn events(&self) -> u64 {
        self.disk.events.load(Relaxed)
    }

    /// Calls `hook` before each state-changing call, with the call's number, from 0. It may take images
    /// and work on them, and may read this disk; what it changes on this disk is not announced to it. The
    /// changes of other threads wait meanwhile. It must not set or clear the hook.
    pub fn on_event(&self, hook: impl FnMut(&Self, u64) + Send + 'static) {
        *relock(&self.disk.hook) = Some(Box::new(hook));
    }

    /// Ends what [`SimFs::on_event`] began.
    pub fn clear_on_event(&self) {
        *relock(&self.disk.hook) = None;
    }

    /// The kind of the call that the hook runs before, for the hook to ask.
    pub fn announced(&self) -> Option<Op> {
        relock(&self.disk.announced).map(|(_, op)| op)
    }

    /// How many things are unsynced: changes of directories, and files with unsynced bytes or length. What a writable
    /// map may have changed counts. [`CrashImage::AllBut`] and [`CrashImage::Only`] name them by number.
    pub fn unsynced(&self) -> u64 {
        u64::try_from(self.tree().unsynced().len()).unwrap_or(u64::MAX)
    }

    /// Every file with its bytes, and every directory (`None`), by path: two images with equal contents are the same
    /// to whoever opens them. Bytes that images share are neither copied nor compared.
    pub fn contents(&self) -> BTreeMap<PathBuf, Option<Arc<Vec<u8>>>> {
        self.tree().contents()
    }

    /// A state-changing call begins.
    fn event(&self, op: Op) {
        /// Ends the announcement even if the hook panics.
        struct Leave<'d>(&'d Disk);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                *relock(&self.0.announced) = None;
            }
        }

        let number = self.disk.events.fetch_add(1, Relaxed);
        let this_thread = thread::current().id();
        if relock(&self.disk.announced).is_some_and(|(thread, _)| thread == this_thread) {
            return;
        }
        if let Some(hook) = relock(&self.disk.hook).as_mut() {
            *relock(&self.disk.announced) = Some((this_thread, op));
            let _leave = Leave(&self.disk);
            hook(self, number);
        }
    }

    /// Bytes that may still be added; the tree's lock is what makes the answer last.
    fn space_left(&self, tree: &Tree) -> u64 {
        match self.disk.capacity.load(Relaxed) {
            UNBOUNDED => UNBOUNDED,
            capacity => capacity.saturating_sub(tree.used()),
        }
    }

    fn create(&self, path: &Path, op: Op) -> io::Result<Arc<Inode>> {
        self.event(op);
        let mut tree = self.tree();
        if self.space_left(&tree) == 0 {
            return Err(no_space());
        }
        tree.create(path)
    }

    /// As [`Fs::open`], with the file's own type.
    pub fn open_file(&self, path: &Path, mode: Open) -> io::Result<SimFile> {
        let inode = match mode {
            Open::CreateNew => self.create(path, Op::Create).context("create", path)?,
            Open::Read | Open::ReadWrite => self.tree().file(path).context("open", path)?,
        };
        Ok(SimFile { fs: self.clone(), inode, path: path.to_path_buf(), writable: mode != Open::Read })
    }

    /// What a failed fsync leaves behind in the file under `path`; see [`SimFile::drop_dirty`].
    pub fn drop_dirty(&self, path: &Path) -> io::Result<()> {
        self.open_file(path, Open::Read)?.drop_dirty();
        Ok(())
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").field("seed", &self.disk.seed).field("events", &self.events()).finish()
    }
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn entry(name: &std::ffi::OsStr, node: &Node) -> Entry {
    let (len, is_file) = match node {
        Node::File(inode) => (u64::try_from(inode.content().len()).unwrap_or(u64::MAX), true),
        Node::Dir(_) => (0, false),
    };
    Entry { name: name.to_os_string(), len, is_file }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(self.open_file(path, mode)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.event(Op::Rename);
        same_directory(from, to).and_then(|()| self.tree().rename(from, to)).context("rename", from)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.event(Op::Remove);
        self.tree().remove(path).context("remove", path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let tree = self.tree();
        Ok(tree.names(dir).context("list", dir)?.map(|(name, node)| entry(name, node)).collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        let node = self.tree().find(path).context("metadata", path)?;
        Ok(node.map(|node| entry(path.file_name().unwrap_or_default(), &node)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.event(Op::CreateDir);
        self.tree().create_dir(path).context("create-dir", path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.event(Op::SyncDir);
        self.tree().sync_dir(dir).context("sync-dir", dir)
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        let existing = self.tree().file(path);
        let inode = match existing {
            Err(error) if error.kind() == io::ErrorKind::NotFound && kind == LockKind::Exclusive => {
                self.create(path, Op::Lock)
            }
            result => result,
        }
        .context("lock", path)?;
        self.tree().lock(inode.id, kind).context("lock", path)?;
        Ok(Box::new(SimLock { fs: self.clone(), inode: inode.id }))
    }

    fn spare_memory(&self) -> u64 {
        self.disk.spare_memory.load(Relaxed)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let tree = self.tree();
        let _exists = tree.names(dir).context("free-space", dir)?;
        Ok(self.space_left(&tree))
    }
}

/// A held lock of a simulated file.
#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    inode: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.tree().unlock(self.inode);
    }
}

/// An open file of a [`SimFs`]. It stays with its disk whatever images are taken of that.
#[derive(Debug)]
pub struct SimFile {
    fs: SimFs,
    inode: Arc<Inode>,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    /// Leaves the file as a failed fsync does on a common kernel: what was not synced is still read, but
    /// counts as written, so that a later sync succeeds without making it durable. What is written again
    /// is dirty again.
    pub fn drop_dirty(&self) {
        self.inode.content().drop_dirty();
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }

    /// Does `change` with room for the file to grow to `end`; with too little room, `partial` is told the
    /// length that the file may have, and the disk is full.
    fn grow(
        &self,
        op: Op,
        end: u64,
        change: impl FnOnce(&mut inode::Content) -> io::Result<()>,
        partial: impl FnOnce(&mut inode::Content, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        self.check_writable()?;
        self.fs.event(op);
        let tree = self.fs.tree();
        let left = self.fs.space_left(&tree);
        let mut content = self.inode.content();
        let len = u64::try_from(content.len()).unwrap_or(u64::MAX);
        if end.saturating_sub(len) <= left {
            return change(&mut content);
        }
        partial(&mut content, len.saturating_add(left))?;
        Err(no_space())
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.inode.content().len()).unwrap_or(u64::MAX))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.inode.content().read(buf, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let part = |most: u64| {
            let fits = usize::try_from(most.saturating_sub(offset)).unwrap_or(usize::MAX);
            bytes.get(..fits).unwrap_or(bytes)
        };
        self.grow(
            Op::Write,
            end,
            |content| content.write(bytes, offset),
            |content, most| content.write(part(most), offset),
        )
        .context("write", &self.path)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.grow(Op::Allocate, len, |content| content.allocate(len), |_, _| Ok(()))
            .context("allocate", &self.path)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.grow(Op::Truncate, len, |content| content.truncate(len), |_, _| Ok(()))
            .context("truncate", &self.path)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.event(Op::Sync);
        self.inode.content().sync();
        Ok(())
    }

    fn map(&self) -> io::Result<Map> {
        let (memory, len) = self.inode.content().map().context("map", &self.path)?;
        Ok(Map::of_memory(memory, len))
    }

    fn map_mut(&self) -> io::Result<MapMut> {
        self.check_writable()
            .map_err(|_| io::Error::from_raw_os_error(libc::EACCES))
            .and_then(|()| self.inode.content().map_mut())
            .map(|(memory, len)| MapMut::of_memory(memory, len))
            .context("map-mut", &self.path)
    }

    fn write_back(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
