//! Reading a manifest back. Nothing is ever written here.
//!
//! ```text
//!   CURRENT ─► MANIFEST-000007 ─► header ─► frame, frame, … frame, what is no frame
//!                                                                  └ nothing valid behind it: a torn tail, dropped
//!                                                                  └ a valid frame behind it: damage, refused
//! ```
//!
//! Threading: whoever holds the directory's lock.

use std::io;
use std::path::Path;
use std::sync::Arc;

use pebble_format::checksum::crc32c;
use pebble_format::manifest::{
    EDIT_HEADER_LEN, EditHeader, MANIFEST_ALIGN, MANIFEST_HEADER_LEN, MANIFEST_LEN_MAX, MANIFEST_MAGIC,
    MANIFEST_VERSION, MANIFEST_VERSION_MIN, ManifestHeader,
};
use pebble_format::{Corruption, Error, FileName, Result};
use pebble_vfs::{File, Fs, Open};
use zerocopy::FromBytes;

use crate::codec;
use crate::current;
use crate::log::ManifestLog;
use crate::state::{ManifestState, Replay};

/// What a directory's manifest says.
#[derive(Debug)]
pub struct Recovered {
    /// The state after the last whole edit.
    pub state: ManifestState,
    /// The manifest, to be appended to; with a torn tail it must be [rolled](ManifestLog::roll) first.
    pub log: ManifestLog,
    /// Bytes of a torn tail: an edit that was never acknowledged, or damage to the last one. The caller tells the two
    /// apart: it accepts the state only if every table of its version and every log segment from `log_first` on is
    /// there and whole.
    pub dropped_bytes: u64,
}

/// Reads the manifest in force. `None` in a directory where no database was ever finished: without `CURRENT`, without
/// tables and without log segments. Writes nothing.
///
/// After an unclean end (a dropped tail, here or in the log) the caller should go on with a
/// [roll](ManifestLog::roll) even if this manifest is whole: after a sync that failed, bytes may be read back from
/// memory that the disk never got.
///
/// Errors: `MissingFile` when there is no `CURRENT` beside a table or a log segment, or no manifest of the name in
/// it; `Corruption`; `UnsupportedVersion`; `Io`.
///
/// Cost: linear in the manifest's length, for any bytes.
pub fn recover(fs: &Arc<dyn Fs>, dir: &Path) -> Result<Option<Recovered>> {
    let Some(number) = current::read(&**fs, dir)? else {
        check_fresh(&**fs, dir)?;
        return Ok(None);
    };
    let name = FileName::Manifest(number).to_string();
    let bytes = read(&**fs, dir, &name)?;
    let read = replay(&bytes, number).map_err(|error| error.in_file(&name));
    let Replayed { header, state, snapshot_end, end } = read.map_err(|error| match error {
        Error::UnsupportedVersion { found, max, .. } => {
            Error::UnsupportedVersion { file: name.as_str().into(), found, max }
        }
        other => other,
    })?;
    let dropped_bytes = bytes.len() as u64 - end;
    let log = ManifestLog::recovered(Arc::clone(fs), dir, &header, snapshot_end, end, dropped_bytes > 0);
    Ok(Some(Recovered { state, log, dropped_bytes }))
}

/// Refuses a directory that has lost its `CURRENT`. What a crash leaves of a creation is no such thing.
fn check_fresh(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let entries = match fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let ours = entries.iter().filter_map(|entry| FileName::parse(entry.name.to_str()?));
    if ours.into_iter().any(|name| matches!(name, FileName::Table(_) | FileName::Log(_))) {
        return Err(Error::MissingFile { file: FileName::Current.to_string().into() });
    }
    Ok(())
}

pub(crate) fn read(fs: &dyn Fs, dir: &Path, name: &str) -> Result<Vec<u8>> {
    read_by(fs, dir, name, |file, bytes| file.read_exact_at(bytes, 0))
}

/// As [`read`], by what fills the bytes.
pub(crate) fn read_by(
    fs: &dyn Fs,
    dir: &Path,
    name: &str,
    fill: impl FnOnce(&dyn File, &mut [u8]) -> io::Result<()>,
) -> Result<Vec<u8>> {
    let file = match fs.open(&dir.join(name), Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::MissingFile { file: name.into() });
        }
        Err(error) => return Err(error.into()),
    };
    let len = file.len()?;
    if len > MANIFEST_LEN_MAX {
        return Err(Corruption::new("length", 0, MANIFEST_LEN_MAX, len).in_file(name).into());
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    fill(&*file, &mut bytes)?;
    Ok(bytes)
}

