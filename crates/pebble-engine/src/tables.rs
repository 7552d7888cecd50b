//! Opening tables, and writing them: where names, files and [`pebble_sstable`] meet.
//!
//! Threading: shared by all; the cache inside has its own locks.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pebble_compaction::{Apart, Fetch, Job, Outputs, run, table_meta};
use pebble_cursor::{Cursor, RangeDeletes};
use pebble_format::{Corruption, FileName, OwnedKey, Seqno};
use pebble_manifest::{TableMeta, Version};
use pebble_sstable::{BlockCache, Compression, FileSink, Table, TableInfo, TableOptions, TableReadOptions};
use pebble_vfs::{Fs, Open, Transfer};

use crate::error::{Error, Result};
use crate::options::{Options, ReadMode};
use crate::state::Tree;
use crate::transfers::Transfers;
use crate::values::first_missing;

/// From the first key's user key on, and before the second one's.
pub(crate) type KeyRange<'a> = (Option<&'a OwnedKey>, Option<&'a OwnedKey>);

/// Everything that is the same for all tables of one database.
pub(crate) struct Tables {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    uuid: [u8; 16],
    read_mode: ReadMode,
    template: TableOptions,
    /// From which length on values go into tables of their own, and how those are written.
    apart: (usize, TableOptions),
    cache: Arc<BlockCache>,
    /// Who writes and reads tables beside those who make and merge them.
    pub(crate) transfers: Arc<Transfers>,
    /// The next number for a table or a manifest.
    next_file: AtomicU64,
}

impl Tables {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        uuid: [u8; 16],
        options: &Options,
        next_file: u64,
    ) -> Self {
        Self {
            fs,
            dir,
            uuid,
            read_mode: options.read_mode,
            template: options.table_options(uuid),
            apart: (options.values_apart.unwrap_or(usize::MAX), options.value_table_options(uuid)),
            cache: Arc::new(BlockCache::new(usize::try_from(options.cache_len().0).unwrap_or(usize::MAX))),
            transfers: Arc::default(),
            next_file: AtomicU64::new(next_file),
        }
    }

    /// A file number that was never given out before.
    pub(crate) fn new_number(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// A number above every one that was given out.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_file.load(Ordering::Relaxed)
    }

    /// The path of a file of this database.
    pub(crate) fn path(&self, name: FileName) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// Bytes of blocks in the cache.
    pub(crate) fn cached(&self) -> u64 {
        self.cache.used() as u64
    }

    /// Lets the cache hold so many bytes of blocks.
    pub(crate) fn cache_up_to(&self, bytes: u64) {
        self.cache.resize(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Removes tables that no edit in force names. One that cannot be removed is an orphan for the next open.
    pub(crate) fn remove(&self, numbers: &[u64]) {
        for number in numbers {
            if let Err(error) = self.fs.remove(&self.path(FileName::Table(*number))) {
                tracing::warn!(%error, "a table that nothing refers to stays until the next open");
            }
        }
    }

    /// Opens the table that `meta` describes, and checks that it is that table.
    pub(crate) fn open(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        let name = FileName::Table(meta.number).to_string();
        let file = self.fs.open(&self.dir.join(&name), Open::Read).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::MissingFile { file: name.as_str().into() },
            _ => error.into(),
        })?;
        let len = file.len()?;
        if len != meta.len {
            // Before anything is read by a length that the file alone vouches for.
            return Err(Corruption::new("table length", 0, meta.len, len).in_file(&name).into());
        }
        let options = TableReadOptions { cache: Some(Arc::clone(&self.cache)) };
        let table = match self.read_mode {
            ReadMode::Map => Table::open_map(file.map()?, &name, options)?,
            ReadMode::Pread => Table::open_file(file, &name, options)?,
        };
        table.check_identity(&self.uuid, meta.number, meta.len, meta.footer_crc)?;
        Ok(table)
    }

    /// Writes the records of `input` within a range of keys as one run of new tables, without the versions that neither
    /// `snapshots` nor a reader of the present can see: the one data mover, for flush, merge and recovery.
    pub(crate) fn write_run(
        &self,
        input: &mut impl Cursor,
        outputs: &mut NewTables<'_>,
        rules: &RunRules<'_>,
        range: KeyRange<'_>,
    ) -> Result<Written> {
        let job = Job {
            snapshots: rules.snapshots,
            range_deletes: rules.range_deletes,
            bottom: rules.bottom,
            range,
            table: TableOptions { compression: rules.compression, ..self.template.clone() },
            apart: Some(Apart { from_len: self.apart.0, table: self.apart.1.clone(), fetch: rules.fetch }),
            cut_at: rules.cut_at,
            cut_len_min: rules.cut_len_min,
            stop: rules.stop,
        };
        let done = run(input, &mut Told { outputs, wrote: rules.wrote }, &job)?;
        Ok(Written { tables: done.tables, values: done.values })
    }

    /// The tree of `version`: tables that `old` has open are taken over, the others opened.
    pub(crate) fn open_tree(&self, version: Arc<Version>, old: Option<&Tree>) -> Result<Tree> {
        let open: HashMap<u64, &Arc<Table>> =
            old.into_iter().flat_map(Tree::tables).map(|table| (table.number(), table)).collect();
        let of = |meta: &Arc<TableMeta>, holds_values: bool| -> Result<Arc<Table>> {
            if let Some(table) = open.get(&meta.number) {
                return Ok(Arc::clone(table));
            }
            let table = self.open(meta)?;
            let wrong = |what, expected, got| -> Result<Arc<Table>> {
                Err(Corruption::new(what, 0, expected, got).in_file(table.name()).into())
            };
            if table.info().holds_values != holds_values {
                return wrong("kind of a table", holds_values.into(), table.info().holds_values.into());
            }
            match first_missing(&version, &table) {
                Some(missing) => wrong("table of values that is referred to", missing, 0),
                None => Ok(table),
            }
        };
        let values = version.values().map(|meta| of(meta, true)).collect::<Result<_>>()?;
        let runs = version.runs().map(|run| run.tables().iter().map(|meta| of(meta, false)).collect());
        let runs = runs.collect::<Result<_>>()?;
        Ok(Tree::new(version, runs, values))
    }
}

