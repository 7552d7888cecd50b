//! Values that lie in a table of their own: what a table says of those that its records refer to, and how one is
//! fetched.
//!
//! ```text
//!   table 12   k3 ─► 9:0   k5 ─► 7:4096   k8 ─► 9:8192     its list: 7 with so many bytes, 9 with so many
//!   table 9    [k3 …] [k8 …]      table 7    [k1 …] [k5 …]      k1 is referred to by nobody any more
//! ```
//!
//! A reference is a table's number and where in its file the value's block begins, in units of 4 bytes.
//!
//! From the lists of all tables follows what of a table of values is still wanted, without a look at a record.
//!
//! Threading: plain data; fetching is as any read of a [`Table`].

use std::collections::BTreeMap;

use pebble_format::table::ReferredEntry;
use pebble_format::{Corruption, InternalKey, Kind, PinnedRecord, RecordRef, Reference, Result};
use zerocopy::{FromBytes, IntoBytes};

use crate::ranges;
use crate::source::{Source, usize_of};
use crate::table::Table;

/// How much of another table the records of one refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Referred {
    /// The other table's number.
    pub table: u64,
    /// Bytes of all values that are referred to.
    pub bytes: u64,
}

/// A list in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<u64, u64>);

impl Tally {
    /// Counts a record, if it refers to another table.
    #[inline]
    pub(crate) fn add(&mut self, record: RecordRef<'_>) {
        if record.is_reference()
            && let Ok(found) = Reference::read(record.value())
        {
            let bytes = self.0.entry(found.table.get()).or_default();
            *bytes = bytes.saturating_add(found.value_len.get().into());
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        for (table, bytes) in other.0 {
            let own = self.0.entry(table).or_default();
            *own = own.saturating_add(bytes);
        }
    }

    pub(crate) fn list(&self) -> Box<[Referred]> {
        self.0.iter().map(|(table, bytes)| Referred { table: *table, bytes: *bytes }).collect()
    }
}

/// The list as it stands in a table.
pub(crate) fn encode(list: &[Referred]) -> Vec<u8> {
    let entry = |of: &Referred| ReferredEntry { table: of.table.into(), bytes: of.bytes.into() };
    list.iter().map(entry).collect::<Vec<_>>().as_bytes().to_vec()
}

/// The list that `bytes` hold. Errors with an offset relative to them.
pub(crate) fn decode(bytes: &[u8]) -> Result<Box<[Referred]>, Corruption> {
    let Ok(entries) = <[ReferredEntry]>::ref_from_bytes(bytes) else {
        return Err(Corruption::new(
            "length of a list of references",
            0,
            size_of::<ReferredEntry>() as u64,
            bytes.len() as u64,
        ));
    };
    let ascends = |pair: &[ReferredEntry]| matches!(pair, [a, b] if a.table.get() < b.table.get());
    if !entries.windows(2).all(ascends) || entries.iter().any(|entry| entry.bytes.get() == 0) {
        return Err(Corruption::new("order of a list of references", 0, 0, entries.len() as u64));
    }
    Ok(entries.iter().map(|entry| Referred { table: entry.table.get(), bytes: entry.bytes.get() }).collect())
}

/// Whether the value of a record is what its kind says: a range, a reference, or anything.
#[inline]
pub(crate) fn is_sound(record: RecordRef<'_>) -> bool {
    record.is_plain()
        || ranges::has_range(record) && (!record.is_reference() || Reference::read(record.value()).is_ok())
}

impl Table {
    /// The record that a reference of the record with `key` leads to in this table: the same key and number, and the
    /// value. Cost: the record's own miss, if the table is mapped and not compressed; its checksum where it is the
    /// first.
    ///
    /// Errors: `Corruption` if there is no such record, or its block is damaged; `Io`.
    pub fn referred(&self, reference: &Reference, key: InternalKey<'_>) -> Result<PinnedRecord> {
        let offset = reference.offset();
        let found = match &self.source {
            Source::Place(whole) if !self.pages_verified.is_empty() => {
                self.verify_page(offset)?;
                let end = usize_of(self.meta.info.data_len);
                PinnedRecord::parse(whole.slice(usize_of(offset).min(end)..end))
            }
            _ => self.block(self.block_from(offset)?)?.pinned(0),
        };
        self.check_referred(found, reference, key)
    }

    /// As [`Table::referred`], for one who moves the value or checks it: no cache holds it afterwards, and it does not
    /// count as read ([`Table::blocks_read`]). Cost: its checksum each time.
    pub fn referred_once(&self, reference: &Reference, key: InternalKey<'_>) -> Result<PinnedRecord> {
        let number = self.block_from(reference.offset())?;
        let block = self.recheck_block(number)?;
        self.check_referred(block.pinned(0), reference, key)
    }

    /// The number of the block that begins at `offset`.
    fn block_from(&self, offset: u64) -> Result<u32> {
        let number = self.meta.block_at(offset);
        let place = self.meta.block(number).map_err(|corruption| self.corrupt(corruption))?;
        if place.offset == offset {
            return Ok(number);
        }
        Err(self.corrupt(Corruption::new("block that is referred to", offset, place.offset, offset)))
    }

    /// The record that was found, if it is the one that is referred to.
    fn check_referred(
        &self,
        found: Result<PinnedRecord, Corruption>,
        reference: &Reference,
        key: InternalKey<'_>,
    ) -> Result<PinnedRecord> {
        let found = found.map_err(|corruption| self.corrupt(corruption.at(reference.offset())))?;
        let record = found.record();
        let is_it = record.internal_key().same_key(&key)
            && record.seqno() == key.trailer.seqno()
            && record.trailer().kind() == Some(Kind::Put)
            && record.value().len() as u64 == u64::from(reference.value_len.get());
        if is_it {
            return Ok(found);
        }
        let expected = key.trailer.seqno().0;
        let got = record.seqno().0;
        let what = "record that is referred to";
        Err(self.corrupt(Corruption::new(what, reference.offset(), expected, got)))
    }
}
