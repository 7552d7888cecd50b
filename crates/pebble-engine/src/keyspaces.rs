//! Keyspaces: names for ordered key spaces within one tree, made when they are first asked for.
//!
//! All of them share one log, one memtable and one tree, in which the keyspace is the first part of the order. So a
//! batch over several is atomic for free, and an idle one pins nothing: there is no memtable of its own that would
//! keep the log.
//!
//! # How one is dropped
//!
//! ```text
//!   1  no further write to it is taken; a range delete of all of it is committed
//!   2  everything in memtables goes to tables, so that the log holds no record of it any more
//!   3  its name leaves the manifest
//! ```
//!
//! A crash before 3 leaves an empty keyspace, or one as it was. After 3 its number may come back after a reopen:
//! what is left of the old records is older than the range delete, which stays in the tree as long as any of them
//! does.
//!
//! Threading: looking a name up takes a read lock; making or dropping one takes the write lock and the manifest's,
//! and returns once that is durable, so that no record can be durable before the name of its keyspace is.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use pebble_format::KeyspaceId;
use pebble_format::manifest::KEYSPACE_NAME_LEN_MAX;

use crate::commit::Write;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::sync::{RwLock, RwLockWriteGuard, lock};

/// The name of the keyspace that always exists.
pub const DEFAULT_KEYSPACE: &str = "default";

/// Names and numbers of all keyspaces.
pub(crate) struct Keyspaces {
    known: RwLock<Known>,
}

struct Known {
    by_name: BTreeMap<Box<str>, KeyspaceId>,
    /// The largest number given out since the open: while this process lives, none comes back.
    last: KeyspaceId,
}

impl Keyspaces {
    pub(crate) fn new(known: impl IntoIterator<Item = (Box<str>, KeyspaceId)>) -> Self {
        let mut by_name: BTreeMap<_, _> = known.into_iter().collect();
        by_name.insert(DEFAULT_KEYSPACE.into(), KeyspaceId::DEFAULT);
        let last = by_name.values().max().copied().unwrap_or_default();
        Self { known: RwLock::new(Known { by_name, last }) }
    }

    pub(crate) fn find(&self, name: &str) -> Option<KeyspaceId> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).copied()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_name.keys().map(|name| String::from(&**name)).collect()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// The keyspace with this name, made if it is not there.
    pub(crate) fn keyspace(&self, name: &str) -> Result<KeyspaceId> {
        self.status.check_open()?;
        if let Some(id) = self.keyspaces.find(name) {
            return Ok(id);
        }
        if name.is_empty() || name.len() > KEYSPACE_NAME_LEN_MAX {
            return Err(Error::invalid(format!("a keyspace's name has 1 to {KEYSPACE_NAME_LEN_MAX} bytes")));
        }
        let mut known = self.keyspaces.write();
        if let Some(id) = known.by_name.get(name) {
            return Ok(*id);
        }
        let id = known
            .last
            .0
            .checked_add(1)
            .map(KeyspaceId)
            .ok_or_else(|| Error::invalid("no more than 65,536 keyspaces until the next open"))?;
        self.install_keyspace(id, name)?;
        known.last = id;
        known.by_name.insert(name.into(), id);
        Ok(id)
    }

    /// Drops the keyspace with this name; false if there is none. See the file's head.
    pub(crate) fn drop_keyspace(&self, name: &str) -> Result<bool> {
        self.status.check_open()?;
        if name == DEFAULT_KEYSPACE {
            return Err(Error::invalid("the default keyspace always exists; clear it instead"));
        }
        let mut known = self.keyspaces.write();
        let Some(id) = known.by_name.get(name).copied() else { return Ok(false) };
        self.lock_commit()?.dropped.insert(id);
        let done = self.status.stopped_by_panic("the drop of a keyspace", || self.empty_and_forget(id));
        match &done {
            Ok(()) => _ = known.by_name.remove(name),
            // It is still there: empty perhaps, and open to writes again.
            Err(_) => _ = lock(&self.commit).dropped.remove(&id),
        }
        done.map(|()| true)
    }

    fn empty_and_forget(&self, id: KeyspaceId) -> Result<()> {
        self.commit(Write::Clear(id), Durability::Buffered)?;
        self.flush_all()?;
        self.install_keyspace_drop(id)
    }
}
