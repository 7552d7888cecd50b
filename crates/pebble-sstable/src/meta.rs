//! What a table keeps at hand: footer, indexes and bounds, checked once when the table is opened.
//!
//! ```text
//!   footer: magic, own checksum, version ─► regions: where they must lie, zeros between them, checksums
//!                                        ─► directory: blocks tile the data exactly; counts and lengths add up
//!                                        ─► seek index: ascending, and begins with the first key's head
//!                                        ─► range deletes: in order, of records that the table may hold
//!                                        ─► dictionary: one that zstd takes, and only where a block needs it
//! ```
//!
//! After that a reader may index by block number without asking again, and nothing here has allocated more than a small
//! multiple of the file's length. What the checks cannot know (whether an index entry points to its own key) is left to
//! [`Table::verify`](crate::Table::verify); a get compares keys and so never takes the record of another key. Only an
//! index that was forged together with its checksums can lead it to an older version of the key, or to bytes within a
//! value that look like a record. Threading: immutable.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use pebble_cursor::{RangeDelete, RangeDeletes};
use pebble_format::checksum::crc32c;
use pebble_format::limits::RECORD_ALIGN;
use pebble_format::record::RECORD_HEADER_LEN;
use pebble_format::table::{
    BLOCK_COUNT_MAX, BLOCK_LEN_MAX, BlockEntry, Bucket, Codec, DICTIONARY_LEN_MAX, DICTIONARY_MAGIC,
    FLAG_COMPRESSED, FLAG_HAS_RANGE_DELETES, FLAG_HAS_REFERENCES, FLAG_HAS_TOMBSTONES, FLAG_HOLDS_VALUES,
    FLAG_UNIQUE_USER_KEYS, FLAGS_KNOWN, HASH_XXH3, IndexKind, KeyBound, REGION_COUNT, RegionId,
    TABLE_FOOTER_LEN, TABLE_MAGIC, TABLE_VERSION, TABLE_VERSION_MIN, TableFooter, TableProperties,
    block_tail_len, expansion_allowed, region_start, version_of,
};
use pebble_format::{
    Corruption, Error, HeadPrefix, InternalKey, KeyspaceId, OwnedKey, Pinned, Result, Seqno, Trailer,
};
use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::U64;

use crate::dictionary::{self, Dictionary};
use crate::options::TableInfo;
use crate::{ranges, referred};

/// Most bits that a key may set in a filter.
const PROBES_MAX: u8 = 16;

/// What every table without range deletes shares.
static NO_RANGE_DELETES: LazyLock<Arc<RangeDeletes>> = LazyLock::new(Arc::default);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Meta {
    /// The file from the end of the data to its own end.
    bytes: Pinned,
    /// Where each region lies in `bytes`.
    regions: [Range<usize>; REGION_COUNT],
    pub(crate) footer: TableFooter,
    pub(crate) index: IndexKind,
    pub(crate) prefix: HeadPrefix,
    pub(crate) info: TableInfo,
    pub(crate) properties: TableProperties,
    pub(crate) range_deletes: Arc<RangeDeletes>,
    /// What zstd blocks are expanded with, if they were compressed with it.
    pub(crate) dictionary: Option<Dictionary>,
}

/// One block, its numbers decoded and checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPlace {
    pub(crate) offset: u64,
    pub(crate) stored_len: usize,
    pub(crate) padded_len: usize,
    pub(crate) raw_len: usize,
    pub(crate) crc: u32,
    pub(crate) count: u16,
    pub(crate) codec: Codec,
}

fn corrupt<T>(what: &'static str, offset: u64, expected: u64, got: u64) -> Result<T> {
    Err(Corruption::new(what, offset, expected, got).into())
}

/// Errors unless both are equal.
fn same(what: &'static str, offset: u64, expected: u64, got: u64) -> Result<()> {
    if expected == got { Ok(()) } else { corrupt(what, offset, expected, got) }
}

/// A length in memory. A file of which it is a part was mapped or read, so it fits.
fn to_usize(len: u64) -> Result<usize> {
    usize::try_from(len).or_else(|_| corrupt("length", 0, usize::MAX as u64, len))
}

