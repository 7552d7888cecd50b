//! Reading a damaged manifest for what is left of it. Nothing is ever written here.
//!
//! ```text
//!   CURRENT, or else every manifest there is, newest first
//!      frame, frame, ✗ frame        one byte off by its checksum ─► mended, if the edit then fits the ones around it
//!                     ✗ otherwise   what comes behind it builds on it, and counts no more
//! ```
//!
//! Threading: plain functions and data.

use std::path::Path;
use std::sync::Arc;

use pebble_format::checksum::crc32c;
use pebble_format::manifest::{
    EDIT_HEADER_LEN, EditHeader, MANIFEST_ALIGN, MANIFEST_HEADER_LEN, ManifestHeader,
};
use pebble_format::single_byte::{differ_in_one_byte, single_byte_errors};
use pebble_format::{Corruption, Error, FileName, Result};
use pebble_vfs::{File, Fs, is_unreadable, read_what_is_readable};
use zerocopy::{FromBytes, IntoBytes};

use crate::broken::Broken;
use crate::edit::Edit;
use crate::recover::{frame_at, read_by, read_header, valid_frame_behind};
use crate::state::{ManifestState, Replay};
use crate::{codec, current};

/// What is left of a directory's manifest.
#[derive(Debug)]
pub struct Salvaged {
    /// The manifest's number.
    pub number: u64,
    /// The state after the last edit that counts.
    pub state: ManifestState,
    /// Whether that is the newest state that was ever acknowledged, as far as the manifest can tell.
    pub is_newest: bool,
    /// Bytes of the manifest that count.
    pub end: u64,
    /// Bytes of the file.
    pub len: u64,
}

/// One damaged part of a manifest or of `CURRENT`.
#[derive(Clone, Debug)]
pub struct ManifestDamage {
    /// The file's name.
    pub file: Box<str>,
    /// Offset of the first byte of the part.
    pub from: u64,
    /// Offset behind it.
    pub to: u64,
    /// What is wrong.
    pub error: Error,
    /// Whether nothing was lost: the part was put right.
    pub mended: bool,
}

