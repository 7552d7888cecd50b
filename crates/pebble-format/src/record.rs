//! The record: one layout for the log, the memtable and the table.
//!
//! ```text
//!   0        8          10         12          16          16+k          16+k+v
//!   ┌────────┬──────────┬──────────┬───────────┬───────────┬─────────────┬─────┐
//!   │trailer │ key_len  │ keyspace │ value_len │ key       │ value       │ pad │   docs/format/record.md
//!   │ u64    │ u16 = k  │ u16      │ u32 = v   │ k bytes   │ v bytes     │ 0–3 │
//!   └────────┴──────────┴──────────┴───────────┴───────────┴─────────────┴─────┘
//! ```
//!
//! A record is encoded once, in the log, and from then on moved verbatim: so a flush and a compaction are gathers,
//! and a read is a slice. Everything here is safe to call on hostile bytes.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Corruption, Error, Result};
use crate::key::{DELETES, InternalKey, KeyspaceId, Kind, Seqno, Trailer};
use crate::limits::{KEY_LEN_MAX, VALUE_LEN_MAX, align_up};
use crate::pinned::Pinned;

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordHeader {
    /// `seqno << 8 | kind`.
    pub trailer: U64,
    /// Bytes of the user key.
    pub key_len: U16,
    /// The keyspace, so that a lone table or log can be salvaged.
    pub keyspace: U16,
    /// Bytes of the value.
    pub value_len: U32,
}

/// Bytes of [`RecordHeader`].
pub const RECORD_HEADER_LEN: usize = size_of::<RecordHeader>();

/// Refuses a key or a value that is over its limit, before anything changes.
pub fn check_lengths(key: &[u8], value: &[u8]) -> Result<()> {
    if key.len() > KEY_LEN_MAX {
        return Err(Error::invalid(format!("key of {} bytes; at most {KEY_LEN_MAX}", key.len())));
    }
    if value.len() > VALUE_LEN_MAX {
        return Err(Error::invalid(format!("value of {} bytes; at most {VALUE_LEN_MAX}", value.len())));
    }
    Ok(())
}

/// Bytes that a record with these lengths takes, padding included. The lengths must be within the limits.
#[inline]
pub fn encoded_len(key_len: usize, value_len: usize) -> usize {
    debug_assert!(key_len <= KEY_LEN_MAX && value_len <= VALUE_LEN_MAX);
    (RECORD_HEADER_LEN + key_len + value_len).next_multiple_of(crate::limits::RECORD_ALIGN)
}

/// Writes one record to the front of `to` and returns its length. One copy, no allocation.
///
/// Errors: `InvalidArgument` when key or value is over its limit or `to` is too short.
#[inline]
pub fn encode(
    to: &mut [u8],
    keyspace: KeyspaceId,
    key: &[u8],
    trailer: Trailer,
    value: &[u8],
) -> Result<usize> {
    check_lengths(key, value)?;
    let too_short = || Error::invalid("no room for the record");
    let (Ok(key_len), Ok(value_len)) = (u16::try_from(key.len()), u32::try_from(value.len())) else {
        return Err(too_short());
    };
    let len = encoded_len(key.len(), value.len());
    let to = to.get_mut(..len).ok_or_else(too_short)?;
    // In whole words, since the checksum of a log frame reads it back so a moment later: a load that is wider than the
    // stores it is made of waits for all of them.
    let lens = u64::from(key_len) | u64::from(keyspace.0) << 16 | u64::from(value_len) << 32;
    let (head, rest) = to.split_at_mut(RECORD_HEADER_LEN);
    let (trailer_to, lens_to) = head.split_at_mut(8);
    trailer_to.copy_from_slice(&trailer.0.to_le_bytes());
    lens_to.copy_from_slice(&lens.to_le_bytes());
    let (key_to, rest) = rest.split_at_mut(key.len());
    key_to.copy_from_slice(key);
    let (value_to, pad) = rest.split_at_mut(value.len());
    value_to.copy_from_slice(value);
    pad.fill(0);
    Ok(len)
}

/// Overwrites the trailer of the encoded record at the front of `record`, and returns the record's length; `None`
/// when the bytes hold no record. This is how a batch gets its sequence numbers when it is committed.
#[inline]
pub fn stamp(record: &mut [u8], first: Seqno, index: u64) -> Option<usize> {
    let (header, _) = RecordHeader::mut_from_prefix(record).ok()?;
    let kind = header.trailer.get() & 0xff;
    header.trailer = (first.0.checked_add(index)? << 8 | kind).into();
    let len = RECORD_HEADER_LEN
        .checked_add(usize::from(header.key_len.get()))?
        .checked_add(usize::try_from(header.value_len.get()).ok()?)?;
    align_up(len)
}

