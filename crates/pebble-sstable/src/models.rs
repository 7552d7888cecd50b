//! Loom models of the block cache: lookups beside insertions that evict and tables that are forgotten, in every
//! interleaving.
//!
//! Threading: loom's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;
use pebble_format::{KeyspaceId, Kind, Pinned, RecordRef, Seqno, Trailer, record};

use crate::block::{Block, BlockBuilder};
use crate::cache::BlockCache;

/// A block with one record, whose value is `fill` all over.
fn block(fill: u8) -> Block {
    let mut bytes = vec![0; record::encoded_len(1, 500)];
    let trailer = Trailer::new(Seqno(u64::from(fill)), Kind::Put);
    record::encode(&mut bytes, KeyspaceId(0), b"k", trailer, &[fill; 500]).unwrap();
    let mut builder = BlockBuilder::default();
    builder.push(RecordRef::parse(&bytes).unwrap());
    Block::open(Pinned::copy(builder.close().unwrap()), 1).unwrap()
}

fn fill_of(block: &Block) -> u8 {
    let record = block.record(0).unwrap();
    let fill = record.value()[0];
    assert!(record.value().iter().all(|byte| *byte == fill), "whole");
    fill
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    let bound = std::env::var("PEBBLE_LOOM_BOUND").ok().and_then(|bound| bound.parse().ok());
    builder.preemption_bound = Some(bound.unwrap_or(3));
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions");
    assert!(executions > 1, "a model that does not branch models nothing");
}

/// A cache with room for three blocks, and four that are asked for: what is found is what was put there, a block that
/// is held stays whole while it is evicted, and the bound holds.
#[test]
fn lookups_beside_evictions() {
    check(|| {
        let cache = Arc::new(BlockCache::new(2200));
        cache.insert(7, 0, &block(1));
        let threads: Vec<_> = [[1, 2], [3, 2]]
            .into_iter()
            .map(|numbers| {
                let cache = Arc::clone(&cache);
                thread::spawn(move || {
                    let held = cache.get(7, 0);
                    for number in numbers {
                        let fill = u8::try_from(number).unwrap() + 1;
                        match cache.get(7, number) {
                            Some(found) => assert_eq!(fill_of(&found), fill),
                            None => cache.insert(7, number, &block(fill)),
                        }
                        assert!(cache.used() <= cache.capacity());
                    }
                    assert!(held.is_none_or(|held| fill_of(&held) == 1), "what is held stays");
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let alone = BlockCache::new(2200);
        alone.insert(7, 0, &block(1));
        let there = (0..4).filter(|number| cache.get(7, *number).is_some()).count();
        assert_eq!(cache.used(), there * alone.used(), "each block is kept and counted once");
        cache.forget(7, 0..4);
        assert_eq!(cache.used(), 0, "every byte that was counted is given back once");
    });
}

/// A table is forgotten while another one's blocks come and go.
#[test]
fn a_table_forgotten_beside_another() {
    check(|| {
        let cache = Arc::new(BlockCache::new(1500));
        let (gone, kept) = (cache.register(), cache.register());
        cache.insert(gone, 0, &block(1));
        cache.insert(kept, 0, &block(2));
        let reader = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                for number in [0, 1] {
                    match cache.get(kept, number) {
                        Some(found) => assert_eq!(fill_of(&found), 2),
                        None => cache.insert(kept, number, &block(2)),
                    }
                }
            })
        };
        cache.forget(gone, 0..1);
        assert!(cache.get(gone, 0).is_none());
        reader.join().unwrap();
        cache.forget(kept, 0..2);
        assert_eq!(cache.used(), 0);
    });
}
