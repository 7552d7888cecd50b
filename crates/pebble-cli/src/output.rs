//! Data on stdout: buffered, and quiet about a reader that has gone.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Stdout, until it is dropped.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Takes stdout.
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(|error| Failure::of_stdout(&error))
    }

    /// A line of text.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<()> {
        self.bytes(text.as_ref().as_bytes())?;
        self.bytes(b"\n")
    }

    /// A value as one line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> Result<()> {
        self.line(serde_json::to_string(value).map_err(|error| Failure::Failed(error.to_string()))?)
    }

    /// Sends out what is buffered: an error shows here, and not when it is dropped.
    pub fn flush(&mut self) -> Result<()> {
        self.0.flush().map_err(|error| Failure::of_stdout(&error))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