/// A whole record in place: header, key, value and padding.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    raw: &'a [u8],
    key_end: usize,
    value_end: usize,
}

impl<'a> RecordRef<'a> {
    /// The record at the front of `bytes`. Checks that it lies within them, that its kind is known and that its
    /// value is within the limit; the checksum above has to vouch for the rest.
    ///
    /// Errors: [`Corruption`] with an offset relative to `bytes`.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Corruption> {
        let Ok((header, _)) = RecordHeader::ref_from_prefix(bytes) else {
            return Err(Self::damaged("record header", RECORD_HEADER_LEN, bytes.len()));
        };
        let key_end = RECORD_HEADER_LEN + usize::from(header.key_len.get());
        let value_len = header.value_len.get() as usize;
        if value_len > VALUE_LEN_MAX {
            return Err(Self::damaged("value length", VALUE_LEN_MAX, value_len));
        }
        let value_end = key_end + value_len;
        let len = value_end.next_multiple_of(crate::limits::RECORD_ALIGN);
        let Some(raw) = bytes.get(..len) else {
            return Err(Self::damaged("record length", len, bytes.len()));
        };
        if Trailer(header.trailer.get()).kind().is_none() {
            return Err(Corruption::new(
                "record kind",
                0,
                u64::from(Kind::Reference as u8),
                header.trailer.get() & 0xff,
            ));
        }
        Ok(Self { raw, key_end, value_end })
    }

    #[cold]
    fn damaged(what: &'static str, expected: usize, got: usize) -> Corruption {
        Corruption::new(what, 0, expected as u64, got as u64)
    }

    #[inline]
    fn header(&self) -> &'a RecordHeader {
        match RecordHeader::ref_from_prefix(self.raw) {
            Ok((header, _)) => header,
            Err(_) => unreachable!("`parse` found a whole header"),
        }
    }

    /// The whole record as it stands on disk.
    #[inline]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The user key.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        &self.raw[RECORD_HEADER_LEN..self.key_end]
    }

    /// The value; empty for a tombstone of one key, the end of the range for one of a range, a
    /// [`Reference`](crate::Reference) where the value lies elsewhere.
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        &self.raw[self.key_end..self.value_end]
    }

    /// The keyspace.
    #[inline]
    pub fn keyspace(&self) -> KeyspaceId {
        KeyspaceId(self.header().keyspace.get())
    }

    /// Sequence number and kind.
    #[inline]
    pub fn trailer(&self) -> Trailer {
        Trailer(self.header().trailer.get())
    }

    /// The sequence number.
    #[inline]
    pub fn seqno(&self) -> Seqno {
        self.trailer().seqno()
    }

    /// Whether the record deletes its key, alone or with others behind it.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.trailer().kind_byte() & DELETES != 0
    }

    /// Whether the value lies elsewhere, and [`RecordRef::value`] is a [`Reference`](crate::Reference) to it.
    #[inline]
    pub fn is_reference(&self) -> bool {
        self.trailer().kind_byte() == Kind::Reference as u8
    }

    /// Whether the record deletes a range of keys, which begins with its own.
    #[inline]
    pub fn is_range_delete(&self) -> bool {
        self.trailer().kind_byte() == Kind::RangeDelete as u8
    }

    /// Whether the record is about its key alone and says all by itself: a put or a delete.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.trailer().kind_byte() <= Kind::Delete as u8
    }

    /// The key with everything that orders it.
    #[inline]
    pub fn internal_key(&self) -> InternalKey<'a> {
        InternalKey { keyspace: self.keyspace(), user_key: self.key(), trailer: self.trailer() }
    }
}

/// Prints the order, not the bytes: a key must not stand in a log or an error.
impl std::fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}+{} B", self.internal_key(), self.value().len())
    }
}

/// A whole record together with what keeps its bytes in place: how a read leaves the engine without a copy.
#[derive(Clone, Debug)]
pub struct PinnedRecord {
    raw: Pinned,
    key_end: usize,
    value_end: usize,
}

impl PinnedRecord {
    /// The record at the front of `bytes`. Errors as [`RecordRef::parse`].
    pub fn parse(bytes: Pinned) -> Result<Self, Corruption> {
        let RecordRef { raw, key_end, value_end } = RecordRef::parse(&bytes)?;
        let len = raw.len();
        Ok(Self { raw: bytes.into_slice(0..len), key_end, value_end })
    }

