//! Looking at a directory, damaged or not: what every byte of every file is worth. The first half of salvage and
//! repair, and all of an offline verification. Nothing is written.
//!
//! ```text
//!   manifest ─► believed, if it is the newest state and its files agree ─► its tree, its log from `log_first` on
//!            └► else its names of keyspaces; tree and log are what lies in the directory
//!   tables   ─► metadata put right where a byte is wrong; every block by its checksum
//!   log      ─► as a recovery would read it; if that refuses it, every whole frame (salvaged.rs)
//! ```
//!
//! What no checksum vouches for does not count. Without a manifest that can be believed, a table that a crash left
//! behind cannot be told from one that matters, and a segment that was retired not from one in use: of the log only
//! what is newer than every table counts then.
//!
//! Threading: one thread; plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pebble_compaction::table_meta;
use pebble_cursor::Cursor;
use pebble_format::log::LogPosition;
use pebble_format::{FileName, InternalKey, KeyspaceId, Seqno};
use pebble_manifest::{ManifestDamage, ManifestState, Salvaged, TableMeta, Version};
use pebble_sstable::{Remains, Table, TableReadOptions, VerifyReport};
use pebble_vfs::{Fs, Open};

use crate::damage::{Damage, of_blocks, what};
use crate::error::{Error, Result};
use crate::salvaged::{self, LogRemains};
use crate::values::first_missing;

/// How far a walk over the files is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes read and checked so far.
    pub done_bytes: u64,
    /// Bytes of all files that are to be checked, as known when it began.
    pub total_bytes: u64,
}

/// Who is told how far it is, and may end it.
pub(crate) struct Watch<'w> {
    pub(crate) progress: VerifyProgress,
    pub(crate) tell: &'w mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
    pub(crate) ended: bool,
}

impl Watch<'_> {
    /// So many bytes more were checked.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.progress.done_bytes += bytes;
        self.ended = self.ended || (self.tell)(self.progress).is_break();
    }

    fn check(&self) -> Result<()> {
        if self.ended {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "ended by the caller").into());
        }
        Ok(())
    }
}

/// A table that has something to give.
pub(crate) struct Found {
    pub(crate) meta: TableMeta,
    pub(crate) remains: Arc<Remains>,
    /// Whether the file can be used as it is.
    pub(crate) is_whole: bool,
    pub(crate) report: Option<VerifyReport>,
}

/// See the [module](self).
pub(crate) struct Survey {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    pub(crate) uuid: [u8; 16],
    /// What the manifest says, if that can be believed.
    pub(crate) state: Option<ManifestState>,
    /// What the manifest says, if it says anything.
    pub(crate) manifest: Option<Salvaged>,
    pub(crate) tables: BTreeMap<u64, Found>,
    /// Tables of values, to which records of those refer. One that is lost is in neither list: what refers to it tells
    /// which keys it had.
    pub(crate) values: BTreeMap<u64, Found>,
    /// Tables of the tree that are not there, or of which nothing can be read.
    pub(crate) lost_tables: BTreeMap<u64, TableMeta>,
    /// Files with the name of a table that do not matter, and why.
    pub(crate) passed_over: BTreeMap<u64, &'static str>,
    pub(crate) log: LogRemains,
    pub(crate) damage: Vec<Damage>,
    /// Names and lengths of all files in the directory.
    pub(crate) files: BTreeMap<String, u64>,
    pub(crate) next_file: u64,
}

