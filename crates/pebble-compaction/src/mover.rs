//! The writing half of a run: tables, where they are cut, and range deletes that are cut with them.
//!
//! ```text
//!   records         a   c   f    │   k   m        a cut at g:
//!   range deletes     [b ────────┼──── l)         one table ends with [b ─ g), the next begins with [g ─ l)
//! ```
//!
//! So every table holds what hides keys of its own part, and later merges may take one part without the others.
//!
//! Threading: one run's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use pebble_cursor::{RangeDelete, WholeBlock, cmp_ends, ends_behind};
use pebble_format::{InternalKey, Kind, OwnedKey, RecordRef, Result, Seqno, Trailer, record};
use pebble_sstable::{TableOptions, TableWriter};

use crate::apart::{Apart, ValueTables};
use crate::run::{Job, Outputs, RunResult, before};

/// The table that is being written, and those that are done.
pub(crate) struct Mover<'a, O: Outputs> {
    outputs: &'a mut O,
    job: &'a Job<'a>,
    /// The cuts that are still ahead.
    cuts: &'a [OwnedKey],
    open: Option<TableWriter<O::Writer>>,
    values: ValueTables<O::Writer>,
    /// Range deletes that are still ahead, in the order of the records that they will be.
    ahead: BTreeMap<OwnedKey, RangeDelete>,
    /// Range deletes in the open table.
    within: Vec<RangeDelete>,
    /// The last range delete, encoded.
    encoded: Vec<u8>,
    pub(crate) done: RunResult,
}

impl<'a, O: Outputs> Mover<'a, O> {
    pub(crate) fn new(outputs: &'a mut O, job: &'a Job<'a>, range_deletes: Vec<RangeDelete>) -> Self {
        let inside = range_deletes.into_iter().filter_map(|delete| within_range(delete, job));
        Self {
            outputs,
            job,
            cuts: job.cut_at,
            open: None,
            values: ValueTables::default(),
            ahead: inside.map(|delete| (place(&delete), delete)).collect(),
            within: Vec::new(),
            encoded: Vec::new(),
            done: RunResult::default(),
        }
    }

    /// Writes a record that stays. `new_key` says that no other of its user key was written.
    #[inline]
    pub(crate) fn write(&mut self, record: RecordRef<'_>, new_key: bool) -> Result<()> {
        if self.ahead.is_empty() {
            // A range delete of this very key may stand before it in the table.
            if new_key && (self.within.is_empty() || self.is_new(record.internal_key())) {
                while self.cut_before(record.internal_key())? {}
            }
            if self.ahead.is_empty() {
                return self.add(record);
            }
        }
        self.write_range_deletes(Some(record.internal_key()))?;
        self.add(record)
    }

    /// Writes the range deletes that stand before `key`, and ends the table where a cut or its length asks for it. On
    /// return `key` may be written.
    fn write_range_deletes(&mut self, key: Option<InternalKey<'_>>) -> Result<()> {
        loop {
            let first = self.ahead.first_key_value().map(|(place, _)| place.clone());
            let first = first.filter(|place| key.is_none_or(|key| place.as_ref() < key));
            let Some(next) = first.as_ref().map(OwnedKey::as_ref).or(key) else { return Ok(()) };
            // A cut may bring a rest of a range delete to stand before it.
            if self.is_new(next) && self.cut_before(next)? {
                continue;
            }
            let Some(first) = first else { return Ok(()) };
            if let Some(delete) = self.ahead.remove(&first) {
                self.add_range_delete(delete)?;
            }
        }
    }

    /// Whether the key is not that of the last record of the open table.
    #[inline]
    pub(crate) fn is_new(&self, key: InternalKey<'_>) -> bool {
        let last = self.open.as_ref().and_then(TableWriter::last_key);
        !last.is_some_and(|last| last.same_key(&key))
    }

    /// Ends the open table if a cut that was passed, or its length, asks for it. Says whether it did.
    fn cut_before(&mut self, key: InternalKey<'_>) -> Result<bool> {
        while let Some((cut, ahead)) = self.cuts.split_first() {
            if cut.as_ref().cmp_user(&key).is_gt() {
                break;
            }
            self.cuts = ahead;
            if self.open.as_ref().is_some_and(|open| open.data_len() >= self.job.cut_len_min) {
                self.end_table(Some(before(cut)))?;
                return Ok(true);
            }
        }
        let full = self.open.as_ref().is_some_and(TableWriter::is_full);
        if full {
            self.end_table(Some(key))?;
        }
        Ok(full)
    }

    /// Writes a block as it is stored, if no border falls into it and the table takes it; says whether. All its records
    /// stay, `first` is its first key, and no other version of that one was written.
    pub(crate) fn write_block(&mut self, block: &WholeBlock<'_>, first: InternalKey<'_>) -> Result<bool> {
        self.write_range_deletes(Some(first))?;
        let last = block.last.internal_key();
        let parted = self.cuts.first().is_some_and(|cut| cut.as_ref().cmp_user(&last).is_le())
            || self.ahead.keys().next().is_some_and(|place| place.as_ref().cmp_user(&last).is_le());
        if parted || !self.is_new(first) {
            return Ok(false);
        }
        let writer = match &mut self.open {
            Some(writer) => writer,
            None => self.open.insert(create(self.outputs, self.job)?),
        };
        if !writer.takes(block) {
            return Ok(false);
        }
        writer.add_block(block)?;
        self.done.written += u64::from(block.count);
        self.done.written_bytes += block.records.len() as u64;
        self.done.whole_blocks += 1;
        Ok(true)
    }

