//! Iteration over keys and values, from both ends, with seeks.

use std::iter::FusedIterator;

use pebble_engine::{PinnedRecord, Result};

use crate::value::{Key, Value};

/// Entries in ascending order of their keys; `rev()` or `next_back` from the other end. `'static + Send`: it
/// borrows nothing, and what it gives does not change while it is held.
///
/// After an error it gives that error and nothing else, so a `for` loop must leave on it, as `entry?` does.
pub struct Iter(pebble_engine::Iter);

impl Iter {
    pub(crate) fn new(inner: pebble_engine::Iter) -> Self {
        Self(inner)
    }

    /// Makes the next entry from the front the first one at or after `key` within the bounds, before or behind
    /// where the front stood. Cost: a search in every memtable and run.
    ///
    /// What is left lies between the two ends. So a seek back gives again what this end gave behind `key`, and never
    /// what the other end has given or passed; once one end has given everything, nothing is left for the other,
    /// wherever it is moved.
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// for key in ["a", "b", "c", "d"] {
    ///     db.put(key, "")?;
    /// }
    /// let mut iter = db.iter()?;
    /// iter.seek("c");
    /// assert_eq!(iter.next().unwrap()?.0, "c");
    /// iter.seek("a");
    /// assert_eq!(iter.next().unwrap()?.0, "a");
    /// # db.close()
    /// # }
    /// ```
    pub fn seek(&mut self, key: impl AsRef<[u8]>) {
        self.0.seek(key.as_ref());
    }

    /// Makes the next entry from the back the last one at or before `key` within the bounds. Otherwise as
    /// [`Iter::seek`].
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) {
        self.0.seek_for_prev(key.as_ref());
    }
}

/// Entries that are lent: for walks that look, or copy, and go on.
impl Iter {
    /// The next entry from the front, lent until the next call: as `next`, without the two reference counts that make a
    /// [`Key`] and a [`Value`] outlive the iterator's step. The fastest way to walk.
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// db.put("a", "1")?;
    /// db.put("b", "22")?;
    /// let (mut iter, mut bytes) = (db.iter()?, 0);
    /// while let Some(entry) = iter.next_lent() {
    ///     let (key, value) = entry?;
    ///     bytes += key.len() + value.len();
    /// }
    /// assert_eq!(bytes, 5);
    /// # db.close()
    /// # }
    /// ```
    #[inline]
    pub fn next_lent(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        Some(self.0.lend_front()?.map(|record| (record.key(), record.value())))
    }

    /// The next entry from the back, lent, as [`Iter::next_lent`].
    #[inline]
    pub fn next_back_lent(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        Some(self.0.lend_back()?.map(|record| (record.key(), record.value())))
    }
}

fn entry(found: Result<PinnedRecord>) -> Result<(Key, Value)> {
    found.map(|record| (Key::new(record.key()), Value::new(record.into_value())))
}

impl Iterator for Iter {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_front().map(entry)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(entry)
    }
}

impl FusedIterator for Iter {}

impl std::fmt::Debug for Iter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
