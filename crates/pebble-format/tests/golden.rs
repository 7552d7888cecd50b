//! The layouts on disk, printed and compared: no field moves and no tag changes its number unseen.
//!
//! A difference here is a change of the format: it needs a new version number and a reader for the old one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;
use std::mem::{offset_of, size_of};

/// Prints `Type size`, then ` field offset` for each field.
macro_rules! layout {
    ($to:expr, $type:ty { $($field:ident),* $(,)? }) => {
        writeln!($to, "{} {}", stringify!($type), size_of::<$type>()).unwrap();
        $(writeln!($to, "  {} {}", stringify!($field), offset_of!($type, $field)).unwrap();)*
    };
}

/// Bytes as digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

mod table {
    use super::*;
    use pebble_format::table::{
        BLOCK_COUNT_MAX, BLOCK_LEN_MAX, BUCKET_SLOTS, BlockEntry, BlockTail, Bucket, Codec,
        DICTIONARY_LEN_MAX, DICTIONARY_MAGIC, EXPANDED_LEN_MAX, EXPANSION_MAX, FLAG_COMPRESSED,
        FLAG_HAS_RANGE_DELETES, FLAG_HAS_REFERENCES, FLAG_HAS_TOMBSTONES, FLAG_HOLDS_VALUES,
        FLAG_UNIQUE_USER_KEYS, HASH_XXH3, IndexKind, KeyBound, LOCATION_MAX, REGION_ALIGN, RangeDeleteEntry,
        ReferredEntry, RegionId, TABLE_MAGIC, TABLE_VERSION, TABLE_VERSION_MIN, TableFooter, TableProperties,
        TableRegion, block_tail_len, slot, slot_location, version_of,
    };

    const GOLDEN: &str = "\
BlockTail 4
  count 0
  prefix_len 2
BlockEntry 24
  offset 0
  stored_len 8
  raw_len 12
  crc 16
  count 20
  codec 22
  reserved 23
TableRegion 16
  offset 0
  len 8
  crc 12
TableProperties 64
  key_bytes 0
  value_bytes 8
  raw_len 16
  compressed_blocks 24
  block_len 28
  reserved 32
RangeDeleteEntry 16
  seqno 0
  keyspace 8
  start_len 10
  end_len 12
  reserved 14
KeyBound 12
  trailer 0
  key_len 8
  keyspace 10
Bucket 64
  slots 0
TableFooter 256
  magic 0
  version 8
  flags 12
  uuid 16
  number 32
  data_len 40
  regions 48
  count 160
  keys 168
  tombstones 176
  seqno_min 184
  seqno_max 192
  blocks 200
  index 204
  hash 205
  probes 206
  reserved 207
  crc 252
ReferredEntry 16
  table 0
  bytes 8
magic 7065626c00737374 version 2 to 3
flags 1 2 4 8 16 32
index 0 1 2 3
codec 0 1 2
dictionary 37a430ec 65536
hash 1
regions 0 1 2 3 4 5 6
align 64 slots 16 location 8388606
block 1023 262144 524288 16
tail 12 16 24
slot ff800006 800001 location 1405
";

