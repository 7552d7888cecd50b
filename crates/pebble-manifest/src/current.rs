//! `CURRENT`: the one file that says which manifest is in force. It holds that manifest's name and a line feed,
//! nothing else, and is only ever replaced whole, by a rename.
//!
//! Threading: whoever holds the directory's lock.

use std::io;
use std::path::Path;

use pebble_format::{Corruption, FileName, Result};
use pebble_vfs::{Fs, Open};

/// More than the longest name takes.
const LEN_MAX: usize = 64;

/// The number of the manifest in force; `None` when there is no `CURRENT`.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<u64>> {
    let name = FileName::Current.to_string();
    let file = match fs.open(&dir.join(&name), Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let len = file.len()?;
    let mut bytes = [0; LEN_MAX];
    let content = usize::try_from(len).ok().and_then(|len| bytes.get_mut(..len));
    let Some(content) = content else {
        return Err(Corruption::new("length", 0, LEN_MAX as u64, len).in_file(&name).into());
    };
    file.read_exact_at(content, 0)?;
    let line = std::str::from_utf8(content).ok().and_then(|text| text.strip_suffix('\n'));
    match line.and_then(FileName::parse) {
        Some(FileName::Manifest(number)) => Ok(Some(number)),
        _ => Err(Corruption::new("name of a manifest", 0, 1, 0).in_file(&name).into()),
    }
}

/// Writes the next `CURRENT` beside the one in force, synced, and does not yet put it in its place.
pub(crate) fn prepare(fs: &dyn Fs, dir: &Path, number: u64) -> io::Result<()> {
    let path = dir.join(FileName::CurrentTemp.to_string());
    if fs.metadata(&path)?.is_some() {
        fs.remove(&path)?;
    }
    let file = fs.open(&path, Open::CreateNew)?;
    file.write_at(format!("{}\n", FileName::Manifest(number)).as_bytes(), 0)?;
    file.sync_data()
}

/// Puts what [`prepare`] wrote in its place: durable on return.
pub(crate) fn switch(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    fs.rename(&dir.join(FileName::CurrentTemp.to_string()), &dir.join(FileName::Current.to_string()))?;
    fs.sync_dir(dir)
}
