//! The reader: one code path over bytes in place and over positioned reads.
//!
//! ```text
//!   get ─► bucket (miss 1) ─► record (miss 2) ─► key equal, version visible? ─► pinned where it lies
//!                                     └─ no older version fits: seek index ─► block ─► heads ─► record
//!
//!   block(n) ─► in place, uncompressed: a slice        ┐ checksum and structure on first touch,
//!            └► else: cache ─► read ─► expand ─► cache  ┘ remembered in one bit
//! ```
//!
//! Threading: a table is immutable but for its verified bits, which only go from 0 to 1 and guard bytes that
//! never change: relaxed order is enough. No lock but a shard of the cache.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pebble_cursor::RangeDeletes;
use pebble_format::hash::key_hash;
use pebble_format::prefetch::{prefetch, prefetch_lines};
use pebble_format::table::{
    Codec, FLAG_COMPRESSED, FLAG_UNIQUE_USER_KEYS, IndexKind, RegionId, TABLE_FOOTER_LEN, TableProperties,
    granule_offset, split_slot_location,
};
use pebble_format::{
    Corruption, Error, InternalKey, OwnedKey, Pinned, PinnedRecord, RecordRef, Result, Trailer,
};
use pebble_vfs::{Advice, File, Fs, Map, Open, OsFs};

use crate::block::Block;
use crate::cache::BlockCache;
use crate::cursor::{RECORD_LEN, TableCursor};
use crate::dictionary::Dictionary;
use crate::index::{Candidates, home};
use crate::meta::{BlockPlace, Meta};
use crate::options::{TableInfo, TableReadOptions};
use crate::seek::prefetch_search;
use crate::source::{Bits, Source, usize_of};
use crate::{bloom, codec};

/// Bytes of data that one page bit stands for, as a shift: the default block length.
pub(crate) const PAGE_SHIFT: u32 = 14;

/// An open table. Shared as `Arc<Table>`; what it lends is pinned to the bytes, not to the table.
#[derive(Debug)]
pub struct Table {
    name: Box<str>,
    pub(crate) source: Source,
    /// The cache, and the table's number in it.
    cache: Option<(Arc<BlockCache>, u64)>,
    pub(crate) meta: Meta,
    /// A bit for each block whose checksum and structure were found right.
    pub(crate) blocks_verified: Bits,
    /// A bit for each 16 KiB of data that no unverified block touches: what lets a get by offset skip the
    /// directory. Empty where records are not read by offset.
    pub(crate) pages_verified: Bits,
    /// The map, if the file is mapped, and whether all of it was asked for.
    map: Option<Arc<Map>>,
    warmed: AtomicBool,
}

impl Table {
    /// Maps and opens the file at `path`, for programs that read a table on its own. Nobody may change or
    /// truncate the file while the table or anything read from it lives: see [`File::map`].
    pub fn open(path: &Path, options: TableReadOptions) -> Result<Arc<Self>> {
        let file = OsFs.open(path, Open::Read)?;
        Self::open_map(file.map()?, &path.to_string_lossy(), options)
    }

    /// Opens a mapped table. `name` stands in errors. Cost: the checksums of everything but the data, about
    /// 0.1 ms for a table of 32 MiB.
    ///
    /// Errors: `Corruption`; `UnsupportedVersion` for a table of another format; `UnsupportedCodec`.
    pub fn open_map(map: Map, name: &str, options: TableReadOptions) -> Result<Arc<Self>> {
        let map = Arc::new(map);
        Self::open_source(Source::Place(Pinned::new(Arc::clone(&map), |map| map)), Some(map), name, options)
    }

    /// Opens a table in memory. Errors as [`Table::open_map`].
    pub fn from_bytes(
        bytes: impl Into<Arc<[u8]>>,
        name: &str,
        options: TableReadOptions,
    ) -> Result<Arc<Self>> {
        let bytes: Arc<[u8]> = bytes.into();
        Self::open_source(Source::Place(Pinned::new(Arc::new(bytes), |bytes| bytes)), None, name, options)
    }

