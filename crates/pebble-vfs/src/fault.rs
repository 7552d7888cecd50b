//! A wrapper whose n-th call fails, in every way in which calls fail.
//!
//! ```text
//!     run the script once, without rules ──► calls(op) = how many there are
//!     for n in 0..calls(op): run it again with Fault { op, nth: n, kind, .. } and see what it makes of it
//! ```
//!
//! Threading: any number of threads; one lock around rules and counters, not held during the calls. Which
//! call is the n-th is only determined where one thread makes them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Context;
use crate::fs::{Entry, File, Fs, Lock, LockKind, Open};
use crate::map::{Map, MapMut};
pub use crate::op::Op;
use crate::retry::uninterrupted;
use crate::sim::{Memory, SimFile, SimFs};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// What happens instead of the call, or to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The call does nothing and fails with EIO.
    Io,
    /// The call does nothing and fails with ENOSPC.
    NoSpace,
    /// The first half of the bytes is written, then ENOSPC. Calls other than writes do nothing and fail.
    ShortWrite,
    /// A signal interrupts the call, which is made again inside, as [`File`] promises: nothing is to be
    /// seen of it.
    Interrupted,
    /// The call does nothing and fails with EMFILE.
    TooManyFiles,
    /// The call succeeds, with one bit of what it read or mapped flipped: this one, counted from the first
    /// bit of the first byte, modulo their number. No effect on other calls.
    FlipBit {
        /// Which bit.
        bit: u64,
    },
    /// The sync fails with EIO and the cache lies from then on: what was not synced is still read, but a
    /// later sync succeeds without making it durable. On a file that is not a [`SimFs`]'s, and for other
    /// calls, as [`FaultKind::Io`].
    LyingSync,
    /// The call panics.
    Panic,
}

/// A rule: which call fails, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of call.
    pub op: Op,
    /// Which paths: with a `*` (any run of characters) it must match the whole path, without one it must
    /// occur in it. `None`: all.
    pub path: Option<String>,
    /// Which of the calls that `op` and `path` select, from 0, counted from when the rule was added.
    pub nth: u64,
    /// Whether all later ones fail as well.
    pub sticky: bool,
    /// How.
    pub kind: FaultKind,
}

impl Fault {
    /// The `nth` call of a kind fails, once, whatever its path.
    pub fn once(op: Op, nth: u64, kind: FaultKind) -> Self {
        Self { op, path: None, nth, sticky: false, kind }
    }

    /// The same rule for later calls too.
    #[must_use]
    pub fn sticky(self) -> Self {
        Self { sticky: true, ..self }
    }

    /// The same rule for these paths alone; see [`Fault::path`].
    #[must_use]
    pub fn on(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    fn selects(&self, op: Op, paths: &[&Path]) -> bool {
        let on_path = |pattern: &String| paths.iter().any(|path| matches(pattern, &path.to_string_lossy()));
        (self.op == Op::Any || self.op == op) && self.path.as_ref().is_none_or(on_path)
    }
}

/// See [`Fault::path`].
fn matches(pattern: &str, path: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return path.contains(pattern) };
    let Some(mut path) = path.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some(at) = path.find(part) else { return false };
        path = &path[at + part.len()..];
    }
    path.ends_with(last)
}

/// A file system whose calls fail by rule. A clone has the same rules and counters.
#[derive(Debug, Clone)]
pub struct FaultFs {
    inner: Inner,
    rules: Arc<Mutex<Rules>>,
}

/// What is wrapped. The simulated disk is known by name, because it alone can lie about a sync.
#[derive(Debug, Clone)]
enum Inner {
    Any(Arc<dyn Fs>),
    Sim(SimFs),
}

#[derive(Debug, Default)]
struct Rules {
    /// Each with how many calls it has selected.
    faults: Vec<(Fault, u64)>,
    calls: BTreeMap<Op, u64>,
    fired: u64,
    hits: Vec<(Op, PathBuf)>,
}

