//! What stands for zstd in a build without it: types of no values, so that no code path leads to them.
//!
//! [`TableOptions::check`](crate::TableOptions::check) keeps a writer away, and opening a table that has zstd blocks
//! answers `UnsupportedCodec`. Threading: nothing to share.

use std::io::Write;

use pebble_format::{OwnedKey, Result};

use crate::data::Data;
use crate::options::Compression;

/// Whether this build reads and writes zstd blocks.
pub(crate) const SUPPORTED: bool = false;

/// A dictionary that no build without zstd can have.
#[derive(Debug)]
pub(crate) enum Dictionary {}

impl Dictionary {
    pub(crate) fn prepare(_bytes: &[u8]) -> Option<Self> {
        None
    }

    pub(crate) fn memory(&self) -> usize {
        match *self {}
    }
}

pub(crate) fn expand(_stored: &[u8], _raw: &mut [u8], _dictionary: Option<&Dictionary>) -> Option<usize> {
    None
}

/// A compressor that no build without zstd can have.
#[derive(Debug)]
pub(crate) enum Packer {}

impl Packer {
    pub(crate) fn of(_compression: Compression) -> Result<Option<Self>> {
        Ok(None)
    }

    pub(crate) fn waiting(&self) -> usize {
        match *self {}
    }

    pub(crate) fn waiting_len(&self) -> usize {
        match *self {}
    }

    pub(crate) fn dictionary(&self) -> &[u8] {
        match *self {}
    }

    pub(crate) fn push<W: Write>(
        &mut self,
        _raw: &[u8],
        _count: u16,
        _first: OwnedKey,
        _data: &mut Data<W>,
    ) -> Result<()> {
        match *self {}
    }

    pub(crate) fn settle<W: Write>(&mut self, _data: &mut Data<W>) -> Result<()> {
        match *self {}
    }
}