/// What a run wrote.
#[derive(Default)]
pub(crate) struct Written {
    /// A sorted run.
    pub(crate) tables: Vec<TableInfo>,
    /// The tables of values that it refers to and that were not there before.
    pub(crate) values: Vec<TableInfo>,
}

impl Written {
    /// Bytes of all files.
    pub(crate) fn len(&self) -> u64 {
        self.tables.iter().chain(&self.values).map(|table| table.len).sum()
    }

    pub(crate) fn join(&mut self, mut other: Self) {
        self.tables.append(&mut other.tables);
        self.values.append(&mut other.values);
    }

    /// For the manifest: the run's tables, and those of values.
    pub(crate) fn into_metas(self) -> (Vec<TableMeta>, Vec<TableMeta>) {
        let [tables, values] = [self.tables, self.values].map(|of| of.into_iter().map(table_meta).collect());
        (tables, values)
    }
}

/// What may be dropped from a new run, and how it is written.
pub(crate) struct RunRules<'a> {
    /// The live snapshots, ascending.
    pub(crate) snapshots: &'a [Seqno],
    /// The range deletes of the input.
    pub(crate) range_deletes: &'a RangeDeletes,
    /// Whether no older run may hold the same keys, so that tombstones have nothing left to hide.
    pub(crate) bottom: bool,
    pub(crate) compression: Compression,
    /// See [`Apart::fetch`].
    pub(crate) fetch: Option<Fetch<'a>>,
    /// Keys at which a table may begin, so that later merges find aligned borders.
    pub(crate) cut_at: &'a [OwnedKey],
    /// Bytes of data that a table has at least before one of them ends it.
    pub(crate) cut_len_min: u64,
    /// Asked now and then whether to give up.
    pub(crate) stop: &'a (dyn Fn() -> bool + Sync),
    /// Told the bytes of each table that was written, but for those of values.
    pub(crate) wrote: &'a (dyn Fn(u64) + Sync),
    /// See [`NewTables::new`].
    pub(crate) cached: bool,
}