/// Looks at the directory. `fs` is best an overlay, which lets nothing be written.
///
/// Errors: `NotADatabase` where no file is one of a database; `UnsupportedVersion`, `UnsupportedCodec`; `Io` where not
/// even the names can be read, or of kind `Interrupted` when it was ended.
pub(crate) fn survey(fs: Arc<dyn Fs>, dir: &Path, watch: &mut Watch<'_>) -> Result<Survey> {
    let entries = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_a_database(dir)),
        entries => entries?,
    };
    let listed = entries.into_iter().filter(|entry| entry.is_file);
    let files: BTreeMap<String, u64> =
        listed.filter_map(|entry| Some((entry.name.into_string().ok()?, entry.len))).collect();
    let ours = |name: &String| FileName::parse(name).filter(|name| *name != FileName::Lock);
    if !files.keys().any(|name| ours(name).is_some()) {
        return Err(not_a_database(dir));
    }
    let total = files.iter().filter(|(name, _)| ours(name).is_some()).map(|(_, len)| *len);
    watch.progress.total_bytes = total.sum();
    let mut of_manifest: Vec<ManifestDamage> = Vec::new();
    let manifest = pebble_manifest::salvage(&fs, dir, &mut of_manifest)?;
    let numbers: BTreeSet<u64> = files
        .keys()
        .filter_map(|name| match FileName::parse(name)? {
            FileName::Table(number) => Some(number),
            _ => None,
        })
        .collect();
    let state =
        manifest.as_ref().filter(|found| is_believed(found, &numbers, &files)).map(|found| &found.state);
    let uuid = match &manifest {
        Some(found) => found.state.uuid,
        None => common_uuid(&*fs, dir, &files)?,
    };
    let mut survey = Survey {
        uuid,
        state: state.cloned(),
        tables: BTreeMap::new(),
        values: BTreeMap::new(),
        lost_tables: BTreeMap::new(),
        passed_over: BTreeMap::new(),
        log: LogRemains::default(),
        damage: of_manifest.iter().map(Damage::of_manifest).collect(),
        next_file: next_file(&files, manifest.as_ref()),
        manifest,
        files,
        fs,
        dir: dir.into(),
    };
    if !survey.files.contains_key("CURRENT") && survey.manifest.is_some() {
        survey.damage.push(Damage::new("CURRENT", 0, 0, "missing"));
    } else if survey.manifest.is_none() && of_manifest.is_empty() {
        survey.damage.push(Damage::new("CURRENT", 0, 0, "no manifest is left"));
    }
    survey.look_at_tables(&numbers, watch)?;
    survey.look_at_references();
    survey.look_at_log()?;
    Ok(survey)
}

fn not_a_database(dir: &Path) -> Error {
    Error::NotADatabase { path: dir.display().to_string().into() }
}

/// Whether the tree that a manifest describes is the one that the files make. Where its last bytes are no edit, they
/// may have been one that changed the tree: then every table must be there, and so must the segment that the log was
/// durable up to, if the tree needs it. A flush takes no table away, but it lets segments go.
fn is_believed(found: &Salvaged, present: &BTreeSet<u64>, files: &BTreeMap<String, u64>) -> bool {
    let (version, floor) = (&found.state.version, found.state.log_floor);
    let has_tables = || version.tables().chain(version.values()).all(|meta| present.contains(&meta.number));
    let has_log = || {
        let segment = FileName::Log(floor.segment().into()).to_string();
        floor.segment() < found.state.log_first || files.contains_key(&segment)
    };
    found.is_newest && (found.end == found.len || has_tables() && has_log())
}

fn next_file(files: &BTreeMap<String, u64>, manifest: Option<&Salvaged>) -> u64 {
    let numbers = files.keys().filter_map(|name| match FileName::parse(name)? {
        FileName::Table(number) | FileName::Manifest(number) => Some(number),
        _ => None,
    });
    let known = manifest.map_or(1, |found| found.state.next_file);
    numbers.max().map_or(known, |max| known.max(max.saturating_add(1)))
}

