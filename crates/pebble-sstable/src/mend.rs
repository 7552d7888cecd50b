//! Opening a table whose metadata is damaged, where its checksums say how it was.
//!
//! ```text
//!   footer ✗ ─► one byte by its checksum ─┐
//!   region ✗ ─► one byte by its checksum ─┼─► all the checks of an open, over the mended bytes, in memory
//!   zeros  ✗ ─► zeros                     │
//!   point index ✗ ─► none ────────────────┘
//! ```
//!
//! What was mended is believed only if everything agrees again: the other checksums, and every number that is written
//! in two places. Data blocks are never mended: each is right by the checksum in the directory, or lost, and then its
//! bytes serve at most to name its keys. The file is not changed.
//!
//! Threading: as [`Table`].

use std::sync::Arc;

use pebble_format::checksum::crc32c;
use pebble_format::single_byte::{differ_in_one_byte, single_byte_errors};
use pebble_format::table::{
    Codec, IndexKind, REGION_COUNT, RegionId, TABLE_FOOTER_LEN, TableFooter, region_start,
};
use pebble_format::{Error, KeyspaceId, Pinned, Result};
use pebble_vfs::File;
use zerocopy::{FromBytes, IntoBytes};

use crate::block::Block;
use crate::codec;
use crate::meta::{BlockPlace, Meta};
use crate::options::TableReadOptions;
use crate::source::{Source, usize_of};
use crate::table::Table;

impl Table {
    /// As [`Table::open_file`], also where a byte of the metadata is wrong, and any of the point index, which is then
    /// done without. Says what the damage was.
    ///
    /// Errors: as [`Table::open_file`], where no mending leads to a table.
    pub fn open_mended(
        file: Arc<dyn File>,
        name: &str,
        options: TableReadOptions,
    ) -> Result<(Arc<Self>, Option<Error>)> {
        let damage = match Self::open_file(Arc::clone(&file), name, options.clone()) {
            Ok(table) => return Ok((table, None)),
            Err(error @ Error::Corruption(_)) => error,
            Err(error) => return Err(error),
        };
        let source = Source::File(file);
        match mended(&source) {
            Some(meta) => Ok((Self::with_meta(source, None, name, options, meta), Some(damage))),
            None => Err(damage),
        }
    }
}

/// A keyspace and a user key.
pub(crate) type Key = (KeyspaceId, Box<[u8]>);

/// The longest block whose keys are looked for if it is damaged. A longer one holds one record alone, and each way to
/// put it right would be a pass over all of it.
const NAMED_MAX: usize = 1 << 20;

/// The keys of a damaged block, if one wrong byte explains the damage: those of every way to put it right. What it held
/// is not believed for that, but which keys it held is known. `None` if it is not, and always of a long block or of one
/// with values for other tables.
pub(crate) fn keys_of(table: &Table, number: u32) -> Option<Vec<Key>> {
    if table.info().holds_values || table.meta().block(number).ok()?.raw_len > NAMED_MAX {
        return None;
    }
    let (place, stored) = table.stored_block(number).ok()?;
    let mut bytes = stored.to_vec();
    let mut found = Vec::new();
    for error in single_byte_errors(bytes.len(), place.crc, crc32c(0, &bytes)) {
        *bytes.get_mut(error.at)? ^= error.delta;
        found.extend(keys_in(table, &place, &bytes).unwrap_or_default());
        *bytes.get_mut(error.at)? ^= error.delta;
    }
    (!found.is_empty()).then_some(found)
}

/// The keys of a block, if these are its stored bytes.
fn keys_in(table: &Table, place: &BlockPlace, padded: &[u8]) -> Option<Vec<Key>> {
    let stored = padded.get(..place.stored_len)?;
    let raw = match place.codec {
        Codec::None => Pinned::copy(stored),
        packed => {
            let raw = codec::expand(packed, stored, place.raw_len, table.meta().dictionary.as_ref()).ok()?;
            Pinned::new(Arc::new(raw), |raw| raw)
        }
    };
    let block = Block::open(raw, place.count).ok()?;
    block.verify().ok()?;
    let key = |slot| block.record(slot).ok().map(|record| (record.keyspace(), record.key().into()));
    (0..block.count()).map(key).collect()
}

