//! Headers of the table. The whole format, and why it is so, is told in `docs/format/table.md`.
//!
//! ```text
//!   data blocks │ point index │ directory │ seek index │ range deletes │ (dictionary) │ properties │ bounds │ footer
//!   from 0      │ every region starts at the next multiple of 64 ──────────────────────────────────► │ last 256 B
//!
//!   block  = record*, heads u32[n], offsets u16[n], zero u16 if n is odd, BlockTail (4 B)
//!   bucket = 16 slots of u32: fingerprint (9 bits) and location + 1 (23 bits); 0 is an empty slot
//! ```
//!
//! Threading: plain data.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::limits::{RECORD_ALIGN, align_up};

/// First bytes of a table's footer.
pub const TABLE_MAGIC: [u8; 8] = *b"pebl\x00sst";

/// The newest format version of a table, and the oldest that is read. A table has the oldest one that can say what it
/// says ([`version_of`]), so that a build that knows no other reads it.
pub const TABLE_VERSION: u32 = 3;
/// See [`TABLE_VERSION`].
pub const TABLE_VERSION_MIN: u32 = 2;

/// Every region behind the data starts at a multiple of this, so that a bucket is one cache line of a mapped
/// file.
pub const REGION_ALIGN: u64 = 64;

/// Most records in one block, so that block and slot fit a location and `location + 1` never overflows.
pub const BLOCK_COUNT_MAX: usize = 1_023;

/// Longest block of more than one record, tail included: offsets are `u16` in units of [`RECORD_ALIGN`].
pub const BLOCK_LEN_MAX: usize = 256 << 10;

/// Longest decompressed block, whatever its stored length; a longer one may be at most [`EXPANSION_MAX`]
/// times its stored length. It bounds what a hostile directory can make a reader allocate.
pub const EXPANDED_LEN_MAX: usize = 512 << 10;

/// See [`EXPANDED_LEN_MAX`].
pub const EXPANSION_MAX: usize = 16;

/// Longest dictionary of a table. It bounds what opening one can make a reader allocate.
pub const DICTIONARY_LEN_MAX: usize = 64 << 10;

/// First bytes of a dictionary, as RFC 8878 says them in section 5.
pub const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// Flag: no user key has more than one record.
pub const FLAG_UNIQUE_USER_KEYS: u32 = 1;
/// Flag: at least one record is a tombstone.
pub const FLAG_HAS_TOMBSTONES: u32 = 1 << 1;
/// Flag: at least one block is compressed.
pub const FLAG_COMPRESSED: u32 = 1 << 2;
/// Flag: at least one record is a range delete.
pub const FLAG_HAS_RANGE_DELETES: u32 = 1 << 3;
/// Flag: at least one record refers to a value in another table.
pub const FLAG_HAS_REFERENCES: u32 = 1 << 4;
/// Flag: a table of values, to which records of others refer. Each of its blocks holds one record, a put.
pub const FLAG_HOLDS_VALUES: u32 = 1 << 5;
/// All flags that this build knows; a table with another one is refused.
pub const FLAGS_KNOWN: u32 = FLAG_UNIQUE_USER_KEYS
    | FLAG_HAS_TOMBSTONES
    | FLAG_COMPRESSED
    | FLAG_HAS_RANGE_DELETES
    | FLAG_HAS_REFERENCES
    | FLAG_HOLDS_VALUES;

/// The version of a table with these flags.
pub const fn version_of(flags: u32) -> u32 {
    if flags & (FLAG_HAS_REFERENCES | FLAG_HOLDS_VALUES) == 0 { TABLE_VERSION_MIN } else { TABLE_VERSION }
}

/// The hash of [`crate::hash::key_hash`]: XXH3-64 seeded with the keyspace.
pub const HASH_XXH3: u8 = 1;

/// What the point index region holds. The numbers are on disk: never change or reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IndexKind {
    /// Nothing.
    None = 0,
    /// Buckets whose location is the record's offset in units of [`RECORD_ALIGN`].
    Granule = 1,
    /// Buckets whose location is block number and slot in the block, see [`slot_location`].
    Slot = 2,
    /// A blocked bloom filter.
    Bloom = 3,
}

impl IndexKind {
    /// The kind with this number; `None` for a number this build does not know.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Granule),
            2 => Some(Self::Slot),
            3 => Some(Self::Bloom),
            _ => None,
        }
    }
}

