//! Damaged databases: what is wrong with one, and a whole one of what is left.

use std::ops::ControlFlow;
use std::path::Path;

use pebble_engine::{Components, RepairOptions, RepairReport, Result, Verification, VerifyProgress};

/// Reads and checks every byte of the database in a directory, whole or damaged, and says all that is wrong. Opens
/// nothing and writes nothing; shares the directory with others who read.
///
/// ```
/// # fn main() -> pebble_db::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// # pebble_db::Db::open(path)?.close()?;
/// let found = pebble_db::inspect(path)?;
/// for damage in &found.damage {
///     eprintln!("{damage}");
/// }
/// assert!(found.damage.is_empty());
/// # Ok(())
/// # }
/// ```
///
/// Errors: [`Error::Locked`](crate::Error::Locked), [`Error::NotADatabase`](crate::Error::NotADatabase), and what a
/// newer build wrote. Damage is none.
pub fn inspect(path: impl AsRef<Path>) -> Result<Verification> {
    inspect_with(path, &Components::default(), |_| ControlFlow::Continue(()))
}

/// [`inspect`] on a file system of the caller's, told how far it is, and ended by him where he likes.
pub fn inspect_with(
    path: impl AsRef<Path>,
    components: &Components,
    mut watch: impl FnMut(VerifyProgress) -> ControlFlow<()>,
) -> Result<Verification> {
    pebble_engine::inspect(path.as_ref(), components, &mut watch)
}

/// Makes a whole database in the directory `to` of what is left of the damaged one in `from`, also where `CURRENT` and
/// every manifest are gone. `from` is only read, and stays as it is; `to` must be empty, or not be there.
///
/// The new database holds every key that the damage did not touch. Of a key whose newest version may have been in what
/// is lost it holds nothing, unless [`RepairOptions::older_versions`] asks for the newest version that is left. The
/// report accounts for every byte of every file.
///
/// Without a manifest the names of keyspaces are lost: they are then called `recovered-` and their number. And a table
/// that a crash left behind cannot be told from one that was in use then: what it holds, and no newer record deletes,
/// comes back.
///
/// ```
/// # fn main() -> pebble_db::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (damaged, whole) = (dir.path().join("damaged"), dir.path().join("whole"));
/// # let db = pebble_db::Db::open(&damaged)?;
/// # db.put("stone", "granite")?;
/// # db.close()?;
/// use pebble_db::{Db, RepairOptions};
///
/// std::fs::remove_file(damaged.join("CURRENT")).unwrap();
/// let report = pebble_db::repair(&damaged, &whole, RepairOptions::default())?;
/// assert_eq!(report.log_records, 1);
/// assert_eq!(Db::open(&whole)?.get("stone")?.as_deref(), Some(&b"granite"[..]));
/// # Ok(())
/// # }
/// ```
///
/// Errors: as [`inspect`]; [`Error::InvalidArgument`](crate::Error::InvalidArgument) when `to` holds anything. What a
/// repair that failed has left in `to` is refused by every open.
pub fn repair(from: impl AsRef<Path>, to: impl AsRef<Path>, options: RepairOptions) -> Result<RepairReport> {
    repair_with(from, to, options, &Components::default(), |_| ControlFlow::Continue(()))
}

/// [`repair`] on a file system of the caller's, told how far the reading is, and ended by him where he likes.
pub fn repair_with(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: RepairOptions,
    components: &Components,
    mut watch: impl FnMut(VerifyProgress) -> ControlFlow<()>,
) -> Result<RepairReport> {
    pebble_engine::repair(from.as_ref(), to.as_ref(), options, components, &mut watch)
}
