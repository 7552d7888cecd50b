//! The one writer of a memtable: which record, in which region, goes into the tree.
//!
//! Threading: [`MemtableWriter`] is unique and takes `&mut self`; readers run at any time.

use std::sync::Arc;

use pebble_cursor::{Cursor, RangeDelete};
use pebble_format::hash::key_hash;
use pebble_format::limits::RECORD_ALIGN;
use pebble_format::{AppendRegion, Error, HeadPrefix, InternalKey, RecordRef, Result, Seqno, record};

use crate::dead::DeadRanges;
use crate::finger::Finger;
use crate::memtable::Memtable;
use crate::tree::Target;
use crate::way::Way;
use crate::windows::Windows;

/// Fewer records read are no sign yet.
const READS_MIN: usize = 256;

/// Records that are indexed anew at most, in one go and under the writer's lock: a few milliseconds. With more of them
/// it is left to the next memtable to know better.
const RELEARN_MAX: usize = 1 << 15;

/// The right to insert into one [`Memtable`]. See the [crate] for an example.
pub struct MemtableWriter {
    shared: Arc<Memtable>,
    /// The attached region, and the position of its first byte.
    region: Option<(Arc<AppendRegion>, u32)>,
    finger: Finger,
    dead: DeadRanges,
}

impl MemtableWriter {
    pub(crate) fn new(prefix: HeadPrefix, keys: usize) -> Self {
        let (tree, finger) = Finger::plant(prefix);
        Self {
            shared: Arc::new(Memtable::over(tree, keys)),
            region: None,
            finger,
            dead: DeadRanges::default(),
        }
    }

    /// The memtable, to be shared with readers.
    pub fn shared(&self) -> &Arc<Memtable> {
        &self.shared
    }

    /// Makes `region` the one that following inserts refer to, and keeps it alive as long as the memtable lives.
    /// Attaching a region again is free. `false` when the position space is used up: seal this memtable and attach
    /// the region to a new one. Until another attach succeeds, inserts are refused rather than read from the wrong
    /// region. A region takes one of 256 windows for each 64 MiB of its capacity or part of it.
    ///
    /// Errors: `InvalidArgument` when not even an empty memtable could hold the region (16 GiB).
    pub fn attach(&mut self, region: &Arc<AppendRegion>) -> Result<bool> {
        self.region = None;
        if Windows::never_holds(region) {
            return Err(Error::invalid(format!("a region of {} bytes", region.capacity())));
        }
        let base = self.shared.tree.windows.attach(region);
        self.region = base.map(|base| (Arc::clone(region), base));
        Ok(base.is_some())
    }

    /// Remembers that a reader at `range.seqno` found every key of a range deleted, here and in all that is older;
    /// `now` is the newest sequence number inserted. False, and nothing is remembered, when something was put into
    /// the range since, or that would be too long to find out. A put into the range takes it back before that put
    /// can be seen.
    ///
    /// Cost: a look at what is new in the range, up to 4,096 records.
    pub fn mark_dead(&mut self, range: RangeDelete, now: Seqno) -> bool {
        self.dead.mark(&self.shared, range, now)
    }