impl FaultFs {
    /// Wraps any file system; no call fails yet.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner: Inner::Any(inner), rules: Arc::default() }
    }

    /// Wraps a simulated disk, on which [`FaultKind::LyingSync`] has its full effect.
    pub fn over_sim(sim: SimFs) -> Self {
        Self { inner: Inner::Sim(sim), rules: Arc::default() }
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.rules)
    }

    /// Adds a rule. Of several that select a call, the one added first decides.
    pub fn inject(&self, fault: Fault) {
        self.rules().faults.push((fault, 0));
    }

    /// Removes all rules; the counters go on.
    pub fn clear(&self) {
        self.rules().faults.clear();
    }

    /// How many calls of a kind were made so far, the failed ones included.
    pub fn calls(&self, op: Op) -> u64 {
        self.rules().calls.get(&op).copied().unwrap_or(0)
    }

    /// How many calls were made to fail, or changed, so far.
    pub fn fired(&self) -> u64 {
        self.rules().fired
    }

    /// Which calls were made to fail, or changed: each kind and path once (of a rename the old one), the first first.
    pub fn hits(&self) -> Vec<(Op, PathBuf)> {
        self.rules().hits.clone()
    }

    fn fs(&self) -> &dyn Fs {
        match &self.inner {
            Inner::Any(fs) => fs.as_ref(),
            Inner::Sim(fs) => fs,
        }
    }

    /// Makes a call under the rules.
    fn call<T>(
        &self,
        op: Op,
        name: &'static str,
        paths: &[&Path],
        run: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let kind = next(&self.rules, op, paths);
        plain(kind, run).context(name, paths.first().copied().unwrap_or(Path::new("")))
    }
}

fn lock(rules: &Mutex<Rules>) -> MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a call and says what is to happen to it.
fn next(rules: &Mutex<Rules>, op: Op, paths: &[&Path]) -> Option<FaultKind> {
    let mut rules = lock(rules);
    for counted in [op, Op::Any] {
        *rules.calls.entry(counted).or_default() += 1;
    }
    let mut decided = None;
    for (fault, seen) in rules.faults.iter_mut().filter(|(fault, _)| fault.selects(op, paths)) {
        let due = *seen == fault.nth || (fault.sticky && *seen > fault.nth);
        *seen += 1;
        decided = decided.or(due.then_some(fault.kind));
    }
    if decided.is_some() {
        rules.fired += 1;
        let path = paths.first().copied().unwrap_or(Path::new(""));
        if !rules.hits.iter().any(|(known, on)| *known == op && on == path) {
            rules.hits.push((op, path.into()));
        }
    }
    decided
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Makes a call whose fault needs no knowledge of what it does.
fn plain<T>(kind: Option<FaultKind>, mut run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match kind {
        None | Some(FaultKind::FlipBit { .. }) => run(),
        Some(FaultKind::Io | FaultKind::LyingSync) => Err(errno(libc::EIO)),
        Some(FaultKind::NoSpace | FaultKind::ShortWrite) => Err(errno(libc::ENOSPC)),
        Some(FaultKind::TooManyFiles) => Err(errno(libc::EMFILE)),
        Some(FaultKind::Interrupted) => {
            let mut signals = 1;
            uninterrupted(|| {
                if signals > 0 {
                    signals -= 1;
                    return Err(errno(libc::EINTR));
                }
                run()
            })
        }
        // Without the hook of a panic, that would print a line for each of thousands.
        Some(FaultKind::Panic) => std::panic::resume_unwind(Box::new("injected fault")),
    }
}

/// Flips a bit, modulo the number of bits there are.
fn flip(bytes: &mut [u8], bit: u64) {
    let bits = u64::try_from(bytes.len()).unwrap_or(u64::MAX).saturating_mul(8);
    let Some(bit) = bit.checked_rem(bits) else { return };
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
        *byte ^= 1 << (bit % 8);
    }
}