impl Meta {
    /// Reads and checks everything but the data of a file of `len` bytes.
    pub(crate) fn read(len: u64, mut read: impl FnMut(u64, usize) -> Result<Pinned>) -> Result<Self> {
        let Some(footer_at) = len.checked_sub(TABLE_FOOTER_LEN as u64) else {
            return corrupt("table length", 0, TABLE_FOOTER_LEN as u64, len);
        };
        let (footer, index) = check_footer(&read(footer_at, TABLE_FOOTER_LEN)?, footer_at)?;
        let data_len = footer.data_len.get();
        if data_len > footer_at || data_len % RECORD_ALIGN as u64 != 0 {
            return corrupt("data length", footer_at, footer_at, data_len);
        }
        let bytes = read(data_len, to_usize(len - data_len)?)?;
        let regions = check_regions(&footer, footer_at, &bytes)?;
        let mut meta = Self {
            info: TableInfo {
                number: footer.number.get(),
                uuid: footer.uuid,
                len,
                footer_crc: footer.crc.get(),
                count: footer.count.get(),
                keys: footer.keys.get(),
                tombstones: footer.tombstones.get(),
                first: InternalKey::lookup(KeyspaceId::DEFAULT, b"", Seqno::ZERO).into(),
                last: InternalKey::lookup(KeyspaceId::DEFAULT, b"", Seqno::ZERO).into(),
                range_deletes: 0,
                reach: None,
                seqno_min: Seqno(footer.seqno_min.get()),
                seqno_max: Seqno(footer.seqno_max.get()),
                blocks: footer.blocks.get(),
                data_len,
                raw_len: 0,
                key_bytes: 0,
                value_bytes: 0,
                index_len: u64::from(footer.region(RegionId::PointIndex).len.get()),
                holds_values: footer.flags.get() & FLAG_HOLDS_VALUES != 0,
                referred: Box::default(),
            },
            bytes,
            regions,
            footer,
            index,
            prefix: HeadPrefix::none(),
            properties: TableProperties::default(),
            range_deletes: Arc::clone(&NO_RANGE_DELETES),
            dictionary: None,
        };
        meta.check_counts(footer_at)?;
        meta.check_index()?;
        meta.check_bounds()?;
        meta.check_directory()?;
        meta.check_seek_index()?;
        meta.check_range_deletes()?;
        meta.check_dictionary()?;
        Ok(meta)
    }