struct Replayed {
    header: ManifestHeader,
    state: ManifestState,
    /// Where the first frame ends.
    snapshot_end: u64,
    /// Where the last whole frame ends.
    end: u64,
}

fn replay(bytes: &[u8], number: u64) -> Result<Replayed> {
    let header = read_header(bytes, number)?;
    let seed = header.seed();
    let mut replay = Replay::new(header.uuid);
    let (mut offset, mut snapshot_end, mut last) = (MANIFEST_HEADER_LEN, 0, 0);
    while let Some(payload) = frame_at(bytes, seed, offset) {
        let base = (offset + EDIT_HEADER_LEN) as u64;
        let edit = codec::decode(payload).map_err(|corruption| corruption.at(base))?;
        replay.apply(&edit).map_err(|broken| broken.at(base))?;
        last = offset;
        offset += EDIT_HEADER_LEN + payload.len();
        if snapshot_end == 0 {
            snapshot_end = offset as u64;
        }
    }
    if snapshot_end == 0 {
        // A manifest is named by CURRENT only after its first frame was synced.
        return Err(Corruption::new("first edit", offset as u64, 1, 0).into());
    }
    if let Some(valid) = valid_frame_behind(bytes, seed, offset)? {
        return Err(Corruption::new("edit", offset as u64, offset as u64, valid as u64).into());
    }
    let state = replay.finish().map_err(|broken| broken.at(last as u64))?;
    Ok(Replayed { header, state, snapshot_end, end: offset as u64 })
}

pub(crate) fn read_header(bytes: &[u8], number: u64) -> Result<ManifestHeader> {
    let Ok((header, _)) = ManifestHeader::read_from_prefix(bytes) else {
        return Err(Corruption::new("header", 0, MANIFEST_HEADER_LEN as u64, bytes.len() as u64).into());
    };
    let damaged = |what, expected: u64, got: u64| Err(Corruption::new(what, 0, expected, got).into());
    if header.magic != MANIFEST_MAGIC {
        return damaged("magic", u64::from_le_bytes(MANIFEST_MAGIC), u64::from_le_bytes(header.magic));
    }
    if header.crc.get() != header.checksum() {
        return damaged("header checksum", u64::from(header.checksum()), u64::from(header.crc.get()));
    }
    let version = header.version.get();
    if !(MANIFEST_VERSION_MIN..=MANIFEST_VERSION).contains(&version) {
        return Err(Error::UnsupportedVersion { file: "".into(), found: version, max: MANIFEST_VERSION });
    }
    if header.reserved.get() != 0 || header.reserved2.get() != 0 {
        return damaged("reserved bytes", 0, 1);
    }
    if header.number.get() != number {
        return damaged("manifest number", number, header.number.get());
    }
    Ok(header)
}

/// The header of the frame at `offset`, if its own checksum holds and its payload lies within `bytes`.
fn frame_header_at(bytes: &[u8], seed: u32, offset: usize) -> Option<(EditHeader, &[u8])> {
    let (header, rest) = EditHeader::read_from_prefix(bytes.get(offset..)?).ok()?;
    let len = usize::try_from(header.len.get()).ok()?;
    let fits = len > 0 && len.is_multiple_of(MANIFEST_ALIGN);
    if !fits || header.header_crc.get() != header.checksum(seed, offset as u64) {
        return None;
    }
    Some((header, rest.get(..len)?))
}

/// The fields of the frame at `offset`, if it is whole.
pub(crate) fn frame_at(bytes: &[u8], seed: u32, offset: usize) -> Option<&[u8]> {
    let (header, payload) = frame_header_at(bytes, seed, offset)?;
    (header.payload_crc.get() == crc32c(seed, payload)).then_some(payload)
}

/// Where the first whole frame behind `offset` starts. Only a damaged manifest has one: it is written front to back,
/// each frame synced before the next.
///
/// Any aligned place may hold one, since the length of a damaged frame is not to be trusted. Bytes that were made to
/// hold header after header, each with a long payload, are refused once that would take more than linear time.
pub(crate) fn valid_frame_behind(
    bytes: &[u8],
    seed: u32,
    offset: usize,
) -> Result<Option<usize>, Corruption> {
    let mut budget = bytes.len().saturating_mul(2);
    for at in (offset..bytes.len()).step_by(MANIFEST_ALIGN).skip(1) {
        let Some((_, payload)) = frame_header_at(bytes, seed, at) else { continue };
        if frame_at(bytes, seed, at).is_some() {
            return Ok(Some(at));
        }
        budget = budget
            .checked_sub(payload.len())
            .ok_or_else(|| Corruption::new("frames", at as u64, bytes.len() as u64, payload.len() as u64))?;
    }
    Ok(None)
}
