//! Keyspaces: names for ordered key spaces within one tree, made when they are first asked for.
//!
//! All of them share one log, one memtable and one tree, in which the keyspace is the first part of the order. So a
//! batch over several is atomic for free, and an idle one pins nothing: there is no memtable of its own that would
//! keep the log.
//!
//! Threading: looking a name up takes a read lock; making one takes the manifest's lock and returns once the name
//! is durable, so that no record can be durable before the name of its keyspace is.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use pebble_format::KeyspaceId;
use pebble_format::manifest::KEYSPACE_NAME_LEN_MAX;

use crate::core::Core;
use crate::error::{Error, Result};

/// The name of the keyspace that always exists.
pub const DEFAULT_KEYSPACE: &str = "default";

/// Names and numbers of all keyspaces.
pub(crate) struct Keyspaces {
    by_name: RwLock<BTreeMap<Box<str>, KeyspaceId>>,
}

impl Keyspaces {
    pub(crate) fn new(known: impl IntoIterator<Item = (Box<str>, KeyspaceId)>) -> Self {
        let mut by_name: BTreeMap<_, _> = known.into_iter().collect();
        by_name.insert(DEFAULT_KEYSPACE.into(), KeyspaceId::DEFAULT);
        Self { by_name: RwLock::new(by_name) }
    }

    pub(crate) fn find(&self, name: &str) -> Option<KeyspaceId> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.keys().map(|name| String::from(&**name)).collect()
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
        let mut by_name = self.keyspaces.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = by_name.get(name) {
            return Ok(*id);
        }
        let last = by_name.values().max().copied().unwrap_or_default();
        let id = last
            .0
            .checked_add(1)
            .map(KeyspaceId)
            .ok_or_else(|| Error::invalid("no more than 65,536 keyspaces"))?;
        self.install_keyspace(id, name)?;
        by_name.insert(name.into(), id);
        Ok(id)
    }
}
