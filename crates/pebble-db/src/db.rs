//! The database: one handle, to be cloned freely.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use pebble_engine::{
    CompactProgress, DEFAULT_KEYSPACE, Engine, Error, Health, KeyspaceId, RecoveryReport, Result, Stats,
    Verification, VerifyProgress, VerifyReport,
};

use crate::batch::{WriteBatch, WriteOptions};
use crate::builder::Builder;
use crate::iter::Iter;
use crate::keyspace::Keyspace;
use crate::range::KeyRange;
use crate::snapshot::Snapshot;
use crate::value::Value;

/// An open database. Cheap to clone, and every clone is the same database: `Clone + Send + Sync + 'static`.
///
/// Its own reads and writes go to the *default* keyspace; [`Db::keyspace`] gives the others. Dropping the last
/// handle (and [`Keyspace`], which holds one) closes it; [`Db::close`] does so with an answer.
#[derive(Clone)]
pub struct Db {
    engine: Engine,
}

impl Db {
    /// Opens the database in the directory `path`, or makes one there, with every option at its default.
    ///
    /// Errors: [`Error::Locked`] when it is open elsewhere, [`Error::Corruption`] or [`Error::MissingFile`] when it
    /// is damaged (nothing is changed then), [`Error::UnsupportedVersion`] when a newer build wrote it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Opens the database in the directory `path` for reading, with every option at its default. Any number of
    /// processes may do so at a time, while none has it open for writing; every write gives [`Error::ReadOnly`].
    ///
    /// No file is made or changed, and the directory need not be writable: what the log holds is read into memory.
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// # use pebble_db::{Db, Error};
    /// # let db = Db::open(path)?;
    /// # db.put("stone", "granite")?;
    /// # db.close()?;
    /// let db = Db::open_read_only(path)?;
    /// assert_eq!(db.get("stone")?.as_deref(), Some(&b"granite"[..]));
    /// assert!(matches!(db.put("stone", "sand"), Err(Error::ReadOnly { .. })));
    /// # db.close()
    /// # }
    /// ```
    ///
    /// Errors: as [`Db::open`]; [`Error::NotADatabase`] where there is none.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).read_only(true).open()
    }

    /// Options first, then [`Builder::open`].
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref().into())
    }

    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn same_as(&self, other: &Db) -> bool {
        self.engine.same_as(&other.engine)
    }

    /// Sets `key` to `value`. Acknowledged as [`WriteOptions::buffered`]. Cost: one copy of the record into the
    /// mapped log and one entry in the memtable's index; no system call.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, &WriteOptions::default())
    }

    /// [`Db::put`] with a say in how it is acknowledged.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<()> {
        self.engine.put(KeyspaceId::DEFAULT, key.as_ref(), value.as_ref(), options.durability())
    }

    /// The value of `key`. Cost: about two dependent cache misses in the place where the key is; nothing is copied.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        Ok(self.engine.get(KeyspaceId::DEFAULT, key.as_ref(), None)?.map(Value::new))
    }

    /// Whether `key` has a value.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// Removes `key`; that it is absent is no error.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_with(key, &WriteOptions::default())
    }

    /// [`Db::delete`] with a say in how it is acknowledged.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: &WriteOptions) -> Result<()> {
        self.engine.delete(KeyspaceId::DEFAULT, key.as_ref(), options.durability())
    }

    /// Removes every key in `range` of the default keyspace, at the cost of one put. See [`Keyspace::delete_range`].
    pub fn delete_range(&self, range: impl KeyRange) -> Result<()> {
        self.default_keyspace().delete_range(range)
    }

    /// Removes every key of the default keyspace that begins with `prefix`. See [`Keyspace::delete_range`].
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<()> {
        self.default_keyspace().delete_prefix(prefix)
    }

    /// The keyspace with this name, made if it is not there. Its making is durable when this returns; opening it
    /// again costs a look-up. Errors: [`Error::InvalidArgument`] for a name that is empty or longer than 255 bytes.
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// let users = db.keyspace("users")?;
    /// users.put("ann", "1")?;
    /// assert!(!db.contains("ann")?);                 // another keyspace
    /// assert_eq!(db.keyspaces(), ["default", "users"]);
    /// # db.close()
    /// # }
    /// ```
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        Ok(Keyspace::new(self.clone(), self.engine.keyspace(name)?, Arc::from(name)))
    }

    /// The keyspace that [`Db::put`] and [`Db::get`] use.
    pub fn default_keyspace(&self) -> Keyspace {
        Keyspace::new(self.clone(), KeyspaceId::DEFAULT, Arc::from(DEFAULT_KEYSPACE))
    }

    /// Drops the keyspace with this name and everything in it; false if there is none. Durable when this returns.
    /// Handles of it that are still about read what snapshots see, and write nothing any more:
    /// [`Error::InvalidArgument`]. The name may be made anew, and is empty then. Cost: a flush.
    ///
    /// Errors: [`Error::InvalidArgument`] for the default keyspace, which always exists.
    pub fn drop_keyspace(&self, name: &str) -> Result<bool> {
        self.engine.drop_keyspace(name)
    }

    /// The names of all keyspaces, sorted.
    pub fn keyspaces(&self) -> Vec<String> {
        self.engine.keyspace_names()
    }

    /// Applies a batch whole. An empty one is no commit; with [`WriteOptions::sync`] it is [`Db::persist`].
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        self.write_with(batch, &WriteOptions::default())
    }

    /// [`Db::write`] with a say in how it is acknowledged.
    pub fn write_with(&self, batch: WriteBatch, options: &WriteOptions) -> Result<()> {
        self.engine.write(batch.check(self)?, options.durability())
    }

    /// [`Db::write_with`] for a caller that must not be held up: where it would have to wait for flushes or merges,
    /// it gives [`Error::Stalled`] with the reason, and nothing has changed. The batch is kept, to be tried again.
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// use pebble_db::{Error, WriteBatch, WriteOptions};
    ///
    /// let mut batch = WriteBatch::new();
    /// batch.put(&db.default_keyspace(), "k", "v");
    /// match db.try_write(&batch, &WriteOptions::default()) {
    ///     Err(Error::Stalled { reason }) => eprintln!("later: {reason}"),
    ///     done => done?,
    /// }
    /// # db.close()
    /// # }
    /// ```
    pub fn try_write(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<()> {
        self.engine.try_write(batch.check(self)?, options.durability())
    }

    /// All entries of the default keyspace. See [`Keyspace::iter`].
    pub fn iter(&self) -> Result<Iter> {
        self.default_keyspace().iter()
    }

    /// The entries of the default keyspace in a range. See [`Keyspace::range`].
    pub fn range(&self, range: impl KeyRange) -> Result<Iter> {
        self.default_keyspace().range(range)
    }

    /// The entries of the default keyspace whose keys begin with `prefix`. See [`Keyspace::prefix`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        self.default_keyspace().prefix(prefix)
    }

    /// The present state of all keyspaces, to be read for as long as it is held.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.clone(), self.engine.snapshot())
    }

    /// Makes every commit so far durable: after it, a power cut loses none of them. Cost: a device flush, shared.
    pub fn persist(&self) -> Result<()> {
        self.engine.persist()
    }

    /// Writes everything in memory to tables. Not needed for durability; it shortens the next recovery.
    pub fn flush(&self) -> Result<()> {
        self.engine.flush()
    }

    /// Merges tables into one run: all of the database for `..`, else those that hold keys of `range` in the default
    /// keyspace. See [`Keyspace::compact_range`].
    pub fn compact_range(&self, range: impl KeyRange) -> Result<()> {
        self.compact_range_with(range, |_| ControlFlow::Continue(()))
    }

    /// [`Db::compact_range`] that tells how far it is, and may be ended. See [`Keyspace::compact_range_with`].
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// use std::ops::ControlFlow;
    ///
    /// db.put("k", "v")?;
    /// db.compact_range_with(.., |progress| {
    ///     eprintln!("{} of {} bytes", progress.done_bytes, progress.done_bytes + progress.left_bytes);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # db.close()
    /// # }
    /// ```
    pub fn compact_range_with(
        &self,
        range: impl KeyRange,
        mut watch: impl FnMut(CompactProgress) -> ControlFlow<()> + Send,
    ) -> Result<()> {
        match range.into_bounds() {
            (Bound::Unbounded, Bound::Unbounded) => self.engine.compact(None, &mut watch),
            bounds => self.default_keyspace().compact_range_with(bounds, watch),
        }
    }

    /// Figures: what was written, what lies where, what it takes.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Reads every byte of every table and checks it. Errors: the first [`Error::Corruption`] met. Cost: a full
    /// scan.
    pub fn verify(&self) -> Result<Vec<VerifyReport>> {
        self.engine.verify()
    }

    /// Reads and checks every byte of tables, log and manifest, and says all that is wrong, not only the first of it.
    /// `watch` is told how far it is, and may end it. Reads and writes go on meanwhile, but for flushes and installs
    /// while log and manifest are read. Cost: a full scan.
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// use std::ops::ControlFlow;
    ///
    /// let found = db.verify_with(|progress| {
    ///     eprintln!("{} of {} bytes", progress.done_bytes, progress.total_bytes);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(found.is_complete && found.damage.is_empty());
    /// # db.close()
    /// # }
    /// ```
    pub fn verify_with(
        &self,
        mut watch: impl FnMut(VerifyProgress) -> ControlFlow<()>,
    ) -> Result<Verification> {
        self.engine.verify_with(&mut watch)
    }

    /// Whether the database takes writes, and which damage and read errors calls and background merges have met since
    /// it was opened.
    ///
    /// A merge that meets damage keeps its inputs and is not tried again: the damaged table is set aside until the next
    /// open.
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// use pebble_db::HealthState;
    ///
    /// let health = db.health();
    /// assert!(matches!(health.state, HealthState::Healthy) && health.errors.is_empty());
    /// # db.close()
    /// # }
    /// ```
    pub fn health(&self) -> Health {
        self.engine.health()
    }

    /// What stopped writing until the next open, if anything did. Reads go on in that state.
    pub fn stopped(&self) -> Option<Arc<Error>> {
        self.engine.stopped()
    }

    /// What the open found: records replayed, bytes dropped, and what a salvage passed over.
    pub fn recovery(&self) -> RecoveryReport {
        self.engine.recovery().clone()
    }

    /// Ends background work, syncs and seals the log, and lets the directory go; the next open has next to nothing
    /// to do. Every later call on any handle gives [`Error::Closed`]; iterators and values that are held go on.
    ///
    /// Errors: [`Error::InvalidArgument`], and it stays open, where a compaction [tells](Keyspace::compact_range_with)
    /// how far it is.
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}
