//! One data block: built, checked, searched.
//!
//! ```text
//!   record │ record │ … │ heads u32[n] │ offsets u16[n] (× 4) │ 0 u16 if n is odd │ n u16 │ prefix_len u16
//! ```
//!
//! A search compares 4-byte heads (what follows the prefix that first and last key share), then, among equal
//! ones, whole keys. Threading: plain data; a [`Block`] may be shared.

use std::ops::Range;

use pebble_cursor::{Direction, Stretch};
use pebble_format::limits::RECORD_ALIGN;
use pebble_format::record::RECORD_HEADER_LEN;
use pebble_format::table::{BLOCK_COUNT_MAX, BLOCK_LEN_MAX, BlockTail, block_tail_len};
use pebble_format::{Corruption, InternalKey, KeyspaceId, Pinned, PinnedRecord, RecordRef, Seqno, Trailer};
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::referred::is_sound;

/// What the keys of one block share, and so how they are told apart by four bytes. As
/// [`pebble_format::HeadPrefix`], but borrowed: it is made anew for each search.
#[derive(Clone, Copy)]
struct Shared<'a> {
    keyspace: Option<KeyspaceId>,
    prefix: &'a [u8],
}

impl<'a> Shared<'a> {
    fn between(first: InternalKey<'a>, last: InternalKey<'_>) -> Self {
        match first.shared_prefix(&last) {
            Some(prefix) => Self { keyspace: Some(first.keyspace), prefix },
            None => Self { keyspace: None, prefix: &[] },
        }
    }

    /// Monotone over all keys: a smaller head proves a smaller key, equal heads prove nothing.
    #[inline]
    fn head(&self, key: InternalKey<'_>) -> u32 {
        let Some(own) = self.keyspace else {
            return u32::from(key.keyspace.0) << 16 | leading_u32(key.user_key) >> 16;
        };
        if key.keyspace != own {
            return if key.keyspace < own { 0 } else { u32::MAX };
        }
        match key.user_key.strip_prefix(self.prefix) {
            Some(rest) => leading_u32(rest),
            None if key.user_key < self.prefix => 0,
            None => u32::MAX,
        }
    }
}

/// The first four bytes as a big-endian number, zeros behind a shorter slice.
#[inline]
fn leading_u32(bytes: &[u8]) -> u32 {
    match bytes.first_chunk::<4>() {
        Some(chunk) => u32::from_be_bytes(*chunk),
        None => bytes.iter().zip([24, 16, 8]).fold(0, |head, (byte, shift)| head | u32::from(*byte) << shift),
    }
}

/// Collects records and closes them into a block.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// The last tail.
    tail: Vec<u8>,
}

/// The key of a record in the builder, so that nothing is parsed again.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    key_len: u16,
    keyspace: KeyspaceId,
    trailer: Trailer,
}

impl BlockBuilder {
    /// Whether a record of `len` bytes may join a block that aims at `target` bytes. The first one always
    /// may.
    #[inline]
    pub(crate) fn fits(&self, len: usize, target: usize) -> bool {
        let count = self.slots.len() + 1;
        count == 1 || count <= BLOCK_COUNT_MAX && self.bytes.len() + len + block_tail_len(count) <= target
    }

    /// Appends a record. One whose place no block can have is left to [`BlockBuilder::close`] to refuse.
    #[inline]
    pub(crate) fn push(&mut self, record: RecordRef<'_>) {
        let key = record.internal_key();
        self.slots.push(Slot {
            start: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
            key_len: u16::try_from(key.user_key.len()).unwrap_or(u16::MAX),
            keyspace: key.keyspace,
            trailer: key.trailer,
        });
        self.bytes.extend_from_slice(record.raw());
    }

    /// Records so far.
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the records so far.
    pub(crate) fn records_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the block if it were closed now; 0 when it is empty.
    #[inline]
    pub(crate) fn closed_len(&self) -> usize {
        if self.slots.is_empty() { 0 } else { self.bytes.len() + block_tail_len(self.slots.len()) }
    }