/// Reads the best manifest of the directory; `None` where there is none that says anything. What was found damaged on
/// the way goes to `damage`.
///
/// Errors: `UnsupportedVersion`; `Io`, other than of bytes that the device cannot give. Damage is none.
pub fn salvage(fs: &Arc<dyn Fs>, dir: &Path, damage: &mut Vec<ManifestDamage>) -> Result<Option<Salvaged>> {
    let named = match current::read(&**fs, dir) {
        Ok(named) => named,
        Err(error) if is_damage(&error) => {
            let file = FileName::Current.to_string().into();
            let len = fs.metadata(&dir.join(FileName::Current.to_string()))?.map_or(0, |entry| entry.len);
            damage.push(ManifestDamage { file, from: 0, to: len, error, mended: true });
            None
        }
        Err(error) => return Err(error),
    };
    let number = |entry: &pebble_vfs::Entry| match FileName::parse(entry.name.to_str()?)? {
        FileName::Manifest(number) if entry.is_file => Some(number),
        _ => None,
    };
    let mut others: Vec<u64> = fs.list(dir)?.iter().filter_map(number).collect();
    others.sort_unstable_by_key(|number| (Some(*number) != named, std::cmp::Reverse(*number)));
    if let Some(named) = named.filter(|named| !others.contains(named)) {
        let file: Box<str> = FileName::Manifest(named).to_string().into();
        damage.push(ManifestDamage {
            file: file.clone(),
            from: 0,
            to: 0,
            error: Error::MissingFile { file },
            mended: false,
        });
    }
    for number in others {
        let name = FileName::Manifest(number).to_string();
        // What the device cannot give comes as zeros, and is damage as they would be.
        let readable = |file: &dyn File, bytes: &mut [u8]| read_what_is_readable(file, bytes).map(drop);
        let bytes = match read_by(&**fs, dir, &name, readable) {
            Ok(bytes) => bytes,
            Err(error @ Error::Corruption(_)) => {
                damage.push(lost(&name, 0, 0, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(found) = salvage_one(&bytes, number, &name, damage)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether the bytes are at fault, or the device that should give them.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Corruption(_) => true,
        Error::Io(error) => is_unreadable(error),
        _ => false,
    }
}

fn lost(name: &str, from: u64, to: u64, error: Error) -> ManifestDamage {
    ManifestDamage { file: name.into(), from, to, error: error.in_file(name), mended: false }
}

fn salvage_one(
    bytes: &[u8],
    number: u64,
    name: &str,
    damage: &mut Vec<ManifestDamage>,
) -> Result<Option<Salvaged>> {
    let len = bytes.len() as u64;
    let header = match read_header(bytes, number) {
        Ok(header) => header,
        Err(Error::UnsupportedVersion { found, max, .. }) => {
            return Err(Error::UnsupportedVersion { file: name.into(), found, max });
        }
        Err(error) => {
            let mended = mended_header(bytes, number);
            let from_to = (0, MANIFEST_HEADER_LEN as u64);
            damage.push(ManifestDamage {
                mended: mended.is_some(),
                ..lost(name, from_to.0, from_to.1.min(len), error)
            });
            let Some(header) = mended else { return Ok(None) };
            header
        }
    };
    let seed = header.seed();
    let (mut edits, mut at) = (Vec::<(Edit, usize)>::new(), MANIFEST_HEADER_LEN);
    let mut is_newest = true;
    while at < bytes.len() {
        let whole = frame_at(bytes, seed, at)
            .and_then(|payload| codec::decode(payload).ok().map(|edit| (edit, payload.len())));
        if let Some((edit, payload_len)) = whole {
            edits.push((edit, at));
            at += EDIT_HEADER_LEN + payload_len;
            continue;
        }
        let error: Error = Corruption::new("edit", at as u64, 0, 0).into();
        if let Some((edit, payload_len)) = mended_frame(bytes, seed, at) {
            let end = at + EDIT_HEADER_LEN + payload_len;
            damage.push(ManifestDamage { mended: true, ..lost(name, at as u64, end as u64, error) });
            edits.push((edit, at));
            at = end;
            continue;
        }
        // A torn tail is an edit that was never acknowledged; a whole frame behind it says that it is none.
        is_newest = matches!(valid_frame_behind(bytes, seed, at), Ok(None)) && !edits.is_empty();
        damage.push(lost(name, at as u64, len, error));
        break;
    }
    // An edit that breaks a rule is no edit of this database, and neither is what builds on it. The rules that span the
    // tree are checked at the end of a replay, so the edit that breaks one is looked for by halves.
    let (mut kept, mut state) = (0, None);
    let (mut broken, mut len_tried) = (edits.len() + 1, edits.len());
    while broken - kept > 1 {
        match replayed(header.uuid, edits.iter().take(len_tried)) {
            Ok(found) => (kept, state) = (len_tried, Some(found)),
            Err(_) => broken = len_tried,
        }
        len_tried = kept + (broken - kept) / 2;
    }
    if let Some((_, start)) = edits.get(kept) {
        is_newest = false;
        at = *start;
        damage.push(lost(name, at as u64, len, Corruption::new("rules of an edit", at as u64, 0, 0).into()));
    }
    Ok(state.map(|state| Salvaged { number, state, is_newest, end: at as u64, len }))
}

fn replayed<'a>(
    uuid: [u8; 16],
    edits: impl Iterator<Item = &'a (Edit, usize)>,
) -> std::result::Result<ManifestState, Broken> {
    let mut replay = Replay::new(uuid);
    for (edit, _) in edits {
        replay.apply(edit)?;
    }
    replay.finish()
}

/// The header with one byte put right.
fn mended_header(bytes: &[u8], number: u64) -> Option<ManifestHeader> {
    let head = bytes.get(..MANIFEST_HEADER_LEN)?;
    let header = ManifestHeader::read_from_bytes(head).ok()?;
    let (stored, own) = (header.crc.get(), header.checksum());
    let mut tries: Vec<Vec<u8>> = Vec::new();
    for error in single_byte_errors(MANIFEST_HEADER_LEN - 4, stored, own) {
        let mut mended = head.to_vec();
        *mended.get_mut(error.at)? ^= error.delta;
        tries.push(mended);
    }
    if differ_in_one_byte(stored, own) {
        tries.push(ManifestHeader { crc: own.into(), ..header }.as_bytes().to_vec());
    }
    // The magic comes before the checksum, so a wrong byte of it is known by itself.
    tries.into_iter().find_map(|bytes| read_header(&bytes, number).ok())
}

/// The edit of a frame in which one byte is wrong, and the length of its fields.
fn mended_frame(bytes: &[u8], seed: u32, at: usize) -> Option<(Edit, usize)> {
    let (header, rest) = EditHeader::read_from_prefix(bytes.get(at..)?).ok()?;
    let (stored, own) = (header.header_crc.get(), header.checksum(seed, at as u64));
    if stored == own {
        let payload = rest.get(..usize::try_from(header.len.get()).ok()?)?;
        let errors = single_byte_errors(payload.len(), header.payload_crc.get(), crc32c(seed, payload));
        return errors.iter().find_map(|error| {
            let mut mended = payload.to_vec();
            *mended.get_mut(error.at)? ^= error.delta;
            Some((codec::decode(&mended).ok()?, mended.len()))
        });
    }
    let mut headers = vec![header];
    // Eight bytes of the place stand before those of the header.
    for error in single_byte_errors(16, stored, own) {
        let mut mended = header.as_bytes().to_vec();
        if let Some(byte) = error.at.checked_sub(8).and_then(|at| mended.get_mut(4 + at)) {
            *byte ^= error.delta;
            headers.extend(EditHeader::read_from_bytes(&mended).ok());
        }
    }
    headers.into_iter().find_map(|header| {
        let len = usize::try_from(header.len.get()).ok().filter(|len| len.is_multiple_of(MANIFEST_ALIGN))?;
        let payload = rest.get(..len).filter(|payload| header.payload_crc.get() == crc32c(seed, payload))?;
        Some((codec::decode(payload).ok()?, len))
    })
}
