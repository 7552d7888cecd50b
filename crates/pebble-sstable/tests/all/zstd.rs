//! Zstd blocks and the table's own dictionary; and, in a build without the feature, that it says so.

use pebble_format::table::{BlockEntry, Codec, RegionId, TABLE_FOOTER_LEN, TableFooter};
use pebble_format::{Error, Result};
use pebble_sstable::{Compression, PointIndex, TableOptions};
use zerocopy::FromBytes;

use crate::hostile::repair;
use crate::model::{Source, fixture, open, small, write};

fn footer(bytes: &[u8]) -> TableFooter {
    TableFooter::read_from_bytes(&bytes[bytes.len() - TABLE_FOOTER_LEN..]).unwrap()
}

/// The table with every block of one codec said to be of another.
fn recoded(mut bytes: Vec<u8>, from: Codec, to: Codec) -> Vec<u8> {
    let directory = footer(&bytes).region(RegionId::Directory);
    let (start, len) = (directory.offset.get() as usize, directory.len.get() as usize);
    for entry in bytes[start..start + len].chunks_mut(size_of::<BlockEntry>()) {
        let codec = &mut entry[std::mem::offset_of!(BlockEntry, codec)];
        *codec = if *codec == from as u8 { to as u8 } else { *codec };
    }
    repair(&mut bytes);
    bytes
}

fn check(compression: Compression) -> Result<()> {
    TableOptions { compression, ..TableOptions::default() }.check()
}

#[cfg(not(feature = "zstd"))]
#[test]
fn a_build_without_zstd_says_so() {
    let refused = check(Compression::Zstd { level: 3, dictionary: false });
    assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    let (bytes, _) = write(&fixture(), &small(PointIndex::Location, Compression::Lz4));
    let bytes = recoded(bytes, Codec::Lz4, Codec::Zstd);
    for source in crate::model::SOURCES {
        let error = open(&bytes, source).unwrap_err();
        assert!(!error.is_corruption());
        assert!(matches!(error, Error::UnsupportedCodec { codec: "zstd", .. }));
        let told = error.to_string();
        assert!(told.contains("000007.sst") && told.contains("feature zstd"), "{told}");
    }
    // Damage is told first: it would stay when the build has the feature.
    let mut damaged = bytes;
    let at = footer(&damaged).region(RegionId::Directory).offset.get() as usize;
    damaged[at] ^= 4;
    assert!(open(&damaged, Source::Bytes).unwrap_err().is_corruption());
}

#[cfg(feature = "zstd")]
mod with {
    use std::cmp::Reverse;

    use pebble_cursor::Cursor;
    use pebble_format::KeyspaceId;
    use pebble_format::checksum::crc32c;
    use pebble_format::table::DICTIONARY_LEN_MAX;
    use pebble_sstable::{TableInfo, TableWriter};
    use zerocopy::IntoBytes;

    use super::*;
    use crate::damage::flip_bits;
    use crate::hostile::bounded;
    use crate::model::{INDEXES, Model, SOURCES, Said, Seeded, get, newest_at, plain, plains};

    const PLAIN: Compression = Compression::Zstd { level: 3, dictionary: false };
    const TRAINED: Compression = Compression::Zstd { level: 3, dictionary: true };

