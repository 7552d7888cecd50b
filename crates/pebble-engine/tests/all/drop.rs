//! What a keyspace that was dropped leaves behind: nothing that a later open could stumble over.

use pebble_engine::{Durability, Error};
use pebble_format::RecordBatch;
use pebble_vfs::SimFs;

use crate::open;

/// A record of a keyspace without a name is damage to the next open, so no kind of write may add one.
#[test]
fn nothing_is_written_to_a_keyspace_that_was_dropped() {
    let disk = SimFs::new(2);
    let engine = open(disk.clone()).unwrap();
    let gone = engine.keyspace("gone").unwrap();
    engine.put(gone, b"k", b"v", Durability::Buffered).unwrap();
    assert!(engine.drop_keyspace("gone").unwrap());
    let mut batch = RecordBatch::new();
    batch.put(gone, b"k", b"late").unwrap();
    let buffered = Durability::Buffered;
    for refused in [
        engine.put(gone, b"k", b"late", buffered),
        engine.delete(gone, b"k", buffered),
        engine.delete_range(gone, b"", b"", buffered),
        engine.clear(gone, buffered),
        engine.write(&batch, buffered),
        engine.try_write(&batch, buffered),
    ] {
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    }
    drop(engine);
    let engine = open(disk.kill()).unwrap();
    assert_eq!(engine.keyspace_names(), ["default"]);
    let anew = engine.keyspace("gone").unwrap();
    assert!(engine.get(anew, b"k", None).unwrap().is_none());
}