    /// Opens a table that is read by positioned reads: safe against every I/O error, and better than a map
    /// where data far exceeds memory. Everything but the data is kept in memory ([`Table::memory`]); blocks
    /// go through the cache.
    ///
    /// Errors: as [`Table::open_map`], and `Io`.
    pub fn open_file(file: Arc<dyn File>, name: &str, options: TableReadOptions) -> Result<Arc<Self>> {
        Self::open_source(Source::File(file), None, name, options)
    }

    fn open_source(
        source: Source,
        map: Option<Arc<Map>>,
        name: &str,
        options: TableReadOptions,
    ) -> Result<Arc<Self>> {
        let meta = source
            .len()
            .and_then(|len| Meta::read(len, |offset, len| source.read(offset, len)))
            .map_err(|error| named(error, name))?;
        Ok(Self::with_meta(source, map, name, options, meta))
    }

    /// A table with metadata that was read, and checked, before.
    pub(crate) fn with_meta(
        source: Source,
        map: Option<Arc<Map>>,
        name: &str,
        options: TableReadOptions,
        meta: Meta,
    ) -> Arc<Self> {
        let plain_values = meta.info.holds_values && meta.footer.flags.get() & FLAG_COMPRESSED == 0;
        let by_offset =
            matches!(source, Source::Place(_)) && (meta.index == IndexKind::Granule || plain_values);
        let pages = if by_offset { (meta.info.data_len >> PAGE_SHIFT) + 1 } else { 0 };
        Arc::new(Self {
            name: name.into(),
            cache: options.cache.map(|cache| {
                let number = cache.register();
                (cache, number)
            }),
            blocks_verified: Bits::new(usize_of(meta.info.blocks.into())),
            pages_verified: Bits::new(usize_of(pages)),
            source,
            meta,
            map,
            warmed: AtomicBool::new(false),
        })
    }

    /// The newest version at or after `lookup` of exactly its user key; a tombstone is such a version. `None`
    /// when the table holds none.
    ///
    /// A range delete is found as the tombstone of its first key, and hides nothing else here: whoever asks several
    /// places compares what it found with [`Table::range_deletes`] of all of them, by sequence number.
    ///
    /// Cost with a location index on bytes in place: two dependent cache misses. With a filter, or for a
    /// version that is not the newest: a search of the seek index and of one block.
    ///
    /// Errors: `Corruption` when a block that it touches is damaged; `Io`.
    pub fn get(&self, lookup: InternalKey<'_>) -> Result<Option<PinnedRecord>> {
        self.get_hashed(lookup, key_hash(lookup.keyspace, lookup.user_key))
    }

    /// As [`Table::get`], for a caller that has the [`key_hash`] already because it asks several tables.
    #[inline]
    pub fn get_hashed(&self, lookup: InternalKey<'_>, hash: u64) -> Result<Option<PinnedRecord>> {
        match (self.meta.index, &self.source) {
            (IndexKind::Granule, Source::Place(whole)) => self.get_in_place(whole, lookup, hash),
            (IndexKind::Granule | IndexKind::Slot, _) => self.get_in_block(lookup, hash),
            (IndexKind::Bloom, _) => {
                let filter = self.meta.region(RegionId::PointIndex);
                if bloom::may_contain(filter, hash, self.meta.footer.probes) {
                    self.search(lookup)
                } else {
                    Ok(None)
                }
            }
            (IndexKind::None, _) => self.search(lookup),
        }
    }

