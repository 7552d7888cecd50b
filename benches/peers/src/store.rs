//! What an engine must do to be compared. A new one is a file in `store/`, a feature, and an arm in each `match`.

#[cfg(feature = "fjall")]
mod fjall;
mod pebble;

use std::path::Path;

use clap::ValueEnum;

use crate::Result;

/// The engines of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// PebbleTree.
    Pebble,
    /// Fjall 3.
    #[cfg(feature = "fjall")]
    Fjall,
}

impl EngineName {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pebble => "pebble",
            #[cfg(feature = "fjall")]
            Self::Fjall => "fjall",
        }
    }

    /// Opens a new database in `dir`.
    pub fn open(self, dir: &Path, config: &Config) -> Result<Box<dyn Store>> {
        match self {
            Self::Pebble => Ok(Box::new(pebble::Pebble::open(dir, config)?)),
            #[cfg(feature = "fjall")]
            Self::Fjall => Ok(Box::new(fjall::Fjall::open(dir, config)?)),
        }
    }
}

/// Compression of tables; a log is never compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// None at all.
    None,
    /// LZ4, in the levels where the engine uses compression by default.
    Lz4,
}

/// What every engine is told.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes for memtables and caches together.
    pub budget: u64,
    /// Compression of tables.
    pub compression: Compression,
    /// Whether each [`Store::flush`] makes one run, and runs are left as they are until [`Store::compact`].
    pub hold_merges: bool,
}

impl Config {
    /// Bytes of user data in one memtable: PebbleTree's own rule, which the peers are given too.
    pub fn memtable_len(&self) -> u64 {
        (self.budget / 4).min(64 << 20)
    }
}

/// What a file of a database is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment of the log.
    Log,
    /// Data that was flushed or merged.
    Table,
    /// Manifests, locks.
    Other,
}

/// An open database of some engine. A write that returned survives a kill of the process, but is not synced.
///
/// Dropping it closes it.
pub trait Store: Sync {
    /// Sets one key.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Sets several keys in one commit.
    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// Removes one key.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Shows the value of `key` to `visit`, in place; says whether there is one.
    fn get(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Shows every entry to `visit`, in order of keys.
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()>;

    /// Writes what is in memory to tables, and returns when it is there.
    fn flush(&self) -> Result<()>;

    /// Flushes, then merges everything into one run, and returns when it is done.
    fn compact(&self) -> Result<()>;

    /// Removes files that nobody needs any more, where an engine leaves that to a later write.
    fn collect_garbage(&self) -> Result<()>;

    /// Whether the engine knows of background work, running or due. See [`crate::quiet`] for what it does not know.
    fn is_busy(&self) -> bool;

    /// Sorted runs now.
    fn runs(&self) -> u64;

    /// Bytes of tables written since it was opened, by the engine's own account.
    fn table_bytes_written(&self) -> Option<u64>;

    /// What a file in the database's directory is for.
    fn file_kind(&self, path: &Path) -> FileKind;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::data::mix;

    #[test]
    fn every_engine_agrees_with_a_map() {
        let config = Config { budget: 8 << 20, compression: Compression::Lz4, hold_merges: false };
        for engine in EngineName::value_variants() {
            let dir = tempfile::tempdir().unwrap();
            let store = engine.open(dir.path(), &config).unwrap();
            let mut map = BTreeMap::new();
            for i in 0..20_000_u64 {
                let key = (mix(i) % 5000).to_be_bytes();
                let value = mix(i).to_be_bytes().repeat(1 + i as usize % 20);
                match i % 7 {
                    0 => {
                        store.delete(&key).unwrap();
                        map.remove(&key[..]);
                    }
                    1 => {
                        store
                            .batch(&[(key.to_vec(), b"older".to_vec()), (key.to_vec(), value.clone())])
                            .unwrap();
                        map.insert(key.to_vec(), value);
                    }
                    _ => {
                        store.put(&key, &value).unwrap();
                        map.insert(key.to_vec(), value);
                    }
                }
                match i {
                    3000 | 6000 | 9000 => store.flush().unwrap(),
                    12_000 => store.compact().unwrap(),
                    _ => {}
                }
            }
            for compacted in [false, true] {
                if compacted {
                    store.compact().unwrap();
                    assert_eq!(store.runs(), 1, "{engine:?}");
                }
                for i in 0..5000_u64 {
                    let key = i.to_be_bytes();
                    let mut found = None;
                    let there = store.get(&key, &mut |value| found = Some(value.to_vec())).unwrap();
                    assert_eq!(found.as_ref(), map.get(&key[..]), "{engine:?} {i}");
                    assert_eq!(there, found.is_some());
                }
                let mut entries = Vec::new();
                store.scan(&mut |key, value| entries.push((key.to_vec(), value.to_vec()))).unwrap();
                assert!(entries.iter().map(|(key, value)| (key, value)).eq(&map), "{engine:?}");
            }
        }
    }
}
