//! The directory that the demo works in, and what takes space there.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use crate::failure::{Failure, Result};

/// A directory; a temporary one goes with it.
pub struct Scratch {
    path: PathBuf,
    temporary: bool,
}

impl Scratch {
    /// The directory that was asked for, which must be new or empty, or a temporary one.
    pub fn new(dir: Option<&Path>) -> Result<Self> {
        let (path, temporary) = match dir {
            Some(dir) => (dir.to_owned(), false),
            None => (env::temp_dir().join(format!("pebble-demo-{}", process::id())), true),
        };
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self { path, temporary }),
            Err(error) if !temporary && error.kind() == io::ErrorKind::AlreadyExists => {
                let mut entries = fs::read_dir(&path).map_err(|error| Failure::at(&path, error))?;
                match entries.next() {
                    None => Ok(Self { path, temporary }),
                    Some(_) => Err(Failure::at(&path, "not empty; the demo wants a directory of its own")),
                }
            }
            Err(error) => Err(Failure::at(&path, error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.temporary {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Bytes of the files of a database.
#[derive(Default)]
pub struct OnDisk {
    /// Of tables.
    pub tables: u64,
    /// Of log segments, recycled ones included.
    pub log: u64,
}

/// What the files in `dir` take.
pub fn bytes_on_disk(dir: &Path) -> Result<OnDisk> {
    let sum = || -> io::Result<OnDisk> {
        let mut sum = OnDisk::default();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let len = entry.metadata()?.len();
            match entry.path().extension().and_then(|extension| extension.to_str()) {
                Some("sst") => sum.tables += len,
                Some("log") => sum.log += len,
                _ => {}
            }
        }
        Ok(sum)
    };
    sum().map_err(|error| Failure::at(dir, error))
}
