//! Opening a database for reading, whole or damaged: nothing of its directory is changed, no modification or
//! change time either.
//!
//! ```text
//!   LOCK, if it is there: shared       OverlayFs: the directory for reading, memory for writing
//!                                          │ SalvageReadOnly: survey ─► rebuild, where there is damage
//!                                          └─► the same recovery as ever ─► no threads, writes refused
//! ```
//!
//! What the log holds goes into tables in memory, so opening takes as much of that as there is log. Salvage takes as
//! much again as the tables that have to be put together anew.
//!
//! Threading: as `open.rs`.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pebble_format::FileName;
use pebble_vfs::{Fs, Lock, LockKind, OverlayFs};
use pebble_wal::Recovery;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::open::{Salvage, holds_database, open_locked};
use crate::options::{Components, Executor, Options};
use crate::rebuild::{Target, rebuild};
use crate::survey::{VerifyProgress, Watch, survey};

/// The smallest segment that the options allow: nothing is ever appended to it.
const SEGMENT_LEN: u32 = 4 << 10;

/// Opens the database in `dir` for reading; for salvage if the options say so.
pub(crate) fn open(dir: &Path, options: Options, components: Components) -> Result<Arc<Core>> {
    let lock = share(&*components.fs, dir)?;
    let fs: Arc<dyn Fs> = Arc::new(OverlayFs::new(Arc::clone(&components.fs), dir)?);
    let salvages = options.recovery == Recovery::SalvageReadOnly;
    let options = Options {
        create_if_missing: false,
        read_only: true,
        segment_len_min: SEGMENT_LEN,
        segment_len_max: SEGMENT_LEN,
        ..options
    };
    let salvage = if salvages { salvage(&fs, dir, &options)? } else { Salvage::default() };
    if !salvages && !holds_database(&fs, dir)? {
        return Err(Error::NotADatabase { path: dir.display().to_string().into() });
    }
    let components = Components { fs, executor: Executor::Inline, ..components };
    let core = open_locked(dir, options, components, lock, salvage)?;
    core.status.open_to_read();
    Ok(core)
}

/// The directory's lock, shared with others who read; none where there is no lock file, since none is made.
pub(crate) fn share(fs: &dyn Fs, dir: &Path) -> Result<Option<Box<dyn Lock>>> {
    match fs.lock(&dir.join(FileName::Lock.to_string()), LockKind::Shared) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::locked(dir)),
        Err(error) => Err(error.into()),
    }
}

/// Makes a whole database of what is left, in memory. One that is whole stays as it is.
fn salvage(fs: &Arc<dyn Fs>, dir: &Path, options: &Options) -> Result<Salvage> {
    let mut tell = |_| ControlFlow::Continue(());
    let mut watch = Watch { progress: VerifyProgress::default(), tell: &mut tell, ended: false };
    let survey = survey(Arc::clone(fs), dir, &mut watch)?;
    if survey.damage.is_empty() {
        return Ok(Salvage::default());
    }
    let target = Target { fs: Arc::clone(fs), dir, in_place: true };
    let built = rebuild(&survey, &target, options, false)?;
    Ok(Salvage {
        doubts: Some(built.doubts).filter(|doubts| !doubts.is_empty()),
        replayed: survey.log.count,
        dropped_bytes: survey.log.dropped_bytes,
        skipped: survey.damage,
    })
}
