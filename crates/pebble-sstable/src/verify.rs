//! Everything that can be known of a table, checked: what a read takes on trust as well.
//!
//! Threading: reads only; may run beside any other use of the table. Memory: one block and two keys.

use pebble_cursor::{cmp_ends, ends_behind};
use pebble_format::hash::key_hash;
use pebble_format::table::{BUCKET_SLOTS, IndexKind, RegionId, granule_location, slot_location};
use pebble_format::{Corruption, OwnedKey, RecordRef, Result, Seqno};

use crate::block::Block;
use crate::bloom;
use crate::index::Candidates;
use crate::ranges::{Entries, entries};
use crate::referred::Tally;
use crate::table::Table;

/// What [`Table::verify`] has read and found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Data blocks.
    pub blocks: u32,
    /// Records.
    pub records: u64,
    /// Different user keys.
    pub keys: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Tombstones of ranges.
    pub range_deletes: u32,
    /// Bytes of the data blocks, uncompressed.
    pub raw_len: u64,
}

struct Walk<'a> {
    report: VerifyReport,
    /// The entries of the range deletes that are still to come.
    ranges: Entries<'a>,
    previous: Option<OwnedKey>,
    seqnos: Option<(Seqno, Seqno)>,
    key_bytes: u64,
    value_bytes: u64,
    referred: Tally,
}

impl Table {
    /// Reads the whole table, past any cache and whatever was verified before, and checks what a read does
    /// not: the order over all blocks, the counts, bounds and sums of the footer, that the point index leads to
    /// every key and holds nothing else, and that every range delete has its entry and every entry its range
    /// delete. Cost: about 30 ns a record.
    ///
    /// Errors: `Corruption` naming the first thing that does not hold; `Io`.
    pub fn verify(&self) -> Result<VerifyReport> {
        let mut walk = Walk {
            report: VerifyReport::default(),
            ranges: entries(self.meta().region(RegionId::RangeDeletes)),
            previous: None,
            seqnos: None,
            key_bytes: 0,
            value_bytes: 0,
            referred: Tally::default(),
        };
        for number in 0..self.info().blocks {
            let block = self.recheck_block(number)?;
            self.walk_block(&mut walk, number, &block)?;
        }
        self.check_sums(&walk)?;
        Ok(walk.report)
    }

