//! A file system that does what a store with the bug would have asked for: from below the two look the same.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pebble_vfs::{Entry, File, Fs, Lock, LockKind, Map, MapMut, Open};

/// See the table in `history.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// `CURRENT` gets its new manifest and its directory is not synced.
    NoSyncAfterRename,
    /// One sync of the directory for a new manifest and for the name that refers to it.
    OneSyncForManifestAndName,
    /// The manifest refers to tables whose names are not durable.
    TableNameNotSynced,
    /// Somebody closed the directory: from the third on its syncs do nothing.
    DirectorySyncsEnd,
    /// A new manifest is named before its bytes are durable.
    ManifestNotSyncedBeforeNamed,
    /// A rotation forgets the old segment: a sync is one of the newest alone.
    OnlyNewestSegmentSynced,
    /// Damage in the middle of the log counts as its end. Not a matter of files: see `log_damage`.
    DamageTakenForTheEnd,
    /// A sync that failed is tried again, and what that says is believed.
    SyncTriedAgain,
    /// Nobody looks at what an append to the log gave.
    AppendErrorDropped,
    /// A full disk is nobody's business, whatever file it was.
    FullDiskNotSaid,
    /// A sync of the database is one of other files than the log.
    LogNotSynced,
    /// Tables are left to the page cache.
    TablesNotSynced,
    /// `CURRENT` is renamed into place before what it says is durable.
    NameBeforeItsBytes,
    /// A sync failed; the work goes on, and a clean close is noted in the end.
    SyncErrorDropped,
    /// A write to the manifest failed; the edit counts as made.
    ManifestErrorDropped,
    /// The log is mapped without blocks behind it.
    NotAllocated,
    /// The lock was lost with a descriptor that somebody else closed.
    LockDoesNotLock,
    /// Files go before the edit that replaces them is durable: it is synced behind the next removal.
    RemovedBeforeSynced,
}

/// A file system with a bug above it.
#[derive(Debug)]
pub struct BuggyFs {
    inner: Arc<dyn Fs>,
    seen: Arc<Seen>,
}

/// What the bug needs to know of what went before.
#[derive(Debug)]
struct Seen {
    bug: Bug,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Names that were made, or renamed to, since the last sync of the directory.
    unsynced: Vec<String>,
    directory_syncs: u64,
    newest_log: String,
    synced: BTreeSet<PathBuf>,
    /// Syncs that are still owed.
    owed: Vec<Arc<dyn File>>,
}

impl Seen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl BuggyFs {
    pub fn new(inner: Arc<dyn Fs>, bug: Bug) -> Self {
        Self { inner, seen: Arc::new(Seen { bug, state: Mutex::default() }) }
    }

    fn note(&self, path: &Path) {
        let name = name(path);
        let mut state = self.seen.state();
        if name.ends_with(".log") && name > state.newest_log {
            state.newest_log.clone_from(&name);
        }
        state.unsynced.push(name);
    }
}

impl Fs for BuggyFs {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path, mode)?;
        if mode == Open::CreateNew {
            self.note(path);
        }
        Ok(Arc::new(BuggyFile { inner, seen: Arc::clone(&self.seen) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)?;
        self.note(to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)?;
        let owed = std::mem::take(&mut self.seen.state().owed);
        owed.iter().try_for_each(|file| file.sync_data())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(dir)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.inner.metadata(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let forgotten = {
            let mut state = self.seen.state();
            state.directory_syncs += 1;
            let made = |with: &str| state.unsynced.iter().any(|name| name.contains(with));
            let forgotten = match self.seen.bug {
                Bug::NoSyncAfterRename => state.unsynced.iter().any(|name| name == "CURRENT"),
                Bug::OneSyncForManifestAndName => {
                    made("MANIFEST") && !state.unsynced.iter().any(|name| name == "CURRENT")
                }
                Bug::TableNameNotSynced => made(".sst") && !made("MANIFEST"),
                Bug::DirectorySyncsEnd => state.directory_syncs > 4,
                _ => false,
            };
            if self.seen.bug != Bug::OneSyncForManifestAndName || !forgotten {
                state.unsynced.clear();
            }
            forgotten
        };
        if forgotten { Ok(()) } else { self.inner.sync_dir(dir) }
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        #[derive(Debug)]
        struct Lost;
        impl Lock for Lost {}
        let lock = self.inner.lock(path, kind);
        if self.seen.bug == Bug::LockDoesNotLock { Ok(Box::new(Lost)) } else { lock }
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_space(dir)
    }
}

/// An open file of a [`BuggyFs`].
#[derive(Debug)]
struct BuggyFile {
    inner: Arc<dyn File>,
    seen: Arc<Seen>,
}

impl File for BuggyFile {
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
        let outcome = self.inner.write_at(bytes, offset);
        let name = name(self.path());
        let dropped = match (self.seen.bug, &outcome) {
            (Bug::AppendErrorDropped, Err(_)) => name.ends_with(".log"),
            (Bug::ManifestErrorDropped, Err(_)) => name.starts_with("MANIFEST"),
            (Bug::FullDiskNotSaid, Err(error)) => pebble_vfs::is_no_space(error),
            _ => false,
        };
        if dropped { Ok(()) } else { outcome }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.seen.bug == Bug::NotAllocated {
            return if self.len()? < len { self.inner.truncate(len) } else { Ok(()) };
        }
        self.inner.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let name = name(self.path());
        let first = {
            let mut state = self.seen.state();
            let first = state.synced.insert(self.path().into());
            let forgotten = match self.seen.bug {
                Bug::ManifestNotSyncedBeforeNamed => name.starts_with("MANIFEST") && first,
                Bug::OnlyNewestSegmentSynced => name.ends_with(".log") && name < state.newest_log,
                Bug::LogNotSynced => name.ends_with(".log"),
                Bug::TablesNotSynced => name.ends_with(".sst"),
                Bug::NameBeforeItsBytes => name.starts_with("CURRENT"),
                _ => false,
            };
            if forgotten {
                return Ok(());
            }
            first
        };
        if self.seen.bug == Bug::RemovedBeforeSynced && name.starts_with("MANIFEST") && !first {
            self.seen.state().owed.push(Arc::clone(&self.inner));
            return Ok(());
        }
        match (self.seen.bug, self.inner.sync_data()) {
            (Bug::SyncTriedAgain, Err(_)) => self.inner.sync_data(),
            (Bug::SyncErrorDropped, Err(_)) => Ok(()),
            (_, outcome) => outcome,
        }
    }

    fn map(&self) -> io::Result<Map> {
        self.inner.map()
    }

    fn map_mut(&self) -> io::Result<MapMut> {
        self.inner.map_mut()
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.write_back(offset, len)
    }
}
