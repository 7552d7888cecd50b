//! Several writes that are one commit, and how a commit is acknowledged.

use pebble_engine::{Durability, Error, RecordBatch, Result};

use crate::db::Db;
use crate::keyspace::Keyspace;
use crate::range::{KeyRange, half_open, prefix_bounds};

/// Puts and deletes, of keys and of ranges, over any keyspaces of one database, applied together or not at all. A
/// later one for a key wins.
///
/// ```
/// # fn main() -> pebble_db::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = pebble_db::Db::open(dir.path())?;
/// use pebble_db::WriteBatch;
///
/// let (users, mails) = (db.keyspace("users")?, db.keyspace("mails")?);
/// let mut batch = WriteBatch::new();
/// batch.put(&users, "ann", "1").put(&mails, "ann@example.org", "ann").delete(&users, "bob");
/// db.write(batch)?;
/// assert_eq!(users.get("ann")?.as_deref(), Some(&b"1"[..]));
/// # db.close()
/// # }
/// ```
#[derive(Clone, Default)]
pub struct WriteBatch {
    records: RecordBatch,
    /// The database whose keyspaces the records name.
    db: Option<Db>,
    /// The first limit that was broken; [`Db::write`] gives it back and writes nothing.
    refused: Option<Error>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put. A key or value over its limit makes the whole batch fail when it is written.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        let added = self.records.put(keyspace.id(), key.as_ref(), value.as_ref());
        self.note(keyspace, added.map_err(Error::from))
    }

    /// Adds a delete. As [`WriteBatch::put`].
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        let added = self.records.delete(keyspace.id(), key.as_ref());
        self.note(keyspace, added.map_err(Error::from))
    }

    /// Adds a delete of every key in `range`, at the cost of one put. As [`WriteBatch::put`]; a range that holds no
    /// key adds nothing.
    pub fn delete_range(&mut self, keyspace: &Keyspace, range: impl KeyRange) -> &mut Self {
        let added = match half_open(range.into_bounds()) {
            Some((start, end)) => self.records.delete_range(keyspace.id(), &start, &end),
            None => Ok(()),
        };
        self.note(keyspace, added.map_err(Error::from))
    }

    /// Adds a delete of every key that begins with `prefix`. As [`WriteBatch::delete_range`].
    pub fn delete_prefix(&mut self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> &mut Self {
        let bounds = prefix_bounds(prefix.as_ref());
        self.delete_range(keyspace, bounds)
    }

    fn note(&mut self, keyspace: &Keyspace, added: Result<()>) -> &mut Self {
        let db = self.db.get_or_insert_with(|| keyspace.db().clone());
        let same = db.same_as(keyspace.db());
        let checked = if same { added } else { Err(foreign()) };
        if let Err(error) = checked {
            self.refused.get_or_insert(error);
        }
        self
    }

    /// Number of puts and deletes.
    pub fn len(&self) -> usize {
        // A count is at most u32::MAX, which a usize of a supported platform holds.
        self.records.count() as usize
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that the batch takes in the log.
    pub fn encoded_len(&self) -> usize {
        self.records.bytes().len()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.db = None;
        self.refused = None;
    }

    /// The records, if they may be written to `db`.
    pub(crate) fn check(&self, db: &Db) -> Result<&RecordBatch> {
        match (&self.refused, &self.db) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(own)) if !own.same_as(db) => Err(foreign()),
            _ => Ok(&self.records),
        }
    }
}

fn foreign() -> Error {
    Error::InvalidArgument("the batch names a keyspace of another database".into())
}

/// How a write is acknowledged.
///
/// ```
/// # fn main() -> pebble_db::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = pebble_db::Db::open(dir.path())?;
/// use pebble_db::{WriteBatch, WriteOptions};
///
/// let users = db.keyspace("users")?;
/// let mut batch = WriteBatch::new();
/// batch.put(&users, "ann", "1");
/// db.write_with(batch, &WriteOptions::sync())?;     // on the device when this returns
/// # db.close()
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    durability: Durability,
}

impl WriteOptions {
    /// Acknowledged when the kernel has it: survives the death of the process. The default.
    pub fn buffered() -> Self {
        Self { durability: Durability::Buffered }
    }

    /// Acknowledged when the device has it: survives a loss of power, with every commit before it. Concurrent sync
    /// writes share a device flush.
    pub fn sync() -> Self {
        Self { durability: Durability::Sync }
    }

    /// What was chosen.
    pub fn durability(&self) -> Durability {
        self.durability
    }
}
