//! The simulated names: directories with a live and a durable state, and the changes between them.
//!
//! ```text
//!     durable   a → 1   b → 2                         what the last directory sync made safe
//!     pending   [c → 3]  [b → –]  [c → –, a → 3]      creation, removal, rename: each whole or not at all
//!     live      a → 3                                 all of them applied
//! ```
//!
//! A crash keeps any subset of the pending changes in which a change is kept only if every earlier one of
//! the same names is: so each name is in a state that it went through. The tree has one lock (in the
//! disk); files have their own, taken after it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Weak};

use super::crash::CrashImage;
use super::inode::Inode;
use crate::fs::LockKind;

/// The number of a directory; the root's is 0.
type DirId = u64;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) enum Node {
    File(Arc<Inode>),
    Dir(DirId),
}

type Names = BTreeMap<OsString, Node>;

/// One atomic change of a directory: names with what they stand for afterwards.
type Change = Vec<(OsString, Option<Node>)>;

#[derive(Debug, Default)]
struct Dir {
    live: Names,
    durable: Names,
    pending: Vec<Change>,
}

/// The holders of a file's lock.
#[derive(Debug, Clone, Copy)]
enum Held {
    Exclusive,
    /// By so many.
    Shared(usize),
}

/// Something that a crash may lose by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    /// A directory's change, by its place among the pending ones.
    Change(DirId, usize),
    /// The unsynced bytes and length of the file with this number.
    File(u64),
}

/// All names of a disk, and what is kept per file by its number.
#[derive(Debug)]
pub(super) struct Tree {
    dirs: BTreeMap<DirId, Dir>,
    next_id: u64,
    /// Every inode that was ever created here, to count the space of those that are still in use.
    inodes: Vec<Weak<Inode>>,
    locks: BTreeMap<u64, Held>,
}

