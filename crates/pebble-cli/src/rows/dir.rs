//! A directory with a file for each record: the relative path is the key, the content the value.
//!
//! Reading follows no symbolic link and goes in the order of the keys. Writing makes a directory of its own, in which
//! nothing can be that it did not make, and refuses keys that would lead out of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use pebble_db::limits::VALUE_LEN_MAX;

use crate::failure::{Failure, Result, note};
use crate::progress::Unit;
use crate::rows::{Record, Sink, Source, checked};

/// Reads files.
pub struct DirSource {
    root: PathBuf,
    keys: Vec<Vec<u8>>,
    done: usize,
}

impl DirSource {
    /// Lists all files under `root`.
    pub fn new(root: &Path) -> Result<Self> {
        let mut keys = Vec::new();
        let mut passed = 0;
        let mut waiting = vec![Vec::new()];
        while let Some(prefix) = waiting.pop() {
            let dir = root.join(OsStr::from_bytes(&prefix));
            for entry in fs::read_dir(&dir).map_err(|error| Failure::at(&dir, error))? {
                let entry = entry.map_err(|error| Failure::at(&dir, error))?;
                let kind = entry.file_type().map_err(|error| Failure::at(&entry.path(), error))?;
                let mut key = prefix.clone();
                key.extend(entry.file_name().into_vec());
                if kind.is_dir() {
                    key.push(b'/');
                    waiting.push(key);
                } else if kind.is_file() {
                    keys.push(key);
                } else {
                    passed += 1;
                }
            }
        }
        if passed > 0 {
            note(&format!("{passed} symbolic links and special files passed over"));
        }
        keys.sort_unstable();
        Ok(Self { root: root.to_owned(), keys, done: 0 })
    }
}

impl Source for DirSource {
    fn next(&mut self) -> Result<Option<Record>> {
        let Some(key) = self.keys.get(self.done) else { return Ok(None) };
        let path = self.root.join(OsStr::from_bytes(key));
        let read = || -> io::Result<Record> {
            let len = fs::symlink_metadata(&path)?.len();
            if len > VALUE_LEN_MAX as u64 {
                return Err(io::Error::other(format!("{len} bytes; a value has at most {VALUE_LEN_MAX}")));
            }
            Ok(Record { key: key.clone(), value: fs::read(&path)? })
        };
        let record = read().map_err(|error| Failure::at(&path, error))?;
        self.done += 1;
        checked(record).map(Some).map_err(|why| Failure::at(&path, why))
    }

    fn done(&self) -> u64 {
        self.done as u64
    }

    fn total(&self) -> Option<u64> {
        Some(self.keys.len() as u64)
    }

    fn unit(&self) -> Unit {
        Unit::Items
    }
}

/// Longest name of a file, and longest path, that Linux takes.
const NAME_LEN_MAX: usize = 255;
const PATH_LEN_MAX: usize = 4095;

/// Whether a file under `root` may have this key for its path: relative, no component that is empty, `.` or `..`, and
/// none too long for a name, nor all of it for a path.
pub fn check_key(root: &Path, key: &[u8]) -> std::result::Result<(), &'static str> {
    if key.contains(&0) {
        return Err("a zero byte");
    }
    if key.split(|byte| *byte == b'/').any(|part| part.len() > NAME_LEN_MAX) {
        return Err("a name of more than 255 bytes");
    }
    if root.as_os_str().len() + 1 + key.len() > PATH_LEN_MAX {
        return Err("a path of more than 4095 bytes");
    }
    match key.split(|byte| *byte == b'/').find(|part| matches!(*part, b"" | b"." | b"..")) {
        Some(b"") => Err("an empty name between, before or behind slashes"),
        Some(_) => Err("a `.` or `..` in it"),
        None => Ok(()),
    }
}

/// Writes files.
pub struct DirSink {
    root: PathBuf,
}

impl DirSink {
    /// Makes the directory; one that is there must be empty.
    pub fn new(root: &Path) -> Result<Self> {
        let made = fs::create_dir(root).or_else(|error| {
            let is_empty_dir = || -> io::Result<bool> {
                Ok(fs::symlink_metadata(root)?.is_dir() && fs::read_dir(root)?.next().is_none())
            };
            if error.kind() == io::ErrorKind::AlreadyExists && is_empty_dir()? { Ok(()) } else { Err(error) }
        });
        made.map_err(|error| Failure::at(root, error))?;
        Ok(Self { root: root.to_owned() })
    }
}

impl Sink for DirSink {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let relative = Path::new(OsStr::from_bytes(key));
        let path = self.root.join(relative);
        if let Err(why) = check_key(&self.root, key) {
            let key = key.escape_ascii();
            return Err(Failure::Failed(format!("the key \"{key}\" is no path for a file: {why}")));
        }
        let write = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            File::create_new(&path)?.write_all(value)
        };
        write().map_err(|error| Failure::at(&path, error))
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_inside_are_paths() {
        let check_key = |key: &[u8]| check_key(Path::new("root"), key);
        for key in [&b"a"[..], b"a/b.c/d", b"...", b"..a/b..", b" ", b"\xff", b"C:\\x"] {
            assert!(check_key(key).is_ok(), "{key:?}");
        }
        for key in [&b""[..], b"/", b"/a", b"a/", b"a//b", b".", b"..", b"../a", b"a/..", b"a/./b", b"a\0b"] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
        assert!(check_key(&[b'b'; 255]).is_ok() && check_key(&[b'b'; 256]).is_err());
        let longest = ["b/".repeat(2_044).as_bytes(), b"bb"].concat();
        let longer = ["b/".repeat(2_045).as_bytes(), b"b"].concat();
        assert_eq!("root/".len() + longest.len(), PATH_LEN_MAX);
        assert!(check_key(&longest).is_ok() && check_key(&longer).is_err());
    }
}