/// The database that most tables and segments say they belong to.
fn common_uuid(fs: &dyn Fs, dir: &Path, files: &BTreeMap<String, u64>) -> Result<[u8; 16]> {
    let mut votes: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    for name in files.keys() {
        let file = || fs.open(&dir.join(name), Open::Read);
        let uuid = match FileName::parse(name) {
            Some(FileName::Table(_)) => {
                let opened = Table::open_mended(file()?, name, TableReadOptions::default());
                opened.ok().map(|(table, _)| table.info().uuid)
            }
            Some(FileName::Log(_)) => {
                let mut uuid = [0; 16];
                let read = file()?.read_exact_at(&mut uuid, salvaged::UUID_AT);
                read.ok().map(|()| uuid).filter(|uuid| *uuid != [0; 16])
            }
            _ => None,
        };
        if let Some(uuid) = uuid {
            *votes.entry(uuid).or_default() += 1;
        }
    }
    Ok(votes.into_iter().max_by_key(|(_, count)| *count).map_or([0; 16], |(uuid, _)| uuid))
}

impl Survey {
    fn look_at_tables(&mut self, present: &BTreeSet<u64>, watch: &mut Watch<'_>) -> Result<()> {
        let of_version = |version: &Version| -> BTreeMap<u64, TableMeta> {
            let all = version.tables().chain(version.values());
            all.map(|meta| (meta.number, TableMeta::clone(meta))).collect()
        };
        let metas = self.state.as_ref().map(|state| of_version(&state.version));
        let Some(metas) = metas else {
            for number in present {
                watch.check()?;
                self.look_at_table(*number, None, watch)?;
            }
            return Ok(());
        };
        for number in present.iter().filter(|number| !metas.contains_key(number)) {
            self.passed_over.insert(*number, "no part of the tree: left by a crash");
        }
        for (number, meta) in metas {
            watch.check()?;
            if present.contains(&number) {
                self.look_at_table(number, Some(meta), watch)?;
            } else {
                let name = FileName::Table(number).to_string();
                self.damage.push(Damage::new(&name, 0, 0, "missing"));
                self.lose(number, Some(meta));
            }
        }
        Ok(())
    }

