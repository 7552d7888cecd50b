//! Long values, which go into tables of their own once and stay there, while records that refer to them move.
//!
//! ```text
//!   input    k1 = 16 KiB     k2 = 20 B     k3 ─► #7        #7 is mostly dead: what is left of it is fetched
//!               │               │            └── fetch ── k3 = 30 KiB
//!   table    k1 ─► #9:0      k2 = 20 B     k3 ─► #9:4096
//!   values   #9  [k1 = 16 KiB] [k3 = 30 KiB]
//! ```
//!
//! What is done to a record: put, and long ─► apart; a reference that `fetch` gives the record of ─► as that record;
//! anything else ─► as it is. After Lu et al., "WiscKey", FAST 2016; that a value table is a table, with whole records
//! and the checksums of one, and that its space comes back by merges alone, is told in `docs/design/values.md`.
//!
//! Threading: one run's own.

use std::io::Write;

use pebble_format::{Error, Kind, PinnedRecord, RecordRef, Reference, Result, Trailer, record};
use pebble_sstable::{TableInfo, TableOptions, TableWriter};

use crate::run::Outputs;

/// Records in a table of values at most, whatever their length: the writer remembers each.
const COUNT_MAX: u64 = 1 << 18;

/// Gives the record that a reference leads to, if that is to be written anew; `None` leaves the reference as it is.
pub type Fetch<'a> = &'a (dyn Fn(RecordRef<'_>) -> Result<Option<PinnedRecord>> + Sync);

/// Which values go apart, and which come back on their way.
#[derive(Clone)]
pub struct Apart<'a> {
    /// Bytes from which on a value goes into a table of values.
    pub from_len: usize,
    /// How tables of values are written, and at what length one is ended; the number is set for each. Blocks are so
    /// short that none holds two records: [`TableOptions::holds_values`].
    pub table: TableOptions,
    /// Asked of every reference that stays. With `None` none is written anew, and blocks of them may move whole.
    pub fetch: Option<Fetch<'a>>,
}

/// The tables of values of one run.
pub(crate) struct ValueTables<W> {
    open: Option<TableWriter<W>>,
    /// The last reference, encoded.
    encoded: Vec<u8>,
    pub(crate) done: Vec<TableInfo>,
}

impl<W> Default for ValueTables<W> {
    fn default() -> Self {
        Self { open: None, encoded: Vec::new(), done: Vec::new() }
    }
}

impl<W: Write> ValueTables<W> {
    /// Writes a record with a long value, and gives the one that takes its place, encoded.
    pub(crate) fn put<O: Outputs<Writer = W>>(
        &mut self,
        record: RecordRef<'_>,
        apart: &Apart<'_>,
        outputs: &mut O,
    ) -> Result<&[u8]> {
        let is_full = |open: &TableWriter<W>| open.is_full() || open.count() >= COUNT_MAX;
        if self.open.as_ref().is_some_and(is_full) {
            self.end(outputs)?;
        }
        let (number, writer) = match &mut self.open {
            Some(writer) => (writer.number(), writer),
            None => {
                let (number, to) = outputs.create()?;
                let writer = TableWriter::new(to, TableOptions { number, ..apart.table.clone() })?;
                (number, self.open.insert(writer))
            }
        };
        // Each record has a block of its own, and this one's begins where the last one ends.
        let reference = Reference::new(number, writer.end_block()?, record.value().len());
        let reference = reference.ok_or_else(|| Error::invalid("a value too far back in a table"))?;
        writer.add(record)?;
        let trailer = Trailer::new(record.seqno(), Kind::Reference);
        self.encoded.resize(record::encoded_len(record.key().len(), size_of::<Reference>()), 0);
        record::encode(&mut self.encoded, record.keyspace(), record.key(), trailer, reference.bytes())?;
        Ok(&self.encoded)
    }

    /// Ends the open table, if there is one.
    pub(crate) fn end<O: Outputs<Writer = W>>(&mut self, outputs: &mut O) -> Result<()> {
        let Some(writer) = self.open.take() else { return Ok(()) };
        let (to, info) = writer.finish()?;
        outputs.finish(to, &info)?;
        self.done.push(info);
        Ok(())
    }
}