    /// The first key.
    pub(crate) fn first_key(&self) -> Option<InternalKey<'_>> {
        self.key(self.slots.first()?)
    }

    /// The last key.
    #[inline]
    pub(crate) fn last_key(&self) -> Option<InternalKey<'_>> {
        self.key(self.slots.last()?)
    }

    #[inline]
    fn key(&self, slot: &Slot) -> Option<InternalKey<'_>> {
        let start = slot.start as usize + RECORD_HEADER_LEN;
        let user_key = self.bytes.get(start..start + usize::from(slot.key_len))?;
        Some(InternalKey { keyspace: slot.keyspace, user_key, trailer: slot.trailer })
    }

    /// Adds the tail and gives the whole block; `None` when it is empty or over its limits. Call
    /// [`BlockBuilder::clear`] next.
    pub(crate) fn close(&mut self) -> Option<&[u8]> {
        let mut rest = std::mem::take(&mut self.tail);
        rest.clear();
        let shared = Shared::between(self.first_key()?, self.last_key()?);
        let count = self.slots.len();
        let tail = BlockTail {
            count: u16::try_from(count).ok()?.into(),
            prefix_len: u16::try_from(shared.prefix.len()).ok()?.into(),
        };
        rest.reserve(block_tail_len(count));
        for slot in &self.slots {
            let key = self.key(slot)?;
            let head = match shared.keyspace {
                // What the first and the last key share, all between them share too.
                Some(_) => leading_u32(key.user_key.get(shared.prefix.len()..)?),
                None => shared.head(key),
            };
            rest.extend_from_slice(&head.to_le_bytes());
        }
        for slot in &self.slots {
            let granule = u16::try_from(slot.start as usize / RECORD_ALIGN).ok()?;
            rest.extend_from_slice(&granule.to_le_bytes());
        }
        if !count.is_multiple_of(2) {
            rest.extend_from_slice(&[0; 2]);
        }
        rest.extend_from_slice(tail.as_bytes());
        self.bytes.extend_from_slice(&rest);
        self.tail = rest;
        Some(&self.bytes)
    }

    /// Empties the builder and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.slots.clear();
    }
}

/// A block in place or in memory of its own. Cloning is one reference count.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: Pinned,
    /// Bytes of the records; the heads begin here.
    records_len: usize,
    count: u16,
}

impl Block {
    /// Reads the tail of a block that holds `count` records according to the directory. Cheap; see
    /// [`Block::verify`].
    #[inline]
    pub(crate) fn open(bytes: Pinned, count: u16) -> Result<Self, Corruption> {
        let len = bytes.len();
        let Ok((_, tail)) = BlockTail::ref_from_suffix(&bytes) else {
            return Err(Corruption::new("block length", 0, size_of::<BlockTail>() as u64, len as u64));
        };
        let got = tail.count.get();
        if got != count || count == 0 {
            return Err(Corruption::new("record count of a block", len as u64, count.into(), got.into()));
        }
        let tail_len = block_tail_len(usize::from(count));
        let Some(records_len) = len.checked_sub(tail_len) else {
            return Err(Corruption::new("block length", 0, tail_len as u64, len as u64));
        };
        Ok(Self { bytes, records_len, count })
    }

    /// Records in the block; at least one.
    #[inline]
    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of the whole block.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole block.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The records one after another.
    pub(crate) fn records(&self) -> &[u8] {
        self.bytes.get(..self.records_len).unwrap_or_default()
    }

    /// How many tombstones are in the block, if each of its records is of a user key of its own and none deletes a
    /// range.
    pub(crate) fn tombstones_if_single(&self) -> Option<u16> {
        let mut tombstones = 0;
        let mut previous: Option<InternalKey<'_>> = None;
        for slot in 0..self.count {
            let record = self.record(slot).ok()?;
            let key = record.internal_key();
            if record.is_range_delete() || previous.is_some_and(|previous| previous.same_key(&key)) {
                return None;
            }
            tombstones += u16::from(record.is_tombstone());
            previous = Some(key);
        }
        Some(tombstones)
    }

    #[inline]
    fn heads(&self) -> &[U32] {
        let end = self.records_len + usize::from(self.count) * size_of::<U32>();
        let bytes = self.bytes.get(self.records_len..end).unwrap_or_default();
        <[U32]>::ref_from_bytes(bytes).unwrap_or_default()
    }

    #[inline]
    fn offset(&self, slot: u16) -> Option<usize> {
        let at = self.records_len
            + usize::from(self.count) * size_of::<U32>()
            + usize::from(slot) * size_of::<U16>();
        let found = self.bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
        found.filter(|_| slot < self.count).map(|granule| usize::from(granule) * RECORD_ALIGN)
    }

    /// The bytes from a record's start to the end of the records.
    #[inline]
    fn bytes_from(&self, slot: u16) -> Option<&[u8]> {
        self.bytes.get(self.offset(slot)?..self.records_len)
    }

