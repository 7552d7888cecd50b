//! How an open database does: whether it takes writes, and which read errors and damage it has met.
//!
//! Threading: a lock of its own, taken only when something is wrong or when somebody asks.

use std::sync::Arc;

use crate::core::Core;
use crate::damage::Damage;
use crate::error::Error;
use crate::sync::{Mutex, lock};

/// Places of damage that are remembered one by one.
const PLACES_MAX: usize = 64;

/// Whether a database takes writes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HealthState {
    /// It does.
    Healthy,
    /// The last attempt to write found no space: in the log, or, where the memtables are full, in a flush. Reads go on;
    /// writes succeed again when there is space.
    WriteStopped(Error),
    /// None are taken until the next open, for this cause; or the database was opened for reading. Reads go on.
    ReadOnly(Arc<Error>),
}

/// One place that could not be read, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthEntry {
    /// Name of the file within the directory; empty where the error names none.
    pub file: Box<str>,
    /// The offset that the error names; 0 where it names none.
    pub offset: u64,
    /// What was wrong.
    pub what: Box<str>,
    /// How many calls and merges met it.
    pub count: u64,
}

/// See the file's head.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Whether it takes writes.
    pub state: HealthState,
    /// What calls and background merges could not read since the open, the first 64 places.
    pub errors: Vec<HealthEntry>,
    /// How often something else could not be read, when there were 64 places already.
    pub more_errors: u64,
    /// Tables that no merge takes any more, because one met damage in them.
    pub set_aside: Vec<u64>,
}

/// What was met.
#[derive(Default)]
pub(crate) struct Met(Mutex<(Vec<HealthEntry>, u64)>);

impl Met {
    /// Takes in an error if it is one of reading: damage, a missing file, or one of the system.
    #[cold]
    pub(crate) fn note(&self, error: &Error) {
        if !error.is_corruption() && !matches!(error, Error::Io(_)) {
            return;
        }
        let Damage { file, from: offset, reason: what, .. } = Damage::of_error(error);
        let (entries, more) = &mut *lock(&self.0);
        let same =
            |entry: &&mut HealthEntry| entry.file == file && entry.offset == offset && entry.what == what;
        let has_room = entries.len() < PLACES_MAX;
        match entries.iter_mut().find(same) {
            Some(entry) => entry.count += 1,
            None if has_room => {
                tracing::warn!(%error, "a read failed");
                entries.push(HealthEntry { file, offset, what, count: 1 });
            }
            None => *more += 1,
        }
    }
}

impl Core {
    /// Takes in an error on its way to the caller.
    #[cold]
    pub(crate) fn met(&self, error: impl Into<Error>) -> Error {
        let error = error.into();
        self.met.note(&error);
        error
    }

    pub(crate) fn health(&self) -> Health {
        let state = match (self.status.stopped(), self.status.no_space()) {
            (Some(cause), _) => HealthState::ReadOnly(cause),
            (None, Some(error)) => HealthState::WriteStopped(error),
            (None, None) => HealthState::Healthy,
        };
        let (errors, more_errors) = lock(&self.met.0).clone();
        Health { state, errors, more_errors, set_aside: self.merges.set_aside() }
    }
}
