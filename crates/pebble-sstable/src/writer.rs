//! The writer: records in order, verbatim, into any [`Write`].
//!
//! ```text
//!   add ──► BlockBuilder ──full──► [compress] ──► to        directory entry, first key
//!       └─► hash, location of each key's newest record; a copy of each range delete
//!   finish ──► index, directory, seek index, range deletes, properties, key bounds, footer ──► to
//! ```
//!
//! Memory: one block, 12 B a key, the first key of each block, and the range deletes. Threading: one thread at a time.

use std::io::Write;

use pebble_cursor::RangeDelete;
use pebble_format::checksum::crc32c;
use pebble_format::hash::key_hash;
use pebble_format::limits::RECORD_ALIGN;
use pebble_format::table::{
    BlockEntry, Codec, FLAG_COMPRESSED, FLAG_HAS_RANGE_DELETES, FLAG_HAS_TOMBSTONES, FLAG_UNIQUE_USER_KEYS,
    HASH_XXH3, IndexKind, KeyBound, REGION_ALIGN, REGION_COUNT, RegionId, TABLE_MAGIC, TABLE_VERSION,
    TableFooter, TableProperties, TableRegion, granule_location, slot_location,
};
use pebble_format::{
    Error, HeadPrefix, InternalKey, KeyspaceId, Kind, OwnedKey, RecordRef, Result, Seqno, Trailer, record,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::block::BlockBuilder;
use crate::options::{Compression, PointIndex, TableInfo, TableOptions};
use crate::{bloom, codec, index, ranges};

/// Bits per key of the filter that takes the place of a point index which the table has outgrown.
const FALLBACK_BITS: u8 = 10;

/// A location that no slot can hold: see [`pebble_format::table::LOCATION_MAX`].
const NO_LOCATION: u32 = u32::MAX;

/// Writes one table. After an I/O error every call repeats it: the output is unusable.
#[derive(Debug)]
pub struct TableWriter<W> {
    to: W,
    options: TableOptions,
    block: BlockBuilder,
    /// Where the open block will start: all closed ones are written.
    written: u64,
    directory: Vec<BlockEntry>,
    first_keys: Vec<OwnedKey>,
    hashes: Vec<u64>,
    locations: Vec<u32>,
    count: u64,
    keys: u64,
    tombstones: u64,
    range_deletes: Vec<RangeDelete>,
    seqnos: Option<(Seqno, Seqno)>,
    key_bytes: u64,
    value_bytes: u64,
    raw_len: u64,
    compressed_blocks: u32,
    /// The last record of [`TableWriter::put`].
    encoded: Vec<u8>,
    /// The last block, compressed.
    compressed: Vec<u8>,
    failed: Option<Error>,
}

impl<W: Write> TableWriter<W> {
    /// A writer of an empty table. `to` is written in pieces of a block; give it a buffer of its own
    /// ([`FileSink`](crate::FileSink), [`std::io::BufWriter`]) if that is slow.
    ///
    /// Errors: `InvalidArgument` for options out of their range.
    pub fn new(to: W, options: TableOptions) -> Result<Self> {
        options.check()?;
        Ok(Self {
            to,
            options,
            block: BlockBuilder::default(),
            written: 0,
            directory: Vec::new(),
            first_keys: Vec::new(),
            hashes: Vec::new(),
            locations: Vec::new(),
            count: 0,
            keys: 0,
            tombstones: 0,
            range_deletes: Vec::new(),
            seqnos: None,
            key_bytes: 0,
            value_bytes: 0,
            raw_len: 0,
            compressed_blocks: 0,
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
    /// Errors: `InvalidArgument` for a record out of order, or a range delete whose range holds no key or whose end
    /// is over the limit of a key, and nothing has changed; `Io` from the output.
    pub fn add(&mut self, record: RecordRef<'_>) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let key = record.internal_key();
        let mut newest = true;
        if let Some(previous) = self.block.last() {
            let previous = previous.internal_key();
            if previous >= key {
                return Err(Error::invalid(format!("record {} is not after the one before it", self.count)));
            }
            newest = !previous.same_key(&key);
        }
        if !ranges::has_range(record) {
            return Err(Error::invalid(format!("range delete {} without a range of keys", self.count)));
        }
        if !self.block.fits(record.raw().len(), self.options.block_len) {
            self.close_block()?;
        }
        if newest {
            self.keys += 1;
            if self.options.index != PointIndex::None {
                self.hashes.push(key_hash(key.keyspace, key.user_key));
                self.locations.push(self.next_location().unwrap_or(NO_LOCATION));
            }
        }
        self.block.push(record);
        self.count += 1;
        self.tombstones += u64::from(record.is_tombstone());
        self.range_deletes.extend(RangeDelete::of(record));
        self.key_bytes += key.user_key.len() as u64;
        self.value_bytes += record.value().len() as u64;
        let seqno = record.seqno();
        let (min, max) = self.seqnos.unwrap_or((seqno, seqno));
        self.seqnos = Some((min.min(seqno), max.max(seqno)));
        Ok(())
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

    /// Bytes of data if the open block were closed now. What follows the data is about 6 B a key longer.
    pub fn data_len(&self) -> u64 {
        self.written + self.block.closed_len() as u64
    }

    /// Whether the table has reached the length that its options name. The caller should end it before the
    /// next user key; a writer takes more records all the same, since the versions of one key must not be
    /// parted.
    pub fn is_full(&self) -> bool {
        self.data_len() >= self.options.table_len
    }

    /// Records so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Where the next record will lie, as the point index says it.
    fn next_location(&self) -> Option<u32> {
        match self.options.compression {
            Compression::None => granule_location(self.written + self.block.records_len() as u64),
            Compression::Lz4 => {
                let block = u32::try_from(self.directory.len()).ok()?;
                slot_location(block, u16::try_from(self.block.count()).ok()?)
            }
        }
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
        let Some(first) = self.block.first() else { return Ok(()) };
        self.first_keys.push(OwnedKey::new(first.internal_key()));
        let count =
            u16::try_from(self.block.count()).map_err(|_| Error::invalid("too many records in a block"))?;
        let compression = self.options.compression;
        let raw = self.block.close().ok_or_else(|| Error::invalid("a block over its limits"))?;
        let mut codec = Codec::None;
        let mut stored = raw;
        if compression == Compression::Lz4 && codec::compress(raw, &mut self.compressed) {
            codec = Codec::Lz4;
            stored = &self.compressed;
        }
        let stored_len = stored.len();
        if codec == Codec::Lz4 {
            let padded = stored_len.next_multiple_of(RECORD_ALIGN);
            self.compressed.resize(padded, 0);
            stored = &self.compressed;
        }
        self.to.write_all(stored)?;
        self.directory.push(BlockEntry {
            offset: self.written.into(),
            stored_len: to_u32(stored_len)?.into(),
            raw_len: to_u32(raw.len())?.into(),
            crc: crc32c(0, stored).into(),
            count: count.into(),
            codec: codec as u8,
            reserved: 0,
        });
        self.written += stored.len() as u64;
        self.raw_len += raw.len() as u64;
        self.compressed_blocks += u32::from(codec != Codec::None);
        self.block.clear();
        Ok(())
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
        let (Some(last), Some((seqno_min, seqno_max))) = (self.block.last(), self.seqnos) else {
            return Err(Error::invalid("a table holds at least one record"));
        };
        let last = OwnedKey::new(last.internal_key());
        if let Some(cut) = cut {
            if cut.cmp_user(&last.as_ref()).is_le() {
                return Err(Error::invalid("a table cut before its own end"));
            }
            ranges::clip(&mut self.range_deletes, cut);
        }
        self.write_block()?;
        let Some(first) = self.first_keys.first().cloned() else {
            return Err(Error::invalid("a table holds at least one record"));
        };
        let (kind, probes, index) = self.point_index();
        let prefix = HeadPrefix::between(first.as_ref(), last.as_ref());
        let heads = self.first_keys.iter().map(OwnedKey::as_ref);
        let seek_index: Vec<u8> =
            heads.flat_map(|key| prefix.head(key.keyspace, key.user_key).to_le_bytes()).collect();
        let properties = TableProperties {
            key_bytes: self.key_bytes.into(),
            value_bytes: self.value_bytes.into(),
            raw_len: self.raw_len.into(),
            compressed_blocks: self.compressed_blocks.into(),
            block_len: to_u32(self.options.block_len)?.into(),
            ..TableProperties::new_zeroed()
        };
        let range_deletes = ranges::encode(&self.range_deletes)?;
        let ends = self.range_deletes.iter().map(|delete| (delete.keyspace, &*delete.end));
        let reach = ranges::reach(last.as_ref(), ends).map(Box::from);
        let bounds = key_bounds(first.as_ref(), last.as_ref())?;
        let mut regions = [TableRegion::default(); REGION_COUNT];
        let mut end = self.written;
        for (id, region) in RegionId::ALL.into_iter().zip(&mut regions) {
            let bytes: &[u8] = match id {
                RegionId::PointIndex => &index,
                RegionId::Directory => self.directory.as_bytes(),
                RegionId::SeekIndex => &seek_index,
                RegionId::RangeDeletes => &range_deletes,
                RegionId::Dictionary => &[],
                RegionId::Properties => properties.as_bytes(),
                RegionId::KeyBounds => &bounds,
            };
            end += pad(&mut self.to, end)?;
            self.to.write_all(bytes)?;
            let (offset, len, crc) = (end.into(), to_u32(bytes.len())?.into(), crc32c(0, bytes).into());
            *region = TableRegion { offset, len, crc };
            end += bytes.len() as u64;
        }
        end += pad(&mut self.to, end)?;
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let flags = flag(self.keys == self.count, FLAG_UNIQUE_USER_KEYS)
            | flag(self.tombstones > 0, FLAG_HAS_TOMBSTONES)
            | flag(self.compressed_blocks > 0, FLAG_COMPRESSED)
            | flag(!self.range_deletes.is_empty(), FLAG_HAS_RANGE_DELETES);
        let mut footer = TableFooter {
            magic: TABLE_MAGIC,
            version: TABLE_VERSION.into(),
            flags: flags.into(),
            uuid: self.options.uuid,
            number: self.options.number.into(),
            data_len: self.written.into(),
            regions,
            count: self.count.into(),
            keys: self.keys.into(),
            tombstones: self.tombstones.into(),
            seqno_min: seqno_min.0.into(),
            seqno_max: seqno_max.0.into(),
            blocks: to_u32(self.directory.len())?.into(),
            index: kind as u8,
            hash: HASH_XXH3,
            probes,
            ..TableFooter::new_zeroed()
        };
        footer.crc = footer.checksum().into();
        self.to.write_all(footer.as_bytes())?;
        self.to.flush()?;
        let info = TableInfo {
            number: self.options.number,
            uuid: self.options.uuid,
            len: end + size_of::<TableFooter>() as u64,
            footer_crc: footer.crc.get(),
            count: self.count,
            keys: self.keys,
            tombstones: self.tombstones,
            first,
            last,
            range_deletes: to_u32(self.range_deletes.len())?,
            reach,
            seqno_min,
            seqno_max,
            blocks: footer.blocks.get(),
            data_len: self.written,
            raw_len: self.raw_len,
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            index_len: index.len() as u64,
        };
        Ok((self.to, info))
    }

    /// The bytes of the index region, what they are, and a filter's probes.
    fn point_index(&self) -> (IndexKind, u8, Vec<u8>) {
        let bits = match self.options.index {
            PointIndex::None => return (IndexKind::None, 0, Vec::new()),
            PointIndex::Bloom { bits_per_key } => bits_per_key,
            PointIndex::Location => {
                if let Some(buckets) = index::build(&self.hashes, &self.locations) {
                    let kind = match self.options.compression {
                        Compression::None => IndexKind::Granule,
                        Compression::Lz4 => IndexKind::Slot,
                    };
                    return (kind, 0, buckets.as_bytes().to_vec());
                }
                FALLBACK_BITS
            }
        };
        (IndexKind::Bloom, bloom::probes(bits), bloom::build(&self.hashes, bits))
    }
}

fn to_u32(len: usize) -> Result<u32> {
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