    /// Asks for the cache line that a get with this hash will read first, so that several tables' lines load
    /// together. A hint.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        match self.meta.index {
            IndexKind::Granule | IndexKind::Slot => {
                let buckets = self.meta.buckets();
                if let Some(bucket) = buckets.get(home(buckets, hash)) {
                    prefetch(bucket);
                }
            }
            IndexKind::Bloom => {
                let filter = self.meta.region(RegionId::PointIndex);
                if let Some(first) = bloom::line(filter, hash).first() {
                    prefetch(first);
                }
            }
            IndexKind::None => {}
        }
    }

    /// The records are at known offsets of memory: bucket, then record.
    ///
    /// A fingerprint may lead to a record of another key. If that one lies in a damaged block, the search goes on: a
    /// key that is found elsewhere is found, and only an absence cannot be vouched for.
    #[inline]
    fn get_in_place(
        &self,
        whole: &Pinned,
        lookup: InternalKey<'_>,
        hash: u64,
    ) -> Result<Option<PinnedRecord>> {
        let data = whole.get(..usize_of(self.meta.info.data_len)).unwrap_or_default();
        let mut damage = None;
        for location in Candidates::new(self.meta.buckets(), hash) {
            let offset = granule_offset(location);
            // Where the value lies is known once the header has come; it comes with it.
            prefetch_lines(data, usize_of(offset), RECORD_LEN);
            let record = match self.record_at(data, offset) {
                Ok(record) => record,
                Err(error) => {
                    damage.get_or_insert(error);
                    continue;
                }
            };
            let key = record.internal_key();
            if !key.same_key(&lookup) {
                continue;
            }
            if key < lookup {
                return self.older(lookup);
            }
            let at = usize_of(offset);
            return PinnedRecord::parse(whole.slice(at..at + record.raw().len()))
                .map(Some)
                .map_err(|corruption| self.corrupt(corruption.at(offset)));
        }
        damage.map_or(Ok(None), Err)
    }

    /// The record that starts at `offset` of the data, once its block is verified.
    #[inline]
    fn record_at<'a>(&self, data: &'a [u8], offset: u64) -> Result<RecordRef<'a>> {
        self.verify_page(offset)?;
        let bytes = data.get(usize_of(offset)..).ok_or_else(|| self.bad_location(offset))?;
        RecordRef::parse(bytes).map_err(|corruption| self.corrupt(corruption.at(offset)))
    }

    /// The index leads to blocks that have to be read or expanded.
    fn get_in_block(&self, lookup: InternalKey<'_>, hash: u64) -> Result<Option<PinnedRecord>> {
        let mut damage = None;
        for location in Candidates::new(self.meta.buckets(), hash) {
            match self.probe_block(location, lookup) {
                Ok(Some(found)) if found.record().internal_key() < lookup => return self.older(lookup),
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => _ = damage.get_or_insert(error),
            }
        }
        damage.map_or(Ok(None), Err)
    }

    /// The newest record of the user key, if it is the one at `location`.
    fn probe_block(&self, location: u32, lookup: InternalKey<'_>) -> Result<Option<PinnedRecord>> {
        let (number, block, slot) = if self.meta.index == IndexKind::Slot {
            let (number, slot) = split_slot_location(location);
            (number, self.block(number)?, slot)
        } else {
            let number = self.meta.block_at(granule_offset(location));
            let block = self.block(number)?;
            let slot = block.lower_bound(newest(lookup)).map_err(|found| self.in_block(number, found))?;
            (number, block, slot)
        };
        if slot >= block.count() {
            return Ok(None);
        }
        let record = block.record(slot).map_err(|found| self.in_block(number, found))?;
        if !record.internal_key().same_key(&lookup) {
            return Ok(None);
        }
        block.pinned(slot).map(Some).map_err(|found| self.in_block(number, found))
    }

    /// The newest version is too new for `lookup`.
    #[cold]
    fn older(&self, lookup: InternalKey<'_>) -> Result<Option<PinnedRecord>> {
        if self.meta.footer.flags.get() & FLAG_UNIQUE_USER_KEYS != 0 { Ok(None) } else { self.search(lookup) }
    }

    /// Finds a record by order.
    fn search(&self, lookup: InternalKey<'_>) -> Result<Option<PinnedRecord>> {
        let Some((number, block, slot)) = self.lower_bound(lookup)? else { return Ok(None) };
        let record = block.record(slot).map_err(|found| self.in_block(number, found))?;
        if !record.internal_key().same_key(&lookup) {
            return Ok(None);
        }
        block.pinned(slot).map(Some).map_err(|found| self.in_block(number, found))
    }

    /// A block, verified.
    #[inline]
    pub(crate) fn block(&self, number: u32) -> Result<Block> {
        let place = self.meta.block(number).map_err(|corruption| self.corrupt(corruption))?;
        match &self.source {
            Source::Place(whole) if place.codec == Codec::None => self.block_in_place(whole, number, &place),
            _ => self.block_in_memory(number, &place),
        }
    }

    #[inline]
    fn block_in_place(&self, whole: &Pinned, number: u32, place: &BlockPlace) -> Result<Block> {
        let start = usize_of(place.offset);
        prefetch_search(whole, place);
        // `Meta` has checked that the blocks tile the data, which lies within the file.
        let bytes = whole.slice(start..start + place.raw_len);
        if self.blocks_verified.get(usize_of(number.into())) {
            return Block::open(bytes, place.count).map_err(|found| self.in_block(number, found));
        }
        self.verify_in_place(bytes, number, place)
    }

    fn block_in_memory(&self, number: u32, place: &BlockPlace) -> Result<Block> {
        if let Some(found) = self.cache.as_ref().and_then(|(cache, table)| cache.get(*table, number)) {
            return Ok(found);
        }
        let block = self.expand_block(self.stored_at(place)?, number, place)?;
        self.blocks_verified.set(usize_of(number.into()));
        if let Some((cache, table)) = &self.cache {
            cache.insert(*table, number, &block);
        }
        Ok(block)
    }

    /// Checks and expands a block, given its bytes and the zeros behind them.
    pub(crate) fn expand_block(&self, padded: Pinned, number: u32, place: &BlockPlace) -> Result<Block> {
        self.check_crc(&padded, place)?;
        let bytes = if place.codec == Codec::None {
            padded.into_slice(0..place.stored_len)
        } else {
            let stored = padded.get(..place.stored_len).unwrap_or_default();
            let raw = codec::expand(place.codec, stored, place.raw_len, self.meta.dictionary.as_ref())
                .map_err(|found| self.in_block(number, found))?;
            Pinned::new(Arc::new(raw), |raw| raw)
        };
        self.verify_block(bytes, number, place)
    }

    /// The bytes of a block as they are stored, with the zeros behind them, unchecked.
    fn stored_at(&self, place: &BlockPlace) -> Result<Pinned> {
        self.source.read(place.offset, place.padded_len).map_err(|error| named(error, &self.name))
    }

    /// A block as it is stored, with the zeros behind it, unchecked.
    pub(crate) fn stored_block(&self, number: u32) -> Result<(BlockPlace, Pinned)> {
        let place = self.meta.block(number).map_err(|corruption| self.corrupt(corruption))?;
        let stored = self.stored_at(&place)?;
        Ok((place, stored))
    }

    /// Reads and checks a block as if nobody had before, whatever the cache holds. That does not count as reading
    /// ([`Table::blocks_read`]).
    pub(crate) fn recheck_block(&self, number: u32) -> Result<Block> {
        let (place, stored) = self.stored_block(number)?;
        self.expand_block(stored, number, &place)
    }

    #[cold]
    pub(crate) fn bad_location(&self, offset: u64) -> Error {
        let at = self.meta.footer.region(RegionId::PointIndex).offset.get();
        self.corrupt(Corruption::new("location in the point index", at, self.meta.info.data_len, offset))
    }

    #[cold]
    pub(crate) fn corrupt(&self, corruption: Corruption) -> Error {
        corruption.in_file(&self.name).into()
    }

    /// A corruption in a block: its offset in the file is that of the block, and, where the block is stored
    /// as it is, of the very bytes.
    #[cold]
    pub(crate) fn in_block(&self, number: u32, corruption: Corruption) -> Error {
        let Ok(place) = self.meta.block(number) else { return self.corrupt(corruption) };
        let within = if place.codec == Codec::None { corruption.offset } else { 0 };
        self.corrupt(Corruption { offset: place.offset.saturating_add(within), ..corruption })
    }

    /// Checks that this is the file that the caller means, and not another one, or an older one, of the same
    /// name.
    ///
    /// Errors: `Corruption` naming what differs.
    pub fn check_identity(&self, uuid: &[u8; 16], number: u64, len: u64, footer_crc: u32) -> Result<()> {
        let info = self.info();
        let at = info.len - TABLE_FOOTER_LEN as u64;
        let half = |uuid: &[u8; 16]| uuid.first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
        let (what, expected, got) = if info.uuid != *uuid {
            ("database of the table", half(uuid), half(&info.uuid))
        } else if info.number != number {
            ("table number", number, info.number)
        } else if info.len != len {
            ("table length", len, info.len)
        } else if info.footer_crc != footer_crc {
            ("footer checksum", footer_crc.into(), info.footer_crc.into())
        } else {
            return Ok(());
        };
        Err(self.corrupt(Corruption::new(what, at, expected, got)))
    }

    /// What the table's range deletes cover, within the table's part of the keys.
    #[inline]
    pub fn range_deletes(&self) -> &Arc<RangeDeletes> {
        &self.meta.range_deletes
    }

    /// A cursor over all records: every version, and tombstones too. Range deletes come as records and hide none.
    pub fn cursor(self: &Arc<Self>) -> TableCursor {
        TableCursor::new(Arc::clone(self))
    }

    /// What the writer knew.
    pub fn info(&self) -> &TableInfo {
        &self.meta.info
    }

    /// Figures that no read needs.
    pub fn properties(&self) -> &TableProperties {
        &self.meta.properties
    }

    /// The table's number.
    pub fn number(&self) -> u64 {
        self.meta.info.number
    }

    /// The name that stands in its errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the file.
    #[allow(clippy::len_without_is_empty, reason = "a table holds at least one record")]
    pub fn len(&self) -> u64 {
        self.meta.info.len
    }

    /// The first key.
    pub fn first(&self) -> &OwnedKey {
        &self.meta.info.first
    }

    /// The last key.
    pub fn last(&self) -> &OwnedKey {
        &self.meta.info.last
    }

    /// What the point index region holds.
    pub fn index_kind(&self) -> IndexKind {
        self.meta.index
    }

    /// Bytes of heap memory that the table takes; blocks are counted by the cache, mapped pages by nobody.
    pub fn memory(&self) -> usize {
        let meta = if matches!(self.source, Source::File(_)) { self.meta.len() } else { 0 };
        let bits = self.blocks_verified.memory() + self.pages_verified.memory();
        let ranges = if self.meta.range_deletes.is_empty() { 0 } else { self.meta.range_deletes.memory() };
        let referred = size_of_val(&*self.meta.info.referred);
        size_of::<Self>()
            + meta
            + bits
            + ranges
            + referred
            + self.meta.dictionary.as_ref().map_or(0, Dictionary::memory)
    }

    /// Blocks that were read since it was opened, of how many: a measure of how much readers want it. Those who walk
    /// all of it for its own sake do not count: [`StreamedRun`](crate::StreamedRun), [`Table::verify`],
    /// [`Table::remains`], [`Table::each_once`].
    pub fn blocks_read(&self) -> (u64, u64) {
        (self.blocks_verified.count(), self.meta.info.blocks.into())
    }

    /// Brings all of a mapped table into memory, so that its first readers need not wait for the device. The first call
    /// only; says how many bytes that were. Cost: reading what is not there yet.
    pub fn warm(&self) -> Result<u64> {
        let Some(map) = self.map.as_ref().filter(|_| !self.warmed.swap(true, Ordering::Relaxed)) else {
            return Ok(0);
        };
        map.advise(Advice::Populate)?;
        Ok(self.len())
    }

    /// Whether [`Table::warm`] was called, or never needs to be.
    pub fn is_warm(&self) -> bool {
        self.map.is_none() || self.warmed.load(Ordering::Relaxed)
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Asks for the lines of a record at this place in the file, if the file is in memory or mapped.
    #[inline]
    pub(crate) fn prefetch_data(&self, at: usize) {
        if let Some(whole) = self.in_place().filter(|whole| at < whole.len()) {
            prefetch_lines(whole, at, RECORD_LEN);
        }
    }

    /// The whole file, if it is in memory or mapped.
    #[inline]
    pub(crate) fn in_place(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Place(whole) => Some(whole),
            Source::File(_) => None,
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let in_place =
            matches!(self.source, Source::Place(_)) && self.meta.footer.flags.get() & FLAG_COMPRESSED == 0;
        if let Some((cache, table)) = self.cache.as_ref().filter(|_| !in_place) {
            // What the cache holds was read.
            cache.forget(*table, self.blocks_verified.ones().filter_map(|number| u32::try_from(number).ok()));
        }
    }
}

fn named(error: Error, name: &str) -> Error {
    match error {
        Error::UnsupportedVersion { found, max, .. } => {
            Error::UnsupportedVersion { file: name.into(), found, max }
        }
        other => other.in_file(name),
    }
}

/// The position before every version of the key.
fn newest(lookup: InternalKey<'_>) -> InternalKey<'_> {
    InternalKey { trailer: Trailer(u64::MAX), ..lookup }
}
