//! A simulated disk with given files, and the files of one.
//!
//! Threading: plain functions.

use std::collections::BTreeMap;
use std::path::Path;

use pebble_format::Error;
use pebble_vfs::{Fs, Open, SimFs};

/// Where the files lie.
pub(crate) const DIR: &str = "/db";

/// Names and bytes.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A disk that holds these files, synced.
pub(crate) fn disk(files: &Files) -> SimFs {
    let fs = SimFs::new(1);
    fs.create_dir(Path::new(DIR)).unwrap();
    for (name, bytes) in files {
        let file = fs.open(&Path::new(DIR).join(name), Open::CreateNew).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
    fs.sync_dir(Path::new(DIR)).unwrap();
    fs
}

/// The files of a disk.
pub(crate) fn dump(fs: &SimFs) -> Files {
    let read = |entry: pebble_vfs::Entry| {
        let name = entry.name.into_string().unwrap();
        let file = fs.open(&Path::new(DIR).join(&name), Open::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (name, bytes)
    };
    fs.list(Path::new(DIR)).unwrap().into_iter().filter(|entry| entry.is_file).map(read).collect()
}

/// Panics unless the error is one that bytes on disk may give.
pub(crate) fn assert_told(error: &Error) {
    let told = error.is_corruption()
        || matches!(error, Error::UnsupportedVersion { .. })
        || matches!(error, Error::UnsupportedCodec { .. }) && !cfg!(feature = "zstd");
    assert!(told, "bytes gave {error}");
}
