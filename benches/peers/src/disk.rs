//! What lies in a database's directory.
//!
//! A file that is deleted but still open or mapped takes space too, and is not seen here.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::store::{FileKind, Store};

/// Bytes that files take on the device (allocated blocks, so that a sparse file counts what it holds).
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// Of log segments.
    pub log: u64,
    /// Of tables.
    pub tables: u64,
    /// Of everything else.
    pub other: u64,
}

impl Space {
    /// Of the whole directory.
    pub fn total(&self) -> u64 {
        self.log + self.tables + self.other
    }
}

/// Watches the directory of one database.
pub struct Directory<'a> {
    path: &'a Path,
    store: &'a dyn Store,
    /// Every table ever seen, with its length when it was last seen: no engine uses a table's name twice.
    tables: HashMap<PathBuf, u64>,
}

impl<'a> Directory<'a> {
    /// The directory of `store`.
    pub fn new(path: &'a Path, store: &'a dyn Store) -> Self {
        Self { path, store, tables: HashMap::new() }
    }

    /// Looks at every file.
    pub fn look(&mut self) -> Result<Space> {
        let mut space = Space::default();
        let mut waiting = vec![self.path.to_owned()];
        while let Some(directory) = waiting.pop() {
            let Some(entries) = present(fs::read_dir(&directory))? else { continue };
            for entry in entries {
                let path = entry?.path();
                let Some(metadata) = present(fs::symlink_metadata(&path))? else { continue };
                let bytes = metadata.blocks() * 512;
                if metadata.is_dir() {
                    waiting.push(path);
                    continue;
                }
                match self.store.file_kind(&path) {
                    FileKind::Log => space.log += bytes,
                    FileKind::Other => space.other += bytes,
                    FileKind::Table => {
                        space.tables += bytes;
                        self.tables.insert(path, metadata.len());
                    }
                }
            }
        }
        Ok(space)
    }

    /// Bytes of all tables ever seen: what was written, but for a table that came and went between two looks.
    pub fn table_bytes_seen(&self) -> u64 {
        self.tables.values().sum()
    }
}

/// `None` for what was deleted a moment ago.
fn present<T>(found: std::io::Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The directory of one run, removed with all it holds when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes a directory of this name in `parent`. Errors: there is one already; it is left alone.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(parent)?;
        let path = parent.join(format!("pebble-peers-{name}"));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Compression, Config, EngineName};

    #[test]
    fn tables_that_went_are_still_counted() {
        let parent = tempfile::tempdir().unwrap();
        let config = Config { hold_merges: true, ..Config::new(8 << 20, Compression::None) };
        for engine in EngineName::merging() {
            let scratch = Scratch::new(parent.path(), engine.name()).unwrap();
            assert!(Scratch::new(parent.path(), engine.name()).is_err());
            let store = engine.open(scratch.path(), &config).unwrap();
            let mut directory = Directory::new(scratch.path(), store.as_ref());
            // Fjall keeps the names of its keyspaces in a small table.
            assert!(directory.look().unwrap().tables < 10_000);
            for _ in 0..2 {
                // Two, so that no engine takes a table as it is because another hides all of it.
                store.put(b"key 1", &[7; 50_000]).unwrap();
                store.put(b"key 2", &[7; 50_000]).unwrap();
                assert!(directory.look().unwrap().log > 0, "{engine:?}");
                store.flush().unwrap();
            }
            let two = directory.look().unwrap();
            assert!(two.tables >= 200_000 && two.total() > two.tables + two.log, "{two:?}");
            store.compact().unwrap();
            store.collect_garbage().unwrap();
            let one = directory.look().unwrap();
            assert!((100_000..200_000).contains(&one.tables), "{engine:?}: {one:?}");
            assert!((300_000..310_000).contains(&directory.table_bytes_seen()), "{engine:?}");
            if let Some(told) = store.table_bytes_written() {
                assert_eq!(directory.table_bytes_seen(), told, "{engine:?}");
            }
            drop(store);
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
