//! Keys: their order, the heads that stand for them, the names of files, and the search for one.
//!
//! ```text
//!   input = keys and targets by turns: flags u8, keyspace u8, trailer u16, length u8, bytes
//! ```
//!
//! Oracle: the order is that of the tuple (keyspace, bytes, trailer downwards); a head never contradicts it, whatever
//! the prefix; memtable and tables of every block length find each target where a sorted list has it.
//!
//! Threading: as every body.

use std::cmp::Reverse;

use pebble_cursor::Cursor;
use pebble_format::{
    AppendRegion, FileName, HeadPrefix, InternalKey, KeyspaceId, Kind, OwnedKey, Seqno, Trailer,
};
use pebble_memtable::Memtable;
use pebble_sstable::{PointIndex, TableOptions};

use crate::input::Input;
use crate::records::{encoded, key_of, parsed, sorted};
use crate::tables::{open, written};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "keys", run, repair: None, seeds, rounds: 8_000 };

/// Most keys of an input.
const KEYS_MAX: usize = 128;

fn key(input: &mut Input<'_>) -> (bool, OwnedKey) {
    let flags = input.u8();
    let keyspace = [0, 1, 2, u16::MAX][usize::from(input.u8() & 3)];
    let number = u64::from(input.u16());
    let seqno = if flags & 2 == 0 { Seqno(number) } else { Seqno(Seqno::MAX.0 - number) };
    let kind = if flags & 4 == 0 { Kind::Put } else { Kind::Delete };
    let len = usize::from(input.u8() % 24);
    let prefix: &[u8] = if flags & 8 == 0 { b"" } else { b"a long prefix of " };
    let user_key = [prefix, input.take(len)].concat();
    let trailer = Trailer::new(seqno, kind);
    let key = InternalKey { keyspace: KeyspaceId(keyspace), user_key: &user_key, trailer };
    (flags & 1 == 1, OwnedKey::new(key))
}

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut keys, mut targets) = (Vec::new(), Vec::new());
    while !input.is_empty() && keys.len() + targets.len() < KEYS_MAX {
        let (is_target, key) = key(&mut input);
        if is_target { targets.push(key) } else { keys.push(key) }
    }
    let all: Vec<&OwnedKey> = keys.iter().chain(&targets).collect();
    for pair in all.windows(2) {
        assert_order(pair[0].as_ref(), pair[1].as_ref());
    }
    if let [first, .., last] = all[..] {
        assert_order(first.as_ref(), last.as_ref());
        assert_heads(&all, first.as_ref(), last.as_ref());
    }
    assert_names(bytes);
    let encode = |key: &OwnedKey| {
        let key = key.as_ref();
        encoded(key.keyspace.0, key.user_key, key.trailer.seqno().0, key.trailer.kind().unwrap(), b"")
    };
    let records = sorted(keys.iter().map(encode).collect());
    if !records.is_empty() {
        assert_found(&records, &all);
    }
}

fn assert_order(a: InternalKey<'_>, b: InternalKey<'_>) {
    let tuple = |key: &InternalKey<'_>| (key.keyspace.0, key.user_key.to_vec(), Reverse(key.trailer.0));
    assert_eq!(a.cmp(&b), tuple(&a).cmp(&tuple(&b)));
    assert_eq!(b.cmp(&a), a.cmp(&b).reverse());
    assert_eq!(a == b, a.cmp(&b).is_eq());
    assert_eq!(a.same_key(&b), a.keyspace == b.keyspace && a.user_key == b.user_key);
    assert_eq!(OwnedKey::new(a).cmp(&OwnedKey::new(b)), a.cmp(&b));
}