    /// Bytes in memory, when they are not a part of a mapped file.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub(crate) fn region(&self, id: RegionId) -> &[u8] {
        self.bytes.get(self.regions[id as usize].clone()).unwrap_or_default()
    }

    fn offset(&self, id: RegionId) -> u64 {
        self.footer.region(id).offset.get()
    }

    /// The point index; empty when the table has another one.
    #[inline]
    pub(crate) fn buckets(&self) -> &[Bucket] {
        <[Bucket]>::ref_from_bytes(self.region(RegionId::PointIndex)).unwrap_or_default()
    }

    pub(crate) fn directory(&self) -> &[BlockEntry] {
        <[BlockEntry]>::ref_from_bytes(self.region(RegionId::Directory)).unwrap_or_default()
    }

    /// Heads of the first keys of all blocks, behind `prefix`.
    #[inline]
    pub(crate) fn seek_index(&self) -> &[U64] {
        <[U64]>::ref_from_bytes(self.region(RegionId::SeekIndex)).unwrap_or_default()
    }

    /// Where block `number` lies.
    #[inline]
    pub(crate) fn block(&self, number: u32) -> Result<BlockPlace, Corruption> {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let found = self.directory().get(at).and_then(|entry| {
            Some(BlockPlace {
                offset: entry.offset.get(),
                stored_len: usize::try_from(entry.stored_len.get()).ok()?,
                padded_len: usize::try_from(entry.padded_len()).ok()?,
                raw_len: usize::try_from(entry.raw_len.get()).ok()?,
                crc: entry.crc.get(),
                count: entry.count.get(),
                codec: Codec::from_u8(entry.codec)?,
            })
        });
        found.ok_or_else(|| {
            Corruption::new(
                "block number",
                self.offset(RegionId::Directory),
                self.info.blocks.into(),
                number.into(),
            )
        })
    }

    /// The block that holds byte `offset` of the data; the last one when it lies behind.
    pub(crate) fn block_at(&self, offset: u64) -> u32 {
        let after = self.directory().partition_point(|entry| entry.offset.get() <= offset);
        u32::try_from(after.saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn check_counts(&self, footer_at: u64) -> Result<()> {
        let (footer, info) = (&self.footer, &self.info);
        let blocks = u64::from(info.blocks);
        if blocks == 0 || info.count < blocks || info.keys == 0 || info.keys > info.count {
            return corrupt("counts", footer_at, info.count, blocks.max(info.keys));
        }
        if info.tombstones > info.count || info.seqno_min > info.seqno_max || info.seqno_max > Seqno::MAX {
            return corrupt("counts", footer_at, info.count, info.tombstones);
        }
        let flags = footer.flags.get();
        same(
            "unique flag",
            footer_at,
            u64::from(info.keys == info.count),
            u64::from(flags & FLAG_UNIQUE_USER_KEYS != 0),
        )?;
        same(
            "tombstone flag",
            footer_at,
            u64::from(info.tombstones > 0),
            u64::from(flags & FLAG_HAS_TOMBSTONES != 0),
        )?;
        let len = |id: RegionId| u64::from(footer.region(id).len.get());
        same(
            "directory length",
            footer_at,
            blocks * size_of::<BlockEntry>() as u64,
            len(RegionId::Directory),
        )?;
        same("seek index length", footer_at, blocks * size_of::<U64>() as u64, len(RegionId::SeekIndex))?;
        same(
            "range delete flag",
            footer_at,
            u64::from(len(RegionId::RangeDeletes) > 0),
            u64::from(flags & FLAG_HAS_RANGE_DELETES != 0),
        )?;
        // Each record is a put, and has a block of its own.
        let of_values = blocks == info.count && info.tombstones == 0 && self.index == IndexKind::None;
        if info.holds_values && (!of_values || flags & FLAG_HAS_REFERENCES != 0) {
            return corrupt("counts of a table of values", footer_at, blocks, info.count);
        }
        Ok(())
    }

    fn check_index(&self) -> Result<()> {
        let (at, len) = (self.offset(RegionId::PointIndex), self.info.index_len);
        let lines = len / size_of::<Bucket>() as u64;
        let probes = self.footer.probes;
        match self.index {
            IndexKind::None => same("point index length", at, 0, len)?,
            _ if lines == 0 || len % size_of::<Bucket>() as u64 != 0 => {
                return corrupt("point index length", at, size_of::<Bucket>() as u64, len);
            }
            _ => {}
        }
        match self.index {
            IndexKind::Bloom if (1..=PROBES_MAX).contains(&probes) => Ok(()),
            IndexKind::None | IndexKind::Granule | IndexKind::Slot if probes == 0 => Ok(()),
            _ => corrupt("filter probes", at, PROBES_MAX.into(), probes.into()),
        }
    }

    fn check_bounds(&mut self) -> Result<()> {
        let at = self.offset(RegionId::KeyBounds);
        let bytes = self.region(RegionId::KeyBounds);
        let parsed = <[KeyBound; 2]>::ref_from_prefix(bytes).ok().and_then(|([first, last], keys)| {
            let (first_key, last_key) = keys.split_at_checked(first.key_len.get().into())?;
            let whole = last_key.len() == usize::from(last.key_len.get());
            whole.then(|| {
                [(first, first_key), (last, last_key)].map(|(bound, user_key)| key_of(bound, user_key))
            })
        });
        let Some([first, last]) = parsed else { return corrupt("key bounds", at, 0, bytes.len() as u64) };
        let kinds = [first, last].into_iter().all(|key| key.trailer.kind().is_some());
        if !kinds || first > last || (first == last) != (self.info.count == 1) {
            return corrupt("key bounds", at, 0, self.info.count);
        }
        let prefix = HeadPrefix::between(first, last);
        let bounds = (OwnedKey::new(first), OwnedKey::new(last));
        self.prefix = prefix;
        (self.info.first, self.info.last) = bounds;
        Ok(())
    }

    fn check_directory(&mut self) -> Result<()> {
        let at = self.offset(RegionId::Directory);
        let (mut end, mut count, mut raw_len, mut compressed) = (0_u64, 0_u64, 0_u64, 0_u32);
        for (number, entry) in (0..self.info.blocks).zip(self.directory()) {
            let here = at + u64::from(number) * size_of::<BlockEntry>() as u64;
            same("block offset", here, end, entry.offset.get())?;
            let place =
                self.block(number).or_else(|_| corrupt("block codec", here, 0, entry.codec.into()))?;
            check_block(&place, here)?;
            same("reserved byte", here, 0, entry.reserved.into())?;
            compressed += u32::from(place.codec != Codec::None);
            // Sums of u32 over fewer than 2^32 blocks do not overflow.
            end += entry.padded_len();
            count += u64::from(place.count);
            raw_len += u64::from(entry.raw_len.get());
        }
        same("data length", at, self.info.data_len, end)?;
        same("record count", at, self.info.count, count)?;
        let flag = self.footer.flags.get() & FLAG_COMPRESSED != 0;
        same("compressed flag", at, u64::from(compressed > 0), u64::from(flag))?;
        self.check_properties(raw_len, compressed)
    }

    /// Comes last, so that a build without zstd tells damage as damage.
    fn check_dictionary(&mut self) -> Result<()> {
        let at = self.offset(RegionId::Dictionary);
        let bytes = self.region(RegionId::Dictionary);
        let zstd = self.directory().iter().any(|entry| entry.codec == Codec::Zstd as u8);
        let most = if zstd { DICTIONARY_LEN_MAX } else { 0 };
        if bytes.len() > most {
            return corrupt("dictionary length", at, most as u64, bytes.len() as u64);
        }
        if !bytes.is_empty() && !bytes.starts_with(&DICTIONARY_MAGIC) {
            return corrupt("dictionary magic", at, u32::from_le_bytes(DICTIONARY_MAGIC).into(), 0);
        }
        if zstd && !dictionary::SUPPORTED {
            return Err(Error::UnsupportedCodec { file: Box::from(""), codec: "zstd" });
        }
        if !bytes.is_empty() {
            let Some(prepared) = Dictionary::prepare(bytes) else {
                return corrupt("dictionary", at, 0, bytes.len() as u64);
            };
            self.dictionary = Some(prepared);
        }
        Ok(())
    }

    fn check_properties(&mut self, raw_len: u64, compressed: u32) -> Result<()> {
        let at = self.offset(RegionId::Properties);
        let region = self.region(RegionId::Properties);
        let Ok((properties, list)) = TableProperties::read_from_prefix(region) else {
            return corrupt("properties length", at, size_of::<TableProperties>() as u64, 0);
        };
        let list_at = at + size_of::<TableProperties>() as u64;
        let referred = referred::decode(list).map_err(|corruption| corruption.at(list_at))?;
        let flag = self.footer.flags.get() & FLAG_HAS_REFERENCES != 0;
        same("reference flag", at, u64::from(!referred.is_empty()), u64::from(flag))?;
        same("uncompressed length", at, raw_len, properties.raw_len.get())?;
        same("compressed blocks", at, compressed.into(), properties.compressed_blocks.get().into())?;
        same("reserved bytes", at, 0, u64::from(properties.reserved.iter().any(|byte| *byte != 0)))?;
        self.info.raw_len = raw_len;
        self.info.key_bytes = properties.key_bytes.get();
        self.info.value_bytes = properties.value_bytes.get();
        self.info.referred = referred;
        if self.info.holds_values && self.info.value_bytes > raw_len {
            return corrupt("value bytes", at, raw_len, self.info.value_bytes);
        }
        self.properties = properties;
        Ok(())
    }

    fn check_seek_index(&self) -> Result<()> {
        let at = self.offset(RegionId::SeekIndex);
        let heads = self.seek_index();
        let first = self.info.first.as_ref();
        let expected = self.prefix.head(first.keyspace, first.user_key);
        let is_it = heads.first().is_some_and(|head| head.get() == expected);
        same("first head", at, 1, u64::from(is_it))?;
        match heads.windows(2).position(|pair| matches!(pair, [a, b] if a.get() > b.get())) {
            Some(place) => corrupt("order of the seek index", at, 0, place as u64),
            None => Ok(()),
        }
    }

    /// Checks what the entries say of records that lie elsewhere: their order, and that the table may hold them.
    fn check_range_deletes(&mut self) -> Result<()> {
        let at = self.offset(RegionId::RangeDeletes);
        let info = &self.info;
        let (first, last) = (info.first.as_ref(), info.last.as_ref());
        let mut all: Vec<RangeDelete> = Vec::new();
        let mut previous = first;
        for found in ranges::entries(self.region(RegionId::RangeDeletes)) {
            let (offset, entry) = found.map_err(|corruption| corruption.at(at))?;
            let (here, key) = (at + offset as u64, entry.record_key());
            if entry.seqno < info.seqno_min || entry.seqno > info.seqno_max {
                return corrupt("sequence number of a range delete", here, info.seqno_max.0, entry.seqno.0);
            }
            if key < previous || key > last || !all.is_empty() && key == previous {
                return corrupt("order of the range deletes", here, 0, all.len() as u64);
            }
            previous = key;
            let count = all.len() as u64 + 1;
            if count > info.tombstones {
                return corrupt("number of range deletes", here, info.tombstones, count);
            }
            all.push(entry.into());
        }
        if all.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let ends = all.iter().map(|delete| (delete.keyspace, &*delete.end));
        self.info.reach = ranges::reach(last, ends).map(Box::from);
        self.info.range_deletes = count;
        self.range_deletes = Arc::new(RangeDeletes::new(all));
        Ok(())
    }
}

fn key_of<'a>(bound: &KeyBound, user_key: &'a [u8]) -> InternalKey<'a> {
    InternalKey {
        keyspace: KeyspaceId(bound.keyspace.get()),
        user_key,
        trailer: Trailer(bound.trailer.get()),
    }
}

