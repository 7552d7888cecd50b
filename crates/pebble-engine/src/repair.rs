//! Repair: a new directory with a whole database, made of what is left of a damaged one, which is not touched.
//!
//! Every byte range of every file of the old directory is accounted for, as kept, dropped or unreadable.
//!
//! Threading: one thread.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pebble_format::FileName;
use pebble_vfs::{Fs, OverlayFs};

use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::open::make_directory;
use crate::options::{Components, Options};
use crate::read_only::share;
use crate::rebuild::{Target, rebuild};
use crate::salvaged::Part;
use crate::survey::{Survey, VerifyProgress, Watch, survey};

/// What a repair is to do.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RepairOptions {
    /// Only look, and say what would become of each byte.
    pub dry_run: bool,
    /// Of a key whose newest version may have been lost, keep the newest one that is left, which may be stale, instead
    /// of none.
    pub older_versions: bool,
}

impl RepairOptions {
    /// Whether only to look.
    #[must_use]
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Whether to keep versions that may be stale.
    #[must_use]
    pub fn older_versions(self, older_versions: bool) -> Self {
        Self { older_versions, ..self }
    }
}

/// What becomes of a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fate {
    /// What it says is in the new database.
    Kept,
    /// It is whole, or holds nothing, and the new database does without: it is old, or made anew.
    Dropped,
    /// It is damaged.
    Unreadable,
}

/// A part of a file, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// Name of the file.
    pub file: Box<str>,
    /// Offset of the first byte.
    pub from: u64,
    /// Offset behind the last one.
    pub to: u64,
    /// What becomes of it.
    pub fate: Fate,
    /// Why.
    pub why: Box<str>,
}

/// What a repair found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// All files of the directory, by name, each from its first byte to its last without a gap.
    pub extents: Vec<Extent>,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// The keyspaces of the new database. One whose name was lost is called `recovered-` and its number.
    pub keyspaces: Vec<String>,
    /// Tables taken over as they are.
    pub tables_kept: u64,
    /// Tables written anew; 0 in a dry run.
    pub tables_written: u64,
    /// Records taken from the log.
    pub log_records: u64,
    /// Whether the manifest could be believed. If not, the order of tables was found by sequence numbers.
    pub manifest_believed: bool,
}

/// Makes a whole database in `to` of what is left of the one in `from`. `to` must be empty, or not be there; `from`
/// is only read, under its lock, and stays as it is. `watch` is told how far the reading is, and may end it.
///
/// Errors: `Locked` when `from` is open for writing; `NotADatabase`; `InvalidArgument` when `to` holds anything;
/// `UnsupportedVersion`; `Io`, of kind `Interrupted` when it was ended. What was written to `to` by then is no
/// database.
pub fn repair(
    from: &Path,
    to: &Path,
    options: RepairOptions,
    components: &Components,
    watch: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
) -> Result<RepairReport> {
    let fs = &components.fs;
    let _lock = share(&**fs, from)?;
    if !options.dry_run {
        refuse_full(fs, to)?;
    }
    let over: Arc<dyn Fs> = Arc::new(OverlayFs::new(Arc::clone(fs), from)?);
    let mut watch = Watch { progress: VerifyProgress::default(), tell: watch, ended: false };
    let survey = survey(over, from, &mut watch)?;
    let mut report = RepairReport {
        extents: account(&survey),
        damage: survey.damage.clone(),
        keyspaces: survey.keyspaces()?.into_values().map(String::from).collect(),
        tables_kept: survey.taken_over(),
        log_records: survey.log.count,
        manifest_believed: survey.state.is_some(),
        ..RepairReport::default()
    };
    if !options.dry_run {
        make_directory(&**fs, to)?;
        let target = Target { fs: Arc::clone(fs), dir: to, in_place: false };
        let built = rebuild(&survey, &target, &Options::default(), options.older_versions)?;
        (report.tables_kept, report.tables_written) = (built.kept.len() as u64, built.written);
    }
    Ok(report)
}

fn refuse_full(fs: &Arc<dyn Fs>, to: &Path) -> Result<()> {
    if fs.metadata(to)?.is_some() && !fs.list(to)?.is_empty() {
        return Err(Error::invalid(format!("{} is not empty", to.display())));
    }
    Ok(())
}