    /// A record by its place in the block.
    #[inline]
    pub(crate) fn record(&self, slot: u16) -> Result<RecordRef<'_>, Corruption> {
        match self.bytes_from(slot) {
            Some(bytes) => RecordRef::parse(bytes),
            None => Err(Corruption::new("slot in a block", 0, self.count.into(), slot.into())),
        }
    }

    /// Where a record starts in the block; 0 for one that is not there.
    #[inline]
    pub(crate) fn record_offset(&self, slot: u16) -> usize {
        self.offset(slot).unwrap_or_default()
    }

    /// A record, pinned where it lies.
    pub(crate) fn pinned(&self, slot: u16) -> Result<PinnedRecord, Corruption> {
        match self.offset(slot).filter(|start| *start < self.records_len) {
            Some(start) => PinnedRecord::parse(self.bytes.slice(start..self.records_len)),
            None => Err(Corruption::new("slot in a block", 0, self.count.into(), slot.into())),
        }
    }

    /// The records in some of the slots, to be walked without this.
    pub(crate) fn stretch(&self, slots: Range<u16>, direction: Direction, newest: Seqno) -> Stretch {
        let offsets = self.records_len + usize::from(self.count) * size_of::<U32>();
        Stretch::new(self.bytes.clone(), self.records_len, offsets, slots, direction, newest)
    }

    /// The first slot whose key is at or after `target`; the count when there is none.
    pub(crate) fn lower_bound(&self, target: InternalKey<'_>) -> Result<u16, Corruption> {
        let shared = self.shared()?;
        let head = shared.head(target);
        let heads = self.heads();
        let mut low = heads.partition_point(|found| found.get() < head);
        let equal = heads.get(low..).unwrap_or_default();
        let mut high = low + equal.partition_point(|found| found.get() == head);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(slot_of(middle))?.internal_key() < target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(slot_of(low))
    }

    fn shared(&self) -> Result<Shared<'_>, Corruption> {
        let first = self.record(0)?.internal_key();
        // In a verified block the tail says how much first and last key share, so the last one need not be
        // touched.
        let (_, tail) = BlockTail::ref_from_suffix(&self.bytes)
            .map_err(|_| Corruption::new("block length", 0, 4, self.len() as u64))?;
        let prefix_len = usize::from(tail.prefix_len.get());
        if prefix_len > 0 || self.count == 1 {
            let prefix = first.user_key.get(..prefix_len).unwrap_or_default();
            return Ok(Shared { keyspace: Some(first.keyspace), prefix });
        }
        let last = self.record(self.count - 1)?.internal_key();
        Ok(Shared { keyspace: (first.keyspace == last.keyspace).then_some(first.keyspace), prefix: &[] })
    }

    /// Checks all that the checksum cannot: every record parses and follows the one before it without a gap
    /// and in order, offsets and heads are those of the records, the tail is the one that a writer makes.
    /// Cost: about 10 ns a record.
    pub(crate) fn verify(&self) -> Result<(), Corruption> {
        let bad = |what, offset: usize, expected: u64, got: u64| {
            Err(Corruption::new(what, offset as u64, expected, got))
        };
        if self.count > 1 && self.len() > BLOCK_LEN_MAX {
            return bad("block length", 0, BLOCK_LEN_MAX as u64, self.len() as u64);
        }
        let (first, last) = (self.record(0)?.internal_key(), self.record(self.count - 1)?.internal_key());
        let shared = Shared::between(first, last);
        let mut end = 0;
        let mut previous: Option<InternalKey<'_>> = None;
        for (slot, head) in (0..self.count).zip(self.heads()) {
            let offset = self.offset(slot).unwrap_or_default();
            if offset != end {
                return bad("record offset in a block", end, end as u64, offset as u64);
            }
            let record = self.record(slot).map_err(|corruption| corruption.at(offset as u64))?;
            let key = record.internal_key();
            if previous.is_some_and(|previous| previous >= key) {
                return bad("order of the records", offset, u64::from(slot), u64::from(slot));
            }
            // Where the order is right, all keys share what the first and the last one do. Where it is not, one of the
            // checks fails, here or further on.
            let expected = match key.user_key.get(shared.prefix.len()..) {
                Some(rest) if shared.keyspace == Some(key.keyspace) => leading_u32(rest),
                _ => shared.head(key),
            };
            if head.get() != expected {
                return bad("head of a record", offset, 1, 0);
            }
            check_padding(record).map_err(|corruption| corruption.at(offset as u64))?;
            if !is_sound(record) {
                return bad(
                    if record.is_reference() { "reference" } else { "range of a range delete" },
                    offset,
                    key.user_key.len() as u64,
                    record.value().len() as u64,
                );
            }
            end = offset + record.raw().len();
            previous = Some(key);
        }
        if end != self.records_len {
            return bad("records of a block", end, self.records_len as u64, end as u64);
        }
        let tail = self.bytes.len() - size_of::<BlockTail>();
        let prefix_len = self.bytes.get(tail + 2..).unwrap_or_default();
        let expected = shared.prefix.len();
        match prefix_len.first_chunk().map(|bytes| usize::from(u16::from_le_bytes(*bytes))) {
            Some(got) if got == expected => {}
            got => return bad("prefix of a block", tail, expected as u64, got.unwrap_or(0) as u64),
        }
        let gap = if self.count.is_multiple_of(2) { 0..0 } else { tail - 2..tail };
        match self.bytes.get(gap).unwrap_or_default().iter().find(|byte| **byte != 0) {
            Some(byte) => bad("zeros in a block", tail - 2, 0, u64::from(*byte)),
            None => Ok(()),
        }
    }
}