/// Checks what the footer says of itself.
fn check_footer(bytes: &[u8], at: u64) -> Result<(TableFooter, IndexKind)> {
    let Ok(footer) = TableFooter::read_from_bytes(bytes) else {
        return corrupt("footer length", at, TABLE_FOOTER_LEN as u64, bytes.len() as u64);
    };
    same("table magic", at, u64::from_le_bytes(TABLE_MAGIC), u64::from_le_bytes(footer.magic))?;
    same("footer checksum", at, footer.checksum().into(), footer.crc.get().into())?;
    let version = footer.version.get();
    if !(TABLE_VERSION_MIN..=TABLE_VERSION).contains(&version) {
        return Err(Error::UnsupportedVersion { file: Box::from(""), found: version, max: TABLE_VERSION });
    }
    let flags = footer.flags.get();
    same("table flags", at, u64::from(flags & FLAGS_KNOWN), flags.into())?;
    same("version of a table with its flags", at, version_of(flags).into(), version.into())?;
    same("key hash", at, HASH_XXH3.into(), footer.hash.into())?;
    same("reserved bytes", at, 0, u64::from(footer.reserved.iter().any(|byte| *byte != 0)))?;
    match IndexKind::from_u8(footer.index) {
        Some(index) => Ok((footer, index)),
        None => corrupt("point index kind", at, IndexKind::Bloom as u64, footer.index.into()),
    }
}

