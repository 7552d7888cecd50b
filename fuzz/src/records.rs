//! Records as the bodies see them: owned, ordered, encoded.
//!
//! Threading: plain data.

use pebble_format::{InternalKey, KeyspaceId, Kind, RecordRef, Seqno, Trailer, record};

/// One encoded record.
pub(crate) fn encoded(keyspace: u16, key: &[u8], seqno: u64, kind: Kind, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; record::encoded_len(key.len(), value.len())];
    record::encode(&mut bytes, KeyspaceId(keyspace), key, Trailer::new(Seqno(seqno), kind), value).unwrap();
    bytes
}

pub(crate) fn parsed(bytes: &[u8]) -> RecordRef<'_> {
    RecordRef::parse(bytes).unwrap()
}

/// The key of an encoded record.
pub(crate) fn key_of(bytes: &[u8]) -> InternalKey<'_> {
    parsed(bytes).internal_key()
}

/// Whether a range delete names a range that holds a key, as every writer sees to; true for other records.
pub(crate) fn has_range(record: RecordRef<'_>) -> bool {
    let end = record.value();
    !record.is_range_delete() || end.len() <= usize::from(u16::MAX) && (end.is_empty() || end > record.key())
}

/// In order, each key once.
pub(crate) fn sorted(mut records: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    records.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
    records.dedup_by(|a, b| key_of(a) == key_of(b));
    records
}
