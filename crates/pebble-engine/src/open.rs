//! Opening: lock, create or recover, and put the parts together. The steps of recovery are told in `recover.rs`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pebble_format::log::LogPosition;
use pebble_format::{FileName, Seqno};
use pebble_manifest::{Edit, ManifestLog, ManifestState};
use pebble_vfs::{Fs, Lock, LockKind};
use pebble_wal::Recovery;

use crate::commit::SEGMENTS_MAX;
use crate::core::Core;
use crate::damage::Damage;
use crate::doubt::Doubts;
use crate::error::{Error, Result};
use crate::health::Met;
use crate::install::{InstallError, Manifest};
use crate::keyspaces::Keyspaces;
use crate::merges::Merges;
use crate::options::{Components, Executor, Options};
use crate::pace::Pace;
use crate::read_only;
use crate::recover::{self, LogPlace, Order, RecoveryReport, Replayed};
use crate::snapshots::Snapshots;
use crate::state::{ReadState, State, Tree, Visible};
use crate::stats::Counters;
use crate::status::Status;
use crate::sync::{Condvar, Mutex};
use crate::tables::{NewTables, Tables};
use crate::wanted::WantedRanges;
use crate::work::Work;

/// The number of the first manifest.
const FIRST_FILE: u64 = 1;

/// Opens the database in `dir`, or makes one there.
pub(crate) fn open(dir: &Path, options: Options, components: Components) -> Result<Arc<Core>> {
    options.check()?;
    if options.read_only || options.recovery == Recovery::SalvageReadOnly {
        return read_only::open(dir, options, components);
    }
    let lock = take_directory(&components.fs, dir, &options)?;
    open_locked(dir, options, components, Some(lock), Salvage::default())
}

/// Opens the database in a directory that is locked, or that nobody can change.
pub(crate) fn open_locked(
    dir: &Path,
    options: Options,
    components: Components,
    lock: Option<Box<dyn Lock>>,
    salvage: Salvage,
) -> Result<Arc<Core>> {
    let fs = &components.fs;
    let (mut manifest, dropped_manifest_bytes) = open_manifest(fs, dir, &options)?;

    let is_new = !manifest.is_inherited();
    let uuid = manifest.state().uuid;
    let memtable_len = options.memtable_len();
    let next_file = next_file_number(fs, dir, manifest.state())?;
    let tables = Tables::new(Arc::clone(fs), dir.into(), uuid, &options, next_file);
    let tree = tables.open_tree(Arc::clone(&manifest.state().version), None)?;

    let first = manifest.state().log_first;
    let recovered = pebble_wal::recover(
        fs,
        dir,
        uuid,
        first,
        manifest.state().log_floor,
        options.recovery,
        options.log_io,
    )?;
    let dropped_bytes = recovered.dropped_bytes + dropped_manifest_bytes;
    let log_options = recover::log_options(&options, memtable_len, uuid);
    let place = LogPlace { fs, dir, options: log_options, memtable_len };
    let mut order = Order::of(manifest.state());

    // A seal that the manifest does not know of was perhaps never synced.
    let known = recovered.end == manifest.state().log_floor && recovered.damage.is_none();
    let sealed = recovered.sealed && known && dropped_bytes == 0;
    // Who only reads has a file system of his own, in memory, and what is in the log goes into tables there.
    let (replayed, tree) = if sealed && !options.read_only && recovered.segments().count() < SEGMENTS_MAX {
        // What was read back, the name of this manifest included, may not be on the device: a new one is.
        let mut nothing = Edit::default();
        let next = manifest.preview(&mut nothing, &tables)?;
        manifest.record(&nothing, next, &tables).map_err(InstallError::into_cause)?;
        (recover::resume(place, recovered, order)?, tree)
    } else {
        let mut outputs = NewTables::new(&tables, false);
        let bottom = tree.runs.is_empty();
        let mut flush =
            || recover::flush_replayed(&recovered, &mut order, &tables, &mut outputs, bottom, memtable_len);
        let writes = recovered.frames().next().is_some();
        let mut edit = match components.executor {
            Executor::Threads if writes => tables.transfers.beside(flush)?,
            _ => flush()?,
        };
        let next = manifest.preview(&mut edit, &tables)?;
        let tree = tables.open_tree(Arc::clone(&next.version), Some(&tree))?;
        fs.sync_dir(dir)?;
        // From here on the new tables stay, whatever happens: the edit may be in force although recording it failed.
        outputs.keep();
        manifest.record(&edit, next, &tables).map_err(InstallError::into_cause)?;

        let first = recovered.next_segment;
        let replayed = recover::begin_log(place, first, recovered.end, order)?;
        fs.sync_dir(dir)?;
        // From here on the first segment's name is durable, and its absence would be damage.
        let mut begun = Edit { log_floor: Some(LogPosition::new(first, 0)), ..Edit::default() };
        let next = manifest.preview(&mut begun, &tables)?;
        manifest.record(&begun, next, &tables).map_err(InstallError::into_cause)?;
        (replayed, tree)
    };
    let orphans = recover::remove_orphans(fs, dir, manifest.state(), manifest.number())?;
    let report = RecoveryReport {
        clean: (sealed || is_new) && salvage.skipped.is_empty(),
        replayed: replayed.records + salvage.replayed,
        dropped_bytes: dropped_bytes + salvage.dropped_bytes,
        last_seqno: replayed.last_seqno.0,
        orphans,
        skipped: salvage.skipped,
    };
    tracing::info!(?report, "opened");
    Ok(Arc::new(assemble(Parts {
        dir: dir.into(),
        options,
        components,
        lock,
        manifest,
        tables,
        tree,
        replayed,
        report,
        doubts: salvage.doubts,
    })))
}

