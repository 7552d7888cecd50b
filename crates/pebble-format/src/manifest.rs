//! Headers of the manifest. The whole format is told in `docs/format/manifest.md`.
//!
//! ```text
//!   manifest = ManifestHeader (48 B), frame*
//!   frame    = EditHeader (12 B), field*            the first frame is the whole state, each further one an edit
//!   field    = FieldHeader (8 B), body, zeros to a multiple of 4 B
//! ```

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;

/// First bytes of a manifest.
pub const MANIFEST_MAGIC: [u8; 8] = *b"pebl\x00man";

/// The format version of the manifest that this build writes. Every version keeps the layout of [`ManifestHeader`].
pub const MANIFEST_VERSION: u32 = 3;

/// The oldest version that is read: it has no [`Tag::ValueTable`], and else is the same. Version 1 was never released.
pub const MANIFEST_VERSION_MIN: u32 = 2;

/// Longest manifest that is read or written: 256 MiB, some millions of tables.
pub const MANIFEST_LEN_MAX: u64 = 256 << 20;

/// Frames and fields start at multiples of this.
pub const MANIFEST_ALIGN: usize = 4;

/// Number of levels of a tree.
pub const LEVEL_COUNT: u8 = 7;

/// The last level, where what is oldest lies: it has at most one run.
pub const LAST_LEVEL: u8 = LEVEL_COUNT - 1;

/// Longest name of a keyspace in bytes; the shortest is 1.
pub const KEYSPACE_NAME_LEN_MAX: usize = 255;

/// The start of a manifest.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ManifestHeader {
    /// [`MANIFEST_MAGIC`].
    pub magic: [u8; 8],
    /// [`MANIFEST_VERSION`].
    pub version: U32,
    /// Zero.
    pub reserved: U32,
    /// The database.
    pub uuid: [u8; 16],
    /// The manifest's number: the number in its file name.
    pub number: U64,
    /// Zero.
    pub reserved2: U32,
    /// CRC-32C of the 44 bytes before.
    pub crc: U32,
}

/// Bytes of [`ManifestHeader`]; the first frame starts here.
pub const MANIFEST_HEADER_LEN: usize = size_of::<ManifestHeader>();

impl ManifestHeader {
    /// The checksum that the header should carry.
    pub fn checksum(&self) -> u32 {
        crc32c(0, self.as_bytes().get(..MANIFEST_HEADER_LEN - 4).unwrap_or_default())
    }

    /// What the checksums of all frames of this manifest begin with, so that a frame of another database or manifest
    /// does not validate.
    pub fn seed(&self) -> u32 {
        crc32c(crc32c(0, &self.uuid), self.number.as_bytes())
    }
}

/// The start of a frame, which holds one edit.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EditHeader {
    /// CRC-32C of the manifest's seed, the frame's offset and the rest of this header.
    pub header_crc: U32,
    /// CRC-32C of the manifest's seed and the fields.
    pub payload_crc: U32,
    /// Bytes of the fields: never 0, a multiple of [`MANIFEST_ALIGN`].
    pub len: U32,
}

/// Bytes of [`EditHeader`].
pub const EDIT_HEADER_LEN: usize = size_of::<EditHeader>();

impl EditHeader {
    /// The header of a frame at `offset` that holds `len` bytes whose checksum is `payload_crc`.
    pub fn new(seed: u32, offset: u64, payload_crc: u32, len: u32) -> Self {
        let mut header = Self { header_crc: 0.into(), payload_crc: payload_crc.into(), len: len.into() };
        header.header_crc = header.checksum(seed, offset).into();
        header
    }

    /// The checksum that the header should carry.
    pub fn checksum(&self, seed: u32, offset: u64) -> u32 {
        crc32c(crc32c(seed, &offset.to_le_bytes()), self.as_bytes().get(4..).unwrap_or_default())
    }
}

/// The start of a field.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FieldHeader {
    /// A [`Tag`].
    pub tag: U16,
    /// Zero.
    pub reserved: U16,
    /// Bytes of the body, without its padding.
    pub len: U32,
}

/// Bytes of [`FieldHeader`].
pub const FIELD_HEADER_LEN: usize = size_of::<FieldHeader>();

