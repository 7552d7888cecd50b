//! Whole blocks handed on, against the same records moved one by one.

use std::cmp::Reverse;
use std::sync::Arc;

use pebble_cursor::{Cursor, Merge, WholeBlock};
use pebble_format::table::Codec;
use pebble_format::{Error, KeyspaceId, Seqno};
use pebble_sstable::{Compression, PointIndex, Table, TableInfo, TableOptions, TableWriter};
use proptest::prelude::*;

use crate::model::{
    COMPRESSIONS, INDEXES, Model, Plain, SOURCES, Said, Source, fixture, get, newest_at, open, plain, plains,
    small, write,
};
use crate::roundtrip::{model, options};

/// Which blocks a test hands on, of those that are lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    None,
    /// Those that the writer takes.
    Sensible,
    /// All that the writer does not refuse.
    All,
}

/// What a compaction does. Gives the table, its facts, and how many blocks were handed on.
fn moved(input: &mut impl Cursor, options: &TableOptions, taking: Taking) -> (Vec<u8>, TableInfo, usize) {
    let mut writer = TableWriter::new(Vec::new(), options.clone()).unwrap();
    let mut handed_on = 0;
    let mut last: Option<(u16, Vec<u8>)> = None;
    input.first().unwrap();
    while let Some(record) = input.record() {
        let key = (record.keyspace().0, record.key().to_vec());
        let fresh = last.as_ref() != Some(&key);
        let takes = |block: &WholeBlock<'_>| match taking {
            Taking::None => false,
            Taking::Sensible => writer.takes(block),
            Taking::All => match block.codec {
                Codec::None => true,
                Codec::Lz4 => options.compression != Compression::None,
                Codec::Zstd => matches!(options.compression, Compression::Zstd { dictionary: false, .. }),
            },
        };
        if let Some(block) = input.block().filter(|block| fresh && takes(block)) {
            check_facts(&block);
            writer.add_block(&block).unwrap();
            assert_eq!(writer.open_block_len(), 0);
            last = Some((block.last.keyspace().0, block.last.key().to_vec()));
            handed_on += 1;
            input.skip_block().unwrap();
        } else {
            writer.add(record).unwrap();
            last = Some(key);
            input.next().unwrap();
        }
    }
    let (bytes, info) = writer.finish().unwrap();
    (bytes, info, handed_on)
}

fn check_facts(block: &WholeBlock<'_>) {
    let records: Vec<_> = block.records().map(|found| found.unwrap().1).collect();
    assert_eq!(records.len(), usize::from(block.count));
    assert_eq!(records[0].raw(), block.first().unwrap().raw());
    assert_eq!(records.last().unwrap().raw(), block.last.raw());
    let tombstones = records.iter().filter(|record| record.is_tombstone()).count();
    assert_eq!(tombstones, usize::from(block.tombstones));
}

/// The records dealt out to tables in pieces of `piece`.
fn dealt(
    model: &Model,
    tables: usize,
    piece: usize,
    options: &TableOptions,
    source: Source,
) -> Vec<Arc<Table>> {
    let mut parts = vec![Model::new(); tables];
    for (index, (key, said)) in model.iter().enumerate() {
        parts[index / piece % tables].insert(key.clone(), said.clone());
    }
    parts.retain(|part| !part.is_empty());
    parts.iter().map(|part| open(&write(part, options).0, source).unwrap()).collect()
}

