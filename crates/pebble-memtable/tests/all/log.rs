//! What the tests share: a memtable over heap regions, and a seeded generator.

use std::sync::Arc;

use pebble_format::{
    AppendRegion, Appender, HeadPrefix, InternalKey, KeyspaceId, Kind, Result, Seqno, Trailer, record,
};
use pebble_memtable::{Memtable, MemtableWriter};

/// A memtable and the region that its next records go to.
pub struct Log {
    pub writer: MemtableWriter,
    pub appender: Appender,
    pub seqno: u64,
}

impl Log {
    pub fn new(prefix: HeadPrefix, capacity: usize) -> (Self, Arc<Memtable>) {
        let (mut writer, memtable) = Memtable::new(prefix);
        let appender = AppendRegion::heap(capacity);
        assert!(writer.attach(appender.region()).unwrap());
        (Self { writer, appender, seqno: 0 }, memtable)
    }

    /// Appends a record and indexes it; another region of the same size is taken when this one is full.
    pub fn add(&mut self, keyspace: u16, key: &[u8], trailer: Trailer, value: &[u8]) -> Result<()> {
        if self.appender.remaining() < record::encoded_len(key.len(), value.len()) {
            self.appender = AppendRegion::heap(self.appender.region().capacity());
            assert!(self.writer.attach(self.appender.region()).unwrap());
        }
        let at = self.appender.filled();
        let len = record::encode(self.appender.spare(), KeyspaceId(keyspace), key, trailer, value).unwrap();
        self.appender.fill(len);
        self.writer.insert(at)
    }

    /// Adds the next version of a key.
    pub fn put(&mut self, keyspace: u16, key: &[u8], value: &[u8]) -> Seqno {
        self.seqno += 1;
        self.add(keyspace, key, Trailer::new(Seqno(self.seqno), Kind::Put), value).unwrap();
        Seqno(self.seqno)
    }
}

pub fn key(keyspace: u16, user_key: &[u8], seqno: u64) -> InternalKey<'_> {
    InternalKey::lookup(KeyspaceId(keyspace), user_key, Seqno(seqno))
}

/// splitmix64.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
