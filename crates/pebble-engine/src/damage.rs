//! What is wrong with a file: the one form in which salvage, repair and verification say it.
//!
//! Threading: plain data.

use std::fmt;

use pebble_manifest::ManifestDamage;
use pebble_sstable::{Remains, Table, VerifyReport};
use pebble_vfs::op_error;

use crate::error::Error;

/// A part of a file that is not what was written. Never holds a user's key or value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Name of the file within the directory.
    pub file: Box<str>,
    /// Offset of the first byte that cannot be used.
    pub from: u64,
    /// Offset behind the last one. Equal to `from` where a file, or the end of one, is missing.
    pub to: u64,
    /// What does not hold.
    pub reason: Box<str>,
}

impl Damage {
    pub(crate) fn new(file: &str, from: u64, to: u64, reason: impl Into<Box<str>>) -> Self {
        Self { file: file.into(), from, to, reason: reason.into() }
    }

    /// The error of a read that meets it.
    pub(crate) fn of_error(error: &Error) -> Self {
        match error {
            Error::Corruption(found) => {
                Self::new(&found.file, found.offset, found.offset, found.what.to_owned())
            }
            Error::MissingFile { file } => Self::new(file, 0, 0, "missing".to_owned()),
            Error::Io(source) | Error::NoSpace(source) => {
                let path = op_error(source).and_then(|error| error.path.file_name());
                let file = path.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                Self::new(&file, 0, 0, source.to_string())
            }
            other => Self::new("", 0, 0, other.to_string()),
        }
    }

    pub(crate) fn of_manifest(damage: &ManifestDamage) -> Self {
        let mended = if damage.mended { "; put right while reading" } else { "" };
        Self::new(&damage.file, damage.from, damage.to, format!("{}{mended}", what(&damage.error)))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, bytes {} to {}: {}", self.file, self.from, self.to, self.reason)
    }
}

/// An error in a few words, without the file that is told apart.
pub(crate) fn what(error: &pebble_format::Error) -> String {
    match error {
        pebble_format::Error::Corruption(found) => found.what.to_owned(),
        pebble_format::Error::MissingFile { .. } => "missing".to_owned(),
        other => other.to_string(),
    }
}

/// Everything that is wrong with the blocks of a table.
pub(crate) fn of_blocks(remains: &Remains) -> impl Iterator<Item = Damage> {
    let name = remains.table().name();
    remains.lost().iter().map(move |lost| {
        Damage::new(name, lost.offset, lost.offset.saturating_add(lost.len), what(&lost.error))
    })
}

/// Checks a whole table: its figures, or all that is wrong with it.
pub(crate) fn check_table(table: &std::sync::Arc<Table>) -> Result<VerifyReport, Vec<Damage>> {
    table.verify().map_err(|first| {
        let remains = table.remains(&mut |_| {});
        let mut all: Vec<Damage> = of_blocks(&remains).collect();
        if all.is_empty() {
            all.push(Damage { file: table.name().into(), ..Damage::of_error(&first.into()) });
        }
        all
    })
}
