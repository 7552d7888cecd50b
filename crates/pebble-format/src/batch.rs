//! A batch of records in the layout of the log, so that committing it is one copy.
//!
//! Sequence numbers are unknown until the commit, which stamps them while the bytes lie in the log segment.

use crate::error::{Error, Result};
use crate::key::{KeyspaceId, Kind, Seqno, Trailer};
use crate::limits::BATCH_LEN_MAX;
use crate::record;

/// Puts and deletes that are applied together or not at all. A later one for the same key wins.
#[derive(Clone, Debug, Default)]
pub struct RecordBatch {
    bytes: Vec<u8>,
    count: u32,
    range_deletes: u32,
}

impl RecordBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    ///
    /// Errors: `InvalidArgument` when the key, the value or the batch would be over its limit; the batch is
    /// unchanged then.
    pub fn put(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> Result<()> {
        self.add(keyspace, key, Kind::Put, value)
    }

    /// Adds a delete. Errors as [`RecordBatch::put`].
    pub fn delete(&mut self, keyspace: KeyspaceId, key: &[u8]) -> Result<()> {
        self.add(keyspace, key, Kind::Delete, b"")
    }

    /// Adds a delete of every key from `start` up to `end`, which is excluded; an empty `end` means the end of the
    /// keyspace. A range without a key adds nothing. Cost: as one put, however many keys it covers.
    ///
    /// Errors: as [`RecordBatch::put`], for an `end` over the limit of a key too.
    pub fn delete_range(&mut self, keyspace: KeyspaceId, start: &[u8], end: &[u8]) -> Result<()> {
        record::check_lengths(end, b"")?;
        if !end.is_empty() && end <= start {
            return record::check_lengths(start, b"");
        }
        self.add(keyspace, start, Kind::RangeDelete, end)?;
        self.range_deletes += 1;
        Ok(())
    }

    fn add(&mut self, keyspace: KeyspaceId, key: &[u8], kind: Kind, value: &[u8]) -> Result<()> {
        record::check_lengths(key, value)?;
        let at = self.bytes.len();
        let end = at + record::encoded_len(key.len(), value.len());
        if end > BATCH_LEN_MAX {
            return Err(Error::invalid(format!("batch of {end} bytes; at most {BATCH_LEN_MAX}")));
        }
        let count =
            self.count.checked_add(1).ok_or_else(|| Error::invalid("too many records in one batch"))?;
        self.bytes.resize(end, 0);
        let to = self.bytes.get_mut(at..).unwrap_or_default();
        record::encode(to, keyspace, key, Trailer::new(Seqno::ZERO, kind), value)?;
        self.count = count;
        Ok(())
    }

    /// The encoded records, with sequence number zero.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many of the records delete a range.
    pub fn range_deletes(&self) -> u32 {
        self.range_deletes
    }

    /// Whether the batch holds no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.range_deletes = 0;
    }

    /// Copies the records to `to`, which has exactly their length, and numbers them from `first` on.
    pub fn copy_stamped(&self, to: &mut [u8], first: Seqno) {
        to.copy_from_slice(&self.bytes);
        let mut rest = to;
        for index in 0..u64::from(self.count) {
            let Some(len) = record::stamp(rest, first, index) else { return };
            let Some(next) = rest.get_mut(len..) else { return };
            rest = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamping_numbers_the_records_in_order() {
        let mut batch = RecordBatch::new();
        batch.put(KeyspaceId(1), b"a", b"one").unwrap();
        batch.delete(KeyspaceId(2), b"b").unwrap();
        batch.put(KeyspaceId(1), b"", b"").unwrap();
        let mut to = vec![0; batch.bytes().len()];
        batch.copy_stamped(&mut to, Seqno(40));
        let seen: Vec<_> = record::records(&to)
            .map(|found| found.unwrap().1)
            .map(|r| (r.keyspace().0, r.key().to_vec(), r.seqno().0, r.is_tombstone(), r.value().to_vec()))
            .collect();
        assert_eq!(
            seen,
            [
                (1, b"a".to_vec(), 40, false, b"one".to_vec()),
                (2, b"b".to_vec(), 41, true, vec![]),
                (1, vec![], 42, false, vec![])
            ]
        );
    }

    #[test]
    fn a_range_without_a_key_adds_nothing_and_an_end_has_the_limit_of_a_key() {
        let mut batch = RecordBatch::new();
        batch.delete_range(KeyspaceId(0), b"b", b"b").unwrap();
        batch.delete_range(KeyspaceId(0), b"b", b"a").unwrap();
        assert!(batch.delete_range(KeyspaceId(0), b"b", &vec![b'z'; 65_536]).is_err());
        assert!(batch.delete_range(KeyspaceId(0), &vec![b'z'; 65_536], b"a").is_err());
        assert_eq!((batch.count(), batch.range_deletes()), (0, 0));
        batch.delete_range(KeyspaceId(0), b"b", b"c").unwrap();
        batch.delete_range(KeyspaceId(0), b"", b"").unwrap();
        assert_eq!((batch.count(), batch.range_deletes()), (2, 2));
        let seen: Vec<_> = record::records(batch.bytes()).map(|found| found.unwrap().1).collect();
        assert!(seen.iter().all(|record| record.is_range_delete() && record.is_tombstone()));
        assert_eq!((seen[0].key(), seen[0].value(), seen[1].value()), (&b"b"[..], &b"c"[..], &b""[..]));
        batch.clear();
        assert_eq!(batch.range_deletes(), 0);
    }

    #[test]
    fn a_refused_record_leaves_the_batch_as_it_was() {
        let mut batch = RecordBatch::new();
        batch.put(KeyspaceId(0), b"k", b"v").unwrap();
        let before = batch.bytes().to_vec();
        assert!(batch.put(KeyspaceId(0), &vec![0; 65_536], b"").is_err());
        assert_eq!((batch.bytes(), batch.count()), (&before[..], 1));
    }
}