fn error(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

/// The parts of a path, taken from the root whether it is absolute or not.
fn parts(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .filter_map(|part| match part {
            Component::RootDir | Component::CurDir => None,
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir | Component::Prefix(_) => Some(Err(error(io::ErrorKind::InvalidInput))),
        })
        .collect()
}

impl Dir {
    fn apply(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.pending.push(change);
    }

    /// The durable names with the changes that a crash keeps.
    fn after_crash(&self, mut keep: impl FnMut() -> bool) -> Names {
        let mut names = self.durable.clone();
        let mut stuck: Vec<&OsStr> = Vec::new();
        for change in &self.pending {
            let free = !change.iter().any(|(name, _)| stuck.contains(&name.as_os_str()));
            if keep() && free {
                apply(&mut names, change);
            } else {
                stuck.extend(change.iter().map(|(name, _)| name.as_os_str()));
            }
        }
        names
    }

    /// For each pending change, whether the one at `wanted` needs it: it is that one, or it comes before and has a
    /// name in common with it or with another that is needed.
    fn needed_by(&self, wanted: usize) -> Vec<bool> {
        let mut needed = vec![false; self.pending.len()];
        let mut names: Vec<&OsStr> = Vec::new();
        for (index, change) in self.pending.iter().enumerate().take(wanted + 1).rev() {
            if index == wanted || change.iter().any(|(name, _)| names.contains(&name.as_os_str())) {
                needed[index] = true;
                names.extend(change.iter().map(|(name, _)| name.as_os_str()));
            }
        }
        needed
    }
}

fn apply(names: &mut Names, change: &Change) {
    for (name, node) in change {
        match node {
            Some(node) => _ = names.insert(name.clone(), node.clone()),
            None => _ = names.remove(name),
        }
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            dirs: BTreeMap::from([(0, Dir::default())]),
            next_id: 1,
            inodes: Vec::new(),
            locks: BTreeMap::new(),
        }
    }

    fn walk(&self, path: &[&OsStr]) -> io::Result<DirId> {
        path.iter().try_fold(0, |dir, name| match self.dirs.get(&dir).and_then(|dir| dir.live.get(*name)) {
            Some(Node::Dir(id)) => Ok(*id),
            Some(Node::File(_)) => Err(error(io::ErrorKind::NotADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        })
    }

    fn dir(&self, path: &Path) -> io::Result<&Dir> {
        let id = self.walk(&parts(path)?)?;
        self.dirs.get(&id).ok_or_else(|| error(io::ErrorKind::NotFound))
    }

    /// The directory that holds the last part of a path, and that part.
    fn place<'p>(&mut self, path: &'p Path) -> io::Result<(&mut Dir, &'p OsStr)> {
        let parts = parts(path)?;
        let (name, parents) = parts.split_last().ok_or_else(|| error(io::ErrorKind::IsADirectory))?;
        let id = self.walk(parents)?;
        let dir = self.dirs.get_mut(&id).ok_or_else(|| error(io::ErrorKind::NotFound))?;
        Ok((dir, name))
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// What is under a path; `None` if the last part does not exist, or a part above it.
    pub(super) fn find(&self, path: &Path) -> io::Result<Option<Node>> {
        let parts = parts(path)?;
        let Some((name, parents)) = parts.split_last() else { return Ok(Some(Node::Dir(0))) };
        match self.walk(parents) {
            Ok(id) => Ok(self.dirs.get(&id).and_then(|dir| dir.live.get(*name)).cloned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.find(path)? {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Dir(_)) => Err(error(io::ErrorKind::IsADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        }
    }

    pub(super) fn names(&self, dir: &Path) -> io::Result<impl Iterator<Item = (&OsString, &Node)>> {
        Ok(self.dir(dir)?.live.iter())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        let inode = Inode::new(self.take_id());
        let (dir, name) = self.place(path)?;
        if dir.live.contains_key(name) {
            return Err(error(io::ErrorKind::AlreadyExists));
        }
        dir.apply(vec![(name.to_os_string(), Some(Node::File(Arc::clone(&inode))))]);
        self.inodes.retain(|known| known.strong_count() > 0);
        self.inodes.push(Arc::downgrade(&inode));
        Ok(inode)
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut at = 0;
        for name in parts(path)? {
            let id = self.take_id();
            let dir = self.dirs.get_mut(&at).ok_or_else(|| error(io::ErrorKind::NotFound))?;
            at = match dir.live.get(name) {
                Some(Node::Dir(id)) => *id,
                Some(Node::File(_)) => return Err(error(io::ErrorKind::AlreadyExists)),
                None => {
                    dir.apply(vec![(name.to_os_string(), Some(Node::Dir(id)))]);
                    self.dirs.insert(id, Dir::default());
                    id
                }
            };
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        match dir.live.get(name) {
            Some(Node::File(_)) => {
                dir.apply(vec![(name.to_os_string(), None)]);
                Ok(())
            }
            Some(Node::Dir(_)) => Err(error(io::ErrorKind::IsADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        }
    }

    /// Both paths lie in the same directory.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.file_name().ok_or_else(|| error(io::ErrorKind::InvalidInput))?;
        let (dir, from) = self.place(from)?;
        let node = dir.live.get(from).cloned().ok_or_else(|| error(io::ErrorKind::NotFound))?;
        if from == to {
            return Ok(());
        }
        match (&node, dir.live.get(to)) {
            (Node::File(_), Some(Node::Dir(_))) => return Err(error(io::ErrorKind::IsADirectory)),
            (Node::Dir(_), Some(Node::File(_))) => return Err(error(io::ErrorKind::NotADirectory)),
            (Node::Dir(_), Some(Node::Dir(_))) => return Err(error(io::ErrorKind::DirectoryNotEmpty)),
            (_, None) | (Node::File(_), Some(Node::File(_))) => {}
        }
        dir.apply(vec![(from.to_os_string(), None), (to.to_os_string(), Some(node))]);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.walk(&parts(path)?)?;
        let dir = self.dirs.get_mut(&id).ok_or_else(|| error(io::ErrorKind::NotFound))?;
        dir.pending.clear();
        dir.durable.clone_from(&dir.live);
        Ok(())
    }

    /// Takes the lock of a file for one more holder, if the present ones allow.
    pub(super) fn lock(&mut self, inode: u64, kind: LockKind) -> io::Result<()> {
        let held = match (self.locks.get(&inode), kind) {
            (None, LockKind::Exclusive) => Held::Exclusive,
            (None, LockKind::Shared) => Held::Shared(1),
            (Some(Held::Shared(holders)), LockKind::Shared) => Held::Shared(holders + 1),
            _ => return Err(error(io::ErrorKind::WouldBlock)),
        };
        self.locks.insert(inode, held);
        Ok(())
    }

    /// Gives up one holder's lock.
    pub(super) fn unlock(&mut self, inode: u64) {
        match self.locks.get_mut(&inode) {
            Some(Held::Shared(holders)) if *holders > 1 => *holders -= 1,
            _ => _ = self.locks.remove(&inode),
        }
    }

    /// Bytes in all files that have a live name or are open or mapped. `open` handles and names both hold
    /// the inode; a durable name that was removed holds it too, but its space counts as free.
    pub(super) fn used(&self) -> u64 {
        let mut durable_only: BTreeMap<u64, usize> = BTreeMap::new();
        let mut named: BTreeMap<u64, usize> = BTreeMap::new();
        let count = |map: &mut BTreeMap<u64, usize>, node: &Node| {
            if let Node::File(inode) = node {
                *map.entry(inode.id).or_default() += 1;
            }
        };
        for dir in self.dirs.values() {
            dir.live.values().for_each(|node| count(&mut named, node));
            let unsynced = dir.pending.iter().flatten().filter_map(|(_, node)| node.as_ref());
            dir.durable.values().chain(unsynced).for_each(|node| count(&mut durable_only, node));
        }
        let in_use = |inode: &Arc<Inode>| {
            let by_disk = durable_only.get(&inode.id).copied().unwrap_or(0) + 1;
            let open = Arc::strong_count(inode) > by_disk;
            (named.contains_key(&inode.id) || open || inode.content().is_mapped())
                .then(|| u64::try_from(inode.content().len()).unwrap_or(u64::MAX))
        };
        self.inodes.iter().filter_map(Weak::upgrade).filter_map(|inode| in_use(&inode)).sum()
    }

    /// The names and files of another disk: `names` gives each directory's states there, in terms of the
    /// nodes here, and `file` each file's.
    fn rebuild(
        &self,
        names: impl Fn(DirId, &Dir) -> Dir,
        mut file: impl FnMut(&Inode) -> Arc<Inode>,
    ) -> Self {
        let mut files: BTreeMap<u64, Arc<Inode>> = BTreeMap::new();
        let mut moved = |node: &mut Node| {
            if let Node::File(inode) = node {
                *inode = Arc::clone(files.entry(inode.id).or_insert_with(|| file(inode)));
            }
        };
        let mut dirs = BTreeMap::new();
        for (id, dir) in &self.dirs {
            let mut dir = names(*id, dir);
            let unsynced = dir.pending.iter_mut().flatten().filter_map(|(_, node)| node.as_mut());
            dir.live.values_mut().chain(dir.durable.values_mut()).chain(unsynced).for_each(&mut moved);
            dirs.insert(*id, dir);
        }
        let inodes = files.values().map(Arc::downgrade).collect();
        Self { dirs, next_id: self.next_id, inodes, locks: BTreeMap::new() }
    }

    /// The tree of a machine whose process died: everything as it is, but for the locks.
    pub(super) fn after_kill(&self) -> Self {
        let same = |_, dir: &Dir| Dir {
            live: dir.live.clone(),
            durable: dir.durable.clone(),
            pending: dir.pending.clone(),
        };
        self.rebuild(same, Inode::duplicate)
    }

    /// All that is not synced, each thing by itself.
    pub(super) fn unsynced(&self) -> Vec<Thing> {
        let mut things = Vec::new();
        let mut files: BTreeMap<u64, bool> = BTreeMap::new();
        for (id, dir) in &self.dirs {
            things.extend((0..dir.pending.len()).map(|index| Thing::Change(*id, index)));
            let unsynced = dir.pending.iter().flatten().filter_map(|(_, node)| node.as_ref());
            for node in dir.live.values().chain(dir.durable.values()).chain(unsynced) {
                if let Node::File(inode) = node {
                    files.entry(inode.id).or_insert_with(|| inode.content().may_be_dirty());
                }
            }
        }
        things.extend(files.into_iter().filter(|(_, dirty)| *dirty).map(|(id, _)| Thing::File(id)));
        things
    }

    /// See [`SimFs::contents`](super::SimFs::contents).
    pub(super) fn contents(&self) -> BTreeMap<PathBuf, Option<Arc<Vec<u8>>>> {
        let mut contents = BTreeMap::new();
        let mut left = vec![(PathBuf::new(), 0)];
        while let Some((path, id)) = left.pop() {
            for (name, node) in self.dirs.get(&id).into_iter().flat_map(|dir| &dir.live) {
                let path = path.join(name);
                let bytes = match node {
                    Node::File(inode) => Some(inode.content().bytes()),
                    Node::Dir(id) => {
                        left.push((path.clone(), *id));
                        None
                    }
                };
                contents.insert(path, bytes);
            }
        }
        contents
    }

    /// The tree as a power cut leaves it. A directory that no kept name reaches stays behind unseen.
    pub(super) fn after_crash(&self, image: CrashImage) -> Self {
        let (thing, only) = image.thing().unzip();
        let number = thing.and_then(|number| usize::try_from(number).ok());
        let thing = number.and_then(|number| self.unsynced().get(number).copied());
        let only = only == Some(true);
        let names = |id, dir: &Dir| {
            let live = match thing {
                Some(Thing::Change(in_dir, at)) if in_dir == id && only => {
                    let mut needed = dir.needed_by(at).into_iter();
                    dir.after_crash(|| needed.next() == Some(true))
                }
                Some(Thing::Change(in_dir, at)) if in_dir == id => {
                    let mut index = 0..;
                    dir.after_crash(|| index.next() != Some(at))
                }
                _ => dir.after_crash(image.for_dir(id)),
            };
            Dir { durable: live.clone(), live, pending: Vec::new() }
        };
        self.rebuild(names, |inode| {
            let image = match thing {
                Some(Thing::File(id)) if id == inode.id && only => CrashImage::EverythingUnsynced,
                Some(Thing::File(id)) if id == inode.id => CrashImage::NothingUnsynced,
                _ => image,
            };
            inode.after_crash(image.for_file(inode.id))
        })
    }
}