/// What a field says. The numbers are on disk: never change or reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Tag {
    /// `u64`: file numbers from here on were never given out.
    NextFile = 1,
    /// `u32`: the first log segment that still matters.
    LogFirst = 2,
    /// `u64`: the position up to which the log was sealed by a clean close.
    LogFloor = 3,
    /// `u64`: every record up to this sequence number lies in a table.
    FlushedSeqno = 4,
    /// A [`KeyspaceField`] and the name: a keyspace exists.
    Keyspace = 5,
    /// A [`KeyspaceField`] and no name: a keyspace is gone.
    DroppedKeyspace = 6,
    /// `u64`: the table with this number, of a run or of values, leaves its place.
    RemovedTable = 7,
    /// A [`RunField`]: a run, new or not, that the tables in the fields that follow join.
    Run = 8,
    /// A [`TableField`], its two keys and its reach: the next table for the run.
    Table = 9,
    /// A [`TableField`] and its two keys: a table of values joins, to which tables of runs refer.
    ValueTable = 10,
}

impl Tag {
    /// The tag with this number; `None` for a number this build does not know.
    pub const fn from_u16(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::NextFile,
            2 => Self::LogFirst,
            3 => Self::LogFloor,
            4 => Self::FlushedSeqno,
            5 => Self::Keyspace,
            6 => Self::DroppedKeyspace,
            7 => Self::RemovedTable,
            8 => Self::Run,
            9 => Self::Table,
            10 => Self::ValueTable,
            _ => return None,
        })
    }
}

/// The fixed part of [`Tag::Keyspace`] and [`Tag::DroppedKeyspace`]; the name, UTF-8, is the rest of the body.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct KeyspaceField {
    /// The keyspace's number.
    pub id: U16,
    /// Zero.
    pub reserved: U16,
}

/// The body of [`Tag::Run`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RunField {
    /// The run's number: within a level, a larger one is newer.
    pub run: U64,
    /// How many [`Tag::Table`] fields follow.
    pub tables: U32,
    /// The level.
    pub level: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// [`TableField::flags`]: the table has a reach.
pub const TABLE_HAS_REACH: u16 = 1;
/// [`TableField::flags`]: records of the table refer to values in others; a `u64` behind the keys has their bytes.
pub const TABLE_REFERS: u16 = 2;

/// The fixed part of [`Tag::Table`] and [`Tag::ValueTable`]; the first user key, the last one, the reach, and with
/// [`TABLE_REFERS`] a `u64` are the rest of the body.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TableField {
    /// The table's number: the number in its file name.
    pub number: U64,
    /// Bytes of the file.
    pub len: U64,
    /// Records.
    pub count: U64,
    /// Records that are tombstones.
    pub tombstones: U64,
    /// Smallest sequence number.
    pub seqno_min: U64,
    /// Largest sequence number.
    pub seqno_max: U64,
    /// Trailer of the first key.
    pub first_trailer: U64,
    /// Trailer of the last key.
    pub last_trailer: U64,
    /// The checksum of the table's footer, which covers all its others.
    pub footer_crc: U32,
    /// Keyspace of the first key.
    pub first_keyspace: U16,
    /// Keyspace of the last key.
    pub last_keyspace: U16,
    /// Bytes of the first user key.
    pub first_len: U16,
    /// Bytes of the last user key.
    pub last_len: U16,
    /// Bytes of the reach: the key, excluded, up to which range deletes of the last key's keyspace go on behind the
    /// last key. With none, and [`TABLE_HAS_REACH`], they go on to the end of the keyspace.
    pub reach_len: U16,
    /// [`TABLE_HAS_REACH`], [`TABLE_REFERS`], both or zero.
    pub flags: U16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_belongs_to_one_place_in_one_manifest_of_one_database() {
        let manifest = |uuid: u8, number: u64| ManifestHeader {
            magic: MANIFEST_MAGIC,
            version: MANIFEST_VERSION.into(),
            reserved: 0.into(),
            uuid: [uuid; 16],
            number: number.into(),
            reserved2: 0.into(),
            crc: 0.into(),
        };
        let seed = manifest(1, 1).seed();
        let header = EditHeader::new(seed, 48, 7, 4);
        assert_eq!(header.checksum(seed, 48), header.header_crc.get());
        for (seed, offset) in [(seed, 52), (manifest(2, 1).seed(), 48), (manifest(1, 2).seed(), 48)] {
            assert_ne!(header.checksum(seed, offset), header.header_crc.get());
        }
    }

    #[test]
    fn tags_are_read_back() {
        let known: Vec<_> = (0..=u16::MAX).filter_map(Tag::from_u16).collect();
        assert_eq!(known.len(), 10);
        for tag in known {
            assert_eq!(Tag::from_u16(tag as u16), Some(tag));
        }
    }
}