    /// Pins a record that `project` finds in `owner`, which was parsed there.
    #[inline]
    pub fn new<T: Send + Sync + 'static>(
        owner: Arc<T>,
        project: impl for<'a> FnOnce(&'a T) -> RecordRef<'a>,
    ) -> Self {
        let (mut key_end, mut value_end) = (0, 0);
        let raw = Pinned::new(owner, |owner| {
            let record = project(owner);
            (key_end, value_end) = (record.key_end, record.value_end);
            record.raw
        });
        Self { raw, key_end, value_end }
    }

    /// The record.
    #[inline]
    pub fn record(&self) -> RecordRef<'_> {
        RecordRef { raw: &self.raw, key_end: self.key_end, value_end: self.value_end }
    }

    /// The user key, pinned.
    pub fn key(&self) -> Pinned {
        self.raw.slice(RECORD_HEADER_LEN..self.key_end)
    }

    /// The value, pinned.
    #[inline]
    pub fn into_value(self) -> Pinned {
        self.raw.into_slice(self.key_end..self.value_end)
    }
}

/// The records that stand one after another in `bytes`. Ends after the first damaged one.
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records { bytes, offset: 0 }
}

/// Iterator over consecutive records with their offsets, see [`records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, RecordRef<'a>), Corruption>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.offset;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        match RecordRef::parse(rest) {
            Ok(record) => {
                self.offset = at + record.raw().len();
                Some(Ok((at, record)))
            }
            Err(corruption) => {
                self.offset = self.bytes.len();
                Some(Err(corruption.at(at as u64)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xaa; encoded_len(key.len(), value.len()) + 9];
        let trailer = Trailer::new(Seqno(7), Kind::Put);
        let len = encode(&mut bytes, KeyspaceId(3), key, trailer, value).unwrap();
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn what_is_encoded_is_parsed() {
        for (key, value) in
            [(&b""[..], &b""[..]), (b"k", b""), (b"", b"v"), (b"key", b"value"), (&[9; 65_535], b"x")]
        {
            let bytes = one(key, value);
            assert_eq!(bytes.len() % crate::limits::RECORD_ALIGN, 0);
            let record = RecordRef::parse(&bytes).unwrap();
            assert_eq!((record.key(), record.value()), (key, value));
            assert_eq!((record.keyspace(), record.seqno()), (KeyspaceId(3), Seqno(7)));
            assert_eq!(record.raw(), bytes);
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = one(b"key", b"value");
        for len in 0..bytes.len() {
            assert!(RecordRef::parse(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn unknown_kinds_and_long_values_are_refused() {
        let mut bytes = one(b"key", b"value");
        for kind in [0, 4, 6, 255] {
            bytes[0] = kind;
            assert_eq!(RecordRef::parse(&bytes).unwrap_err().what, "record kind");
        }
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(RecordRef::parse(&bytes).unwrap_err().what, "value length");
    }

    #[test]
    fn limits_are_refused_before_anything_is_written() {
        let mut to = vec![0; 1 << 17];
        let trailer = Trailer::new(Seqno(1), Kind::Put);
        assert!(encode(&mut to, KeyspaceId(0), &vec![1; 65_536], trailer, b"").is_err());
        assert!(encode(&mut to[..19], KeyspaceId(0), b"key", trailer, b"v").is_err());
        assert!(to.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_pinned_record_gives_its_parts_without_a_copy() {
        let bytes = one(b"key", b"value");
        let owner = Arc::new(bytes);
        let record = PinnedRecord::new(Arc::clone(&owner), |bytes| RecordRef::parse(bytes).unwrap());
        assert_eq!((record.record().key(), &*record.key()), (&b"key"[..], &b"key"[..]));
        let value = record.into_value();
        assert_eq!(&*value, b"value");
        assert!(owner.as_ptr_range().contains(&value.as_ptr()));
    }

    #[test]
    fn records_stop_at_the_first_damaged_one() {
        let mut bytes = one(b"a", b"1");
        let second = bytes.len();
        bytes.extend(one(b"b", b"2"));
        bytes[second] = 0;
        let seen: Vec<_> = records(&bytes).collect();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].as_ref().unwrap().1.key(), b"a");
        assert_eq!(seen[1].as_ref().unwrap_err().offset, second as u64);
    }
}