/// Those facts that do not depend on where blocks begin.
fn facts(info: &TableInfo) -> TableInfo {
    TableInfo { len: 0, footer_crc: 0, blocks: 0, data_len: 0, raw_len: 0, index_len: 0, ..info.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_merge_with_whole_blocks_is_the_merge_without(
        model in model(), from in options(), to in options(), tables in 1..4_usize, piece in 1..60_usize
    ) {
        let (_, expected) = write(&model, &to);
        for source in SOURCES {
            let tables = dealt(&model, tables, piece, &from, source);
            for taking in [Taking::None, Taking::Sensible, Taking::All] {
                let mut merge = Merge::new(tables.iter().map(Table::cursor).collect());
                let (bytes, info, _) = moved(&mut merge, &to, taking);
                prop_assert_eq!(facts(&info), facts(&expected));
                let table = open(&bytes, Source::Bytes).unwrap();
                prop_assert_eq!(table.info(), &info);
                table.verify().unwrap();
                let seen: Vec<_> = table.iter().map(|found| plain(found.unwrap().record())).collect();
                prop_assert_eq!(seen, plains(&model));
                for (keyspace, key, seqno) in model.keys() {
                    prop_assert_eq!(
                        get(&table, *keyspace, key, seqno.0).unwrap(), newest_at(&model, *keyspace, key, seqno.0)
                    );
                }
            }
        }
    }
}

/// Records of one version each.
fn plain_puts(count: u32) -> Model {
    (0..count).map(|n| ((1, n.to_be_bytes().to_vec(), Reverse(7)), Said::Put(vec![n as u8; 20]))).collect()
}

#[test]
fn a_table_handed_on_block_by_block_is_the_same_file() {
    for index in INDEXES {
        for compression in COMPRESSIONS {
            let options = small(index, compression);
            let (good, info) = write(&plain_puts(500), &options);
            for source in SOURCES {
                let table = open(&good, source).unwrap();
                let (bytes, _, handed_on) = moved(&mut table.cursor(), &options, Taking::All);
                let at_hand =
                    compression == Compression::None || !matches!(source, Source::File | Source::CachedFile);
                if at_hand {
                    assert_eq!((bytes == good, handed_on), (true, info.blocks as usize));
                } else {
                    // Stored bytes of compressed blocks are not at hand there.
                    assert!(handed_on < info.blocks as usize / 2, "{handed_on}");
                    assert!(bytes == good);
                }
            }
        }
    }
}

#[test]
fn tables_that_lie_apart_are_merged_by_whole_blocks() {
    let options = small(PointIndex::Location, Compression::None);
    let tables = dealt(&plain_puts(600), 3, 100, &options, Source::Map);
    let mut merge = Merge::new(tables.iter().map(Table::cursor).collect());
    let (_, info, handed_on) = moved(&mut merge, &options, Taking::Sensible);
    assert!(handed_on * 10 > info.blocks as usize * 7, "{handed_on} of {}", info.blocks);
    assert_eq!(info.count, 600);
}

#[test]
fn a_block_is_lent_exactly_where_its_records_stand_alone() {
    let mut model = fixture();
    // Pairs of versions, and range deletes, at every place of a block of three records.
    for n in 0..40_u8 {
        let put = || Said::Put(vec![n; 40]);
        model.insert((5, vec![n], Reverse(9)), put());
        model.extend((n % 4 == 0).then(|| ((5, vec![n], Reverse(8)), put())));
        model.insert((6, vec![n], Reverse(9)), if n % 7 == 0 { Said::DeleteTo(vec![]) } else { put() });
        // Heads alone do not tell these from each other.
        model.insert((7, [&b"shared"[..], &[n]].concat(), Reverse(9)), put());
    }
    let list = plains(&model);
    let key = |plain: &Plain| (plain.0, plain.1.clone());
    for compression in COMPRESSIONS {
        let (bytes, _) = write(&model, &small(PointIndex::Location, compression));
        for source in SOURCES {
            let table = open(&bytes, source).unwrap();
            let mut cursor = table.cursor();
            let (mut at, mut lent) = (0, 0);
            cursor.first().unwrap();
            for facts in table.blocks() {
                let block = &list[at..at + usize::from(facts.count)];
                let versions =
                    list[at..].windows(2).take(block.len()).any(|pair| key(&pair[0]) == key(&pair[1]));
                let ranges = block.iter().any(|plain| matches!(plain.3, Said::DeleteTo(_)));
                let gone = facts.codec != Codec::None && matches!(source, Source::File | Source::CachedFile);
                let found = cursor.block();
                assert_eq!(found.is_some(), !(versions || ranges || gone), "block {}", facts.number);
                if let Some(found) = found {
                    lent += 1;
                    check_facts(&found);
                    assert_eq!(cursor.block_last().unwrap().raw(), found.last.raw());
                    let seen: Vec<_> = found.records().map(|found| plain(found.unwrap().1)).collect();
                    assert_eq!(seen, block);
                    assert_eq!((found.crc, u64::from(found.raw_len)), (facts.crc, facts.raw_len));
                    assert_eq!(found.stored.len() as u64, facts.stored_len);
                }
                for _ in 1..facts.count {
                    cursor.next().unwrap();
                    assert!(cursor.block().is_none() && cursor.block_last().is_none());
                }
                cursor.next().unwrap();
                at += usize::from(facts.count);
            }
            assert!(cursor.record().is_none() && cursor.block().is_none());
            cursor.skip_block().unwrap();
            assert!(cursor.record().is_none());
            assert!(lent > 0 || compression != Compression::None);
        }
    }
}

#[test]
fn what_is_not_as_it_should_be_is_refused_and_changes_nothing() {
    let options = small(PointIndex::Location, Compression::None);
    let table = open(&write(&plain_puts(100), &options).0, Source::Bytes).unwrap();
    let packed =
        open(&write(&plain_puts(100), &small(PointIndex::Location, Compression::Lz4)).0, Source::Bytes)
            .unwrap();
    let ranges = Model::from([((9, vec![1], Reverse(3)), Said::DeleteTo(vec![2]))]);
    let ranges = open(&write(&ranges, &options).0, Source::Bytes).unwrap();
    let (mut cursor, mut packed, mut ranges) = (table.cursor(), packed.cursor(), ranges.cursor());
    cursor.first().unwrap();
    packed.first().unwrap();
    ranges.first().unwrap();
    let block = cursor.block().unwrap();
    let compressed = packed.block().unwrap();
    assert_eq!(compressed.codec, Codec::Lz4);
    let range = ranges.record().unwrap();

    let mut writer = TableWriter::new(Vec::new(), options).unwrap();
    // A newer version of the block's first key.
    writer.put(KeyspaceId(1), &[0; 4], Seqno(9), b"").unwrap();
    let refused = [
        writer.add_block(&block),
        writer.add_block(&compressed),
        writer.add_block(&WholeBlock { records: range.raw(), count: 1, ..block }),
    ];
    assert!(refused.into_iter().all(|found| matches!(found, Err(Error::InvalidArgument(_)))));
    cursor.skip_block().unwrap();
    let block = cursor.block().unwrap();
    let cut_short = WholeBlock { records: &block.records[..block.records.len() - 4], ..block };
    assert!(writer.add_block(&cut_short).unwrap_err().is_corruption());
    assert!(writer.add_block(&WholeBlock { count: block.count - 1, ..block }).is_err());
    assert_eq!(writer.count(), 1);
    // The key before it is the last one still, although its block was closed.
    assert_eq!(writer.last_key().unwrap().user_key, [0; 4]);
    let before =
        [writer.put(KeyspaceId(0), b"z", Seqno(1), b""), writer.put(KeyspaceId(1), &[0; 4], Seqno(9), b"")];
    assert!(before.into_iter().all(|found| matches!(found, Err(Error::InvalidArgument(_)))));
    writer.add_block(&block).unwrap();
    assert_eq!(writer.count(), 1 + u64::from(block.count));
    let again =
        [writer.add_block(&block), writer.add(block.last), writer.put(KeyspaceId(0), b"z", Seqno(1), b"")];
    assert!(again.into_iter().all(|found| matches!(found, Err(Error::InvalidArgument(_)))));
    // An older version of the block's last key is in order.
    writer.delete(KeyspaceId(1), block.last.key(), Seqno(6)).unwrap();
    let (bytes, info) = writer.finish().unwrap();
    assert_eq!((info.count, info.keys), (2 + u64::from(block.count), 1 + u64::from(block.count)));
    open(&bytes, Source::Bytes).unwrap().verify().unwrap();
}

#[test]
fn damage_on_the_way_is_carried_along_with_the_checksum_that_finds_it() {
    for compression in COMPRESSIONS {
        let options = small(PointIndex::Location, compression);
        let table = open(&write(&plain_puts(20), &options).0, Source::Bytes).unwrap();
        let mut cursor = table.cursor();
        cursor.first().unwrap();
        let block = cursor.block().unwrap();
        let mut stored = block.stored.to_vec();
        stored[40] ^= 1;
        let mut writer = TableWriter::new(Vec::new(), options).unwrap();
        writer.add_block(&WholeBlock { stored: &stored, ..block }).unwrap();
        let copy = open(&writer.finish().unwrap().0, Source::Bytes).unwrap();
        let error = copy.cursor().first().unwrap_err().to_string();
        assert!(error.contains("block checksum"), "{error}");
    }
}

#[test]
fn a_writer_takes_what_leaves_its_blocks_well_filled() {
    let options = small(PointIndex::Location, Compression::None);
    let table = open(&write(&plain_puts(1_000), &options).0, Source::Bytes).unwrap();
    let mut cursor = table.cursor();
    cursor.first().unwrap();
    let first = cursor.block().unwrap();
    let writer = |options: &TableOptions| {
        let mut writer = TableWriter::new(Vec::new(), options.clone()).unwrap();
        writer.put(KeyspaceId(0), b"first", Seqno(1), b"").unwrap();
        writer
    };
    assert!(writer(&options).takes(&first));
    for other in [
        TableOptions { compression: Compression::Lz4, ..options.clone() },
        TableOptions { block_len: 4 * options.block_len, ..options.clone() },
        TableOptions { block_len: options.block_len / 4, ..options.clone() },
        TableOptions { table_len: 200, ..options.clone() },
    ] {
        assert!(!writer(&other).takes(&first), "{other:?}");
    }
    // Before every block stands one more record, so that each would close a nearly empty block.
    let mut writer = writer(&options);
    let mut taken = 0;
    while let Some(block) = cursor.block() {
        let behind = [block.last.key(), b"\0"].concat();
        if writer.takes(&block) {
            writer.add_block(&block).unwrap();
            taken += 1;
        } else {
            block.records().for_each(|found| writer.add(found.unwrap().1).unwrap());
        }
        writer.put(KeyspaceId(1), &behind, Seqno(1), b"").unwrap();
        cursor.skip_block().unwrap();
    }
    let table = open(&writer.finish().unwrap().0, Source::Bytes).unwrap();
    table.verify().unwrap();
    let short = table.blocks().filter(|block| block.raw_len < options.block_len as u64 / 2).count();
    let blocks = table.info().blocks as usize;
    assert!(taken > blocks / 9 && short <= blocks / 9 + 2, "{taken} taken, {short} short of {blocks}");
}
