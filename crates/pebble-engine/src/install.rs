//! The order of operations that keeps the directory whole, and the only code that installs or removes a table or
//! retires a log segment.
//!
//! ```text
//!   1  tables are written and synced                      flush.rs, compact.rs through NewTables
//!   2  the directory is synced                            so that their names are durable …
//!   3  the edit is appended to the manifest and synced    … before anything refers to them: THE switch
//!   4  readers get the new picture
//!   5  tables that the edit removed are unlinked; log segments below its `log_first` are retired, by `retire_log`
//! ```
//!
//! - A crash before 3 leaves orphans: tables that no edit names. The next open removes them.
//! - A crash after 3 leaves garbage: files that no version names. The next open removes them.
//! - 2 finds no descriptor: nothing was synced and nothing is in doubt; the new tables are removed.
//! - 3 fails, or 2 in any other way: nobody knows what is durable. Writing stops; neither the new nor the old files are
//!   removed, so whichever state the next open finds, its files are there.
//! - 5 before 3 would lose data; 4 before 3 would show a state that a crash takes back. Hence this file.
//!
//! An unlinked table lives on, through its map or its open file, for readers that still hold an older picture. A
//! log segment is recycled only when nobody reads it any more (see [`pebble_format::Appender::recycle`]).
//!
//! Threading: one install at a time, under the lock of [`Manifest`].

use std::sync::Arc;

use pebble_format::KeyspaceId;
use pebble_manifest::{Edit, ManifestLog, ManifestState, Version};
use pebble_vfs::is_no_descriptors;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::state::{ReadState, Sealed, Tree};
use crate::sync::MutexGuard;
use crate::tables::Tables;

/// The log of edits and what it says so far. Whoever holds its lock installs.
pub(crate) struct Manifest {
    log: ManifestLog,
    state: ManifestState,
    /// Whether the log was read back and not begun by this process. Nothing is appended to such a file: after a sync
    /// that failed in an earlier life, its bytes may be read back although the device never got them.
    inherited: bool,
}

impl Manifest {
    /// A manifest that this process began.
    pub(crate) fn begun(log: ManifestLog, state: ManifestState) -> Self {
        Self { log, state, inherited: false }
    }

    /// A manifest that was read back.
    pub(crate) fn read_back(log: ManifestLog, state: ManifestState) -> Self {
        Self { log, state, inherited: true }
    }

    /// What the manifest says.
    pub(crate) fn state(&self) -> &ManifestState {
        &self.state
    }

    /// Whether the log was read back, and nothing was recorded since.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// The number of the file in force.
    pub(crate) fn number(&self) -> u64 {
        self.log.number()
    }

    /// The state after `edit`, to be made ready for before it is [recorded](Manifest::record).
    pub(crate) fn preview(&self, edit: &mut Edit, tables: &Tables) -> Result<ManifestState> {
        edit.next_file = Some(tables.next_number());
        Ok(self.state.apply(edit)?)
    }

    /// Makes `next`, the state after `edit`, the one in force; durable on return. In a new manifest, if the old one
    /// is inherited or has grown far beyond what it says.
    ///
    /// Errors: as [`InstallError`].
    pub(crate) fn record(
        &mut self,
        edit: &Edit,
        mut next: ManifestState,
        tables: &Tables,
    ) -> Result<(), InstallError> {
        let recorded = if self.inherited || self.log.wants_roll() {
            let number = tables.new_number();
            next.next_file = tables.next_number();
            self.log.roll(number, &next)
        } else {
            self.log.append(edit)
        };
        match recorded {
            Ok(()) => {
                self.inherited = false;
                self.state = next;
                Ok(())
            }
            Err(error) if self.log.failed().is_some() => Err(InstallError::Unknown(error.into())),
            Err(error) => Err(InstallError::NotInstalled(error.into())),
        }
    }
}

