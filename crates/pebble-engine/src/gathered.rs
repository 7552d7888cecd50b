//! Records of a log on their way into tables: gathered in the order of time, written in the order of keys.
//!
//! ```text
//!   log   d#1 a#2 c#3 a#4 …  ──►  places  ──►  sorted by head  ──►  a#4 a#2 c#3 d#1  ──►  a run of tables
//! ```
//!
//! No memtable is made of them, for nobody reads them here: twelve bytes a record are sorted instead, and what the one
//! walk over them waits for can be asked for ahead.
//!
//! Threading: plain memory of one thread.

use std::cmp::Ordering;
use std::sync::Arc;

use pebble_cursor::{RangeDelete, RangeDeletes};
use pebble_format::limits::RECORD_ALIGN;
use pebble_format::prefetch::prefetch_lines;
use pebble_format::{AppendRegion, HeadPrefix, Pinned, PinnedRecord, RecordRef};

use crate::commit::SEGMENTS_MAX;
use crate::error::{Error, Result};
use crate::options::{MemtableLen, RANGE_DELETES_MAX};
use crate::sorted::{InOrder, InOrderCursor};

/// How many records before its turn one is asked for.
const AHEAD: usize = 16;

/// Bytes of memory that a record takes here.
const RECORD_MEMORY: usize = size_of::<Place>();

/// Where a record lies.
#[derive(Clone, Copy)]
struct Place {
    /// Seven bytes of the head of its key, once the prefix of all is known.
    head: [u8; 7],
    region: u8,
    /// Its offset in the region, in granules of [`RECORD_ALIGN`].
    granule: u32,
}

impl Place {
    #[inline]
    fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g] = self.head;
        u64::from_be_bytes([0, a, b, c, d, e, f, g])
    }
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Gathered {
    regions: Vec<Arc<AppendRegion>>,
    places: Vec<Place>,
    bytes: usize,
    range_deletes: Vec<RangeDelete>,
    /// The first and the last key in order.
    ends: Option<(PinnedRecord, PinnedRecord)>,
}

/// What was gathered, in order.
pub(crate) struct GatheredRun<'g> {
    regions: &'g [Arc<AppendRegion>],
    places: &'g [Place],
    range_deletes: RangeDeletes,
}

impl Gathered {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether what there is is to be written before this takes a frame of `len` more bytes.
    pub(crate) fn is_full(&self, limit: MemtableLen, len: usize) -> bool {
        let full = self.bytes + len > limit.log
            || self.places.len() * RECORD_MEMORY >= limit.index
            || self.range_deletes.len() >= RANGE_DELETES_MAX
            || self.regions.len() >= SEGMENTS_MAX;
        full && !self.is_empty()
    }

    /// Makes `region` the one that the next records lie in.
    pub(crate) fn attach(&mut self, region: &Arc<AppendRegion>) {
        if !self.regions.last().is_some_and(|last| Arc::ptr_eq(last, region)) {
            self.regions.push(Arc::clone(region));
        }
    }

    /// Takes the record at an offset of the attached region.
    pub(crate) fn take(&mut self, offset: usize, record: RecordRef<'_>) -> Result<()> {
        let number = self.regions.len().checked_sub(1).and_then(|last| u8::try_from(last).ok());
        let granule =
            u32::try_from(offset / RECORD_ALIGN).ok().filter(|_| offset.is_multiple_of(RECORD_ALIGN));
        let (Some(attached), Some(region), Some(granule)) = (self.regions.last(), number, granule) else {
            return Err(Error::invalid("a record in no region"));
        };
        let key = record.internal_key();
        let (before, behind) = match &self.ends {
            Some((first, last)) => (key < first.record().internal_key(), key > last.record().internal_key()),
            None => (true, true),
        };
        if before || behind {
            let pinned = pinned(attached, offset)?;
            self.ends = Some(match self.ends.take() {
                Some((_, last)) if before => (pinned, last),
                Some((first, _)) => (first, pinned),
                None => (pinned.clone(), pinned),
            });
        }
        self.places.push(Place { head: [0; 7], region, granule });
        self.bytes += record.raw().len();
        self.range_deletes.extend(RangeDelete::of(record));
        Ok(())
    }