/// The metadata, put right in memory.
fn mended(source: &Source) -> Option<Meta> {
    let len = source.len().ok()?;
    let footer_at = len.checked_sub(TABLE_FOOTER_LEN as u64)?;
    let footer = source.read(footer_at, TABLE_FOOTER_LEN).ok()?;
    footers(&footer).into_iter().find_map(|footer| {
        let data_len = footer.data_len.get();
        let rest = source.read(data_len, usize_of(footer_at.checked_sub(data_len)?)).ok()?;
        let parts = regions(&footer, &rest)?;
        let (tail, whole) = assemble(footer, &parts)?;
        let read = |offset: u64, len: usize| -> Result<Pinned> {
            let at = usize_of(offset.saturating_sub(data_len));
            let part = tail.get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default();
            Ok(Pinned::copy(part))
        };
        Meta::read(whole, read).ok()
    })
}

/// The footer, or what it may have been before one of its bytes was changed.
fn footers(bytes: &[u8]) -> Vec<TableFooter> {
    let Ok(footer) = TableFooter::read_from_bytes(bytes) else { return Vec::new() };
    let (stored, own) = (footer.crc.get(), footer.checksum());
    if stored == own {
        return vec![footer];
    }
    let mut found: Vec<TableFooter> = one_byte_off(bytes, TABLE_FOOTER_LEN - 4, stored, own)
        .into_iter()
        .filter_map(|bytes| TableFooter::read_from_bytes(&bytes).ok())
        .collect();
    if differ_in_one_byte(stored, own) {
        found.push(TableFooter { crc: own.into(), ..footer });
    }
    found
}

/// `bytes` with one of the first `covered` changed so that they have the checksum `expected`.
fn one_byte_off(bytes: &[u8], covered: usize, expected: u32, got: u32) -> Vec<Vec<u8>> {
    let errors = single_byte_errors(covered, expected, got);
    let mend = |error: &pebble_format::single_byte::SingleByte| {
        let mut mended = bytes.to_vec();
        *mended.get_mut(error.at)? ^= error.delta;
        Some(mended)
    };
    errors.iter().filter_map(mend).collect()
}

/// The bytes of every region, each right by its checksum. A damaged point index comes as none: nothing else says what
/// was in it, it is long enough for a wrong byte to explain damage of several by chance, and it is not needed.
fn regions(footer: &TableFooter, rest: &[u8]) -> Option<[Option<Vec<u8>>; REGION_COUNT]> {
    let mut parts = [const { None }; REGION_COUNT];
    for (number, (region, part)) in footer.regions.iter().zip(&mut parts).enumerate() {
        let start = usize_of(region.offset.get().checked_sub(footer.data_len.get())?);
        let bytes = rest.get(start..)?.get(..usize_of(region.len.get().into()))?;
        let (expected, got) = (region.crc.get(), crc32c(0, bytes));
        *part = if expected == got {
            Some(bytes.to_vec())
        } else if number == RegionId::PointIndex as usize {
            None
        } else {
            // Two ways to mend one region are one too many: nothing says which.
            let mut ways = one_byte_off(bytes, bytes.len(), expected, got);
            Some((ways.len() == 1).then(|| ways.remove(0))?)
        };
    }
    Some(parts)
}

/// The file from the end of its data on, and the length of the whole.
fn assemble(mut footer: TableFooter, parts: &[Option<Vec<u8>>; REGION_COUNT]) -> Option<(Vec<u8>, u64)> {
    let base = footer.data_len.get();
    let mut bytes = Vec::new();
    let pad = |bytes: &mut Vec<u8>| -> Option<u64> {
        let start = region_start(base.checked_add(bytes.len() as u64)?)?;
        bytes.resize(usize_of(start - base), 0);
        Some(start)
    };
    for (region, part) in footer.regions.iter_mut().zip(parts) {
        region.offset = pad(&mut bytes)?.into();
        let part = part.as_deref().unwrap_or_default();
        region.len = u32::try_from(part.len()).ok()?.into();
        region.crc = crc32c(0, part).into();
        bytes.extend_from_slice(part);
    }
    if parts.first()?.is_none() {
        (footer.index, footer.probes) = (IndexKind::None as u8, 0);
    }
    footer.crc = footer.checksum().into();
    let footer_at = pad(&mut bytes)?;
    bytes.extend_from_slice(footer.as_bytes());
    Some((bytes, footer_at + TABLE_FOOTER_LEN as u64))
}