/// How a block is stored. The numbers are on disk: never change or reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    None = 0,
    /// One LZ4 block (no frame, no length in front).
    Lz4 = 1,
    /// One zstd frame, made with the table's dictionary if it has one.
    Zstd = 2,
}

impl Codec {
    /// The codec with this number; `None` for a number this build does not know.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The last four bytes of an uncompressed block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockTail {
    /// Records in the block: 1 to [`BLOCK_COUNT_MAX`].
    pub count: U16,
    /// Bytes that the user keys of the first and the last record share; 0 when their keyspaces differ.
    pub prefix_len: U16,
}

/// Bytes behind the records of a block with `count` records: heads, offsets, padding and [`BlockTail`].
pub const fn block_tail_len(count: usize) -> usize {
    count * 4 + count.next_multiple_of(2) * 2 + size_of::<BlockTail>()
}

/// One data block, as the directory tells it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockEntry {
    /// Where the block starts in the file.
    pub offset: U64,
    /// Bytes in the file, without the zeros up to the next multiple of [`RECORD_ALIGN`].
    pub stored_len: U32,
    /// Bytes of the uncompressed block, tail included.
    pub raw_len: U32,
    /// CRC-32C of the stored bytes and of the zeros behind them.
    pub crc: U32,
    /// Records in the block.
    pub count: U16,
    /// A [`Codec`].
    pub codec: u8,
    /// Zero.
    pub reserved: u8,
}

impl BlockEntry {
    /// Bytes that the block takes in the file: stored bytes and the zeros behind them.
    pub fn padded_len(&self) -> u64 {
        u64::from(self.stored_len.get()).next_multiple_of(RECORD_ALIGN as u64)
    }
}

/// Where a region lies and what its checksum is.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TableRegion {
    /// Offset in the file: the next multiple of [`REGION_ALIGN`] behind the region before.
    pub offset: U64,
    /// Bytes; 0 for a region that is not there.
    pub len: U32,
    /// CRC-32C of the bytes.
    pub crc: U32,
}

/// Number of regions behind the data blocks.
pub const REGION_COUNT: usize = 7;

/// The regions behind the data blocks, in the order of the file. The numbers are their places in
/// [`TableFooter::regions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum RegionId {
    /// Buckets or a filter, see [`IndexKind`].
    PointIndex = 0,
    /// One [`BlockEntry`] for each block.
    Directory = 1,
    /// One `u64` for each block: the head of its first key, behind the prefix that the key bounds share.
    SeekIndex = 2,
    /// One [`RangeDeleteEntry`] with its keys for each record that deletes a range.
    RangeDeletes = 3,
    /// A zstd dictionary for the blocks of [`Codec::Zstd`]; empty when they were made without.
    Dictionary = 4,
    /// One [`TableProperties`].
    Properties = 5,
    /// Two [`KeyBound`]s, then the two user keys.
    KeyBounds = 6,
}

impl RegionId {
    /// All regions in the order of the file.
    pub const ALL: [Self; REGION_COUNT] = [
        Self::PointIndex,
        Self::Directory,
        Self::SeekIndex,
        Self::RangeDeletes,
        Self::Dictionary,
        Self::Properties,
        Self::KeyBounds,
    ];
}

/// Figures that no reader needs to find a record.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TableProperties {
    /// Bytes of all user keys.
    pub key_bytes: U64,
    /// Bytes of all values.
    pub value_bytes: U64,
    /// Bytes of all blocks, uncompressed.
    pub raw_len: U64,
    /// Blocks that are stored compressed.
    pub compressed_blocks: U32,
    /// The block length that the writer aimed at.
    pub block_len: U32,
    /// Zero.
    pub reserved: [u8; 32],
}

/// How much of another table the records of this one refer to. Entries stand behind the [`TableProperties`], ascending
/// by the other table's number.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReferredEntry {
    /// The other table's number.
    pub table: U64,
    /// Bytes of all values that are referred to; not 0.
    pub bytes: U64,
}

