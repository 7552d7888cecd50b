//! Zstd, and the dictionary that a table trains for itself. Only in a build with the feature `zstd`.
//!
//! ```text
//!   push ─► waiting blocks ──100 dictionaries' worth, or the end──► records ─► train ─► pays for itself?
//!                │                                                                     │ yes: prepared
//!                └────────────────────────────────────────────────► compress ◄─────────┘ no: without
//!   push ─────────────────────────── from then on ────────────────► compress ─► Data
//! ```
//!
//! A dictionary is what small blocks lack: a past to point into, and tables of how often each symbol comes. The
//! training is zstd's own (ZDICT, after COVER of Liao, Petri, Moffat and Wirth, 2016).
//!
//! Threading: a [`Packer`] belongs to one writer. A [`Dictionary`] is immutable and shared; each thread expands with a
//! context of its own, since making one costs more than expanding a block.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;

use pebble_format::record::records;
use pebble_format::table::{Codec, DICTIONARY_LEN_MAX, DICTIONARY_MAGIC, block_tail_len};
use pebble_format::{Error, OwnedKey, Result};
use zstd::zstd_safe::{CCtx, CDict, DCtx, DDict, compress_bound};

use crate::codec;
use crate::data::{Data, Stored};
use crate::options::Compression;
use crate::writer::to_u32;

/// Whether this build reads and writes zstd blocks.
pub(crate) const SUPPORTED: bool = true;

/// Bytes of a dictionary that has all the samples it wants.
const DICTIONARY_LEN: usize = 16 << 10;

const _: () = assert!(DICTIONARY_LEN <= DICTIONARY_LEN_MAX);

/// Bytes of blocks that are held back as samples: a hundred times the dictionary, as zstd advises.
const SAMPLES_LEN: usize = 100 * DICTIONARY_LEN;

/// A dictionary has at most this part of its samples' length, where the table ends before there are enough of them.
const SAMPLES_PER_BYTE: usize = 16;

thread_local! {
    static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// A table's dictionary, prepared for expanding.
pub(crate) struct Dictionary(DDict<'static>);

impl Dictionary {
    /// Copies `bytes`; `None` where they are no dictionary to zstd.
    pub(crate) fn prepare(bytes: &[u8]) -> Option<Self> {
        DDict::try_create(bytes).map(Self)
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.0.sizeof()
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a dictionary in {} B", self.memory())
    }
}

/// Expands a frame into `raw` and says how many bytes it came to; `None` for what is no frame, or a longer one. Writes
/// nowhere else and allocates a context once a thread, whatever the frame says of its window.
pub(crate) fn expand(stored: &[u8], raw: &mut [u8], dictionary: Option<&Dictionary>) -> Option<usize> {
    let with = |context: &mut DCtx<'static>| match dictionary {
        Some(Dictionary(prepared)) => context.decompress_using_ddict(raw, stored, prepared).ok(),
        None => context.decompress(raw, stored).ok(),
    };
    CONTEXT
        .try_with(|context| {
            let mut context = context.borrow_mut();
            if context.is_none() {
                *context = DCtx::try_create();
            }
            context.as_mut().and_then(with)
        })
        .ok()
        .flatten()
}

/// Blocks that wait for the dictionary, one behind another.
#[derive(Default)]
struct Waiting {
    raw: Vec<u8>,
    /// Length, records and first key of each.
    blocks: Vec<(usize, u16, OwnedKey)>,
}

impl Waiting {
    /// Each block with its records' number.
    fn blocks(&self) -> impl Iterator<Item = (&[u8], u16, &OwnedKey)> {
        let mut rest = &*self.raw;
        self.blocks.iter().map_while(move |(len, count, first)| {
            let (block, behind) = rest.split_at_checked(*len)?;
            rest = behind;
            Some((block, *count, first))
        })
    }

    /// A dictionary from the records. One that is longer than a dictionary has its own past to point into.
    fn train(&self) -> Option<Vec<u8>> {
        let samples: Vec<&[u8]> = self
            .blocks()
            .filter_map(|(block, count, _)| block.get(..block.len() - block_tail_len(count.into())))
            .flat_map(|bytes| records(bytes).map_while(Result::ok))
            .map(|(_, record)| record.raw())
            .filter(|raw| raw.len() <= DICTIONARY_LEN)
            .collect();
        let len: usize = samples.iter().map(|raw| raw.len()).sum();
        let dictionary =
            zstd::dict::from_samples(&samples, DICTIONARY_LEN.min(len / SAMPLES_PER_BYTE)).ok()?;
        dictionary.starts_with(&DICTIONARY_MAGIC).then_some(dictionary)
    }
}

/// Compresses the blocks of one table and writes them.
pub(crate) struct Packer {
    level: i32,
    context: CCtx<'static>,
    /// The blocks so far, until it is known with which dictionary they are compressed.
    waiting: Option<Waiting>,
    /// The dictionary's bytes, and the same prepared.
    dictionary: Option<(Vec<u8>, CDict<'static>)>,
    /// The last frame.
    frame: Vec<u8>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, dictionary) = (self.waiting(), self.dictionary().len());
        write!(f, "zstd {}, {waiting} blocks wait, a dictionary of {dictionary} B", self.level)
    }
}

