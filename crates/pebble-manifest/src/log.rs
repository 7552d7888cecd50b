//! The log of edits: one frame per edit, durable when [`ManifestLog::append`] returns, and begun anew now and then.
//!
//! # How a manifest takes over
//!
//! ```text
//!   1  MANIFEST-000008  created, header and whole state written, fdatasync
//!   2  directory synced              its name is durable before anything names it
//!   3  CURRENT.tmp      removed if a crash left one, created, written, fdatasync
//!   4  CURRENT.tmp renamed to CURRENT                                                   THE switch
//!   5  directory synced              the switch is durable before anything builds on it
//!   6  MANIFEST-000007  removed
//! ```
//!
//! - Without the syncs of 1 and 3, `CURRENT` could survive a power cut with nothing, or zeros, behind the name it
//!   holds.
//! - Without 2, one directory sync would stand for two steps, and a file system may keep the rename and lose the new
//!   manifest.
//! - Without 5, edits could be acknowledged in a manifest that a power cut takes out of force.
//! - 6 before 5 could leave a `CURRENT` that names nothing.
//!
//! A crash leaves `CURRENT` whole, naming the old manifest or the new one, which say the same; the other files are
//! garbage that the engine collects.
//!
//! # After a failure
//!
//! A write or sync that failed leaves the file in a state that nobody knows, and a later sync that succeeds proves
//! nothing (Rebello et al., ATC'20). So the log repeats its first such error for ever, and never touches that file
//! again. A failed sync of the directory is such an error too; a file that was to become the next manifest is not, for
//! the next attempt makes another.
//!
//! Threading: one owner; every call waits for the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pebble_format::checksum::crc32c;
use pebble_format::manifest::{
    EDIT_HEADER_LEN, EditHeader, MANIFEST_HEADER_LEN, MANIFEST_LEN_MAX, MANIFEST_MAGIC, MANIFEST_VERSION,
    ManifestHeader,
};
use pebble_format::{Error, FileName, Result};
use pebble_vfs::{File, Fs, Open, is_no_descriptors, is_no_space};
use zerocopy::IntoBytes;

use crate::codec;
use crate::current;
use crate::edit::Edit;
use crate::state::ManifestState;

/// A manifest of up to this many bytes is never begun anew.
const ROLL_LEN_MIN: u64 = 1 << 20;

/// A manifest is begun anew when it is so many times as long as the state it began with.
const ROLL_GROWTH: u64 = 4;

/// The manifest in force, to be appended to.
#[derive(Debug)]
pub struct ManifestLog {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    number: u64,
    seed: u32,
    /// `None` until the first append after a recovery: recovering a database opens nothing for writing.
    file: Option<Arc<dyn File>>,
    /// Where the next frame goes.
    end: u64,
    /// Where the first frame ends.
    snapshot_end: u64,
    /// Whether bytes that are no frame lie behind `end`.
    torn: bool,
    failed: Option<Error>,
}

impl ManifestLog {
    /// Writes a manifest with the whole of `state`, and puts it in force; durable on return. The `number` must not
    /// have been used before.
    ///
    /// Errors: `InvalidArgument` when `state` breaks a rule, and then nothing was written; `Io` otherwise: whether
    /// the new manifest is in force is then for the next [`recover`](crate::recover()) to say.
    pub fn create(fs: Arc<dyn Fs>, dir: &Path, number: u64, state: &ManifestState) -> Result<Self> {
        let log = Self::prepare(fs, dir, number, state).map_err(|failure| failure.error)?;
        current::switch(&*log.fs, dir)?;
        Ok(log)
    }

    /// A log behind the frames of a manifest that was read back.
    pub(crate) fn recovered(
        fs: Arc<dyn Fs>,
        dir: &Path,
        header: &ManifestHeader,
        snapshot_end: u64,
        end: u64,
        torn: bool,
    ) -> Self {
        let (number, seed) = (header.number.get(), header.seed());
        Self { fs, dir: dir.into(), number, seed, file: None, end, snapshot_end, torn, failed: None }
    }

    /// The manifest's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that the manifest's frames reach to.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether the manifest holds no frame: never, since it begins with a whole state.
    pub fn is_empty(&self) -> bool {
        self.end <= MANIFEST_HEADER_LEN as u64
    }

    /// Whether [`ManifestLog::roll`] is due: the manifest has grown far beyond the state it began with or comes near to
    /// what a reader takes, or it ends in a torn frame, behind which nothing is ever appended.
    pub fn wants_roll(&self) -> bool {
        let grown = ROLL_LEN_MIN.max(self.snapshot_end.saturating_mul(ROLL_GROWTH));
        // Of a state that is as long as that itself, little would be gained by each edit's roll.
        let long = (MANIFEST_LEN_MAX / 4 * 3).max(self.snapshot_end.saturating_add(ROLL_LEN_MIN));
        self.torn || self.end > grown.min(long)
    }

    /// Appends one edit; durable on return. The edit must have been applied to the state that the log describes: it
    /// is not checked here, and one that breaks a rule makes the manifest unreadable.
    ///
    /// Errors: `InvalidArgument` when the edit is empty or too long, or when the log must be rolled first; nothing
    /// has changed then. `Io` for a write that found the disk full: the edit is not in force, for part of its frame is
    /// missing, and the log must be rolled, once there is space. Otherwise the log has failed: nobody knows whether the
    /// edit is durable, and every later call repeats the error.
    ///
    /// Cost: one write and one `fdatasync`.
    pub fn append(&mut self, edit: &Edit) -> Result<()> {
        self.check()?;
        if self.torn {
            return Err(Error::invalid("the manifest ends in a torn frame and must be rolled first"));
        }
        let frame = frame(self.seed, self.end, edit)?;
        let end = end_of(self.end, &frame)?;
        match self.write(&frame) {
            Err(error) if is_no_space(&error) => {
                self.torn = true;
                return Err(error.into());
            }
            written => self.keep(written.map_err(Error::from))?,
        }
        let synced = self.file.as_ref().map_or(Ok(()), |file| file.sync_data());
        self.keep(synced.map_err(Error::from))?;
        self.end = end;
        Ok(())
    }