/// What came before an open for salvage.
#[derive(Default)]
pub(crate) struct Salvage {
    pub(crate) doubts: Option<Doubts>,
    pub(crate) skipped: Vec<Damage>,
    pub(crate) replayed: u64,
    pub(crate) dropped_bytes: u64,
}

struct Parts {
    dir: PathBuf,
    options: Options,
    components: Components,
    lock: Option<Box<dyn Lock>>,
    manifest: Manifest,
    tables: Tables,
    tree: Tree,
    replayed: Replayed,
    report: RecoveryReport,
    doubts: Option<Doubts>,
}

fn assemble(parts: Parts) -> Core {
    let Parts { dir, options, components, lock, manifest, tables, tree, replayed, report, doubts } = parts;
    let (committer, work) = (replayed.committer, Work::new(Arc::clone(&tables.transfers)));
    let names = manifest.state().keyspaces.iter().map(|(id, name)| (name.clone(), *id)).collect::<Vec<_>>();
    let core = Core {
        fs: components.fs,
        clock: components.clock,
        executor: components.executor,
        dir,
        memtable_len: options.memtable_len(),
        log_sync: committer.log.sync_handle(),
        state: State::new(ReadState {
            memtable: Arc::clone(committer.memtable.shared()),
            sealed: Vec::new(),
            tree: Arc::new(tree),
        }),
        visible: Visible::new(Seqno(committer.next_seqno.0 - 1)),
        commit: Mutex::new(committer),
        room: Condvar::new(),
        manifest: Mutex::new(manifest),
        flushing: Mutex::new(()),
        merges: Merges::default(),
        wanted: WantedRanges::new(work.merge_bell()),
        pace: Pace::new(options.shape.last_percent),
        tables,
        sharing: Mutex::new(()),
        keyspaces: Keyspaces::new(names),
        snapshots: Arc::new(Snapshots::default()),
        status: Status::default(),
        met: Met::default(),
        counters: Counters::default(),
        work,
        recovery: report,
        doubts,
        lock: Mutex::new(lock),
        options,
    };
    core.share_memory();
    core
}

/// Makes the directory if it is wanted and missing, and locks it.
fn take_directory(fs: &Arc<dyn Fs>, dir: &Path, options: &Options) -> Result<Box<dyn Lock>> {
    if !options.create_if_missing && !holds_database(fs, dir)? {
        return Err(Error::NotADatabase { path: dir.display().to_string().into() });
    }
    make_directory(&**fs, dir)?;
    let lock = fs.lock(&dir.join(FileName::Lock.to_string()), LockKind::Exclusive);
    lock.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::locked(dir),
        _ => error.into(),
    })
}

/// Makes a directory, and those above it, where they are missing. On return they are durable.
pub(crate) fn make_directory(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for ancestor in dir.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        if fs.metadata(ancestor)?.is_some() {
            break;
        }
        missing.push(ancestor);
    }
    if !missing.is_empty() {
        fs.create_dir(dir)?;
    }
    missing.into_iter().try_for_each(|created| fs.sync_dir(parent(created)))
}

/// Whether there is a database, whole or not. Errors: as [`pebble_manifest::recover`], where it has lost its `CURRENT`.
pub(crate) fn holds_database(fs: &Arc<dyn Fs>, dir: &Path) -> Result<bool> {
    if fs.metadata(dir)?.is_none() {
        return Ok(false);
    }
    let has_current = fs.metadata(&dir.join(FileName::Current.to_string()))?.is_some();
    Ok(has_current || pebble_manifest::recover(fs, dir)?.is_some())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The manifest in force, and the bytes of its torn tail; a new one in a directory without a database.
fn open_manifest(fs: &Arc<dyn Fs>, dir: &Path, options: &Options) -> Result<(Manifest, u64)> {
    if let Some(found) = pebble_manifest::recover(fs, dir)? {
        return Ok((Manifest::read_back(found.log, found.state), found.dropped_bytes));
    }
    if !options.create_if_missing {
        return Err(Error::NotADatabase { path: dir.display().to_string().into() });
    }
    // Also where the directory was there already: an earlier open may have failed between making and syncing it.
    match fs.sync_dir(parent(dir)) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error.into()),
        _ => {}
    }
    let number = next_free(fs, dir, FIRST_FILE)?;
    let state = ManifestState { next_file: number.saturating_add(1), ..ManifestState::new(new_uuid()) };
    let log = ManifestLog::create(Arc::clone(fs), dir, number, &state)?;
    Ok((Manifest::begun(log, state), 0))
}

/// A number above every table and manifest that the directory holds or the manifest has given out, so that what a
/// crash left behind is never in the way.
fn next_file_number(fs: &Arc<dyn Fs>, dir: &Path, state: &ManifestState) -> Result<u64> {
    next_free(fs, dir, state.next_file)
}

fn next_free(fs: &Arc<dyn Fs>, dir: &Path, at_least: u64) -> Result<u64> {
    let numbers =
        fs.list(dir)?.into_iter().filter_map(|entry| match FileName::parse(entry.name.to_str()?)? {
            FileName::Manifest(number) | FileName::Table(number) => Some(number),
            _ => None,
        });
    let next = numbers.max().map_or(Some(at_least), |max| Some(max.checked_add(1)?.max(at_least)));
    next.ok_or_else(|| Error::invalid("file numbers are used up"))
}

/// Sixteen random bytes, from the keys that the standard library draws for its hash maps.
fn new_uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    for half in uuid.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    uuid
}