    /// Forgets what was gathered, but keeps its memory for what comes.
    pub(crate) fn clear(&mut self) {
        let Self { regions, places, bytes, range_deletes, ends } = self;
        (*bytes, *ends) = (0, None);
        regions.clear();
        places.clear();
        range_deletes.clear();
    }

    /// All that was gathered, in order.
    pub(crate) fn run(&mut self) -> Result<GatheredRun<'_>> {
        let prefix = match &self.ends {
            Some((first, last)) => {
                HeadPrefix::between(first.record().internal_key(), last.record().internal_key())
            }
            None => HeadPrefix::none(),
        };
        let Self { regions, places, range_deletes, .. } = self;
        for place in &mut *places {
            let record = RecordRef::parse(bytes_at(regions, *place))?;
            let [head @ .., _] = prefix.head(record.keyspace(), record.key()).to_be_bytes();
            place.head = head;
        }
        places.sort_unstable_by(|a, b| {
            let in_full = || match (record_at(regions, *a), record_at(regions, *b)) {
                (Some(a), Some(b)) => a.internal_key().cmp(&b.internal_key()),
                // They were parsed before.
                _ => Ordering::Equal,
            };
            a.head().cmp(&b.head()).then_with(in_full)
        });
        Ok(GatheredRun { regions, places, range_deletes: RangeDeletes::new(range_deletes.clone()) })
    }
}

impl GatheredRun<'_> {
    pub(crate) fn range_deletes(&self) -> &RangeDeletes {
        &self.range_deletes
    }

    pub(crate) fn cursor(&self) -> InOrderCursor<&Self> {
        InOrderCursor::new(self)
    }
}

impl InOrder for &GatheredRun<'_> {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn record(&self, nth: usize) -> Option<RecordRef<'_>> {
        record_at(self.regions, *self.places.get(nth)?)
    }

    fn pinned(&self, nth: usize) -> Option<PinnedRecord> {
        let place = self.places.get(nth)?;
        pinned(self.regions.get(usize::from(place.region))?, offset(*place)).ok()
    }

    fn ask_ahead(&self, nth: usize) {
        if let Some(coming) = self.places.get(nth + AHEAD) {
            prefetch_lines(bytes_at(self.regions, *coming), 0, 1);
        }
    }
}

/// The offset of a place in its region.
fn offset(place: Place) -> usize {
    place.granule as usize * RECORD_ALIGN
}

/// What a region holds from a place on.
fn bytes_at(regions: &[Arc<AppendRegion>], place: Place) -> &[u8] {
    let region = regions.get(usize::from(place.region));
    region.and_then(|region| region.tail(offset(place))).unwrap_or_default()
}

/// The record at a place, where one was parsed.
fn record_at(regions: &[Arc<AppendRegion>], place: Place) -> Option<RecordRef<'_>> {
    RecordRef::parse(bytes_at(regions, place)).ok()
}

fn pinned(region: &Arc<AppendRegion>, offset: usize) -> Result<PinnedRecord> {
    let pinned = Pinned::new(Arc::clone(region), |region| region.tail(offset).unwrap_or_default());
    Ok(PinnedRecord::parse(pinned)?)
}

#[cfg(test)]
mod tests {
    use pebble_cursor::Cursor;
    use pebble_format::{InternalKey, KeyspaceId, Kind, Seqno, Trailer, record};
    use pebble_memtable::Memtable;

    use super::*;

    const NO_LIMIT: MemtableLen = MemtableLen { log: usize::MAX, index: usize::MAX };

