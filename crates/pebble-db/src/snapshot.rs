//! A state of the database that stays as it was.

use std::ops::Bound;

use pebble_engine::{Bounds, Error, KeyspaceId, Result};

use crate::db::Db;
use crate::iter::Iter;
use crate::keyspace::Keyspace;
use crate::range::{KeyRange, prefix_bounds};
use crate::value::Value;

/// All keyspaces as they were when it was taken. Owned, `'static`, cheap to clone.
///
/// It costs the space of the old versions that only it can see; nothing else is kept for it.
///
/// It reads the keyspaces of its own database: every call gives [`Error::InvalidArgument`] for one of another.
///
/// ```
/// # fn main() -> pebble_db::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = pebble_db::Db::open(dir.path())?;
/// let stones = db.keyspace("stones")?;
/// stones.put("a", "before")?;
/// let snapshot = db.snapshot();
/// stones.put("a", "after")?;
/// assert_eq!(snapshot.get(&stones, "a")?.as_deref(), Some(&b"before"[..]));
/// # db.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    db: Db,
    inner: pebble_engine::Snapshot,
}

impl Snapshot {
    pub(crate) fn new(db: Db, inner: pebble_engine::Snapshot) -> Self {
        Self { db, inner }
    }

    /// The value that `key` had.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        Ok(self.db.engine().get(self.own(keyspace)?, key.as_ref(), Some(&self.inner))?.map(Value::new))
    }

    /// Whether `key` had a value.
    pub fn contains(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(keyspace, key)?.is_some())
    }

    /// All entries that the keyspace had, in order.
    pub fn iter(&self, keyspace: &Keyspace) -> Result<Iter> {
        self.bounded(keyspace, (Bound::Unbounded, Bound::Unbounded))
    }

    /// The entries that the keyspace had in `range`, in order.
    pub fn range(&self, keyspace: &Keyspace, range: impl KeyRange) -> Result<Iter> {
        self.bounded(keyspace, range.into_bounds())
    }

    /// The entries that the keyspace had under `prefix`, in order.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        self.bounded(keyspace, prefix_bounds(prefix.as_ref()))
    }

    fn bounded(&self, keyspace: &Keyspace, bounds: Bounds) -> Result<Iter> {
        Ok(Iter::new(self.db.engine().iter(self.own(keyspace)?, bounds, Some(&self.inner))?))
    }

    /// The number of a keyspace of this database; in another the same number is another keyspace.
    fn own(&self, keyspace: &Keyspace) -> Result<KeyspaceId> {
        if !keyspace.db().same_as(&self.db) {
            return Err(Error::InvalidArgument(
                "the snapshot is of another database than the keyspace".into(),
            ));
        }
        Ok(keyspace.id())
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("seqno", &self.inner.seqno().0).finish_non_exhaustive()
    }
}