impl Fs for FaultFs {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        let (op, name) = match mode {
            Open::CreateNew => (Op::Create, "create"),
            Open::Read | Open::ReadWrite => (Op::Open, "open"),
        };
        let inner = self.call(op, name, &[path], || match &self.inner {
            Inner::Any(fs) => fs.open(path, mode).map(InnerFile::Any),
            Inner::Sim(fs) => fs.open_file(path, mode).map(InnerFile::Sim),
        })?;
        Ok(Arc::new(FaultFile { inner, path: path.to_path_buf(), rules: Arc::clone(&self.rules) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Op::Rename, "rename", &[from, to], || self.fs().rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Op::Remove, "remove", &[path], || self.fs().remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.call(Op::List, "list", &[dir], || self.fs().list(dir))
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.call(Op::Metadata, "metadata", &[path], || self.fs().metadata(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call(Op::CreateDir, "create-dir", &[path], || self.fs().create_dir(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Op::SyncDir, "sync-dir", &[dir], || self.fs().sync_dir(dir))
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        self.call(Op::Lock, "lock", &[path], || self.fs().lock(path, kind))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.fs().free_space(dir)
    }
}

#[derive(Debug)]
enum InnerFile {
    Any(Arc<dyn File>),
    Sim(SimFile),
}

/// An open file whose calls fail by rule.
#[derive(Debug)]
struct FaultFile {
    inner: InnerFile,
    path: PathBuf,
    rules: Arc<Mutex<Rules>>,
}

impl FaultFile {
    fn file(&self) -> &dyn File {
        match &self.inner {
            InnerFile::Any(file) => file.as_ref(),
            InnerFile::Sim(file) => file,
        }
    }

    fn next(&self, op: Op) -> Option<FaultKind> {
        next(&self.rules, op, &[&self.path])
    }

    fn call<T>(&self, op: Op, name: &'static str, run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        plain(self.next(op), run).context(name, &self.path)
    }
}

impl File for FaultFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> io::Result<u64> {
        self.file().len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let kind = self.next(Op::Read);
        let got = plain(kind, || self.file().read_at(buf, offset)).context("read", &self.path)?;
        if let (Some(FaultKind::FlipBit { bit }), Some(read)) = (kind, buf.get_mut(..got)) {
            flip(read, bit);
        }
        Ok(got)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let kind = self.next(Op::Write);
        if kind == Some(FaultKind::ShortWrite) {
            self.file().write_at(&bytes[..bytes.len() / 2], offset)?;
        }
        plain(kind, || self.file().write_at(bytes, offset)).context("write", &self.path)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.call(Op::Allocate, "allocate", || self.file().allocate(len))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.call(Op::Truncate, "truncate", || self.file().truncate(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let kind = self.next(Op::Sync);
        if let (Some(FaultKind::LyingSync), InnerFile::Sim(file)) = (kind, &self.inner) {
            file.drop_dirty();
        }
        plain(kind, || self.file().sync_data()).context("sync", &self.path)
    }

    fn map(&self) -> io::Result<Map> {
        let kind = self.next(Op::Map);
        let map = plain(kind, || self.file().map()).context("map", &self.path)?;
        let Some(FaultKind::FlipBit { bit }) = kind else { return Ok(map) };
        let mut bytes = map.to_vec();
        flip(&mut bytes, bit);
        let memory = Memory::zeroed(bytes.len()).context("map", &self.path)?;
        memory.store(0, &bytes);
        Ok(Map::of_memory(Arc::new(memory), bytes.len()))
    }

    fn map_mut(&self) -> io::Result<MapMut> {
        self.call(Op::MapMut, "map-mut", || self.file().map_mut())
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file().write_back(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let path = "/db/000012.sst";
        for yes in ["", ".sst", "0012", "*", "*.sst", "/db/*", "/*/0000*.sst", "/db/000012.sst", "*1*2*"] {
            assert!(matches(yes, path), "{yes}");
        }
        for no in [".log", "*.log", "db/*", "*.ss", "/db/*/*.sst", "*2*1*", "/db/000012.sst*.sst"] {
            assert!(!matches(no, path), "{no}");
        }
    }

    #[test]
    fn a_flip_wraps_and_is_its_own_inverse() {
        let mut bytes = [0, 0];
        flip(&mut bytes, 16 + 9);
        assert_eq!(bytes, [0, 2]);
        flip(&mut bytes, 9);
        assert_eq!(bytes, [0, 0]);
        flip(&mut [], 3);
    }
}