impl Packer {
    /// The compressor that the options ask for; `None` where they ask for another codec.
    ///
    /// Errors: `Io` where there is no memory for it.
    pub(crate) fn of(compression: Compression) -> Result<Option<Self>> {
        let Compression::Zstd { level, dictionary } = compression else { return Ok(None) };
        let context = CCtx::try_create()
            .ok_or_else(|| Error::from(std::io::Error::from(std::io::ErrorKind::OutOfMemory)))?;
        let waiting = dictionary.then(Waiting::default);
        Ok(Some(Self { level, context, waiting, dictionary: None, frame: Vec::new() }))
    }

    /// Blocks that wait. They are behind those written.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.blocks.len())
    }

    /// Their bytes, uncompressed.
    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.raw.len())
    }

    /// The dictionary; empty without one. It has been of use to at least one block.
    pub(crate) fn dictionary(&self) -> &[u8] {
        self.dictionary.as_ref().map_or(&[], |(bytes, _)| bytes)
    }

    /// Appends a closed block, at once or when there is a dictionary.
    ///
    /// Errors: `Io` from the output.
    pub(crate) fn push<W: Write>(
        &mut self,
        raw: &[u8],
        count: u16,
        first: OwnedKey,
        data: &mut Data<W>,
    ) -> Result<()> {
        let Some(waiting) = &mut self.waiting else { return self.write(raw, count, first, data) };
        waiting.raw.extend_from_slice(raw);
        waiting.blocks.push((raw.len(), count, first));
        if waiting.raw.len() >= SAMPLES_LEN { self.settle(data) } else { Ok(()) }
    }

    /// Decides on the dictionary, from the blocks that wait, and writes them. Later calls do nothing.
    ///
    /// Errors: `Io` from the output.
    pub(crate) fn settle<W: Write>(&mut self, data: &mut Data<W>) -> Result<()> {
        let Some(waiting) = self.waiting.take() else { return Ok(()) };
        self.choose(&waiting);
        waiting.blocks().try_for_each(|(raw, count, first)| self.write(raw, count, first.clone(), data))
    }

    /// Keeps a dictionary if it saves more than its own length in these blocks.
    fn choose(&mut self, waiting: &Waiting) {
        let Some(bytes) = waiting.train() else { return };
        let without = self.stored_len(waiting);
        let with_len = bytes.len();
        self.dictionary = CDict::try_create(&bytes, self.level).map(|prepared| (bytes, prepared));
        if self.stored_len(waiting) + with_len >= without {
            self.dictionary = None;
        }
    }

    fn stored_len(&mut self, waiting: &Waiting) -> usize {
        let lens =
            waiting.blocks().map(|(raw, ..)| if self.compress(raw) { self.frame.len() } else { raw.len() });
        lens.sum()
    }

    /// Makes the frame of a block; says whether it is worth storing.
    fn compress(&mut self, raw: &[u8]) -> bool {
        self.frame.clear();
        self.frame.reserve(compress_bound(raw.len()));
        let made = match &self.dictionary {
            Some((_, prepared)) => self.context.compress_using_cdict(&mut self.frame, raw, prepared),
            None => self.context.compress(&mut self.frame, raw, self.level),
        };
        made.is_ok_and(|len| codec::pays(len, raw.len()))
    }

    fn write<W: Write>(&mut self, raw: &[u8], count: u16, first: OwnedKey, data: &mut Data<W>) -> Result<()> {
        let (bytes, codec) = match self.compress(raw) {
            true => (&*self.frame, Codec::Zstd),
            false => (raw, Codec::None),
        };
        data.write(&Stored { bytes, codec, crc: None, raw_len: to_u32(raw.len())?, count }, first)
    }
}