    /// Finds the place of a record that is about to be laid out, and asks for the memory of it: by the time that the
    /// record is there and inserted, so is its place. Cost: most of an insert, which takes that much less after.
    #[inline]
    pub fn approach<'k>(&self, key: InternalKey<'k>) -> Approach<'k> {
        approach(&self.shared, &self.finger, key)
    }

    /// Indexes the record at `offset` of the attached region, which must be filled that far. Cost: one
    /// descent and about one cache miss, a few hundred nanoseconds at half a million random keys; no descent, and a
    /// fraction of that, for ascending ones. A range delete costs a copy of all others in the memtable besides: cheap
    /// while they are few (see [`Memtable::range_delete_count`]).
    ///
    /// The record is found by readers once this returns; which of them may use it is for its sequence number to say.
    ///
    /// Errors, after which nothing has changed: `InvalidArgument` without an attached region, at an offset behind
    /// what is filled or not a multiple of four, for a record whose (keyspace, key, trailer) is indexed already, or
    /// when the memtable is full; `Corruption` when the bytes there are no record.
    pub fn insert(&mut self, offset: usize) -> Result<()> {
        self.insert_each(std::iter::once(offset))
    }

    /// As [`MemtableWriter::insert`], for the records at these offsets; their range deletes cost one copy together.
    ///
    /// Errors: as there, after which those before the one that failed are indexed.
    pub fn insert_each(&mut self, offsets: impl IntoIterator<Item = usize>) -> Result<()> {
        let (region, mut indexer) = self.parts()?;
        let mut range_deletes = Vec::new();
        let done = offsets.into_iter().try_for_each(|offset| {
            let record = record_at(region, offset)?;
            indexer.insert(offset, record, &indexer.approach(record))?;
            range_deletes.extend(RangeDelete::of(record));
            Ok(())
        });
        indexer.shared.ranges.add(range_deletes);
        done
    }

    /// As [`MemtableWriter::insert`], for the record of a key that was approached. It does not matter what was inserted
    /// since; an approach of another memtable serves too, at the cost of none.
    ///
    /// Errors: as there, and `InvalidArgument` for a record of another key.
    #[inline]
    pub fn insert_approached(&mut self, offset: usize, approach: &Approach<'_>) -> Result<()> {
        if !self.finger.is_on(&approach.way) {
            // Its head and its hash are of another prefix, perhaps, and of another filter.
            return self.insert(offset);
        }
        let (region, mut indexer) = self.parts()?;
        let record = record_at(region, offset)?;
        if record.internal_key() != approach.target.key {
            return Err(Error::invalid("a record of another key than the one that was approached"));
        }
        indexer.insert(offset, record, approach)?;
        if record.is_range_delete() {
            indexer.shared.ranges.add(RangeDelete::of(record).into_iter().collect());
        }
        Ok(())
    }

    /// As [`MemtableWriter::insert`], for all records from `offset` on to the end of what is filled. The next one's
    /// place is approached before one is inserted, so that they do not wait for memory one after the other; range
    /// deletes cost one copy together.
    ///
    /// Errors: as there, after which those before the one that failed are indexed, but perhaps the last of them.
    pub fn insert_all(&mut self, offset: usize) -> Result<()> {
        let (region, mut indexer) = self.parts()?;
        let mut range_deletes = Vec::new();
        let done = indexer.insert_all(tail(region, offset)?, offset, &mut range_deletes);
        indexer.shared.ranges.add(range_deletes);
        done
    }

    /// The attached region, and what indexes its records.
    #[inline]
    fn parts(&mut self) -> Result<(&AppendRegion, Indexer<'_>)> {
        let Self { shared, region, finger, dead } = self;
        let (region, base) = region.as_ref().ok_or_else(no_region)?;
        Ok((region, Indexer { shared, base: *base, finger, dead }))
    }

    /// Whether so many records had to be read to place others that [`MemtableWriter::relearned`] is worth a call. Cost:
    /// two loads.
    #[inline]
    pub fn reads_much(&self) -> bool {
        self.finger.reads >= READS_MIN && self.finger.reads >= self.shared.len()
    }

    /// The same records under heads that tell them apart, where those of this memtable do not: the writer of a
    /// successor that is to take its place, for what is inserted and for new readers. Those who read the old one find
    /// all that it held.
    ///
    /// A memtable that was made with no prefix, or with one that no longer fits, reads several records for each that
    /// is inserted. `None` while few were read, and where another prefix would not help or comes too late to pay. Dead
    /// ranges are not taken along.
    ///
    /// Cost: an insert in ascending order for each record, at most 32,768.
    ///
    /// Errors: as [`MemtableWriter::insert`], after which this one is as it was.
    #[cold]
    pub fn relearned(&mut self) -> Result<Option<Self>> {
        if !self.reads_much() {
            return Ok(None);
        }
        self.finger.reads = 0;
        let len = self.shared.len();
        // What comes will differ where the few that are there do not: a counter grows by digits.
        let spare = if len < RELEARN_MAX / 8 { 2 } else { 1 };
        let prefix = self.shared.learned_prefix().without_last(spare);
        if len > RELEARN_MAX || prefix == self.shared.tree.prefix {
            return Ok(None);
        }
        let mut next = Self::new(prefix, self.shared.filter.keys());
        next.shared.tree.windows.attach_all(&self.shared.tree.windows);
        next.region = self.region.as_ref().map(|(region, base)| (Arc::clone(region), *base));
        let mut cursor = self.shared.cursor();
        cursor.first()?;
        let mut range_deletes = Vec::new();
        while let Some((record, position)) = cursor.record_and_position() {
            let approach = approach(&next.shared, &next.finger, record.internal_key());
            index(&next.shared, &mut next.finger, record, &approach, position)?;
            range_deletes.extend(RangeDelete::of(record));
            cursor.next()?;
        }
        next.shared.ranges.add(range_deletes);
        next.finger.reads = 0;
        Ok(Some(next))
    }
}

/// The place of a record that is about to come, as far as it is known: see [`MemtableWriter::approach`].
#[derive(Clone, Copy)]
pub struct Approach<'k> {
    target: Target<'k>,
    hash: u64,
    way: Way,
}

