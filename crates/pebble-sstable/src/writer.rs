//! The writer: records in order, verbatim, into any [`Write`].
//!
//! ```text
//!   add ──► BlockBuilder ──full──► [compress] ──► to        directory entry, first key
//!       └─► hash, location of each key's newest record; a copy of each range delete
//!   finish ──► index, directory, seek index, range deletes, properties, key bounds, footer ──► to
//! ```
//!
//! Memory: one block, 12 B a key, the first key of each block, the range deletes, blocks that wait for a dictionary.
//! Threading: one thread at a time.

use std::cmp::Ordering;
use std::io::Write;

use pebble_cursor::{RangeDelete, WholeBlock};
use pebble_format::checksum::crc32c;
use pebble_format::hash::key_hash;
use pebble_format::table::{
    Bucket, Codec, FLAG_COMPRESSED, FLAG_HAS_RANGE_DELETES, FLAG_HAS_REFERENCES, FLAG_HAS_TOMBSTONES,
    FLAG_HOLDS_VALUES, FLAG_UNIQUE_USER_KEYS, HASH_XXH3, IndexKind, KeyBound, REGION_ALIGN, REGION_COUNT,
    RegionId, TABLE_MAGIC, TableFooter, TableProperties, TableRegion, granule_location, slot_location,
    version_of,
};
use pebble_format::{
    Error, HeadPrefix, InternalKey, KeyspaceId, Kind, OwnedKey, RecordRef, Result, Seqno, Trailer, record,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::block::BlockBuilder;
use crate::data::{Data, Stored, Sums};
use crate::dictionary::Packer;
use crate::options::{Compression, PointIndex, TableInfo, TableOptions};
use crate::referred::{self, Tally, is_sound};
use crate::source::usize_of;
use crate::{bloom, codec, index, ranges};

/// Bits per key of the filter that takes the place of a point index that [`index::build`] gives up.
const FALLBACK_BITS: u8 = 10;

/// So many blocks make up for one that is closed nearly empty, so that a whole one can be handed on behind it. Without
/// that, blocks that begin a little behind the writer's own borders would never be handed on.
const BLOCKS_PER_SHORT: u32 = 8;

/// A location that no slot can hold: see [`pebble_format::table::LOCATION_MAX`].
const NO_LOCATION: u32 = u32::MAX;

/// Writes one table. After an I/O error every call repeats it: the output is unusable.
#[derive(Debug)]
pub struct TableWriter<W> {
    options: TableOptions,
    data: Data<W>,
    sums: Sums,
    /// The block that is open; it will follow the data.
    block: BlockBuilder,
    /// The last key, if its block is closed: it came with a whole one, or one was to begin behind it.
    handed_on: Option<OwnedKey>,
    /// Blocks written since a nearly empty one was closed for a whole one.
    since_short: u32,
    hashes: Vec<u64>,
    locations: Vec<u32>,
    range_deletes: Vec<RangeDelete>,
    referred: Tally,
    /// The last record of [`TableWriter::put`].
    encoded: Vec<u8>,
    /// The last block, compressed.
    compressed: Vec<u8>,
    /// What compresses blocks instead, with [`Compression::Zstd`].
    zstd: Option<Packer>,
    failed: Option<Error>,
}

impl<W: Write> TableWriter<W> {
    /// A writer of an empty table. `to` is written in pieces of a block, and flushed when the data ends and when the
    /// table does; give it a buffer of its own ([`FileSink`](crate::FileSink), [`std::io::BufWriter`]) if that is slow.
    ///
    /// Errors: `InvalidArgument` for options out of their range.
    pub fn new(to: W, options: TableOptions) -> Result<Self> {
        options.check()?;
        Ok(Self {
            zstd: Packer::of(options.compression)?,
            options,
            data: Data::new(to),
            sums: Sums::default(),
            block: BlockBuilder::default(),
            handed_on: None,
            since_short: BLOCKS_PER_SHORT,
            hashes: Vec::new(),
            locations: Vec::new(),
            range_deletes: Vec::new(),
            referred: Tally::default(),
            encoded: Vec::new(),
            compressed: Vec::new(),
            failed: None,
        })
    }

    /// Appends a record, byte for byte. Its key must come after the one before it. Cost: the copy, a hash and
    /// a compare.
    ///
    /// A range delete is a record of its first key and stands in its place as any other; the writer remembers it for
    /// the table's index of them.
    ///
    /// Errors: `InvalidArgument` for a record out of order, a range delete whose range holds no key or whose end
    /// is over the limit of a key, a reference that is none, a record that a table of values may not hold, and
    /// nothing has changed; `Io` from the output.
    pub fn add(&mut self, record: RecordRef<'_>) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let key = record.internal_key();
        let mut newest = true;
        if let Some(previous) = self.last_key() {
            newest = match previous.cmp_user(&key) {
                Ordering::Less => true,
                Ordering::Equal if previous.trailer > key.trailer => false,
                _ => return Err(self.out_of_order()),
            };
        }
        if !is_sound(record) {
            let count = self.sums.count;
            return Err(Error::invalid(format!("record {count} names no range of keys, or no value")));
        }
        if self.options.holds_values && !self.may_be_referred_to(record) {
            return Err(Error::invalid(format!("record {} in a table of values", self.sums.count)));
        }
        if !self.block.fits(record.raw().len(), self.options.block_len) {
            self.close_block()?;
        }
        if newest && self.options.index != PointIndex::None {
            self.hashes.push(key_hash(key.keyspace, key.user_key));
            self.locations.push(self.location(self.block.count(), self.block.records_len()));
        }
        self.block.push(record);
        self.sums.add(record, newest);
        if !record.is_plain() {
            self.referred.add(record);
            self.range_deletes.extend(RangeDelete::of(record));
        }
        Ok(())
    }

    /// Whether no other record joins the block of this one, and it has a value.
    fn may_be_referred_to(&self, record: RecordRef<'_>) -> bool {
        let is_put = record.trailer().kind() == Some(Kind::Put);
        is_put && !record.value().is_empty() && record.raw().len() >= self.options.block_len
    }

    #[cold]
    fn out_of_order(&self) -> Error {
        Error::invalid(format!("record {} is not after the one before it", self.sums.count))
    }

    /// The key of the last record.
    #[inline]
    pub fn last_key(&self) -> Option<InternalKey<'_>> {
        self.block.last_key().or_else(|| self.handed_on.as_ref().map(OwnedKey::as_ref))
    }

    /// Whether handing this block on with [`TableWriter::add_block`] serves the table: it is compressed as the options
    /// say, of about the length they name, does not fill the table up, and closes no nearly empty block before it, or
    /// seldom. A block that an LZ4 writer could not compress counts as not compressed.
    pub fn takes(&self, block: &WholeBlock<'_>) -> bool {
        let as_chosen = match self.options.compression {
            Compression::None => block.codec == Codec::None,
            Compression::Lz4 => block.codec == Codec::Lz4,
            Compression::Zstd { dictionary, .. } => block.codec == Codec::Zstd && !dictionary,
        };
        let (raw_len, target) = (usize_of(block.raw_len.into()), self.options.block_len);
        let of_length = raw_len >= target / 2 && (raw_len <= target || block.count == 1);
        let fits = self.data_len() + block.stored.len() as u64 <= self.options.table_len;
        let open = self.open_block_len();
        as_chosen
            && of_length
            && fits
            && (open == 0 || open >= target / 2 || self.since_short >= BLOCKS_PER_SHORT)
    }

    /// Appends a block as it is stored, with the checksum that it has: its bytes are not looked at, so what has
    /// happened to them since they were checked is found when they are read again. The block that is open is closed,
    /// see [`TableWriter::takes`]. Cost: a copy, a look at each key and its hash.
    ///
    /// Errors: `InvalidArgument` for a block that does not come after the last record, is compressed where the options
    /// say it is not, or is not what [`WholeBlock`] promises, and no record of it is added; `Io` from the output.
    pub fn add_block(&mut self, block: &WholeBlock<'_>) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let allowed = match self.options.compression {
            Compression::None => block.codec == Codec::None,
            Compression::Lz4 => block.codec != Codec::Zstd,
            // A frame that was made without a dictionary may come to something else with one.
            Compression::Zstd { dictionary, .. } => block.codec != Codec::Zstd || !dictionary,
        };
        let allowed = allowed && !self.options.holds_values;
        if !allowed {
            return Err(Error::invalid("a block compressed as no block of this table"));
        }
        let first = block.first()?.internal_key();
        if self.last_key().is_some_and(|previous| previous.cmp_user(&first).is_ge()) {
            return Err(self.out_of_order());
        }
        let open = self.open_block_len();
        self.end_open_block()?;
        if (1..self.options.block_len / 2).contains(&open) {
            self.since_short = 0;
        }
        let sums = self.enter_records(block)?;
        let stored = Stored {
            bytes: block.stored,
            codec: block.codec,
            crc: Some(block.crc),
            raw_len: block.raw_len,
            count: block.count,
        };
        let written = self.data.write(&stored, OwnedKey::new(first));
        self.fail_after(written)?;
        self.since_short = self.since_short.saturating_add(1);
        self.sums = sums;
        self.handed_on = Some(OwnedKey::new(block.last.internal_key()));
        Ok(())
    }

    /// Enters the records of a block, which will be the next one, into the point index; gives the sums with them.
    fn enter_records(&mut self, block: &WholeBlock<'_>) -> Result<Sums> {
        let (entered, mut sums, mut referred) = (self.hashes.len(), self.sums, Tally::default());
        let done = block.records().enumerate().try_for_each(|(slot, found)| {
            let (offset, record) = found?;
            if record.is_range_delete() {
                return Err(Error::invalid("a range delete in a whole block"));
            }
            if self.options.index != PointIndex::None {
                self.hashes.push(key_hash(record.keyspace(), record.key()));
                self.locations.push(self.location(slot, offset));
            }
            sums.add(record, true);
            referred.add(record);
            Ok(())
        });
        let counted = sums.count - self.sums.count == u64::from(block.count);
        let done = done.and_then(|()| {
            counted
                .then_some(sums)
                .ok_or_else(|| Error::invalid("a whole block of another count than it says"))
        });
        match &done {
            Ok(_) => self.referred.join(referred),
            Err(_) => {
                self.hashes.truncate(entered);
                self.locations.truncate(entered);
            }
        }
        done
    }

    /// Encodes and appends a put. Errors as [`TableWriter::add`], and `InvalidArgument` for a key or value
    /// over its limit.
    pub fn put(&mut self, keyspace: KeyspaceId, key: &[u8], seqno: Seqno, value: &[u8]) -> Result<()> {
        self.encode(keyspace, key, Trailer::new(seqno, Kind::Put), value)
    }

    /// Encodes and appends a tombstone. Errors as [`TableWriter::put`].
    pub fn delete(&mut self, keyspace: KeyspaceId, key: &[u8], seqno: Seqno) -> Result<()> {
        self.encode(keyspace, key, Trailer::new(seqno, Kind::Delete), b"")
    }

    /// Encodes and appends a range delete: of every key from `start` on and before `end`, or to the end of the keyspace
    /// when `end` is empty. Errors as [`TableWriter::add`] and [`TableWriter::put`].
    pub fn delete_range(
        &mut self,
        keyspace: KeyspaceId,
        start: &[u8],
        end: &[u8],
        seqno: Seqno,
    ) -> Result<()> {
        self.encode(keyspace, start, Trailer::new(seqno, Kind::RangeDelete), end)
    }

    fn encode(&mut self, keyspace: KeyspaceId, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        record::check_lengths(key, value)?;
        if trailer.seqno() > Seqno::MAX {
            return Err(Error::invalid("sequence number over its limit"));
        }
        let mut bytes = std::mem::take(&mut self.encoded);
        bytes.resize(record::encoded_len(key.len(), value.len()), 0);
        record::encode(&mut bytes, keyspace, key, trailer, value)?;
        let added = RecordRef::parse(&bytes).map_err(Error::from).and_then(|record| self.add(record));
        self.encoded = bytes;
        added
    }

    /// Bytes of data if the open block were closed now. What follows the data is about 6 B a key longer. Blocks that
    /// wait for a dictionary count as they are, so it may become less when they are compressed.
    pub fn data_len(&self) -> u64 {
        let waiting = self.zstd.as_ref().map_or(0, Packer::waiting_len);
        self.data.len + (waiting + self.open_block_len()) as u64
    }

    /// Bytes of the open block if it were closed now; 0 when none is open.
    pub fn open_block_len(&self) -> usize {
        self.block.closed_len()
    }

    /// Whether the table has reached the length that its options name. The caller should end it before the
    /// next user key; a writer takes more records all the same, since the versions of one key must not be
    /// parted.
    pub fn is_full(&self) -> bool {
        self.data_len() >= self.options.table_len
    }

    /// Ends the open block, and says where the next one begins in the file. Errors: `Io` from the output.
    pub fn end_block(&mut self) -> Result<u64> {
        self.end_open_block()?;
        Ok(self.data.len)
    }

    /// Closes the open block, whose last key is remembered, and writes all that waits.
    fn end_open_block(&mut self) -> Result<()> {
        self.handed_on = self.last_key().map(OwnedKey::new);
        self.close_block()?;
        let settled = self.settle();
        self.fail_after(settled)
    }

    /// The table's number.
    pub fn number(&self) -> u64 {
        self.options.number
    }

    /// Records so far.
    pub fn count(&self) -> u64 {
        self.sums.count
    }

    /// Where a record of the next block will lie, as the point index says it: by its slot and its offset in there.
    #[inline]
    fn location(&self, slot: usize, offset: usize) -> u32 {
        let location = match self.options.compression {
            Compression::None => granule_location(self.data.len + offset as u64),
            Compression::Lz4 | Compression::Zstd { .. } => {
                let waiting = self.zstd.as_ref().map_or(0, Packer::waiting);
                let block = u32::try_from(self.data.directory.len() + waiting).ok();
                block.zip(u16::try_from(slot).ok()).and_then(|(block, slot)| slot_location(block, slot))
            }
        };
        location.unwrap_or(NO_LOCATION)
    }

    fn close_block(&mut self) -> Result<()> {
        let result = self.write_block();
        self.fail_after(result)
    }

    /// Remembers an error for all calls to come.
    fn fail_after<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn write_block(&mut self) -> Result<()> {
        let Some(first) = self.block.first_key().map(OwnedKey::new) else { return Ok(()) };
        let count =
            u16::try_from(self.block.count()).map_err(|_| Error::invalid("too many records in a block"))?;
        let raw = self.block.close().ok_or_else(|| Error::invalid("a block over its limits"))?;
        if let Some(zstd) = &mut self.zstd {
            zstd.push(raw, count, first, &mut self.data)?;
        } else {
            let compress = self.options.compression == Compression::Lz4;
            let (bytes, codec) = match compress && codec::compress(raw, &mut self.compressed) {
                true => (&*self.compressed, Codec::Lz4),
                false => (raw, Codec::None),
            };
            let stored = Stored { bytes, codec, crc: None, raw_len: to_u32(raw.len())?, count };
            self.data.write(&stored, first)?;
        }
        self.since_short = self.since_short.saturating_add(1);
        self.block.clear();
        Ok(())
    }

    /// Writes the blocks that wait for a dictionary.
    fn settle(&mut self) -> Result<()> {
        self.zstd.as_mut().map_or(Ok(()), |zstd| zstd.settle(&mut self.data))
    }

    /// Closes the last block, writes everything else and flushes the output, which it gives back. Making the
    /// bytes durable is the caller's business.
    ///
    /// Errors: `InvalidArgument` for a table without records; `Io` from the output.
    pub fn finish(self) -> Result<(W, TableInfo)> {
        self.finish_before(None)
    }

    /// As [`TableWriter::finish`], for a table that is followed by one whose first user key is that of `cut`: ranges
    /// that go on behind it end there as far as this table is concerned. Their records stay as they are; the caller
    /// begins the next table with records for what is left of the ranges.
    ///
    /// Errors: as [`TableWriter::finish`], and `InvalidArgument` for a `cut` that is not behind the last user key.
    pub fn finish_before(mut self, cut: Option<InternalKey<'_>>) -> Result<(W, TableInfo)> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (Some(last), Some((seqno_min, seqno_max))) = (self.last_key(), self.sums.seqnos) else {
            return Err(Error::invalid("a table holds at least one record"));
        };
        let last = OwnedKey::new(last);
        if let Some(cut) = cut {
            if cut.cmp_user(&last.as_ref()).is_le() {
                return Err(Error::invalid("a table cut before its own end"));
            }
            ranges::clip(&mut self.range_deletes, cut);
        }
        self.write_block()?;
        self.settle()?;
        // Data and indexes part here, for an output that treats them differently: `FileSink::past_cache`.
        self.data.to.flush()?;
        let Some(first) = self.data.first_keys.first().cloned() else {
            return Err(Error::invalid("a table holds at least one record"));
        };
        let (kind, probes, index) = self.point_index();
        let prefix = HeadPrefix::between(first.as_ref(), last.as_ref());
        let heads = self.data.first_keys.iter().map(OwnedKey::as_ref);
        let seek_index: Vec<u8> =
            heads.flat_map(|key| prefix.head(key.keyspace, key.user_key).to_le_bytes()).collect();
        let properties = TableProperties {
            key_bytes: self.sums.key_bytes.into(),
            value_bytes: self.sums.value_bytes.into(),
            raw_len: self.data.raw_len.into(),
            compressed_blocks: self.data.compressed_blocks.into(),
            block_len: to_u32(self.options.block_len)?.into(),
            ..TableProperties::new_zeroed()
        };
        let referred = self.referred.list();
        let properties = [properties.as_bytes(), &referred::encode(&referred)].concat();
        let range_deletes = ranges::encode(&self.range_deletes)?;
        let ends = self.range_deletes.iter().map(|delete| (delete.keyspace, &*delete.end));
        let reach = ranges::reach(last.as_ref(), ends).map(Box::from);
        let bounds = key_bounds(first.as_ref(), last.as_ref())?;
        let mut regions = [TableRegion::default(); REGION_COUNT];
        let mut end = self.data.len;
        for (id, region) in RegionId::ALL.into_iter().zip(&mut regions) {
            let bytes: &[u8] = match id {
                RegionId::PointIndex => index.as_bytes(),
                RegionId::Directory => self.data.directory.as_bytes(),
                RegionId::SeekIndex => &seek_index,
                RegionId::RangeDeletes => &range_deletes,
                RegionId::Dictionary => self.zstd.as_ref().map_or(&[], Packer::dictionary),
                RegionId::Properties => &properties,
                RegionId::KeyBounds => &bounds,
            };
            end += pad(&mut self.data.to, end)?;
            self.data.to.write_all(bytes)?;
            let (offset, len, crc) = (end.into(), to_u32(bytes.len())?.into(), crc32c(0, bytes).into());
            *region = TableRegion { offset, len, crc };
            end += bytes.len() as u64;
        }
        end += pad(&mut self.data.to, end)?;
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let flags = flag(self.sums.keys == self.sums.count, FLAG_UNIQUE_USER_KEYS)
            | flag(self.sums.tombstones > 0, FLAG_HAS_TOMBSTONES)
            | flag(self.data.compressed_blocks > 0, FLAG_COMPRESSED)
            | flag(!self.range_deletes.is_empty(), FLAG_HAS_RANGE_DELETES)
            | flag(!referred.is_empty(), FLAG_HAS_REFERENCES)
            | flag(self.options.holds_values, FLAG_HOLDS_VALUES);
        let mut footer = TableFooter {
            magic: TABLE_MAGIC,
            version: version_of(flags).into(),
            flags: flags.into(),
            uuid: self.options.uuid,
            number: self.options.number.into(),
            data_len: self.data.len.into(),
            regions,
            count: self.sums.count.into(),
            keys: self.sums.keys.into(),
            tombstones: self.sums.tombstones.into(),
            seqno_min: seqno_min.0.into(),
            seqno_max: seqno_max.0.into(),
            blocks: to_u32(self.data.directory.len())?.into(),
            index: kind as u8,
            hash: HASH_XXH3,
            probes,
            ..TableFooter::new_zeroed()
        };
        footer.crc = footer.checksum().into();
        self.data.to.write_all(footer.as_bytes())?;
        self.data.to.flush()?;
        let info = TableInfo {
            number: self.options.number,
            uuid: self.options.uuid,
            len: end + size_of::<TableFooter>() as u64,
            footer_crc: footer.crc.get(),
            count: self.sums.count,
            keys: self.sums.keys,
            tombstones: self.sums.tombstones,
            first,
            last,
            range_deletes: to_u32(self.range_deletes.len())?,
            reach,
            seqno_min,
            seqno_max,
            blocks: footer.blocks.get(),
            data_len: self.data.len,
            raw_len: self.data.raw_len,
            key_bytes: self.sums.key_bytes,
            value_bytes: self.sums.value_bytes,
            index_len: index.as_bytes().len() as u64,
            holds_values: self.options.holds_values,
            referred,
        };
        Ok((self.data.to, info))
    }

    /// The bytes of the index region, what they are, and a filter's probes.
    fn point_index(&self) -> (IndexKind, u8, IndexBytes) {
        let bits = match self.options.index {
            PointIndex::None => return (IndexKind::None, 0, IndexBytes::Filter(Vec::new())),
            PointIndex::Bloom { bits_per_key } => bits_per_key,
            PointIndex::Location => {
                if let Some(buckets) = index::build(&self.hashes, &self.locations) {
                    let kind = match self.options.compression {
                        Compression::None => IndexKind::Granule,
                        Compression::Lz4 | Compression::Zstd { .. } => IndexKind::Slot,
                    };
                    return (kind, 0, IndexBytes::Buckets(buckets));
                }
                FALLBACK_BITS
            }
        };
        (IndexKind::Bloom, bloom::probes(bits), IndexBytes::Filter(bloom::build(&self.hashes, bits)))
    }
}