impl Core {
    /// Installs the outcome of a flush or a merge: steps 2 to 5. `edit` makes the edit for the version in force, under
    /// the lock. `flushed` leaves the picture with its memtable.
    ///
    /// Errors: before the switch nothing has changed, and the caller's new tables may be removed
    /// ([`InstallError::NotInstalled`]); at the switch they must stay.
    pub(crate) fn install(
        &self,
        edit: impl FnOnce(&Version) -> Result<Edit>,
        flushed: Option<&Arc<Sealed>>,
    ) -> Result<(), InstallError> {
        let mut manifest = self.lock_manifest().map_err(InstallError::NotInstalled)?;
        let mut edit = edit(&manifest.state().version).map_err(InstallError::NotInstalled)?;
        let old = Arc::clone(&self.state.load().tree);
        let prepared = self.prepare(&manifest, &mut edit, &old);
        let (next, tree) = prepared.map_err(InstallError::NotInstalled)?;
        let synced = self.fs.sync_dir(&self.dir).map_err(|error| {
            let how =
                if is_no_descriptors(&error) { InstallError::NotInstalled } else { InstallError::Unknown };
            how(error.into())
        });
        let recorded = synced.and_then(|()| manifest.record(&edit, next, &self.tables));
        recorded.inspect_err(|error| self.install_failed(error))?;

        let tree = Arc::new(tree);
        self.state.replace(|state| ReadState {
            memtable: Arc::clone(&state.memtable),
            sealed: state.sealed.iter().filter(|&sealed| !is(sealed, flushed)).cloned().collect(),
            tree,
        });

        self.tables.remove(&edit.gone());
        Ok(())
    }

    /// The state and the tree after `edit`, which then also removes the tables of values that nothing refers to any
    /// more.
    fn prepare(&self, manifest: &Manifest, edit: &mut Edit, old: &Tree) -> Result<(ManifestState, Tree)> {
        let next = manifest.preview(edit, &self.tables)?;
        let tree = self.tables.open_tree(Arc::clone(&next.version), Some(old))?;
        let unreferred = tree.values.unreferred();
        if unreferred.is_empty() {
            return Ok((next, tree));
        }
        edit.removed.extend(unreferred);
        let next = manifest.preview(edit, &self.tables)?;
        let tree = self.tables.open_tree(Arc::clone(&next.version), Some(&tree))?;
        Ok((next, tree))
    }

    /// Takes a keyspace out of the manifest, and returns once that is durable.
    pub(crate) fn install_keyspace_drop(&self, id: KeyspaceId) -> Result<()> {
        let mut manifest = self.lock_manifest()?;
        self.record(&mut manifest, Edit { dropped_keyspaces: vec![id], ..Edit::default() })
    }

    /// Adds a keyspace to the manifest, and returns once its name is durable.
    pub(crate) fn install_keyspace(&self, id: KeyspaceId, name: &str) -> Result<()> {
        let mut manifest = self.lock_manifest()?;
        self.record(&mut manifest, Edit { keyspaces: vec![(id, name.into())], ..Edit::default() })
    }

    /// The manifest, while writing goes on. After a panic of a holder it does not: an edit may be half written.
    pub(crate) fn lock_manifest(&self) -> Result<MutexGuard<'_, Manifest>> {
        match self.manifest.lock() {
            Ok(manifest) => self.status.check_writable().map(|()| manifest),
            Err(_) => {
                let panic = Error::Background { what: "an install".into() };
                self.status.stop(&panic);
                Err(panic)
            }
        }
    }

    /// Records an edit that changes no table.
    pub(crate) fn record(&self, manifest: &mut Manifest, mut edit: Edit) -> Result<()> {
        let next = manifest.preview(&mut edit, &self.tables)?;
        let recorded = manifest.record(&edit, next, &self.tables);
        recorded.inspect_err(|error| self.install_failed(error)).map_err(InstallError::into_cause)
    }

    /// After a failure at the switch nothing more is written.
    fn install_failed(&self, error: &InstallError) {
        if let InstallError::Unknown(cause) = error {
            self.status.stop(cause);
        }
    }

    /// The rest of step 5, for a flush: gives log segments below `first` back, once the flushed memtable is let go.
    /// Those that nobody reads any more are used again, and their pages with them: a fresh page costs many times a
    /// warm one.
    pub(crate) fn retire_log(&self, first: u32) {
        if let Ok(mut committer) = self.commit.lock() {
            committer.log.retire(first);
        }
    }
}

fn is(sealed: &Arc<Sealed>, flushed: Option<&Arc<Sealed>>) -> bool {
    flushed.is_some_and(|flushed| Arc::ptr_eq(sealed, flushed))
}

/// How far a failed install came.
pub(crate) enum InstallError {
    /// Nothing refers to the new tables.
    NotInstalled(Error),
    /// The edit may be durable: old and new files must stay. Writing has stopped.
    Unknown(Error),
}

impl InstallError {
    pub(crate) fn into_cause(self) -> Error {
        match self {
            Self::NotInstalled(error) | Self::Unknown(error) => error,
        }
    }
}
