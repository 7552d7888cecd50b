//! The region of range deletes: an index over the records that delete ranges, in their order.
//!
//! ```text
//!   entry = RangeDeleteEntry (16 B), start, end, zeros up to a multiple of 4
//!
//!   table                 [first ────────── last]            next table
//!   record                     [start ──────────┼────────── end)
//!   entry                      [start ──────────┼─ cut)      begins with a record [cut ── end)
//! ```
//!
//! Where a merge parts a range between two tables, the entry ends at the next table's first key and the record goes on
//! to say what it said. So a table answers for its own keys alone, and tables of a run stay side by side.
//!
//! Threading: plain data.

use std::sync::Arc;

use pebble_cursor::{RangeDelete, cmp_ends, ends_behind};
use pebble_format::limits::KEY_LEN_MAX;
use pebble_format::table::RangeDeleteEntry;
use pebble_format::{Corruption, Error, InternalKey, KeyspaceId, Kind, RecordRef, Result, Seqno, Trailer};
use zerocopy::{FromBytes, IntoBytes};

/// Whether a record that deletes a range names one that holds a key, with an end that may be a key. Other records are
/// no concern of this.
#[inline]
pub(crate) fn has_range(record: RecordRef<'_>) -> bool {
    let end = record.value();
    !record.is_range_delete() || end.len() <= KEY_LEN_MAX && ends_behind(end, record.key())
}

/// Ends every range at `cut` that goes beyond it.
pub(crate) fn clip(deletes: &mut [RangeDelete], cut: InternalKey<'_>) {
    let goes_on =
        |delete: &RangeDelete| delete.keyspace == cut.keyspace && cmp_ends(&delete.end, cut.user_key).is_gt();
    let end: Arc<[u8]> = cut.user_key.into();
    for delete in deletes.iter_mut().filter(|delete| goes_on(delete)) {
        delete.end = Arc::clone(&end);
    }
}

/// Where the ranges of the last key's keyspace end, if one of them covers a key behind the last one.
pub(crate) fn reach<'a>(
    last: InternalKey<'_>,
    ends: impl Iterator<Item = (KeyspaceId, &'a [u8])>,
) -> Option<&'a [u8]> {
    let furthest = ends
        .filter(|(keyspace, _)| *keyspace == last.keyspace)
        .map(|(_, end)| end)
        .max_by(|a, b| cmp_ends(a, b))?;
    // Between a key and the same key with a zero behind it there is no other.
    let covers_more =
        ends_behind(furthest, last.user_key) && furthest.strip_prefix(last.user_key) != Some(&[0]);
    covers_more.then_some(furthest)
}

/// The bytes of the region.
pub(crate) fn encode(deletes: &[RangeDelete]) -> Result<Vec<u8>> {
    let len = |key: &[u8]| u16::try_from(key.len()).map_err(|_| Error::invalid("key over its limit"));
    let mut bytes = Vec::new();
    for delete in deletes {
        let entry = RangeDeleteEntry {
            seqno: delete.seqno.0.into(),
            keyspace: delete.keyspace.0.into(),
            start_len: len(&delete.start)?.into(),
            end_len: len(&delete.end)?.into(),
            reserved: 0.into(),
        };
        let end = bytes.len() + entry.padded_len();
        bytes.extend_from_slice(entry.as_bytes());
        bytes.extend_from_slice(&delete.start);
        bytes.extend_from_slice(&delete.end);
        bytes.resize(end, 0);
    }
    Ok(bytes)
}

/// One range delete of the region.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) seqno: Seqno,
    pub(crate) start: &'a [u8],
    pub(crate) end: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The key of its record.
    pub(crate) fn record_key(&self) -> InternalKey<'a> {
        let trailer = Trailer::new(self.seqno, Kind::RangeDelete);
        InternalKey { keyspace: self.keyspace, user_key: self.start, trailer }
    }
}

impl From<Entry<'_>> for RangeDelete {
    fn from(entry: Entry<'_>) -> Self {
        Self {
            keyspace: entry.keyspace,
            start: entry.start.into(),
            end: entry.end.into(),
            seqno: entry.seqno,
        }
    }
}

/// The entries of a region with their offsets in it. Ends after the first damaged one.
pub(crate) fn entries(region: &[u8]) -> Entries<'_> {
    Entries { region, at: 0 }
}

/// See [`entries`].
#[derive(Clone)]
pub(crate) struct Entries<'a> {
    region: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(usize, Entry<'a>), Corruption>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.region.get(at..).filter(|rest| !rest.is_empty())?;
        self.at = self.region.len();
        Some(match parse(rest) {
            Ok((len, entry)) => {
                self.at = at + len;
                Ok((at, entry))
            }
            Err(corruption) => Err(corruption.at(at as u64)),
        })
    }
}

/// The entry at the front of `bytes`, and its length. What it can be told wrong by alone is checked here.
fn parse(bytes: &[u8]) -> Result<(usize, Entry<'_>), Corruption> {
    let bad = |what, expected: usize, got: usize| Err(Corruption::new(what, 0, expected as u64, got as u64));
    let Ok((header, keys)) = RangeDeleteEntry::ref_from_prefix(bytes) else {
        return bad("range delete length", size_of::<RangeDeleteEntry>(), bytes.len());
    };
    let (start_len, end_len) = (usize::from(header.start_len.get()), usize::from(header.end_len.get()));
    let len = header.padded_len();
    let whole = keys.split_at_checked(start_len).and_then(|(start, rest)| {
        let (end, _) = rest.split_at_checked(end_len)?;
        Some((start, end, bytes.get(size_of::<RangeDeleteEntry>() + start_len + end_len..len)?))
    });
    let Some((start, end, pad)) = whole else { return bad("range delete length", len, bytes.len()) };
    if header.reserved.get() != 0 || pad.iter().any(|byte| *byte != 0) {
        return bad("zeros of a range delete", 0, 1);
    }
    if !ends_behind(end, start) {
        return bad("range of a range delete", start_len, end_len);
    }
    let (keyspace, seqno) = (KeyspaceId(header.keyspace.get()), Seqno(header.seqno.get()));
    Ok((len, Entry { keyspace, seqno, start, end }))
}
