//! Checksums put right: what a hostile writer would do, and what a mutation cannot by chance.
//!
//! Numbers are believed as far as they lie within the bytes, and left alone otherwise. Threading: pure functions.

use pebble_format::checksum::crc32c;
use pebble_format::log::{
    FRAME_HEADER_LEN, FrameHeader, LOG_VERSION, SEGMENT_HEADER_LEN, SEGMENT_MAGIC, SegmentHeader,
    segment_epoch,
};
use pebble_format::manifest::{
    EDIT_HEADER_LEN, EditHeader, MANIFEST_HEADER_LEN, MANIFEST_MAGIC, ManifestHeader,
};
use pebble_format::table::{BlockEntry, RegionId, TABLE_FOOTER_LEN, TABLE_MAGIC, TableFooter, TableRegion};
use zerocopy::{FromBytes, IntoBytes};

/// The database that every forged file belongs to.
pub(crate) const UUID: [u8; 16] = *b"a fuzzed uuid!!!";

/// Makes frames of a segment's bytes from `base` on valid, one behind another, until one does not fit.
pub(crate) fn frames(bytes: &mut [u8], base: usize, epoch: u32) {
    let mut at = base;
    while let Some((header, payload)) =
        bytes.get_mut(at..).and_then(|rest| FrameHeader::mut_from_prefix(rest).ok())
    {
        let len = usize::try_from(header.len.get()).unwrap();
        let (Some(payload), Ok(place)) = (payload.get(..len), u32::try_from(at)) else { return };
        header.epoch = epoch.into();
        header.crc = header.checksum(place, payload).into();
        at += FRAME_HEADER_LEN + len;
    }
}

/// The header of segment `number` of a database, begun where the log stood at `previous_end`.
pub(crate) fn segment_header(uuid: &[u8; 16], number: u32, previous_end: u64) -> SegmentHeader {
    let mut header = SegmentHeader {
        magic: SEGMENT_MAGIC,
        version: LOG_VERSION.into(),
        epoch: segment_epoch(uuid, number).into(),
        uuid: *uuid,
        previous_end: previous_end.into(),
        number: number.into(),
        reserved: [0; 16],
        crc: 0.into(),
    };
    header.crc = header.checksum().into();
    header
}

/// Makes a whole segment valid.
pub(crate) fn segment(bytes: &mut [u8], uuid: &[u8; 16], number: u32) {
    if let Ok((header, _)) = SegmentHeader::mut_from_prefix(bytes) {
        *header = SegmentHeader {
            reserved: header.reserved,
            ..segment_header(uuid, number, header.previous_end.get())
        };
        header.crc = header.checksum().into();
        frames(bytes, SEGMENT_HEADER_LEN, segment_epoch(uuid, number));
    }
}

/// Makes a manifest's header and its frames valid.
pub(crate) fn manifest(bytes: &mut [u8]) {
    let Ok((header, _)) = ManifestHeader::mut_from_prefix(bytes) else { return };
    header.magic = MANIFEST_MAGIC;
    header.crc = header.checksum().into();
    let seed = header.seed();
    let mut at = MANIFEST_HEADER_LEN;
    while let Some((header, fields)) =
        bytes.get_mut(at..).and_then(|rest| EditHeader::mut_from_prefix(rest).ok())
    {
        let len = usize::try_from(header.len.get()).unwrap();
        let Some(fields) = fields.get(..len).filter(|fields| !fields.is_empty()) else { return };
        *header = EditHeader::new(seed, at as u64, crc32c(seed, fields), header.len.get());
        at += EDIT_HEADER_LEN + len;
    }
}

fn place(region: TableRegion) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(region.offset.get()).ok()?;
    Some(start..start.checked_add(usize::try_from(region.len.get()).ok()?)?)
}

/// Makes a table's blocks, regions and footer valid.
pub(crate) fn table(bytes: &mut [u8]) {
    let Some(at) = bytes.len().checked_sub(TABLE_FOOTER_LEN) else { return };
    let Ok(mut footer) = TableFooter::read_from_bytes(&bytes[at..]) else { return };
    footer.magic = TABLE_MAGIC;
    if let Some(range) = place(footer.region(RegionId::Directory)).filter(|range| range.end <= at) {
        for entry_at in range.step_by(size_of::<BlockEntry>()) {
            let Ok((mut entry, _)) = BlockEntry::read_from_prefix(&bytes[entry_at..]) else { continue };
            let start = usize::try_from(entry.offset.get()).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(entry.padded_len()).unwrap());
            if let Some(stored) = bytes.get(start..end) {
                entry.crc = crc32c(0, stored).into();
                bytes[entry_at..entry_at + size_of::<BlockEntry>()].copy_from_slice(entry.as_bytes());
            }
        }
    }
    for region in &mut footer.regions {
        if let Some(found) = place(*region).and_then(|range| bytes.get(range)) {
            region.crc = crc32c(0, found).into();
        }
    }
    footer.crc = footer.checksum().into();
    bytes[at..].copy_from_slice(footer.as_bytes());
}
