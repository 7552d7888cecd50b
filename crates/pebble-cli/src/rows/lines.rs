//! The lines of a file, counted for messages and for progress.

use std::io::{BufRead, Read};
use std::path::Path;

use crate::failure::{Failure, Result};

/// No row that `export` writes is longer: the largest key and value, each byte escaped to four at most, and something
/// for the syntax.
const LINE_LEN_MAX: u64 = 5 << 30;

/// Lines, one after the other.
pub struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    number: u64,
    done: u64,
    total: Option<u64>,
}

impl Lines {
    /// The lines of `reader`, which `path` is the name of.
    pub fn new(path: &Path, reader: Box<dyn BufRead>, total: Option<u64>) -> Self {
        Self { name: path.display().to_string(), reader, number: 0, done: 0, total }
    }

    /// Appends the next line with its end to `line`; false when there is none.
    pub fn read(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        let read = self.reader.by_ref().take(LINE_LEN_MAX).read_until(b'\n', line);
        let len = read.map_err(|error| Failure::Failed(format!("{}: {error}", self.name)))? as u64;
        self.number += u64::from(len > 0);
        self.done += len;
        if len == LINE_LEN_MAX {
            return Err(self.wrong("a line without end"));
        }
        Ok(len > 0)
    }

    /// The next line without its end; `None` when there is none. Lines without anything in them are passed over.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        while self.read(&mut line)? {
            line.truncate(line.strip_suffix(b"\n").unwrap_or(&line).len());
            line.truncate(line.strip_suffix(b"\r").unwrap_or(&line).len());
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// What is wrong with the line read last.
    pub fn wrong(&self, why: impl std::fmt::Display) -> Failure {
        Failure::Failed(format!("{}:{}: {why}", self.name, self.number))
    }

    /// Bytes read.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Bytes there are.
    pub fn total(&self) -> Option<u64> {
        self.total
    }
}
