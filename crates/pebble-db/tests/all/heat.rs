//! What goes into the page cache: tables that somebody reads, and nothing of a load that nobody reads yet.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pebble_db::{Components, Db, Executor};
use pebble_vfs::{Entry, File, Fs, Lock, LockKind, ManualClock, Map, MapMut, Open, SimFs};

use crate::support::{Config, LOG_MODES, bytes, dir};

/// Bytes of tables that were asked to go, or to come, past the cache, and that were not.
#[derive(Debug, Default)]
struct Seen {
    written_past: AtomicU64,
    written: AtomicU64,
    read_past: AtomicU64,
}

impl Seen {
    fn take(&self) -> (u64, u64, u64) {
        let [a, b, c] =
            [&self.written_past, &self.written, &self.read_past].map(|n| n.swap(0, Ordering::Relaxed));
        (a, b, c)
    }
}

#[derive(Debug)]
struct Watched(SimFs, Arc<Seen>);

#[derive(Debug)]
struct WatchedFile(Arc<dyn File>, Arc<Seen>);

impl Fs for Watched {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        let file = self.0.open(path, mode)?;
        let is_table = path.extension().is_some_and(|extension| extension == "sst");
        Ok(if is_table { Arc::new(WatchedFile(file, Arc::clone(&self.1))) } else { file })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.0.list(dir)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.0.metadata(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        self.0.lock(path, kind)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_space(dir)
    }
}

impl File for WatchedFile {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.0.write_at(bytes, offset)
    }

    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.written_past.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.0.write_at(bytes, offset)
    }

    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_past.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_at(buf, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self) -> io::Result<Map> {
        self.0.map()
    }

    fn map_mut(&self) -> io::Result<MapMut> {
        self.0.map_mut()
    }

    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.write_back(offset, len)
    }
}

const KEYS: u32 = 6_000;

fn load(db: &Db, version: u64) {
    (0..KEYS).for_each(|n| db.put(n.to_be_bytes(), bytes(version + u64::from(n), 1000)).unwrap());
    db.flush().unwrap();
}

#[test]
fn a_load_leaves_the_page_cache_alone_and_what_is_read_stays_in_it() {
    let config = Config {
        block_len: 16 << 10,
        table_len: 8 << 20,
        budget: 256 << 20,
        segments: (1 << 20, 64 << 20),
        values_apart: None,
        ..Config::tiny(LOG_MODES[0])
    };
    let seen = Arc::new(Seen::default());
    let fs = Arc::new(Watched(SimFs::new(1), Arc::clone(&seen)));
    let components = Components { fs, clock: Arc::new(ManualClock::new()), executor: Executor::Inline };
    let builder = config.apply(Db::builder(dir())).sync_interval(None).components(components);
    let db = builder.open().unwrap();

    load(&db, 1);
    let (past, cached, _) = seen.take();
    assert!(past >= 4 << 20 && cached < 3 << 20, "a load: {past} past the cache, {cached} into it");
    // Who checks a table is no reader of it.
    db.verify().unwrap();
    load(&db, 2);
    db.compact_range(..).unwrap();
    let (past, cached, read) = seen.take();
    // Two tables, the first flush's and the last merge's, end in a chunk of less than 2 MiB each.
    assert!(past >= 8 << 20 && cached < 5 << 20, "a merge: {past} past the cache, {cached} into it");
    assert!(read >= 12 << 20, "its inputs: {read} past the cache");

    assert_eq!(db.iter().unwrap().count(), KEYS as usize);
    load(&db, 3);
    db.compact_range(..).unwrap();
    let (past, cached, read) = seen.take();
    assert!(past == 0 && cached >= 12_000_000, "somebody reads: {past} past the cache, {cached} into it");
    assert!(read < 8 << 20, "{read}: the table that was read is in memory");
    for n in 0..KEYS {
        assert_eq!(db.get(n.to_be_bytes()).unwrap().as_deref(), Some(&bytes(3 + u64::from(n), 1000)[..]));
    }
}