    /// Puts a new manifest with the whole of `state` in force, and removes the old one. Durable on return.
    ///
    /// Errors: as [`ManifestLog::create`]. If the new manifest could not be written, the old one stays in force and
    /// usable (unless it is torn). After a failed sync of the directory, and from the switch on, the log has failed,
    /// and every later call repeats the error. A lack of descriptors before the switch is no failed sync.
    pub fn roll(&mut self, number: u64, state: &ManifestState) -> Result<()> {
        self.check()?;
        let next = match Self::prepare(Arc::clone(&self.fs), &self.dir, number, state) {
            Err(Failure { error, ends_log: true }) => return self.keep(Err(error)),
            prepared => prepared.map_err(|failure| failure.error)?,
        };
        let switched = current::switch(&*self.fs, &self.dir);
        self.keep(switched.map_err(Error::from))?;
        let old = self.dir.join(FileName::Manifest(self.number).to_string());
        *self = next;
        // A manifest that cannot be removed is garbage like one left by a crash; the next open collects it.
        self.fs.remove(&old).or(Ok(()))
    }

    /// Steps 1 to 3 of the [module](self).
    fn prepare(fs: Arc<dyn Fs>, dir: &Path, number: u64, state: &ManifestState) -> Result<Self, Failure> {
        let mut header = ManifestHeader {
            magic: MANIFEST_MAGIC,
            version: MANIFEST_VERSION.into(),
            reserved: 0.into(),
            uuid: state.uuid,
            number: number.into(),
            reserved2: 0.into(),
            crc: 0.into(),
        };
        header.crc = header.checksum().into();
        let whole = state.whole();
        ManifestState::new(state.uuid).apply(&whole)?;
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(frame(header.seed(), bytes.len() as u64, &whole)?);
        let end = end_of(0, &bytes)?;

        let path = dir.join(FileName::Manifest(number).to_string());
        let file = fs.open(&path, Open::CreateNew)?;
        let write = || {
            file.write_at(&bytes, 0)?;
            file.sync_data()?;
            fs.sync_dir(dir)
                .map_err(|error| Failure { ends_log: !is_no_descriptors(&error), error: error.into() })?;
            Ok(current::prepare(&*fs, dir, number)?)
        };
        if let Err(failure) = write() {
            // On a full disk each attempt would else take more of the space that the next one needs.
            fs.remove(&path).ok();
            return Err(failure);
        }
        Ok(Self { file: Some(file), ..Self::recovered(fs, dir, &header, end, end, false) })
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                let path = self.dir.join(FileName::Manifest(self.number).to_string());
                self.file.insert(self.fs.open(&path, Open::ReadWrite)?)
            }
        };
        file.write_at(frame, self.end)
    }

    /// What ended this log, if anything did: whether its last edit, or a roll, is in force is for the next
    /// [`recover`](crate::recover()) to say.
    pub fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    fn keep(&mut self, result: Result<()>) -> Result<()> {
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }
}

/// Why a manifest was not prepared. A sync of the directory that failed ends the old log too: a later one that succeeds
/// would not make the new names durable.
struct Failure {
    error: Error,
    ends_log: bool,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), ends_log: false }
    }
}

/// An edit as the frame at `offset`.
fn frame(seed: u32, offset: u64, edit: &Edit) -> Result<Vec<u8>> {
    let fields = codec::encode(edit)?;
    let len = u32::try_from(fields.len()).map_err(|_| Error::invalid("the edit is too long"))?;
    if len == 0 {
        return Err(Error::invalid("an edit that changes nothing"));
    }
    let header = EditHeader::new(seed, offset, crc32c(seed, &fields), len);
    let mut bytes = Vec::with_capacity(EDIT_HEADER_LEN + fields.len());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(fields);
    Ok(bytes)
}

/// Where `bytes` at `offset` end, within what a reader accepts.
fn end_of(offset: u64, bytes: &[u8]) -> Result<u64> {
    let end = u64::try_from(bytes.len()).ok().and_then(|len| offset.checked_add(len));
    end.filter(|end| *end <= MANIFEST_LEN_MAX)
        .ok_or_else(|| Error::invalid(format!("a manifest is at most {MANIFEST_LEN_MAX} bytes long")))
}

#[cfg(test)]
mod tests {
    use pebble_vfs::SimFs;
    use zerocopy::FromBytes;

    use super::*;

    /// Of a large tree the state alone is more than a quarter of the longest manifest.
    #[test]
    fn a_long_manifest_is_rolled_before_it_is_too_long() {
        let log = |snapshot_end, end| {
            let header = ManifestHeader::read_from_bytes(&[0; MANIFEST_HEADER_LEN]).unwrap();
            ManifestLog::recovered(Arc::new(SimFs::new(1)), Path::new("/"), &header, snapshot_end, end, false)
        };
        let mib = |n: u64| n << 20;
        assert!(!log(mib(10), mib(40)).wants_roll() && log(mib(10), mib(41)).wants_roll());
        assert!(!log(mib(100), mib(192)).wants_roll() && log(mib(100), mib(193)).wants_roll());
        assert!(!log(mib(200), mib(201)).wants_roll() && log(mib(200), mib(202)).wants_roll());
        assert!(!log(100, ROLL_LEN_MIN).wants_roll());
    }
}
