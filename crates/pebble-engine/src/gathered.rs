//! Records of a log on their way into a memtable that nobody reads yet: gathered in the order of time, indexed in the
//! order of keys.
//!
//! ```text
//!   log   d#1 a#2 c#3 a#4 …  ──►  places  ──►  sorted by head  ──►  a#4 a#2 c#3 d#1  ──►  memtable, each at its end
//! ```
//!
//! A random insert waits for the leaf that it goes to; an ascending one goes where the last one went. Sorting sixteen
//! bytes a record costs less than the difference, and what it waits for can be asked for ahead.
//!
//! Threading: plain memory of one thread.

use std::cmp::Ordering;
use std::sync::Arc;

use pebble_format::prefetch::prefetch_lines;
use pebble_format::{AppendRegion, HeadPrefix, Pinned, PinnedRecord, RecordRef};
use pebble_memtable::Memtable;

use crate::commit::SEGMENTS_MAX;
use crate::error::{Error, Result};
use crate::options::{MemtableLen, RANGE_DELETES_MAX};

/// How many records before its turn one is asked for.
const AHEAD: usize = 16;

/// Bytes of memory that a record takes here and, ascending, in the memtable's index.
const RECORD_MEMORY: usize = size_of::<Place>() + 16;

/// Where a record lies.
#[derive(Clone, Copy)]
struct Place {
    /// Of its key, once the prefix of all is known.
    head: u64,
    region: u32,
    offset: u32,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Gathered {
    regions: Vec<Arc<AppendRegion>>,
    places: Vec<Place>,
    bytes: usize,
    range_deletes: usize,
    /// The first and the last key in order.
    ends: Option<(PinnedRecord, PinnedRecord)>,
}

impl Gathered {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the memtable is to be made before this takes a frame of `len` more bytes.
    pub(crate) fn is_full(&self, limit: MemtableLen, len: usize) -> bool {
        let full = self.bytes + len > limit.log
            || self.places.len() * RECORD_MEMORY >= limit.index
            || self.range_deletes >= RANGE_DELETES_MAX
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
        let number = self.regions.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        let (Some(region), Some(number), Ok(at)) = (self.regions.last(), number, u32::try_from(offset))
        else {
            return Err(Error::invalid("a record in no region"));
        };
        let key = record.internal_key();
        let (before, behind) = match &self.ends {
            Some((first, last)) => (key < first.record().internal_key(), key > last.record().internal_key()),
            None => (true, true),
        };
        if before || behind {
            let pinned = Pinned::new(Arc::clone(region), |region| region.tail(offset).unwrap_or_default());
            let pinned = PinnedRecord::parse(pinned)?;
            self.ends = Some(match self.ends.take() {
                Some((_, last)) if before => (pinned, last),
                Some((first, _)) => (first, pinned),
                None => (pinned.clone(), pinned),
            });
        }
        self.places.push(Place { head: 0, region: number, offset: at });
        self.bytes += record.raw().len();
        self.range_deletes += usize::from(record.is_range_delete());
        Ok(())
    }

    /// Indexes all that was gathered.
    pub(crate) fn into_memtable(self) -> Result<Arc<Memtable>> {
        let prefix = match &self.ends {
            Some((first, last)) => {
                HeadPrefix::between(first.record().internal_key(), last.record().internal_key())
            }
            None => HeadPrefix::none(),
        };
        let Self { regions, mut places, .. } = self;
        let bytes = |place: &Place| bytes_at(&regions, *place);
        for place in &mut places {
            let record = RecordRef::parse(bytes(place))?;
            place.head = prefix.head(record.keyspace(), record.key());
        }
        places.sort_unstable_by(|a, b| {
            let in_full = || match (RecordRef::parse(bytes(a)), RecordRef::parse(bytes(b))) {
                (Ok(a), Ok(b)) => a.internal_key().cmp(&b.internal_key()),
                // They were parsed before.
                _ => Ordering::Equal,
            };
            a.head.cmp(&b.head).then_with(in_full)
        });
        let (mut writer, memtable) = Memtable::new(prefix);
        let mut attached = None;
        for (n, place) in places.iter().enumerate() {
            if let Some(coming) = places.get(n + AHEAD) {
                prefetch_lines(bytes(coming), 0, 1);
            }
            if attached != Some(place.region) {
                attached = Some(place.region);
                if let Some(region) = regions.get(place.region as usize) {
                    writer.attach(region)?;
                }
            }
            writer.insert(place.offset as usize)?;
        }
        Ok(memtable)
    }
}

/// What a region holds from a place on.
fn bytes_at(regions: &[Arc<AppendRegion>], place: Place) -> &[u8] {
    let region = regions.get(place.region as usize);
    region.and_then(|region| region.tail(place.offset as usize)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pebble_cursor::Cursor;
    use pebble_format::{KeyspaceId, Kind, Seqno, Trailer, record};

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

    fn all(memtable: &Arc<Memtable>) -> Vec<Vec<u8>> {
        let mut cursor = memtable.cursor();
        cursor.first().unwrap();
        let mut found = Vec::new();
        while let Some(record) = cursor.record() {
            found.push(record.raw().to_vec());
            cursor.next().unwrap();
        }
        found
    }

    #[test]
    fn a_memtable_is_the_same_in_whichever_order_it_was_filled() {
        let regions = regions();
        let (mut writer, in_time) = Memtable::new(HeadPrefix::none());
        for (region, offsets) in &regions {
            writer.attach(region).unwrap();
            offsets.iter().for_each(|offset| writer.insert(*offset).unwrap());
        }
        let gathered = gather(&regions).into_memtable().unwrap();
        assert_eq!(all(&gathered), all(&in_time));
        assert_eq!((gathered.len(), gathered.log_bytes()), (1200, in_time.log_bytes()));
        assert_eq!(gathered.seqno_range(), in_time.seqno_range());
        assert_eq!(gathered.range_deletes(), in_time.range_deletes());
        assert!(all(&Gathered::default().into_memtable().unwrap()).is_empty());
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
        let many = Gathered { range_deletes: RANGE_DELETES_MAX, ..gathered };
        assert!(many.is_full(NO_LIMIT, 0));
        let far =
            Gathered { range_deletes: 0, regions: vec![Arc::clone(&many.regions[0]); SEGMENTS_MAX], ..many };
        assert!(far.is_full(NO_LIMIT, 0));
    }
}