/// Checks that the regions lie where a writer puts them, with zeros between them, and that their checksums
/// hold. Gives their places in `bytes`, which begins behind the data.
fn check_regions(footer: &TableFooter, footer_at: u64, bytes: &[u8]) -> Result<[Range<usize>; REGION_COUNT]> {
    let base = footer.data_len.get();
    let mut ranges = [const { 0..0 }; REGION_COUNT];
    let mut end = base;
    let zeros = |from: u64, to: u64| -> Result<()> {
        let gap = bytes.get(to_usize(from - base)?..to_usize(to - base)?).unwrap_or_default();
        same("zeros between regions", from, 0, u64::from(gap.iter().any(|byte| *byte != 0)))
    };
    let overflow = || Error::from(Corruption::new("region offset", footer_at, footer_at, u64::MAX));
    for (region, range) in footer.regions.iter().zip(&mut ranges) {
        let start = region_start(end).ok_or_else(overflow)?;
        same("region offset", footer_at, start, region.offset.get())?;
        let stop = start.checked_add(region.len.get().into()).ok_or_else(overflow)?;
        if stop > footer_at {
            return corrupt("region end", footer_at, footer_at, stop);
        }
        zeros(end, start)?;
        *range = to_usize(start - base)?..to_usize(stop - base)?;
        let crc = crc32c(0, bytes.get(range.clone()).unwrap_or_default());
        same("region checksum", start, region.crc.get().into(), crc.into())?;
        end = stop;
    }
    let start = region_start(end).ok_or_else(overflow)?;
    same("footer offset", footer_at, start, footer_at)?;
    zeros(end, start)?;
    Ok(ranges)
}

/// Checks the numbers of one block; its offset is the caller's business.
fn check_block(place: &BlockPlace, here: u64) -> Result<()> {
    let count = usize::from(place.count);
    if count == 0 || count > BLOCK_COUNT_MAX {
        return corrupt("record count of a block", here, BLOCK_COUNT_MAX as u64, count as u64);
    }
    let least = count * RECORD_HEADER_LEN + block_tail_len(count);
    let aligned = place.raw_len.is_multiple_of(RECORD_ALIGN);
    if place.raw_len < least || !aligned || count > 1 && place.raw_len > BLOCK_LEN_MAX {
        return corrupt("block length", here, least as u64, place.raw_len as u64);
    }
    match place.codec {
        Codec::None => same("stored length", here, place.raw_len as u64, place.stored_len as u64),
        Codec::Lz4 | Codec::Zstd if expansion_allowed(place.stored_len, place.raw_len) => Ok(()),
        Codec::Lz4 | Codec::Zstd => {
            corrupt("expansion of a block", here, place.stored_len as u64, place.raw_len as u64)
        }
    }
}