    #[test]
    fn the_table_is_as_it_was() {
        let mut to = String::new();
        layout!(to, BlockTail { count, prefix_len });
        layout!(to, BlockEntry { offset, stored_len, raw_len, crc, count, codec, reserved });
        layout!(to, TableRegion { offset, len, crc });
        layout!(
            to,
            TableProperties { key_bytes, value_bytes, raw_len, compressed_blocks, block_len, reserved }
        );
        layout!(to, RangeDeleteEntry { seqno, keyspace, start_len, end_len, reserved });
        layout!(to, KeyBound { trailer, key_len, keyspace });
        layout!(to, Bucket { slots });
        layout!(
            to,
            TableFooter {
                magic,
                version,
                flags,
                uuid,
                number,
                data_len,
                regions,
                count,
                keys,
                tombstones,
                seqno_min,
                seqno_max,
                blocks,
                index,
                hash,
                probes,
                reserved,
                crc,
            }
        );
        layout!(to, ReferredEntry { table, bytes });
        write!(to, "magic ").unwrap();
        TABLE_MAGIC.iter().for_each(|byte| write!(to, "{byte:02x}").unwrap());
        writeln!(to, " version {TABLE_VERSION_MIN} to {TABLE_VERSION}").unwrap();
        let flags = [
            FLAG_UNIQUE_USER_KEYS,
            FLAG_HAS_TOMBSTONES,
            FLAG_COMPRESSED,
            FLAG_HAS_RANGE_DELETES,
            FLAG_HAS_REFERENCES,
            FLAG_HOLDS_VALUES,
        ];
        assert!(flags.iter().all(|flag| version_of(*flag) == if *flag < 16 { 2 } else { 3 }));
        writeln!(to, "flags {}", flags.map(|flag| flag.to_string()).join(" ")).unwrap();
        let kinds = [IndexKind::None, IndexKind::Granule, IndexKind::Slot, IndexKind::Bloom];
        writeln!(to, "index {}", kinds.map(|kind| (kind as u8).to_string()).join(" ")).unwrap();
        let codecs = [Codec::None, Codec::Lz4, Codec::Zstd];
        writeln!(to, "codec {}", codecs.map(|codec| (codec as u8).to_string()).join(" ")).unwrap();
        writeln!(to, "dictionary {} {DICTIONARY_LEN_MAX}", hex(&DICTIONARY_MAGIC)).unwrap();
        writeln!(to, "hash {HASH_XXH3}").unwrap();
        writeln!(to, "regions {}", RegionId::ALL.map(|id| (id as usize).to_string()).join(" ")).unwrap();
        writeln!(to, "align {REGION_ALIGN} slots {BUCKET_SLOTS} location {LOCATION_MAX}").unwrap();
        writeln!(to, "block {BLOCK_COUNT_MAX} {BLOCK_LEN_MAX} {EXPANDED_LEN_MAX} {EXPANSION_MAX}").unwrap();
        writeln!(to, "tail {}", [1, 2, 3].map(|count| block_tail_len(count).to_string()).join(" ")).unwrap();
        let (full, one) = (slot(u64::MAX, 5).unwrap(), slot(1, 0).unwrap());
        writeln!(to, "slot {full:x} {one:x} location {:x}", slot_location(5, 5).unwrap()).unwrap();
        assert_eq!(to, GOLDEN);
    }
}

mod record {
    use super::*;
    use pebble_format::limits::{BATCH_LEN_MAX, KEY_LEN_MAX, RECORD_ALIGN, VALUE_LEN_MAX};
    use pebble_format::record::{RecordHeader, encode};
    use pebble_format::{KeyspaceId, Kind, Reference, Seqno, Trailer};

    const GOLDEN: &str = "\
RecordHeader 16
  trailer 0
  key_len 8
  keyspace 10
  value_len 12
kinds [(1, Put), (2, Delete), (3, RangeDelete), (5, Reference)]
Reference 16
  table 0
  place 8
  value_len 12
align 4 limits 65535 1073741824 2147483648
010403020100000003000500020000006b65797661000000
";

    #[test]
    fn the_record_is_as_it_was() {
        let mut to = String::new();
        layout!(to, RecordHeader { trailer, key_len, keyspace, value_len });
        let kinds: Vec<_> = (0..=u8::MAX).filter_map(|byte| Some((byte, Kind::from_u8(byte)?))).collect();
        writeln!(to, "kinds {kinds:?}").unwrap();
        layout!(to, Reference { table, place, value_len });
        writeln!(to, "align {RECORD_ALIGN} limits {KEY_LEN_MAX} {VALUE_LEN_MAX} {BATCH_LEN_MAX}").unwrap();
        let mut bytes = [0xaa; 24];
        let trailer = Trailer::new(Seqno(0x0102_0304), Kind::Put);
        encode(&mut bytes, KeyspaceId(5), b"key", trailer, b"va").unwrap();
        writeln!(to, "{}", hex(&bytes)).unwrap();
        assert_eq!(to, GOLDEN);
    }
}

mod log {
    use super::*;
    use pebble_format::log::{
        FrameHeader, LOG_VERSION, LogPosition, SEGMENT_MAGIC, SegmentHeader, segment_epoch,
    };

    const GOLDEN: &str = "\
SegmentHeader 64
  magic 0
  version 8
  epoch 12
  uuid 16
  previous_end 32
  number 40
  reserved 44
  crc 60
FrameHeader 24
  crc 0
  len 4
  count 8
  epoch 12
  promise 16
magic 7065626c006c6f67 version 1
epoch 2cd3a4e8 frame bf7c5157
";

    #[test]
    fn the_log_is_as_it_was() {
        let mut to = String::new();
        layout!(to, SegmentHeader { magic, version, epoch, uuid, previous_end, number, reserved, crc });
        layout!(to, FrameHeader { crc, len, count, epoch, promise });
        writeln!(to, "magic {} version {LOG_VERSION}", hex(&SEGMENT_MAGIC)).unwrap();
        let epoch = segment_epoch(&[7; 16], 3);
        let header = FrameHeader {
            crc: 0.into(),
            len: 4.into(),
            count: 1.into(),
            epoch: epoch.into(),
            promise: LogPosition::new(2, 64).0.into(),
        };
        writeln!(to, "epoch {epoch:x} frame {:x}", header.checksum(64, b"data")).unwrap();
        assert_eq!(to, GOLDEN);
    }
}
