//! The block cache: bounded, shared, and of no influence on what is read.

use std::sync::Arc;

use pebble_format::{KeyspaceId, Seqno};
use pebble_sstable::{
    BlockCache, Compression, PointIndex, Table, TableOptions, TableReadOptions, TableWriter,
};

use crate::model::{Said, get};

fn table(cache: &Arc<BlockCache>, byte: u8) -> Arc<Table> {
    let options = TableOptions {
        compression: Compression::Lz4,
        index: PointIndex::Location,
        ..TableOptions::default()
    };
    let mut writer = TableWriter::new(Vec::new(), options).unwrap();
    for n in 0..4_000_u32 {
        writer.put(KeyspaceId(0), &n.to_be_bytes(), Seqno(1), &[byte; 100]).unwrap();
    }
    let (bytes, info) = writer.finish().unwrap();
    assert!(info.data_len < info.raw_len / 2);
    Table::from_bytes(bytes, "t", TableReadOptions { cache: Some(Arc::clone(cache)) }).unwrap()
}

#[test]
fn tables_share_a_bounded_cache_and_never_see_each_others_blocks() {
    let cache = Arc::new(BlockCache::new(256 << 10));
    let tables = [table(&cache, 1), table(&cache, 2)];
    for round in 0..3 {
        for n in (0..4_000_u32).step_by(7) {
            for (table, byte) in tables.iter().zip([1, 2]) {
                let found = get(table, 0, &n.to_be_bytes(), 9).unwrap().unwrap();
                assert_eq!(found.3, Said::Put(vec![byte; 100]), "round {round}, key {n}");
            }
            assert!(cache.used() <= cache.capacity());
        }
    }
    let [one, other] = tables;
    let both = cache.used();
    drop(one);
    let left = cache.used();
    assert!(0 < left && left < both);
    drop(other);
    assert_eq!(cache.used(), 0);
}

#[test]
fn threads_read_one_table_through_one_cache() {
    let cache = Arc::new(BlockCache::new(128 << 10));
    let table = table(&cache, 5);
    std::thread::scope(|scope| {
        for start in 0..4_u32 {
            let table = &table;
            scope.spawn(move || {
                for n in (start..4_000).step_by(5) {
                    assert!(get(table, 0, &n.to_be_bytes(), 9).unwrap().is_some());
                    assert!(get(table, 1, &n.to_be_bytes(), 9).unwrap().is_none());
                }
            });
        }
    });
    assert!(cache.used() <= cache.capacity());
}