fn check_padding(record: RecordRef<'_>) -> Result<(), Corruption> {
    let used = RECORD_HEADER_LEN + record.key().len() + record.value().len();
    match record.raw().get(used..).unwrap_or_default().iter().find(|byte| **byte != 0) {
        Some(byte) => Err(Corruption::new("padding of a record", used as u64, 0, u64::from(*byte))),
        None => Ok(()),
    }
}

/// A slot number from an index below a block's count, which is a `u16`.
#[inline]
fn slot_of(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pebble_format::{Kind, Seqno, record};

    fn raw(keyspace: u16, key: &[u8], seqno: u64) -> Vec<u8> {
        let mut bytes = vec![0; record::encoded_len(key.len(), 3)];
        let trailer = Trailer::new(Seqno(seqno), Kind::Put);
        record::encode(&mut bytes, KeyspaceId(keyspace), key, trailer, b"val").unwrap();
        bytes
    }

    fn block(keys: &[(u16, &[u8], u64)]) -> Block {
        let mut builder = BlockBuilder::default();
        for (keyspace, key, seqno) in keys {
            builder.push(RecordRef::parse(&raw(*keyspace, key, *seqno)).unwrap());
        }
        let count = u16::try_from(builder.count()).unwrap();
        Block::open(Pinned::copy(builder.close().unwrap()), count).unwrap()
    }

    #[test]
    fn a_block_is_searched_as_a_sorted_list() {
        let sets: [&[(u16, &[u8], u64)]; 4] = [
            &[(0, b"", 9), (0, b"", 3), (0, b"a", 1), (0, b"a\0", 1), (0, b"ab", 7), (0, b"abcdefgh", 2)],
            &[(1, b"user:1", 5), (1, b"user:1", 4), (1, b"user:1:x", 4), (1, b"user:2", 1)],
            &[(0, b"z", 1), (1, b"", 1), (1, b"a", 8), (2, b"a", 8), (2, b"a", 7)],
            &[(3, b"only", 5)],
        ];
        for keys in sets {
            let block = block(keys);
            block.verify().unwrap();
            let probes: [&[u8]; 11] =
                [b"", b"\0", b"a", b"a\0", b"aa", b"ab", b"user:", b"user:1", b"user:1:y", b"user:9", b"zz"];
            for keyspace in 0..5 {
                for probe in probes {
                    for seqno in [0, 1, 4, 5, 8, 100] {
                        let target = InternalKey::lookup(KeyspaceId(keyspace), probe, Seqno(seqno));
                        let model = (0..block.count())
                            .position(|slot| block.record(slot).unwrap().internal_key() >= target)
                            .unwrap_or(keys.len());
                        assert_eq!(usize::from(block.lower_bound(target).unwrap()), model, "{target:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_block_is_noticed_without_the_checksum_or_changes_no_key() {
        let good = block(&[(1, b"user:1", 5), (1, b"user:1", 4), (1, b"user:3", 1)]);
        let keys = |block: &Block| -> Vec<Vec<u8>> {
            (0..block.count()).map(|slot| block.record(slot).unwrap().key().to_vec()).collect()
        };
        for bit in 0..good.len() * 8 {
            let mut bytes = good.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(block) = Block::open(Pinned::copy(&bytes), 3) else { continue };
            if block.verify().is_ok() {
                assert_eq!(keys(&block).len(), 3);
                assert!(keys(&block).is_sorted());
            }
        }
    }
}