/// What the index region holds.
enum IndexBytes {
    Buckets(Vec<Bucket>),
    Filter(Vec<u8>),
}

impl IndexBytes {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Buckets(buckets) => buckets.as_bytes(),
            Self::Filter(bytes) => bytes,
        }
    }
}

pub(crate) fn to_u32(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::invalid(format!("{len} bytes in one part of a table")))
}

/// Writes zeros up to where the next region starts; says how many.
fn pad(to: &mut impl Write, end: u64) -> Result<u64> {
    const ZEROS: [u8; REGION_ALIGN as usize] = [0; REGION_ALIGN as usize];
    let len = end.next_multiple_of(REGION_ALIGN) - end;
    let zeros = usize::try_from(len).ok().and_then(|len| ZEROS.get(..len)).unwrap_or_default();
    to.write_all(zeros)?;
    Ok(len)
}

fn key_bounds(first: InternalKey<'_>, last: InternalKey<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for key in [first, last] {
        let key_len = u16::try_from(key.user_key.len()).map_err(|_| Error::invalid("key over its limit"))?;
        let bound = KeyBound {
            trailer: key.trailer.0.into(),
            key_len: key_len.into(),
            keyspace: key.keyspace.0.into(),
        };
        bytes.extend_from_slice(bound.as_bytes());
    }
    bytes.extend_from_slice(first.user_key);
    bytes.extend_from_slice(last.user_key);
    Ok(bytes)
}
