//! The layout of the manifest, frozen: sizes, field offsets and tags. A difference here is a new format version.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::mem::offset_of;

use pebble_format::manifest::{
    EditHeader, FieldHeader, KeyspaceField, LAST_LEVEL, LEVEL_COUNT, MANIFEST_MAGIC, MANIFEST_VERSION,
    ManifestHeader, RunField, TABLE_HAS_REACH, TableField, Tag,
};

macro_rules! layout {
    ($type:ident: $($field:ident),+) => {{
        let fields = [$(format!("{} {}", offset_of!($type, $field), stringify!($field))),+];
        format!("{} {} B: {}", stringify!($type), size_of::<$type>(), fields.join(", "))
    }};
}

#[test]
fn headers_lie_where_they_lay() {
    let layouts = [
        layout!(ManifestHeader: magic, version, reserved, uuid, number, reserved2, crc),
        layout!(EditHeader: header_crc, payload_crc, len),
        layout!(FieldHeader: tag, reserved, len),
        layout!(KeyspaceField: id, reserved),
        layout!(RunField: run, tables, level, reserved),
        layout!(TableField: number, len, count, tombstones, seqno_min, seqno_max, first_trailer, last_trailer,
            footer_crc, first_keyspace, last_keyspace, first_len, last_len,
            reach_len, flags),
    ];
    assert_eq!(
        layouts,
        [
            "ManifestHeader 48 B: 0 magic, 8 version, 12 reserved, 16 uuid, 32 number, 40 reserved2, 44 crc",
            "EditHeader 12 B: 0 header_crc, 4 payload_crc, 8 len",
            "FieldHeader 8 B: 0 tag, 2 reserved, 4 len",
            "KeyspaceField 4 B: 0 id, 2 reserved",
            "RunField 16 B: 0 run, 8 tables, 12 level, 13 reserved",
            "TableField 80 B: 0 number, 8 len, 16 count, 24 tombstones, 32 seqno_min, 40 seqno_max, \
             48 first_trailer, 56 last_trailer, 64 footer_crc, 68 first_keyspace, 70 last_keyspace, 72 first_len, \
             74 last_len, 76 reach_len, 78 flags",
        ]
    );
    assert_eq!((MANIFEST_MAGIC, MANIFEST_VERSION), (*b"pebl\0man", 3));
    assert_eq!((LEVEL_COUNT, LAST_LEVEL, TABLE_HAS_REACH), (7, 6, 1));
}

#[test]
fn tags_keep_their_numbers() {
    let tags: Vec<_> =
        (0..=u16::MAX).filter_map(|n| Tag::from_u16(n).map(|tag| format!("{n} {tag:?}"))).collect();
    assert_eq!(
        tags,
        [
            "1 NextFile",
            "2 LogFirst",
            "3 LogFloor",
            "4 FlushedSeqno",
            "5 Keyspace",
            "6 DroppedKeyspace",
            "7 RemovedTable",
            "8 Run",
            "9 Table",
            "10 ValueTable",
        ]
    );
}

#[test]
fn checksums_are_frozen() {
    let header = ManifestHeader {
        magic: MANIFEST_MAGIC,
        version: 1.into(),
        reserved: 0.into(),
        uuid: *b"sixteen bytes id",
        number: 7.into(),
        reserved2: 0.into(),
        crc: 0.into(),
    };
    let seed = header.seed();
    let frame = EditHeader::new(seed, 48, 1, 16);
    assert_eq!((header.checksum(), seed, frame.header_crc.get()), (2_724_668_627, 12_450_786, 2_953_769_798));
}
