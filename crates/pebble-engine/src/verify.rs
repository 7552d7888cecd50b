//! Verification: every byte of tables, log and manifest, in an open database or in a directory, and all that is wrong.
//!
//! Threading: beside everything else. In an open database it holds flushes up while it reads the log, and installs
//! while it reads the manifest.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pebble_format::FileName;
use pebble_sstable::{Table, VerifyReport};
use pebble_vfs::{Fs, OverlayFs};

use crate::core::Core;
use crate::damage::{Damage, check_table, what};
use crate::error::{Error, Result};
use crate::options::Components;
use crate::read_only::share;
use crate::survey::{Found, VerifyProgress, Watch, survey};
use crate::sync::lock;

/// What a verification has read, and what is wrong with it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Figures of every table that is right, by its number.
    pub tables: Vec<(u64, VerifyReport)>,
    /// The same of the tables that hold long values, of which others have the keys.
    pub value_tables: Vec<(u64, VerifyReport)>,
    /// Everything that is damaged or missing.
    pub damage: Vec<Damage>,
    /// Bytes of tables, log and manifest that were read.
    pub bytes: u64,
    /// Records that the log holds and no table does; 0 where an open database was verified.
    pub log_records: u64,
    /// Whether it went to its end: false when it was ended by the caller.
    pub is_complete: bool,
}

/// Verifies the database in a directory that nobody has open for writing. Opens nothing, writes nothing, and needs of
/// the database no more than its directory. Memory: the log, and the metadata of the tables.
///
/// Errors: `Locked`, `NotADatabase`, `UnsupportedVersion`, `UnsupportedCodec`, `Io`. Damage is none.
pub fn inspect(
    dir: &Path,
    components: &Components,
    watch: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
) -> Result<Verification> {
    let _lock = share(&*components.fs, dir)?;
    let over: Arc<dyn Fs> = Arc::new(OverlayFs::new(Arc::clone(&components.fs), dir)?);
    let mut watch = Watch { progress: VerifyProgress::default(), tell: watch, ended: false };
    let survey = match survey(over, dir, &mut watch) {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {
            return Ok(Verification { bytes: watch.progress.done_bytes, ..Verification::default() });
        }
        survey => survey?,
    };
    let reports = |of: &BTreeMap<u64, Found>| {
        of.iter().filter_map(|(number, found)| Some((*number, found.report?))).collect()
    };
    Ok(Verification {
        tables: reports(&survey.tables),
        value_tables: reports(&survey.values),
        damage: survey.damage,
        bytes: watch.progress.total_bytes,
        log_records: survey.log.count,
        is_complete: !watch.ended,
    })
}

impl Core {
    /// Reads every byte of every table and checks it; gives the figures of those that lie in a level. Cost: a scan of
    /// the whole database, without its cache.
    pub(crate) fn verify_tables(&self) -> Result<Vec<VerifyReport>> {
        self.status.check_open()?;
        let tree = Arc::clone(&self.state.load().tree);
        let verify =
            |table: &Arc<Table>| table.verify().and_then(|report| tree.values.verify(table).map(|()| report));
        let reports = tree.tables().map(verify).collect::<pebble_format::Result<Vec<_>>>();
        let mut reports = reports.map_err(|error| self.met(error))?;
        reports.truncate(reports.len() - tree.values.tables().len());
        Ok(reports)
    }

    /// See [`Engine::verify_with`](crate::Engine::verify_with).
    pub(crate) fn verify_with(
        &self,
        watch: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
    ) -> Result<Verification> {
        self.status.check_open()?;
        let tree = Arc::clone(&self.state.load().tree);
        let mut found = Verification::default();
        let of_tables: u64 = tree.tables().map(|table| table.len()).sum();
        let of_log = lock(&self.commit).log.disk_bytes();
        let progress = VerifyProgress { done_bytes: 0, total_bytes: of_tables + of_log };
        let mut watch = Watch { progress, tell: watch, ended: false };
        self.verify_manifest(&mut found)?;
        found.bytes += self.verify_log(&mut found)?;
        watch.add(found.bytes);
        for table in tree.tables() {
            if watch.ended {
                return Ok(found);
            }
            match check_table(table) {
                Ok(report) => {
                    let of = match table.info().holds_values {
                        true => &mut found.value_tables,
                        false => &mut found.tables,
                    };
                    of.push((table.number(), report));
                    let references = tree.values.verify(table);
                    found.damage.extend(references.err().map(|error| Damage::of_error(&error.into())));
                }
                Err(damage) => found.damage.extend(damage),
            }
            found.bytes += table.len();
            watch.add(table.len());
        }
        found.is_complete = true;
        Ok(found)
    }

    fn verify_manifest(&self, found: &mut Verification) -> Result<()> {
        let manifest = lock(&self.manifest);
        let mut damage = Vec::new();
        let read = pebble_manifest::salvage(&self.fs, &self.dir, &mut damage)?;
        found.damage.extend(damage.iter().map(Damage::of_manifest));
        let (number, state) = (manifest.number(), manifest.state());
        let same = read.is_some_and(|read| read.number == number && read.state == *state);
        if !same && damage.is_empty() && self.status.stopped().is_none() {
            let name = FileName::Manifest(number).to_string();
            found.damage.push(Damage::new(&name, 0, 0, "the state that is in force"));
        }
        Ok(())
    }

    /// Bytes of the log that were read.
    fn verify_log(&self, found: &mut Verification) -> Result<u64> {
        // No segment is given another life meanwhile.
        let _no_flush = lock(&self.flushing);
        let end = lock(&self.commit).log.end();
        let (first, uuid) = {
            let manifest = lock(&self.manifest);
            (manifest.state().log_first, manifest.state().uuid)
        };
        let mut bytes = 0;
        for segment in pebble_wal::salvage(&*self.fs, &self.dir, &uuid, first, end)? {
            if segment.number > end.segment() {
                continue;
            }
            let name = segment.file();
            if let Some(error) = &segment.header {
                found.damage.push(Damage::new(&name, 0, 64, what(error)));
            }
            bytes += segment.end as u64;
            // Behind the end frames are being written.
            let is_last = segment.number == end.segment();
            for lost in segment.lost {
                if !is_last || lost.start < end.offset() as usize {
                    found.damage.push(Damage::new(
                        &name,
                        lost.start as u64,
                        lost.end as u64,
                        what(&lost.error),
                    ));
                }
            }
        }
        Ok(bytes)
    }
}
