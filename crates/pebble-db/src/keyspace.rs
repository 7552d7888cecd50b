//! A keyspace: an ordered map of its own within the database.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use pebble_engine::{Bounds, CompactProgress, KeyspaceId, Result, SizeEstimate};

use crate::batch::WriteOptions;
use crate::db::Db;
use crate::iter::Iter;
use crate::range::{KeyRange, half_open, prefix_bounds};
use crate::value::Value;

/// One ordered key space. Cheap to clone; holds its database open.
///
/// ```
/// # fn main() -> pebble_db::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = pebble_db::Db::open(dir.path())?;
/// let users = db.keyspace("users")?;
/// for name in ["ann", "anna", "bob", "cid"] {
///     users.put(name, name.len().to_string())?;
/// }
/// let keys = |iter: pebble_db::Iter| -> pebble_db::Result<Vec<String>> {
///     iter.map(|entry| Ok(String::from_utf8_lossy(&entry?.0).into_owned())).collect()
/// };
/// assert_eq!(keys(users.range("anna".."cid")?)?, ["anna", "bob"]);
/// assert_eq!(keys(users.prefix("ann")?)?, ["ann", "anna"]);
/// assert_eq!(users.iter()?.next_back().unwrap()?.0, "cid");
/// # db.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Keyspace {
    db: Db,
    id: KeyspaceId,
    name: Arc<str>,
}

impl Keyspace {
    pub(crate) fn new(db: Db, id: KeyspaceId, name: Arc<str>) -> Self {
        Self { db, id, name }
    }

    pub(crate) fn id(&self) -> KeyspaceId {
        self.id
    }

    /// The database that it belongs to.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets `key` to `value`. See [`Db::put`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, &WriteOptions::default())
    }

    /// [`Keyspace::put`] with a say in how it is acknowledged.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<()> {
        self.db.engine().put(self.id, key.as_ref(), value.as_ref(), options.durability())
    }

    /// The value of `key`. See [`Db::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        Ok(self.db.engine().get(self.id, key.as_ref(), None)?.map(Value::new))
    }

    /// Whether `key` has a value.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// Removes `key`; that it is absent is no error.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_with(key, &WriteOptions::default())
    }

    /// [`Keyspace::delete`] with a say in how it is acknowledged.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: &WriteOptions) -> Result<()> {
        self.db.engine().delete(self.id, key.as_ref(), options.durability())
    }

    /// Removes every key in `range`. Cost: as one put, however many keys there are; reads pass over the hole at
    /// once, and its space comes back with the next flush, for tables that lie in it whole without reading them.
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// let logs = db.keyspace("logs")?;
    /// for day in ["05-30", "05-31", "06-01"] {
    ///     logs.put(day, "…")?;
    /// }
    /// logs.delete_range("05-".."06-")?;
    /// assert_eq!(logs.iter()?.next().unwrap()?.0, "06-01");
    /// # db.close()
    /// # }
    /// ```
    pub fn delete_range(&self, range: impl KeyRange) -> Result<()> {
        self.delete_range_with(range, &WriteOptions::default())
    }

    /// [`Keyspace::delete_range`] with a say in how it is acknowledged.
    pub fn delete_range_with(&self, range: impl KeyRange, options: &WriteOptions) -> Result<()> {
        match half_open(range.into_bounds()) {
            Some((start, end)) => self.db.engine().delete_range(self.id, &start, &end, options.durability()),
            None => Ok(()),
        }
    }

    /// Removes every key that begins with `prefix`. See [`Keyspace::delete_range`].
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<()> {
        self.delete_range(prefix_bounds(prefix.as_ref()))
    }

    /// Removes every key. See [`Keyspace::delete_range`]; [`Db::drop_keyspace`] removes the keyspace with them.
    pub fn clear(&self) -> Result<()> {
        self.db.engine().clear(self.id, WriteOptions::default().durability())
    }

    /// Merges the tables that hold keys of `range` into one run: reads are fastest then, and space that old versions
    /// and deleted keys took is free again. Returns when it is done. Cost: reading and writing those tables once.
    pub fn compact_range(&self, range: impl KeyRange) -> Result<()> {
        self.compact_range_with(range, |_| ControlFlow::Continue(()))
    }

    /// [`Keyspace::compact_range`] that tells `watch` how far it is, every few thousand records, and ends when that
    /// breaks; what was merged by then stays so.
    ///
    /// `watch` must not wait for a compaction or a close, which would wait for it: called by itself,
    /// [`Keyspace::compact_range`] and [`Db::close`] give [`Error::InvalidArgument`](crate::Error::InvalidArgument).
    pub fn compact_range_with(
        &self,
        range: impl KeyRange,
        mut watch: impl FnMut(CompactProgress) -> ControlFlow<()> + Send,
    ) -> Result<()> {
        let Some((start, end)) = half_open(range.into_bounds()) else { return Ok(()) };
        let range = pebble_engine::KeyRange { keyspace: self.id, start, end };
        self.db.engine().compact(Some(&range), &mut watch)
    }

    /// About how much lies in `range`: bytes of tables to the exactness of a block or two, old versions and deleted
    /// keys included until they are merged away. Cost: a few binary searches, whatever the range.
    pub fn size_estimate(&self, range: impl KeyRange) -> Result<SizeEstimate> {
        self.db.engine().estimate(self.id, range.into_bounds())
    }

    /// About how many keys have a value: exact when nothing was overwritten or deleted since the last merge, else
    /// overwritten keys count each time. Cost: as [`Keyspace::size_estimate`].
    pub fn approximate_len(&self) -> Result<u64> {
        Ok(self.size_estimate(..)?.keys)
    }

    /// All entries in order, as they are now: later writes do not show.
    pub fn iter(&self) -> Result<Iter> {
        self.bounded((Bound::Unbounded, Bound::Unbounded))
    }

    /// The entries with keys in `range`, in order, as they are now. A range that is the wrong way round is empty.
    pub fn range(&self, range: impl KeyRange) -> Result<Iter> {
        self.bounded(range.into_bounds())
    }

    /// The entries whose keys begin with `prefix`, exactly those, in order, as they are now.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        self.bounded(prefix_bounds(prefix.as_ref()))
    }

    fn bounded(&self, bounds: Bounds) -> Result<Iter> {
        Ok(Iter::new(self.db.engine().iter(self.id, bounds, None)?))
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.name).finish_non_exhaustive()
    }
}