/// What one range delete covers within the table's part of the keys; behind it stand the start, the end, and zeros up
/// to the next multiple of [`RECORD_ALIGN`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RangeDeleteEntry {
    /// The record's sequence number.
    pub seqno: U64,
    /// The record's keyspace.
    pub keyspace: U16,
    /// Bytes of the start, which is the record's user key.
    pub start_len: U16,
    /// Bytes of the end: the first key behind the range. 0 where it reaches to the end of the keyspace.
    pub end_len: U16,
    /// Zero.
    pub reserved: U16,
}

impl RangeDeleteEntry {
    /// Bytes of header, keys and the zeros behind them.
    pub fn padded_len(&self) -> usize {
        let keys = usize::from(self.start_len.get()) + usize::from(self.end_len.get());
        (size_of::<Self>() + keys).next_multiple_of(RECORD_ALIGN)
    }
}

/// The first or the last key of a table, without its bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct KeyBound {
    /// `seqno << 8 | kind`.
    pub trailer: U64,
    /// Bytes of the user key.
    pub key_len: U16,
    /// The keyspace.
    pub keyspace: U16,
}

/// The last 256 bytes of a table.
///
/// Magic, version and checksum keep their places in every version to come, so that an older build can tell a
/// newer table from a damaged one.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TableFooter {
    /// [`TABLE_MAGIC`].
    pub magic: [u8; 8],
    /// [`version_of`] the flags.
    pub version: U32,
    /// `FLAG_*`.
    pub flags: U32,
    /// Which database the table belongs to.
    pub uuid: [u8; 16],
    /// The table's number: the number in its file name.
    pub number: U64,
    /// Bytes of all data blocks, from the start of the file.
    pub data_len: U64,
    /// Where everything else lies, see [`RegionId`].
    pub regions: [TableRegion; REGION_COUNT],
    /// Records.
    pub count: U64,
    /// Different user keys.
    pub keys: U64,
    /// Records that are tombstones.
    pub tombstones: U64,
    /// Smallest sequence number.
    pub seqno_min: U64,
    /// Largest sequence number.
    pub seqno_max: U64,
    /// Data blocks.
    pub blocks: U32,
    /// An [`IndexKind`].
    pub index: u8,
    /// [`HASH_XXH3`].
    pub hash: u8,
    /// Bits that a key sets in a bloom filter; 0 without one.
    pub probes: u8,
    /// Zero.
    pub reserved: [u8; 45],
    /// CRC-32C of the 252 bytes before.
    pub crc: U32,
}

/// Bytes of [`TableFooter`].
pub const TABLE_FOOTER_LEN: usize = size_of::<TableFooter>();

const _: () = assert!(TABLE_FOOTER_LEN == 256 && size_of::<Bucket>() == REGION_ALIGN as usize);

impl TableFooter {
    /// The checksum that the footer should carry.
    pub fn checksum(&self) -> u32 {
        crc32c(0, self.as_bytes().get(..TABLE_FOOTER_LEN - 4).unwrap_or_default())
    }

    /// A region's place and checksum.
    pub fn region(&self, id: RegionId) -> TableRegion {
        self.regions[id as usize]
    }
}

/// Slots in a [`Bucket`].
pub const BUCKET_SLOTS: usize = 16;

/// One cache line of the point index. A key's slot stands in the bucket that [`crate::hash::reduce`] names,
/// or, when that one was full, in the first one behind it (around the end) that was not. So a search ends at
/// an empty slot.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Bucket {
    /// See [`slot`].
    pub slots: [U32; BUCKET_SLOTS],
}

/// Bits of a slot that hold `location + 1`.
const LOCATION_BITS: u32 = 23;

/// Largest location that a slot can hold.
pub const LOCATION_MAX: u32 = (1 << LOCATION_BITS) - 2;

/// The slot of a key with this hash at this location; `None` when the location is over [`LOCATION_MAX`].
/// Never 0.
#[inline]
pub const fn slot(hash: u64, location: u32) -> Option<u32> {
    if location > LOCATION_MAX {
        return None;
    }
    // The low nine bits, which `reduce` does not look at, are the fingerprint.
    Some((hash & 0x1ff) as u32 * (1 << LOCATION_BITS) + location + 1)
}

/// The location in a slot; `None` for an empty slot, or one that no writer makes.
#[inline]
pub const fn location(slot: u32) -> Option<u32> {
    (slot & (LOCATION_MAX + 1)).checked_sub(1)
}

/// Slots of a block, in bits: block number and slot make a location of [`IndexKind::Slot`].
const SLOT_BITS: u32 = 10;