/// What indexes the records of one region.
struct Indexer<'w> {
    shared: &'w Memtable,
    /// The position of the region's first byte.
    base: u32,
    finger: &'w mut Finger,
    dead: &'w mut DeadRanges,
}

impl Indexer<'_> {
    #[inline]
    fn approach<'r>(&self, record: RecordRef<'r>) -> Approach<'r> {
        approach(self.shared, self.finger, record.internal_key())
    }

    #[inline]
    fn insert(&mut self, offset: usize, record: RecordRef<'_>, approach: &Approach<'_>) -> Result<()> {
        let granule = u32::try_from(offset / RECORD_ALIGN).ok();
        let Some(position) = granule.and_then(|granule| self.base.checked_add(granule)) else {
            return Err(Error::invalid(format!("offset {offset} lies outside the attached region")));
        };
        index(self.shared, self.finger, record, approach, position)?;
        self.dead.inserted(self.shared, record);
        Ok(())
    }

    /// Inserts the records that `bytes`, which lie at `offset`, are made of, and collects the range deletes among them.
    fn insert_all(
        &mut self,
        bytes: &[u8],
        offset: usize,
        range_deletes: &mut Vec<RangeDelete>,
    ) -> Result<()> {
        let mut waiting: Option<(usize, RecordRef<'_>, Approach<'_>)> = None;
        let mut insert = |(offset, record, approach): (usize, RecordRef<'_>, Approach<'_>),
                          this: &mut Self| {
            this.insert(offset, record, &approach)?;
            if record.is_range_delete() {
                range_deletes.extend(RangeDelete::of(record));
            }
            Ok(())
        };
        for found in record::records(bytes) {
            let (at, record) = found.map_err(|corruption| corruption.at(offset as u64))?;
            let next = (offset + at, record, self.approach(record));
            waiting.replace(next).map_or(Ok(()), |before| insert(before, self))?;
        }
        waiting.map_or(Ok(()), |last| insert(last, self))
    }
}

#[inline]
fn approach<'k>(shared: &Memtable, finger: &Finger, key: InternalKey<'k>) -> Approach<'k> {
    let (tree, filter) = (&shared.tree, &shared.filter);
    let hash = if filter.is_there() { key_hash(key.keyspace, key.user_key) } else { 0 };
    filter.prefetch(hash);
    let target = tree.target(key);
    Approach { target, hash, way: finger.approach(tree, &target) }
}

/// Makes the record at `position`, whose key was approached, one that readers find. What a range delete hides is for
/// the caller to tell.
#[inline(always)]
fn index(
    shared: &Memtable,
    finger: &mut Finger,
    record: RecordRef<'_>,
    approach: &Approach<'_>,
    position: u32,
) -> Result<()> {
    finger.insert(&shared.tree, &approach.target, &approach.way, position)?;
    shared.filter.add(approach.hash);
    shared.totals.add(&record);
    Ok(())
}

/// A region's bytes from `offset` on, where a record can be.
#[inline]
fn tail(region: &AppendRegion, offset: usize) -> Result<&[u8]> {
    let bytes = region.tail(offset).filter(|_| offset.is_multiple_of(RECORD_ALIGN));
    bytes.ok_or_else(|| Error::invalid(format!("no record can be at offset {offset}")))
}

/// The record at an offset of a region.
#[inline]
fn record_at(region: &AppendRegion, offset: usize) -> Result<RecordRef<'_>> {
    Ok(RecordRef::parse(tail(region, offset)?).map_err(|corruption| corruption.at(offset as u64))?)
}

#[cold]
fn no_region() -> Error {
    Error::invalid("insert before a region is attached")
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use pebble_format::{KeyspaceId, Kind, Trailer, record};

    use super::*;

    #[test]
    fn records_are_seldom_read_to_place_another() {
        const TENANTS: u64 = 100;
        let mut writer = MemtableWriter::new(HeadPrefix::none(), 0);
        let mut appender = AppendRegion::heap(8 << 20);
        assert!(writer.attach(appender.region()).unwrap());
        for n in 0..50_000_u64 {
            let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let name = format!("some tenant has the number {:04}", n % TENANTS);
            let key = [name.as_bytes(), &number.to_be_bytes()].concat();
            let (at, trailer) = (appender.filled(), Trailer::new(Seqno(n + 1), Kind::Put));
            let len = record::encode(appender.spare(), KeyspaceId(n as u16 % 3), &key, trailer, b"").unwrap();
            appender.fill(len);
            writer.insert(at).unwrap();
        }
        let reads = writer.finger.reads;
        assert!(reads < 25_000, "{reads} records read for 50000 inserts");
    }
}