/// What becomes of every byte.
fn account(survey: &Survey) -> Vec<Extent> {
    let mut all = Vec::new();
    for (name, len) in &survey.files {
        let mut file = Account { name, at: 0, len: *len, parts: Vec::new() };
        match FileName::parse(name) {
            None => file.rest(Fate::Dropped, "not of the database: left where it is"),
            Some(FileName::Lock) => file.rest(Fate::Dropped, "holds nothing"),
            Some(FileName::CurrentTemp) => file.rest(Fate::Dropped, "left by a crash"),
            Some(FileName::Current | FileName::Manifest(_)) => manifest(survey, &mut file),
            Some(FileName::Table(number)) => table(survey, number, &mut file),
            Some(FileName::Log(_)) => log(survey, &mut file),
        }
        all.append(&mut file.parts);
    }
    all
}

struct Account<'a> {
    name: &'a str,
    at: u64,
    len: u64,
    parts: Vec<Extent>,
}

impl Account<'_> {
    /// Everything from where the last part ended up to `to`.
    fn up_to(&mut self, to: u64, fate: Fate, why: &str) {
        let to = to.min(self.len);
        if to <= self.at {
            return;
        }
        match self.parts.last_mut().filter(|last| last.fate == fate && *last.why == *why) {
            Some(last) => last.to = to,
            None => {
                self.parts.push(Extent { file: self.name.into(), from: self.at, to, fate, why: why.into() })
            }
        }
        self.at = to;
    }

    fn rest(&mut self, fate: Fate, why: &str) {
        self.up_to(self.len, fate, why);
    }
}

fn manifest(survey: &Survey, file: &mut Account<'_>) {
    let number = match FileName::parse(file.name) {
        Some(FileName::Manifest(number)) => Some(number),
        _ => None,
    };
    let in_force = survey.manifest.as_ref().map(|found| found.number);
    let counts = number.is_none_or(|number| in_force == Some(number));
    let mut damage: Vec<_> = survey.damage.iter().filter(|damage| *damage.file == *file.name).collect();
    damage.sort_by_key(|damage| damage.from);
    for damage in damage {
        if counts {
            file.up_to(damage.from, Fate::Kept, "believed");
        } else {
            file.up_to(damage.from, Fate::Dropped, "not in force");
        }
        file.up_to(damage.to, Fate::Unreadable, &damage.reason);
    }
    match in_force {
        Some(_) if counts => file.rest(Fate::Kept, "believed"),
        Some(_) => file.rest(Fate::Dropped, "not in force"),
        None => file.rest(Fate::Unreadable, "says nothing that can be used"),
    }
}

fn table(survey: &Survey, number: u64, file: &mut Account<'_>) {
    let Some(found) = survey.tables.get(&number).or_else(|| survey.values.get(&number)) else {
        return match survey.passed_over.get(&number) {
            Some(&"unreadable") | None => file.rest(Fate::Unreadable, "nothing of it can be read"),
            Some(why) => file.rest(Fate::Dropped, why),
        };
    };
    if survey.is_taken_over(found) {
        return file.rest(Fate::Kept, "taken over as it is");
    }
    if found.is_whole && found.remains.table().info().holds_values {
        return file.rest(Fate::Dropped, "no record refers to it");
    }
    for lost in found.remains.lost() {
        file.up_to(lost.offset, Fate::Kept, "records written anew");
        file.up_to(lost.offset.saturating_add(lost.len), Fate::Unreadable, &crate::damage::what(&lost.error));
    }
    file.up_to(found.remains.table().info().data_len, Fate::Kept, "records written anew");
    let of_meta = survey
        .damage
        .iter()
        .find(|damage| *damage.file == *file.name && damage.from == found.remains.table().info().data_len);
    match of_meta {
        Some(damage) => file.rest(Fate::Unreadable, &damage.reason),
        None => file.rest(Fate::Dropped, "made anew"),
    }
}

fn log(survey: &Survey, file: &mut Account<'_>) {
    let mut parts: Vec<_> = survey.log.parts.iter().filter(|(name, ..)| **name == *file.name).collect();
    parts.sort_by_key(|(_, from, ..)| *from);
    let header = survey.damage.iter().find(|damage| *damage.file == *file.name && damage.from == 0);
    match header {
        Some(damage) => file.up_to(damage.to, Fate::Unreadable, &damage.reason),
        None if parts.is_empty() => {}
        None => file.up_to(64, Fate::Dropped, "a header"),
    }
    for (_, from, to, part) in parts {
        file.up_to(*from, Fate::Dropped, "the end of the log before, or a seal");
        match part {
            Part::Kept => file.up_to(*to, Fate::Kept, "records written anew"),
            Part::Old => file.up_to(*to, Fate::Dropped, "its records lie in tables"),
            Part::Lost => file.up_to(*to, Fate::Unreadable, "no frame"),
        }
    }
    file.rest(Fate::Dropped, "no frame that counts: free, or of an earlier life");
}