    /// Records that resemble each other: what a dictionary is for.
    fn similar(count: u32) -> Model {
        let mut seeded = Seeded(u64::from(count));
        let towns = ["Aachen", "Bergamo", "Coimbra", "Dundee", "Espoo", "Freiburg", "Ghent", "Haarlem"];
        let mut record = |n: u32| {
            let (town, age, id) = (towns[seeded.below(8) as usize], seeded.below(90), seeded.next());
            let value =
                format!(r#"{{"id":"{id:016x}","town":"{town}","age":{age},"active":true,"tags":["a"]}}"#);
            let key = format!("customer:{n:08}").into_bytes();
            ((1, key, Reverse(u64::from(n))), Said::Put(value.into_bytes()))
        };
        (0..count).map(&mut record).collect()
    }

    fn options(block_len: usize, compression: Compression) -> TableOptions {
        TableOptions { block_len, ..small(PointIndex::Location, compression) }
    }

    fn dictionary_len(bytes: &[u8]) -> usize {
        footer(bytes).region(RegionId::Dictionary).len.get() as usize
    }

    fn made(model: &Model, block_len: usize, compression: Compression) -> (Vec<u8>, TableInfo) {
        let (bytes, info) = write(model, &options(block_len, compression));
        open(&bytes, Source::Bytes).unwrap().verify().unwrap();
        (bytes, info)
    }

    #[test]
    fn a_dictionary_makes_small_similar_records_smaller_than_anything_else_does() {
        let model = similar(30_000);
        // At most so much of what zstd needs without, in percent.
        for (block_len, percent) in [(1 << 10, 75), (4 << 10, 98)] {
            let [lz4, plain, trained] =
                [Compression::Lz4, PLAIN, TRAINED].map(|compression| made(&model, block_len, compression));
            let len = |table: &(Vec<u8>, TableInfo)| table.0.len() as u64 - table.1.index_len;
            println!("{block_len}: {} B lz4, {} B zstd, {} B trained", len(&lz4), len(&plain), len(&trained));
            assert!(len(&plain) < len(&lz4));
            assert!(len(&trained) * 100 < len(&plain) * percent && len(&trained) * 10 < len(&lz4) * 7);
            assert_eq!((dictionary_len(&lz4.0), dictionary_len(&plain.0)), (0, 0));
            assert_eq!(dictionary_len(&trained.0), 16 << 10);
            // More than the blocks that waited for it.
            assert!(trained.1.raw_len > 2 * (1_600 << 10));
            assert_eq!(trained.1.data_len, footer(&trained.0).data_len.get());
        }
    }

    #[test]
    fn a_table_with_a_dictionary_reads_alike_from_every_source() {
        let model = similar(900);
        for index in INDEXES {
            let options = TableOptions { index, ..options(512, TRAINED) };
            let (bytes, info) = write(&model, &options);
            assert!((256..=info.raw_len as usize / 16).contains(&dictionary_len(&bytes)));
            for source in SOURCES {
                let table = open(&bytes, source).unwrap();
                assert_eq!(table.info(), &info);
                assert!(table.memory() > dictionary_len(&bytes));
                assert!(table.blocks().all(|block| block.codec == Codec::Zstd));
                let seen: Vec<_> = table.iter().map(|found| plain(found.unwrap().record())).collect();
                assert_eq!(seen, plains(&model));
                for (keyspace, key, seqno) in model.keys().step_by(7) {
                    let found = get(&table, *keyspace, key, seqno.0).unwrap();
                    assert_eq!(found, newest_at(&model, *keyspace, key, seqno.0));
                }
                table.verify().unwrap();
                let mut cursor = table.cursor();
                cursor.first().unwrap();
                assert!(cursor.block().is_none(), "its bytes are nothing to another table");
            }
        }
    }

    #[test]
    fn a_dictionary_that_does_not_pay_is_none() {
        let mut seeded = Seeded(4);
        let noise: Model = (0..2_000_u32)
            .map(|n| {
                ((1, n.to_be_bytes().to_vec(), Reverse(1)), (0..200).map(|_| seeded.next() as u8).collect())
            })
            .map(|(key, value)| (key, Said::Put(value)))
            .collect();
        let (bytes, info) = made(&noise, 512, TRAINED);
        assert_eq!((dictionary_len(&bytes), info.data_len), (0, info.raw_len));
        for model in [similar(1), similar(5), fixture()] {
            let (bytes, _) = made(&model, 256, TRAINED);
            assert_eq!((dictionary_len(&bytes), bytes), (0, made(&model, 256, PLAIN).0));
        }
    }

    #[test]
    fn blocks_of_another_past_are_refused() {
        let model = similar(400);
        let (bytes, _) = made(&model, 512, PLAIN);
        let table = open(&bytes, Source::Bytes).unwrap();
        let mut cursor = table.cursor();
        cursor.first().unwrap();
        let block = cursor.block().unwrap();
        assert_eq!(block.codec, Codec::Zstd);
        let writer = |compression| TableWriter::new(Vec::new(), options(512, compression)).unwrap();
        for other in [Compression::None, Compression::Lz4, TRAINED] {
            assert!(!writer(other).takes(&block));
            assert!(matches!(writer(other).add_block(&block), Err(Error::InvalidArgument(_))), "{other:?}");
        }
        assert!(writer(PLAIN).takes(&block));
        writer(PLAIN).add_block(&block).unwrap();
    }

    #[test]
    fn levels_out_of_range_are_refused() {
        for level in [0, -1, 23, i32::MIN, i32::MAX] {
            let refused = check(Compression::Zstd { level, dictionary: true });
            assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{level}");
        }
        for level in [1, 22] {
            let compression = Compression::Zstd { level, dictionary: true };
            check(compression).unwrap();
            made(&similar(900), 512, compression);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_table_with_a_dictionary_is_noticed() {
        let model = similar(300);
        let (bytes, _) = made(&model, 256, TRAINED);
        assert!(dictionary_len(&bytes) > 0);
        for source in [Source::Bytes, Source::CachedFile] {
            let bits = |at| if at % 11 == 0 { vec![(at / 11 % 8) as u32] } else { vec![] };
            flip_bits(&model, bytes.clone(), source, bits);
        }
    }

    /// The table with another dictionary, all checksums right.
    fn with_dictionary(good: &[u8], dictionary: &[u8]) -> Vec<u8> {
        let mut footer = footer(good);
        let old = footer.region(RegionId::Dictionary);
        let (start, len) = (old.offset.get() as usize, old.len.get() as usize);
        let behind = (start + len).next_multiple_of(64);
        let mut bytes = [&good[..start], dictionary].concat();
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        for id in [RegionId::Properties, RegionId::KeyBounds] {
            let region = &mut footer.regions[id as usize];
            region.offset = (region.offset.get() + bytes.len() as u64 - behind as u64).into();
        }
        let region = &mut footer.regions[RegionId::Dictionary as usize];
        (region.len, region.crc) = ((dictionary.len() as u32).into(), crc32c(0, dictionary).into());
        footer.crc = footer.checksum().into();
        bytes.extend_from_slice(&good[behind..good.len() - TABLE_FOOTER_LEN]);
        bytes.extend_from_slice(footer.as_bytes());
        bytes
    }

    #[test]
    fn a_dictionary_that_is_none_is_refused() {
        let (good, _) = made(&similar(900), 512, TRAINED);
        let start = footer(&good).region(RegionId::Dictionary).offset.get() as usize;
        let own = good[start..start + dictionary_len(&good)].to_vec();
        assert!(with_dictionary(&good, &own) == good);
        let magic = &own[..4];
        let long = [magic, &vec![7; DICTIONARY_LEN_MAX - 3]].concat();
        let cases = [
            ("dictionary length", with_dictionary(&good, &long)),
            ("dictionary length", recoded(good.clone(), Codec::Zstd, Codec::Lz4)),
            ("dictionary magic", with_dictionary(&good, &own[1..])),
            ("dictionary magic", with_dictionary(&good, &own[..3])),
            ("corrupt dictionary at", with_dictionary(&good, &own[..40])),
            ("corrupt dictionary at", with_dictionary(&good, &long[..999])),
        ];
        for (what, bytes) in cases {
            let error = open(&bytes, Source::Bytes).unwrap_err();
            assert!(error.is_corruption() && error.to_string().contains(what), "{error}, not {what}");
            bounded(&bytes, Source::File);
        }
        // Another table's, or none: found when a block is touched.
        let (other, _) = made(&similar(901), 512, TRAINED);
        let start = footer(&other).region(RegionId::Dictionary).offset.get() as usize;
        for dictionary in [&other[start..start + dictionary_len(&other)], &[]] {
            let bytes = with_dictionary(&good, dictionary);
            let table = open(&bytes, Source::Bytes).unwrap();
            let error = table.verify().unwrap_err();
            assert!(error.is_corruption() && error.to_string().contains("zstd block"), "{error}");
            bounded(&bytes, Source::CachedFile);
        }
    }

    #[test]
    fn repaired_damage_to_a_table_with_a_dictionary_does_no_harm() {
        let (good, _) = made(&similar(300), 256, TRAINED);
        let start = footer(&good).region(RegionId::Dictionary).offset.get() as usize;
        let dictionary = start..start + dictionary_len(&good);
        let mut seeded = Seeded(6);
        let steps = (0..good.len()).filter(|at| dictionary.contains(at) || at % 7 == 0);
        for at in steps {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << seeded.below(8);
            repair(&mut bytes);
            bounded(&bytes, if at % 4 == 0 { Source::CachedFile } else { Source::Bytes });
        }
    }

    #[test]
    fn a_writer_says_how_long_its_table_is_while_blocks_wait() {
        let mut writer = TableWriter::new(Vec::new(), options(4 << 10, TRAINED)).unwrap();
        let (mut before, mut shrank) = (0, 0);
        for ((_, key, seqno), said) in similar(30_000) {
            let Said::Put(value) = said else { continue };
            writer.put(KeyspaceId(1), &key, pebble_format::Seqno(seqno.0), &value).unwrap();
            shrank += u32::from(writer.data_len() + (8 << 10) < before);
            before = writer.data_len();
        }
        assert_eq!(shrank, 1, "when the dictionary was there");
        let (_, info) = writer.finish().unwrap();
        assert!(info.data_len <= before);
    }
}