    #[inline]
    fn add(&mut self, record: RecordRef<'_>) -> Result<()> {
        match &self.job.apart {
            Some(apart) if record.is_reference() || record.value().len() >= apart.from_len => {
                self.add_long(record, apart)
            }
            _ => self.add_as_it_is(record),
        }
    }

    /// Adds a reference, or a record that may go apart.
    #[inline(never)]
    fn add_long(&mut self, record: RecordRef<'_>, apart: &Apart<'_>) -> Result<()> {
        let fetched = match apart.fetch {
            Some(fetch) if record.is_reference() => fetch(record)?,
            _ => None,
        };
        let record = fetched.as_ref().map_or(record, |fetched| fetched.record());
        let is_put = record.trailer().kind() == Some(Kind::Put);
        if !is_put || record.value().len() < apart.from_len {
            return self.add_as_it_is(record);
        }
        let mut values = std::mem::take(&mut self.values);
        let in_its_place = values.put(record, apart, self.outputs)?;
        self.add_as_it_is(RecordRef::parse(in_its_place)?)?;
        self.values = values;
        Ok(())
    }

    #[inline]
    fn add_as_it_is(&mut self, record: RecordRef<'_>) -> Result<()> {
        let writer = match &mut self.open {
            Some(writer) => writer,
            None => self.open.insert(create(self.outputs, self.job)?),
        };
        writer.add(record)?;
        self.done.written += 1;
        self.done.written_bytes += record.raw().len() as u64;
        Ok(())
    }

    fn add_range_delete(&mut self, delete: RangeDelete) -> Result<()> {
        let mut bytes = std::mem::take(&mut self.encoded);
        bytes.resize(record::encoded_len(delete.start.len(), delete.end.len()), 0);
        let trailer = Trailer::new(delete.seqno, Kind::RangeDelete);
        record::encode(&mut bytes, delete.keyspace, &delete.start, trailer, &delete.end)?;
        self.add(RecordRef::parse(&bytes)?)?;
        self.encoded = bytes;
        self.within.push(delete);
        Ok(())
    }

    /// Ends the open table before `cut`; what its range deletes hide from there on is left to the next one.
    fn end_table(&mut self, cut: Option<InternalKey<'_>>) -> Result<()> {
        let Some(writer) = self.open.take() else { return Ok(()) };
        let (to, info) = writer.finish_before(cut)?;
        self.outputs.finish(to, &info)?;
        self.done.tables.push(info);
        let within = std::mem::take(&mut self.within);
        if let Some(cut) = cut {
            let rests = within
                .into_iter()
                .filter(|delete| delete.keyspace == cut.keyspace && ends_behind(&delete.end, cut.user_key));
            for delete in rests {
                let rest = RangeDelete { start: cut.user_key.into(), ..delete };
                self.ahead.insert(place(&rest), rest);
            }
        }
        Ok(())
    }

    /// Ends the run.
    pub(crate) fn finish(mut self) -> Result<RunResult> {
        self.write_range_deletes(None)?;
        self.end_table(None)?;
        self.values.end(self.outputs)?;
        self.outputs.settle()?;
        self.done.values = self.values.done;
        Ok(self.done)
    }
}

/// A new table.
fn create<O: Outputs>(outputs: &mut O, job: &Job<'_>) -> Result<TableWriter<O::Writer>> {
    let (number, to) = outputs.create()?;
    TableWriter::new(to, TableOptions { number, ..job.table.clone() })
}

/// Where a range delete stands as a record.
fn place(delete: &RangeDelete) -> OwnedKey {
    let trailer = Trailer::new(delete.seqno, Kind::RangeDelete);
    OwnedKey::new(InternalKey { keyspace: delete.keyspace, user_key: &delete.start, trailer })
}

/// The part of a range delete that lies in the job's range.
fn within_range(mut delete: RangeDelete, job: &Job<'_>) -> Option<RangeDelete> {
    let (from, to) = job.range;
    if let Some(from) = from.map(OwnedKey::as_ref) {
        let ends = delete.keyspace < from.keyspace
            || delete.keyspace == from.keyspace && !ends_behind(&delete.end, from.user_key);
        if ends {
            return None;
        }
        if delete.keyspace == from.keyspace && *delete.start < *from.user_key {
            delete.start = from.user_key.into();
        }
    }
    if let Some(to) = to.map(OwnedKey::as_ref) {
        let start = InternalKey::lookup(delete.keyspace, &delete.start, Seqno::MAX);
        if start.cmp_user(&to).is_ge() {
            return None;
        }
        if delete.keyspace == to.keyspace && cmp_ends(&delete.end, to.user_key).is_gt() {
            delete.end = Arc::from(to.user_key);
        }
    }
    Some(delete)
}
