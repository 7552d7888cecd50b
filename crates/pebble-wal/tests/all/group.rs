//! Group commit over files: one sync for all that wait, and everybody wakes when it fails.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use pebble_format::Error;
use pebble_vfs::{Entry, File, Fs, Lock, LockKind, Map, MapMut, Open, SimFs};
use pebble_wal::{LogIo, LogPosition, LogWriter};

use crate::support::*;

type Hook = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A file system that calls a hook before each sync of a file, and can do without blocks and maps.
struct HookFs {
    inner: SimFs,
    on_sync: Hook,
    plain: bool,
}

struct HookFile {
    inner: Arc<dyn File>,
    on_sync: Hook,
    plain: bool,
}

impl std::fmt::Debug for HookFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl std::fmt::Debug for HookFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Fs for HookFs {
    fn open(&self, path: &Path, mode: Open) -> io::Result<Arc<dyn File>> {
        let (inner, on_sync) = (self.inner.open(path, mode)?, Arc::clone(&self.on_sync));
        Ok(Arc::new(HookFile { inner, on_sync, plain: self.plain }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(dir)
    }
    fn metadata(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.inner.metadata(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path, kind)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_space(dir)
    }
}

impl File for HookFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.plain { Err(io::ErrorKind::Unsupported.into()) } else { self.inner.allocate(len) }
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        (self.on_sync)()?;
        self.inner.sync_data()
    }
    fn map(&self) -> io::Result<Map> {
        if self.plain { Err(io::ErrorKind::Unsupported.into()) } else { self.inner.map() }
    }
    fn map_mut(&self) -> io::Result<MapMut> {
        if self.plain { Err(io::ErrorKind::Unsupported.into()) } else { self.inner.map_mut() }
    }
    fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.write_back(offset, len)
    }
}

/// A latch that opens when `target` have arrived.
#[derive(Default)]
struct Latch(Mutex<u32>, Condvar);

impl Latch {
    fn arrive(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }

    fn wait(&self, target: u32) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |arrived| *arrived < target).unwrap());
    }
}

/// Eight threads commit durably; the first sync lasts until all have appended, and then ends as `end` says.
fn commit_in_eight(
    end: fn() -> io::Result<()>,
) -> (LogWriter, Vec<std::thread::Result<pebble_format::Result<()>>>) {
    let arrived = Arc::new(Latch::default());
    let (at_sync, first) = (Arc::clone(&arrived), AtomicU32::new(0));
    let on_sync: Hook = Arc::new(move || {
        if first.fetch_add(1, SeqCst) == 0 {
            at_sync.wait(8);
            return end();
        }
        Ok(())
    });
    let fs: Arc<dyn Fs> = Arc::new(HookFs { inner: SimFs::new(1), on_sync, plain: false });
    let log = Arc::new(Mutex::new(create(&fs, LogIo::Map)));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (log, arrived) = (Arc::clone(&log), Arc::clone(&arrived));
            std::thread::spawn(move || {
                let (end, sync) = {
                    let mut log = log.lock().unwrap();
                    (append(&mut log, 0).end, log.sync_handle())
                };
                arrived.arrive();
                sync.wait_durable(end)
            })
        })
        .collect();
    let results = threads.into_iter().map(std::thread::JoinHandle::join).collect();
    (Arc::into_inner(log).unwrap().into_inner().unwrap(), results)
}

#[test]
fn commits_that_wait_together_share_a_sync() {
    let (log, results) = commit_in_eight(|| Ok(()));
    assert!(results.into_iter().all(|result| result.unwrap().is_ok()));
    let sync = log.sync_handle();
    assert!((1..=2).contains(&sync.syncs()), "{} syncs", sync.syncs());
    assert_eq!(sync.durable(), log.end());
}

#[test]
fn a_failing_sync_wakes_all_with_its_error() {
    let (log, results) = commit_in_eight(|| Err(io::Error::other("broken")));
    for result in results {
        assert!(result.unwrap().unwrap_err().to_string().contains("broken"));
    }
    assert_eq!((log.sync_handle().syncs(), log.sync_handle().durable()), (0, LogPosition::ZERO));
}

#[test]
fn a_panicking_leader_wakes_all_with_an_error() {
    let (mut log, results) = commit_in_eight(|| panic!("inside a sync"));
    let (panicked, others): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_err);
    assert_eq!(panicked.len(), 1);
    assert!(others.into_iter().all(|result| matches!(result, Ok(Err(Error::Io(_))))));
    assert!(log.sync_handle().persist().is_err() && try_append(&mut log, &payload(1)).is_err());
}

#[test]
fn a_file_system_without_maps_is_written_to() {
    let fs: Arc<dyn Fs> =
        Arc::new(HookFs { inner: SimFs::new(2), on_sync: Arc::new(|| Ok(())), plain: true });
    let mut log = create(&fs, LogIo::Map);
    assert_eq!(log.io(), LogIo::Write);
    for index in 0..60 {
        append(&mut log, index);
    }
    assert_eq!((log.mapped_bytes(), log.heap_bytes() as u64), (0, log.disk_bytes()));
    let floor = log.seal().unwrap();
    drop(log);
    let recovered = strict(&fs, 1, floor).unwrap();
    assert_eq!(indexes(&recovered), (0..60).collect::<Vec<_>>());
    let mut log = LogWriter::resume(Arc::clone(&fs), dir(), options(LogIo::Map), recovered).unwrap();
    assert!(!append(&mut log, 60).new_segment, "it goes on behind the seal");
    log.sync_handle().persist().unwrap();
    assert_eq!(replayed(&fs, 1), (0..=60).collect::<Vec<_>>());
}
