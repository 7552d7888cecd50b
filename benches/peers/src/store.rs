//! What an engine must do to be compared. A new one is a file in `store/`, a feature, and an arm in each `match`.

#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "heed")]
mod heed;
mod pebble;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "sled")]
mod sled;

use std::path::Path;

use clap::ValueEnum;

use crate::Result;

/// The engines of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum EngineName {
    /// PebbleTree.
    Pebble,
    /// RocksDB.
    #[cfg(feature = "rocksdb")]
    #[value(name = "rocksdb")]
    RocksDb,
    /// Fjall 3.
    #[cfg(feature = "fjall")]
    Fjall,
    /// LMDB.
    #[cfg(feature = "heed")]
    Lmdb,
    /// LMDB that writes through its map.
    #[cfg(feature = "heed")]
    #[value(name = "lmdb-writemap")]
    LmdbWritemap,
    /// redb.
    #[cfg(feature = "redb")]
    Redb,
    /// sled 0.34.
    #[cfg(feature = "sled")]
    Sled,
}

impl EngineName {
    /// Whether a write that is not synced dies with the process, so that each one has to be.
    pub fn syncs_always(self) -> bool {
        ["redb", "sled"].contains(&self.name())
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pebble => "pebble",
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => "rocksdb",
            #[cfg(feature = "fjall")]
            Self::Fjall => "fjall",
            #[cfg(feature = "heed")]
            Self::Lmdb => "lmdb",
            #[cfg(feature = "heed")]
            Self::LmdbWritemap => "lmdb-writemap",
            #[cfg(feature = "redb")]
            Self::Redb => "redb",
            #[cfg(feature = "sled")]
            Self::Sled => "sled",
        }
    }

    /// Opens the database in `dir`, a new one if there is none.
    pub fn open(self, dir: &Path, config: &Config) -> Result<Box<dyn Store>> {
        match self {
            Self::Pebble => Ok(Box::new(pebble::Pebble::open(dir, config)?)),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => Ok(Box::new(rocksdb::RocksDb::open(dir, config)?)),
            #[cfg(feature = "fjall")]
            Self::Fjall => Ok(Box::new(fjall::Fjall::open(dir, config)?)),
            #[cfg(feature = "heed")]
            Self::Lmdb => Ok(Box::new(heed::Lmdb::open(dir, config, false)?)),
            #[cfg(feature = "heed")]
            Self::LmdbWritemap => Ok(Box::new(heed::Lmdb::open(dir, config, true)?)),
            #[cfg(feature = "redb")]
            Self::Redb => Ok(Box::new(redb::Redb::open(dir, config)?)),
            #[cfg(feature = "sled")]
            Self::Sled => Ok(Box::new(sled::Sled::open(dir, config)?)),
        }
    }

    /// Whether it is a log-structured merge tree.
    pub fn merges(self) -> bool {
        is_lsm(self.name())
    }

    /// Those of this build that are log-structured merge trees.
    pub fn merging() -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|engine| engine.merges()).collect()
    }
}

/// Whether the engine of that name is a log-structured merge tree.
pub fn is_lsm(engine: &str) -> bool {
    ["pebble", "rocksdb", "fjall"].contains(&engine)
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
    /// Whether values are so large that an engine that can is to keep them apart from its keys.
    pub large_values: bool,
    /// Whether each write is on the device when it returns.
    pub sync: bool,
    /// Whether the data is larger than the memory: no maps that the kernel pages, no read-ahead for point reads.
    pub cold: bool,
}

impl Config {
    /// The defaults of every engine within `budget`.
    pub fn new(budget: u64, compression: Compression) -> Self {
        Self { budget, compression, hold_merges: false, large_values: false, sync: false, cold: false }
    }

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

/// What is called with each key and value of a scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// Which entries a scan gives.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// The first key at or after this one; from the end of the database without it. Only forward.
    pub from: Option<&'a [u8]>,
    /// Descending, from the last key.
    pub reverse: bool,
    /// At most so many.
    pub limit: usize,
}

impl Window<'_> {
    /// All entries in order.
    pub const ALL: Self = Window { from: None, reverse: false, limit: usize::MAX };
}