    /// Two regions of records, and where each lies: few keys in two keyspaces, so that many have several versions.
    fn regions() -> Vec<(Arc<AppendRegion>, Vec<usize>)> {
        let mut seqno = 0;
        let mut region = |count: u64| {
            let mut appender = AppendRegion::heap(1 << 20);
            let mut offsets = Vec::new();
            for _ in 0..count {
                seqno += 1;
                let shuffled = seqno * 7919 % 211;
                let key = format!("shared/{shuffled:05}");
                let kind = [Kind::Put, Kind::Delete, Kind::Put, Kind::RangeDelete][(seqno % 4) as usize];
                let value: &[u8] = if kind == Kind::RangeDelete { b"shared/99999" } else { b"value" };
                let value = if kind == Kind::Delete { b"" } else { value };
                let keyspace = KeyspaceId((seqno % 2) as u16);
                let len = record::encoded_len(key.len(), value.len());
                let into = appender.spare().get_mut(..len).unwrap();
                record::encode(into, keyspace, key.as_bytes(), Trailer::new(Seqno(seqno), kind), value)
                    .unwrap();
                offsets.push(appender.filled());
                appender.fill(len);
            }
            (Arc::clone(appender.region()), offsets)
        };
        vec![region(700), region(500)]
    }

    fn gather(regions: &[(Arc<AppendRegion>, Vec<usize>)]) -> Gathered {
        let mut gathered = Gathered::default();
        for (region, offsets) in regions {
            gathered.attach(region);
            gathered.attach(region);
            for offset in offsets {
                gathered.take(*offset, RecordRef::parse(region.tail(*offset).unwrap()).unwrap()).unwrap();
            }
        }
        gathered
    }

    fn all(mut cursor: impl Cursor) -> Vec<Vec<u8>> {
        cursor.first().unwrap();
        let mut found = Vec::new();
        while let Some(record) = cursor.record() {
            found.push(record.raw().to_vec());
            cursor.next().unwrap();
        }
        found
    }

    #[test]
    fn a_run_is_what_a_memtable_would_be() {
        let regions = regions();
        let (mut writer, in_time) = Memtable::new(HeadPrefix::none());
        for (region, offsets) in &regions {
            writer.attach(region).unwrap();
            offsets.iter().for_each(|offset| writer.insert(*offset).unwrap());
        }
        let mut gathered = gather(&regions);
        let run = gathered.run().unwrap();
        assert_eq!(all(run.cursor()), all(in_time.cursor()));
        assert_eq!(run.range_deletes(), &*in_time.range_deletes().unwrap());
        let (mut here, mut there) = (run.cursor(), in_time.cursor());
        for n in 0..250 {
            let key = format!("shared/{n:05}");
            let target = InternalKey::lookup(KeyspaceId(n % 2), key.as_bytes(), Seqno(600));
            here.seek(target).unwrap();
            there.seek(target).unwrap();
            assert_eq!(here.record().map(|record| record.raw()), there.record().map(|record| record.raw()));
            here.seek_before(target).unwrap();
            there.seek_before(target).unwrap();
            let raw = |found: Option<PinnedRecord>| found.map(|found| found.record().raw().to_vec());
            assert_eq!(raw(here.pinned()), raw(there.pinned()));
        }
        gathered.clear();
        assert!(gathered.is_empty() && all(gathered.run().unwrap().cursor()).is_empty());
    }

    #[test]
    fn it_is_full_where_a_memtable_would_be_and_takes_any_record_while_empty() {
        let gathered = gather(&regions());
        let (bytes, count) = (gathered.bytes, gathered.places.len());
        let log = |log| MemtableLen { log, ..NO_LIMIT };
        let index = |index| MemtableLen { index, ..NO_LIMIT };
        assert!(!gathered.is_full(NO_LIMIT, 0));
        assert!(!gathered.is_full(log(bytes + 10), 10) && gathered.is_full(log(bytes + 10), 11));
        assert!(!gathered.is_full(index(count * RECORD_MEMORY + 1), 0));
        assert!(gathered.is_full(index(count * RECORD_MEMORY), 0));
        assert!(!Gathered::default().is_full(log(0), 10));
        let delete = gathered.range_deletes.first().cloned().unwrap();
        let many = Gathered { range_deletes: vec![delete; RANGE_DELETES_MAX], ..gathered };
        assert!(many.is_full(NO_LIMIT, 0));
        let far = Gathered {
            range_deletes: Vec::new(),
            regions: vec![Arc::clone(&many.regions[0]); SEGMENTS_MAX],
            ..many
        };
        assert!(far.is_full(NO_LIMIT, 0));
    }
}