fn assert_heads(all: &[&OwnedKey], first: InternalKey<'_>, last: InternalKey<'_>) {
    let (low, high) = if first < last { (first, last) } else { (last, first) };
    let between = HeadPrefix::between(low, high);
    assert!(low.user_key.starts_with(between.bytes()) && high.user_key.starts_with(between.bytes()));
    for prefix in [between, HeadPrefix::none(), HeadPrefix::new(first.keyspace, first.user_key)] {
        let head = |key: InternalKey<'_>| prefix.head(key.keyspace, key.user_key);
        for pair in all.windows(2) {
            let (a, b) = (pair[0].as_ref(), pair[1].as_ref());
            assert!(head(a) == head(b) || (head(a) < head(b)) == (a < b), "heads against the order");
        }
    }
}

fn assert_names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(40)]) else { return };
    if let Some(name) = FileName::parse(text) {
        assert_eq!(name.to_string(), text, "two names of one file");
    }
    let mut number = [0; 8];
    for (to, from) in number.iter_mut().zip(bytes) {
        *to = *from;
    }
    let number = u64::from_le_bytes(number);
    for name in [FileName::Log(number), FileName::Table(number), FileName::Manifest(number)] {
        assert_eq!(FileName::parse(&name.to_string()), Some(name));
    }
}

fn assert_found(records: &[Vec<u8>], targets: &[&OwnedKey]) {
    let mut appender = AppendRegion::heap(records.iter().map(Vec::len).sum());
    // What keys are expected to share is a guess, and may be a bad one.
    let guess = key_of(&records[records.len() / 2]);
    let (mut writer, memtable) = Memtable::new(HeadPrefix::new(guess.keyspace, guess.user_key));
    assert!(writer.attach(appender.region()).unwrap());
    // Not in their order, or the memtable would never descend.
    for at in (0..records.len()).step_by(2).chain((1..records.len()).step_by(2)) {
        let offset = appender.filled();
        appender.spare()[..records[at].len()].copy_from_slice(&records[at]);
        appender.fill(records[at].len());
        writer.insert(offset).unwrap();
    }
    assert_seeks(&mut memtable.cursor(), records, targets);
    for (block_len, index) in [(64, PointIndex::Location), (4096, PointIndex::None)] {
        let options = TableOptions { block_len, index, ..TableOptions::default() };
        let table = open(&written(records.iter().map(|record| parsed(record)), options)).unwrap();
        assert_seeks(&mut table.cursor(), records, targets);
        for target in targets {
            let target = target.as_ref();
            let after = records.partition_point(|record| key_of(record) < target);
            let model = records.get(after).filter(|record| key_of(record).same_key(&target));
            let found = table.get(target).unwrap();
            assert_eq!(found.as_ref().map(|found| found.record().raw()), model.map(Vec::as_slice));
            let in_memory = memtable.get(target).map(|record| record.raw());
            assert_eq!(in_memory, model.map(Vec::as_slice));
        }
    }
}

fn assert_seeks(cursor: &mut impl Cursor, records: &[Vec<u8>], targets: &[&OwnedKey]) {
    for target in targets {
        let target = target.as_ref();
        let after = records.partition_point(|record| key_of(record) < target);
        cursor.seek(target).unwrap();
        assert_eq!(cursor.record().map(|record| record.raw()), records.get(after).map(Vec::as_slice));
        cursor.seek_before(target).unwrap();
        let before = after.checked_sub(1).map(|at| records[at].as_slice());
        assert_eq!(cursor.record().map(|record| record.raw()), before);
    }
}

fn seeds() -> Vec<Seed> {
    let key = |flags: u8, keyspace: u8, number: u16, bytes: &[u8]| {
        let number = number.to_le_bytes();
        [&[flags, keyspace, number[0], number[1], bytes.len() as u8], bytes].concat()
    };
    let versions: Vec<u8> = (0..20).flat_map(|n| key(u8::from(n % 5 == 0), 0, n, b"same")).collect();
    let mixed = [
        key(0, 0, 1, b""),
        key(8, 0, 2, b"x"),
        key(8, 0, 3, b"xy"),
        key(6, 3, 4, &[0xff; 9]),
        key(1, 1, 9, b"\0\0"),
        key(9, 0, 9, b"xx"),
    ];
    vec![("versions", versions), ("mixed", mixed.concat()), ("name", b"MANIFEST-000001".to_vec())]
}
