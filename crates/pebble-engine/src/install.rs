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
//! - 3 fails: nobody knows whether the edit is durable. Writing stops; neither the new nor the old files are
//!   removed, so whichever state the next open finds, its files are there.
//! - 5 before 3 would lose data; 4 before 3 would show a state that a crash takes back. Hence this file.
//!
//! An unlinked table lives on, through its map or its open file, for readers that still hold an older picture. A
//! log segment is recycled only when nobody reads it any more (see [`pebble_format::Appender::recycle`]).
//!
//! Threading: one install at a time, under the lock of [`Manifest`].

use std::sync::Arc;

use pebble_format::{FileName, KeyspaceId};
use pebble_manifest::{Edit, ManifestLog, ManifestState};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::state::{ReadState, Sealed};
use crate::sync::lock;

/// The log of edits and what it says so far. Whoever holds its lock installs.
pub(crate) struct Manifest {
    pub(crate) log: ManifestLog,
    pub(crate) state: ManifestState,
}

impl Core {
    /// Installs the outcome of a flush or a merge: steps 2 to 5. `flushed` leaves the picture with its memtable.
    ///
    /// Errors: before the switch nothing has changed, and the caller's new tables may be removed
    /// ([`InstallError::NotInstalled`]); at the switch they must stay.
    pub(crate) fn install(&self, mut edit: Edit, flushed: Option<&Arc<Sealed>>) -> Result<(), InstallError> {
        let mut manifest = lock(&self.manifest);
        edit.next_file = Some(self.tables.next_number());
        let next = manifest.state.apply(&edit).map_err(|e| InstallError::NotInstalled(e.into()))?;
        let old = Arc::clone(&self.state.load().tree);
        let tree = self
            .tables
            .open_tree(Arc::clone(&next.version), Some(&old))
            .map_err(InstallError::NotInstalled)?;
        self.fs.sync_dir(&self.dir).map_err(|error| self.switch_failed(error.into()))?;

        manifest.log.append(&edit).map_err(|error| self.switch_failed(error.into()))?;
        manifest.state = next;

        let tree = Arc::new(tree);
        self.state.replace(|state| ReadState {
            memtable: Arc::clone(&state.memtable),
            sealed: state.sealed.iter().filter(|&sealed| !is(sealed, flushed)).cloned().collect(),
            tree,
        });

        for number in &edit.removed {
            if let Err(error) = self.fs.remove(&self.tables.path(FileName::Table(*number))) {
                tracing::warn!(%error, "an obsolete table stays until the next open");
            }
        }
        self.roll_manifest(&mut manifest);
        Ok(())
    }

    /// Adds a keyspace to the manifest, and returns once its name is durable.
    pub(crate) fn install_keyspace(&self, id: KeyspaceId, name: &str) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        self.status.check_writable()?;
        let edit = Edit { keyspaces: vec![(id, name.into())], ..Edit::default() };
        let next = manifest.state.apply(&edit)?;
        manifest.log.append(&edit).map_err(|error| self.switch_failed(error.into()).into_cause())?;
        manifest.state = next;
        Ok(())
    }

    fn switch_failed(&self, cause: Error) -> InstallError {
        self.status.stop(&cause);
        InstallError::Unknown(cause)
    }

    /// The rest of step 5, for a flush: gives log segments below `first` back, once the flushed memtable is let go. Those
    /// that nobody reads any more are used again, and their pages with them: a fresh page costs many times a warm one.
    pub(crate) fn retire_log(&self, first: u32) {
        if let Ok(mut committer) = self.commit.lock() {
            committer.log.retire(first);
        }
    }

    /// Begins a new manifest when the old one has grown far beyond what it says. Failing to is no loss: the old one
    /// is whole.
    fn roll_manifest(&self, manifest: &mut Manifest) {
        if !manifest.log.wants_roll() {
            return;
        }
        let number = self.tables.new_number();
        manifest.state.next_file = self.tables.next_number();
        if let Err(error) = manifest.log.roll(number, &manifest.state) {
            self.status.stop(&error.into());
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