    fn look_at_table(
        &mut self,
        number: u64,
        expected: Option<TableMeta>,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let name = FileName::Table(number).to_string();
        let len = self.files.get(&name).copied().unwrap_or_default();
        let file = self.fs.open(&self.dir.join(&name), Open::Read)?;
        let opened = Table::open_mended(file, &name, TableReadOptions::default());
        let lost =
            |survey: &mut Self, from: u64, error: &pebble_format::Error, expected: Option<TableMeta>| {
                survey.damage.push(Damage::new(&name, from, len, what(error)));
                survey.lose(number, expected);
                survey.passed_over.insert(number, "unreadable");
            };
        let (table, mended) = match opened {
            Ok(opened) => opened,
            Err(error @ (pebble_format::Error::Corruption(_) | pebble_format::Error::Io(_))) => {
                lost(self, 0, &error, expected);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let info = table.info();
        let footer_crc = match (&expected, &mended) {
            // Metadata that was put together anew has another checksum, and more of it to vouch for it.
            (Some(meta), None) => meta.footer_crc,
            _ => info.footer_crc,
        };
        let expected_len = if mended.is_some() { info.len } else { len };
        if let Err(error) = table.check_identity(&self.uuid, number, expected_len, footer_crc) {
            lost(self, 0, &error, expected);
            return Ok(());
        }
        let mut damage = Vec::new();
        if let Some(error) = &mended {
            let (from, reason) = (info.data_len, format!("{}; put right while reading", what(error)));
            damage.push(Damage::new(&name, from, len, reason));
        }
        let remains = Arc::new(table.remains(&mut |bytes| watch.add(bytes)));
        watch.add(len.saturating_sub(info.data_len));
        damage.extend(of_blocks(&remains));
        let report = if damage.is_empty() {
            match table.verify() {
                Ok(report) => Some(report),
                Err(error) => {
                    damage.push(Damage::new(&name, info.data_len, len, what(&error)));
                    None
                }
            }
        } else {
            None
        };
        let holds_values = info.holds_values;
        let meta = expected.unwrap_or_else(|| table_meta(info.clone()));
        if remains.good_blocks() == 0 {
            if !holds_values {
                self.lose(number, Some(meta));
            }
            self.passed_over.insert(number, "unreadable");
        } else {
            let of = if holds_values { &mut self.values } else { &mut self.tables };
            of.insert(number, Found { meta, remains, is_whole: damage.is_empty(), report });
        }
        self.damage.extend(damage);
        Ok(())
    }

    /// A table of the tree is lost. Of one of values nothing is to be kept in mind.
    fn lose(&mut self, number: u64, meta: Option<TableMeta>) {
        let of_values = self.state.as_ref().is_some_and(|state| state.version.value(number).is_some());
        if let Some(meta) = meta.filter(|_| !of_values) {
            self.lost_tables.insert(number, meta);
        }
    }

    /// Whether a repair takes a table over as it is: it is whole, and so is what it refers to, or something refers to
    /// it.
    pub(crate) fn is_taken_over(&self, found: &Found) -> bool {
        let info = found.remains.table().info();
        let whole = |number: u64| self.values.get(&number).is_some_and(|found| found.is_whole);
        let refers =
            |other: &Found| other.remains.table().info().referred.iter().any(|to| to.table == info.number);
        found.is_whole
            && match info.holds_values {
                true => self.tables.values().any(refers),
                false => info.referred.iter().all(|to| whole(to.table)),
            }
    }

    /// How many tables are.
    pub(crate) fn taken_over(&self) -> u64 {
        self.tables.values().chain(self.values.values()).filter(|found| self.is_taken_over(found)).count()
            as u64
    }

    /// Tables that refer to a table of values which the manifest does not have, where it is believed.
    fn look_at_references(&mut self) {
        let Some(state) = &self.state else { return };
        for found in self.tables.values() {
            let table = found.remains.table();
            if first_missing(&state.version, table).is_some() {
                let (at, len) = (table.info().data_len, table.len());
                self.damage.push(Damage::new(table.name(), at, len, "table of values that is referred to"));
            }
        }
    }

    fn look_at_log(&mut self) -> Result<()> {
        let (first, floor, flushed) = match &self.state {
            Some(state) => (state.log_first, state.log_floor, state.flushed_seqno),
            None => {
                let metas = self.tables.values().map(|found| &found.meta).chain(self.lost_tables.values());
                let newest = metas.map(|meta| meta.seqno_max).max().unwrap_or(Seqno::ZERO);
                (0, LogPosition::ZERO, newest)
            }
        };
        let place = (&self.fs, self.dir.as_path());
        self.log = salvaged::read(place, self.uuid, first, floor, flushed, self.state.is_some())?;
        self.damage.append(&mut self.log.damage);
        Ok(())
    }

    /// The names of the keyspaces of which there are records, or a name. One whose name is lost gets one with its
    /// number.
    pub(crate) fn keyspaces(&self) -> Result<BTreeMap<KeyspaceId, Box<str>>> {
        let known = self.manifest.as_ref().map(|found| &found.state.keyspaces);
        let mut names = known.cloned().unwrap_or_default();
        let mut used: BTreeSet<KeyspaceId> = BTreeSet::new();
        for found in self.tables.values() {
            let mut cursor = found.remains.cursor();
            cursor.first()?;
            while let Some(keyspace) = cursor.record().map(|record| record.keyspace()) {
                used.insert(keyspace);
                let Some(next) = keyspace.0.checked_add(1) else { break };
                cursor.seek(InternalKey::lookup(KeyspaceId(next), b"", Seqno::MAX))?;
            }
        }
        let of_log = [&self.log.records, &self.log.stand_ins].into_iter().flat_map(|part| part.records());
        used.extend(of_log.map(|record| record.record().keyspace()));
        used.remove(&KeyspaceId::DEFAULT);
        for keyspace in used {
            if !names.contains_key(&keyspace) {
                let mut name = format!("recovered-{}", keyspace.0);
                while names.values().any(|taken| **taken == *name) {
                    name.push('\'');
                }
                names.insert(keyspace, name.into());
            }
        }
        Ok(names)
    }
}