/// The location of a record by block and slot; `None` when either is too large.
pub const fn slot_location(block: u32, slot: u16) -> Option<u32> {
    if block > LOCATION_MAX >> SLOT_BITS || slot as usize >= BLOCK_COUNT_MAX {
        return None;
    }
    Some(block << SLOT_BITS | slot as u32)
}

/// Block and slot of a location of [`IndexKind::Slot`].
pub const fn split_slot_location(location: u32) -> (u32, u16) {
    (location >> SLOT_BITS, (location & ((1 << SLOT_BITS) - 1)) as u16)
}

impl Bucket {
    /// The slots that carry this hash's fingerprint, as bits, and whether a slot is empty. Compiles to a few
    /// vector instructions.
    #[inline]
    pub fn probe(&self, hash: u64) -> (u32, bool) {
        let want = (hash & 0x1ff) as u32;
        let (mut hits, mut empty) = (0, false);
        for (index, slot) in self.slots.iter().enumerate() {
            let slot = slot.get();
            hits |= u32::from(slot >> LOCATION_BITS == want && slot != 0) << index;
            empty |= slot == 0;
        }
        (hits, empty)
    }
}

/// The offset of the record at a location of [`IndexKind::Granule`].
#[inline]
pub const fn granule_offset(location: u32) -> u64 {
    location as u64 * RECORD_ALIGN as u64
}

/// The location of a record that starts at `offset`; `None` when it lies too far back or is not aligned.
pub fn granule_location(offset: u64) -> Option<u32> {
    let aligned = offset.is_multiple_of(RECORD_ALIGN as u64);
    u32::try_from(offset / RECORD_ALIGN as u64).ok().filter(|location| aligned && *location <= LOCATION_MAX)
}

/// Whether an uncompressed length is one that a reader may allocate for this stored length, see
/// [`EXPANDED_LEN_MAX`].
pub fn expansion_allowed(stored_len: usize, raw_len: usize) -> bool {
    raw_len <= EXPANDED_LEN_MAX || raw_len <= stored_len.saturating_mul(EXPANSION_MAX)
}

/// The offset of a region that follows one ending at `end`; `None` on overflow.
pub fn region_start(end: u64) -> Option<u64> {
    end.checked_next_multiple_of(REGION_ALIGN)
}

const _: () = assert!(BLOCK_LEN_MAX / RECORD_ALIGN <= u16::MAX as usize + 1);
const _: () = assert!(align_up(BLOCK_LEN_MAX).is_some());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_give_their_locations_back_and_are_never_empty() {
        for location_in in [0, 1, 77, LOCATION_MAX] {
            for hash in [0, 0x1ff, 0xffff_ffff_ffff_fe00, u64::MAX] {
                let made = slot(hash, location_in).unwrap();
                assert_ne!(made, 0);
                assert_eq!(location(made), Some(location_in));
            }
        }
        assert_eq!(slot(0, LOCATION_MAX + 1), None);
        assert_eq!(location(0), None);
        assert_eq!(location(5 << 23), None);
    }

    #[test]
    fn block_and_slot_make_a_location() {
        for (block, slot) in [(0, 0), (8_191, 1_022), (17, 500)] {
            let made = slot_location(block, slot).unwrap();
            assert!(made <= LOCATION_MAX);
            assert_eq!(split_slot_location(made), (block, slot));
        }
        assert_eq!(slot_location(8_192, 0), None);
        assert_eq!(slot_location(0, 1_023), None);
    }

    #[test]
    fn a_bucket_finds_fingerprints_and_empty_slots() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.probe(0), (0, true));
        for (index, to) in bucket.slots.iter_mut().enumerate() {
            *to = slot(index as u64 / 2, index as u32).unwrap().into();
        }
        assert_eq!(bucket.probe(0), (0b11, false));
        assert_eq!(bucket.probe(7), (0b11 << 14, false));
        assert_eq!(bucket.probe(8), (0, false));
    }

    #[test]
    fn granules_reach_to_the_limit() {
        assert_eq!(granule_location((32 << 20) - 8), Some(LOCATION_MAX));
        assert_eq!(granule_location((32 << 20) - 4), None);
        assert_eq!(granule_location(6), None);
        assert_eq!(granule_offset(LOCATION_MAX), (32 << 20) - 8);
    }
}