/// An open database of some engine. A write that returned survives a kill of the process, but is synced only if
/// [`Config::sync`] says so. Dropping it closes it.
pub trait Store: Send + Sync {
    /// Sets one key.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Sets several keys in one commit.
    fn batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// Removes one key.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// A reader for the calling thread.
    fn reader(&self) -> Result<Box<dyn Reader + '_>>;

    /// Writes what is in memory to tables, and returns when it is there.
    fn flush(&self) -> Result<()>;

    /// Flushes, then merges everything into one run, and returns when it is done.
    fn compact(&self) -> Result<()>;

    /// Removes files that nobody needs any more, where an engine leaves that to a later write.
    fn collect_garbage(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the engine knows of background work, running or due. See [`crate::quiet`] for what it does not know.
    fn is_busy(&self) -> bool;

    /// Sorted runs now.
    fn runs(&self) -> u64;

    /// Bytes of tables written since it was opened, by the engine's own account.
    fn table_bytes_written(&self) -> Option<u64>;

    /// What a file in the database's directory is for.
    fn file_kind(&self, path: &Path) -> FileKind;

    /// How it was tuned, for people.
    fn settings(&self) -> String;

    /// Shows the value of `key` to `visit`, in place; says whether there is one.
    fn get(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.reader()?.get(key, visit)
    }

    /// Shows every entry to `visit`, in order of keys.
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.reader()?.scan(Window::ALL, visit)
    }
}

/// Reads for one thread. What an expert of the engine keeps from read to read (a transaction, an iterator) it keeps;
/// it may show the state of its first read after a refresh.
pub trait Reader {
    /// Forgets what it keeps: the reads from here on see every write that returned before them.
    fn refresh(&mut self);

    /// Shows the value of `key` to `visit`, in place; says whether there is one.
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Shows the entries of `window` to `visit`.
    fn scan(&mut self, window: Window<'_>, visit: Visit<'_>) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::data::mix;

    #[test]
    fn every_engine_agrees_with_a_map() {
        for engine in EngineName::value_variants() {
            let has_lz4 = engine.merges();
            let config = Config::new(8 << 20, if has_lz4 { Compression::Lz4 } else { Compression::None });
            let dir = tempfile::tempdir().unwrap();
            let store = engine.open(dir.path(), &config).unwrap();
            let mut map = BTreeMap::new();
            let steps = if engine.syncs_always() { 2000 } else { 20_000 };
            for i in 0..steps {
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
                windows_agree(store.as_ref(), &map);
            }
        }
    }

    fn windows_agree(store: &dyn Store, map: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut reader = store.reader().unwrap();
        let mut seen = |window: Window<'_>| {
            let mut keys = Vec::new();
            reader.scan(window, &mut |key, _| keys.push(key.to_vec())).unwrap();
            keys
        };
        let backwards = seen(Window { reverse: true, limit: 300, from: None });
        assert!(backwards.iter().eq(map.keys().rev().take(300)));
        for from in [0_u64, 17, 2500, 4999, 5000] {
            let from = from.to_be_bytes();
            let found = seen(Window { from: Some(&from), reverse: false, limit: 10 });
            assert!(found.iter().eq(map.range(from.to_vec()..).map(|(key, _)| key).take(10)));
        }
    }

    #[test]
    fn a_refreshed_reader_sees_what_was_written() {
        for engine in EngineName::value_variants() {
            let dir = tempfile::tempdir().unwrap();
            let store = engine.open(dir.path(), &Config::new(8 << 20, Compression::None)).unwrap();
            let mut reader = store.reader().unwrap();
            let mut see = |key: &[u8]| {
                reader.refresh();
                let got = reader.get(key, &mut |_| {}).unwrap();
                reader.refresh();
                let mut scanned = false;
                let window = Window { from: Some(key), reverse: false, limit: 1 };
                reader.scan(window, &mut |found, _| scanned = found == key).unwrap();
                reader.refresh();
                (got, scanned)
            };
            assert_eq!(see(b"a"), (false, false), "{engine:?}");
            store.put(b"a", b"1").unwrap();
            assert_eq!(see(b"a"), (true, true), "{engine:?}");
            store.delete(b"a").unwrap();
            assert_eq!(see(b"a"), (false, false), "{engine:?}");
        }
    }
}