/// Table files as a flush or a merge writes them: all are synced when their run has ended, and all are removed again
/// unless [`NewTables::keep`] is called.
pub(crate) struct NewTables<'a> {
    tables: &'a Tables,
    created: Vec<u64>,
    sync_failed: bool,
    kept: bool,
    /// Whether they are going to be read soon.
    cached: bool,
    /// Files that are being synced while the next ones are written.
    syncing: VecDeque<Transfer<()>>,
}

/// So many files are synced at a time at most: a run may be of more tables than the process may have files open.
const SYNCING_MAX: usize = 4;

impl<'a> NewTables<'a> {
    /// `cached`: whether somebody is going to read them soon, so that they are to be in memory (`heat.rs`).
    pub(crate) fn new(tables: &'a Tables, cached: bool) -> Self {
        Self {
            tables,
            created: Vec::new(),
            sync_failed: false,
            kept: false,
            cached,
            syncing: VecDeque::new(),
        }
    }

    /// Whether a table could not be synced: what its pages hold is unknown then, and syncing it again would prove
    /// nothing.
    pub(crate) fn sync_failed(&self) -> bool {
        self.sync_failed
    }

    /// Waits for the syncs that were begun, but for the last few.
    fn settle_but(&mut self, last: usize) -> pebble_format::Result<()> {
        while self.syncing.len() > last {
            let synced = self.syncing.pop_front().map(Transfer::wait).transpose();
            synced.inspect_err(|_| self.sync_failed = true)?;
        }
        Ok(())
    }

    /// Takes over what another one made.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.created.append(&mut other.created);
        self.sync_failed |= other.sync_failed;
        other.kept = true;
    }

    /// Lets the files be, and gives their numbers: from here on a failure, or a panic, must not remove them unless
    /// it is known that no edit names them.
    pub(crate) fn keep(mut self) -> Vec<u64> {
        self.kept = true;
        std::mem::take(&mut self.created)
    }
}

impl Outputs for NewTables<'_> {
    type Writer = FileSink;

    fn create(&mut self) -> pebble_format::Result<(u64, FileSink)> {
        let number = self.tables.new_number();
        let file = self.tables.fs.open(&self.tables.path(FileName::Table(number)), Open::CreateNew)?;
        self.created.push(number);
        let sink = match self.cached {
            true => FileSink::new(file),
            false => FileSink::past_cache(file, Arc::clone(&self.tables.transfers) as _),
        };
        Ok((number, sink))
    }

    fn finish(&mut self, writer: FileSink, _info: &TableInfo) -> pebble_format::Result<()> {
        let file = writer.into_file();
        self.syncing.push_back(Transfer::begin(&*self.tables.transfers, move || file.sync_data()));
        self.settle_but(SYNCING_MAX)
    }

    fn settle(&mut self) -> pebble_format::Result<()> {
        self.settle_but(0)
    }
}

/// Outputs whose tables are told of when they are written.
struct Told<'a, 'o> {
    outputs: &'a mut NewTables<'o>,
    wrote: &'a (dyn Fn(u64) + Sync),
}

impl Outputs for Told<'_, '_> {
    type Writer = FileSink;

    fn create(&mut self) -> pebble_format::Result<(u64, FileSink)> {
        self.outputs.create()
    }

    fn finish(&mut self, writer: FileSink, info: &TableInfo) -> pebble_format::Result<()> {
        self.outputs.finish(writer, info)?;
        if !info.holds_values {
            (self.wrote)(info.len);
        }
        Ok(())
    }

    fn settle(&mut self) -> pebble_format::Result<()> {
        self.outputs.settle()
    }
}

impl Drop for NewTables<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // One that is under way needs its file no more, but must not outlive this.
        self.syncing.clear();
        self.tables.remove(&self.created);
    }
}