    /// Hands every record to `visit`, in order, until that fails. Each block is read and checked past any cache, as by
    /// [`Table::verify`], and does not count as read ([`Table::blocks_read`]).
    ///
    /// Errors: those of `visit`; `Corruption` of a block; `Io`.
    pub fn each_once(&self, visit: &mut dyn FnMut(RecordRef<'_>) -> Result<()>) -> Result<()> {
        for number in 0..self.info().blocks {
            let block = self.recheck_block(number)?;
            for slot in 0..block.count() {
                visit(block.record(slot).map_err(|found| self.in_block(number, found))?)?;
            }
        }
        Ok(())
    }

    fn walk_block(&self, walk: &mut Walk<'_>, number: u32, block: &Block) -> Result<()> {
        let offset = self.meta().block(number).map_or(0, |place| place.offset);
        let mut start = offset;
        for slot in 0..block.count() {
            let record = block.record(slot).map_err(|found| self.in_block(number, found))?;
            let key = record.internal_key();
            let previous = walk.previous.as_ref().map(OwnedKey::as_ref);
            match previous {
                Some(previous) if previous >= key => {
                    return Err(self.corrupt(Corruption::new(
                        "order of the blocks",
                        start,
                        0,
                        number.into(),
                    )));
                }
                None if key != self.first().as_ref() => {
                    return Err(self.corrupt(Corruption::new("first key", start, 0, 1)));
                }
                _ => {}
            }
            if !previous.is_some_and(|previous| previous.same_key(&key)) {
                walk.report.keys += 1;
                self.check_indexed(record, number, slot, start)?;
            }
            if record.is_range_delete() {
                self.check_entry(walk, record, start)?;
            }
            walk.report.records += 1;
            walk.report.tombstones += u64::from(record.is_tombstone());
            walk.key_bytes += record.key().len() as u64;
            walk.value_bytes += record.value().len() as u64;
            walk.referred.add(record);
            let (min, max) = walk.seqnos.unwrap_or((record.seqno(), record.seqno()));
            walk.seqnos = Some((min.min(record.seqno()), max.max(record.seqno())));
            walk.previous = Some(OwnedKey::new(key));
            start += record.raw().len() as u64;
        }
        walk.report.blocks += 1;
        walk.report.raw_len += block.len() as u64;
        Ok(())
    }

    /// Checks the entry of a range delete, which starts at `start`. It may end before the record does, where the range
    /// goes on in the next table, but not before the table.
    fn check_entry(&self, walk: &mut Walk<'_>, record: RecordRef<'_>, start: u64) -> Result<()> {
        walk.report.range_deletes += 1;
        let entry = walk.ranges.next().and_then(Result::ok);
        let found = entry.is_some_and(|(_, entry)| {
            let last = self.last().as_ref();
            let clipped = cmp_ends(entry.end, record.value()).is_lt()
                && entry.keyspace == last.keyspace
                && ends_behind(entry.end, last.user_key);
            entry.record_key() == record.internal_key() && (clipped || entry.end == record.value())
        });
        if found {
            return Ok(());
        }
        Err(self.corrupt(Corruption::new(
            "entry of a range delete",
            start,
            walk.report.range_deletes.into(),
            0,
        )))
    }

    /// Checks that the point index leads to the newest record of a key, which starts at `start` if its block
    /// is stored as it is.
    fn check_indexed(&self, record: RecordRef<'_>, number: u32, slot: u16, start: u64) -> Result<()> {
        let meta = self.meta();
        let hash = key_hash(record.keyspace(), record.key());
        let location = match meta.index {
            IndexKind::None => return Ok(()),
            IndexKind::Bloom => {
                let filter = meta.region(RegionId::PointIndex);
                if bloom::may_contain(filter, hash, meta.footer.probes) {
                    return Ok(());
                }
                None
            }
            IndexKind::Granule => granule_location(start),
            IndexKind::Slot => slot_location(number, slot),
        };
        let found = location.is_some_and(|location| {
            Candidates::new(meta.buckets(), hash).any(|candidate| candidate == location)
        });
        if found {
            return Ok(());
        }
        Err(self.corrupt(Corruption::new("point index misses a key", start, 1, 0)))
    }

    fn check_sums(&self, walk: &Walk<'_>) -> Result<()> {
        let info = self.info();
        let (min, max) = walk.seqnos.unwrap_or_default();
        let report = &walk.report;
        let mut sums = vec![
            ("keys", info.keys, report.keys),
            ("tombstones", info.tombstones, report.tombstones),
            ("range deletes", info.range_deletes.into(), report.range_deletes.into()),
            ("smallest sequence number", info.seqno_min.0, min.0),
            ("largest sequence number", info.seqno_max.0, max.0),
            ("key bytes", info.key_bytes, walk.key_bytes),
            ("value bytes", info.value_bytes, walk.value_bytes),
            ("last key", 0, u64::from(walk.previous.as_ref() != Some(self.last()))),
            ("list of references", 0, u64::from(walk.referred.list() != info.referred)),
        ];
        if matches!(self.index_kind(), IndexKind::Granule | IndexKind::Slot) {
            let empty = |slot: u32| slot == 0;
            let slots = self.meta().buckets().iter().flat_map(|bucket| bucket.slots);
            let used = slots.filter(|slot| !empty(slot.get())).count();
            sums.push(("slots of the point index", info.keys, used as u64));
            let buckets = self.meta().buckets().len();
            sums.push(("room in the point index", 1, u64::from(buckets * BUCKET_SLOTS > used)));
        }
        let footer_at = info.len - pebble_format::table::TABLE_FOOTER_LEN as u64;
        match sums.into_iter().find(|(_, expected, got)| expected != got) {
            Some((what, expected, got)) => Err(self.corrupt(Corruption::new(what, footer_at, expected, got))),
            None => Ok(()),
        }
    }
}
